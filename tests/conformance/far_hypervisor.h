// The port's interface, spoken in another domain of real Xen; and the words through which a case touches memory and
// channels wherever they are.
#pragma once

#include <memory>
#include <string>

#include "ring/hypervisor.h"
#include "tests/conformance/far_domain.h"

namespace caisson::conformance {

// What it hands out has no memory and no event here: SharedSpan and EventChannel are names, for the calls below.
// `capabilities`: of this domain's port; the other one runs the same.
std::unique_ptr<Hypervisor> make_far_hypervisor(std::shared_ptr<FarDomain> domain, Capabilities capabilities);

// Who is asked about these pages, or this channel; nobody when they are of this domain.
struct FarThing {
    FarDomain* domain = nullptr;
    std::string handle;
    std::size_t offset = 0;
};
FarThing far_thing(SharedSpan memory);
FarThing far_thing(const EventChannel& channel);

// A socket (for Store::open) behind which the store sees that domain. It is relayed message by message, in a thread.
class FarStore {
  public:
    explicit FarStore(std::shared_ptr<FarDomain> domain);
    ~FarStore();
    std::string path() const;

  private:
    struct Relay;
    std::unique_ptr<Relay> relay_;
};

}  // namespace caisson::conformance
