// Workers as processes: groups, a warm spare for each class half in use, and what happens when one dies.
#include <algorithm>
#include <deque>
#include <map>

#include "domains/worker/process.h"

namespace caisson {
namespace {

using namespace std::chrono_literals;

constexpr auto crash_window = 10s;
constexpr std::size_t most_early_deaths = 5;  // by its own doing, or before it served all its devices
constexpr std::size_t most_deaths = 500;      // whatever it served: a guest that can kill it at will shall not spin us
constexpr auto spare_delay = 20ms;            // not while the successor needs the processor
// The first is far beyond what a crowded or emulated machine needs: a worker that is killed for being slow is one early
// death more, and a few of these close the device.
constexpr auto attach_patience = 60s, detach_patience = 1s;
constexpr unsigned publish_per_window = 100;  // by one device, in crash_window

struct HalfKey {
    std::string device_class;
    Role role;
    auto operator<=>(const HalfKey&) const = default;
};

struct Job {
    enum class Stage : std::uint8_t { waiting, sent, serving, leaving } stage = Stage::waiting;
    const Attachment* attachment = nullptr;
    Attended* device = nullptr;
    std::string group;
    bool handed = false;  // some worker has had it: the next one is a successor
    bool served = false;  // some worker has told us that it serves it
    unsigned published = 0;
    Loop::Clock::time_point publish_window{};
    Loop::Handle patience;
};

// A worker and the history of its predecessors.
struct Group {
    HalfKey half;
    std::unique_ptr<WorkerHandle> worker;
    std::deque<Loop::Clock::time_point> early_deaths, deaths;
    bool renewed = false;  // it dies for a lost connection, which it may have shut down itself
};

class ProcessWorkers final : public Workers {
  public:
    ProcessWorkers(Loop& loop, WorkerOptions options) : loop_(loop), options_(std::move(options)) {}
    void attach(std::uint32_t number, const Attachment& attachment, Attended& device) override;
    void update(std::uint32_t number, std::span<const std::byte> message) override;
    void renew(std::uint32_t number) override;
    void detach(std::uint32_t number) override;

  private:
    void give(Group& group, std::uint32_t number);
    Status staff(Group& group);
    Result<std::unique_ptr<WorkerHandle>> start(const HalfKey& half);
    void armed(WorkerHandle* worker);
    void died(WorkerHandle* worker, bool crashed);
    void replace(Group& group, const std::set<std::uint32_t>& devices, bool early);
    void received(WorkerHandle* worker, Mail mail);
    void publish(Job& job, std::span<const std::byte> bytes);
    void finish(std::uint32_t number);
    void fail(std::uint32_t number, const Error& error);
    void want_spare(const HalfKey& half);
    void later(std::function<void()> call);
    Group* group_of(const WorkerHandle* worker);

