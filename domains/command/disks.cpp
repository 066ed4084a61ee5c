#include <chrono>
#include <cstdio>
#include <thread>

#include "domains/command/command.h"
#include "domains/toolstack/attach.h"

namespace caisson::command {
namespace {

using namespace std::chrono_literals;
using toolstack::ListedDomain;
using toolstack::State;
using toolstack::Toolstack;

constexpr auto connect_patience = 10s;

template <class Work>
int on_domain(const State& state, const std::string& name, Work work) {
    auto opened = Toolstack::open(state);
    if (!opened) return complain(opened.error());
    const auto domain = opened->find(name);
    if (!domain) return complain(domain.error());
    const Status done = work(*opened, *domain);
    return done ? exit_ok : complain(done.error());
}

Status connects(Toolstack& toolstack, const toolstack::DeviceLink& link) {
    const auto end = std::chrono::steady_clock::now() + connect_patience;
    while (std::chrono::steady_clock::now() < end) {
        const auto now = TRY(toolstack::states(toolstack.store(), link));
        if (now.connected()) return {};
        if (toolstack::is_refused(toolstack.store(), link, now)) break;
        std::this_thread::sleep_for(10ms);
    }
    return unsupported("", "the disk does not connect: " + toolstack::why_not_connected(toolstack.store(), link) +
                               "; it stays attached until 'caisson detach'");
}

}  // namespace

int attach(const State& state, const AttachOptions& options) {
    return on_domain(state, options.domain, [&](Toolstack& toolstack, const ListedDomain& domain) -> Status {
        const auto link = TRY(toolstack::attach_disk(toolstack, domain, options.spec, options.more));
        return options.wait ? connects(toolstack, link) : Status{};
    });
}

int detach(const State& state, const DetachOptions& options) {
    return on_domain(state, options.domain, [&](Toolstack& toolstack, const ListedDomain& domain) {
        return toolstack::detach_disk(toolstack, domain, options.vdev, options.force);
    });
}

int resize(const State& state, const std::string& domain, const std::string& vdev) {
    return on_domain(state, domain, [&](Toolstack& toolstack, const ListedDomain& found) {
        return toolstack::resize_disk(toolstack, found, vdev);
    });
}

}  // namespace caisson::command
