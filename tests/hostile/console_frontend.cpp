// A console frontend under attack by its backend: SUPPORT.md's promise for Linux' hvc (XSA-376), kept here, too.
#include <catch2/catch.hpp>
#include <thread>

#include "tests/hostile/console_liar.h"

namespace caisson::test {
namespace {

using namespace console;

// A guest's frontend, and a driver domain that lies.
struct Attack {
    Attack() : pair(xen, {.back = false}) {
        // The nodes are there; the liar's domain says InitWait itself.
        store.emplace(need(Store::open(pair.domains()->back.xenstored)));
        say(2);
        REQUIRE(pair.until([&] { return pair.front().endpoint().shown() == XenbusState::initialised; }));
        liar.emplace(Liar::backend(pair.domains()->back, pair.front_id()));
    }
    void say(int state) {
        need(store->write("/local/domain/" + std::to_string(pair.back_id().raw) + "/backend/console/" +
                              std::to_string(pair.front_id().raw) + "/0/state",
                          std::to_string(state)));
    }
    void connect() {
        say(4);
        REQUIRE(pair.until([&] { return pair.front().endpoint().shown() == XenbusState::connected; }));
    }
    bool broken() { return pair.front().complaint.has_value(); }
    void settle() {
        for (int i = 0; i < 20; ++i) pair.step();
    }

    LocalXen xen;
    ConsolePair pair;
    std::optional<Store> store;
    std::optional<Liar> liar;
};

}  // namespace

TEST_CASE("xsa_376_console_frontend_takes_at_most_a_ring_of_input") {
    for (const std::uint32_t ahead : {0u, 1u, 1023u, 1024u, 1025u, 0x80000000u, 0xFFFFFFFFu}) {
        Attack attack;
        attack.connect();
        Reader program(attack.pair.program());
        attack.liar->word(in_producer) = ahead;
        attack.liar->notify();
        attack.settle();
        CHECK(attack.broken() == (ahead > in_bytes));
        if (!attack.broken()) {
            REQUIRE(attack.pair.until([&] { return program.pump(), program.text().size() == ahead; }));
        } else {
            program.pump();
            CHECK(program.text().empty());
        }
    }
}

TEST_CASE("xsa_376_console_frontend_believes_no_consumer_index_that_cannot_be") {
    for (const std::uint32_t consumed : {1u, 2048u, 0x80000000u, 0xFFFFF7FFu}) {
        Attack attack;
        attack.connect();
        attack.liar->word(out_consumer) = consumed;  // nothing was printed yet
        attack.liar->notify();
        REQUIRE(attack.pair.until([&] { return attack.broken(); }));
        // Programs go on; what they print waits for a better backend.
        CHECK(::write(attack.pair.guest(), "still here", 10) == 10);
    }
}

TEST_CASE("xsa_86_console_frontend_any_index_at_any_time") {
    std::uint32_t seed = 7;
    const auto random = [&] { return seed = seed * 1664525 + 1013904223; };
    for (int round = 0; round < 40; ++round) {
        Attack attack;
        attack.connect();
        attack.pair.guest();
        for (int i = 0; i < 20 && !attack.broken(); ++i) {
            const std::uint32_t value = random();
            attack.liar->word(in_consumer + 4 * (random() >> 30)) = (value & 1) != 0 ? value % 4096 : value;
            attack.liar->base()[connection_offset] = static_cast<std::byte>(value >> 8);
            attack.liar->notify();
            (void)!::write(attack.pair.guest(), "print", 5);
            attack.pair.step();
        }
    }
}

TEST_CASE("xsa_391_console_frontend_event_storm_lets_the_guest_sleep") {
    Attack attack;
    attack.connect();
    std::atomic<bool> stop{false};
    std::thread storm([&] {
        while (!stop) attack.liar->notify();
    });
    attack.settle();
    unsigned busy = 0;
    for (int i = 0; i < 1000; ++i) busy += attack.pair.loop().turn(std::chrono::milliseconds(0)) ? 1 : 0;
    stop = true;
    storm.join();
    CHECK(busy < 100);
    CHECK_FALSE(attack.broken());
}

TEST_CASE("xsa_396_console_frontend_page_that_a_backend_keeps_is_never_used_again") {
    Attack attack;
    attack.connect();
    Hypervisor& guest = *attack.pair.front_domain().hypervisor;
    attack.pair.guest();
    REQUIRE(::write(attack.pair.guest(), "secret", 6) == 6);
    REQUIRE(attack.pair.until([&] { return attack.liar->word(out_producer) == 6; }));
    attack.say(6);  // closed, but the page stays mapped
    REQUIRE(attack.pair.until([&] { return attack.pair.front().endpoint().shown() == XenbusState::closed; }));
    CHECK(guest.quarantined_pages() == 1);
    guest.retry_quarantine();
    CHECK(guest.quarantined_pages() == 1);
    // The next connection has another page: nothing of it shows in the old one.
    attack.say(2);
    REQUIRE(attack.pair.until([&] { return attack.pair.front().endpoint().shown() == XenbusState::initialised; }));
    const std::uint32_t before = attack.liar->word(out_producer);
    REQUIRE(::write(attack.pair.guest(), "more", 4) == 4);
    attack.settle();
    CHECK(attack.liar->word(out_producer) == before);
    attack.liar->let_go();
    guest.retry_quarantine();
    CHECK(guest.quarantined_pages() == 0);
}

TEST_CASE("xsa_403_console_frontend_page_holds_what_was_printed_and_nothing_else") {
    Attack attack;
    attack.connect();
    REQUIRE(::write(attack.pair.guest(), "printed", 7) == 7);
    REQUIRE(attack.pair.until([&] { return attack.liar->word(out_producer) == 7; }));
    std::array<std::byte, page_size> expected{};
    std::memcpy(expected.data() + out_offset, "printed", 7);
    expected[out_producer] = std::byte{7};
    expected[connection_offset] = std::byte{disconnected};
    CHECK(std::memcmp(expected.data(), attack.liar->base(), page_size) == 0);
}

TEST_CASE("xsa_465_console_frontend_stands_every_state_of_its_backend_at_any_time") {
    for (int first = 0; first <= 9; ++first)
        for (int second = 0; second <= 9; ++second) {
            Attack attack;
            attack.say(first);
            attack.pair.step();
            attack.say(second);
            attack.settle();
            // And back to work.
            attack.say(6);
            attack.settle();
            attack.say(1);
            attack.settle();
            attack.say(2);
            REQUIRE(
                attack.pair.until([&] { return attack.pair.front().endpoint().shown() == XenbusState::initialised; }));
        }
}

TEST_CASE("a backend that takes nothing stops only those who print, and a farewell does not wait for it") {
    Attack attack;
    attack.connect();
    const int guest = attack.pair.guest();
    std::size_t sent = 0;
    for (int i = 0; i < 200; ++i) {
        const ssize_t count = ::write(guest, std::string(4096, 'x').data(), 4096);
        if (count > 0) sent += static_cast<std::size_t>(count);
        attack.pair.step();
    }
    CHECK(sent < 200'000);                                // the guest's own pty pushes back
    CHECK(attack.liar->word(out_producer) == out_bytes);  // and nothing was overwritten
    attack.pair.front().endpoint().stop();
    REQUIRE(attack.pair.until([&] { return attack.pair.front().endpoint().finished(); }));
}

}  // namespace caisson::test
