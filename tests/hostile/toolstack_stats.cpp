// `caisson top` against a domain that owns the folder it reads.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "domains/toolstack/traffic.h"
#include "ring/stats.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::toolstack;

namespace {

struct Folder : test::TemporaryFolder {
    void put(const std::string& name, const void* bytes, std::size_t size) const {
        std::ofstream(*this / name, std::ios::binary)
            .write(static_cast<const char*>(bytes), static_cast<std::streamsize>(size));
    }
    std::vector<DeviceTraffic> read() const { return read_stats(Fd(::open(path().c_str(), O_RDONLY | O_DIRECTORY))); }
};

// A page of a backend, counters and all; every file is written from one of its own.
struct Page : DeviceStats {
    explicit Page(const char* name = "vif") {
        size = sizeof(DeviceStats);
        queues = 1;
        role = 1;
        set_class(name);
        queue[0].bytes_in.add(7);
        queue[0].bytes_out.add(9);
    }
};

}  // namespace

TEST_CASE("A statistics page is read, from either side's point of view") {
    Folder folder;
    Page stats;
    folder.put("vif-1-0-back", &stats, sizeof stats);
    stats.role = 0;
    folder.put("vif-1-0-front", &stats, sizeof stats);
    const auto devices = folder.read();
    REQUIRE(devices.size() == 2);
    CHECK_FALSE(devices[0].is_backend);
    CHECK(devices[0].bytes_in == 9);
    CHECK(devices[0].bytes_out == 7);
    CHECK(devices[1].is_backend);
    CHECK(devices[1].bytes_in == 7);
    CHECK(devices[1].bytes_out == 9);
}

TEST_CASE("What is no statistics page is left out: links, pipes, folders, short, long-winded and wrong files") {
    Folder folder;
    Page stats;
    folder.put("good", &stats, sizeof stats);
    folder.put("short", &stats, sizeof stats - 1);
    stats.magic = 0;
    folder.put("magic", &stats, sizeof stats);
    stats.magic = stats_magic;
    stats.queues = 9;
    folder.put("queues", &stats, sizeof stats);
    REQUIRE(::symlink("good", (folder / "link").c_str()) == 0);
    REQUIRE(::symlink("/etc/passwd", (folder / "outside").c_str()) == 0);
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);  // must not block
    REQUIRE(::mkdir((folder / "folder").c_str(), 0700) == 0);
    CHECK(folder.read().size() == 1);
}

TEST_CASE("A page's text cannot reach the operator's terminal unescaped, and its numbers may be anything") {
    Folder folder;
    Page stats("\x1b[2Jpwned\n");
    stats.queue[0].bytes_in.add(~0ull - 7);
    stats.restarts.add(~0ull);
    folder.put("a", &stats, sizeof stats);
    std::vector<DomainTraffic> all{{.id = 1, .name = "guest", .devices = folder.read()}};
    REQUIRE(all[0].devices.size() == 1);
    for (const std::string& text : {traffic_table(all, all, 1), traffic_json(all)}) {
        CHECK(text.find('\x1b') == std::string::npos);
        CHECK_THAT(text, Catch::Contains("pwned"));
    }
}

TEST_CASE("Ten thousand files in the folder cost no more than 256") {
    Folder folder;
    Page stats;
    folder.put("first", &stats, sizeof stats);
    for (int i = 0; i < 10000; ++i)
        REQUIRE(::link((folder / "first").c_str(), (folder / std::to_string(i)).c_str()) == 0);
    CHECK(folder.read().size() <= 256);
}
