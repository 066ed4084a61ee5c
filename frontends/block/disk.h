// A PV disk in a program's own process: controller and data path in one thread, on the program's Loop.
//
//     auto xen = local::open("/run/caisson/hypervisor");     // or open_disk(), which finds everything by itself
//     auto store = Store::open("");
//     auto loop = Loop::make();
//     auto disk = Disk::open(**xen, *store, **loop, {.device = DeviceId(51712)});
//     (*disk)->write(0, bytes, [](Status done) { ... });
//     (*loop)->run();
//
// Three ways to use it, which may be mixed:
//   - polled: submit() and poll(), nothing allocated, no system call while the backend polls too; zero copy with a
//     Buffer;
//   - callbacks: read(), write(), flush(), discard() with a function;
//   - coroutines: co_await disk.read(offset, bytes).
//
// It survives its backend: when that dies, restarts or is replaced by another domain, everything unanswered is issued
// again to the next one, oldest first, and nobody sees an error. Only a backend that is connected and silent for
// Options::patience fails a request (ETIMEDOUT).
//
// Errors of a request are errno values: EINVAL not on the disk's sectors; EIO outside of the disk, or the backend's
// word; EROFS; EOPNOTSUPP; ETIMEDOUT. A write that is answered is in the backend's cache; it is durable after a flush.
// A flush on a disk that keeps nothing back succeeds at once. Requests that overlap and are in flight together have no
// order.
//
// Threads: one, the loop's. Functions given to a Disk are called from poll() or from the loop, never from inside the
// call that they were given to; they may ask for more, but neither poll() nor destroy the Disk.
// Lifetime: hypervisor, store and loop outlive the Disk, and until then the Store's watches are the Disk's. Bytes that
// a read fills must stay until it is answered; those of a write are copied at once by submit(), and must stay for the
// other two ways.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <coroutine>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "protocols/block_commands.h"
#include "protocols/block_names.h"
#include "ring/fd.h"
#include "ring/hypervisor.h"
#include "ring/loop.h"
#include "ring/store.h"

namespace caisson::block {

class Disk {
  public:
    struct Options {
        DeviceId device{};
        std::optional<DomainId> backend = {};  // none: whichever xenstore names
        unsigned queues = 1, ring_order = 2;   // at most
        std::uint32_t arena_pages = 1024;      // of data in flight
        bool persistent = true;
        std::chrono::milliseconds timeout{10000};  // of open()
        std::chrono::seconds patience{30};
    };
    // Turns the loop until the disk is there. The device's nodes are the toolstack's to write.
    static Result<std::unique_ptr<Disk>> open(Hypervisor& hypervisor, Store& store, Loop& loop, Options options);
    ~Disk();
    Disk(const Disk&) = delete;

    const Geometry& geometry() const;  // as it was last known
    bool connected() const;            // false: the backend is away; requests wait
    unsigned queues() const;
    std::uint64_t largest_request() const;  // bytes of one submit()
    // How often the disk has come back to a backend.
    unsigned reconnects() const;
    // Called when the disk has another size (online resize) or another backend.
    void on_change(std::function<void()> changed);

    // ---- Polled ----
    // Pages of the arena, for data that is not copied. Gone with the Disk, or give_back(), never while in use.
    struct Buffer {
        std::uint16_t first = 0;
        std::uint32_t pages = 0;
    };
    // ENOSPC: the arena has not so many neighbouring pages.
    Result<Buffer> buffer(std::size_t bytes);
    void give_back(Buffer buffer);
    // Its bytes: another span after a reconnect, and another domain as the backend leaves only what was in flight.
    // Empty while the disk is not connected. The backend can read and write it at any time.
    SharedSpan memory(Buffer buffer) const;

