// The queues of a data path on a loop: each is polled, armed and woken for itself.
#pragma once

#include <memory>
#include <vector>

#include "frontends/block/data_path.h"
#include "ring/loop.h"

namespace caisson::block::frontend {

// Owner: poll_queue(number) and arm_queue(number), as Polled has them. It outlives this.
template <class Owner>
class Bells {
  public:
    void serve(Loop& loop, const DataPath& path, Owner& owner) {
        for (unsigned i = 0; i < path.queues(); ++i) {
            Bell& bell = *bells_.emplace_back(std::make_unique<Bell>(owner, i));
            bell.served = loop.serve(bell, {&path.channel(i)});
        }
    }
    void clear() { bells_.clear(); }

  private:
    struct Bell final : Polled {
        Bell(Owner& of, unsigned number) : owner(of), queue(number) {}
        bool poll() override { return owner.poll_queue(queue); }
        bool arm() override { return owner.arm_queue(queue); }
        Owner& owner;
        unsigned queue;
        Loop::Handle served;
    };

    std::vector<std::unique_ptr<Bell>> bells_;
};

}  // namespace caisson::block::frontend
