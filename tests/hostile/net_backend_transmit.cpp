// A lying guest against the backend's transmit side. The worker is the real one; the guest is this file.
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "backends/net/vif.h"
#include "tests/support/net_backend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

const net::Mac other{{0x00, 0x16, 0x3E, 0, 0, 2}};

struct Guest {
    explicit Guest(BackendOptions options = {}, bool direct = true)
        : memory(direct), backend(memory, options), pages(memory.share(32, Access::read_only)) {}

    net::TxRequest slot(unsigned page, unsigned offset, unsigned size, unsigned flags, unsigned id) const {
        return {.gref = pages.refs[page],
                .offset = static_cast<std::uint16_t>(offset),
                .flags = static_cast<std::uint16_t>(flags),
                .id = static_cast<std::uint16_t>(id),
                .size = static_cast<std::uint16_t>(size)};
    }
    LyingRing<net::TxRing>& ring() { return backend.queue().tx; }
    void show_and_turn() {
        ring().show();
        backend.turns();
    }
    // A correct packet in page 0.
    std::vector<std::byte> good(std::size_t size = 60) {
        auto packet = ethernet(size, backend.options.mac, other);
        (void)pages.memory.copy_in(0, packet);
        return packet;
    }
    bool works() {
        const auto packet = good();
        ring().add(slot(0, 0, 60, 0, 7777));
        show_and_turn();
        bool answered = false;
        for (const auto& response : ring().take_all()) answered |= response.id == 7777 && response.status == 0;
        bool seen = false;
        while (auto frame = backend.host_receives()) seen |= frame->bytes == packet;
        return answered && seen && !backend.broken();
    }

    LentMemory memory;
    BackendAlone backend;
    GuestMemory::Pages pages;
};

}  // namespace

TEST_CASE("a packet of one slot arrives as it is and is answered") {
    for (const bool direct : {true, false}) {
        Guest guest({}, direct);
        REQUIRE(guest.works());
    }
}

TEST_CASE("a packet of 64 KiB in 17 slots crosses whole, in place and by copy") {
    for (const bool direct : {true, false}) {
        Guest guest({}, direct);
        const std::size_t size = 65000;
        const auto packet = ethernet(size, guest.backend.options.mac, other);
        (void)guest.pages.memory.copy_in(0, packet);
        for (unsigned i = 0; i < 16; ++i) {
            const unsigned here = i < 15 ? 4096 : static_cast<unsigned>(size - 15 * 4096);
            guest.ring().add(guest.slot(i, 0, i == 0 ? static_cast<unsigned>(size) : here,
                                        i < 15 ? net::tx_flag::more_data : 0u, i));
        }
        guest.show_and_turn();
        const auto frame = guest.backend.host_receives();
        REQUIRE(frame);
        CHECK(frame->bytes == packet);
        const auto answers = guest.ring().take_all();
        REQUIRE(answers.size() == 16);
        for (unsigned i = 0; i < 16; ++i) CHECK((answers[i].id == i && answers[i].status == net::status::okay));
    }
}

TEST_CASE("xsa_38_39 an impossible producer index breaks the device once and the ring is left alone") {
    for (const std::uint32_t ahead : {257u, 1u << 31, 0xFFFFFFFFu}) {
        Guest guest;
        REQUIRE(guest.works());
        guest.ring().producer(guest.ring().produced() + ahead);
        guest.backend.turns(10);
        CHECK(guest.backend.faults.size() == 1);
        CHECK(guest.backend.faults[0].fault == Fault::peer);
        CHECK(guest.backend.stats.broken.get() == 1);
        const auto before = guest.ring().response_producer();
        guest.ring().producer(guest.ring().produced() + 1);  // too late: nothing of the ring is read again
        guest.backend.turns(10);
        CHECK(guest.ring().response_producer() == before);
        CHECK(guest.backend.faults.size() == 1);
    }
}

TEST_CASE("xsa_38 a completely full ring is legal and drains") {
    Guest guest;
    (void)guest.good();
    for (unsigned i = 0; i < 256; ++i) guest.ring().add(guest.slot(0, 0, 60, 0, i));
    guest.ring().show();
    guest.backend.turns(20);
    CHECK(guest.ring().take_all().size() == 256);
    CHECK_FALSE(guest.backend.broken());
}

