// Any bytes as tx slots, rx responses, control requests and packet heads, through the parsers alone.
#include <cstdlib>
#include <vector>

#include "protocols/net_control.h"

using namespace caisson;
using namespace caisson::net;

namespace {

void require(bool truth) {
    if (!truth) std::abort();
}

template <class T>
T at(const std::uint8_t* data, std::size_t offset) {
    T out;
    std::memcpy(&out, data + offset, sizeof out);
    return out;
}

void transmit(const std::uint8_t* data, std::size_t size) {
    TxAssembler assembler;
    for (std::size_t i = 0; i + sizeof(TxRequest) <= size; i += sizeof(TxRequest)) {
        const auto whole = assembler.take(at<TxRequest>(data, i), static_cast<std::uint32_t>(i / sizeof(TxRequest)));
        if (!whole) return;
        if (!*whole) continue;
        const TxPacket& packet = assembler.packet();
        require(packet.slots >= 1 && packet.slots <= packet.ids.size());
        std::uint32_t sum = 0;
        for (unsigned n = 0; n < packet.count; ++n) {
            require(fits<std::size_t>(packet.slices[n].offset, packet.slices[n].length, page_size));
            require(packet.slices[n].length > 0);
            sum += packet.slices[n].length;
        }
        require(packet.count == 0 || (sum == packet.size && sum >= min_packet && sum <= max_packet));
    }
}

void receive(const std::uint8_t* data, std::size_t size) {
    RxAssembler assembler;
    for (std::size_t i = 0; i + sizeof(RxResponse) <= size; i += sizeof(RxResponse)) {
        const auto whole = assembler.take(at<RxResponse>(data, i), static_cast<std::uint32_t>(i / sizeof(RxResponse)));
        if (!whole) return;
        if (!*whole) continue;
        const RxPacket& packet = assembler.packet();
        require(packet.count <= max_slots);
        for (unsigned n = 0; n < packet.count; ++n)
            require(fits<std::size_t>(packet.slices[n].offset, packet.slices[n].length, page_size));
        require(packet.count == 0 || packet.slices[0].length >= min_packet);
    }
}

void heads(const std::uint8_t* data, std::size_t size) {
    std::vector<std::byte> head(std::min(size, header_bytes));
    if (!head.empty()) std::memcpy(head.data(), data, head.size());
    const Headers found = parse_headers(head);
    ReceiveHash hash{.algorithm = 1, .types = hash_type::all, .key_bytes = max_hash_key};
    if (const auto value = hash.of(head, found)) require(hash.queue(value->value, 8) < 8);
    for (const GsoType type : {GsoType::none, GsoType::tcpv4, GsoType::tcpv6})
        for (const bool blank : {false, true}) {
            const auto virtio = to_virtio({blank, false, {type, 1000}}, head, found, static_cast<std::uint32_t>(size));
            if (virtio) require(from_virtio(*virtio).has_value());
            if (virtio && virtio->flags == virtio::needs_csum)
                require(virtio->csum_start + virtio->csum_offset + 2u <= head.size());
        }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    transmit(data, size);
    receive(data, size);
    heads(data, size);
    for (std::size_t i = 0; i + sizeof(ControlRequest) <= size; i += sizeof(ControlRequest)) {
        const ControlCall call = parse(at<ControlRequest>(data, i), data[0]);
        require(call.refused || (call.count <= max_hash_mapping && call.first + call.count <= max_hash_mapping));
    }
    return 0;
}
