#include "tests/conformance/far_domain.h"

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <stdexcept>

namespace caisson::conformance {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto patience = std::chrono::seconds(60);  // a hang is an error; slowness is not

Store open_store() {
    auto store = Store::open("");
    if (!store) throw std::runtime_error(store.error().message());
    return std::move(*store);
}

}  // namespace

Words split(std::string_view text) {
    std::istringstream in{std::string(text)};
    Words words;
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}

std::string to_hex(std::string_view bytes) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string hex = "x";  // so that nothing at all is a word, too
    for (const char c : bytes) hex += {digits[(c >> 4) & 15], digits[c & 15]};
    return hex;
}

std::string from_hex(std::string_view hex) {
    std::string bytes;
    for (std::size_t i = 1; i + 1 < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
    return bytes;
}

std::string FarDomain::node(std::string_view name) const {
    return "/local/domain/" + std::to_string(id_.raw) + "/data/agent/" + std::string(name);
}

FarDomain::FarDomain(DomainId id) : id_(id), store_(open_store()) {
    static unsigned made = 0;
    serial_ = std::to_string(::getpid()) + "." + std::to_string(++made) + ".";
    if (const Status watched = store_.watch(node("answer"), "answer"); !watched)
        throw std::runtime_error(watched.error().message());
    need("reset");
}

Result<Words> FarDomain::call(const std::string& request) {
    const std::lock_guard lock(one_at_a_time_);
    const std::string number = serial_ + std::to_string(++count_);
    if (dead_) return host_fault(ESRCH, "a domain that was destroyed");
    TRY(store_.write(node("request"), number + " " + request));
    for (const auto until = Clock::now() + patience; Clock::now() < until;) {
        if (dead_) return host_fault(ESRCH, "a domain that was destroyed");
        pollfd waiting{.fd = store_.fd(), .events = POLLIN, .revents = 0};
        (void)::poll(&waiting, 1, 500);
        while (store_.take_event()) {
        }
        Words answer = split(TRY(store_.read(node("answer"))).value_or(""));
        if (answer.size() < 2 || answer[0] != number) continue;
        if (answer[1] == "+") return Words(answer.begin() + 2, answer.end());
        return std::unexpected(Error{.fault = static_cast<Fault>(std::stoi(answer.at(2))),
                                     .err = std::stoi(answer.at(3)),
                                     .what = "in another domain:",
                                     .got = std::stoull(answer.at(4)),
                                     .detail = request.substr(0, 40)});
    }
    return host_fault(ETIMEDOUT, "the agent does not answer", request.substr(0, 40));
}

Words FarDomain::need(const std::string& request) {
    auto answer = call(request);
    if (!answer) throw std::runtime_error(request.substr(0, 40) + ": " + answer.error().message());
    return std::move(*answer);
}

}  // namespace caisson::conformance
