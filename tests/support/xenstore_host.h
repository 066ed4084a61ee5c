// Xenstored behind real sockets in a thread of its own, for programs and libraries that know only XENSTORED_PATH.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "domains/hypervisor/xenstore_socket.h"
#include "tests/support/temporary.h"

namespace caisson::hypervisor::testing {

class StoreHost {
  public:
    // Sockets for Dom0 and the domains named; `prepare` runs before the thread does.
    explicit StoreHost(
        std::vector<std::uint16_t> domains = {}, const std::function<void(Xenstored&)>& prepare = [](Xenstored&) {})
        : sockets_(store_, [this](int fd, bool readable, bool writable) { want(fd, readable, writable); }) {
        wake_ = Fd(::eventfd(0, EFD_CLOEXEC));
        prepare(store_);
        domains.push_back(0);
        for (const std::uint16_t domain : domains) {
            if (domain != 0) (void)store_.create(DomainId(domain), 1);
            (void)sockets_.listen(listen_at(path(domain)).value(), DomainId(domain));
        }
        thread_ = std::thread([this] { serve(); });
    }
    ~StoreHost() {
        stop_ = true;
        (void)!::write(wake_.get(), "\1\0\0\0\0\0\0\0", 8);
        thread_.join();
    }

    std::string path(std::uint16_t domain) const { return folder_ / std::to_string(domain); }

  private:
    void want(int fd, bool readable, bool writable) {
        if (!readable && !writable && fd >= 0) wanted_.erase(fd);
        if (readable || writable) wanted_[fd] = static_cast<short>((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    }
    static StoreTime now() { return std::chrono::steady_clock::now().time_since_epoch(); }
    void serve() {
        while (!stop_) {
            std::vector<pollfd> fds{{wake_.get(), POLLIN, 0}};
            for (const auto& [fd, events] : wanted_) fds.push_back({fd, events, 0});
            const auto next = store_.next_tick();
            const auto wait = next ? std::max<std::int64_t>(0, (*next - now()).count() / 1'000'000 + 1) : -1;
            ::poll(fds.data(), fds.size(), static_cast<int>(std::min<std::int64_t>(wait, 60000)));
            for (const pollfd& ready : fds) {
                if (ready.fd == wake_.get()) continue;
                if (ready.revents & POLLOUT) sockets_.on_writable(ready.fd, now());
                if (ready.revents & (POLLIN | POLLHUP | POLLERR)) sockets_.on_readable(ready.fd, now());
            }
            store_.tick(now());
        }
    }

    test::TemporaryFolder folder_;
    Fd wake_;
    std::map<int, short> wanted_;
    Xenstored store_;
    XenstoreSockets sockets_;
    std::atomic<bool> stop_ = false;
    std::thread thread_;
};

}  // namespace caisson::hypervisor::testing
