// Where people attach to a console: a pty, or a socket. The controller opens it and keeps it for as long as the device
// lives, so a pty survives its workers; a worker reads and writes it.
#pragma once

#include <span>
#include <string>

#include "protocols/console.h"
#include "ring/fd.h"

namespace caisson::console {

// ---- In the controller ----

struct OpenHost {
    OpenHost() = default;
    OpenHost(OpenHost&&) = default;
    OpenHost& operator=(OpenHost&&) = default;
    ~OpenHost();  // removes the socket from the file system

    HostKind kind = HostKind::none;
    Fd fd;              // the pty's master, or the listening socket; non-blocking
    Fd slave;           // kept open: a pty without one forgets its modes and fails its master
    std::string where;  // what goes into `tty` or `path`; empty: nowhere
};
Result<OpenHost> open_host(const Settings& settings, DomainId frontend, DeviceId id);

// A new pty: raw, master non-blocking.
Result<OpenHost> open_raw_pty();

// ---- In the worker ----

// Bytes to and from whoever is attached. Nothing here blocks or raises a signal.
class HostPort {
  public:
    HostPort() = default;
    HostPort(HostKind kind, Fd fd);

    HostKind kind() const { return kind_; }
    // The socket to accept on; -1 when there is none.
    int listener() const { return listener_.get(); }
    // What to read and write; -1 when nobody is attached.
    int line() const { return line_.get(); }
    bool attached() const { return static_cast<bool>(line_); }

    // A client has come. False when it was sent away again, because one is attached already.
    bool accept();
    void hang_up() { line_.reset(), input_ended_ = false; }

    // How much was written; 0 when the reader does not take more now. A client that has gone is hung up.
    std::size_t write(std::span<const std::byte> bytes);
    // How much was read; 0 when there is nothing now.
    std::size_t read(std::span<std::byte> to);
    // A client that has closed its sending half may still want to listen.
    bool input_ended() const { return input_ended_; }
    // POLLOUT, POLLHUP and the like, without waiting.
    short look() const;

  private:
    HostKind kind_ = HostKind::none;
    Fd listener_, line_;
    bool input_ended_ = false;
};

}  // namespace caisson::console
