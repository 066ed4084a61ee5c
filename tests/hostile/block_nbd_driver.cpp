// Whoever has the driver's end of a disk's NBD socket may send anything, and whoever had the journal before may have
// written anything there.
#include <catch2/catch.hpp>

#include <random>

#include "tests/support/block_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

using Alone = BlockFrontendAlone;
using block::frontend::most_tags;

void answer_all(Alone& front) {
    for (const auto& request : front.taken()) front.answer(request);
    front.poll();
}

}  // namespace

TEST_CASE("What is no request ends the conversation at once, and the disk's other users notice nothing") {
    Alone front({.nbd = true});
    front.open();
    front.driver->ask(NbdCommand::read, 1, 0, 512);
    front.poll();
    auto wrong = nbd_request(NbdCommand::read, 2, 0, 512);
    wrong[0] ^= std::byte{1};
    front.driver->send(wrong);
    front.driver->ask(NbdCommand::read, 3, 0, 512);
    front.poll();
    CHECK(front.server->serve(32).gone);
    CHECK(front.requests->count() == 1);
    answer_all(front);
    CHECK(front.requests->count() == 0);
    REQUIRE(front.submit(block::Operation::read, 0, 512, 7));
    answer_all(front);
    CHECK(front.ended.at(7) == 0);
    front.open();  // the next worker finds what this one did
    CHECK(front.server->serve(32).gone);
    CHECK(!front.broken());
}

TEST_CASE("A driver that leaves in the middle of anything leaves nothing behind") {
    for (std::size_t cut = 0; cut < 28 + 512; cut += 13) {
        Alone front({.nbd = true});
        front.open();
        front.driver->ask(NbdCommand::read, 1, 0, 65536);
        front.poll();
        auto bytes = nbd_request(NbdCommand::write, 2, 0, 512);
        bytes.resize(cut);
        front.driver->send(bytes);
        front.poll();
        front.driver.reset();
        front.poll();
        CHECK(front.server->serve(32).gone);
        answer_all(front);
        CHECK(front.requests->count() == 0);
        CHECK(!front.broken());
    }
}

TEST_CASE("A worker whose driver says nothing, takes nothing or leaves does not spin") {
    Alone front({.nbd = true});
    front.start_worker();
    front.turns(5);
    const auto idle = [&] {
        unsigned busy = 0;
        for (int i = 0; i < 200; ++i) busy += front.loop->turn({}) ? 1u : 0u;
        return busy < 20;
    };
    CHECK(idle());
    front.driver->send(nbd_request(NbdCommand::write, 1, 0, 65536));  // and never its data
    front.turns(5);
    CHECK(idle());
    front.driver.reset();
    front.turns(5);
    CHECK(idle());
    CHECK(front.faults.empty());
}

TEST_CASE("Two requests with one handle are two requests") {
    Alone front({.nbd = true});
    front.open();
    front.driver->ask(NbdCommand::flush, 9);
    front.driver->ask(NbdCommand::flush, 9);
    front.poll();
    answer_all(front);
    unsigned replies = 0;
    while (const auto one = front.driver->reply()) replies += one->handle == 9;
    CHECK(replies == 2);
}

TEST_CASE("Random bytes from the driver's end are refused or served, never more, and every request ends") {
    std::mt19937 random(5);
    for (unsigned life = 0; life < 300; ++life) {
        Alone front({.nbd = true});
        front.open();
        for (unsigned step = 0; step < 60; ++step) {
            std::vector<std::byte> bytes;
            if (random() % 3 != 0) {
                bytes = nbd_request(NbdCommand(random() % 6), random() % 8, random() % 4096 * 512,
                                    random() % 4 == 0 ? random() : random() % 128 * 512);
                if (random() % 8 == 0) bytes[random() % bytes.size()] = static_cast<std::byte>(random());
            }
            bytes.resize(bytes.size() + random() % 3000, static_cast<std::byte>(random()));
            front.driver->send(bytes);
            front.poll();
            if (random() % 4 == 0) answer_all(front);
            if (random() % 16 == 0) front.open();
            (void)::recv(front.driver->socket().get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        }
        REQUIRE(!front.broken());
        front.driver.reset();
        for (int turn = 0; turn < 50; ++turn) front.poll(), answer_all(front);
        CHECK(front.requests->count() == 0);
    }
}

TEST_CASE("An inbox that a taken-over worker filled with anything makes a successor refuse or serve, never more") {
    std::mt19937 random(6);
    unsigned refused = 0;
    for (unsigned life = 0; life < 500; ++life) {
        Alone front({.nbd = true});
        front.open();
        for (std::uint64_t i = 0; i < 20; ++i) front.driver->ask(NbdCommand::read, i, i * 4096, 4096);
        front.poll();
        answer_all(front);
        auto& inbox = front.kept->disk.inbox;
        auto& entry = front.kept->disk.entries[random() % most_tags];
        for (unsigned lies = 1 + random() % 3; lies > 0; --lies) {
            const std::uint32_t anything = random() % 2 == 0 ? random() % 64 : random();
            auto& count = random() % 2 == 0 ? inbox.in : inbox.out;
            switch (random() % 6) {
                case 0: count.current = anything; break;
                case 1: count.steps[random() % 2].before = anything; break;
                case 2: count.steps[random() % 2].call.msg_len = anything; break;
                case 3: inbox.replying = anything; break;
                case 4: inbox.message[random() % 28] = static_cast<std::byte>(anything); break;
                case 5: entry.told = static_cast<std::uint8_t>(anything), entry.state = anything % 4; break;
            }
        }
        try {
            front.open();
        } catch (const std::runtime_error&) {
            ++refused;
            continue;
        }
        for (int turn = 0; turn < 4; ++turn) front.poll(), answer_all(front);
    }
    CHECK(refused > 100);
    CHECK(refused < 500);
}
