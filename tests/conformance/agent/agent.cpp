// The other half of the conformance suite on real Xen: makes the port's calls in its domain for the cases that run in
// another one. test_conformance_agent DOMAIN: whom it serves. Knows nothing of any case.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <variant>

#include "ring/xen/port.h"
#include "tests/conformance/far_domain.h"

using namespace caisson;
using namespace caisson::conformance;

namespace {

std::uint32_t number(const std::string& word) { return static_cast<std::uint32_t>(std::stoul(word)); }
DomainId domain(const std::string& word) { return DomainId(static_cast<std::uint16_t>(number(word))); }
Access access_of(const std::string& word) { return word == "rw" ? Access::read_write : Access::read_only; }

class Agent {
  public:
    explicit Agent(Store& store) : store_(store) {}

    Result<std::string> perform(const Words& words) {
        const std::string& verb = words.at(0);
        if (verb == "reset") return reset();
        if (verb == "share") return share(domain(words.at(1)), number(words.at(2)), access_of(words.at(3)));
        if (verb == "adopt") return adopt(domain(words.at(1)), number(words.at(2)));
        if (verb == "map") return map(words);
        if (verb == "end") {
            const End ended = TRY(shared_.at(number(words.at(1))).end());
            return ended == End::ended ? "ended" : "mapped";
        }
        if (verb == "drop") {
            shared_.erase(number(words.at(1)));
            mapped_.erase(number(words.at(1)));
            return "";
        }
        if (verb == "quarantine") {
            if (words.at(1) == "retry") xen_->retry_quarantine();
            return std::to_string(xen_->quarantined_pages());
        }
        if (verb == "peek" || verb == "poke") return touch(words);
        if (verb == "unbound") return keep(TRY(xen_->allocate_unbound(domain(words.at(1)))));
        if (verb == "bind") return keep(TRY(xen_->bind_interdomain(domain(words.at(1)), Port(number(words.at(2))))));
        if (verb == "stream") return stream(words);
        return on_channel(words);
    }

  private:
    Result<std::string> reset() {
        shared_.clear(), mapped_.clear(), channels_.clear(), streams_.clear();
        xen_.reset();
        xen_ = TRY(xen::open());
        TRY(store_.remove("data/case"));
        return "";
    }

    Result<std::string> share(DomainId peer, std::uint32_t pages, Access access) {
        return keep(TRY(xen_->share(peer, pages, access)));
    }
    Result<std::string> adopt(DomainId peer, std::uint32_t handle) {
        const SharedPages& pages = shared_.at(handle);
        return keep(TRY(xen_->adopt(peer, Fd(::dup(pages.descriptor())), {pages.refs().begin(), pages.refs().end()})));
    }
    std::string keep(SharedPages pages) {
        std::string answer = std::to_string(++last_);
        for (const GrantRef ref : pages.refs()) answer += " " + std::to_string(ref.raw);
        shared_[last_] = std::move(pages);
        return answer;
    }

    Result<std::string> map(const Words& words) {
        std::vector<GrantRef> refs;
        for (std::size_t i = 3; i < words.size(); ++i) refs.emplace_back(number(words[i]));
        mapped_[last_ + 1] = TRY(xen_->map(domain(words.at(1)), refs, access_of(words.at(2))));
        return std::to_string(++last_);
    }

    // peek HANDLE OFFSET LENGTH, poke HANDLE OFFSET BYTES
    Result<std::string> touch(const Words& words) {
        const std::uint32_t handle = number(words.at(1)), offset = number(words.at(2));
        const SharedSpan memory = shared_.contains(handle) ? shared_.at(handle).memory() : mapped_.at(handle).memory();
        if (words[0] == "poke") {
            const std::string text = from_hex(words.at(3));
            if (!memory.copy_in(offset, std::as_bytes(std::span(text)))) return host_fault(ERANGE, "poke");
            return "";
        }
        std::string text(number(words.at(3)), '\0');
        if (!memory.copy_out(offset, std::as_writable_bytes(std::span(text)))) return host_fault(ERANGE, "peek");
        return to_hex(text);
    }

