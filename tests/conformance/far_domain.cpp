#include "tests/conformance/far_domain.h"

#include <chrono>
#include <sstream>
#include <stdexcept>

namespace caisson::conformance {

namespace {

constexpr auto patience = std::chrono::seconds(60);  // a hang is an error; slowness is not

FarLine line_to(DomainId id) {
    Store store = std::move(Store::open("")).value();
    auto line = FarLine::take(store, id);
    if (!line) throw std::runtime_error(line.error().message());
    return std::move(*line);
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

FarDomain::FarDomain(DomainId id) : id_(id), line_(line_to(id)) {}

Result<Words> FarDomain::call(const std::string& request) {
    const std::lock_guard lock(one_at_a_time_);
    if (dead_) return host_fault(ESRCH, "a domain that was destroyed");
    Words answer = split(TRY(line_->call(request, patience, dead_)));
    if (answer.at(0) == "+") return Words(answer.begin() + 1, answer.end());
    return std::unexpected(Error{.fault = static_cast<Fault>(std::stoi(answer.at(1))),
                                 .err = std::stoi(answer.at(2)),
                                 .what = "in another domain:",
                                 .got = std::stoull(answer.at(3)),
                                 .detail = request.substr(0, 40)});
}

void FarDomain::bury() {
    dead_ = true;
    const std::lock_guard lock(one_at_a_time_);
    line_.reset();
}

Words FarDomain::need(const std::string& request) {
    auto answer = call(request);
    if (!answer) throw std::runtime_error(request.substr(0, 40) + ": " + answer.error().message());
    return std::move(*answer);
}

}  // namespace caisson::conformance
