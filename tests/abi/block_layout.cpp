// protocols/block.h against libxen-dev's blkif.h, at compile time; then Xen's own ring macros as the frontend of the
// real backend worker, for the native layout and for that of a 32-bit guest.
#include <catch2/catch.hpp>
#include <cstddef>

#include "ring/detail/shared_access.h"
#include "tests/abi/xen_ring_headers.h"
#include "tests/support/block_backend_alone.h"

namespace block = caisson::block;
using namespace caisson;
using namespace caisson::test;

// What a 32-bit x86 frontend has: there a 64-bit integer is aligned to 4 bytes. Copied from blkif.h.
#pragma pack(push, 4)
struct x86_32_request {
    std::uint8_t operation;
    std::uint8_t nr_segments;
    blkif_vdev_t handle;
    std::uint64_t id;
    blkif_sector_t sector_number;
    blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
};
struct x86_32_discard {
    std::uint8_t operation;
    std::uint8_t flag;
    blkif_vdev_t handle;
    std::uint64_t id;
    blkif_sector_t sector_number;
    std::uint64_t nr_sectors;
};
struct x86_32_indirect {
    std::uint8_t operation;
    std::uint8_t indirect_op;
    std::uint16_t nr_segments;
    std::uint64_t id;
    blkif_sector_t sector_number;
    blkif_vdev_t handle;
    grant_ref_t indirect_grefs[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
};
struct x86_32_response {
    std::uint64_t id;
    std::uint8_t operation;
    std::int16_t status;
};
DEFINE_RING_TYPES(x86_32_blkif, struct x86_32_request, struct x86_32_response);
#pragma pack(pop)

#define AT(ours, our_field, theirs, their_field) \
    static_assert(offsetof(ours, our_field) == offsetof(theirs, their_field))

using Wide = block::Native::Request;
using Narrow = block::Narrow::Request;
AT(Wide, operation, blkif_request, operation);
AT(Wide, count, blkif_request, nr_segments);
AT(Wide, handle, blkif_request, handle);
AT(Wide, id, blkif_request, id);
AT(Wide, sector, blkif_request, sector_number);
AT(Wide, tail, blkif_request, seg);
AT(Wide, count, blkif_request_discard, flag);
AT(Wide, tail, blkif_request_discard, nr_sectors);
AT(Wide, count, blkif_request_indirect, indirect_op);
AT(Wide, handle, blkif_request_indirect, nr_segments);
AT(Wide, tail, blkif_request_indirect, handle);
static_assert(offsetof(Wide, tail) + 4 == offsetof(blkif_request_indirect, indirect_grefs));
static_assert(sizeof(Wide) == sizeof(blkif_request));
AT(block::Native::Response, id, blkif_response, id);
AT(block::Native::Response, operation, blkif_response, operation);
AT(block::Native::Response, status, blkif_response, status);
static_assert(sizeof(block::Native::Response) == sizeof(blkif_response));
AT(block::Segment, gref, blkif_request_segment, gref);
AT(block::Segment, first_sect, blkif_request_segment, first_sect);
AT(block::Segment, last_sect, blkif_request_segment, last_sect);
static_assert(sizeof(block::Segment) == sizeof(blkif_request_segment));

AT(Narrow, id, x86_32_request, id);
AT(Narrow, sector, x86_32_request, sector_number);
AT(Narrow, tail, x86_32_request, seg);
AT(Narrow, tail, x86_32_discard, nr_sectors);
AT(Narrow, tail, x86_32_indirect, handle);
static_assert(offsetof(Narrow, tail) + 4 == offsetof(x86_32_indirect, indirect_grefs));
static_assert(sizeof(Narrow) == sizeof(x86_32_request));
AT(block::Narrow::Response, operation, x86_32_response, operation);
AT(block::Narrow::Response, status, x86_32_response, status);
static_assert(sizeof(block::Narrow::Response) == sizeof(x86_32_response));

static_assert(block::operation::read == BLKIF_OP_READ && block::operation::write == BLKIF_OP_WRITE &&
              block::operation::write_barrier == BLKIF_OP_WRITE_BARRIER &&
              block::operation::flush_diskcache == BLKIF_OP_FLUSH_DISKCACHE &&
              block::operation::reserved_1 == BLKIF_OP_RESERVED_1 && block::operation::discard == BLKIF_OP_DISCARD &&
              block::operation::indirect == BLKIF_OP_INDIRECT);
static_assert(block::status::okay == BLKIF_RSP_OKAY && block::status::error == BLKIF_RSP_ERROR &&
              block::status::not_supported == BLKIF_RSP_EOPNOTSUPP);
static_assert(block::direct_segments == BLKIF_MAX_SEGMENTS_PER_REQUEST &&
              block::indirect_pages == BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST &&
              block::discard_flag_secure == BLKIF_DISCARD_SECURE);
static_assert(block::disk_info::cdrom == VDISK_CDROM && block::disk_info::removable == VDISK_REMOVABLE &&
              block::disk_info::read_only == VDISK_READONLY);
static_assert(ring_slot_bytes<block::Native> == sizeof(blkif_sring_entry));
static_assert(ring_slot_bytes<block::Narrow> == sizeof(x86_32_blkif_sring_entry));

namespace {

// Writes and reads back 500 times through rings that are Xen's on the frontend's side.
template <class Abi, class FrontRing, class Sring, class Request, class Response>
void converse() {
    BlockBackendAlone<Abi> backend;
    auto* shared = reinterpret_cast<Sring*>(detail::SharedAccess::base(backend.hypervisor.view(
        {.ref = GrantRef(backend.queues[0].first_ref), .length = page_size}, Access::read_write, backend.last_status)));
    FrontRing front;
    FRONT_RING_INIT(&front, shared, page_size);
    const auto page = backend.page();
    for (unsigned round = 0; round < 500; ++round) {
        const bool write = round % 2 == 0;
        if (write)
            backend.fill(page, round);
        else
            page.memory.clear();
        Request request{};
        request.operation = write ? BLKIF_OP_WRITE : BLKIF_OP_READ;
        request.nr_segments = 1;
        request.id = 0x100000000ull + round;
        request.sector_number = round / 2 * 8 % 2040;
        request.seg[0] = {page.ref, 0, 7};
        *RING_GET_REQUEST(&front, front.req_prod_pvt) = request;
        ++front.req_prod_pvt;
        int notify = 0;
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);
        if (notify != 0) (void)backend.queues[0].channel.theirs.notify();
        backend.turns(2);
        REQUIRE(RING_HAS_UNCONSUMED_RESPONSES(&front));
        const Response* answer = RING_GET_RESPONSE(&front, front.rsp_cons);
        ++front.rsp_cons;
        CHECK(std::uint64_t{answer->id} == std::uint64_t{request.id});  // copies: the 32-bit layout aligns them to 4
        CHECK(answer->operation == request.operation);
        CHECK(answer->status == BLKIF_RSP_OKAY);
        CHECK(backend.bytes(page) == backend.on_disk(request.sector_number * 512, page_size));
    }
    CHECK_FALSE(RING_HAS_UNCONSUMED_RESPONSES(&front));
    CHECK_FALSE(backend.broken());
}

}  // namespace

TEST_CASE("the block device's layout is that of xen/io/blkif.h, and Xen's macros are a frontend that is served") {
    converse<block::Native, blkif_front_ring, blkif_sring, blkif_request, blkif_response>();
}

TEST_CASE("a 32-bit guest with Xen's macros is served, too") {
    converse<block::Narrow, x86_32_blkif_front_ring, x86_32_blkif_sring, x86_32_request, x86_32_response>();
}
