// A console backend under attack by its guest. Names: the rows of the table of advisories that apply to a console.
#include <catch2/catch.hpp>
#include <set>
#include <thread>

#include "tests/hostile/console_liar.h"

namespace caisson::test {
namespace {

using namespace console;

// A backend, and a guest whose frontend is a liar.
struct Attack {
    explicit Attack(Nodes backend = {}) : pair(xen, {.backend = add_log(std::move(backend)), .front = false}) {
        REQUIRE(pair.until([&] { return pair.back().endpoint().shown() == XenbusState::init_wait; }));
        liar.emplace(Liar::frontend(pair.front_domain(), pair.back_id()));
    }
    Nodes add_log(Nodes nodes) {
        log = xen.directory() + "/guest.log";
        nodes.emplace("log", log);
        return nodes;
    }
    void connect() {
        liar->state(4);
        REQUIRE(pair.until([&] { return pair.back().endpoint().state() == XenbusState::connected; }));
    }
    bool broken() { return pair.back().complaint.has_value(); }
    std::uint64_t taken() { return pair.back().stats().queue[0].bytes_in.get(); }
    void settle() {
        for (int i = 0; i < 20; ++i) pair.step();
    }

    LocalXen xen;
    std::string log;
    ConsolePair pair;
    std::optional<Liar> liar;
};

}  // namespace

TEST_CASE("xsa_38_console_producer_index_is_at_most_a_ring_ahead") {
    for (const std::uint32_t start : {0u, 5u, 0xFFFFFFF0u}) {
        for (const std::uint32_t ahead : {0u, 1u, 2047u, 2048u, 2049u, 0x80000000u, 0xFFFFFFFFu}) {
            Attack attack;
            attack.liar->word(out_consumer) = start;
            attack.liar->word(out_producer) = start + ahead;
            attack.connect();
            attack.settle();
            CHECK(attack.broken() == (ahead > out_bytes));
            CHECK(attack.taken() == (ahead > out_bytes ? 0 : ahead));  // a completely full ring is legal, too
        }
    }
}

TEST_CASE("xsa_39_console_is_broken_until_it_reconnects") {
    Attack attack;
    attack.connect();
    attack.liar->put(out_offset, "lie");
    attack.liar->word(out_producer) = 0x80000000;
    attack.liar->notify();
    REQUIRE(attack.pair.until([&] { return attack.broken(); }));
    attack.liar->word(out_producer) = 3;  // as if nothing had been
    for (int i = 0; i < 100; ++i) attack.liar->notify(), attack.pair.step();
    CHECK(attack.taken() == 0);
    CHECK(attack.pair.back().stats().broken.get() == 1);

    attack.liar->state(6);
    attack.liar->state(1);
    REQUIRE(attack.pair.until([&] { return attack.pair.back().endpoint().shown() == XenbusState::init_wait; }));
    Liar honest = Liar::frontend(attack.pair.front_domain(), attack.pair.back_id());
    honest.put(out_offset, "true");
    honest.word(out_producer) = 4;
    honest.state(4);
    REQUIRE(attack.pair.until([&] { return attack.taken() == 4; }));
    CHECK(contents(attack.log) == "true");
}

TEST_CASE("xsa_86_console_any_index_at_any_time") {
    std::uint32_t seed = 1;
    const auto random = [&] { return seed = seed * 1664525 + 1013904223; };
    for (int round = 0; round < 60; ++round) {
        Attack attack;
        attack.connect();
        Reader reader(need(attack.pair.attach()));
        for (int i = 0; i < 20 && !attack.broken(); ++i) {
            const std::size_t offset = in_consumer + 4 * (random() >> 30);
            const std::uint32_t value = random();
            attack.liar->word(offset) = (value & 1) != 0 ? value % 4096 : value;
            attack.liar->notify();
            (void)!::write(reader.fd(), "typed", 5);
            attack.pair.step();
        }
    }
}

TEST_CASE("xsa_155_console_log_and_reader_see_one_copy_however_fast_the_page_changes") {
    Attack attack({{"log-limit", "8000000"}, {"log-rate", "100000000"}});
    attack.connect();
    Reader reader(need(attack.pair.attach()));
    std::memset(attack.liar->base() + out_offset, '.', out_bytes);  // should the other thread never get its turn
    std::atomic<bool> stop{false};
    std::thread flipper([&] {
        for (std::uint8_t value = 'A'; !stop; value = value == 'Z' ? 'A' : value + 1)
            std::memset(attack.liar->base() + out_offset, value, out_bytes);
    });
    for (std::uint32_t produced = 0; produced < 200'000;) {
        produced += 1500;
        attack.liar->word(out_producer) = produced;
        attack.liar->notify();
        REQUIRE(attack.pair.until([&] { return reader.pump(), attack.taken() == produced; }));
    }
    stop = true;
    flipper.join();
    REQUIRE(attack.pair.until([&] { return reader.pump(), reader.text().size() == attack.taken(); }));
    CHECK(reader.text() == contents(attack.log));
}

TEST_CASE("xsa_216_xsa_403_console_page_holds_protocol_bytes_only") {
    Attack attack;
    attack.connect();
    Reader reader(need(attack.pair.attach()));
    REQUIRE(::write(reader.fd(), "typed", 5) == 5);
    REQUIRE(attack.pair.until([&] { return attack.liar->word(in_producer) == 5; }));
    std::array<std::byte, page_size> expected{};
    std::memcpy(expected.data(), "typed", 5);
    expected[in_producer] = std::byte{5};
    CHECK(std::memcmp(expected.data(), attack.liar->base(), page_size) == 0);
}

TEST_CASE("xsa_332_console_event_storm_costs_a_neighbour_nothing_but_turns") {
    Attack attack;
    attack.connect();
    ConsolePair neighbour(attack.xen, {});
    REQUIRE(neighbour.until([&] { return neighbour.connected(); }));
    Reader reader(need(neighbour.attach()));
    std::atomic<bool> stop{false};
    std::thread storm([&] {
        while (!stop) attack.liar->notify();
    });
    const std::string text(100'000, 'n');
    std::size_t sent = 0;
    const bool done = neighbour.until([&] {
        attack.pair.step();
        const ssize_t count =
            ::write(neighbour.guest(), text.data() + sent, std::min<std::size_t>(4096, text.size() - sent));
        if (count > 0) sent += static_cast<std::size_t>(count);
        return reader.pump(), reader.text().size() == text.size();
    });
    // Nothing to do: after a few spurious events the channel is looked at once a second at most.
    unsigned busy = 0;
    for (int i = 0; i < 1000; ++i) busy += attack.pair.loop().turn(std::chrono::milliseconds(0)) ? 1 : 0;
    stop = true;
    storm.join();
    CHECK(done);
    CHECK(busy < 100);
    CHECK_FALSE(attack.broken());
}

TEST_CASE("xsa_361_xsa_362_console_with_bad_ring_ref_or_port_is_refused_and_nobody_else_notices") {
    for (const char* ref : {"0", "7", "999999", "4294967295", "-1", "", "12x", "99999999999"}) {
        for (const char* key : {"ring-ref", "port"}) {
            Attack attack;
            attack.liar->write(key, ref);
            attack.liar->state(4);
            REQUIRE(attack.pair.until([&] { return attack.pair.back().endpoint().shown() == XenbusState::closing; }));
            CHECK(attack.pair.attach());  // the host's side is as it was
        }
    }
}

TEST_CASE("xsa_350_xsa_374_console_connects_and_disconnects_without_end_and_nothing_is_left") {
    Attack attack;
    std::size_t before = 0;
    for (int round = 0; round < 150; ++round) {
        attack.liar->state(4);
        REQUIRE(attack.pair.until([&] { return attack.pair.back().endpoint().state() == XenbusState::connected; }));
        if (round % 3 == 0) attack.liar->word(out_producer) = 0x40000000, attack.liar->notify();
        if (round % 2 == 0) attack.pair.step();
        attack.liar->state(round % 2 == 0 ? 5 : 6);
        attack.settle();
        attack.liar->let_go();
        attack.liar->state(6);
        attack.liar->state(1);
        REQUIRE(attack.pair.until([&] { return attack.pair.back().endpoint().shown() == XenbusState::init_wait; }));
        attack.liar.reset();
        attack.liar.emplace(Liar::frontend(attack.pair.front_domain(), attack.pair.back_id()));
        if (round == 20) before = open_descriptors();
    }
    // The channels that the liar itself never closed are its own: two descriptors each.
    CHECK(open_descriptors() <= before + 2 * 130);
}

TEST_CASE("xsa_57_console_takes_nothing_from_the_guests_directory_but_ring_and_port") {
    Attack attack;
    const std::string victim = attack.xen.directory() + "/victim";
    for (const char* key : {"tty", "output", "path", "connection", "log", "log-path", "limit", "log-limit", "log-rate",
                            "name", "type", "backend", "backend-id", "frontend-id", "log-turn", "link"})
        attack.liar->write(key, victim);
    attack.connect();
    attack.liar->put(out_offset, "print");
    attack.liar->word(out_producer) = 5;
    attack.liar->notify();
    Reader reader(need(attack.pair.attach()));
    REQUIRE(attack.pair.until([&] { return reader.pump(), reader.text() == "print"; }));
    CHECK(contents(attack.log) == "print");
    CHECK_FALSE(std::filesystem::exists(victim));
    CHECK_FALSE(std::filesystem::exists(victim + ".1"));
    // And it cannot write where settings do come from.
    Store guest = need(Store::open(attack.pair.front_domain().xenstored));
    const std::string own = "/local/domain/" + std::to_string(attack.pair.back_id().raw) + "/backend/console/" +
                            std::to_string(attack.pair.front_id().raw) + "/0";
    for (const char* key : {"log", "tty", "limit", "new"}) CHECK_FALSE(guest.write(own + "/" + key, victim));
}

TEST_CASE("xsa_180_console_flood_stays_within_the_logs_size_and_rate") {
    Attack attack({{"log-limit", "131072"}, {"log-rate", "1"}, {"output", "none"}});
    attack.connect();
    const std::string log = attack.log;
    std::uint32_t produced = 0;
    for (std::size_t i = 0; i < out_bytes; i += 2) attack.liar->put(out_offset + i, "\n\x1b");
    while (produced < 4'000'000) {
        produced += out_bytes;
        attack.liar->word(out_producer) = produced;
        attack.liar->notify();
        REQUIRE(attack.pair.until([&] { return attack.taken() == produced; }));
    }
    CHECK(std::filesystem::file_size(log) <= 65536);
    CHECK(std::filesystem::file_size(log + ".1") <= 65536);
    // A byte a second after the first 128 KiB: nothing to speak of was written since, so at most one turn was made.
    CHECK(contents(log).size() + contents(log + ".1").size() <= 131072);
    attack.pair.back().end_worker();
    CHECK(contents(log).find("bytes left out]\n") != std::string::npos);
}

TEST_CASE("xsa_392_console_output_that_nobody_reads_is_bounded_memory") {
    Attack attack(Nodes{{"limit", "4096"}});
    attack.connect();
    std::uint32_t produced = 0;
    while (produced < 2'000'000) {
        produced += out_bytes;
        attack.liar->word(out_producer) = produced;
        attack.liar->notify();
        REQUIRE(attack.pair.until([&] { return attack.taken() == produced; }));
    }
    CHECK(attack.pair.back().journal().size() <= 4096 + 256);
    CHECK(attack.pair.back().stats().queue[0].dropped.get() > 1'000'000);
}

TEST_CASE("xsa_441_console_can_be_removed_while_the_guest_logs_at_full_rate") {
    for (int round = 0; round < 30; ++round) {
        Attack attack;
        attack.connect();
        std::atomic<bool> stop{false};
        std::thread noise([&] {
            while (!stop) {
                attack.liar->word(out_producer) = attack.liar->word(out_consumer) + 2048;
                attack.liar->notify();
            }
        });
        for (int i = 0; i < round % 5; ++i) attack.pair.step();
        attack.pair.back().endpoint().stop();
        const bool done = attack.pair.until([&] { return attack.pair.back().endpoint().finished(); });
        stop = true;
        noise.join();
        REQUIRE(done);
    }
}

TEST_CASE("xsa_448_console_events_without_bytes_and_bytes_one_by_one") {
    Attack attack;
    attack.connect();
    for (std::uint32_t produced = 0; produced < 300; ++produced) {
        attack.liar->notify();  // nothing there
        attack.pair.step();
        attack.liar->put(out_offset + produced, "x");
        attack.liar->word(out_producer) = produced + 1;
        attack.liar->notify();
        REQUIRE(attack.pair.until([&] { return attack.taken() == produced + 1; }));
    }
    CHECK_FALSE(attack.broken());
    CHECK(contents(attack.log) == std::string(300, 'x'));
}

TEST_CASE("the connection byte means nothing, whatever is in it") {
    Attack attack;
    attack.connect();
    for (unsigned value = 0; value < 256; ++value) {
        attack.liar->base()[connection_offset] = static_cast<std::byte>(value);
        attack.liar->put(out_offset + value, "y");
        attack.liar->word(out_producer) = value + 1;
        attack.liar->notify();
        REQUIRE(attack.pair.until([&] { return attack.taken() == value + 1; }));
    }
}

TEST_CASE("escape sequences of a hostile guest never reach the log, wherever they are cut") {
    Attack attack(Nodes{{"output", "none"}});
    attack.connect();
    std::uint32_t produced = 0;
    for (int byte = 0; byte < 256; ++byte) {
        for (const char* form : {"\x1b]0;%c\x07", "%c[2J", "\xc2%c", "\xe2\x80%c"}) {
            char text[16];
            const int length = std::snprintf(text, sizeof text, form, byte);
            for (int i = 0; i < length; ++i, ++produced)
                attack.liar->put(out_offset + produced % out_bytes, {text + i, 1});
            attack.liar->word(out_producer) = produced;
            attack.liar->notify();
            REQUIRE(attack.pair.until([&] { return attack.taken() == produced; }));
        }
    }
    attack.pair.back().end_worker();
    for (const char c : contents(attack.log)) {
        const auto byte = static_cast<unsigned char>(c);
        REQUIRE((byte >= 0x20 || byte == '\n' || byte == '\t'));
        REQUIRE(byte != 0x7f);
    }
}

}  // namespace caisson::test
