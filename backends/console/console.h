// The console's backend for the catalogue.
#pragma once

#include "ring/device.h"

namespace caisson::console {

ClassHalf backend_half();

}  // namespace caisson::console