TEST_CASE("xsa_216 a response writes its own bytes and leaks none of ours") {
    Guest guest;
    (void)guest.good();
    guest.ring().add(guest.slot(0, 0, 60, 0, 42));
    std::array<std::byte, 12> before{}, after{};
    (void)guest.ring().page().copy_out(64, before);
    guest.show_and_turn();
    (void)guest.ring().page().copy_out(64, after);
    CHECK(std::equal(before.begin() + 4, before.end(), after.begin() + 4));  // the rest is what the guest wrote
}

TEST_CASE("xsa_361_365_367 a bad grant in any slot of a packet fails that packet and no other") {
    for (const bool direct : {true, false})
        for (unsigned bad = 0; bad < 18; ++bad) {
            Guest guest({}, direct);
            (void)guest.good();
            for (unsigned i = 0; i < 18; ++i) {
                auto slot = guest.slot(i, 0, i == 0 ? 18 * 100 : 100, i < 17 ? net::tx_flag::more_data : 0u, i);
                if (i == bad) slot.gref = 0xFFFFFFF0;
                guest.ring().add(slot);
            }
            guest.show_and_turn();
            const auto answers = guest.ring().take_all();
            REQUIRE(answers.size() == 18);
            for (const auto& answer : answers) CHECK(answer.status == net::status::error);
            CHECK_FALSE(guest.backend.host_receives());
            CHECK(guest.works());
        }
}

TEST_CASE("xsa_423 headers split at any byte arrive in one piece") {
    const auto packet = ethernet(400, net::Mac{{0x00, 0x16, 0x3E, 0, 0, 1}}, other);
    for (const bool direct : {true, false}) {
        Guest guest({}, direct);
        for (unsigned split = 1; split <= 256; ++split) {
            (void)guest.pages.page(0).copy_in(0, std::span(packet).first(split));
            (void)guest.pages.page(1).copy_in(0, std::span(packet).subspan(split));
            guest.ring().add(guest.slot(0, 0, 400, net::tx_flag::more_data, 1));
            guest.ring().add(guest.slot(1, 0, 400 - split, 0, 2));
            guest.show_and_turn();
            const auto frame = guest.backend.host_receives();
            REQUIRE(frame);
            REQUIRE(frame->bytes == packet);
        }
        CHECK(guest.ring().take_all().size() == 512);
    }
}

TEST_CASE("xsa_432 every number of slots with every tiny size is answered slot by slot") {
    Guest guest({.enforce_mac = false});  // the split headers are not the packet that good() made
    (void)guest.good();
    unsigned shown = 0;
    for (unsigned slots = 1; slots <= 19; ++slots)
        for (unsigned size = 0; size <= 256; ++size) {
            for (unsigned i = 0; i < slots; ++i) {
                // The fragments share what is left of the total; with few bytes some of them are empty.
                const unsigned part = i == 0 ? size : size / slots;
                guest.ring().add(guest.slot(i, 0, part, i + 1 < slots ? net::tx_flag::more_data : 0u, i));
            }
            shown += slots;
            guest.show_and_turn();
            const auto answers = guest.ring().take_all();
            REQUIRE(answers.size() == slots);
            const bool legal = size >= net::min_packet && (slots == 1 || size / slots > 0);
            for (unsigned i = 0; i < slots; ++i) {
                REQUIRE(answers[i].id == i);
                REQUIRE((answers[i].status == net::status::okay) == (legal && size >= 14));
            }
            (void)guest.backend.host_receives_all();
            REQUIRE_FALSE(guest.backend.broken());
        }
    CHECK(shown == guest.ring().taken());
    CHECK(guest.works());
}

TEST_CASE("xsa_448 a fragment of no bytes is refused and the device goes on") {
    Guest guest;
    (void)guest.good();
    for (unsigned zero = 0; zero < 4; ++zero) {
        for (unsigned i = 0; i < 4; ++i)
            guest.ring().add(guest.slot(i, 0, i == 0 ? (zero == 0 ? 300 : 400) : (i == zero ? 0 : 100),
                                        i < 3 ? net::tx_flag::more_data : 0u, i));
        guest.show_and_turn();
        const auto answers = guest.ring().take_all();
        REQUIRE(answers.size() == 4);
        for (const auto& answer : answers) CHECK(answer.status == net::status::error);
    }
    CHECK_FALSE(guest.backend.host_receives());
    CHECK(guest.works());
}

TEST_CASE("xsa_448 a packet of nothing but empty slots is refused") {
    Guest guest;
    for (unsigned i = 0; i < 3; ++i) guest.ring().add(guest.slot(i, 0, 0, i < 2 ? net::tx_flag::more_data : 0u, i));
    guest.show_and_turn();
    CHECK(guest.ring().take_all().size() == 3);
    CHECK(guest.works());
}

