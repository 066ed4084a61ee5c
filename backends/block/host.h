// A host is what really moves a disk's data: a file or a raw device, an NBD export, memory, nothing. One object a
// device, in its sealed worker; it opens nothing, the controller did (target.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "protocols/block_commands.h"
#include "ring/in_flight.h"
#include "ring/memory.h"

namespace caisson::block::backend {

// Who hears of the end of an Io. `error`: 0 or an errno value. Called on the worker's thread, exactly once an Io,
// perhaps before submit() returns.
class Completions {
  public:
    virtual ~Completions() = default;
    virtual void done(Tag tag, int error) = 0;
};

// One thing to do; all of it is checked and lies inside the disk. The bytes are the frontend's pages in place (opaque:
// nobody looks at them, the kernel or one copy moves them) or private memory, never both. They stay until done(), the
// lists of spans only during submit().
struct Io {
    Tag tag{};
    Operation operation = Operation::read;  // never barrier: the worker makes it of flush and write
    bool secure = false;                    // discard
    std::uint64_t offset = 0, length = 0;   // bytes
    std::span<const SharedSpan> shared;
    std::span<std::byte> bounced;
};

class Host {
  public:
    // When it returns, nobody touches the memory of any Io any more, the kernel neither: the worker unmaps the
    // frontend's pages right afterwards. No done() is called from it or later.
    virtual ~Host() = default;

    // False while requests of a predecessor may still be with the kernel: nothing is submitted before it says true. The
    // worker asks every millisecond.
    virtual bool ready() { return true; }

    // What the worker checks requests against and the controller publishes.
    virtual Geometry geometry() const = 0;

    // Every Io is done before submit() returns: then `shared` may be views that are good for this turn only.
    virtual bool immediate() const { return false; }

    // How many requests may be done before the frontend hears of the first: few where each takes a while, for the two
    // sides then work at the same time.
    virtual std::uint32_t batch() const { return 4; }

    // Starts it. Calls Completions::done() now or later, whatever happens. Order among Ios in flight is not kept.
    virtual void submit(const Io& io) = 0;

    // After a batch of submits: what was only prepared goes to the kernel.
    virtual void flush_batch() {}

    // The target grew or shrank (resize); called with what the controller found.
    virtual void resized(std::uint64_t /*sectors*/) {}

    // How many Ios are not done.
    virtual std::size_t pending() const = 0;
};

}  // namespace caisson::block::backend
