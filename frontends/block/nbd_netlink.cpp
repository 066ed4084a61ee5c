#include "frontends/block/nbd_netlink.h"

#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace caisson::block::frontend {

namespace {

// One message: headers and attributes, each padded to NLA_ALIGNTO.
class Message {
  public:
    Message(std::uint16_t family, std::uint8_t command) : bytes_(NLMSG_HDRLEN + GENL_HDRLEN) {
        const genlmsghdr generic{.cmd = command, .version = 1, .reserved = 0};
        header_.nlmsg_type = family;
        header_.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
        std::memcpy(bytes_.data() + NLMSG_HDRLEN, &generic, sizeof generic);
    }
    void put(std::uint16_t name, std::span<const std::byte> value) {
        const nlattr head{.nla_len = static_cast<std::uint16_t>(NLA_HDRLEN + value.size()), .nla_type = name};
        const auto* raw = reinterpret_cast<const std::byte*>(&head);
        bytes_.insert(bytes_.end(), raw, raw + sizeof head);
        bytes_.insert(bytes_.end(), value.begin(), value.end());
        bytes_.resize(NLA_ALIGN(bytes_.size()));
    }
    template <class T>
        requires std::is_integral_v<T>
    void put(std::uint16_t name, T value) {
        put(name, std::as_bytes(std::span(&value, 1)));
    }
    void put(std::uint16_t name, const std::string& text) {
        put(name, std::as_bytes(std::span(text.c_str(), text.size() + 1)));
    }
    // What inner() puts is the value of `name`.
    template <class Inner>
    void nest(std::uint16_t name, Inner&& inner) {
        const std::size_t at = bytes_.size();
        put(static_cast<std::uint16_t>(name | NLA_F_NESTED), std::span<const std::byte>());
        inner();
        const auto length = static_cast<std::uint16_t>(bytes_.size() - at);
        std::memcpy(bytes_.data() + at, &length, sizeof length);
    }
    std::span<const std::byte> bytes() {
        header_.nlmsg_len = static_cast<std::uint32_t>(bytes_.size());
        std::memcpy(bytes_.data(), &header_, sizeof header_);
        return bytes_;
    }

  private:
    nlmsghdr header_{};
    std::vector<std::byte> bytes_;
};

// The number that an answer has under `name`.
template <class T>
std::optional<T> number(std::span<const std::byte> attributes, std::uint16_t name) {
    while (attributes.size() >= NLA_HDRLEN) {
        nlattr head{};
        std::memcpy(&head, attributes.data(), sizeof head);
        if (head.nla_len < NLA_HDRLEN || head.nla_len > attributes.size()) break;
        if ((head.nla_type & NLA_TYPE_MASK) == name && head.nla_len == NLA_HDRLEN + sizeof(T)) {
            T value;
            std::memcpy(&value, attributes.data() + NLA_HDRLEN, sizeof value);
            return value;
        }
        attributes = attributes.subspan(std::min<std::size_t>(NLA_ALIGN(head.nla_len), attributes.size()));
    }
    return std::nullopt;
}

// Sends, and reads until the kernel has acknowledged: it does so before sendmsg() returns. `each` sees the attributes
// of what else it says.
template <class Each>
Status ask(const Fd& socket, Message& message, const char* what, Each&& each) {
    const auto bytes = message.bytes();
    if (::send(socket.get(), bytes.data(), bytes.size(), 0) < 0) return host_fault(errno, what);
    for (;;) {
        std::array<std::byte, 8192> reply;
        const ssize_t got = ::recv(socket.get(), reply.data(), reply.size(), MSG_DONTWAIT);
        if (got < 0) return host_fault(errno == EAGAIN ? EPROTO : errno, what);
        auto left = std::span<const std::byte>(reply).first(static_cast<std::size_t>(got));
        while (left.size() >= NLMSG_HDRLEN) {
            nlmsghdr head{};
            std::memcpy(&head, left.data(), sizeof head);
            if (head.nlmsg_len < NLMSG_HDRLEN || head.nlmsg_len > left.size()) return host_fault(EPROTO, what);
            const auto payload = left.first(head.nlmsg_len).subspan(NLMSG_HDRLEN);
            if (head.nlmsg_type == NLMSG_ERROR) {
                std::int32_t error = -EPROTO;
                if (payload.size() >= sizeof error) std::memcpy(&error, payload.data(), sizeof error);
                return error == 0 ? Status{} : host_fault(-error, what);
            }
            if (payload.size() >= GENL_HDRLEN) each(payload.subspan(GENL_HDRLEN));
            left = left.subspan(std::min<std::size_t>(NLMSG_ALIGN(head.nlmsg_len), left.size()));
        }
    }
}
Status ask(const Fd& socket, Message& message, const char* what) {
    return ask(socket, message, what, [](std::span<const std::byte>) {});
}

std::uint64_t flags_of(const Geometry& disk) {
    std::uint64_t flags = NBD_FLAG_HAS_FLAGS;
    if (disk.read_only()) flags |= NBD_FLAG_READ_ONLY;
    if (disk.flush || disk.barrier) flags |= NBD_FLAG_SEND_FLUSH;
    if (disk.discard) flags |= NBD_FLAG_SEND_TRIM;
    return flags;
}

}  // namespace

