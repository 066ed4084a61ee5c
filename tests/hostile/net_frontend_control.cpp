// The control ring's client against a backend that lies on it.
#include <catch2/catch.hpp>

#include "protocols/net_control.h"
#include "tests/support/net_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

net::frontend::Link with_hash() {
    auto link = FrontendAlone::default_link();
    link.queues = 2;
    link.receive_hash = true;
    return link;
}

}  // namespace

TEST_CASE("the hash is asked for in order, one request at a time, and its pages are ended afterwards") {
    FrontendAlone front(with_hash());
    const auto shares = front.hypervisor.shares();
    std::vector<unsigned> types;
    for (int i = 0; i < 10; ++i) {
        front.turns();
        const auto request = front.control->take();
        if (!request) break;
        CHECK(!front.control->take());  // not two at once
        types.push_back(request->type);
        if (request->type == 3) {
            CHECK(request->data[1] == 40);
            CHECK(front.hypervisor.granted(request->data[0]));
            CHECK(!front.hypervisor.writable(request->data[0]));
        }
        front.control->respond({request->id, request->type, net::control_status::success, 0});
    }
    CHECK(types == std::vector<unsigned>{7, 2, 3, 5, 6});
    CHECK(front.hypervisor.shares() == shares - 1);
    CHECK(!front.broken());
}

TEST_CASE("a refusal at any step ends the asking, and the hash is switched off again") {
    for (unsigned refused = 0; refused < 5; ++refused) {
        FrontendAlone front(with_hash());
        unsigned asked = 0;
        std::uint32_t last_algorithm = 99;
        for (int i = 0; i < 10; ++i) {
            front.turns();
            const auto request = front.control->take();
            if (!request) break;
            if (request->type == 7) last_algorithm = request->data[0];
            const auto status = asked++ == refused ? net::control_status::not_supported : net::control_status::success;
            front.control->respond({request->id, request->type, status, 0});
        }
        CHECK(!front.broken());
        CHECK(asked == (refused == 0 ? 1 : refused + 2));
        CHECK(last_algorithm == (refused == 0 ? 1u : 0u));
    }
}

TEST_CASE("xsa_376_control answers that match no request close the device") {
    auto answered = [](auto change) {
        FrontendAlone front(with_hash());
        front.turns();
        const auto request = front.control->take();
        REQUIRE(request);
        net::ControlResponse response{request->id, request->type, 0, 0};
        change(response);
        front.control->respond(response);
        front.turns();
        return front.faults.size();
    };
    CHECK(answered([](auto&) {}) == 0);
    CHECK(answered([](auto& r) { r.id += 1; }) == 1);
    CHECK(answered([](auto& r) { r.id = 0xFFFF; }) == 1);
    CHECK(answered([](auto& r) { r.type += 1; }) == 1);
    CHECK(answered([](auto& r) { r.status = 4; }) == 1);
    CHECK(answered([](auto& r) { r.status = 0xFFFFFFFF; }) == 1);
}

TEST_CASE("xsa_376_control answers nobody asked for close the device") {
    FrontendAlone front(with_hash());
    front.control->response_producer(2);
    front.turns();
    CHECK(front.faults.size() == 1);
}
