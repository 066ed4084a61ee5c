#include "domains/catalogue.h"

#include <array>

#include "backends/block/block.h"
#include "backends/console/console.h"
#include "backends/net/net.h"
#include "frontends/block/block.h"
#include "frontends/console/console.h"
#include "frontends/net/net.h"

namespace caisson {

Catalogue catalogue() {
    static const std::array classes{
        ClassEntry{"vif", net::frontend_half(), net::backend_half()},
        ClassEntry{"console", console::frontend_half(), console::backend_half()},
        ClassEntry{"vbd", block::frontend_half(), block::backend_half()},
    };
    return classes;
}

}  // namespace caisson
