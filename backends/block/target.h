// The controller's view of what a disk is: what the toolstack's `params` names is opened once, described, and opened
// again for each worker. A worker opens nothing.
//
//   /PATH                                          a regular file or a block device, as it is: no format is ever
//                                                  probed (XSA-258); "raw:" or "aio:" before it (libxl's qdisk) is the
//                                                  same, any other format is refused
//   memory:SIZE, null:SIZE                         SIZE in bytes, or with K, M, G, T
//   nbd:unix:/SOCKET[:EXPORT], nbd://HOST[:PORT][/EXPORT]    images of every format: nbdkit or qemu-nbd reads them
//
// Read-only is the mode of the descriptor that a worker gets (XSA-142, XSA-266), not a flag that it is asked to obey.
//
// Threads: the controller's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "backends/block/config.h"
#include "ring/fd.h"
#include "ring/handover.h"
#include "ring/store.h"

namespace caisson::block::backend {

// `params`, taken apart. Pure.
struct TargetName {
    HostKind kind = HostKind::null;
    std::string path;         // file: its path; nbd: the path of the socket
    std::string host, port;   // nbd over TCP
    std::string nbd_export;   // nbd: "" is the server's default
    std::uint64_t bytes = 0;  // memory, null
};
Result<TargetName> parse_target(std::string_view params);
// "4096", "64M": K, M, G and T are powers of 1024.
std::optional<std::uint64_t> parse_size(std::string_view text);

// What the toolstack wants of the disk, beside its name.
struct TargetWishes {
    bool read_only = false;
    bool shared = false;  // "w!": others may write it, too; the lock is LOCK_SH
    bool cdrom = false, removable = false;
    bool discard = true;
    std::optional<bool> direct_io;    // absent: where the file system takes it
    bool direct_io_safe = false;      // libxl: needed for direct I/O on a network's file system
    std::uint32_t sector_size = 512;  // of a file, memory and null: 512 or 4096; a block device and NBD say their own
};

class NbdConnections;

// One open target. Movable; hand_over() may be called any number of times.
struct Target {
    TargetName name;
    TargetWishes wishes;
    Geometry geometry;       // flush, discard and info included; `barrier` is the same as flush
    bool direct_io = false;  // what came of the wish
    bool in_memory = false;  // a RAM disk, or on a file system that lives in memory: nothing to wait for
    Fd file;                 // file: never locked, never read; memory: the memfd
    std::shared_ptr<NbdConnections> connections{};  // nbd: of its workers

    // Config's fields that say what the host is: host, in_memory, shared_target, geometry.
    void describe(Config& config) const;

    // The host's part of the handover, after the queues':
    //   file    {a descriptor made anew for each worker: an open file description of its own}
    //   memory  {a memfd of geometry.bytes()}
    //   nbd     {a connected socket past the NBD handshake, made anew for each worker; the line for others}
    //   null    {}
    // What is made anew can fail when a worker is started: the file was replaced by another size of device, the server
    // does not answer.
    Status hand_over(Handover& handover) const;
    // nbd: the worker has lost its connection; the next one goes over its line.
    Status renew(std::uint64_t lost) const;

    // How many sectors there are now (resize): looks at the open file, asks the NBD server.
    Result<std::uint64_t> look_again() const;
};

// Keys read from our own directory: params, mode, device-type, removable, direct-io-safe, discard-enable, and ours:
// caisson-direct-io, caisson-sector-size (protocols/block.h). A typing error of an operator is an error with
// its text.
Result<TargetWishes> read_wishes(const Directory& own);
Result<Target> open_target(const TargetName& name, const TargetWishes& wishes);
Result<Target> open_target(const Directory& own);

}  // namespace caisson::block::backend
