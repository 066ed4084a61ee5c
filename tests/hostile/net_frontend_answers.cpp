// A net frontend against a backend that lies in its answers: every field of every response, ids, indices, storms. Each
// case ends in one of two ways: the frame is dropped and counted, or the device is closed, once; never anything else.
#include <catch2/catch.hpp>
#include <cstring>

#include "tests/support/net_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

const std::vector<std::byte> frame(std::size_t size) { return std::vector<std::byte>(size, std::byte{0x5A}); }

// Sends frames of `size` and returns the requests that the backend sees.
std::vector<net::TxRequest> transmitted(FrontendAlone& front, unsigned frames, std::size_t size = 60) {
    for (unsigned i = 0; i < frames; ++i) front.program_sends(frame(size));
    front.turns();
    std::vector<net::TxRequest> requests;
    while (const auto request = front.queue().tx.take()) requests.push_back(*request);
    return requests;
}

net::RxResponse response(std::uint32_t slot, std::int16_t length, std::uint16_t flags = 0, std::uint16_t offset = 0) {
    return {static_cast<std::uint16_t>(slot % net::ring_slots), offset, flags, length};
}

}  // namespace

TEST_CASE("xsa_376_tx answers to ids that are not outstanding close the device") {
    for (const unsigned id : {0u, 1u, 5u, 200u, 255u, 256u, 257u, 0x7FFFu, 0x8000u, 0xFFFFu}) {
        FrontendAlone front;
        const auto requests = transmitted(front, 1);
        REQUIRE(requests.size() == 1);
        if (id == requests[0].id) continue;
        front.queue().tx.respond({static_cast<std::uint16_t>(id), net::status::okay});
        front.ring_bell();
        front.turns();
        CHECK(front.faults.size() == 1);
        CHECK(front.faults.at(0).fault == Fault::peer);
    }
}

TEST_CASE("xsa_376_a tx id answered twice closes the device") {
    FrontendAlone front;
    const auto requests = transmitted(front, 2);
    REQUIRE(requests.size() == 2);
    front.queue().tx.respond({requests[0].id, net::status::okay});
    front.turns();
    CHECK(!front.broken());
    front.queue().tx.respond({requests[0].id, net::status::okay});
    front.turns();
    CHECK(front.faults.size() == 1);
}

TEST_CASE("xsa_376_tx answers out of order, failed and dropped are legal") {
    FrontendAlone front;
    const auto requests = transmitted(front, 3);
    REQUIRE(requests.size() == 3);
    front.queue().tx.respond({requests[2].id, net::status::error});
    front.queue().tx.respond({requests[0].id, net::status::dropped});
    front.queue().tx.respond({requests[1].id, net::status::okay});
    front.turns();
    CHECK(!front.broken());
    CHECK(front.stats.queue[0].errors.get() == 2);
}

TEST_CASE("xsa_376_every tx status is known or closes the device") {
    for (int status = -32768; status <= 32767; status += status < -5 || status > 4 ? 257 : 1) {
        FrontendAlone front;
        const auto requests = transmitted(front, 1);
        REQUIRE(requests.size() == 1);
        front.queue().tx.respond({requests[0].id, static_cast<std::int16_t>(status)});
        front.turns();
        const bool legal = status == 0 || status == -1 || status == -2;  // null (1) answers an extra, and there is none
        CHECK(front.broken() == !legal);
    }
}

TEST_CASE("xsa_391_response indices beyond what is outstanding close the device, and nothing more is read") {
    for (const std::uint32_t ahead : {2u, 3u, 256u, 257u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu}) {
        FrontendAlone front;
        REQUIRE(transmitted(front, 1).size() == 1);
        front.queue().tx.response_producer(ahead);
        front.turns();
        CHECK(front.faults.size() == 1);
        const auto frames = front.stats.queue[0].requests.get();
        front.program_sends(frame(60));
        front.queue().rx.put(0, response(0, 60));
        front.queue().rx.response_producer(1);
        front.ring_bell();
        front.turns(10);
        CHECK(front.faults.size() == 1);
        CHECK(front.stats.queue[0].requests.get() == frames);
        CHECK(!front.program_receives());
    }
    for (const std::uint32_t ahead : {257u, 512u, 0x80000000u, 0xFFFFFFFFu}) {
        FrontendAlone front;
        front.queue().rx.response_producer(ahead);
        front.turns();
        CHECK(front.faults.size() == 1);
    }
}

