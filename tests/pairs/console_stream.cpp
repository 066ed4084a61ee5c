// Bytes through a real pair: every size of piece, both directions, wrapping indices, several consoles.
#include <catch2/catch.hpp>
#include <random>

#include "tests/support/console_pair.h"

namespace caisson::test {
namespace {

std::string numbered(std::size_t size) {
    std::string text;
    for (unsigned i = 0; text.size() < size; ++i) text += std::to_string(i) + (i % 16 == 15 ? "\n" : " ");
    text.resize(size);
    return text;
}

// Feeds `text` into `fd` in pieces of `piece` while the pair runs, until `got` has all of it.
template <class Got>
bool feed(ConsolePair& pair, int fd, std::string_view text, std::size_t piece, Got&& got) {
    std::size_t sent = 0;
    return pair.until([&] {
        while (sent < text.size()) {
            const ssize_t count = ::write(fd, text.data() + sent, std::min(piece, text.size() - sent));
            if (count <= 0) break;
            sent += static_cast<std::size_t>(count);
            if (piece < 64) break;  // one trickle a turn
        }
        return sent == text.size() && got() >= text.size();
    });
}

}  // namespace

TEST_CASE("what a program prints reaches whoever is attached, and what they type reaches the program") {
    LocalXen xen;
    ConsolePair pair(xen, {});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach()));

    REQUIRE(::write(pair.guest(), "hello\n", 6) == 6);
    REQUIRE(pair.until([&] { return reader.pump() && reader.text().size() >= 6; }));
    CHECK(reader.text() == "hello\n");

    REQUIRE(::write(reader.fd(), "date\r", 5) == 5);
    Reader program(pair.program());
    REQUIRE(pair.until([&] { return program.pump() && program.text().size() >= 5; }));
    CHECK(program.text() == "date\r");
}

TEST_CASE("a guest's console behaves like a terminal: echo and line editing are its own") {
    LocalXen xen;
    ConsolePair pair(xen, {});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach()));
    Reader program(pair.program(false));
    REQUIRE(::write(reader.fd(),
                    "ab\x7f"
                    "c\r",
                    5) == 5);
    REQUIRE(pair.until(
        [&] { return program.pump() && reader.pump() && program.text().size() >= 3 && reader.text().size() >= 8; }));
    CHECK(program.text() == "ac\n");
    CHECK(reader.text() == "ab\b \bc\r\n");
}

TEST_CASE("every size of piece arrives whole and in order, in both directions") {
    LocalXen xen;
    ConsolePair pair(xen, {});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach())), program(pair.program());
    std::string printed, typed;
    for (const std::size_t piece : {1u, 2u, 3u, 7u, 64u, 511u, 1023u, 1024u, 1025u, 2047u, 2048u, 2049u, 4000u}) {
        const std::string text = numbered(std::max<std::size_t>(3 * piece, 200));
        printed += text;
        REQUIRE(feed(pair, pair.guest(), text, piece,
                     [&] { return reader.pump(), reader.text().size() + text.size() - printed.size(); }));
        typed += text;
        REQUIRE(feed(pair, reader.fd(), text, piece,
                     [&] { return program.pump(), program.text().size() + text.size() - typed.size(); }));
    }
    CHECK(reader.text() == printed);
    CHECK(program.text() == typed);
    CHECK(pair.back().stats().queue[0].bytes_in.get() == printed.size());
    CHECK(pair.front().stats().queue[0].bytes_out.get() == typed.size());
}

TEST_CASE("a full stream in both directions at once does not stop either") {
    LocalXen xen;
    ConsolePair pair(xen, {});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach())), program(pair.program());
    const std::string text = numbered(200'000);
    std::size_t down = 0, up = 0;
    const auto more = [&](int fd, std::size_t& sent) {
        const ssize_t count = ::write(fd, text.data() + sent, std::min<std::size_t>(4096, text.size() - sent));
        if (count > 0) sent += static_cast<std::size_t>(count);
    };
    REQUIRE(pair.until([&] {
        more(pair.guest(), down), more(reader.fd(), up);
        reader.pump(), program.pump();
        return reader.text().size() == text.size() && program.text().size() == text.size();
    }));
    CHECK(reader.text() == text);
    CHECK(program.text() == text);
}

TEST_CASE("several consoles of one guest do not mix: console 0, and channels by name") {
    LocalXen xen;
    ConsolePair first(xen, {});
    const std::string socket = xen.directory() + "/agent.sock";
    ConsolePair second(xen,
                       {.id = DeviceId(1),
                        .backend = {{"output", "chardev:libxl-channel1"}, {"connection", "socket"}, {"path", socket}}},
                       first.domains());
    ConsolePair third(xen,
                      {.id = DeviceId(2), .backend = {{"output", "chardev:libxl-channel2"}, {"connection", "pty"}}},
                      first.domains());
    ConsolePair* const all[] = {&first, &second, &third};
    REQUIRE(first.until([&] {
        for (ConsolePair* pair : all) pair->step();
        return first.connected() && second.connected() && third.connected();
    }));
    std::vector<Reader> readers;
    for (ConsolePair* pair : all) readers.emplace_back(need(pair->attach()));
    for (int i = 0; i < 3; ++i)
        REQUIRE(::write(all[i]->guest(), std::string(5, static_cast<char>('a' + i)).data(), 5) == 5);
    REQUIRE(first.until([&] {
        bool whole = true;
        for (int i = 0; i < 3; ++i) all[i]->step(), readers[i].pump(), whole &= readers[i].text().size() >= 5;
        return whole;
    }));
    CHECK(readers[0].text() == "aaaaa");
    CHECK(readers[1].text() == "bbbbb");
    CHECK(readers[2].text() == "ccccc");
}

TEST_CASE("a channel's pty in the guest has the channel's name, too") {
    if (::geteuid() != 0) {
        WARN("skipped: /run/caisson needs root where guests share the test's file system");
        return;
    }
    LocalXen xen;
    const std::string name = "test-" + std::to_string(::getpid());
    {
        ConsolePair pair(xen, {.id = DeviceId(3), .frontend = {{"name", name}}});
        REQUIRE(pair.until([&] { return pair.connected(); }));
        CHECK(std::filesystem::read_symlink("/run/caisson/channel/" + name) ==
              std::filesystem::read_symlink(pair.link()));
    }
    CHECK_FALSE(std::filesystem::is_symlink("/run/caisson/channel/" + name));
}

TEST_CASE("an idle console sleeps") {
    LocalXen xen;
    ConsolePair pair(xen, {});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach()));
    REQUIRE(::write(pair.guest(), "x", 1) == 1);
    REQUIRE(pair.until([&] { return reader.pump() && !reader.text().empty(); }));
    unsigned busy = 0;
    for (int i = 0; i < 50; ++i) busy += pair.loop().turn(std::chrono::milliseconds(0)) ? 1 : 0;
    CHECK(busy < 10);  // the last of the traffic, then nothing
}

}  // namespace caisson::test