TEST_CASE("xsa_513 a slot beyond its page breaks the device and never reaches the next page") {
    for (const auto& [offset, size] : {std::pair{4000u, 97u}, {4095u, 60u}, {4096u, 60u}, {65535u, 60u}, {1u, 4096u}}) {
        Guest guest;
        (void)guest.good();
        guest.ring().add(guest.slot(0, offset, size, 0, 1));
        guest.show_and_turn();
        CHECK(guest.backend.faults.size() == 1);
        CHECK_FALSE(guest.backend.host_receives());
    }
}

TEST_CASE("xsa_513 a chain without an end breaks the device before it grows") {
    Guest guest;
    (void)guest.good();
    for (unsigned i = 0; i < 200; ++i) guest.ring().add(guest.slot(0, 0, 100, net::tx_flag::more_data, i));
    guest.show_and_turn();
    CHECK(guest.backend.faults.size() == 1);
}

TEST_CASE("xsa_155 what is sent is what was checked, though another CPU of the guest rewrites it all the time") {
    for (const bool direct : {true, false}) {
        Guest guest({}, direct);
        const auto own = guest.good(64);
        std::atomic<bool> stop{false};
        std::thread flipper([&] {  // the guest's other CPU: its own source address, somebody else's, its own ...
            const auto forged = ethernet(64, other, guest.backend.options.mac);
            while (!stop) {
                (void)guest.pages.memory.copy_in(6, std::span(forged).subspan(6, 6));
                (void)guest.pages.memory.copy_in(6, std::span(own).subspan(6, 6));
            }
        });
        unsigned sent = 0, refused = 0, forged = 0;
        for (unsigned round = 0; round < 500; ++round) {
            for (unsigned i = 0; i < 16; ++i) guest.ring().add(guest.slot(0, 0, 64, 0, i));
            guest.ring().show();
            do guest.backend.turns(1);
            while (guest.ring().response_producer() != guest.ring().produced());  // it waits: so much is refused
            while (const auto frame = guest.backend.host_receives())
                ++sent, forged += net::mac_at(frame->bytes, 6) != guest.backend.options.mac;
            for (const auto& answer : guest.ring().take_all()) refused += answer.status != 0;
        }
        stop = true;
        flipper.join();
        CHECK(forged == 0);
        CHECK(sent + refused == 500 * 16);
        CHECK_FALSE(guest.backend.broken());
    }
}

TEST_CASE("a neighbour of a guest that floods is served in every turn") {
    auto loop = std::move(*Loop::make());
    Guest flood({.loop = loop.get()}), neighbour({.loop = loop.get()});
    (void)flood.good();
    for (unsigned turn = 0; turn < 500; ++turn) {
        while (flood.ring().produced() - flood.ring().response_producer() < 256)
            flood.ring().add(flood.slot(0, 0, 60, 0, 1));
        flood.ring().show();
        (void)flood.backend.queue().channel.theirs.notify();
        (void)neighbour.good();
        neighbour.ring().add(neighbour.slot(0, 0, 60, 0, 1));
        neighbour.ring().show();
        const std::uint32_t before = flood.ring().response_producer();
        neighbour.backend.turns(1);
        REQUIRE(neighbour.ring().response_producer() == turn + 1);
        REQUIRE(flood.ring().response_producer() - before <= 2 * 64);  // polled at most twice a turn, a budget each
        (void)neighbour.backend.host_receives_all();
        (void)flood.backend.host_receives_all();
    }
}

TEST_CASE("extra information that nobody understands breaks the device") {
    for (const std::uint8_t type : {0, 5, 255}) {
        Guest guest;
        (void)guest.good();
        guest.ring().add(guest.slot(0, 0, 60, net::tx_flag::extra_info, 1));
        guest.ring().add(net::in_tx_slot({.type = type, .flags = 0, .data = {}}));
        guest.show_and_turn();
        CHECK(guest.backend.faults.size() == 1);
    }
}

TEST_CASE("an endless chain of extras breaks the device") {
    Guest guest;
    (void)guest.good();
    guest.ring().add(guest.slot(0, 0, 60, net::tx_flag::extra_info, 1));
    for (unsigned i = 0; i < 100; ++i) guest.ring().add(net::in_tx_slot(net::hash_extra({}, true)));
    guest.show_and_turn();
    CHECK(guest.backend.faults.size() == 1);
}

