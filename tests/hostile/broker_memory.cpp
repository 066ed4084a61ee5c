// A domain that has nothing but the descriptors it was given, and uses every call on them that it should not.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <catch2/catch.hpp>

#include <fstream>
#include <set>

#include "ring/local/connection.h"
#include "tests/support/local_xen.h"

namespace caisson {

using test::LocalXen;
using test::need;

namespace {

// The pages as a hostile peer gets them: the bare descriptor of a map.
struct Bare {
    local::Connection connection;
    Fd pages;
};

Bare map_bare(const LocalXen::Domain& peer, DomainId granter, GrantRef ref, bool read_only) {
    Bare bare{need(local::Connection::open(peer.hypervisor_socket)), Fd()};
    local::MapRequest request{.head = {},
                              .peer = granter.raw,
                              .read_only = read_only ? std::uint16_t{1} : std::uint16_t{0},
                              .count = 1,
                              .refs = {ref.raw}};
    auto answer = need(bare.connection.call<local::MapReply>(local::Op::map, request, 1));
    bare.pages = std::move(answer.descriptors[0]);
    return bare;
}

Fd reopened(int fd, int mode) { return Fd(::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), mode | O_CLOEXEC)); }

void* map_of(int fd, int protection) { return ::mmap(nullptr, page_size, protection, MAP_SHARED, fd, 0); }

void check_nothing_writes(int fd) {
    INFO("descriptor " << fd);
    CHECK(map_of(fd, PROT_READ | PROT_WRITE) == MAP_FAILED);
    CHECK(map_of(fd, PROT_WRITE) == MAP_FAILED);
    CHECK(::pwrite(fd, "x", 1, 0) < 0);
    CHECK(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, page_size) != 0);
    CHECK(::fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, page_size) != 0);
    void* readable = map_of(fd, PROT_READ);
    REQUIRE(readable != MAP_FAILED);
    CHECK(::mprotect(readable, page_size, PROT_READ | PROT_WRITE) != 0);
    ::munmap(readable, page_size);
}

// What of granted pages is mapped in this process.
struct Granted {
    std::size_t maps = 0, bytes = 0;
};
Granted granted_here() {
    Granted found;
    std::ifstream file("/proc/self/maps");
    for (std::string line; std::getline(file, line);) {
        if (line.find("caisson-grant") == std::string::npos) continue;
        std::size_t first = 0, last = 0;
        if (std::sscanf(line.c_str(), "%zx-%zx", &first, &last) == 2) found.bytes += last - first;
        ++found.maps;
    }
    return found;
}

}  // namespace

TEST_CASE("d4_write_through_a_read_only_grant is denied, however the descriptor is reopened") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    auto pages = need(front.hypervisor->share(back.id, 1, Access::read_only));
    const char secret[] = "intact";
    REQUIRE(pages.memory().copy_in(0, std::as_bytes(std::span(secret))));

    const Bare bare = map_bare(back, front.id, pages.refs()[0], true);
    check_nothing_writes(bare.pages.get());
    CHECK((::fcntl(bare.pages.get(), F_GETFL) & O_ACCMODE) == O_RDONLY);
    for (int mode : {O_RDWR, O_WRONLY, O_RDWR | O_TRUNC}) {
        const Fd again = reopened(bare.pages.get(), mode);
        if (again && mode == O_RDWR) check_nothing_writes(again.get());
        if (again) CHECK(::pwrite(again.get(), "x", 1, 0) < 0);
    }
    (void)::fchmod(bare.pages.get(), 0777);
    if (const Fd again = reopened(bare.pages.get(), O_RDWR)) check_nothing_writes(again.get());

    // The owner cannot open it up again by mistake, either; its first mapping stays writable.
    check_nothing_writes(pages.descriptor());
    char seen[sizeof secret];
    REQUIRE(pages.memory().copy_out(0, std::as_writable_bytes(std::span(seen))));
    CHECK(std::string(seen) == secret);
    REQUIRE(pages.memory().copy_in(0, std::as_bytes(std::span("change"))));
}

