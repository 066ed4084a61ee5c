// NBD (protocols/nbd.h) as a worker speaks it to the kernel's nbd driver, over one end of a stream socket. Source:
// Linux' drivers/block/nbd.c for what it sends.
//
// What it does not know or may not do is answered with an error; what is no request at all ends the conversation, for
// there is no way to find the next one. Whoever is on the other end may hold its answers back for ever: then its
// requests stay in the table, and when that is full nothing more is read.
//
// Killed at any instruction, no request is lost and none is answered twice (to the driver that is a broken server):
// both directions are counted in the journal (stream_count.h). A request that is all there stays in the Inbox until it
// is in the table; a successor that finds one serves it, unless its handle is in the table already. An entry of the
// table whose reply is out says `told` before anything forgets it.
//
// Threads: the device's.
#pragma once

#include <deque>

#include "frontends/block/attachment_server.h"
#include "protocols/nbd.h"

namespace caisson::block::frontend {

class NbdServer final : public AttachmentServer {
  public:
    // `fd`: a stream socket. EBADMSG: an inbox that no predecessor can have left.
    static Result<std::unique_ptr<AttachmentServer>> open(Fd fd, Inbox& inbox, DataPath& path);

    int wait_fd() const override { return fd_.get(); }
    short waits_for() const override { return replies_.empty() ? 0 : POLLOUT; }
    Served serve(unsigned budget) override;
    void ended(Tag tag, std::uint64_t cookie, int error) override;

  private:
    enum class Done : std::uint8_t { yes, no_room };

    NbdServer(Fd fd, Inbox& inbox, DataPath& path) : fd_(std::move(fd)), inbox_(inbox), path_(path) {}
    Status take_over();
    std::optional<nbd::Request> request() const;
    std::uint64_t bytes_of_message() const;
    bool complete() const { return inbox_.in.total() == bytes_of_message(); }
    bool fetch();
    Done handle(const nbd::Request& request);
    Done refuse(const nbd::Request& request, int error);
    void reply();
    bool send(Tag tag);
    bool said(Tag tag);
    void end_conversation();

    Fd fd_;
    Inbox& inbox_;
    DataPath& path_;
    bool found_ = false;  // the message in the inbox is a predecessor's
    bool gone_ = false;
    std::deque<Tag> replies_;  // held back: the socket is full; at most most_tags
};

}  // namespace caisson::block::frontend
