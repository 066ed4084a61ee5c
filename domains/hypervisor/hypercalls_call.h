// One call under way: who asks, with what, and how it is answered. Private to hypercalls*.cpp.
#pragma once

#include <algorithm>

#include "domains/hypervisor/hypercalls.h"

namespace caisson::hypervisor {

struct Hypercalls::Call {
    ConnectionId from;
    DomainKey self;
    const std::set<DomainKey>* only;
    local::Request head;
    std::span<const std::byte> message;
    std::vector<Fd> descriptors;

    template <Wire Message>
    Answer done(Message reply) const {
        if constexpr (std::is_same_v<Message, local::Reply>)
            reply.id = head.id;
        else
            reply.head.id = head.id;
        const auto bytes = local::bytes_of(reply);
        Answer answer;
        answer.bytes.assign(bytes.begin(), bytes.end());
        return answer;
    }
    template <Wire Message, class... Descriptor>
    Answer done(const Message& reply, Fd first, Descriptor... more) const {
        Answer answer = done(reply);
        answer.descriptors.push_back(std::move(first));
        (answer.descriptors.push_back(std::move(more)), ...);
        return answer;
    }
    Answer done() const { return done(local::Reply{}); }

    // The one place in which an error becomes bytes.
    Answer refused(const Error& error) const {
        local::Reply reply{.id = 0, .got = error.got, .err = error.err, .fault = 0, .reason = {}};
        if (reply.err <= 0) reply.err = EIO;
        reply.fault = static_cast<std::uint32_t>(error.fault);
        const std::string_view reason = error.what;
        std::copy_n(reason.begin(), std::min(reason.size(), sizeof reply.reason - 1), reply.reason);
        return done(reply);
    }
    Answer refused(const std::unexpected<Error>& error) const { return refused(error.error()); }
};

}  // namespace caisson::hypervisor
