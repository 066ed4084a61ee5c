// Messages with descriptors between a controller and a worker, over SOCK_SEQPACKET, without ever blocking.
//
// A message may be longer than a packet and may carry more descriptors than one (the kernel's limit is 253): it travels
// as frames and is delivered whole. The controller's side gives tight limits, since a worker may have been taken over
// by its guest: whoever exceeds them is cut off.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "ring/fd.h"
#include "ring/loop.h"

namespace caisson {

enum class MailKind : std::uint32_t {
    // controller to worker
    hello = 1,  // HelloBody: which class half, before the sandbox closes
    attach,     // AttachBody, the Handover's bytes; descriptors: journal, statistics, hypervisor, the Handover's
    update,     // what DeviceControl::changed() returned
    detach,
    // worker to controller
    armed,     // sealed: ready for devices
    attached,  // serving
    failed,    // ErrorBody: cannot serve
    broken,    // ErrorBody: no longer touches the ring
    publish,   // key, NUL, value
    detached,
};

struct Mail {
    MailKind kind{};
    std::uint32_t device = 0;  // the controller's number for it
    std::vector<std::byte> bytes;
    std::vector<Fd> descriptors;
};

class Mailbox {
  public:
    struct Limits {
        std::size_t bytes = 0, descriptors = 0;  // of one message
        unsigned turn = 16;                      // messages taken in one turn of the loop
    };
    struct Handlers {
        std::function<void(Mail)> received;
        std::function<void(const char* why)> closed;  // the other side is gone or broke the rules; at most once
    };
    // Handlers may destroy the mailbox.
    Mailbox(Loop& loop, Fd socket, Limits limits, Handlers handlers);
    ~Mailbox();
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    // Descriptors are borrowed; they are duplicated only when the message has to wait for the other side to read, or
    // for a kernel that takes no more descriptors into sockets for this user: then it is tried again, ever less often.
    void send(MailKind kind, std::uint32_t device, std::span<const std::byte> bytes = {},
              std::span<const int> descriptors = {});

  private:
    struct Frame {
        std::vector<std::byte> packet;
        std::vector<Fd> descriptors;
    };
    void receive();
    bool receive_one();
    void flush();
    enum class Sent : std::uint8_t { done, full, crowded };
    Sent try_send(std::span<const std::byte> packet, std::span<const int> descriptors);
    void wait(Sent because);
    void close(const char* why);

    Loop& loop_;
    Fd socket_;
    Limits limits_;
    Handlers handlers_;
    Mail partial_;
    std::deque<Frame> waiting_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    Loop::Handle readable_, writable_, pause_;
    Loop::Clock::duration next_pause_{};
};

// A connected pair: {controller's end, worker's end}.
Result<std::pair<Fd, Fd>> make_mail_sockets();

}  // namespace caisson
