// A lying or lazy guest against the backend's receive side, its filters and its control ring.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/support/net_backend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

const net::Mac other{{0x00, 0x16, 0x3E, 0, 0, 2}};

struct Guest {
    explicit Guest(BackendOptions options = {}, bool direct = true)
        : memory(direct), backend(memory, options), pages(memory.share(256, Access::read_write)) {}

    LyingRing<net::RxRing>& ring(unsigned n = 0) { return backend.queue(n).rx; }
    void post(unsigned count, unsigned n = 0) {
        for (unsigned i = 0; i < count; ++i, ++next) backend.post(pages.refs[next % 256], id(next), n);
        ring(n).show();
        backend.turns();
    }
    static std::uint16_t id(unsigned index) { return static_cast<std::uint16_t>(index % 256 + 1000); }
    std::vector<std::byte> from_host(std::size_t size, net::VirtioHeader virtio = {}) {
        auto packet = ethernet(size, other, backend.options.mac);
        (void)backend.host_sends(packet, virtio);
        backend.turns();
        return packet;
    }
    // The next packet in the rx ring, assembled from the pages that its slots name.
    struct Got {
        std::vector<std::byte> bytes;
        net::RxPacket packet;
    };
    std::optional<Got> receive() {
        net::RxAssembler assembler;
        for (std::uint32_t index = ring().taken();; ++index) {
            const auto response = ring().take();
            if (!response) return std::nullopt;
            const bool extra = assembler.expects_extra();
            if (!extra && response->id != id(index)) throw std::runtime_error("a response in another's slot");
            auto whole = assembler.take(*response, index);
            if (!whole) throw std::runtime_error(whole.error().message());
            if (!*whole) continue;
            Got got{{}, assembler.packet()};
            for (unsigned i = 0; i < got.packet.count; ++i) {
                const net::RxSlice& slice = got.packet.slices[i];
                std::vector<std::byte> part(slice.length);
                (void)pages.page(slice.index % 256).copy_out(slice.offset, part);
                got.bytes.insert(got.bytes.end(), part.begin(), part.end());
            }
            return got;
        }
    }

    LentMemory memory;
    BackendAlone backend;
    GuestMemory::Pages pages;
    unsigned next = 0;
};

constexpr net::VirtioHeader gso{.flags = net::virtio::needs_csum,
                                .gso_type = net::virtio::gso_tcpv4,
                                .header_length = 54,
                                .gso_size = 1448,
                                .csum_start = 34,
                                .csum_offset = 16};

}  // namespace

TEST_CASE("a packet from the host arrives in the guest's buffers, in place and by copy") {
    for (const bool direct : {true, false}) {
        Guest guest({}, direct);
        guest.post(255);
        for (const std::size_t size : {14u, 60u, 191u, 192u, 193u, 1514u, 4096u, 4097u, 8192u, 9000u, 65535u}) {
            const auto packet = guest.from_host(size);
            const auto got = guest.receive();
            REQUIRE(got);
            REQUIRE(got->bytes == packet);
        }
    }
}

TEST_CASE("a GSO packet has its extra in the second slot, whose buffer stays out of it") {
    for (const bool direct : {true, false})
        for (const std::size_t size : {100u, 4000u, 60000u, 65535u}) {
            Guest guest({}, direct);
            guest.post(40);
            const auto packet = guest.from_host(size, gso);
            const auto got = guest.receive();
            REQUIRE(got);
            CHECK(got->bytes == packet);
            CHECK(got->packet.extras.gso.type == net::GsoType::tcpv4);
            CHECK(got->packet.extras.gso.size == 1448);
            CHECK(got->packet.csum_blank);
        }
}

TEST_CASE("with few buffers a packet waits, and comes when there are enough") {
    for (const bool direct : {true, false}) {
        Guest guest({}, direct);
        guest.post(3);
        const auto packet = guest.from_host(60000, gso);
        CHECK_FALSE(guest.receive());
        guest.post(12);
        CHECK_FALSE(guest.receive());
        guest.post(1);
        const auto got = guest.receive();
        REQUIRE(got);
        CHECK(got->bytes == packet);
    }
}

TEST_CASE("xsa_392_28715 one free slot and large packets pin no memory: the rest waits in the host") {
    BackendOptions options;
    options.small_host_buffer = 200000;
    Guest guest(options);
    guest.post(1);
    unsigned taken = 0;
    for (unsigned i = 0; i < 2000; ++i) taken += guest.backend.host_sends(ethernet(60000, other, options.mac), gso);
    guest.backend.turns(50);
    CHECK(taken < 20);  // the host's own queue is full and drops at its tail
    CHECK_FALSE(guest.receive());
    guest.post(255);
    unsigned got = 0;
    while (guest.receive()) ++got;
    CHECK(got > 0);
    CHECK_FALSE(guest.backend.broken());
}

