// Our ring against libxen-dev's own macros as the peer: a full ring, the wrap at 2^32, and the same decision to notify.
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "ring/shared_ring.h"
#include "tests/abi/xen_ring_headers.h"

namespace caisson {
namespace {

struct Request {
    std::uint32_t id, argument;
};
struct Response {
    std::uint32_t id;
};
DEFINE_RING_TYPES(probe, Request, Response);
struct Probe {
    using Request = caisson::Request;
    using Response = caisson::Response;
};
struct Checked {
    std::uint32_t id;
};
constexpr std::size_t ring_bytes = ring_header_bytes + 16 * sizeof(probe_sring_entry);

// A shared page whose indices all start at `first`, as after a long life.
struct Page {
    explicit Page(RING_IDX first) {
        SHARED_RING_INIT(shared());
        shared()->req_prod = shared()->rsp_prod = first;
        shared()->req_event = shared()->rsp_event = first + 1;
    }
    probe_sring* shared() { return reinterpret_cast<probe_sring*>(bytes); }
    SharedSpan span() { return detail::SharedAccess::span(bytes, sizeof bytes); }
    alignas(64) std::byte bytes[ring_bytes] = {};
};

// One interface over the four halves, so that pairs of them can run the same script.
struct Front {
    virtual ~Front() = default;
    virtual std::uint32_t free() = 0;
    virtual void push(std::uint32_t id) = 0;
    virtual bool publish() = 0;                               // true: notify
    virtual void take(std::vector<std::uint32_t>& into) = 0;  // all responses that are there
    virtual bool work_after_arming() = 0;
};
struct Back {
    virtual ~Back() = default;
    virtual void take(std::vector<std::uint32_t>& into, std::uint32_t budget) = 0;
    virtual void push(std::uint32_t id) = 0;
    virtual bool publish() = 0;
    virtual bool work_after_arming() = 0;
};

struct XenFront final : Front {
    XenFront(Page& page, RING_IDX first) { FRONT_RING_ATTACH(&ring, page.shared(), first, ring_bytes); }
    std::uint32_t free() override { return RING_FREE_REQUESTS(&ring); }
    void push(std::uint32_t id) override { RING_GET_REQUEST(&ring, ring.req_prod_pvt++)->id = id; }
    bool publish() override {
        bool notify = false;
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&ring, notify);
        return notify;
    }
    void take(std::vector<std::uint32_t>& into) override {
        const RING_IDX end = ring.sring->rsp_prod;
        xen_rmb();
        for (; ring.rsp_cons != end; ++ring.rsp_cons) {
            Response copy;
            RING_COPY_RESPONSE(&ring, ring.rsp_cons, &copy);
            into.push_back(copy.id);
        }
    }
    bool work_after_arming() override {
        int work = 0;
        RING_FINAL_CHECK_FOR_RESPONSES(&ring, work);
        return work != 0;
    }
    probe_front_ring ring{};
};

struct XenBack final : Back {
    XenBack(Page& page, RING_IDX first) { BACK_RING_ATTACH(&ring, page.shared(), first, ring_bytes); }
    void take(std::vector<std::uint32_t>& into, std::uint32_t budget) override {
        const RING_IDX end = ring.sring->req_prod;
        xen_rmb();
        REQUIRE_FALSE(RING_REQUEST_PROD_OVERFLOW(&ring, end));
        for (; ring.req_cons != end && budget > 0; ++ring.req_cons, --budget) {
            Request copy;
            RING_COPY_REQUEST(&ring, ring.req_cons, &copy);
            into.push_back(copy.id);
        }
    }
    void push(std::uint32_t id) override { RING_GET_RESPONSE(&ring, ring.rsp_prod_pvt++)->id = id; }
    bool publish() override {
        bool notify = false;
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&ring, notify);
        return notify;
    }
    bool work_after_arming() override {
        int work = 0;
        RING_FINAL_CHECK_FOR_REQUESTS(&ring, work);
        return work != 0;
    }
    probe_back_ring ring{};
};

template <class Message>
std::uint32_t id_of(Untrusted<Message>&& message) {
    return std::move(message).check([](const Message& m) { return Checked{m.id}; }).id;
}

struct OurFront final : Front {
    OurFront(Page& page, RING_IDX first)
        : indices{.consumed = first, .produced = first}, ring(*FrontRing<Probe>::attach(page.span(), indices)) {}
    std::uint32_t free() override { return ring.free(); }
    void push(std::uint32_t id) override { ring.push({.id = id, .argument = 0}); }
    bool publish() override { return ring.publish(); }
    void take(std::vector<std::uint32_t>& into) override {
        // A drain ends where the known index ends; a second one looks at the page again.
        while (ring.available().value() > 0)
            REQUIRE(ring.drain(ring.size(),
                               [&](auto&& response, std::uint32_t) { into.push_back(id_of(std::move(response))); }));
    }
    bool work_after_arming() override { return ring.arm().value(); }
    RingIndices indices;
    FrontRing<Probe> ring;
};

