// Where people attach, and what happens when nobody does: pty, socket, log; readers that are slow or gone.
#include <catch2/catch.hpp>

#include "tests/support/console_pair.h"

namespace caisson::test {
namespace {

// Prints through the guest's pty until the ring and the pty take no more, or all is out.
bool print(ConsolePair& pair, std::string_view text) {
    std::size_t sent = 0;
    const int fd = pair.guest();
    return pair.until([&] {
        const ssize_t count = ::write(fd, text.data() + sent, std::min<std::size_t>(2048, text.size() - sent));
        if (count > 0) sent += static_cast<std::size_t>(count);
        return sent == text.size();
    });
}

bool taken(ConsolePair& pair, std::size_t bytes) {
    return pair.until([&] { return pair.back().stats().queue[0].bytes_in.get() >= bytes; });
}

std::string lines(std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += "line " + std::to_string(i) + "\n";
    return text;
}

}  // namespace

TEST_CASE("a socket serves one client at a time, and the next one goes on where output stopped") {
    LocalXen xen;
    ConsolePair pair(xen, {.backend = {{"connection", "socket"}, {"path", xen.directory() + "/console.sock"}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    REQUIRE(print(pair, "before anybody looked\n"));
    REQUIRE(taken(pair, 22));
    {
        Reader first(need(pair.attach()));
        REQUIRE(pair.until([&] { return first.pump(), first.text().size() >= 22; }));
        CHECK(first.text() == "before anybody looked\n");

        Reader second(need(pair.attach()));
        bool open = true;
        REQUIRE(pair.until([&] { return !(open = second.pump()); }));
        CHECK(second.text().find("somebody else is attached") != std::string::npos);
        REQUIRE(print(pair, "still the first\n"));
        REQUIRE(pair.until([&] { return first.pump(), first.text().ends_with("still the first\n"); }));
    }
    REQUIRE(print(pair, "between\n"));
    Reader third(need(pair.attach()));
    REQUIRE(pair.until([&] { return third.pump(), third.text().ends_with("between\n"); }));
}

TEST_CASE("a client that sends no more may go on listening") {
    LocalXen xen;
    ConsolePair pair(xen, {.backend = {{"connection", "socket"}, {"path", xen.directory() + "/console.sock"}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader client(need(pair.attach()));
    REQUIRE(::write(client.fd(), "ls\n", 3) == 3);
    REQUIRE(::shutdown(client.fd(), SHUT_WR) == 0);
    Reader program(pair.program());
    REQUIRE(pair.until([&] { return program.pump(), program.text() == "ls\n"; }));
    REQUIRE(print(pair, "files\n"));
    REQUIRE(pair.until([&] { return client.pump(), client.text() == "files\n"; }));
    unsigned busy = 0;
    for (int i = 0; i < 50; ++i) busy += pair.loop().turn(std::chrono::milliseconds(0)) ? 1 : 0;
    CHECK(busy < 10);  // a half-closed line keeps nobody awake
}

TEST_CASE("a console that nobody reads keeps the newest output, counts the rest, and never stops the guest") {
    LocalXen xen;
    ConsolePair pair(
        xen, {.backend = {{"connection", "socket"}, {"path", xen.directory() + "/console.sock"}, {"limit", "8192"}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    const std::string text = lines(10'000);
    REQUIRE(print(pair, text));
    REQUIRE(taken(pair, text.size()));
    CHECK(pair.back().stats().queue[0].dropped.get() == text.size() - 8192);
    Reader late(need(pair.attach()));
    REQUIRE(pair.until([&] { return late.pump(), late.text().size() >= 8192; }));
    CHECK(late.text() == text.substr(text.size() - 8192));
}

TEST_CASE("a reader that stops reading does not stop the guest, and what it gets later is in order") {
    LocalXen xen;
    ConsolePair pair(xen, {.backend = {{"limit", "4096"}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader reader(need(pair.attach()));
    const std::string text = lines(40'000);  // more than a pty, the ring and the queue hold
    REQUIRE(print(pair, text));
    REQUIRE(taken(pair, text.size()));
    const std::uint64_t dropped = pair.back().stats().queue[0].dropped.get();
    CHECK(dropped > 0);
    REQUIRE(pair.until([&] { return reader.pump(), reader.text().size() >= text.size() - dropped; }));
    CHECK(reader.text().size() == text.size() - dropped);
    CHECK(reader.text().ends_with("line 39999\n"));
    CHECK(text.starts_with(reader.text().substr(0, 1000)));
}

TEST_CASE("input that the guest does not read waits outside, and nothing of it is lost") {
    LocalXen xen;
    ConsolePair pair(xen, {.backend = {{"connection", "socket"}, {"path", xen.directory() + "/console.sock"}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    Reader client(need(pair.attach()));
    pair.guest();  // raw, but nobody reads
    const std::string text = lines(20'000);
    std::size_t sent = 0;
    for (int idle = 0; idle < 200 && sent < text.size(); ++idle) {
        const ssize_t count = ::write(client.fd(), text.data() + sent, text.size() - sent);
        if (count > 0) sent += static_cast<std::size_t>(count), idle = 0;
        pair.step();
    }
    Reader program(pair.program());
    REQUIRE(pair.until([&] {
        const ssize_t count = ::write(client.fd(), text.data() + sent, text.size() - sent);
        if (count > 0) sent += static_cast<std::size_t>(count);
        return program.pump(), program.text().size() >= text.size();
    }));
    CHECK(program.text() == text);
}

TEST_CASE("the log has what was printed, made harmless, whoever reads the console") {
    LocalXen xen;
    const std::string log = xen.directory() + "/log/guest.log";
    ConsolePair pair(xen, {.backend = {{"log", log}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    const std::string text =
        "boot\r\n\x1b]0;owned\x07"
        "done\n";
    REQUIRE(print(pair, text));
    REQUIRE(taken(pair, text.size()));
    Reader reader(need(pair.attach()));
    REQUIRE(pair.until([&] { return reader.pump(), reader.text().size() >= text.size(); }));
    CHECK(reader.text() == text);  // the terminal is the reader's own business
    CHECK(contents(log) ==
          "boot\n\\x1b]0;owned\\x07"
          "done\n");
}

TEST_CASE("lines of a log with timestamps begin with one") {
    LocalXen xen;
    const std::string log = xen.directory() + "/guest.log";
    ConsolePair pair(xen, {.backend = {{"log", log}, {"log-timestamps", "1"}, {"output", "none"}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    REQUIRE(print(pair, "one\ntwo\n"));
    REQUIRE(taken(pair, 8));
    const std::string text = contents(log);
    REQUIRE(text.size() == 2 * (27 + 4));
    CHECK(text[0] == '[');
    CHECK(text.substr(25, 6) == "] one\n");
    CHECK(text.substr(31 + 25, 6) == "] two\n");
}

TEST_CASE("a log never exceeds its limit, and FILE is always the newer half") {
    LocalXen xen;
    const std::string log = xen.directory() + "/guest.log";
    ConsolePair pair(
        xen, {.backend = {{"log", log}, {"log-limit", "131072"}, {"log-rate", "100000000"}, {"output", "none"}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    const std::string text = lines(60'000);
    REQUIRE(text.size() > 4 * 131072);
    std::size_t sent = 0;
    while (sent < text.size()) {
        const std::string_view piece = std::string_view(text).substr(sent, 20'000);
        REQUIRE(print(pair, piece));
        sent += piece.size();
        REQUIRE(taken(pair, sent));
        CHECK(std::filesystem::file_size(log) <= 65536);
        CHECK(std::filesystem::file_size(log + ".1") <= 65536);
    }
    REQUIRE(pair.until([&] { return contents(log).ends_with("line 59999\n"); }));  // the name follows soon
    const std::string kept = contents(log + ".1") + contents(log);
    CHECK(kept.size() > 65536);
    CHECK(text.ends_with(kept));
}

TEST_CASE("a log goes on where an earlier connection of the guest ended") {
    LocalXen xen;
    const std::string log = xen.directory() + "/guest.log";
    auto domains = ConsolePair::own_domains(xen);
    for (const char* text : {"first boot\n", "second boot\n"}) {
        ConsolePair pair(xen, {.backend = {{"log", log}}}, domains);
        REQUIRE(pair.until([&] { return pair.connected(); }));
        REQUIRE(print(pair, text));
        REQUIRE(taken(pair, std::string_view(text).size()));
    }
    CHECK(contents(log) == "first boot\nsecond boot\n");
}

TEST_CASE("a log whose names nobody exchanged in time is put in order at the next connection") {
    LocalXen xen;
    const std::string log = xen.directory() + "/guest.log";
    std::ofstream(log) << "older\n";
    std::ofstream(log + ".1") << "newer\n";
    std::filesystem::last_write_time(log, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
    ConsolePair pair(xen, {.backend = {{"log", log}}});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    REQUIRE(print(pair, "newest\n"));
    REQUIRE(taken(pair, 7));
    CHECK(contents(log + ".1") == "older\n");
    CHECK(contents(log) == "newer\nnewest\n");
}

TEST_CASE("everything a guest printed before it died is in the log and reaches the reader") {
    for (const std::size_t size : {1u, 100u, 2048u, 5000u}) {
        LocalXen xen;
        const std::string log = xen.directory() + "/guest.log";
        ConsolePair pair(
            xen, {.backend = {{"log", log}, {"connection", "socket"}, {"path", xen.directory() + "/console.sock"}}});
        REQUIRE(pair.until([&] { return pair.connected(); }));
        Reader reader(need(pair.attach()));
        pair.step();
        const std::string text = lines(1000).substr(0, size);
        // The program exits at once, the guest with it: nobody has taken a turn since.
        const ssize_t sent = ::write(pair.guest(), text.data(), text.size());
        REQUIRE(sent > 0);
        pair.destroy_guest();
        pair.back().end_worker();
        CHECK(contents(log).size() ==
              std::min<std::size_t>(static_cast<std::size_t>(sent), 2048));  // what a ring holds
        CHECK(text.starts_with(contents(log)));
        while (reader.pump()) {
        }
        CHECK(reader.text() == contents(log));
    }
}

TEST_CASE("a guest that prints, exits and shuts down in order loses nothing, whatever the pty held") {
    LocalXen xen;
    const std::string log = xen.directory() + "/guest.log";
    ConsolePair pair(xen, {.backend = {{"log", log}, {"output", "none"}}, .processes = true});
    REQUIRE(pair.until([&] { return pair.connected(); }));
    const std::string text = lines(1000);
    ::kill(pair.front().process(), SIGSTOP);  // so that the pty fills
    std::size_t sent = 0;
    for (ssize_t count = 1; count > 0 && sent < text.size();) {  // as much as a pty takes without anybody reading
        count = ::write(pair.guest(), text.data() + sent, text.size() - sent);
        if (count > 0) sent += static_cast<std::size_t>(count);
    }
    REQUIRE(sent > 2048);  // more than the ring holds
    ::kill(pair.front().process(), SIGCONT);
    pair.shut_down_guest();
    REQUIRE(pair.until([&] { return contents(log).size() >= sent; }));
    CHECK(contents(log) == text.substr(0, sent));
}

TEST_CASE("attaching from outside follows no link out of the domain and opens nothing but a pty or a socket") {
    LocalXen xen;
    const std::string root = xen.directory() + "/root";
    std::filesystem::create_directories(root + "/dev/pts");
    std::filesystem::create_symlink("/dev/pts", root + "/out");
    std::filesystem::create_symlink("/etc/passwd", root + "/passwd");
    std::ofstream(root + "/dev/pts/0") << "not a terminal";
    const Fd inside(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    for (const char* tty :
         {"/dev/pts/0", "/dev/pts/1", "/passwd", "/out/0", "/../../dev/pts/0", "relative", "/dev/null"})
        CHECK_FALSE(console::attach(inside.get(), {.tty = tty, .path = ""}));
    for (const char* path : {"/dev/pts/0", "/nothing", "/passwd", ""})
        CHECK_FALSE(console::attach(inside.get(), {.tty = "", .path = path}));
    const Fd whole(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    CHECK_FALSE(console::attach(whole.get(), {.tty = "/dev/null", .path = ""}));
    CHECK_FALSE(console::attach(whole.get(), {.tty = "/dev/ptmx", .path = ""}));
}

}  // namespace caisson::test
