// The console's frontend for the catalogue.
#pragma once

#include "ring/device.h"

namespace caisson::console {

ClassHalf frontend_half();

}  // namespace caisson::console
