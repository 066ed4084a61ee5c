// The backend's end of a shared ring, for a test that plays a backend on raw pages.
#pragma once

#include <optional>

#include "tests/support/ring_words.h"

namespace caisson::test {

// Without any manners.
template <class P>
class RawRing : public RingWords<P> {
  public:
    using Request = typename P::Request;
    using Response = typename P::Response;

    explicit RawRing(SharedSpan page) : RingWords<P>(page) {}

    using RingWords<P>::request_event, RingWords<P>::response_producer;
    void request_event(std::uint32_t value) { this->put_request_event(value); }
    void response_producer(std::uint32_t value) { this->put_response_producer(value), produced_ = value; }

    Request request(std::uint32_t index) const { return this->template slot<Request>(index); }
    // The next request that was not taken, if there is one.
    std::optional<Request> take() {
        if (taken_ == this->request_producer()) return std::nullopt;
        return request(taken_++);
    }
    void put(std::uint32_t index, const Response& response) { this->put_slot(index, response); }
    // The next response, seen by the frontend at once.
    void respond(const Response& response) {
        put(produced_, response);
        response_producer(produced_ + 1);
    }
    std::uint32_t produced() const { return produced_; }

  private:
    std::uint32_t taken_ = 0, produced_ = 0;
};

}  // namespace caisson::test
