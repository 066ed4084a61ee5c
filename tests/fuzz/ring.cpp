// Any bytes as what a peer writes into the pages of the four ring shapes, between any calls of ours.
//
// Whatever comes: nothing outside the page is touched (the sanitizers watch), a half never takes more than a ring holds
// nor more than was asked, and a broken ring stays broken and gives nothing.
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "ring/byte_ring.h"
#include "ring/event_ring.h"
#include "ring/shared_ring.h"

using namespace caisson;

namespace {

struct Protocol {
    struct Request {
        std::uint32_t id, a, b;
    };
    struct Response {
        std::uint32_t id;
        std::int32_t status;
    };
};
struct Event {
    std::uint32_t number, zero;
};
constexpr ByteRingLayout byte_layout{.data = 0, .size = 1024, .consumer = 3072, .producer = 3076};
constexpr EventRingLayout event_layout{.events = 64, .count = 100, .consumer = 0, .producer = 4};

void require(bool truth) {
    if (!truth) std::abort();
}

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
    bool more() const { return at_ != end_; }
    std::uint8_t byte() { return more() ? *at_++ : 0; }
    std::uint32_t word() {
        std::uint32_t out = 0;
        for (int i = 0; i < 4; ++i) out = out << 8 | byte();
        return out;
    }

  private:
    const std::uint8_t *at_, *end_;
};

// A page and the pen of a peer that writes anything anywhere.
struct Page {
    std::unique_ptr<std::byte[]> bytes = std::make_unique<std::byte[]>(page_size);  // its own block: redzones around it
    SharedSpan span() { return detail::SharedAccess::span(bytes.get(), page_size); }
    void scribble(Input& in, std::size_t words) {
        const std::size_t offset = in.byte() % words * 4;
        const std::uint32_t value = in.byte() % 4 == 0 ? in.word() : in.byte();
        std::memcpy(bytes.get() + offset, &value, sizeof value);
    }
};

void shared(Input& in) {
    Page page;
    RingIndices front_indices, back_indices;
    std::array<Protocol::Request, 256> snapshots{};
    auto front = FrontRing<Protocol>::initialise(page.span(), front_indices);
    BackRing<Protocol> back(page.span(), back_indices, snapshots);
    while (in.more()) {
        const std::uint32_t budget = in.byte(), outstanding = front.outstanding();
        std::uint32_t taken = 0;
        switch (in.byte() % 8) {
            case 0: page.scribble(in, 64); break;
            case 1:
                if (!front.full()) front.push({budget, 0, 0});
                (void)front.publish();
                break;
            case 2: {
                const bool was_broken = back.broken();
                const auto got = back.drain(budget, [&](auto&&, auto) { ++taken; });
                require(taken <= budget && back.unanswered() <= back.size() && (!was_broken || (!got && taken == 0)));
                break;
            }
            case 3:
                if (back.unanswered() > 0) back.push({budget, 0});
                (void)back.publish();
                break;
            case 4:
                (void)front.drain(budget, [&](auto&&, auto) { ++taken; });
                require(taken <= outstanding);
                break;
            case 5: {
                const bool armed = back.arm().has_value();
                require(armed == !back.broken());
                break;
            }
            case 6: {
                const bool armed = front.arm().has_value();
                require(armed == !front.broken());
                break;
            }
            case 7: {  // a successor, from a journal that the predecessor may have spoilt
                if (budget % 16 == 0) back_indices = {in.word(), in.word()};
                auto next = BackRing<Protocol>::attach(page.span(), back_indices, snapshots);
                if (!next) return;
                require(next->unanswered() <= next->size());
                back = std::move(*next);
                break;
            }
        }
    }
}

void bytes(Input& in) {
    Page page;
    std::uint32_t produced = in.word(), consumed = produced;
    std::memcpy(page.bytes.get() + byte_layout.consumer, &produced, 4);
    std::memcpy(page.bytes.get() + byte_layout.producer, &produced, 4);
    ByteProducer producer(page.span(), byte_layout, produced);
    ByteConsumer consumer(page.span(), byte_layout, consumed);
    std::array<std::byte, 2048> buffer{};
    while (in.more()) {
        const auto part = std::span(buffer).first(in.byte() * 8u);
        switch (in.byte() % 3) {
            case 0: {
                const std::uint32_t value = in.byte() % 2 == 0 ? in.word() : produced + in.byte();
                std::memcpy(page.bytes.get() + 3072 + in.byte() % 2 * 4, &value, 4);
                break;
            }
            case 1: require(producer.write(part).value_or(0) <= std::min<std::size_t>(part.size(), 1024)); break;
            case 2: require(consumer.read(part).value_or(0) <= std::min<std::size_t>(part.size(), 1024)); break;
        }
    }
}

void events(Input& in) {
    Page page;
    std::uint32_t produced = 0, consumed = 0;
    EventProducer<Event> producer(page.span(), event_layout, produced);
    EventConsumer<Event> consumer(page.span(), event_layout, consumed);
    while (in.more()) {
        const std::uint32_t budget = in.byte();
        std::uint32_t taken = 0;
        switch (in.byte() % 3) {
            case 0: page.scribble(in, 4); break;
            case 1: (void)producer.push({budget, 0}); break;
            case 2:
                (void)consumer.drain(budget, [&](auto&&) { ++taken; });
                require(taken <= budget && taken <= event_layout.count);
                break;
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input in(data, size);
    switch (in.byte() % 3) {
        case 0: shared(in); break;
        case 1: bytes(in); break;
        case 2: events(in); break;
    }
    return 0;
}
