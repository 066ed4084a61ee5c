#include "frontends/block/fuse_server.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace caisson::block::frontend {

namespace {

constexpr std::uint32_t largest_write = 1024 * 1024;
constexpr std::uint64_t merging = 0;  // the cookie of a read for a write; the kernel's numbers are never 0
static_assert(Inbox::bytes >= largest_write + sizeof(fuse_in_header) + sizeof(fuse_write_in));
static_assert(Inbox::bytes >= FUSE_MIN_READ_BUFFER);

constexpr std::uint32_t parallel_direct_writes = 1u << 6;  // FOPEN_PARALLEL_DIRECT_WRITES, Linux 6.2

int told(int error) { return error == ETIMEDOUT ? EIO : error; }

}  // namespace

FuseServer::FuseServer(Fd fd, Inbox& inbox, DataPath& path) : fd_(std::move(fd)), inbox_(inbox), path_(path) {
    fetch_pages(inbox_);
    found_ = pending();
    for (const Tag tag : path_.requests().in_state(Entry::taken)) alone_ |= off_sectors(path_.requests()[tag]);
}

void FuseServer::clear() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    const std::uint32_t none = 0;
    std::memcpy(inbox_.message.data(), &none, sizeof none);
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

// ---- Messages ------------------------------------------------------------------------------------------------------

FuseServer::Served FuseServer::serve(unsigned budget) {
    Served served;
    while (served.messages < budget) {
        if (!pending() && !fetch(served)) return served;
        if (std::exchange(found_, false) && path_.requests().has_cookie(header().unique)) {
            clear();  // it came so far
            continue;
        }
        if (handle() == Done::no_room) {
            served.full = true;
            return served;
        }
        clear();
        ++served.messages;
    }
    return served;
}

bool FuseServer::fetch(Served& served) {
    for (;;) {
        const ssize_t got = ::read(fd_.get(), inbox_.message.data(), inbox_.message.size());
        if (got >= 0 && complete() && header().len == static_cast<std::size_t>(got)) return true;
        const int error = got < 0 ? errno : EPROTO;
        clear();
        if (error == EINTR || error == ENOENT) continue;  // ENOENT: interrupted before we had it
        served.gone = error != EAGAIN;
        return false;
    }
}

// As long as its operation says. It is the kernel's word, but a predecessor may have written there.
bool FuseServer::complete() const {
    const std::size_t length = header().len;
    if (length < sizeof(fuse_in_header) || length > inbox_.message.size()) return false;
    const std::size_t rest = length - sizeof(fuse_in_header);
    switch (header().opcode) {
        case FUSE_INIT: return rest >= 16;  // without what newer kernels add
        case FUSE_OPEN: return rest >= sizeof(fuse_open_in);
        case FUSE_READ: return rest >= sizeof(fuse_read_in);
        case FUSE_WRITE:
            return rest >= sizeof(fuse_write_in) && body<fuse_write_in>().size <= largest_write &&
                   body<fuse_write_in>().size == rest - sizeof(fuse_write_in);
        case FUSE_FALLOCATE: return rest >= sizeof(fuse_fallocate_in);
        default: return true;
    }
}

FuseServer::Done FuseServer::handle() {
    if (!complete()) return answer(EIO), Done::yes;
    switch (header().opcode) {
        case FUSE_INIT: return greet(), Done::yes;
        case FUSE_GETATTR: return attributes(), Done::yes;
        case FUSE_SETATTR: return attributes(), Done::yes;  // a disk keeps its size, and its owner is the mount's
        case FUSE_OPEN: return open(), Done::yes;
        case FUSE_READ: return read();
        case FUSE_WRITE: return write();
        case FUSE_FSYNC: return submit({.operation = Operation::flush, .cookie = header().unique}, {});
        case FUSE_FALLOCATE: return allocate();
        case FUSE_RELEASE: return answer(0), Done::yes;
        case FUSE_STATFS: return answer(fuse_statfs_out{}), Done::yes;
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_DESTROY: return Done::yes;  // want no answer
        case FUSE_LOOKUP: return answer(ENOTDIR), Done::yes;
        default: return answer(ENOSYS), Done::yes;  // the kernel does without, and most of them it never asks again
    }
}

