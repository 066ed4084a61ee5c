// Workers that are killed while bytes flow: no byte twice, the log has each of them once, and nobody has to reconnect.
#include <catch2/catch.hpp>
#include <random>

#include "tests/support/console_pair.h"
#include "tests/support/console_streams.h"

namespace caisson::test {
namespace {

constexpr std::size_t most_lost_a_kill = 1024;  // a read, or a write, that was on its way

struct Stream {
    int from;
    std::string text;
    std::size_t sent = 0;
    void push() {
        const ssize_t count = ::write(from, text.data() + sent, std::min<std::size_t>(1500, text.size() - sent));
        if (count > 0) sent += static_cast<std::size_t>(count);
    }
    bool done() const { return sent == text.size(); }
};

}  // namespace

TEST_CASE("killed backend workers: the log has every byte once, the reader no byte twice") {
    LocalXen xen;
    const std::string log = xen.directory() + "/guest.log";
    ConsolePair pair(xen, {.backend = {{"log", log}, {"log-limit", "8000000"}}, .processes = true});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach()));
    Stream down{.from = pair.guest(), .text = words(0, 40'000)};
    std::mt19937 random(1);
    unsigned kills = 0;
    REQUIRE(pair.until([&] {
        down.push(), reader.pump();
        if (random() % 8 == 0 && kills < 40) ++kills, pair.back().replace_worker();
        return down.done() && pair.front().stats().queue[0].bytes_in.get() >= down.text.size();
    }));
    REQUIRE(kills > 10);  // how many the scheduler left time for is not the point
    REQUIRE(pair.until([&] { return reader.pump(), contents(log).size() >= down.text.size(); }));
    CHECK(contents(log) == down.text);
    REQUIRE(pair.until([&] { return reader.pump(), reader.text().ends_with("000039999\n"); }));
    const Difference seen = difference(down.text, reader.text());
    CHECK(seen.doubled == 0);
    CHECK(seen.lost <= kills * most_lost_a_kill);
}

TEST_CASE("killed frontend workers: no byte twice in either direction") {
    LocalXen xen;
    ConsolePair pair(xen, {.processes = true});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach())), program(pair.program());
    Stream down{.from = pair.guest(), .text = words(0, 20'000)}, up{.from = reader.fd(), .text = words(0, 20'000)};
    std::mt19937 random(2);
    unsigned kills = 0;
    REQUIRE(pair.until([&] {
        down.push(), up.push(), reader.pump(), program.pump();
        if (random() % 8 == 0 && kills < 40) ++kills, pair.front().replace_worker();
        return down.done() && up.done();
    }));
    REQUIRE(kills > 10);
    const auto ended = [](const Reader& one) { return one.text().ends_with("000019999\n"); };
    REQUIRE(pair.until([&] { return reader.pump(), program.pump(), ended(reader) && ended(program); }));
    for (const Reader* one : {&reader, &program}) {
        const Difference seen = difference(down.text, one->text());
        CHECK(seen.doubled == 0);
        CHECK(seen.lost <= kills * most_lost_a_kill);
    }
}

TEST_CASE("workers of both sides are killed at the same time, over and over") {
    LocalXen xen;
    ConsolePair pair(xen, {.processes = true});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach())), program(pair.program());
    Stream down{.from = pair.guest(), .text = words(0, 20'000)}, up{.from = reader.fd(), .text = words(0, 20'000)};
    std::mt19937 random(3);
    REQUIRE(pair.until([&] {
        down.push(), up.push(), reader.pump(), program.pump();
        if (random() % 16 == 0) {
            pair.front().replace_worker();
            pair.back().replace_worker();
        }
        return down.done() && up.done();
    }));
    // A last word each, as the last one sent may be the one that was lost.
    REQUIRE(::write(pair.guest(), "end\n", 4) == 4);
    REQUIRE(::write(reader.fd(), "end\n", 4) == 4);
    REQUIRE(pair.until([&] {
        reader.pump(), program.pump();
        return reader.text().ends_with("end\n") && program.text().ends_with("end\n");
    }));
    CHECK(difference(down.text + "end\n", reader.text()).doubled == 0);
    CHECK(difference(up.text + "end\n", program.text()).doubled == 0);
}

TEST_CASE("output that waits for a reader survives the worker") {
    LocalXen xen;
    ConsolePair pair(
        xen, {.backend = {{"connection", "socket"}, {"path", xen.directory() + "/console.sock"}}, .processes = true});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Stream down{.from = pair.guest(), .text = words(0, 5'000)};
    REQUIRE(pair.until([&] { return down.push(), down.done(); }));
    REQUIRE(pair.until([&] { return pair.back().stats().queue[0].bytes_in.get() >= down.text.size(); }));
    pair.back().replace_worker();
    Reader reader(need(pair.attach()));
    REQUIRE(pair.until([&] { return reader.pump(), reader.text().size() >= down.text.size(); }));
    CHECK(reader.text() == down.text);
}

}  // namespace caisson::test
