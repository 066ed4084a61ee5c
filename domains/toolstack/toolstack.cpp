#include "domains/toolstack/toolstack.h"

#include <fmt/format.h>
#include <net/if.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "domains/domain/process.h"
#include "domains/toolstack/neighbours.h"
#include "ring/loop.h"

namespace caisson::toolstack {
namespace {

constexpr std::string_view no_console = "none";
constexpr auto look_again = std::chrono::milliseconds(10);
constexpr auto burial_patience = closing_patience + std::chrono::milliseconds(3000);

std::unexpected<Error> no_hypervisor(const State& state, const Error& why) {
    if (why.err != ECONNREFUSED && why.err != ENOENT) return std::unexpected(why);
    return std::unexpected(Error{.fault = Fault::unsupported,
                                 .err = ECONNREFUSED,
                                 .what = "no local hypervisor runs in",
                                 .detail = state.folder + ": start one with 'caisson hypervisor --daemon'"});
}

// A domain whose programs cannot open it has no network, whatever else is right.
Status tun_usable() {
    struct stat status{};
    constexpr const char* tun = "/dev/net/tun";
    if (::stat(tun, &status) != 0)
        return std::unexpected(Error{.fault = Fault::unsupported,
                                     .err = ENODEV,
                                     .what = "/dev/net/tun is missing:",
                                     .detail = "load it with 'modprobe tun' (in a container: --device /dev/net/tun)"});
    if ((status.st_mode & 0006) == 0006 || (::geteuid() != 0 && ::access(tun, R_OK | W_OK) == 0)) return {};
    return std::unexpected(Error{.fault = Fault::unsupported,
                                 .err = EACCES,
                                 .what = "/dev/net/tun is closed to domains:",
                                 .detail = "open it with 'chmod 0666 /dev/net/tun', which is udev's default"});
}

Status uplink_usable(const Uplink& uplink) {
    if (uplink.kind != Uplink::Kind::netdev) return {};
    const auto lacks = [&](int err, const std::string& what) {
        return std::unexpected(
            Error{.fault = Fault::unsupported, .err = err, .what = "", .detail = uplink.where + ": " + what});
    };
    if (::geteuid() != 0) return lacks(EPERM, "only root can move an interface of the machine into a domain");
    if (::if_nametoindex(uplink.device.c_str()) == 0)
        return lacks(0, "this machine has no interface " + uplink.device + " (any more): see 'ip link'");
    return {};
}

// Every controller and worker runs on one.
Status uring_usable() {
    if (Loop::make()) return {};
    return std::unexpected(Error{.fault = Fault::unsupported,
                                 .err = ENOSYS,
                                 .what = "io_uring is not to be had:",
                                 .detail = "allow it with 'sysctl kernel.io_uring_disabled=0' (in a container: in its "
                                           "seccomp profile)"});
}

}  // namespace

std::string ListedDomain::name() const {
    if (record) return record->name;
    return usage.id == control_domain ? "Domain-0" : "(unknown)";
}

domain::Plan plan_of(const DomainConfig& config, DomainId id) {
    domain::Plan plan{.name = config.name,
                      .domid = id.raw,
                      .memory_mib = config.memory_mib,
                      .driver_domain = config.driver_domain,
                      .frontends = true,
                      .console = config.console_backend != no_console,
                      .forward = config.forward,
                      .nftables = config.nftables,
                      .run = config.run,
                      .interfaces = {}};
    for (const auto& [device, addresses, gateway] : config.interfaces)
        plan.interfaces.push_back({device, addresses, gateway});
    const Uplink& uplink = config.uplink;
    if (uplink.kind == Uplink::Kind::netdev)
        plan.interfaces.push_back({uplink.device, {uplink.address}, uplink.gateway});
    if (uplink.kind == Uplink::Kind::sandbox) {
        plan.uplink_address = uplink.address;
        plan.uplink_peer = uplink.peer;
        plan.uplink_gateway = uplink.gateway;
        plan.uplink_run = config.uplink_run;
    }
    return plan;
}

Result<Toolstack> Toolstack::open(const State& state) {
    auto control = local::Control::open(state.hypervisor_socket());
    if (!control) return no_hypervisor(state, control.error());
    auto store = Store::open(state.xenstored_socket());
    if (!store) return no_hypervisor(state, store.error());
    return Toolstack(state, std::move(*control), std::move(*store));
}

Result<DomainId> Toolstack::backend(const std::string& name, const std::string& where) {
    auto found = find(name);
    if (!found && found.error().err == ESRCH) {
        std::string running;
        const auto all = TRY(list());
        for (const auto& domain : all)
            if (domain.usage.id == control_domain || (domain.record && domain.record->driver_domain))
                running += (running.empty() ? "" : ", ") + domain.name();
        return unsupported("", fmt::format("{}: the backend domain '{}' does not run (those that do: {}): create it "
                                           "first",
                                           where, name, running));
    }
    if (!found) return std::unexpected(found.error());
    if (found->record && !found->record->driver_domain)
        return unsupported(
            "", fmt::format("{}: '{}' is no driver domain (its cfg file needs driver_domain=1)", where, name));
    return found->usage.id;
}

Result<DomainId> Toolstack::console_backend(const std::string& name, const std::string& where) {
    const DomainId id = TRY(backend(name, where));
    if (id == control_domain && !consoles_served(state_))
        return unsupported("", where +
                                   ": Domain-0 serves no consoles, for the hypervisor was started with "
                                   "--no-console: name a driver domain, or say 'none'");
    return id;
}

// Domain-0 runs no storage: that it is out of the data path is the point.
Result<DomainId> Toolstack::disk_backend(const Disk& disk) {
    if (disk.backend == "0" || disk.backend == "Domain-0")
        return unsupported("", disk.where + ": Domain-0 serves no disks: name a driver domain with backend=");
    return backend(disk.backend, disk.where);
}

Status Toolstack::refuse_twins(const DomainConfig& config, DomainId id) {
    std::vector<Neighbour> others;
    const auto all = TRY(list());
    for (const auto& domain : all) {
        if (domain.usage.id == id) continue;
        const auto vifs = TRY(neighbours_of(store_, domain.usage.id, domain.name()));
        others.insert(others.end(), vifs.begin(), vifs.end());
    }
    for (const auto& vif : config.vifs) {
        const DomainId backend_id = TRY(backend(vif.backend, vif.where));
        const Neighbour mine{
            .name = vif.where, .backend = std::to_string(backend_id.raw), .mac = vif.mac, .ip = vif.ip};
        for (const auto& other : others)
            if (const auto common = in_common(mine, other); !common.empty())
                return unsupported("", fmt::format("{}: it and {} {}, on one backend", mine.name, other.name, common));
    }
    return {};
}

// One transaction a device, as libxl does it: a controller that watches sees it whole or not at all.
Status Toolstack::write_devices(const DomainConfig& config, DomainId id) {
    DomainId console = control_domain;
    if (config.console_backend != no_console) {
        console = TRY(console_backend(config.console_backend, config.console_where));
        TRY(write_tree(store_,
                       console_tree(nullptr, id, console, config.console_log ? &*config.console_log : nullptr)));
    }
    TRY(refuse_twins(config, id));
    for (const auto& vif : config.vifs) {
        const DomainId other = TRY(backend(vif.backend, vif.where));
        TRY(write_tree(store_, vif_tree(vif, id, other)));
    }
    for (const auto& disk : config.disks) {
        const DomainId other = TRY(disk_backend(disk));
        TRY(write_tree(store_, vbd_tree(disk, id, other)));
    }
    for (const auto& channel : config.channels) {
        const bool own = channel.backend != "0" || console == control_domain;
        const DomainId other = own ? TRY(console_backend(channel.backend, channel.where)) : console;
        TRY(write_tree(store_, console_tree(&channel, id, other)));
    }
    return {};
}

Status Toolstack::claim_name(const std::string& name) {
    const auto taken = find(name);
    if (taken) return unsupported("", fmt::format("a domain named {} runs already, as {}", name, taken->usage.id.raw));
    if (taken.error().err != ESRCH) return std::unexpected(taken.error());
    return {};
}

Status Toolstack::give_uplink(const DomainConfig& config, pid_t init) {
    if (config.uplink.kind != Uplink::Kind::netdev) return {};
    return domain::run({"ip", "link", "set", "dev", config.uplink.device, "netns", std::to_string(init)});
}

Result<Toolstack::Prepared> Toolstack::prepare(const DomainConfig& config, int output) {
    const Fd lock = TRY(lock_creation(state_));
    TRY(claim_name(config.name));
    if (!config.vifs.empty() || config.driver_domain) TRY(tun_usable());
    TRY(uring_usable());
    TRY(uplink_usable(config.uplink));
    domain::Newborn born = TRY(domain::bear({.name = config.name,
                                             .memory_mib = config.memory_mib,
                                             .hidden = {state_.folder},
                                             .binds = config.binds,
                                             .output = output}));
    const auto created = TRY(
        control_.create_domain(born.hypervisor_listener().get(), born.xenstored_listener().get(), born.pidfd().get()));
    DomainRecord record{.domid = created.id.raw,
                        .generation = created.generation,
                        .name = config.name,
                        .uuid = config.uuid,
                        .type = config.type,
                        .memory_mib = config.memory_mib,
                        .vcpus = config.vcpus,
                        .driver_domain = config.driver_domain,
                        .init = process(born.pid()).value_or(ProcessId{}),
                        .keeper = process(::getpid()).value_or(ProcessId{})};
    Status done = write_tree(store_, domain_tree(config, created.id));
    if (done) done = write_devices(config, created.id);
    if (done) done = give_uplink(config, born.pid());
    if (done) done = write_record(state_, record);
    if (done) done = store_.introduce(created.id);
    if (!done) {
        (void)control_.destroy_domain(created.id, created.generation);
        (void)bury(record);
        return std::unexpected(done.error());
    }
    return Prepared{.process = std::move(born), .record = std::move(record), .plan = plan_of(config, created.id)};
}

Result<std::vector<ListedDomain>> Toolstack::list() {
    const auto records = read_records(state_);
    const auto living = TRY(control_.list_domains());
    std::vector<ListedDomain> found;
    for (const auto& usage : living) {
        const auto record = std::find_if(records.begin(), records.end(), [&](const DomainRecord& r) {
            return r.domid == usage.id.raw && r.generation == usage.generation;
        });
        found.push_back({.usage = usage, .record = record == records.end() ? std::nullopt : std::optional(*record)});
    }
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.usage.id < b.usage.id; });
    return found;
}