void FuseServer::greet() {
    const auto& wish = body<fuse_init_in>();
    fuse_init_out out{};
    out.major = FUSE_KERNEL_VERSION;
    out.minor = std::min<std::uint32_t>(wish.minor, FUSE_KERNEL_MINOR_VERSION);
    if (wish.major != FUSE_KERNEL_VERSION || wish.minor < 28) return answer(EPROTO);  // 28: FUSE_MAX_PAGES
    out.max_readahead = wish.max_readahead;
    out.flags = wish.flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES);
    out.max_background = 128;
    out.congestion_threshold = 96;
    out.max_write = largest_write;
    out.time_gran = 1;
    out.max_pages = largest_write / page_size;
    inbox_.minor = out.minor;
    inbox_.initialised = 1;
    answer(out);
}

void FuseServer::attributes() {
    const Geometry& disk = path_.geometry();
    fuse_attr_out out{};  // valid for no time at all: a disk may grow
    out.attr.ino = FUSE_ROOT_ID;
    out.attr.size = disk.bytes();
    out.attr.blocks = disk.sectors;
    out.attr.mode = S_IFREG | (disk.read_only() ? 0440 : 0660);
    out.attr.nlink = 1;
    out.attr.blksize = std::max<std::uint32_t>(disk.physical_sector_size, page_size);
    answer(out);
}

void FuseServer::open() {
    if (path_.geometry().read_only() && (body<fuse_open_in>().flags & O_ACCMODE) != O_RDONLY) return answer(EROFS);
    fuse_open_out out{};
    out.open_flags = FOPEN_DIRECT_IO | parallel_direct_writes;
    answer(out);
}

// ---- Requests ------------------------------------------------------------------------------------------------------

FuseServer::Done FuseServer::submit(const Requests::Wanted& wanted, std::span<const iovec> source) {
    const int error = path_.check(wanted.operation, wanted.secure, wanted.offset, wanted.length);
    if (error != 0) return answer(error), Done::yes;
    if (alone_) return Done::no_room;
    return path_.submit(wanted, source) ? Done::yes : Done::no_room;
}

FuseServer::Done FuseServer::read() {
    const auto& wish = body<fuse_read_in>();
    const std::uint64_t end = path_.geometry().bytes(), unit = path_.geometry().sector_size;
    if (wish.size > largest_write) return answer(EINVAL), Done::yes;
    if (wish.offset >= end || wish.size == 0) return answer(0), Done::yes;
    const std::uint64_t size = std::min<std::uint64_t>(wish.size, end - wish.offset);
    const std::uint64_t first = wish.offset & ~(unit - 1), last = (wish.offset + size + unit - 1) & ~(unit - 1);
    return submit({.operation = Operation::read,
                   .offset = first,
                   .length = last - first,
                   .cookie = header().unique,
                   .skip = static_cast<std::uint16_t>(wish.offset - first),
                   .trim = static_cast<std::uint16_t>(last - wish.offset - size)},
                  {});
}

FuseServer::Done FuseServer::write() {
    const auto& wish = body<fuse_write_in>();
    const std::uint64_t end = path_.geometry().bytes(), unit = path_.geometry().sector_size;
    if (path_.geometry().read_only()) return answer(EROFS), Done::yes;
    if (wish.size == 0) return answer(fuse_write_out{}), Done::yes;
    if (wish.offset >= end) return answer(ENOSPC), Done::yes;
    const auto size = static_cast<std::uint32_t>(std::min<std::uint64_t>(wish.size, end - wish.offset));
    if (((wish.offset | size) & (unit - 1)) != 0) return write_off_sectors(wish.offset, size);
    const iovec data{inbox_.message.data() + sizeof(fuse_in_header) + sizeof(fuse_write_in), size};
    return submit({.operation = Operation::write, .offset = wish.offset, .length = size, .cookie = header().unique},
                  {&data, 1});
}