TEST_CASE("a completely full ring of answers is legal in both directions") {
    FrontendAlone front;
    for (std::uint32_t i = 0; i < net::ring_slots; ++i) front.queue().rx.put(i, response(i, 60));
    front.queue().rx.response_producer(net::ring_slots);
    unsigned received = 0;
    for (int i = 0; i < 20; ++i) front.turns(1), received += front.frames_received();
    CHECK(received + front.stats.queue[0].dropped.get() == net::ring_slots);
    CHECK(!front.broken());
}

TEST_CASE("xsa_391_a storm of events without progress costs nothing but its own channel") {
    FrontendAlone front;
    front.turns(5);
    const auto sleeps = front.loop->sleeps();
    unsigned busy = 0;
    for (int i = 0; i < 2000; ++i) {
        front.ring_bell();
        busy += front.loop->turn({}) ? 1u : 0u;
    }
    CHECK(busy < 200);  // most turns find nothing: the channel is not listened to
    CHECK(front.loop->sleeps() == sleeps);
    CHECK(!front.broken());
    transmitted(front, 1);  // the device still works
    CHECK(front.queue().tx.request_producer() == 1);
}

TEST_CASE("xsa_376_rx ids that are not their slot's close the device") {
    for (const unsigned id : {1u, 2u, 255u, 256u, 0x8000u, 0xFFFFu}) {
        FrontendAlone front;
        front.queue().rx.respond({static_cast<std::uint16_t>(id), 0, 0, 60});
        front.turns();
        CHECK(front.faults.size() == 1);
        CHECK(!front.program_receives());
    }
}

TEST_CASE("xsa_376_rx offset and length leave the page: dropped") {
    struct Bad {
        unsigned offset;
        int length;
    };
    for (const Bad bad : {Bad{4095, 60}, {4096, 60}, {65535, 60}, {0, 4097}, {1, 4096}, {0, 32767}, {65535, 32767}}) {
        FrontendAlone front;
        front.queue().rx.respond(
            response(0, static_cast<std::int16_t>(bad.length), 0, static_cast<std::uint16_t>(bad.offset)));
        front.turns();
        CHECK(!front.program_receives());
        CHECK(front.stats.queue[0].errors.get() == 1);
        CHECK(!front.broken());
        front.queue().rx.respond(response(1, 60));  // and it goes on
        front.turns();
        CHECK(front.program_receives());
    }
}

TEST_CASE("xsa_448_zero lengths and error statuses are dropped") {
    for (const int length : {0, -1, -2, -32768}) {
        FrontendAlone front;
        front.queue().rx.respond(response(0, static_cast<std::int16_t>(length)));
        front.turns();
        CHECK(!front.program_receives());
        CHECK(front.stats.queue[0].errors.get() == 1);
        CHECK(!front.broken());
    }
}

TEST_CASE("xsa_522_a first slot shorter than an Ethernet header is dropped, whatever follows") {
    for (int first = 0; first <= 63; ++first)
        for (const unsigned slots : {1u, 2u, 3u, 10u, 18u}) {
            FrontendAlone front;
            for (std::uint32_t i = 0; i < slots; ++i)
                front.queue().rx.put(i, response(i, static_cast<std::int16_t>(i == 0 ? first : 100),
                                                 i + 1 < slots ? net::rx_flag::more_data : 0));
            front.queue().rx.response_producer(slots);
            front.turns();
            CHECK(!front.broken());
            CHECK(front.program_receives().has_value() == (first >= 14));
        }
}

TEST_CASE("xsa_405_a chain that is malformed at any slot is dropped whole, and its buffers return") {
    for (std::uint32_t bad = 0; bad < 18; ++bad) {
        FrontendAlone front;
        for (std::uint32_t i = 0; i < 18; ++i)
            front.queue().rx.put(i, response(i, i == bad ? std::int16_t{-1} : std::int16_t{100},
                                             i + 1 < 18 ? net::rx_flag::more_data : 0));
        front.queue().rx.response_producer(18);
        front.turns();
        CHECK(!front.program_receives());
        CHECK(front.queue().rx.request_producer() == net::ring_slots + 18);  // all posted again
        for (std::uint32_t i = 18; i < 18 + 300; ++i) {
            front.queue().rx.respond(response(i, 60));
            front.turns(1);
        }
        CHECK(!front.broken());
        CHECK(front.frames_received() > 0);
    }
}

TEST_CASE("a chain without an end closes the device") {
    FrontendAlone front;
    for (std::uint32_t i = 0; i < 64; ++i) front.queue().rx.put(i, response(i, 100, net::rx_flag::more_data));
    front.queue().rx.response_producer(64);
    front.turns();
    CHECK(front.faults.size() == 1);
    CHECK(!front.program_receives());
}