TEST_CASE("d4_a_read_only_grant_cannot_be_had_before_it_is_sealed") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    auto connection = need(local::Connection::open(front.hypervisor_socket));
    const auto shared = need(connection.call<local::ShareReply>(
        local::Op::share, local::ShareRequest{.head = {}, .peer = back.id.raw, .read_only = 1, .pages = 1}, 1));
    const std::vector refs{GrantRef(shared.body.first)};
    CHECK_FALSE(back.hypervisor->map(front.id, refs, Access::read_only));
    GrantStatus status{};
    CHECK(back.hypervisor->view({front.id, refs[0], 0, 1}, Access::read_only, status).empty());
    need(connection.call<local::Reply>(local::Op::activate,
                                       local::RefRequest{.head = {}, .ref = refs[0].raw, .zero = 0}, 0));
    CHECK(back.hypervisor->map(front.id, refs, Access::read_only));
}

TEST_CASE("d4_ftruncate_of_shared_pages is denied on both sides, so nobody gets SIGBUS") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    auto pages = need(front.hypervisor->share(back.id, 2, Access::read_write));
    auto mapped = need(back.hypervisor->map(front.id, pages.refs(), Access::read_write));
    const Bare bare = map_bare(back, front.id, pages.refs()[0], false);
    for (int fd : {pages.descriptor(), bare.pages.get()})
        for (off_t size : {off_t{0}, off_t{1}, off_t{page_size}, off_t{1} << 30}) {
            CHECK(::ftruncate(fd, size) != 0);
            CHECK(::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0);  // nor can one side seal the other one out
        }
    const Fd again = reopened(bare.pages.get(), O_RDWR | O_TRUNC);
    // A hole may be punched: the pages read as zero then, and are there.
    (void)::fallocate(bare.pages.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * page_size);
    std::byte all[2 * page_size];
    CHECK(mapped.memory().copy_out(0, all));
    CHECK(pages.memory().copy_out(0, all));
    CHECK(pages.memory().copy_in(page_size, std::span(all).first(8)));
}

TEST_CASE("xsa_396_pages_that_are_still_mapped are never used again") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    auto mapped = std::vector<MappedPages>();
    std::set<std::uint32_t> kept;
    for (int round = 0; round < 200; ++round) {
        auto pages = need(front.hypervisor->share(back.id, 1, Access::read_write));
        const GrantRef ref = pages.refs()[0];
        CHECK(kept.insert(ref.raw).second);
        mapped.push_back(need(back.hypervisor->map(front.id, std::vector{ref}, Access::read_write)));
        std::byte first[1]{};
        REQUIRE(pages.memory().copy_out(0, first));
        CHECK(first[0] == std::byte{});
        REQUIRE(mapped.back().memory().copy_in(0, std::as_bytes(std::span("dirt"))));
    }
    CHECK(front.hypervisor->quarantined_pages() == 200);
    CHECK(xen.info(front.id).grants == 200);
    mapped.clear();
    front.hypervisor->retry_quarantine();
    CHECK(front.hypervisor->quarantined_pages() == 0);
    CHECK(xen.info(front.id).grants == 0);
}

TEST_CASE("xsa_300_a_domain_that_shares_or_maps_without_end hits its own quota") {
    LocalXen xen({.grants = 64, .regions = 16, .mappings = 8});
    auto front = xen.domain(), back = xen.domain(), other = xen.domain();
    std::vector<SharedPages> shared;
    std::string reason;
    for (int i = 0; i < 100; ++i) {
        auto pages = front.hypervisor->share(back.id, 1, Access::read_write);
        if (!pages) {
            CHECK(pages.error().err == ENOSPC);
            reason = pages.error().message();
            break;
        }
        shared.push_back(std::move(*pages));
    }
    CHECK(shared.size() == 16);
    CHECK(reason.find("quota") != std::string::npos);

    std::vector<MappedPages> mapped;
    for (const SharedPages& pages : shared)
        if (auto map = back.hypervisor->map(front.id, pages.refs(), Access::read_write))
            mapped.push_back(std::move(*map));
    CHECK(mapped.size() == 8);
    CHECK(other.hypervisor->share(back.id, 16, Access::read_write));  // nobody else is hurt
    mapped.clear();
    shared.clear();
    CHECK(front.hypervisor->share(back.id, 56, Access::read_write));
    CHECK_FALSE(front.hypervisor->share(back.id, 57, Access::read_write));
}