// Alone in flight, so that no other write of the same sectors is undone. The message stays in the inbox until the write
// is in the table: a successor begins anew.
FuseServer::Done FuseServer::write_off_sectors(std::uint64_t offset, std::uint32_t size) {
    const std::uint64_t unit = path_.geometry().sector_size;
    const std::uint64_t first = offset & ~(unit - 1), last = (offset + size + unit - 1) & ~(unit - 1);
    if (merge_.step == Merge::Step::reading) return Done::no_room;
    if (merge_.unique != header().unique || merge_.first != first || merge_.last != last)
        merge_.step = Merge::Step::none;
    if (merge_.step == Merge::Step::none) {
        if (!path_.requests().in_state(Entry::taken).empty()) return Done::no_room;
        if (path_.submit({.operation = Operation::read, .offset = first, .length = last - first, .cookie = merging},
                         {}))
            merge_ = {.step = Merge::Step::reading, .unique = header().unique, .first = first, .last = last};
        return Done::no_room;
    }
    if (merge_.error != 0) {
        merge_.step = Merge::Step::none;
        return answer(told(merge_.error)), Done::yes;
    }
    std::memcpy(merge_.bytes.data() + (offset - first),
                inbox_.message.data() + sizeof(fuse_in_header) + sizeof(fuse_write_in), size);
    const iovec data{merge_.bytes.data(), merge_.bytes.size()};
    const auto tag = path_.submit({.operation = Operation::write,
                                   .offset = first,
                                   .length = last - first,
                                   .cookie = header().unique,
                                   .skip = static_cast<std::uint16_t>(offset - first),
                                   .trim = static_cast<std::uint16_t>(last - offset - size)},
                                  {&data, 1});
    if (!tag) return Done::no_room;
    merge_.step = Merge::Step::none;
    alone_ = true;
    return Done::yes;
}

// A hole is a discard; what lies beyond whole sectors would have to be written.
FuseServer::Done FuseServer::allocate() {
    const auto& wish = body<fuse_fallocate_in>();
    const Geometry& disk = path_.geometry();
    if (wish.mode == 0)
        return answer(fits<std::uint64_t>(wish.offset, wish.length, disk.bytes()) ? 0 : ENOSPC), Done::yes;
    if (wish.mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) return answer(EOPNOTSUPP), Done::yes;
    return submit(
        {.operation = Operation::discard, .offset = wish.offset, .length = wish.length, .cookie = header().unique}, {});
}

// ---- Answers -------------------------------------------------------------------------------------------------------

void FuseServer::ended(Tag tag, std::uint64_t cookie, int error) {
    const Entry& entry = path_.requests()[tag];
    if (cookie == merging) {
        if (merge_.step != Merge::Step::reading) return;  // a predecessor's
        merge_.error = error;
        merge_.bytes.resize(entry.length);
        const iovec to{merge_.bytes.data(), merge_.bytes.size()};
        if (error == 0) path_.copy_out(tag, 0, {&to, 1});
        merge_.step = Merge::Step::ready;
        return;
    }
    if (off_sectors(entry)) alone_ = false;
    const std::size_t size = entry.length - entry.skip - entry.trim;
    std::array<iovec, pages_a_request + 1> parts;
    std::size_t used = 1;
    fuse_write_out written{};
    if (error == 0 && entry.operation == static_cast<std::uint8_t>(Operation::read))
        used += path_.for_kernel(tag, entry.skip, size, std::span(parts).subspan(1));
    if (error == 0 && entry.operation == static_cast<std::uint8_t>(Operation::write)) {
        written.size = static_cast<std::uint32_t>(size);
        parts[used++] = {&written, sizeof written};
    }
    send(cookie, told(error), std::span(parts).first(used));
}

void FuseServer::answer(int error, std::span<const std::byte> bytes) {
    std::array<iovec, 2> parts;
    parts[1] = {const_cast<std::byte*>(bytes.data()), bytes.size()};  // writev only reads it
    send(header().unique, error, std::span(parts).first(bytes.empty() ? 1 : 2));
}

// parts[0] is for the header. What the kernel does not take it does not want any more.
void FuseServer::send(std::uint64_t unique, int error, std::span<iovec> parts) {
    fuse_out_header out{.len = sizeof out, .error = -error, .unique = unique};
    parts[0] = {&out, sizeof out};
    for (const iovec& part : parts.subspan(1)) out.len += static_cast<std::uint32_t>(part.iov_len);
    fetch_pages(parts.subspan(1));
    while (::writev(fd_.get(), parts.data(), static_cast<int>(parts.size())) < 0 && errno == EINTR) {
    }
}

}  // namespace caisson::block::frontend