TEST_CASE("extra info: unknown types, endless chains and bad GSO close the device") {
    auto with_extra = [](net::Extra extra, unsigned count = 1) {
        FrontendAlone front;
        front.queue().rx.put(0, response(0, 100, net::rx_flag::extra_info));
        for (std::uint32_t i = 1; i <= count; ++i) front.queue().rx.put(i, net::in_rx_slot(extra));
        front.queue().rx.response_producer(1 + count);
        front.turns();
        return front.faults.size();
    };
    for (unsigned type = 0; type < 256; ++type) {
        const net::Extra extra{static_cast<std::uint8_t>(type), 0, {1, 0, 1, 0, 0, 0}};
        CHECK(with_extra(extra) == (type >= 1 && type <= 4 ? 0u : 1u));
    }
    for (unsigned gso = 0; gso < 256; ++gso)
        CHECK(with_extra({net::extra_type::gso, 0, {1, 0, static_cast<std::uint8_t>(gso), 0, 0, 0}}) ==
              (gso > 2 ? 1u : 0u));
    CHECK(with_extra({net::extra_type::gso, 0, {0, 0, 1, 0, 0, 0}}) == 1);  // segments of no bytes
    CHECK(with_extra({net::extra_type::hash, net::extra_flag_more, {}}, 10) == 1);
}

TEST_CASE("a packet that comes slot by slot is one packet") {
    FrontendAlone front;
    for (std::uint32_t i = 0; i < 5; ++i) {
        CHECK(!front.program_receives());
        front.queue().rx.respond(response(i, 1000, i < 4 ? net::rx_flag::more_data : 0));
        front.turns();
    }
    const auto got = front.program_receives();
    REQUIRE(got);
    CHECK(got->bytes.size() == 5000);
}

TEST_CASE("offload flags that the headers do not bear out are dropped") {
    for (const std::uint16_t flags : {net::rx_flag::csum_blank, net::rx_flag::gso_prefix}) {
        FrontendAlone front;
        front.queue().rx.respond(response(0, 200, flags));  // the pages are zero: no IP header
        front.turns();
        CHECK(!front.program_receives());
        CHECK(front.stats.queue[0].errors.get() == 1);
        CHECK(!front.broken());
    }
}

TEST_CASE("xsa_403_granted pages hold zeros and frames, nothing else, and transmit pages cannot be written") {
    FrontendAlone front;
    std::vector<std::byte> canary(60, std::byte{0xC5});
    front.program_sends(canary);
    front.turns();
    const auto request = front.queue().tx.take();
    REQUIRE(request);
    CHECK(!front.hypervisor.writable(request->gref));
    std::array<std::byte, page_size> page;
    REQUIRE(front.hypervisor.page(request->gref).copy_out(0, page));
    CHECK(std::all_of(page.begin(), page.begin() + 60, [](std::byte b) { return b == std::byte{0xC5}; }));
    CHECK(std::all_of(page.begin() + 60, page.end(), [](std::byte b) { return b == std::byte{}; }));
    for (int i = 0; i < 256; ++i) {
        const auto buffer = front.queue().rx.take();
        REQUIRE(buffer);
        CHECK(front.hypervisor.writable(buffer->gref));
        REQUIRE(front.hypervisor.page(buffer->gref).copy_out(0, page));
        CHECK(std::all_of(page.begin(), page.end(), [](std::byte b) { return b == std::byte{}; }));
    }
}

TEST_CASE("B1 the frontend never reads back what it wrote: the backend may scribble over every request") {
    FrontendAlone front;
    for (int round = 0; round < 600; ++round) {
        front.program_sends(frame(60));
        front.turns(1);
        const auto request = front.queue().tx.take();
        REQUIRE(request);
        for (std::uint32_t slot = 0; slot < 256; ++slot)
            if (slot != front.queue().tx.produced() % 256) front.queue().tx.put(slot, {0xFFFF, 0x7FFF});
        front.queue().tx.respond({request->id, net::status::okay});
        front.turns(1);
        REQUIRE(!front.broken());
    }
}

TEST_CASE("B11 a backend that answers nothing costs a ring of pages and no more") {
    FrontendAlone front;
    const auto shares = front.hypervisor.shares();
    for (int i = 0; i < 2000; ++i) {
        front.program_sends(frame(1000));
        front.turns(1);
    }
    CHECK(front.queue().tx.request_producer() <= net::ring_slots);
    CHECK(front.queue().tx.request_producer() >= net::ring_slots - 17);
    CHECK(front.hypervisor.shares() == shares);
    CHECK(!front.broken());
    // It wakes up again: everything moves on.
    while (const auto request = front.queue().tx.take()) front.queue().tx.respond({request->id, net::status::okay});
    front.turns(5);
    CHECK(front.queue().tx.request_producer() > net::ring_slots);
}