    std::string keep(EventChannel channel) {
        const std::string port = std::to_string(channel.port().raw);
        channels_[++last_] = std::move(channel);
        return std::to_string(last_) + " " + port;
    }

    Result<std::string> on_channel(const Words& words) {
        const std::uint32_t handle = number(words.at(1));
        const EventChannel& channel = channels_.at(handle);
        if (words[0] == "close") {
            xen_->close(std::move(channels_.at(handle)));
            channels_.erase(handle);
        } else if (words[0] == "readable") {
            pollfd waiting{.fd = channel.wait_fd(), .events = POLLIN, .revents = 0};
            return ::poll(&waiting, 1, static_cast<int>(number(words.at(2)))) == 1 ? "1" : "0";
        } else if (words[0] == "clear") {
            return channel.clear() ? "1" : "0";
        } else if (words[0] == "unmask") {
            channel.unmask();
        } else if (words[0] == "notify") {
            for (std::uint32_t i = 0; i < number(words.at(2)); ++i)
                if (!channel.notify()) return "0";
            return "1";
        } else {
            return host_fault(ENOSYS, "a call that the agent does not know");
        }
        return "";
    }

    // A connection to xenstored: stream open; stream HANDLE MESSAGE (a whole one, or none); stream close HANDLE.
    Result<std::string> stream(const Words& words) {
        if (words.at(1) == "open") {
            Fd fd(::open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC | O_NONBLOCK));
            if (!fd) return host_fault(errno, "/dev/xen/xenbus");
            streams_[++last_] = std::move(fd);
            return std::to_string(last_);
        }
        if (words[1] == "close") {
            streams_.erase(number(words.at(2)));
            return "";
        }
        const Fd& fd = streams_.at(number(words[1]));
        const std::string bytes = from_hex(words.at(2));
        if (!bytes.empty() && ::write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
            return host_fault(errno, "write to xenbus");
        pollfd waiting{.fd = fd.get(), .events = POLLIN, .revents = 0};
        std::string answer(most_bytes, '\0');
        const bool ready = ::poll(&waiting, 1, bytes.empty() ? 0 : 1000) == 1;  // every message has an answer
        const ssize_t got = ready ? ::read(fd.get(), answer.data(), answer.size()) : 0;
        answer.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
        return to_hex(answer);
    }

    Store& store_;
    std::unique_ptr<Hypervisor> xen_;
    std::uint32_t last_ = 0;
    std::map<std::uint32_t, SharedPages> shared_;
    std::map<std::uint32_t, MappedPages> mapped_;
    std::map<std::uint32_t, EventChannel> channels_;
    std::map<std::uint32_t, Fd> streams_;
};

std::string answer_to(Agent& agent, const Words& words) {
    try {
        const auto done = agent.perform(words);
        if (done) return "+ " + *done;
        const Error& error = done.error();
        return "- " + std::to_string(static_cast<int>(error.fault)) + " " + std::to_string(error.err) + " " +
               std::to_string(error.got);
    } catch (const std::exception& wrong) {  // a handle that is not there, a word that is missing
        std::fprintf(stderr, "agent: %s: %s\n", words.at(0).c_str(), wrong.what());
        return "- 1 22 0";
    }
}

Status serve(DomainId client) {
    Store store = TRY(Store::open(""));
    FarLine line = TRY(FarLine::offer(store, client));
    TRY(store.write("data/agent/ready", "1"));
    for (Agent agent(store);;) {
        const Words words = split(line.next());
        line.answer(words.empty() ? "- 1 22 0" : answer_to(agent, words));
    }
}

}  // namespace

int main(int count, char** words) {
    if (count != 2) return std::fprintf(stderr, "usage: %s DOMAIN\n", words[0]), 2;
    const Status served = serve(domain(words[1]));
    std::fprintf(stderr, "agent: %s\n", served.error().message().c_str());
    return 1;
}
