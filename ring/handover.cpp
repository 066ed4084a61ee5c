#include "ring/handover.h"

namespace caisson {

// On the wire between controller and worker, both ours: a 4-byte length and the bytes, a value after the other. A
// descriptor is a value of its own kind so that a mismatch is found where it happens.
namespace {
using Length = std::uint32_t;
struct ChannelValue {
    EventChannel::Kind kind;
    std::uint8_t same_descriptor;  // wait and notify are one open file (Xen)
    DomainId peer;
    Port port;
};
}  // namespace

void Handover::put_bytes(std::span<const std::byte> value) {
    const auto length = static_cast<Length>(value.size());
    const auto prefix = std::as_bytes(std::span(&length, 1));
    bytes_.insert(bytes_.end(), prefix.begin(), prefix.end());
    bytes_.insert(bytes_.end(), value.begin(), value.end());
}

Status Handover::put(const Fd& fd) {
    descriptors_.push_back(TRY(fd.duplicate()));
    return {};
}

Status Handover::put(const EventChannel& channel) {
    const bool same = channel.wait_fd() == channel.notify_fd() || channel.notify_fd() < 0;
    put(ChannelValue{channel.kind(), same, channel.peer(), channel.port()});
    for (const int fd : {channel.wait_fd(), same ? -1 : channel.notify_fd()}) {
        if (fd < 0) continue;
        const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0) return host_fault(errno, "dup of an event channel");
        descriptors_.emplace_back(copy);
    }
    return {};
}

Status Handover::put(const SharedPages& pages) {
    put(pages.peer());
    put(pages.refs());
    const int copy = ::fcntl(pages.descriptor(), F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return host_fault(errno, "dup of shared pages");
    descriptors_.emplace_back(copy);
    return {};
}

void Handover::put_each_time(std::function<Result<Fd>()> make) {
    makers_.emplace(descriptors_.size(), std::move(make));
    descriptors_.emplace_back();
}

Result<std::vector<Fd>> Handover::copies() const {
    std::vector<Fd> all;
    for (std::size_t i = 0; i < descriptors_.size(); ++i) {
        const auto maker = makers_.find(i);
        all.push_back(maker == makers_.end() ? TRY(descriptors_[i].duplicate()) : TRY(maker->second()));
    }
    return all;
}

Result<HandoverReader> Handover::reader() const { return HandoverReader(bytes_, TRY(copies())); }

Result<std::span<const std::byte>> HandoverReader::next() {
    Length length = 0;
    if (!fits(at_, sizeof length, bytes_.size())) return host_fault(EBADMSG, "handover ends early");
    std::memcpy(&length, bytes_.data() + at_, sizeof length);
    at_ += sizeof length;
    if (!fits(at_, length, bytes_.size())) return host_fault(EBADMSG, "handover value is cut off");
    const std::span value(bytes_.data() + at_, length);
    at_ += length;
    return value;
}

Status HandoverReader::get_bytes(std::span<std::byte> out) {
    const auto value = TRY(next());
    if (value.size() != out.size()) return host_fault(EBADMSG, "handover value of another type");
    std::memcpy(out.data(), value.data(), out.size());
    return {};
}

Result<std::string> HandoverReader::text() {
    const auto value = TRY(next());
    return std::string(reinterpret_cast<const char*>(value.data()), value.size());
}

Result<std::vector<GrantRef>> HandoverReader::refs() {
    const auto value = TRY(next());
    if (value.size() % sizeof(GrantRef) != 0) return host_fault(EBADMSG, "handover value of another type");
    std::vector<GrantRef> refs(value.size() / sizeof(GrantRef));
    if (!refs.empty()) std::memcpy(refs.data(), value.data(), value.size());
    return refs;
}

Result<Fd> HandoverReader::fd() {
    if (fd_at_ >= descriptors_.size()) return host_fault(EBADMSG, "handover has no more descriptors");
    return std::move(descriptors_[fd_at_++]);
}

Result<EventChannel> HandoverReader::channel() {
    const auto header = TRY(value<ChannelValue>());
    Fd wait = TRY(fd());
    Fd notify;
    if (header.same_descriptor == 0) notify = TRY(fd());
    return EventChannel(header.kind, header.peer, header.port, std::move(wait), std::move(notify));
}

Result<SharedPages> HandoverReader::pages(Hypervisor& hypervisor) {
    const auto peer = TRY(value<DomainId>());
    auto refs_of_pages = TRY(refs());
    return hypervisor.adopt(peer, TRY(fd()), std::move(refs_of_pages));
}

}  // namespace caisson
