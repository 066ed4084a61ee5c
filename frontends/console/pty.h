// The attachment: a pty in the guest, with the name that Xen's guests know, /dev/hvcID. Opened and kept by the
// controller, so the programs on it notice nothing of a worker's death.
#pragma once

#include <string>
#include <vector>

#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::console {

class GuestPty {
  public:
    GuestPty() = default;
    GuestPty(GuestPty&&) = default;
    GuestPty& operator=(GuestPty&&) = default;
    ~GuestPty();  // takes the links away

    // A new pty with the ordinary line discipline (echo, line editing, "\n" to "\r\n"). `links` become symbolic links
    // to its slave; a link that leads to a pty is replaced, anything else in the way is an error.
    static Result<GuestPty> open(std::vector<std::string> links);

    explicit operator bool() const { return static_cast<bool>(master_); }
    const Fd& master() const { return master_; }  // non-blocking
    const std::string& slave() const { return name_; }

  private:
    Fd master_, slave_;  // the slave stays open: modes survive, and the master never sees an end of file
    std::string name_;
    std::vector<std::string> links_;
};

}  // namespace caisson::console
