// A domain's connection to the local hypervisor, as synchronous calls. Used by the port and by the toolstack's control.
//
// A call waits for its answer for a bounded time. After that, or when the broker is gone, the connection is broken and
// every further call fails at once with a host fault. A broken connection is shut down: all who hold a duplicate of its
// descriptor, and the broker, see it end.
//
// EAGAIN is the broker's word for a kernel that takes no more descriptors into sockets: nothing was done. The call is
// tried again a few times, some milliseconds in all, before it is the caller's error.
//
// Threads: one.
#pragma once

#include <memory>
#include <string>

#include "ring/local/message.h"

namespace caisson::local {

class Connection {
  public:
    static Result<Connection> open(const std::string& socket_path);
    // A connected socket, perhaps used before: answers to whoever used it are thrown away.
    explicit Connection(Fd socket);

    template <Wire Body>
    struct Answer {
        Body body;
        std::vector<Fd> descriptors;
    };

    int fd() const { return socket_.get(); }

    // `request.head` is filled in here. `expected`: how many descriptors a good answer brings.
    template <Wire Body, Wire Message>
    Result<Answer<Body>> call(Op op, Message request, std::size_t expected, std::span<const int> descriptors = {}) {
        Answer<Body> answer = TRY((call_any<Body>(op, request, descriptors)));
        if (answer.descriptors.size() != expected) return broken("answer with other descriptors");
        return answer;
    }
    // Where the number of descriptors depends on the answer.
    template <Wire Body, Wire Message>
    Result<Answer<Body>> call_any(Op op, Message request, std::span<const int> descriptors = {}) {
        const auto ask = [&] {
            request.head = {.op = static_cast<std::uint32_t>(op), .zero = 0, .id = ++last_id_};
            return exchange(bytes_of(request), descriptors);
        };
        Status asked = ask();
        for (int tries = 1; !asked && again_later(asked.error(), tries); ++tries) asked = ask();
        TRY(std::move(asked));
        const auto body = as<Body>(message_->data());
        if (!body) return broken("answer of another shape");
        return Answer<Body>{*body, std::move(message_->descriptors)};
    }

  private:
    // After it, message_ holds an answer without error to this request.
    Status exchange(std::span<const std::byte> request, std::span<const int> descriptors);
    Status await();
    // True after a pause when the broker had no room for its answer's descriptors and asking again makes sense.
    static bool again_later(const Error& error, int tries);
    std::unexpected<Error> broken(const char* why);

    Fd socket_;
    std::uint64_t last_id_ = 0;
    std::unique_ptr<Message> message_ = std::make_unique<Message>();
};

}  // namespace caisson::local
