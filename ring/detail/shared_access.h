// The one door between SharedSpan and an address. For ring/ only.
#pragma once

#include "ring/memory.h"

namespace caisson::detail {

struct SharedAccess {
    static SharedSpan span(void* base, std::size_t size) { return {static_cast<std::byte*>(base), size}; }
    static std::byte* base(SharedSpan shared) { return shared.base_; }
};

}  // namespace caisson::detail
