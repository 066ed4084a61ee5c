// kill -9 of console workers while numbered bytes flow in both directions: what did people miss, and did anything come
// twice? "No byte twice" is the promise; what was lost is counted and bounded by one write a kill.
//
// Usage: chaos_console [--kills N] [--seed N]
#include <fmt/format.h>

#include <charconv>
#include <random>
#include <string_view>

#include "tests/support/console_pair.h"
#include "tests/support/console_streams.h"

namespace caisson::test {
namespace {

constexpr std::size_t most_lost_a_kill = 1024;  // a read, or a write, that was on its way

struct Stream {
    int from = -1;
    std::uint32_t next = 0;
    std::string rest = {}, sent = {};
    bool push(std::size_t most = 1000) {
        if (rest.size() < most) rest += words(next, 400), next += 400;
        return put(most);
    }
    bool put(std::size_t most) {
        const ssize_t count = ::write(from, rest.data(), std::min(most, rest.size()));
        if (count <= 0) return false;
        sent.append(rest, 0, static_cast<std::size_t>(count));
        rest.erase(0, static_cast<std::size_t>(count));
        return true;
    }
    // A last word that says that everything came.
    void end() { rest = "end\n"; }
};

bool report(std::string_view who, const Stream& stream, std::string_view got, std::uint64_t bound) {
    const Difference found = difference(stream.sent, got);
    fmt::print("{:<20} {:>11} {:>11} {:>9} {:>9}\n", who, stream.sent.size(), got.size(), found.lost, found.doubled);
    if (found.foreign > 0) fmt::print("  and {} bytes that nobody sent in this order\n", found.foreign);
    return found.doubled == 0 && found.lost <= bound;
}

int run(unsigned kills, unsigned seed) {
    LocalXen xen;
    const std::string log = xen.directory() + "/guest.log";
    ConsolePair pair(
        xen, {.backend = {{"log", log}, {"log-limit", "1073741824"}, {"log-rate", "1000000000"}}, .processes = true});
    if (!pair.until([&] { return pair.connected(); })) return fmt::print(stderr, "the pair did not connect\n"), 1;
    Reader reader(need(pair.attach())), program(pair.program());
    Stream down{.from = pair.guest()}, up{.from = reader.fd()};
    std::mt19937 random(seed);
    unsigned back = 0, front = 0;
    for (unsigned done = 0; done < kills; ++done) {
        for (unsigned turns = 1 + random() % 12; turns > 0; --turns) {
            down.push(), up.push();
            pair.step();
            reader.pump(), program.pump();
        }
        if (random() % 2 == 0)
            ++back, pair.back().replace_worker();
        else
            ++front, pair.front().replace_worker();
    }
    down.end(), up.end();
    const bool arrived = pair.until([&] {
        if (!down.rest.empty()) down.put(4);
        if (!up.rest.empty()) up.put(4);
        reader.pump(), program.pump();
        return reader.text().ends_with("end\n") && program.text().ends_with("end\n");
    });

    fmt::print("{} workers killed: {} backends, {} frontends\n\n", kills, back, front);
    fmt::print("{:<20} {:>11} {:>11} {:>9} {:>9}\n", "direction", "bytes sent", "came", "lost", "doubled");
    bool good = report("guest to reader", down, reader.text(), std::uint64_t{kills} * most_lost_a_kill);
    good &= report("guest to log", down, contents(log), std::uint64_t{front} * most_lost_a_kill);
    good &= report("reader to guest", up, program.text(), std::uint64_t{kills} * most_lost_a_kill);
    if (!arrived) fmt::print("\nFAILED: a stream did not come to its end\n");
    fmt::print("\n{}\n", good ? "no byte twice" : "FAILED: bytes came twice, or more was lost than one piece a kill");
    return arrived && good ? 0 : 1;
}

}  // namespace
}  // namespace caisson::test

int main(int argc, char** argv) {
    unsigned kills = 200, seed = 1;
    for (int i = 1; i < argc; ++i) {
        const std::string_view option = argv[i];
        const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
        unsigned* const number = option == "--kills" ? &kills : option == "--seed" ? &seed : nullptr;
        if (number == nullptr ||
            std::from_chars(value.data(), value.data() + value.size(), *number).ec != std::errc{}) {
            fmt::print(option == "--help" ? stdout : stderr, "usage: chaos_console [--kills N] [--seed N]\n");
            return option == "--help" ? 0 : 2;
        }
        ++i;
    }
    try {
        return caisson::test::run(kills, seed);
    } catch (const std::exception& error) {
        fmt::print(stderr, "chaos_console: {}\n", error.what());
        return 1;
    }
}
