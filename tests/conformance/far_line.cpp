#include "tests/conformance/far_line.h"

#include <poll.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "ring/xen/port.h"

namespace caisson::conformance {

namespace {

constexpr std::size_t requests = 0, answers = 1;

std::string node(DomainId server) { return "/local/domain/" + std::to_string(server.raw) + "/data/agent/line"; }

}  // namespace

Result<FarLine> FarLine::offer(Store& store, DomainId client) {
    FarLine line(TRY(xen::open()));
    line.shared_ = TRY(line.xen_->share(client, 2 * direction_pages, Access::read_write));
    line.memory_ = line.shared_.memory();
    line.channel_ = TRY(line.xen_->allocate_unbound(client));
    std::string where = std::to_string(line.channel_.port().raw);
    for (const GrantRef ref : line.shared_.refs()) where += " " + std::to_string(ref.raw);
    const DomainId self = line.xen_->self();
    TRY(store.write(node(self), where));
    TRY(store.set_permissions(node(self), {{.domain = self}, {.domain = client, .read = true}}));
    return line;
}

Result<FarLine> FarLine::take(Store& store, DomainId server) {
    FarLine line(TRY(xen::open()));
    std::istringstream where(TRY(store.read(node(server))).value_or(""));
    std::uint32_t port = 0;
    where >> port;
    std::vector<GrantRef> refs;
    for (std::uint32_t ref = 0; where >> ref;) refs.emplace_back(ref);
    if (refs.size() != 2 * direction_pages) return host_fault(ENOENT, "the agent's line");
    line.mapped_ = TRY(line.xen_->map(server, refs, Access::read_write));
    line.memory_ = line.mapped_.memory();
    line.channel_ = TRY(line.xen_->bind_interdomain(server, Port(port)));
    line.number_ = line.word(answers * direction_pages * page_size);  // an earlier caller's last one
    return line;
}

Result<std::string> FarLine::call(std::string_view request, std::chrono::seconds patience,
                                  const std::atomic<bool>& stop) {
    if (request.size() > most_text) return host_fault(EMSGSIZE, "a request to an agent");
    put(requests, ++number_, request);
    const auto until = std::chrono::steady_clock::now() + patience;
    while (word(answers * direction_pages * page_size) != number_) {
        if (stop || std::chrono::steady_clock::now() > until) return host_fault(ETIMEDOUT, "the agent does not answer");
        wait();
    }
    return text(answers);
}

std::string FarLine::next() {
    while (word(requests * direction_pages * page_size) == number_) wait();
    number_ = word(requests * direction_pages * page_size);
    return text(requests);
}

void FarLine::answer(std::string_view text) { put(answers, number_, text.substr(0, most_text)); }

void FarLine::put(std::size_t direction, std::uint32_t number, std::string_view text) {
    const std::size_t at = direction * direction_pages * page_size;
    const auto length = static_cast<std::uint32_t>(text.size());
    memory_.copy_in(at + 8, std::as_bytes(std::span(text)));
    memory_.copy_in(at + 4, std::as_bytes(std::span(&length, 1)));
    std::atomic_thread_fence(std::memory_order_release);
    memory_.copy_in(at, std::as_bytes(std::span(&number, 1)));
    (void)channel_.notify();
}

std::uint32_t FarLine::word(std::size_t offset) const {
    std::uint32_t value = 0;
    memory_.copy_out(offset, std::as_writable_bytes(std::span(&value, 1)));
    std::atomic_thread_fence(std::memory_order_acquire);
    return value;
}

std::string FarLine::text(std::size_t direction) const {
    const std::size_t at = direction * direction_pages * page_size;
    std::string text(std::min<std::size_t>(word(at + 4), most_text), '\0');
    memory_.copy_out(at + 8, std::as_writable_bytes(std::span(text)));
    return text;
}

// For an event, or a moment: who calls looks at the clock in between.
void FarLine::wait() {
    pollfd waiting{.fd = channel_.wait_fd(), .events = POLLIN, .revents = 0};
    (void)::poll(&waiting, 1, 500);
    (void)channel_.clear();
    channel_.unmask();
}

}  // namespace caisson::conformance
