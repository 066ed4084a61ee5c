// The other end of a console's host: how the toolstack reaches it from outside the backend's domain.
//
// The backend's directory in xenstore names a place in the backend's domain (`tty` or `path`). That domain may be
// hostile to the control domain: a name is resolved inside its root and nowhere else (no "..", no link leads out, no
// magic link), and what is found there must be a pty or a socket.
#pragma once

#include <string>

#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::console {

struct AttachPoint {
    std::string tty, path;  // of the backend's directory; empty where there is none; `tty` goes first
};

// `root`: a descriptor of the root of the backend's domain (open("/proc/PID/root", O_PATH | O_DIRECTORY); for a backend
// in the control domain, "/"). The result is non-blocking and carries raw bytes both ways. End of file, and EIO of a
// pty, mean that the device is gone; a socket also ends when the worker was replaced, so try again before giving up.
Result<Fd> attach(int root, const AttachPoint& point);

}  // namespace caisson::console
