// The frontend's worker dies and its successor finds a journal: as it was left, cut short at any store, or scribbled
// over by whoever took the predecessor over.
#include <catch2/catch.hpp>
#include <random>
#include <set>

#include "tests/support/net_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

std::vector<std::byte> frame(std::size_t size) { return std::vector<std::byte>(size, std::byte{0x5A}); }

net::frontend::Journal& journal_of(FrontendAlone& front) {
    return *reinterpret_cast<net::frontend::Journal*>(front.journal.data());
}

std::vector<net::TxRequest> requests(FrontendAlone& front) {
    std::vector<net::TxRequest> out;
    while (const auto request = front.queue().tx.take()) out.push_back(*request);
    return out;
}

void check_alive(FrontendAlone& front) {
    front.program_sends(frame(100));
    front.turns();
    const auto sent = requests(front);
    REQUIRE(!sent.empty());
    for (const auto& request : sent) front.queue().tx.respond({request.id, net::status::okay});
    const auto slot = front.queue().rx.produced();
    front.queue().rx.respond({static_cast<std::uint16_t>(slot % net::ring_slots), 0, 0, 64});
    front.turns();
    CHECK(front.program_receives());
    CHECK(!front.broken());
}

}  // namespace

TEST_CASE("a successor keeps the posted buffers and leaves the backend's ids alone until they are answered") {
    FrontendAlone front;
    for (int i = 0; i < 10; ++i) front.program_sends(frame(100));
    front.turns();
    const auto before = requests(front);
    REQUIRE(before.size() == 10);
    front.kill();
    const auto posted = front.queue().rx.request_producer();
    const auto shares = front.hypervisor.shares();
    front.start(true);
    CHECK(front.queue().rx.request_producer() == posted);
    CHECK(front.hypervisor.shares() == shares + 1);  // a new arena for transmit, the old one still there
    CHECK(front.queue().channel.theirs.clear());     // told once

    for (int i = 0; i < 10; ++i) front.program_sends(frame(100));
    front.turns();
    std::set<unsigned> ids, refs;
    for (const auto& request : before) ids.insert(request.id), refs.insert(request.gref);
    const auto after = requests(front);
    REQUIRE(after.size() == 10);
    for (const auto& request : after) {
        CHECK(ids.insert(request.id).second);
        CHECK(refs.insert(request.gref).second);
    }
    for (const auto& request : before) {
        CHECK(front.hypervisor.granted(request.gref));
        front.queue().tx.respond({request.id, net::status::okay});
        front.turns(1);
    }
    CHECK(front.hypervisor.shares() == shares);  // the old arena went with its last answer
    CHECK(!front.hypervisor.granted(before[0].gref));
    for (const auto& request : after) front.queue().tx.respond({request.id, net::status::okay});
    front.turns();
    check_alive(front);
}

TEST_CASE("a packet that was not whole when the worker died arrives whole afterwards, or not at all") {
    for (unsigned before = 0; before <= 5; ++before) {
        FrontendAlone front;
        for (std::uint32_t i = 0; i < before; ++i) {
            front.queue().rx.respond(
                {static_cast<std::uint16_t>(i), 0, i < 4 ? net::rx_flag::more_data : std::uint16_t{0}, 1000});
            front.turns(1);
        }
        const unsigned early = front.frames_received();
        front.kill();
        front.start(true);
        for (std::uint32_t i = before; i < 5; ++i)
            front.queue().rx.respond(
                {static_cast<std::uint16_t>(i), 0, i < 4 ? net::rx_flag::more_data : std::uint16_t{0}, 1000});
        front.turns();
        CHECK(early + front.frames_received() == 1);
        CHECK(front.queue().rx.request_producer() == net::ring_slots + 5);
        CHECK(!front.broken());
    }
}

