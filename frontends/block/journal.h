// What a block frontend keeps in memory that outlives workers, and (DiskJournal) connections. Plain values, all zero at
// first; untrusted when read by a successor, who takes them through Requests::attach() and DataPath::open().
//
//   DiskJournal        the requests of the programs that use the disk. The controller keeps it for the life of the
//                      device: what is unanswered when a backend goes is issued again to the next one.
//   ConnectionJournal  what of them is on the rings of this connection. Zero at each connect: nothing is.
//
// A request may be larger than what the backend takes at once; then it goes in pieces, of which the journal knows which
// were sent and which are done.
#pragma once

#include <array>
#include <cstdint>

#include "frontends/block/features.h"
#include "frontends/block/stream_count.h"
#include "ring/shared_ring.h"

namespace caisson::block::frontend {

inline constexpr unsigned most_tags = 512;        // requests at a time: the slots of a ring of 16 pages
inline constexpr unsigned pages_a_request = 258;  // 1 MiB that starts and ends anywhere
inline constexpr unsigned pieces_a_request = 32;  // more than pages_a_request / direct_segments
inline constexpr unsigned most_arena_pages = 4096;
inline constexpr unsigned descriptor_pages = 64;  // indirect pieces on the rings at one time, a page of segments each

static_assert(pages_a_request <= pieces_a_request * direct_segments);
static_assert(max_indirect_segments <= segments_a_page);

// One request, where its data is, and how far it is. Filled before `state` says taken.
struct Entry {
    enum : std::uint32_t {
        free = 0,
        taken = 1,
        answering = 2,  // its end is known, and whoever asked for it may have been told
        expired = 3,    // given up on a silent backend: neither tag nor pages are used again before a reconnect
    };
    std::uint32_t state = free;
    std::int32_t error = 0;      // an errno value: of any piece
    std::uint64_t sequence = 0;  // age
    std::uint64_t cookie = 0;    // what the attachment calls it
    std::uint64_t offset = 0, length = 0;
    std::uint8_t operation = 0, secure = 0;
    std::uint8_t borrowed = 0;  // its pages belong to a Buffer
    std::uint8_t told = 0;      // answering or expired, and whoever asked for it must not be told again
    std::uint16_t pages = 0;
    std::uint16_t skip = 0, trim = 0;  // bytes at both ends that are not the program's: it did not ask on sectors
    std::uint16_t unused2 = 0;
    std::array<std::uint16_t, pages_a_request> page{};  // in the arena; whole pages, only the last one may be part used
};

// A message that an attachment has taken from its program and not yet turned into a request, or a part of one.
struct Inbox {
    static constexpr std::size_t bytes = 1024 * 1024 + page_size;
    std::uint32_t initialised = 0;  // FUSE: the protocol's greeting is over
    std::uint32_t minor = 0;
    // NBD: of the message that is here, and of the reply that goes out now; to which request, as its tag plus 1.
    StreamCount in, out;
    std::uint32_t replying = 0;
    alignas(page_size) std::array<std::byte, bytes> message{};
};

struct DiskJournal {
    std::array<Entry, most_tags> entries{};
    Inbox inbox;
};

struct Pieces {
    std::uint32_t sent = 0, done = 0;  // a bit a piece
};

struct QueueJournal {
    RingIndices ring;
    std::uint32_t answered = 0;  // responses below it are accounted for
    // Of the piece that was sent last: what its request's index was. Tells a successor whether it was pushed. The tag
    // plus 1; 0: none.
    std::uint32_t last_index = 0, last_tag = 0, last_piece = 0;
};

struct ConnectionJournal {
    std::uint32_t segments = 0;  // a piece has at most so many pages; 0: not known yet
    std::uint32_t unit = 0;
    std::array<QueueJournal, max_queues> queue{};
    std::array<Pieces, most_tags> pieces{};
    std::array<std::uint32_t, descriptor_pages> owner{};  // of a page of segments: 0, or 1 + the id of the piece
};
static_assert(std::is_trivially_copyable_v<DiskJournal> && std::is_trivially_copyable_v<ConnectionJournal>);

}  // namespace caisson::block::frontend
