// The four halves of a ring, ours and Xen's macros', behind one interface, so that every pairing can run the same
// script.
#pragma once

#include <catch2/catch.hpp>
#include <vector>

#include "ring/shared_ring.h"
#include "tests/abi/xen_ring_headers.h"

namespace caisson::abi {
struct Request {
    std::uint32_t id, argument;
};
struct Response {
    std::uint32_t id;
};
DEFINE_RING_TYPES(probe, Request, Response);
struct Probe {
    using Request = abi::Request;
    using Response = abi::Response;
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

}  // namespace caisson::abi
