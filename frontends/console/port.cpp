#include "frontends/console/port.h"

namespace caisson::console {

namespace {

constexpr ByteRingLayout out_ring{
    .data = out_offset, .size = out_bytes, .consumer = out_consumer, .producer = out_producer};
constexpr ByteRingLayout in_ring{.data = in_offset, .size = in_bytes, .consumer = in_consumer, .producer = in_producer};

}  // namespace

FrontPort::FrontPort(SharedSpan page, const EventChannel& channel, FrontIndices& indices)
    : channel_(&channel), out_(page, out_ring, indices.produced), in_(page, in_ring, indices.consumed) {}

FrontPort FrontPort::create(SharedSpan page, const EventChannel& channel, FrontIndices& indices) {
    indices = {};
    page.copy_in(connection_offset, std::as_bytes(std::span(&disconnected, 1)));
    return {page, channel, indices};
}

FrontPort FrontPort::attach(SharedSpan page, const EventChannel& channel, FrontIndices& indices) {
    FrontPort port(page, channel, indices);
    port.out_.publish();
    port.in_.publish();
    channel.notify();
    return port;
}

Result<std::size_t> FrontPort::write(std::span<const std::byte> bytes) {
    const std::size_t count = TRY(out_.write(bytes));
    if (count > 0) channel_->notify();
    return count;
}

Result<std::size_t> FrontPort::unsent() { return out_.size() - TRY(out_.room()); }

Result<std::size_t> FrontPort::read(std::span<std::byte> to) {
    return read_into(to, [](std::span<const std::byte> bytes) { return bytes.size(); });
}

}  // namespace caisson::console
