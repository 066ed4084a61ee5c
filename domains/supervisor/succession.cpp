#include "domains/supervisor/succession.h"

#include <algorithm>

#include "domains/toolstack/devices.h"

namespace caisson::supervisor {

using toolstack::DeviceLink;

namespace {

constexpr unsigned most_tries = 5;
constexpr unsigned pauses_to_notice = 10;  // of a guest's kernel, once the backend waits for it

bool same_device(const DeviceLink& one, const DeviceLink& other) {
    return one.frontend == other.frontend && one.device_class == other.device_class && one.id == other.id;
}

// A kernel that removes the old device late writes its last words into the new one's directory; then it takes no notice
// of the new one (xenbus_probe_node() wants Initialising).
bool not_taken_up(XenbusState frontend) {
    return frontend == XenbusState::initialising || frontend == XenbusState::closing || frontend == XenbusState::closed;
}

}  // namespace

void Succession::look(DomainId successor, Clock::time_point now) {
    predecessors_.erase(successor);  // of an earlier supervisor's, which it outlived
    for (const DomainId predecessor : std::set(predecessors_)) {
        if (const Status moved = move_from(predecessor, successor, now); !moved) log_.peer(moved.error());
    }
    std::erase_if(away_, [&](Away& device) {
        const auto done = settled(device, successor, now);
        if (!done) log_.peer(done.error());
        return done && *done;
    });
}

Status Succession::move_from(DomainId predecessor, DomainId successor, Clock::time_point now) {
    const auto lives = TRY(store_.read(toolstack::domain_path(predecessor)));
    if (lives) return {};
    auto all = TRY(toolstack::served_by(store_, predecessor));
    std::erase_if(all, [this](const DeviceLink& link) { return std::ranges::find(refused_, link) != refused_.end(); });
    if (all.empty()) predecessors_.erase(predecessor);
    // A guest that writes all the time can make its own transaction fail: the others do not wait for it.
    for (const auto& link : all)
        if (const Status moved = move_one(link, all, successor, now); !moved) {
            log_.peer(name_of(link) + ": " + moved.error().message());
            if (moved.error().fault == Fault::unsupported) refused_.push_back(link);
        }
    return {};
}

Status Succession::move_one(const DeviceLink& link, const std::vector<DeviceLink>& all, DomainId successor,
                            Clock::time_point now) {
    const bool follows = TRY(toolstack::follows(store_, link));
    return follows ? toolstack::move_device(store_, link, successor) : move_stock(link, all, now);
}

Status Succession::move_stock(const DeviceLink& link, const std::vector<DeviceLink>& all, Clock::time_point now) {
    const auto under_way = [&](const Away& one) { return same_device(one.link, link); };
    const auto goes_first = [&](const DeviceLink& one) {
        return one.frontend == link.frontend && one.device_class == "vif";
    };
    const auto is_away = [&](const Away& one) { return goes_first(one.link); };
    if (std::ranges::any_of(away_, under_way)) return {};
    if (link.device_class != "vif" && (std::ranges::any_of(all, goes_first) || std::ranges::any_of(away_, is_away)))
        return {};
    TRY(toolstack::take_away(store_, link));
    away_.push_back({.link = link, .due = now + pause_});
    return {};
}

// True: nothing more is to be done for it.
Result<bool> Succession::settled(Away& device, DomainId successor, Clock::time_point now) {
    if (device.back && device.link.backend != successor)
        device = {.link = device.link, .due = now};  // that one died, too
    if (!device.back) {
        if (now < device.due) return false;
        TRY(toolstack::move_device(store_, device.link, successor));
        device.link.backend = successor;
        device.back = true;
        device.due = now + pause_ * pauses_to_notice;
        return false;
    }
    const auto seen = TRY(toolstack::states(store_, device.link));
    if (!not_taken_up(seen.frontend)) return true;  // or the guest is gone
    if (seen.backend != XenbusState::init_wait) device.due = now + pause_ * pauses_to_notice;
    if (now < device.due) return false;
    if (++device.tries == most_tries) {
        log_.say(name_of(device.link) +
                 " is not taken up again: its kernel holds on to the old one, perhaps for requests "
                 "that nobody can answer any more; the guest has to start anew");
        return true;
    }
    TRY(toolstack::take_away(store_, device.link));
    device.back = false;
    device.due = now + pause_ * (1U << device.tries);
    return false;
}

}  // namespace caisson::supervisor
