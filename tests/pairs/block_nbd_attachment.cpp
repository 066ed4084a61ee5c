// The disk as the kernel's nbd driver has it: a program in the driver's place keeps many requests in flight, and checks
// what it reads, while workers of both sides are killed.
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <random>

#include "frontends/block/attachment_nbd.h"
#include "tests/support/block_pair.h"
#include "tests/support/nbd_driver.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::test;

namespace {

constexpr std::uint64_t disk_bytes = 4 << 20;
constexpr std::uint64_t places = 64, place_bytes = disk_bytes / places;

// The kernel's part of open_nbd() is the test's.
class Sockets final : public block::frontend::Attachment {
  public:
    explicit Sockets(Fd ours) : ours_(std::move(ours)) {}
    Kind kind() const override { return Kind::nbd; }
    const Fd& descriptor() const override { return ours_; }
    Status connected(const block::Geometry& disk) override {
        CHECK(disk.bytes() == disk_bytes);
        return {};
    }

  private:
    Fd ours_;
};

struct Attached {
    Attached()
        : sockets(need(block::frontend::NbdSockets::make())),
          world({.nodes = {{"params", disk.path()}},
                 .processes = true,
                 .frontend = {
                     .queues = 2,
                     .ring_order = 1,
                     .attachment = [this](ControlContext&) -> Result<std::unique_ptr<block::frontend::Attachment>> {
                         return std::make_unique<Sockets>(std::move(sockets.ours));
                     }}}) {
        world.frontend_worker();
    }

    TemporaryFile disk{disk_bytes};
    block::frontend::NbdSockets sockets;
    BlockWorld world;
};

}  // namespace

TEST_CASE("Workers of both sides are killed under requests of the nbd driver, and nothing is lost or answered twice") {
    Attached attached;
    NbdDriver driver(std::move(attached.sockets.drivers));
    std::mt19937 random(17);
    struct Asked {
        std::uint64_t place = 0;
        std::vector<std::byte> expected;  // of a read
    };
    std::map<std::uint64_t, Asked> asked;
    std::array<bool, places> busy{};
    std::vector<std::byte> shadow(disk_bytes);
    std::uint64_t handle = 0;
    unsigned answered = 0, kills = 0, since = 0, faults = 0;

    const auto ask = [&] {
        const std::uint64_t place = random() % places;
        if (asked.size() >= 32 || std::exchange(busy[place], true)) return;
        Asked& one = asked[++handle];
        one.place = place;
        const auto length = static_cast<std::uint32_t>((1 + random() % (place_bytes / 512)) * 512);
        const auto part = std::span(shadow).subspan(place * place_bytes, length);
        switch (random() % 8) {
            case 0: driver.ask(NbdCommand::flush, handle); break;
            case 1:
            case 2:
            case 3:
                one.expected.assign(part.begin(), part.end());
                driver.ask(NbdCommand::read, handle, place * place_bytes, length);
                break;
            default: {
                const auto bytes = test_bytes(length, static_cast<std::uint32_t>(handle));
                std::ranges::copy(bytes, part.begin());
                driver.ask(NbdCommand::write, handle, place * place_bytes, length, bytes);
            }
        }
    };
    const auto take = [&] {
        while (const auto one = driver.reply()) {
            const auto found = asked.find(one->handle);
            REQUIRE(found != asked.end());
            faults += one->error != 0 || one->data != found->second.expected;
            busy[found->second.place] = false;
            asked.erase(found);
            ++answered, ++since;
        }
    };
    const bool done = attached.world.until([&] {
        if (answered < 800) ask();
        driver.flush_out();
        take();
        if (since >= 20 && answered < 800) {
            since = 0;
            if (++kills % 4 == 0)
                attached.world.backend().kill();
            else
                attached.world.frontend().kill();
        }
        return answered >= 800 && asked.empty();
    });
    INFO(answered << " answered, " << asked.size() << " not, " << kills << " kills");
    REQUIRE(done);
    CHECK(faults == 0);
    CHECK(kills >= 20);
    std::vector<std::byte> seen(disk_bytes);
    const Fd file(::open(attached.disk.path().c_str(), O_RDONLY | O_CLOEXEC));
    REQUIRE(::pread(file.get(), seen.data(), seen.size(), 0) == static_cast<ssize_t>(seen.size()));
    CHECK(seen == shadow);
}

TEST_CASE("The nbd driver waits while its disk has no backend, and goes on with the next one") {
    Attached attached;
    NbdDriver driver(std::move(attached.sockets.drivers));
    unsigned answered = 0;
    for (unsigned restart = 0; restart < 4; ++restart) {
        const auto bytes = test_bytes(4096, restart);
        driver.ask(NbdCommand::write, restart * 2, restart * 4096ull, 4096, bytes);
        attached.world.restart_backend();
        driver.ask(NbdCommand::flush, restart * 2 + 1);
        REQUIRE(attached.world.until([&] {
            while (const auto one = driver.reply()) answered += one->error == 0;
            return answered == restart * 2 + 2;
        }));
    }
}