Result<NbdNetlink> NbdNetlink::open() {
    Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC));
    if (!socket) return host_fault(errno, "generic netlink");
    Message find(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
    find.put(CTRL_ATTR_FAMILY_NAME, std::string(NBD_GENL_FAMILY_NAME));
    std::optional<std::uint16_t> family;
    TRY(ask(socket, find, "the nbd module", [&](std::span<const std::byte> attributes) {
        family = number<std::uint16_t>(attributes, CTRL_ATTR_FAMILY_ID);
    }));
    if (!family) return host_fault(EPROTO, "the nbd module");
    // A question without a meaning, to hear whether we may ask at all: EINVAL says so.
    Message nothing(*family, NBD_CMD_RECONFIGURE);
    if (const Status asked = ask(socket, nothing, "the nbd module"); !asked && asked.error().err != EINVAL)
        return std::unexpected(asked.error());
    return NbdNetlink(std::move(socket), *family);
}

Result<std::uint32_t> NbdNetlink::connect(const Fd& socket, const Geometry& disk, const std::string& owner) const {
    Message message(family_, NBD_CMD_CONNECT);
    message.put(NBD_ATTR_SIZE_BYTES, disk.bytes());
    message.put(NBD_ATTR_BLOCK_SIZE_BYTES, std::uint64_t{disk.sector_size});
    message.put(NBD_ATTR_SERVER_FLAGS, flags_of(disk));
    message.put(NBD_ATTR_BACKEND_IDENTIFIER, owner);
    message.nest(NBD_ATTR_SOCKETS, [&] {
        message.nest(NBD_SOCK_ITEM, [&] { message.put(NBD_SOCK_FD, static_cast<std::uint32_t>(socket.get())); });
    });
    std::optional<std::uint32_t> index;
    TRY(ask(socket_, message, "a new nbd device",
            [&](std::span<const std::byte> attributes) { index = number<std::uint32_t>(attributes, NBD_ATTR_INDEX); }));
    if (!index) return host_fault(EPROTO, "a new nbd device");
    return *index;
}

Status NbdNetlink::resize(std::uint32_t index, const Geometry& disk, const std::string& owner) const {
    Message message(family_, NBD_CMD_RECONFIGURE);
    message.put(NBD_ATTR_INDEX, index);
    message.put(NBD_ATTR_SIZE_BYTES, disk.bytes());
    message.put(NBD_ATTR_BACKEND_IDENTIFIER, owner);
    return ask(socket_, message, "the size of an nbd device");
}

Status NbdNetlink::disconnect(std::uint32_t index) const {
    Message message(family_, NBD_CMD_DISCONNECT);
    message.put(NBD_ATTR_INDEX, index);
    return ask(socket_, message, "the end of an nbd device");
}

}  // namespace caisson::block::frontend
