#include "frontends/block/attachment_nbd.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>

#include "frontends/block/nbd_netlink.h"
#include "ring/text_file.h"

namespace caisson::block::frontend {

namespace {

constexpr int socket_room = 2 * 1024 * 1024;  // a request of the largest size, or many small ones

std::string owner_of(const std::string& path) { return "caisson " + path; }

// Where the link `path` leads, if it is one.
std::string target_of(const std::string& path) {
    std::array<char, PATH_MAX> text;
    const ssize_t length = ::readlink(path.c_str(), text.data(), text.size());
    return length < 0 ? "" : std::string(text.data(), static_cast<std::size_t>(length));
}

std::optional<std::uint32_t> index_of(const std::string& device) {
    constexpr std::string_view start = "/dev/nbd";
    if (!device.starts_with(start)) return std::nullopt;
    return parse_decimal<std::uint32_t>(std::string_view(device).substr(start.size()));
}

// A controller that was killed left a device whose requests nobody answers.
void end_predecessor(const NbdNetlink& driver, const std::string& path) {
    const auto index = index_of(target_of(path));
    if (!index) return;
    const auto backend = read_text("/sys/block/nbd" + std::to_string(*index) + "/backend");
    const bool owned = backend && !backend->empty();
    const bool ours = owned && backend->substr(0, backend->find('\n')) == owner_of(path);
    if (!owned || ours) ::unlink(path.c_str());
    if (ours) (void)driver.disconnect(*index);
}

class NbdDevice final : public Attachment {
  public:
    NbdDevice(std::string path, NbdNetlink driver, NbdSockets sockets)
        : path_(std::move(path)), driver_(std::move(driver)), sockets_(std::move(sockets)) {}
    ~NbdDevice() override {
        if (!index_) return;
        if (target_of(path_) == device()) ::unlink(path_.c_str());
        // First: the driver says goodbye on the socket, and would wait for room there.
        ::shutdown(sockets_.ours.get(), SHUT_RDWR);
        (void)driver_.disconnect(*index_);
    }
    Kind kind() const override { return Kind::nbd; }
    const Fd& descriptor() const override { return sockets_.ours; }

    Status connected(const Geometry& disk) override {
        if (index_) return driver_.resize(*index_, disk, owner_of(path_));
        struct stat seen{};
        if (::lstat(path_.c_str(), &seen) == 0) return host_fault(EEXIST, "there is something else at", path_);
        index_ = TRY(driver_.connect(sockets_.drivers, disk, owner_of(path_)));
        sockets_.drivers.reset();
        if (::symlink(device().c_str(), path_.c_str()) != 0) return host_fault(errno, "link", path_);
        return {};
    }

  private:
    std::string device() const { return "/dev/nbd" + std::to_string(*index_); }

    std::string path_;
    NbdNetlink driver_;
    NbdSockets sockets_;
    std::optional<std::uint32_t> index_;  // the device is there
};

}  // namespace

Result<NbdSockets> NbdSockets::make() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return host_fault(errno, "socketpair");
    for (const int end : ends)
        if (::setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &socket_room, sizeof socket_room) != 0)
            ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &socket_room, sizeof socket_room);
    return NbdSockets{Fd(ends[0]), Fd(ends[1])};
}

Result<std::unique_ptr<Attachment>> open_nbd(const std::string& path) {
    if (::access("/dev/nbd0", F_OK) != 0) return host_fault(errno, "find", "/dev/nbd0");
    NbdNetlink driver = TRY(NbdNetlink::open());
    end_predecessor(driver, path);
    return std::make_unique<NbdDevice>(path, std::move(driver), TRY(NbdSockets::make()));
}

}  // namespace caisson::block::frontend
