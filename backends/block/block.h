// The block class's backend half, for the catalogue.
#pragma once

#include "ring/device.h"

namespace caisson::block {

ClassHalf backend_half();

}  // namespace caisson::block
