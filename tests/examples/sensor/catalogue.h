// The row: all that the framework needs to know about the class.
#pragma once

#include "backend.h"
#include "frontend.h"

namespace sensor {

template <class Control>
std::unique_ptr<caisson::DeviceControl> make() {
    return std::make_unique<Control>();
}

inline constexpr caisson::ClassEntry row{
    .name = device_class,
    .frontend = {.control = make<FrontendControl>, .serve = FrontendWorker::serve},
    .backend = {.control = make<BackendControl>, .serve = BackendWorker::serve},
};

}  // namespace sensor
