// FUSE as a worker speaks it: one regular file, the mount's root, that is the disk. Source: linux/fuse.h, and Linux'
// fs/fuse/dev.c and file.c for what it does with the answers.
//
// Every file is opened with direct I/O: a write that is answered has reached the backend, fsync() is a flush, and the
// kernel keeps nothing that another program on the other side of the disk might change. Programs need not care for
// sectors: reads are rounded out; a write that does not lie on sectors is made of a read and a write, alone in flight.
//
// Killed at any instruction, no request is lost. The kernel counts a request as ours once it was read; it is read
// straight into the journal's Inbox, whose header was cleared before. A successor that finds a header serves it, unless
// a request with that number is in the table already. The header is cleared when it is. An answer that is given twice
// is refused by the kernel (ENOENT), which harms nobody.
//
// Threads: the device's.
#pragma once

#include <linux/fuse.h>

#include "frontends/block/attachment_server.h"

namespace caisson::block::frontend {

class FuseServer final : public AttachmentServer {
  public:
    // `fd`: /dev/fuse, mounted, non-blocking.
    FuseServer(Fd fd, Inbox& inbox, DataPath& path);

    int wait_fd() const override { return fd_.get(); }
    Served serve(unsigned budget) override;
    void ended(Tag tag, std::uint64_t cookie, int error) override;

  private:
    enum class Done : std::uint8_t { yes, no_room };
    const fuse_in_header& header() const { return *reinterpret_cast<const fuse_in_header*>(inbox_.message.data()); }
    template <class T>
    const T& body() const {
        return *reinterpret_cast<const T*>(inbox_.message.data() + sizeof(fuse_in_header));
    }
    bool pending() const { return header().len != 0; }
    void clear();
    bool fetch(Served& served);
    bool complete() const;
    Done handle();
    Done read();
    Done write();
    Done write_off_sectors(std::uint64_t offset, std::uint32_t size);
    Done submit(const Requests::Wanted& wanted, std::span<const iovec> source);
    Done allocate();
    void greet();
    void attributes();
    void open();
    void answer(int error, std::span<const std::byte> body = {});
    template <class T>
    void answer(const T& body) {
        answer(0, std::as_bytes(std::span(&body, 1)));
    }
    void send(std::uint64_t unique, int error, std::span<iovec> parts);
    bool off_sectors(const Entry& entry) const {
        return entry.operation == static_cast<std::uint8_t>(Operation::write) && (entry.skip | entry.trim) != 0;
    }

    Fd fd_;
    Inbox& inbox_;
    DataPath& path_;
    bool found_ = false;  // the message in the inbox is a predecessor's
    bool alone_ = false;  // a write that does not lie on sectors is in flight

    // A write that does not lie on sectors: what it will write, once the sectors were read. Between the two the disk
    // may change its size, and with it what the write comes to: what was read is good only for the message and the
    // sectors that it was read for.
    struct Merge {
        enum class Step : std::uint8_t { none, reading, ready } step = Step::none;
        std::uint64_t unique = 0, first = 0, last = 0;
        std::vector<std::byte> bytes;
        int error = 0;
    } merge_;
};

}  // namespace caisson::block::frontend
