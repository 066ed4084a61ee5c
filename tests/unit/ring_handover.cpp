#include <catch2/catch.hpp>

#include "ring/handover.h"
#include "ring/log.h"

using namespace caisson;

TEST_CASE("a handover is read in the order in which it was written") {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const Fd in(ends[0]), out(ends[1]);
    Handover handover;
    handover.put(std::uint32_t{42});
    handover.put(std::string_view("vif"));
    const std::array refs{GrantRef(8), GrantRef(9)};
    handover.put(std::span<const GrantRef>(refs));
    REQUIRE(handover.put(out));

    HandoverReader reader = *handover.reader();
    CHECK(reader.value<std::uint32_t>() == 42u);
    CHECK(reader.text() == "vif");
    CHECK(reader.refs() == std::vector{GrantRef(8), GrantRef(9)});
    const auto fd = reader.fd();
    REQUIRE(fd);
    REQUIRE(::write(fd->get(), "x", 1) == 1);
    char byte = 0;
    CHECK(::read(in.get(), &byte, 1) == 1);
    CHECK_FALSE(reader.fd());
    CHECK_FALSE(reader.value<std::uint32_t>());
}

TEST_CASE("a handover may have no grants in a list of them") {  // nor an address to copy them to
    Handover handover;
    handover.put(std::span<const GrantRef>());
    HandoverReader reader({handover.bytes().begin(), handover.bytes().end()}, {});
    CHECK(reader.refs() == std::vector<GrantRef>());
}

TEST_CASE("a handover value of another size is refused") {
    Handover handover;
    handover.put(std::uint64_t{1});
    HandoverReader reader({handover.bytes().begin(), handover.bytes().end()}, {});
    CHECK_FALSE(reader.value<std::uint32_t>());
}

TEST_CASE("text that others made is escaped before it reaches a terminal") {
    CHECK(escaped("plain text") == "plain text");
    CHECK(escaped("\x1b[2J\n\\") == "\\x1b[2J\\x0a\\x5c");
}

TEST_CASE("xsa_43_157_a peer cannot fill the log") {
    Log log("test device (a flood of ten lines is expected here)");
    for (int i = 0; i < 1000; ++i) log.peer(Error{.fault = Fault::peer, .what = "bad request"});
    CHECK(log.suppressed() == 990);
}

TEST_CASE("a descriptor can be made anew for each worker, in its place among the others") {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const Fd in(ends[0]), out(ends[1]);
    Handover handover;
    unsigned made = 0;
    REQUIRE(handover.put(in));
    handover.put_each_time([&]() -> Result<Fd> {
        ++made;
        return out.duplicate();
    });
    for (unsigned worker = 1; worker <= 3; ++worker) {
        HandoverReader reader = *handover.reader();
        const auto first = reader.fd(), second = reader.fd();
        REQUIRE((first && second));
        CHECK(made == worker);
        CHECK(::write(second->get(), "x", 1) == 1);
        char byte = 0;
        CHECK(::read(first->get(), &byte, 1) == 1);
    }
    handover.put_each_time([]() -> Result<Fd> { return host_fault(ENOENT, "the disk is gone"); });
    CHECK_FALSE(handover.reader());
}