TEST_CASE("a death between any two stores of the bookkeeping is undone") {
    FrontendAlone front;
    for (int i = 0; i < 3; ++i) front.program_sends(frame(100));
    front.turns();
    const auto sent = requests(front);
    REQUIRE(sent.size() == 3);
    auto& tx = journal_of(front).queue[0].tx;

    SECTION("an id was marked, its request not written") {
        tx.ids[77] = {.index = tx.ring.produced, .busy = 1, .arena = 0};
    }
    SECTION("half a packet was written, never published") {
        for (int i = 0; i < 5; ++i) {
            tx.ids[static_cast<std::size_t>(60 + i)] = {.index = tx.ring.produced, .busy = 1, .arena = 0};
            tx.ring.produced += 1;
        }
    }
    SECTION("a response was taken, not looked at") {
        front.queue().tx.respond({sent[1].id, net::status::okay});
        tx.ring.consumed += 1;
    }
    SECTION("a response was looked at, not noted as answered") {
        front.queue().tx.respond({sent[1].id, net::status::okay});
        tx.ring.consumed += 1;
        tx.ids[sent[1].id].busy = 0;
    }
    for (const unsigned turns : {0u, 0u, 2u}) {  // the next ones die, too, before they come to anything
        front.kill();
        front.start(true, turns);
    }
    for (const auto& request : sent)
        if (request.id != sent[1].id || front.queue().tx.produced() == 0)
            front.queue().tx.respond({request.id, net::status::okay});
    front.turns();
    CHECK(!front.broken());
    check_alive(front);
    // No id was lost: a whole ring can be outstanding.
    for (int i = 0; i < 400; ++i) front.program_sends(frame(60)), front.turns(1);
    CHECK(front.queue().tx.request_producer() - front.queue().tx.produced() >= net::ring_slots - 17);
}

TEST_CASE("worker after worker dies while the backend answers nothing: bounded, and it recovers") {
    FrontendAlone front;
    const auto shares = front.hypervisor.shares();
    std::vector<net::TxRequest> all;
    for (int round = 0; round < 20; ++round) {
        front.program_sends(frame(100));
        front.turns();
        const auto sent = requests(front);
        REQUIRE(sent.size() == (round < 8 ? 1 : 0));  // with no pages left to end, nothing more is sent
        all.insert(all.end(), sent.begin(), sent.end());
        front.kill();
        front.start(true);
        CHECK(front.hypervisor.shares() <= shares + net::frontend::kept_arenas);
    }
    for (const auto& request : all) front.queue().tx.respond({request.id, net::status::error});
    front.turns();
    for (const auto& request : requests(front)) front.queue().tx.respond({request.id, net::status::okay});
    front.turns();
    CHECK(front.hypervisor.shares() == shares);
    check_alive(front);
}

TEST_CASE("a journal that a taken-over worker scribbled over is refused or survived, never believed") {
    std::mt19937 random(7);
    unsigned refused = 0;
    for (int round = 0; round < 300; ++round) {
        FrontendAlone front;
        for (int i = 0; i < 5; ++i) front.program_sends(frame(5000));
        front.turns();
        front.kill();
        const std::size_t used = sizeof(net::frontend::QueueJournal);
        for (unsigned change = 1 + random() % 8; change > 0; --change) {
            static constexpr std::byte edges[] = {std::byte{0}, std::byte{1}, std::byte{0x7F}, std::byte{0x80},
                                                  std::byte{0xFF}};
            // The indices at the front and the back are as likely as all the ids between.
            const std::size_t at = random() % 2 != 0   ? random() % used
                                   : random() % 2 != 0 ? random() % 48
                                                       : used - 1 - random() % 20;
            front.journal[at] = edges[random() % 5];
        }
        try {
            front.start(true);
        } catch (const std::runtime_error&) {
            ++refused;
            continue;
        }
        for (std::uint32_t i = 0; i < 40; ++i) {
            front.queue().tx.respond({static_cast<std::uint16_t>(random() % 256), 0});
            front.queue().rx.respond({static_cast<std::uint16_t>(i), 0, 0, 64});
            front.program_sends(frame(3000));
            front.turns(1);
        }
    }
    CHECK(refused > 30);
}

