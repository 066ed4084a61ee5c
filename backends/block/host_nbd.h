// An NBD server (nbdkit, qemu-nbd): images of any format without a line of code here that reads one.
//
// The controller has connected and shaken hands (nbd_server.h); spoken here is what is left (protocols/nbd.h). Requests
// go out one after the other, replies come in any order; payload goes between the socket and the frontend's pages by
// the kernel.
//
// A server that sends a reply to nothing, or ends, has broken the connection. Requests that it has not answered are
// kept, as are those that come; the controller is asked for another connection, again and again with longer pauses, and
// over that one everything is sent once more, oldest first. What the server has acknowledged it must have: a write that
// it answered before it went is not sent again, and a flush answered by the next connection covers it only if nothing
// of it was lost with the server. nbdkit and qemu-nbd on a file write to the page cache before they answer, so the
// death of their process loses nothing; that of their machine may. After `patience` without a connection everything
// ends with EIO until there is one: nothing hangs.
#pragma once

#include <sys/socket.h>

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "backends/block/config.h"
#include "backends/block/host.h"
#include "protocols/nbd.h"
#include "ring/device.h"

namespace caisson::block::backend {

// What this host does in a sealed worker, beyond the base list.
void allow_nbd_host(WorkerPolicy& policy);

// Reads its part of the handover. `completions` outlives the host.
Result<std::unique_ptr<Host>> make_nbd_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                            Completions& completions);

// How another connection comes. Without a line there is none, and a broken one is the end at once.
struct NbdReconnect {
    Fd line{};  // nbd_connections.h
    std::function<void(const Fd& lost)> ask{};
    Loop::Clock::duration patience{};  // without an answer from the server
};

class NbdHost final : public Host, private KernelAnswers {
  public:
    NbdHost(Loop& loop, Fd socket, const Geometry& geometry, Completions& completions, Log& log,
            NbdReconnect reconnect = {});
    ~NbdHost() override;

    Geometry geometry() const override { return geometry_; }
    void submit(const Io& io) override;
    void flush_batch() override { send(); }
    void resized(std::uint64_t sectors) override { geometry_.sectors = sectors; }
    std::size_t pending() const override { return works_.size() - free_.size(); }

  private:
    // An Io that is not done. It is over when the kernel has sent all of it *and* the server has answered: the answer
    // may be seen first.
    struct Work {
        enum class Stage : std::uint8_t { free, queued, sending, sent } stage = Stage::free;
        bool answered = false;
        int error = 0;
        Tag tag{};
        Operation operation = Operation::read;
        std::uint64_t age = 0;
        std::uint32_t serial = 0;  // in the cookie: an answer to an earlier user of this place is found out
        std::uint64_t offset = 0, left = 0;
        std::uint32_t asked = 0;  // of `left`, by the request that is out
        std::array<std::byte, nbd::request_bytes> request{};
        std::vector<iovec> parts;
    };

    // What the kernel is to move next, over however many calls.
    struct Transfer {
        std::vector<iovec> parts;
        std::size_t first = 0;
        msghdr message{};
        bool busy = false;
        bool advance(std::size_t bytes);  // true: all of it
        void point();
    };

    void answered(std::uint32_t token, int result) override;
    void send();
    void sent(int result);
    void receive();
    void received(int result);
    Status take_reply();
    void settle_payload();
    void encode(Work& work, std::uint32_t token);
    void settle(std::uint32_t token);
    void finish(std::uint32_t token, int error);
    void break_off(const char* why);
    bool hopeless() const { return broken_ && (late_ || !reconnect_.line); }
    void note_answer();
    void wait_for_connection();
    void end_calls();
    void let_go();
    void fail_all();
    void keep_all();
    void ask();
    void take_connections();
    void resume(Fd socket);

    Loop& loop_;
    Fd socket_;
    Geometry geometry_;
    Completions& completions_;
    Log& log_;
    bool broken_ = false;                       // no connection, or the kernel is still at work with one that broke
    std::vector<std::unique_ptr<Work>> works_;  // by token; stable, the kernel reads them
    std::vector<std::uint32_t> free_, batch_;
    std::deque<std::uint32_t> queue_;
    Transfer out_, in_;
    std::array<std::byte, nbd::reply_bytes> reply_{};
    std::optional<std::uint32_t> payload_of_;  // what is being received is this read's data, then the next reply
    std::uint64_t next_age_ = 0;

    NbdReconnect reconnect_;
    bool heard_ = true;  // an answer, over this connection
    bool late_ = false;  // nothing was heard for as long as we have patience
    Fd fresh_;           // a connection that waits for the kernel to let go of the one before
    Loop::Handle line_watch_, retry_, patience_;
    Loop::Clock::duration pause_{};
};

}  // namespace caisson::block::backend
