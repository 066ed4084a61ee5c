// The worker's half of an attachment: messages of the disk's users into the table of requests, answers back. It dies
// with its worker; what its successor must know is in the journal's Inbox.
//
// Threads: the device's.
#pragma once

#include <poll.h>

#include "frontends/block/data_path.h"
#include "ring/fd.h"

namespace caisson::block::frontend {

class AttachmentServer {
  public:
    virtual ~AttachmentServer() = default;
    virtual int wait_fd() const = 0;
    // What wait_fd() must be ready for, beyond messages, so that serve() is called again: POLLOUT or nothing.
    virtual short waits_for() const { return 0; }
    // Takes messages until there are none, or no room for what they ask.
    struct Served {
        unsigned messages = 0;
        bool full = false;  // do not wait for messages: call again after an answer
        bool gone = false;  // nobody is there any more, or ever makes sense again
    };
    virtual Served serve(unsigned budget) = 0;
    // A request of this server ended; DataPath::poll() said so.
    virtual void ended(Tag tag, std::uint64_t cookie, int error) = 0;

  protected:
    // All of it is there before the kernel copies from it or into it: the kernel does not fetch a page for a process
    // that is being killed, and what it was about to do fails. A successor's pages are missing at first.
    static void fetch_pages(std::span<const iovec> parts);
    static void fetch_pages(Inbox& inbox);
};

}  // namespace caisson::block::frontend
