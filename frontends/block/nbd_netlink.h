// The kernel's nbd driver, asked over generic netlink. Source: linux/nbd-netlink.h, and Linux' drivers/block/nbd.c.
//
// It is the first network namespace's alone, and wants CAP_SYS_ADMIN of the first user namespace: in a container there
// is none. Each call is answered before it returns.
#pragma once

#include <string>

#include "protocols/block.h"
#include "ring/fd.h"

namespace caisson::block::frontend {

class NbdNetlink {
  public:
    // ENOENT: no such module here. EPERM: not for us. The kernel's log gets a line of it ("must specify a device").
    static Result<NbdNetlink> open();

    // /dev/nbdN, with requests over `socket`; its number. `owner` stands in /sys/block/nbdN/backend, and is the
    // only one who may resize it.
    Result<std::uint32_t> connect(const Fd& socket, const Geometry& disk, const std::string& owner) const;
    Status resize(std::uint32_t index, const Geometry& disk, const std::string& owner) const;
    // What is in flight ends with an error, and so does everything after.
    Status disconnect(std::uint32_t index) const;

  private:
    NbdNetlink(Fd socket, std::uint16_t family) : socket_(std::move(socket)), family_(family) {}
    Fd socket_;
    std::uint16_t family_ = 0;
};

}  // namespace caisson::block::frontend
