// The only list of device classes. It is passed to main's commands; nothing registers itself.
#pragma once

#include "ring/device.h"

namespace caisson {

Catalogue catalogue();

}  // namespace caisson