TEST_CASE("GSO of an impossible type or size breaks the device") {
    for (const auto& [type, size] : {std::pair<std::uint8_t, std::uint16_t>{3, 1448}, {1, 0}, {255, 1}}) {
        Guest guest;
        (void)guest.good();
        guest.ring().add(guest.slot(0, 0, 60, net::tx_flag::extra_info, 1));
        guest.ring().add(net::in_tx_slot(
            {.type = net::extra_type::gso,
             .flags = 0,
             .data = {static_cast<std::uint8_t>(size), static_cast<std::uint8_t>(size >> 8), type, 0, 0, 0}}));
        guest.show_and_turn();
        CHECK(guest.backend.faults.size() == 1);
    }
}

TEST_CASE("GSO or a blank checksum on what has no TCP is refused, not passed on") {
    Guest guest;
    (void)guest.good();
    guest.ring().add(guest.slot(0, 0, 60, net::tx_flag::extra_info, 1));
    guest.ring().add(net::in_tx_slot(net::gso_extra({net::GsoType::tcpv4, 1448})));
    guest.ring().add(guest.slot(0, 0, 60, net::tx_flag::csum_blank, 2));
    guest.show_and_turn();
    const auto answers = guest.ring().take_all();
    REQUIRE(answers.size() == 3);
    CHECK(answers[0].status == net::status::error);
    CHECK(answers[1].status == net::status::null);
    CHECK(answers[2].status == net::status::error);
    CHECK_FALSE(guest.backend.host_receives());
    CHECK(guest.works());
}

TEST_CASE("a guest cannot send under another's MAC address") {
    Guest guest;
    const auto packet = ethernet(60, other, guest.backend.options.mac);
    (void)guest.pages.memory.copy_in(0, packet);
    guest.ring().add(guest.slot(0, 0, 60, 0, 1));
    guest.show_and_turn();
    CHECK(guest.ring().take_all()[0].status == net::status::error);
    CHECK_FALSE(guest.backend.host_receives());
    CHECK(guest.works());
}

TEST_CASE("a guest of which everything is refused is read no faster than its refusals allow, and not shut out") {
    using Clock = std::chrono::steady_clock;
    Guest guest;
    (void)guest.pages.memory.copy_in(0, ethernet(60, other, guest.backend.options.mac));
    constexpr unsigned all = 4000, at_once = net::backend::refusals_at_once, a_turn = 64;
    const auto start = Clock::now();
    const auto allowed = [&] {
        const std::chrono::duration<double> passed = Clock::now() - start;
        return at_once + a_turn + passed.count() * net::backend::refusals_per_second;
    };
    while (guest.ring().response_producer() < all) {
        while (guest.ring().produced() < all && guest.ring().produced() - guest.ring().response_producer() < 256)
            guest.ring().add(guest.slot(0, 0, 60, 0, 1));
        guest.show_and_turn();
        REQUIRE(guest.ring().response_producer() <= allowed());
        for (const auto& response : guest.ring().take_all()) REQUIRE(response.status == net::status::error);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // room for a thousand refusals more
    CHECK(guest.works());
}

TEST_CASE("xsa_374 a broken device is taken down without touching what is gone, again and again") {
    for (unsigned i = 0; i < 500; ++i) {
        Guest guest;
        (void)guest.good();
        guest.ring().add(guest.slot(0, 4095, 60, 0, 1));
        guest.show_and_turn();
        REQUIRE(guest.backend.faults.size() == 1);
        guest.backend.worker.reset();
        guest.backend.turns();
        REQUIRE(guest.memory.hypervisor.mapped == 0);
    }
}

TEST_CASE("xsa_332 an event storm without work costs a turn, and no answers") {
    Guest guest;
    for (unsigned i = 0; i < 1000; ++i) {
        (void)guest.backend.queue().channel.theirs.notify();
        guest.backend.turns(1);
    }
    CHECK(guest.ring().response_producer() == 0);
    CHECK(guest.works());
}

TEST_CASE("xsa_42 the log of a lying guest is bounded") {
    Guest guest;
    (void)guest.good();
    for (unsigned round = 0; round < 40; ++round) {
        for (unsigned i = 0; i < 100; ++i) guest.ring().add(guest.slot(0, 0, 5, 0, i));
        guest.ring().show();
        while (guest.ring().response_producer() != guest.ring().produced()) guest.backend.turns(4);
        (void)guest.ring().take_all();
    }
    CHECK(guest.backend.log.suppressed() > 3900);
}