TEST_CASE("xsa_392 a guest that never posts a buffer makes nothing grow") {
    BackendOptions options;
    options.small_host_buffer = 100000;
    Guest guest(options);
    for (unsigned i = 0; i < 5000; ++i) {
        (void)guest.backend.host_sends(ethernet(1500, other, options.mac));
        guest.backend.turns(1);
    }
    CHECK(guest.ring().response_producer() == 0);
    CHECK_FALSE(guest.backend.broken());
}

TEST_CASE(
    "xsa_392 a guest that takes no packet until the stall limit loses what waits, and its carrier until it does") {
    using namespace std::chrono_literals;
    CHECK(net::backend::Config{}.stall_milliseconds == 10'000);
    BackendOptions options;
    options.stall_milliseconds = GENERATE(20u, net::backend::Config{}.stall_milliseconds);
    const bool soon = options.stall_milliseconds < 1000;
    Guest guest(options);
    const auto carrier = [&](const char* value) {
        const auto& all = guest.backend.published;
        return std::find(all.begin(), all.end(), std::pair<std::string, std::string>("carrier", value)) != all.end();
    };
    const auto turns_until = [&](auto&& reached, int most) {
        for (int i = 0; i < most && !reached(); ++i) (void)guest.backend.loop->turn(5ms);
        return reached();
    };
    guest.post(3);
    (void)guest.from_host(60000, gso);
    CHECK(turns_until([&] { return carrier("0"); }, soon ? 2000 : 40) == soon);
    CHECK(guest.backend.counts().dropped.get() == (soon ? 1 : 0));
    CHECK_FALSE(carrier("1"));
    guest.post(200);
    CHECK(guest.receive().has_value() == !soon);
    CHECK(turns_until([&] { return carrier("1"); }, soon ? 2000 : 40) == soon);
    const auto packet = guest.from_host(1000);
    const auto got = guest.receive();
    REQUIRE(got);
    CHECK(got->bytes == packet);
    CHECK_FALSE(guest.backend.broken());
}

TEST_CASE("xsa_39 an impossible index of the rx ring breaks the device") {
    for (const std::uint32_t ahead : {257u, 1u << 31, 0xFFFFFFFFu}) {
        Guest guest;
        guest.post(10);
        guest.ring().producer(10 + ahead);
        guest.backend.turns(5);
        CHECK(guest.backend.faults.size() == 1);
        const auto producer = guest.ring().response_producer();
        guest.ring().producer(20);
        (void)guest.from_host(60);
        CHECK(guest.ring().response_producer() == producer);
    }
}

TEST_CASE("xsa_362 buffers that cannot be written are given back as errors, and the next packet finds good ones") {
    for (const bool direct : {true, false}) {
        Guest guest({}, direct);
        const auto read_only = guest.memory.share(1, Access::read_only);
        guest.backend.post(0xFFFFFFF0, 1);
        guest.backend.post(read_only.refs[0], 2);
        guest.ring().show();
        guest.backend.turns();
        for (unsigned i = 0; i < 4; ++i) (void)guest.from_host(60);
        guest.next = 2;
        guest.post(30);
        (void)guest.from_host(60);
        unsigned errors = 0;
        std::optional<Guest::Got> good;
        for (const auto& response : guest.ring().take_all()) errors += response.status < 0;
        CHECK(errors >= 2);
        const auto packet = guest.from_host(70);
        good = guest.receive();
        REQUIRE(good);
        CHECK(good->bytes == packet);
        CHECK_FALSE(guest.backend.broken());
    }
}

TEST_CASE("a successor keeps every posted buffer and answers nothing twice") {
    Guest guest;
    guest.post(100);
    const auto one = guest.from_host(60);
    REQUIRE(guest.receive());
    guest.backend.kill();
    guest.backend.start(true);
    guest.backend.turns();
    for (unsigned i = 0; i < 99; ++i) {
        const auto packet = guest.from_host(60 + i);
        const auto got = guest.receive();
        REQUIRE(got);
        REQUIRE(got->bytes == packet);
    }
    CHECK_FALSE(guest.backend.broken());
}

TEST_CASE("a worker that dies in the middle of a packet's responses leaves half a packet to nobody") {
    Guest guest;
    guest.post(100);
    (void)guest.from_host(60);
    REQUIRE(guest.receive());
    guest.backend.kill();
    guest.backend.the_journal().queues[0].rx.indices.produced += 5;  // pushed, neither settled nor shown
    guest.backend.start(true);
    const auto packet = guest.from_host(30000, gso);
    const auto got = guest.receive();
    REQUIRE(got);
    CHECK(got->bytes == packet);
}

TEST_CASE("a successor without a journal takes the posted buffers from the ring itself") {
    Guest guest;
    guest.post(50);
    (void)guest.from_host(60);
    REQUIRE(guest.receive());
    guest.backend.kill();
    std::fill(guest.backend.journal.begin(), guest.backend.journal.end(), 0);
    guest.backend.start(true);
    const auto packet = guest.from_host(600);
    const auto got = guest.receive();
    REQUIRE(got);
    CHECK(got->bytes == packet);
}

TEST_CASE("a journal that a guest has written is judged like a ring") {
    for (unsigned field = 0; field < 6; ++field) {
        Guest guest;
        guest.post(50);
        guest.backend.kill();
        auto& journal = guest.backend.the_journal();
        auto& rx = journal.queues[0].rx;
        if (field == 0) rx.indices.produced = 0x80000000;
        if (field == 1) rx.indices.consumed = 0x7FFFFFFF;
        if (field == 2) rx.settled = 0x12345678;
        if (field == 3) journal.queues[0].tx.indices.consumed = 300;
        if (field == 4) journal.multicast_count = 0xFFFFFFFF;
        if (field == 5) journal.hash.mapping.fill(200), journal.hash.algorithm = 1, journal.hash.types = 15;
        guest.backend.start(true);
        guest.backend.turns();
        (void)guest.from_host(60);
        CHECK(guest.backend.broken() == (field < 4));
    }
}

TEST_CASE("multicast that was not asked for is not delivered, broadcast is") {
    BackendOptions options;
    options.multicast_control = true;
    Guest guest(options);
    guest.post(50);
    const net::Mac group{{0x01, 0x00, 0x5E, 1, 2, 3}}, everybody{{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}};
    const auto arrives = [&](net::Mac destination) {
        (void)guest.backend.host_sends(ethernet(60, other, destination));
        guest.backend.turns();
        return guest.receive().has_value();
    };
    const auto tell = [&](bool add, net::Mac mac) {
        auto& tx = guest.backend.queue().tx;
        tx.add({.gref = guest.pages.refs[0], .offset = 0, .flags = net::tx_flag::extra_info, .id = 9, .size = 0});
        tx.add(net::in_tx_slot(net::mcast_extra(add, mac)));
        tx.show();
        guest.backend.turns();
        return tx.take_all()[0].status;
    };
    CHECK_FALSE(arrives(group));
    CHECK(arrives(everybody));
    CHECK(tell(true, group) == net::status::okay);
    CHECK(arrives(group));
    CHECK(tell(false, group) == net::status::okay);
    CHECK_FALSE(arrives(group));
    // The list is bounded, and a unicast address is no group.
    CHECK(tell(true, other) == net::status::error);
    for (unsigned i = 0; i < 100; ++i)
        CHECK((tell(true, net::Mac{{1, 0, 0, 0, 0, static_cast<std::uint8_t>(i)}}) == net::status::okay) == (i < 64));
    const std::byte off[] = {std::byte{0}};
    REQUIRE(guest.backend.worker->update(off));
    CHECK(arrives(group));
}

TEST_CASE("xsa_270 no combination of offset and length of a hash mapping leaves its table") {
    BackendOptions options;
    options.queues = 2;
    options.control_ring = true;
    Guest guest(options);
    auto& control = *guest.backend.control;
    const auto ask = [&](net::ControlType type, std::uint32_t a, std::uint32_t b = 0, std::uint32_t c = 0) {
        control.add({.id = 7, .type = static_cast<std::uint16_t>(type), .data = {a, b, c}});
        control.show();
        guest.backend.turns();
        return control.take()->status;
    };
    using enum net::ControlType;
    namespace status = net::control_status;
    CHECK(ask(set_hash_flags, 15) == status::not_supported);  // no algorithm yet
    CHECK(ask(set_hash_algorithm, 2) == status::invalid_parameter);
    CHECK(ask(set_hash_algorithm, 1) == status::success);
    CHECK(ask(set_hash_flags, 16) == status::invalid_parameter);
    CHECK(ask(set_hash_flags, 15) == status::success);
    CHECK(ask(set_hash_mapping_size, 129) == status::invalid_parameter);
    CHECK(ask(set_hash_mapping_size, 128) == status::success);
    const std::uint32_t page = guest.pages.refs[0], most = 0xFFFFFFFF;
    for (const std::uint32_t offset : {0u, 1u, 127u, 128u, 129u, most - 1, most})
        for (const std::uint32_t count : {0u, 1u, 2u, 127u, 128u, 129u, 1u << 31, most}) {
            const bool inside = count <= 128 && offset <= 128 - count;
            CHECK((ask(set_hash_mapping, page, count, offset) == status::success) == inside);
        }
    CHECK(ask(set_hash_key, page, 41) == status::buffer_overflow);
    CHECK(ask(set_hash_key, page, 40) == status::success);
    CHECK(ask(set_hash_key, 0xFFFFFFF0, 40) == status::invalid_parameter);
    const std::uint32_t wrong[] = {0, 1, 2};
    (void)guest.pages.memory.copy_in(0, std::as_bytes(std::span(wrong)));
    CHECK(ask(set_hash_mapping, page, 3, 0) == status::invalid_parameter);  // there is no queue 2
    for (const auto type : {get_gref_mapping_size, add_gref_mapping, del_gref_mapping})
        CHECK(ask(type, 0, 1, 1) == status::not_supported);
    CHECK(ask(static_cast<net::ControlType>(999), 0) == status::not_supported);
    CHECK_FALSE(guest.backend.broken());
}
