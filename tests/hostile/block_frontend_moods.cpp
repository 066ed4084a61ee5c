// A backend that changes its mind while it is connected, or says nothing at all.
#include <catch2/catch.hpp>

#include "tests/support/block_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;
using block::Operation;
namespace op = block::operation;

namespace {

using Alone = BlockFrontendAlone;

// A write of 100 bytes at `offset`, which is a read first, on the ring.
Alone::Request write_off_sectors(Alone& front, std::uint64_t offset) {
    front.fuse(FUSE_WRITE, fuse_write_in{.offset = offset, .size = 100}, std::vector<std::byte>(100, std::byte{0xEE}));
    front.poll();
    const auto requests = front.taken();
    REQUIRE(requests.size() == 1);
    REQUIRE(requests[0].operation == op::read);
    return requests[0];
}

}  // namespace

TEST_CASE("A silent backend fails a request after the patience, once, and its pages are not used again") {
    Alone front({.patience = 3});
    front.open();
    REQUIRE(front.submit(Operation::read, 0, 512, 1));
    const auto silent = front.taken();
    front.tick(3);
    front.poll();
    CHECK(front.ended.empty());
    front.tick();
    front.poll();
    CHECK(front.ended == std::map<std::uint64_t, int>{{1, ETIMEDOUT}});
    front.tick(10);
    front.poll();
    CHECK(front.twice == 0);

    // Whatever is asked now has other pages: the backend may still write into that one.
    for (std::uint64_t i = 0; i < 31; ++i) REQUIRE(front.submit(Operation::read, 0, 512, 100 + i));
    for (const auto& request : front.taken()) {
        CHECK(Alone::segment(request).gref != Alone::segment(silent[0]).gref);
        CHECK(request.id != silent[0].id);
        front.answer(request);
    }
    front.poll();
    CHECK(front.ended.size() == 32);
    front.answer(silent[0]);  // late, but an answer
    front.poll();
    CHECK(!front.broken());
    CHECK(front.ended.at(1) == ETIMEDOUT);
    CHECK(front.twice == 0);
    front.answer(silent[0]);  // and twice is twice
    front.poll();
    CHECK(front.faults.size() == 1);
}

TEST_CASE("A backend that never answers anything makes every request end, and the table full, and no more") {
    Alone front({.ring_pages = 16, .patience = 1});
    front.open();
    unsigned asked = 0;
    for (int round = 0; round < 30; ++round) {
        while (front.submit(Operation::flush, 0, 0, asked)) ++asked;
        front.tick(2);
        front.poll();
    }
    CHECK(asked == block::frontend::most_tags);
    CHECK(front.ended.size() == asked);
    front.reconnect();
    front.ended.clear();
    front.poll();
    REQUIRE(front.submit(Operation::read, 0, 512, 5000));
    const auto requests = front.taken();
    REQUIRE(requests.size() == 1);  // what had expired is not asked again
    front.answer(requests[0]);
    front.poll();
    CHECK(front.ended.at(5000) == 0);
}

TEST_CASE("A disk that shrinks while requests are in flight: they end with the backend's word, new ones are outside") {
    Alone front;
    front.open();
    REQUIRE(front.submit(Operation::read, 1024 * 512, 512, 1));
    REQUIRE(front.submit(Operation::write, 2047 * 512, 512, 2));
    const auto requests = front.taken();
    front.know(Alone::disk(8));
    CHECK(front.path->check(Operation::read, false, 1024 * 512, 512) == EIO);
    CHECK(front.path->check(Operation::read, false, 0, 512) == 0);
    front.answer(requests[0]);
    front.answer(requests[1], block::status::error);
    front.poll();
    CHECK(front.ended == std::map<std::uint64_t, int>{{1, 0}, {2, EIO}});
    front.know(Alone::disk(1ull << 50));
    CHECK(front.path->check(Operation::read, false, (1ull << 59) - 512, 512) == 0);
    CHECK(!front.broken());
}

TEST_CASE("Requests that a new connection finds outside of a smaller disk end with an error, not on the wire") {
    Alone front;
    front.open();
    REQUIRE(front.submit(Operation::write, 2047 * 512, 512, 1));
    REQUIRE(front.submit(Operation::write, 0, 512, 2));
    front.options.features = Alone::disk(8);
    front.reconnect();
    front.poll();
    CHECK(front.ended.at(1) == EIO);
    const auto requests = front.taken();
    REQUIRE(requests.size() == 1);
    CHECK(requests[0].sector == 0);
}

