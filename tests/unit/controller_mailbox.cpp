#include <sys/socket.h>

#include <catch2/catch.hpp>

#include "domains/worker/mailbox.h"
#include "tests/support/crowded_kernel.h"

using namespace caisson;
using namespace std::chrono_literals;

namespace {

struct Pair {
    std::unique_ptr<Loop> loop = *Loop::make();
    std::vector<Mail> mail;
    std::string closed;
    Fd raw;  // the worker's end, when it is not a Mailbox
    std::unique_ptr<Mailbox> controller, worker;

    explicit Pair(Mailbox::Limits limits, bool by_hand = false) {
        auto [ours, theirs] = *make_mail_sockets();
        controller = std::make_unique<Mailbox>(
            *loop, std::move(ours), limits,
            Mailbox::Handlers{.received = [this](Mail one) { mail.push_back(std::move(one)); },
                              .closed = [this](const char* why) { closed = why; }});
        if (by_hand)
            raw = std::move(theirs);
        else
            worker = std::make_unique<Mailbox>(
                *loop, std::move(theirs), limits,
                Mailbox::Handlers{.received = [this](Mail one) { mail.push_back(std::move(one)); },
                                  .closed = [](const char*) {}});
    }
    void turns(int count = 50) {
        for (int i = 0; i < count; ++i) loop->turn(1ms);
    }
    void send_raw(std::span<const std::uint32_t> words) {
        REQUIRE(::send(raw.get(), words.data(), words.size_bytes(), 0) == static_cast<ssize_t>(words.size_bytes()));
    }
};

constexpr Mailbox::Limits generous{.bytes = 1 << 20, .descriptors = 1000, .turn = 16};
constexpr Mailbox::Limits tight{.bytes = 1024, .descriptors = 0, .turn = 16};

}  // namespace

TEST_CASE("a message with more descriptors than the kernel carries at once arrives whole and in order") {
    Pair pair(generous);
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const Fd reader(ends[0]), writer(ends[1]);
    std::vector<int> lent;
    for (int i = 0; i < 600; ++i) lent.push_back(i % 3 == 0 ? ends[1] : ends[0]);
    const std::vector<std::byte> bytes(100'000, std::byte{7});
    pair.controller->send(MailKind::attach, 3, bytes, lent);
    pair.turns();
    REQUIRE(pair.mail.size() == 1);
    CHECK(pair.mail[0].kind == MailKind::attach);
    CHECK(pair.mail[0].device == 3);
    CHECK(pair.mail[0].bytes == bytes);
    REQUIRE(pair.mail[0].descriptors.size() == 600);
    for (std::size_t i = 0; i < 600; ++i) {
        const int flags = ::fcntl(pair.mail[0].descriptors[i].get(), F_GETFL);
        CHECK((flags & O_ACCMODE) == (i % 3 == 0 ? O_WRONLY : O_RDONLY));
    }
}

TEST_CASE("mail waits for a side that does not read, and keeps its order") {
    Pair pair(generous);
    for (std::uint32_t i = 0; i < 2000; ++i) pair.controller->send(MailKind::update, i, std::vector<std::byte>(500));
    pair.turns(500);
    REQUIRE(pair.mail.size() == 2000);
    for (std::uint32_t i = 0; i < 2000; ++i) CHECK(pair.mail[i].device == i);
}

TEST_CASE("a worker that says too much, hands descriptors over or breaks the framing is cut off") {
    Pair pair(tight, true);
    SECTION("too many bytes in one frame") {
        std::vector<std::uint32_t> words(4 + 300);
        words[0] = static_cast<std::uint32_t>(MailKind::publish);
        pair.send_raw(words);
    }
    SECTION("too many bytes in frames without end") {
        std::vector<std::uint32_t> words(4 + 100);
        words[2] = 1;
        for (int i = 0; i < 4; ++i) pair.send_raw(words);
    }
    SECTION("half a header") {
        const std::uint32_t half[] = {1, 2};
        pair.send_raw(half);
    }
    SECTION("a descriptor") {
        auto [a, b] = *make_mail_sockets();
        std::uint32_t words[4]{};
        iovec piece{words, sizeof words};
        alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))]{};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = space;
        message.msg_controllen = sizeof space;
        cmsghdr* control = CMSG_FIRSTHDR(&message);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(sizeof(int));
        const int fd = a.get();
        std::memcpy(CMSG_DATA(control), &fd, sizeof fd);
        REQUIRE(::sendmsg(pair.raw.get(), &message, 0) > 0);
    }
    SECTION("the end") { pair.raw.reset(); }
    pair.turns();
    CHECK_FALSE(pair.closed.empty());
    CHECK(pair.mail.empty());
}

TEST_CASE("mail with descriptors waits without spinning while the kernel takes no more of them into sockets") {
    test::CrowdedKernel kernel;
    if (!kernel.possible()) return;
    Pair pair(generous);
    auto [a, b] = *make_mail_sockets();
    const int lent[] = {a.get()};
    kernel.crowd();
    pair.controller->send(MailKind::attach, 1, {}, lent);
    pair.controller->send(MailKind::update, 2);
    int turns = 0;
    for (const auto end = Loop::Clock::now() + 300ms; Loop::Clock::now() < end; ++turns) pair.loop->turn(50ms);
    CHECK(turns < 100);
    CHECK(pair.mail.empty());
    kernel.relieve();
    for (int i = 0; i < 1000 && pair.mail.size() < 2; ++i) pair.loop->turn(10ms);
    REQUIRE(pair.mail.size() == 2);
    CHECK(pair.mail[0].device == 1);
    CHECK(pair.mail[0].descriptors.size() == 1);
    CHECK(pair.mail[1].device == 2);
}
