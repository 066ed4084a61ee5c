// The connections of one disk's workers to its NBD server, one after the other: the controller's part, which a sealed
// worker cannot do. A new worker gets one with its handover. One that has lost its connection asks for another by the
// key `lost` of the backend's directory, and gets it over a line, a socket that it was given beside the first.
//
// Threads: the controller's.
#pragma once

#include "backends/block/nbd_server.h"

namespace caisson::block::backend {

namespace key {
// Ours, in the backend's directory, written for the worker: "NUMBER.ANYTHING" asks for a connection in the place of the
// one of that number (connection_number).
inline constexpr std::string_view nbd_lost = "caisson-nbd-lost";
}  // namespace key

class NbdConnections {
  public:
    static Result<std::shared_ptr<NbdConnections>> make(TargetName name);

    // A device connects. `promised`: what its first connection has; it has to hold for those that follow.
    void begin(const Geometry& promised, bool read_only) {
        promised_ = promised, read_only_ = read_only;
        any_ = false;
    }
    // For a worker. Without a server: an error for the first, whose device then does not connect; for a successor a
    // connection that has ended already, about which it asks like any other.
    Result<Fd> next();
    const Fd& line() const { return workers_; }
    // Over the line, in the place of the one of the number `lost`. Nothing when that is not the last one: a worker asks
    // again while it waits, and what it is to get may be on its way. Waits as NbdServer does.
    Status renew(std::uint64_t lost);

  private:
    NbdConnections(TargetName name, Fd ours, Fd workers)
        : name_(std::move(name)), ours_(std::move(ours)), workers_(std::move(workers)) {}
    Result<Fd> connect();
    void see_off();

    TargetName name_;
    Geometry promised_;
    bool read_only_ = false, any_ = false;
    Fd ours_, workers_;  // the line
    Fd last_;
};

// Which connection this is, in all processes that have it: no two that are open have one number.
std::uint64_t connection_number(const Fd& connection);

// The two ends of a line. The worker's: a connection, if one has come. ECONNRESET: there is nobody any more.
Result<std::optional<Fd>> take_connection(const Fd& line);
Status send_connection(const Fd& line, const Fd& connection);

}  // namespace caisson::block::backend
