#include "domains/catalogue.h"

#include <array>

#include "backends/console/console.h"
#if __has_include("backends/net/net.h")
#include "backends/net/net.h"
#define CAISSON_HAS_NET 1
#endif
#include "frontends/console/console.h"
#include "frontends/net/net.h"

namespace caisson {

Catalogue catalogue() {
    static const std::array classes{
#ifdef CAISSON_HAS_NET
        ClassEntry{"vif", net::frontend_half(), net::backend_half()},
#endif
        ClassEntry{"console", console::frontend_half(), console::backend_half()},
    };
    return classes;
}

}  // namespace caisson