    Loop& loop_;
    WorkerOptions options_;
    Log log_{"workers"};
    std::map<std::uint32_t, Job> jobs_;
    std::map<std::string, Group> groups_;
    std::map<HalfKey, std::unique_ptr<WorkerHandle>> spares_;
    std::map<HalfKey, unsigned> spare_failures_;
    std::map<std::uint64_t, Loop::Handle> pending_;
    std::uint64_t next_pending_ = 0;
};

bool too_many(std::deque<Loop::Clock::time_point>& deaths, std::size_t most) {
    const auto now = Loop::Clock::now();
    deaths.push_back(now);
    while (now - deaths.front() > crash_window) deaths.pop_front();
    return deaths.size() > most;
}

void ProcessWorkers::later(std::function<void()> call) {
    const std::uint64_t id = next_pending_++;
    pending_[id] = loop_.after(Loop::Clock::duration::zero(), [this, id, call = std::move(call)] {
        const Loop::Handle mine = std::move(pending_[id]);
        pending_.erase(id);
        call();
    });
}

// ---- Attaching and detaching --------------------------------------------------------------------------------------

void ProcessWorkers::attach(std::uint32_t number, const Attachment& attachment, Attended& device) {
    const DeviceAddress& address = attachment.address;
    const HalfKey half{address.device_class, address.role};
    const std::string name = address.device_class + (address.role == Role::backend ? "/back/" : "/front/") +
                             (attachment.group.empty() ? "#" + std::to_string(number) : "=" + attachment.group);
    Job& job = jobs_[number];
    job.attachment = &attachment;
    job.device = &device;
    job.group = name;
    Group& group = groups_[name];
    group.half = half;
    if (const Status staffed = staff(group); !staffed)
        return later([this, number, error = staffed.error()] { fail(number, error); });
    give(group, number);
}

// Sees to it that the group has a worker: the spare, which is sealed already, or a new one.
Status ProcessWorkers::staff(Group& group) {
    if (group.worker) return {};
    if (const auto spare = spares_.find(group.half); spare != spares_.end()) {
        group.worker = std::move(spare->second);
        spares_.erase(spare);
    } else {
        group.worker = TRY(start(group.half));
    }
    want_spare(group.half);
    return {};
}

Result<std::unique_ptr<WorkerHandle>> ProcessWorkers::start(const HalfKey& half) {
    auto slot = std::make_shared<WorkerHandle*>(nullptr);
    auto worker = TRY(WorkerHandle::start(loop_, options_, half.device_class, half.role, log_,
                                          {.armed = [this, slot] { armed(*slot); },
                                           .received = [this, slot](Mail mail) { received(*slot, std::move(mail)); },
                                           .died = [this, slot](bool crashed) { died(*slot, crashed); }}));
    *slot = worker.get();
    return worker;
}

void ProcessWorkers::give(Group& group, std::uint32_t number) {
    Job& job = jobs_[number];
    if (job.stage == Job::Stage::leaving) return;
    group.worker->devices.insert(number);
    job.stage = Job::Stage::waiting;
    if (!group.worker->armed()) return;
    job.stage = Job::Stage::sent;
    if (const Status sent = send_attach(group.worker->mailbox(), number, *job.attachment, job.handed); !sent)
        return later([this, number, error = sent.error()] { fail(number, error); });
    job.handed = true;
    job.patience = loop_.after(attach_patience, [this, name = job.group] {
        if (const auto found = groups_.find(name); found != groups_.end() && found->second.worker)
            found->second.worker->kill("did not take a device in time");
    });
}

void ProcessWorkers::armed(WorkerHandle* worker) {
    Group* group = group_of(worker);
    if (!group) {
        for (const auto& [half, spare] : spares_)
            if (spare.get() == worker) spare_failures_.erase(half);
        return;
    }
    for (const std::uint32_t number : worker->devices) give(*group, number);
}

void ProcessWorkers::update(std::uint32_t number, std::span<const std::byte> message) {
    const auto found = jobs_.find(number);
    if (found == jobs_.end()) return;
    Group& group = groups_[found->second.group];
    if (group.worker && group.worker->armed()) group.worker->mailbox().send(MailKind::update, number, message);
}

// One that was not sent the device yet will be sent the new connection.
void ProcessWorkers::renew(std::uint32_t number) {
    const auto found = jobs_.find(number);
    if (found == jobs_.end()) return;
    Group& group = groups_[found->second.group];
    if (!group.worker || (found->second.stage != Job::Stage::sent && found->second.stage != Job::Stage::serving))
        return;
    group.renewed = true;
    group.worker->kill("has lost its connection to the hypervisor");
}

void ProcessWorkers::detach(std::uint32_t number) {
    Job& job = jobs_[number];
    Group& group = groups_[job.group];
    const bool handed = group.worker && (job.stage == Job::Stage::sent || job.stage == Job::Stage::serving);
    job.stage = Job::Stage::leaving;
    if (!handed) return later([this, number] { finish(number); });
    group.worker->mailbox().send(MailKind::detach, number);
    job.patience = loop_.after(detach_patience, [this, name = job.group] {
        if (const auto found = groups_.find(name); found != groups_.end() && found->second.worker)
            found->second.worker->kill("did not let a device go in time");
    });
}

// The device is gone from its worker, or the worker is gone.
void ProcessWorkers::finish(std::uint32_t number) {
    const auto found = jobs_.find(number);
    if (found == jobs_.end()) return;
    Attended* device = found->second.device;
    const std::string name = found->second.group;
    jobs_.erase(found);
    if (const auto group = groups_.find(name); group != groups_.end()) {
        if (group->second.worker) group->second.worker->devices.erase(number);
        const bool used = std::ranges::any_of(jobs_, [&](const auto& one) { return one.second.group == name; });
        if (!used) {
            const HalfKey half = group->second.half;
            groups_.erase(group);
            if (std::ranges::none_of(groups_, [&](const auto& one) { return one.second.half == half; }))
                spares_.erase(half);
        }
    }
    device->detached();
}

// ---- What workers say ---------------------------------------------------------------------------------------------

void ProcessWorkers::received(WorkerHandle* worker, Mail mail) {
    const auto found = jobs_.find(mail.device);
    // A worker speaks only about devices that it has.
    if (found == jobs_.end() || !worker->devices.contains(mail.device)) return;
    Job& job = found->second;
    switch (mail.kind) {
        case MailKind::attached:
            if (job.stage != Job::Stage::sent) return;
            job.stage = Job::Stage::serving;
            job.patience.reset();
            // Not when it was handed over: a spare that died with its predecessor has never served anybody.
            if (std::exchange(job.served, true)) job.device->restarted();
            return job.device->attached();
        case MailKind::failed:
            if (job.stage == Job::Stage::sent) fail(mail.device, error_of(mail.bytes));
            return;
        case MailKind::broken:
            if (job.stage == Job::Stage::sent || job.stage == Job::Stage::serving)
                job.device->broken(error_of(mail.bytes));
            return;
        case MailKind::publish: return publish(job, mail.bytes);
        case MailKind::detached:
            if (job.stage == Job::Stage::leaving) finish(mail.device);
            return;
        default: return;
    }
}

void ProcessWorkers::publish(Job& job, std::span<const std::byte> bytes) {
    const auto now = Loop::Clock::now();
    if (now - job.publish_window > crash_window) job.publish_window = now, job.published = 0;
    if (++job.published > publish_per_window) return;  // a worker that was taken over shall not drive xenstored
    const std::string_view both(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto end = both.find('\0');
    if (end == std::string_view::npos) return;
    job.device->publish(both.substr(0, end), both.substr(end + 1));
}

void ProcessWorkers::fail(std::uint32_t number, const Error& error) {
    const auto found = jobs_.find(number);
    if (found == jobs_.end() || found->second.stage == Job::Stage::leaving) return;
    found->second.patience.reset();
    const bool before = !found->second.served;  // whatever its last worker came to
    before ? found->second.device->failed(error) : found->second.device->broken(error);
}

// ---- Death --------------------------------------------------------------------------------------------------------

Group* ProcessWorkers::group_of(const WorkerHandle* worker) {
    for (auto& [name, group] : groups_)
        if (group.worker.get() == worker) return &group;
    return nullptr;
}

void ProcessWorkers::died(WorkerHandle* worker, bool crashed) {
    Group* group = group_of(worker);
    if (!group) {
        const auto spare = std::ranges::find_if(spares_, [&](const auto& one) { return one.second.get() == worker; });
        if (spare == spares_.end()) return;
        const HalfKey half = spare->first;
        const std::unique_ptr<WorkerHandle> gone = std::move(spare->second);
        spares_.erase(spare);
        if (++spare_failures_[half] < most_early_deaths) want_spare(half);
        return;
    }
    const std::unique_ptr<WorkerHandle> gone = std::move(group->worker);
    // A kill from outside says nothing about the worker, unless it never came to serve.
    const bool early = std::exchange(group->renewed, false) || crashed ||
                       std::ranges::any_of(gone->devices, [&](std::uint32_t number) {
                           const Job::Stage stage = jobs_[number].stage;
                           return stage == Job::Stage::waiting || stage == Job::Stage::sent;
                       });
    replace(*group, gone->devices, early);
}

void ProcessWorkers::replace(Group& group, const std::set<std::uint32_t>& devices, bool early) {
    std::vector<std::uint32_t> stay, leave;
    for (const std::uint32_t number : devices)
        (jobs_[number].stage == Job::Stage::leaving ? leave : stay).push_back(number);

    const bool too_often = too_many(group.deaths, most_deaths);  // both count, whatever the other says
    const bool too_early = early && too_many(group.early_deaths, most_early_deaths);
    Status staffed;
    if (!stay.empty()) {
        if (too_early || too_often)
            staffed = host_fault(0, "the worker dies again and again: the device is closed");
        else
            staffed = staff(group);
    }
    for (const std::uint32_t number : stay) {
        if (staffed)
            give(group, number);
        else
            fail(number, staffed.error());
    }
    for (const std::uint32_t number : leave) finish(number);  // may destroy the group
}

void ProcessWorkers::want_spare(const HalfKey& half) {
    if (!options_.spares || spares_.contains(half)) return;
    const std::uint64_t id = next_pending_++;
    pending_[id] = loop_.after(spare_delay, [this, id, half] {
        const Loop::Handle mine = std::move(pending_[id]);
        pending_.erase(id);
        const bool used = std::ranges::any_of(groups_, [&](const auto& one) { return one.second.half == half; });
        if (!used || spares_.contains(half)) return;
        // Without a spare a dead worker is replaced more slowly, and that is all.
        if (auto spare = start(half)) spares_[half] = std::move(*spare);
    });
}

}  // namespace

std::unique_ptr<Workers> make_process_workers(Loop& loop, WorkerOptions options) {
    return std::make_unique<ProcessWorkers>(loop, std::move(options));
}

}  // namespace caisson