    struct Request {
        Operation operation = Operation::read;
        bool secure = false;                   // discard
        std::uint64_t offset = 0, length = 0;  // bytes
        std::span<std::byte> data = {};        // read into, or written from; `length` bytes
        std::span<const iovec> parts = {};     // or many of them; at most 64, `length` bytes in all
        std::optional<Buffer> buffer = {};     // or a Buffer, from its start
        std::uint64_t cookie = 0;
    };
    // 0: taken, its cookie comes out of poll() once. EAGAIN: no room now, or no backend; ask again. Else the error that
    // the request has: it is not taken. What was taken reaches the backend at doorbell() or poll().
    int submit(const Request& request);
    void doorbell();
    // done(cookie, error) for each submit() that ended. Turn the loop, too, whenever there is nothing to do and now and
    // then when there is (a reconnect is the loop's): loop.turn({}) does not wait.
    template <class Done>
    unsigned poll(Done&& done) {
        const std::span<const Ended> ended = poll_rings();
        for (const Ended& one : ended) done(one.cookie, one.error);
        return static_cast<unsigned>(ended.size());
    }

    // ---- Callbacks: of any length ----
    using Callback = std::function<void(Status)>;
    void read(std::uint64_t offset, std::span<std::byte> into, Callback done);
    void write(std::uint64_t offset, std::span<const std::byte> from, Callback done);
    void flush(Callback done);
    void discard(std::uint64_t offset, std::uint64_t length, Callback done, bool secure = false);

    // ---- Coroutines: co_await gives a Status ----
    class [[nodiscard]] Awaited {
      public:
        bool await_ready() const { return false; }
        void await_suspend(std::coroutine_handle<> waiting) {
            start_([this, waiting](Status done) {
                result_ = std::move(done);
                waiting.resume();
            });
        }
        Status await_resume() { return std::move(result_); }

      private:
        friend class Disk;
        explicit Awaited(std::function<void(Callback)> start) : start_(std::move(start)) {}
        std::function<void(Callback)> start_;
        Status result_;
    };
    Awaited read(std::uint64_t offset, std::span<std::byte> into) {
        return Awaited([=, this](Callback done) { read(offset, into, std::move(done)); });
    }
    Awaited write(std::uint64_t offset, std::span<const std::byte> from) {
        return Awaited([=, this](Callback done) { write(offset, from, std::move(done)); });
    }
    Awaited flush() {
        return Awaited([this](Callback done) { flush(std::move(done)); });
    }
    Awaited discard(std::uint64_t offset, std::uint64_t length) {
        return Awaited([=, this](Callback done) { discard(offset, length, std::move(done)); });
    }

  private:
    class Impl;
    struct Ended {
        std::uint64_t cookie = 0;
        int error = 0;
    };
    std::span<const Ended> poll_rings();  // good until the next call
    explicit Disk(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// A disk of the domain that this program runs in, with everything that it needs: the hypervisor's socket is
// ring/port.h's to find; xenstore is where libxenstore finds it. `name`: as device_named().
// The controller of the domain's frontends leaves a device alone that has the node `claimed` in its directory
// (caisson_disk=["vdev=xvda,claimed=1"] in the cfg file). Without it: EBUSY when somebody serves the disk already, else
// this writes it. EBUSY, too, while another program has the disk open.
struct OpenDisk {
    Fd alone;  // held as long as the disk is open
    std::unique_ptr<Hypervisor> hypervisor;
    std::unique_ptr<Store> store;
    std::unique_ptr<Loop> loop;
    std::unique_ptr<Disk> disk;

    OpenDisk() = default;
    OpenDisk(OpenDisk&&) = default;
    OpenDisk& operator=(OpenDisk&& other) noexcept {  // the disk first: it says goodbye with the rest
        disk = std::move(other.disk);
        loop = std::move(other.loop);
        store = std::move(other.store);
        hypervisor = std::move(other.hypervisor);
        alone = std::move(other.alone);
        return *this;
    }
};
Result<OpenDisk> open_disk(std::string_view name, Disk::Options options = {});

}  // namespace caisson::block