TEST_CASE("Sectors of another size on a connected disk close the device") {
    for (const std::uint32_t before : {512u, 4096u}) {
        auto features = Alone::disk();
        features.geometry.sector_size = before;
        Alone front({.features = features});
        front.open();
        features.geometry.sector_size = 512 + 4096 - before;
        front.know(features);
        CHECK(front.faults.size() == 1);
        CHECK(front.faults.at(0).fault == Fault::peer);
    }
}

TEST_CASE("A successor notices, too, that sectors are not what they were where the wire counts in them") {
    auto features = Alone::disk();
    features.geometry.sector_size = features.unit = 4096;
    Alone front({.features = features});
    front.open();
    REQUIRE(front.submit(Operation::read, 4096, 4096, 1));
    CHECK(front.taken().at(0).sector == 1);
    front.options.features.geometry.sector_size = 512;
    front.open();
    CHECK(front.faults.size() == 1);
}

TEST_CASE("Features that come and go while connected are obeyed, and nothing that is not there is asked for") {
    Alone front;
    front.open();
    auto none = Alone::disk();
    none.geometry.flush = none.geometry.barrier = none.geometry.discard = false;
    front.know(none);
    CHECK(!front.submit(Operation::discard, 0, 4096, 1));
    CHECK(!front.submit(Operation::barrier, 0, 4096, 1));
    REQUIRE(front.submit(Operation::flush, 0, 0, 2));
    front.poll();
    CHECK(front.ended.at(2) == 0);
    CHECK(front.taken().empty());
    none.geometry.barrier = true;  // a backend of old: an empty barrier is its flush
    front.know(none);
    REQUIRE(front.submit(Operation::flush, 0, 0, 3));
    const auto requests = front.taken();
    REQUIRE(requests.size() == 1);
    CHECK(requests[0].operation == op::write_barrier);
    CHECK(requests[0].count == 0);
    front.answer(requests[0]);
    front.poll();
    CHECK(front.ended.at(3) == 0);
    none.segments = 256;  // never more than what the connection began with
    front.know(none);
    REQUIRE(front.submit(Operation::read, 0, 100 * page_size, 4));
    for (const auto& request : front.taken())
        if (request.operation == op::indirect) CHECK(request.handle <= 32);
    none.geometry.info = block::disk_info::read_only;
    front.know(none);
    CHECK(front.path->check(Operation::write, false, 0, 512) == EROFS);
    CHECK(!front.broken());
}

TEST_CASE("A disk that grows in the middle of a write off its sectors: what was read for it is not used for more") {
    Alone front({.fuse = true, .features = Alone::disk(8)});
    front.open();
    const auto read = write_off_sectors(front, 8 * 512 - 40);  // 40 bytes of 100 fit
    front.know(Alone::disk(2048));
    front.answer(read);
    front.poll();
    const auto again = front.taken();
    REQUIRE(again.size() == 1);
    CHECK(again[0].operation == op::read);
    CHECK(Alone::segment(again[0]).last_sect == 1);  // both sectors now
    front.answer(again[0]);
    front.poll();
    const auto write = front.taken();
    REQUIRE(write.size() == 1);
    CHECK(write[0].operation == op::write);
    CHECK(write[0].sector == 7);
    front.answer(write[0]);
    front.poll();
    const auto told = front.fuse_answer();
    REQUIRE(told);
    CHECK(told->header.error == 0);
    CHECK(!front.broken());
}

TEST_CASE("A disk that shrinks in the middle of a write off its sectors: nothing of it goes into the next one") {
    Alone front({.fuse = true});
    front.open();
    const auto read = write_off_sectors(front, 1024 * 512 + 1);
    front.know(Alone::disk(8));
    front.answer(read);
    front.poll();
    const auto told = front.fuse_answer();
    REQUIRE(told);
    CHECK(told->header.error == -ENOSPC);
    const auto next = write_off_sectors(front, 3);  // reads its own sector
    CHECK(next.sector == 0);
    front.answer(next);
    front.poll();
    const auto write = front.taken();
    REQUIRE(write.size() == 1);
    CHECK(write[0].operation == op::write);
    CHECK(write[0].sector == 0);
}