Result<ListedDomain> Toolstack::find(std::string_view name_or_id) {
    const auto number = parse_decimal<std::uint16_t>(name_or_id);
    auto all = TRY(list());
    for (auto& domain : all)
        if (number ? domain.usage.id.raw == *number : domain.name() == name_or_id) return std::move(domain);
    return std::unexpected(
        Error{.fault = Fault::unsupported, .err = ESRCH, .what = "no such domain:", .detail = std::string(name_or_id)});
}

Status Toolstack::destroy(const ListedDomain& domain) {
    if (domain.usage.id == control_domain)
        return unsupported("", "Domain-0 is this machine: stop the hypervisor instead");
    if (domain.record) mark_destroyed(state_, domain.record->domid);
    TRY(control_.destroy_domain(domain.usage.id, domain.usage.generation));
    const auto end = std::chrono::steady_clock::now() + burial_patience;
    const bool kept = domain.record && alive(domain.record->keeper);
    const auto gone = [&]() -> Result<bool> {
        if (kept && alive(domain.record->keeper)) return false;
        const auto living = TRY(control_.list_domains());
        return std::none_of(living.begin(), living.end(), [&](const auto& other) {
            return other.id == domain.usage.id && other.generation == domain.usage.generation;
        });
    };
    while (std::chrono::steady_clock::now() < end) {
        const bool done = TRY(gone());
        if (done) return kept || !domain.record ? Status{} : bury(*domain.record);
        std::this_thread::sleep_for(look_again);
    }
    return host_fault(ETIMEDOUT, "destroy", domain.name());
}

Status Toolstack::bury(const DomainRecord& record) {
    auto done = remove_domain(store_, DomainId{record.domid}, record.uuid, closing_patience);
    remove_record(state_, record.domid);
    return done;
}

}  // namespace caisson::toolstack