struct OurBack final : Back {
    OurBack(Page& page, RING_IDX first)
        : indices{.consumed = first, .produced = first}, ring(*BackRing<Probe>::attach(page.span(), indices)) {}
    void take(std::vector<std::uint32_t>& into, std::uint32_t budget) override {
        while (budget > 0 && ring.available().value() > 0)
            budget -=
                ring.drain(budget, [&](auto&& request, std::uint32_t) { into.push_back(id_of(std::move(request))); })
                    .value();
    }
    void push(std::uint32_t id) override { ring.push({.id = id}); }
    bool publish() override { return ring.publish(); }
    bool work_after_arming() override { return ring.arm().value(); }
    RingIndices indices;
    BackRing<Probe> ring;
};

// Everything that a run of the script shows to the outside.
struct Record {
    std::vector<std::uint32_t> events;
    bool operator==(const Record&) const = default;
};

// A random but repeatable conversation between the two halves of one ring, in which each half does what is legal.
template <class FrontHalf, class BackHalf>
Record converse(std::uint32_t seed, RING_IDX first, int steps) {
    Page page(first);
    FrontHalf front(page, first);
    BackHalf back(page, first);
    std::mt19937 random(seed);
    std::uint32_t next = 0, expected_response = 0;
    std::vector<std::uint32_t> taken, answered;
    std::size_t served = 0;
    Record record;
    for (int step = 0; step < steps; ++step) {
        switch (random() % 6) {
            case 0: {  // push some, publish
                for (std::uint32_t n = std::min<std::uint32_t>(front.free(), random() % 17); n > 0; --n)
                    front.push(next++);
                record.events.push_back(100 + (front.publish() ? 1 : 0));
                record.events.push_back(front.free());
                break;
            }
            case 1: back.take(taken, random() % 17); break;
            case 2: {  // answer some of what was taken, publish
                for (std::size_t n = random() % 17; n > 0 && served < taken.size(); --n) back.push(taken[served++]);
                record.events.push_back(200 + (back.publish() ? 1 : 0));
                break;
            }
            case 3: front.take(answered); break;
            case 4: record.events.push_back(300 + (front.work_after_arming() ? 1 : 0)); break;
            case 5: record.events.push_back(400 + (back.work_after_arming() ? 1 : 0)); break;
        }
        for (; expected_response < answered.size(); ++expected_response)
            REQUIRE(answered[expected_response] == expected_response);
        record.events.push_back(static_cast<std::uint32_t>(taken.size()));
    }
    CHECK(answered.size() > static_cast<std::size_t>(steps) / 4);
    return record;
}

}  // namespace

TEST_CASE("our halves and Xen's macros decide alike, whichever side is whose and wherever the indices wrap") {
    const RING_IDX first = GENERATE(0u, 0xFFFFFF00u, 0x7FFFFFF0u);
    const std::uint32_t seed = GENERATE(range(1u, 9u));
    const Record reference = converse<XenFront, XenBack>(seed, first, 2000);
    CHECK(converse<OurFront, XenBack>(seed, first, 2000) == reference);
    CHECK(converse<XenFront, OurBack>(seed, first, 2000) == reference);
    CHECK(converse<OurFront, OurBack>(seed, first, 2000) == reference);
}

TEST_CASE("a ring filled by our frontend is full to Xen's backend, and the other way round") {
    const RING_IDX first = 0xFFFFFFF8u;  // wraps in the middle of the ring
    std::vector<std::uint32_t> taken;
    SECTION("our frontend") {
        Page page(first);
        OurFront front(page, first);
        XenBack back(page, first);
        REQUIRE(front.ring.size() == RING_SIZE(&back.ring));
        while (!front.ring.full()) front.push(front.indices.produced);
        CHECK(front.publish());
        CHECK(RING_REQUEST_PROD_OVERFLOW(&back.ring, page.shared()->req_prod) == 0);
        CHECK(RING_REQUEST_PROD_OVERFLOW(&back.ring, page.shared()->req_prod + 1) == 1);
        back.take(taken, 100);
        CHECK(taken.size() == front.ring.size());
        CHECK(taken.back() == first + 15);
    }
    SECTION("our backend") {
        Page page(first);
        XenFront front(page, first);
        OurBack back(page, first);
        while (!RING_FULL(&front.ring)) front.push(front.ring.req_prod_pvt);
        CHECK(front.publish());
        back.take(taken, 100);
        CHECK(taken.size() == back.ring.size());
        CHECK(taken.back() == first + 15);
        page.shared()->req_prod += 1;  // one more than a ring holds
        CHECK_FALSE(back.ring.available().has_value());
        CHECK(back.ring.broken());
    }
}

}  // namespace caisson