TEST_CASE("pages shared by a worker that died before it noted them are ended by the next one") {
    FrontendAlone front;
    front.kill();
    const auto shares = front.hypervisor.shares();
    const SharedPages forgotten = *front.hypervisor.share(DomainId(2), net::frontend::arena_pages, Access::read_only);
    journal_of(front).queue[0].tx.arenas[0] = {.state = net::frontend::ArenaRecord::sharing};
    front.start(true);
    CHECK(!front.hypervisor.granted(forgotten.refs()[0].raw));
    CHECK(front.hypervisor.shares() == shares);
    check_alive(front);
}

TEST_CASE("a worker that died while it ended pages leaves no reference in the journal that names others' pages later") {
    auto link = FrontendAlone::default_link();
    link.queues = 2;
    FrontendAlone front(link);
    front.program_sends(frame(100), {}, 1);
    front.turns();
    const auto owed = front.queue(1).tx.take();
    REQUIRE(owed);
    front.kill();
    front.start(true);  // the second queue's old pages wait for their answer
    front.program_sends(frame(100));
    front.turns();  // and the first queue's will, after the next death: it needs a free reference then
    REQUIRE(front.queue().tx.take());

    std::vector<std::byte> at_death;
    front.hypervisor.on_end = [&] { at_death = front.journal; };
    front.queue(1).tx.respond({owed->id, net::status::okay});
    front.ring_bell(1);
    front.turns();
    front.hypervisor.on_end = nullptr;
    REQUIRE(!at_death.empty());
    front.kill();
    front.journal = at_death;
    front.start(true);

    std::set<unsigned> arenas;
    for (const unsigned queue : {0u, 1u}) {
        front.program_sends(frame(100), {}, queue);
        front.turns();
        const auto sent = front.queue(queue).tx.take();
        REQUIRE(sent);
        CHECK(front.hypervisor.granted(sent->gref));
        CHECK(arenas.insert(sent->gref - sent->id).second);
    }
    check_alive(front);
}

TEST_CASE("a predecessor's pages are given back without traffic") {
    FrontendAlone front;
    check_alive(front);
    const auto shares = front.hypervisor.shares();
    front.program_sends(frame(100));
    front.turns();
    const auto sent = requests(front);
    REQUIRE(sent.size() == 1);
    front.kill();
    front.start(true);
    CHECK(front.hypervisor.shares() == shares + 1);
    CHECK(front.queue().tx.response_event() == front.queue().tx.produced() + 1);  // it wants to be told
    front.queue().tx.respond({sent[0].id, net::status::okay});
    front.ring_bell();
    front.turns();
    CHECK(front.hypervisor.shares() == shares);
}

TEST_CASE("a worker that cannot share pages says so and leaves nothing behind") {
    FrontendAlone front;
    front.worker.reset();
    const auto shares = front.hypervisor.shares();
    std::fill(front.journal.begin(), front.journal.end(), std::byte{});
    front.hypervisor.fail_shares = true;
    CHECK_THROWS(front.start());
    CHECK(front.hypervisor.shares() == shares);
}

TEST_CASE("multicast groups are joined and left in the backend's filter") {
    FrontendAlone front;
    const net::Mac group{{0x01, 0, 0x5E, 1, 2, 3}};
    for (const bool join : {true, false}) {
        const net::MulticastUpdate update{join ? net::MulticastUpdate::What::join : net::MulticastUpdate::What::leave,
                                          group};
        REQUIRE(front.worker->update(update.encode()));
        front.turns();
        const auto sent = requests(front);
        REQUIRE(sent.size() == 2);
        net::TxAssembler packet;
        CHECK(*packet.take(sent[0], 0) == false);
        CHECK(*packet.take(sent[1], 1) == true);
        CHECK((join ? packet.packet().extras.mcast_add : packet.packet().extras.mcast_del) == group);
        front.queue().tx.respond({sent[0].id, net::status::okay});
        front.queue().tx.respond({0, net::status::null});
        front.turns();
        CHECK(!front.broken());
    }
    front.queue().tx.respond({0, net::status::null});  // an extra that was not sent
    front.turns();
    CHECK(front.faults.size() == 1);
}