TEST_CASE("xsa_371_what dead domains leave to one that keeps it mapped is bounded") {
    LocalXen xen({.mapped_pages = 20});
    auto hoarder = xen.domain();
    std::vector<MappedPages> kept;
    int alive = 0;
    for (int round = 0; round < 5; ++round) {
        auto accomplice = xen.domain();
        auto pages = need(accomplice.hypervisor->share(hoarder.id, 8, Access::read_write));
        auto mapped = hoarder.hypervisor->map(accomplice.id, pages.refs(), Access::read_write);
        if (mapped) {
            ++alive;
            kept.push_back(std::move(*mapped));
        } else {
            CHECK(mapped.error().message().find("quota") != std::string::npos);
        }
        xen.destroy(accomplice);
    }
    CHECK(alive == 2);
    kept.clear();
    xen.stop();
    CHECK(xen.broker().hypercalls().grants().regions() == 0);
}

TEST_CASE("a peer that churns through regions does not make our cache of views grow without end") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    GrantStatus status{};
    for (int i = 0; i < 6000; ++i) {
        auto pages = need(front.hypervisor->share(back.id, 1, Access::read_write));
        const SharedSpan seen = back.hypervisor->view({front.id, pages.refs()[0], 0, 8}, Access::read_write, status);
        if (status == GrantStatus::okay) REQUIRE(seen.copy_in(0, std::as_bytes(std::span("1234567"))));
        REQUIRE(need(pages.end()) == End::ended);
    }
    CHECK(granted_here().maps <= 4096);
}

TEST_CASE("a peer that churns through large regions makes us keep no more than it could grant at one time") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    GrantStatus status{};
    for (int i = 0; i < 40; ++i) {
        auto pages = need(front.hypervisor->share(back.id, 4096, Access::read_write));
        (void)back.hypervisor->view({front.id, pages.refs()[0], 0, 8}, Access::read_write, status);
        REQUIRE(need(pages.end()) == End::ended);
    }
    CHECK(granted_here().bytes <= 65536 * page_size);
    // It has only itself to wait for.
    auto pages = need(front.hypervisor->share(back.id, 1, Access::read_write));
    for (int i = 0; i < 600 && status != GrantStatus::okay; ++i)
        (void)back.hypervisor->view({front.id, pages.refs()[0], 0, 8}, Access::read_write, status);
    CHECK(status == GrantStatus::okay);
}

TEST_CASE("a view is good while the other views of a request are fetched, however slow the hypervisor is") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    std::vector<SharedPages> pages;
    for (int i = 0; i < 256; ++i) pages.push_back(need(front.hypervisor->share(back.id, 1, Access::read_write)));
    GrantStatus status{};
    const auto view = [&](int i) {
        return back.hypervisor->view({front.id, pages[i].refs()[0], 0, page_size}, Access::read_write, status);
    };
    std::vector<SharedSpan> views{view(0)};
    REQUIRE(need(pages[0].end()) == End::ended);
    for (int i = 1; i < 256; ++i) {
        if (i == 2) ::usleep(700'000);
        views.push_back(view(i));
        REQUIRE(status == GrantStatus::okay);
    }
    std::set<const void*> places;
    for (const SharedSpan& one : views) places.insert(one.for_kernel().iov_base);
    CHECK(places.size() == views.size());
    const auto bytes = std::as_bytes(std::span("1234567"));
    for (const SharedSpan& one : views) CHECK(one.copy_in(0, bytes));
}

}  // namespace caisson
