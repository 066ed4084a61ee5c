#include "frontends/console/pty.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

namespace caisson::console {

namespace {

std::string target_of(const std::string& link) {
    char target[PATH_MAX];
    const ssize_t length = ::readlink(link.c_str(), target, sizeof target);
    return length > 0 ? std::string(target, static_cast<std::size_t>(length)) : std::string();
}

Status make_link(const std::string& link, const std::string& target) {
    for (std::size_t at = link.find('/', 1); at != std::string::npos; at = link.find('/', at + 1))
        (void)::mkdir(link.substr(0, at).c_str(), 0755);
    if (target_of(link).starts_with("/dev/pts/")) ::unlink(link.c_str());  // a predecessor's
    if (::symlink(target.c_str(), link.c_str()) != 0) return host_fault(errno, "link a console", link);
    return {};
}

}  // namespace

GuestPty::~GuestPty() {
    if (!master_) return;
    for (const std::string& link : links_)
        if (target_of(link) == name_) ::unlink(link.c_str());
}

Result<GuestPty> GuestPty::open(std::vector<std::string> links) {
    GuestPty pty;
    pty.master_.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    if (!pty.master_) return host_fault(errno, "open a pty (is there a devpts?)");
    char name[64];
    if (::grantpt(pty.master_.get()) != 0 || ::unlockpt(pty.master_.get()) != 0 ||
        ::ptsname_r(pty.master_.get(), name, sizeof name) != 0)
        return host_fault(errno, "unlock a pty");
    pty.name_ = name;
    pty.slave_.reset(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!pty.slave_) return host_fault(errno, "open a pty's slave", name);
    for (std::string& link : links) {
        TRY(make_link(link, pty.name_));
        pty.links_.push_back(std::move(link));
    }
    return pty;
}

}  // namespace caisson::console
