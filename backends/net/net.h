// The net class, backend half, as domains/catalogue.cpp names it.
#pragma once

#include "ring/device.h"

namespace caisson::net {

ClassHalf backend_half();

}  // namespace caisson::net
