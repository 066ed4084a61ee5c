#include "domains/hypervisor/run.h"

#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>

#include "domains/hypervisor/broker.h"
#include "ring/local/control.h"

namespace caisson::hypervisor {

namespace {

Broker* running = nullptr;  // for the signal handler only

void on_signal(int) {
    if (running != nullptr) running->stop();
}

Status make_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return host_fault(errno, "make directory", path);
    return {};
}

// Every region and port of every domain is a descriptor here: as many as the system lets us have. A quarter is left for
// the store's connections and for descriptors on their way.
std::uint32_t raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return Limits{}.descriptors;
    const rlimit highest{.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &highest) == 0) limit = highest;
    return static_cast<std::uint32_t>(std::min<rlim_t>(limit.rlim_cur / 4 * 3, 1U << 20));
}

void say_ready(int fd, const std::string& directory) {
    const std::string line = "hypervisor ready: " + directory + "\n";
    const int to = fd >= 0 ? fd : STDOUT_FILENO;
    (void)!::write(to, line.data(), line.size());
    if (fd >= 0) ::close(fd);
}

}  // namespace

Status run_broker(const RunOptions& options) {
    const std::string dom0 = options.state + "/dom0";
    const std::string hypervisor = dom0 + "/hypervisor", xenstored = dom0 + "/xenstored";
    TRY(make_directory(options.state));
    TRY(make_directory(dom0));
    const std::string lock_path = options.state + "/lock";
    const Fd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock) return host_fault(errno, "open", lock_path);
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
        return host_fault(EBUSY, "another hypervisor runs in", options.state);

    Broker::Options sockets{.limits = options.limits};
    sockets.limits.descriptors = raise_descriptor_limit();
    sockets.hypervisor = TRY(local::listen_at(hypervisor, SOCK_SEQPACKET));
    sockets.xenstored = TRY(local::listen_at(xenstored, SOCK_STREAM));
    auto broker = TRY(Broker::make(std::move(sockets)));
    running = broker.get();
    struct sigaction action{};
    action.sa_handler = on_signal;
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    say_ready(options.ready_fd, options.state);
    const Status served = broker->run();
    running = nullptr;
    ::unlink(hypervisor.c_str());
    ::unlink(xenstored.c_str());
    return served;
}

}  // namespace caisson::hypervisor
