#include "domains/controller/controller.h"

#include <algorithm>

#include "domains/controller/device.h"

namespace caisson {

using namespace std::chrono_literals;

namespace {

constexpr char own_token[] = "own", peer_token[] = "peer:", release_token[] = "release";
constexpr unsigned events_per_turn = 4096;

std::optional<DomainId> domain_of(std::string_view text) {
    const auto raw = parse_decimal<std::uint16_t>(text);
    if (!raw || *raw >= first_reserved_domid) return std::nullopt;
    return DomainId(*raw);
}

// The device that a path in our own domain lies in: "backend/vif/3/0/state" gives "backend/vif/3/0".
std::string device_part(std::string_view path) {
    const bool console = path == "console" || path.starts_with("console/");
    const int components = path.starts_with("backend/") ? 4 : console ? 1 : 3;
    std::size_t end = 0;
    for (int i = 0; i < components; ++i) {
        end = path.find('/', i == 0 ? 0 : end + 1);
        if (end == std::string_view::npos) return i == components - 1 ? std::string(path) : std::string();
    }
    return std::string(path.substr(0, end));
}

}  // namespace

Controller::Controller(Loop& loop, Hypervisor& hypervisor, Store& store, Workers& workers,
                       const ControllerOptions& options)
    : loop_(loop), hypervisor_(hypervisor), store_(store), workers_(workers), options_(options) {}

Controller::~Controller() = default;

Status Controller::start() {
    if (options_.backends) TRY(store_.watch("backend", own_token));
    if (options_.frontends) {
        TRY(store_.watch("device", own_token));
        TRY(store_.watch("console", own_token));
    }
    // Only privileged domains may watch this; without it a dead peer is noticed when its directory goes.
    static_cast<void>(store_.watch("@releaseDomain", release_token));
    events_ = loop_.watch(store_.fd(), POLLIN, [this](short) { look(); });
    first_ = loop_.after({}, [this] { look(); });
    every_second_ = loop_.every(1s, [this] {
        if (hypervisor_.quarantined_pages() > 0) hypervisor_.retry_quarantine();
        look();  // only so do we learn that xenstored is gone
    });
    if (hypervisor_.connection() < 0) return {};
    hypervisor_connection_.reset(::fcntl(hypervisor_.connection(), F_DUPFD_CLOEXEC, 0));
    if (!hypervisor_connection_) return host_fault(errno, "watch the hypervisor");
    hypervisor_lost_ = loop_.watch(hypervisor_connection_.get(), 0, [this](short) {
        hypervisor_lost_.reset();
        lose("the hypervisor", options_.hypervisor_socket);
    });
    return {};
}

void Controller::lose(const char* whom, const std::string& socket) {
    if (lost_) return;
    lost_ = Error{.fault = Fault::host, .err = ENOTCONN, .what = "lost the connection to", .detail = whom};
    if (!socket.empty()) lost_->detail += " at " + socket;
    loop_.stop();
}

void Controller::stop() {
    events_.reset();
    first_.reset();
    for (const auto& [path, device] : devices_) device->endpoint().stop();
}

bool Controller::idle() const {
    return retiring_.empty() &&
           std::ranges::all_of(devices_, [](const auto& one) { return one.second->endpoint().finished(); });
}

std::map<std::string, XenbusState> Controller::devices() const {
    std::map<std::string, XenbusState> states;
    for (const auto& [path, device] : devices_) states[path] = device->endpoint().shown();
    return states;
}

// ---- Events become one bit a device -------------------------------------------------------------------------------

void Controller::look() {
    for (unsigned i = 0; i < events_per_turn; ++i) {
        const auto event = store_.take_event();
        if (!event) break;
        note(*event);
    }
    if (store_.lost()) return lose("xenstored", options_.xenstored_socket);
    if (std::exchange(scan_wanted_, false)) scan();
    for (const std::string& path : std::exchange(changed_, {})) visit(path);
    retire_finished();
}

void Controller::note(const WatchEvent& event) {
    if (event.token.starts_with(peer_token)) {
        // The token is ours and names the device; the path is the peer's and is not looked at.
        std::string path = event.token.substr(sizeof peer_token - 1);
        if (devices_.contains(path)) changed_.insert(std::move(path));
    } else if (event.token == own_token) {
        std::string path = device_part(event.path);
        if (devices_.contains(path))
            changed_.insert(std::move(path));
        else
            scan_wanted_ = true;
    } else {
        for (const auto& [path, device] : devices_) changed_.insert(path);
    }
}

// ---- Which devices are there? -------------------------------------------------------------------------------------

void Controller::scan() {
    for (const auto& [path, device] : devices_) changed_.insert(path);  // some may be gone
    if (options_.backends) scan_backends();
    if (options_.frontends) scan_frontends();
    moving_.clear();  // whoever does not come back at once is gone
}

void Controller::scan_backends() {
    for (const ClassEntry& entry : options_.catalogue) {
        const std::string name(entry.name);
        const auto frontends = store_.list("backend/" + name);
        if (!frontends) return log_.peer(frontends.error());
        for (const std::string& frontend : *frontends) {
            const auto domain = domain_of(frontend);
            const auto ids = store_.list("backend/" + name + "/" + frontend);
            if (!domain || !ids) continue;
            for (const std::string& text : *ids)
                if (const auto id = parse_decimal<std::uint32_t>(text); id && std::to_string(*id) == text)
                    consider({.device_class = name,
                              .role = Role::backend,
                              .frontend = *domain,
                              .backend = hypervisor_.self(),
                              .id = DeviceId(*id)});
        }
    }
}

void Controller::scan_frontends() {
    const auto one = [this](const std::string& name, std::uint32_t id) {
        DeviceAddress address{.device_class = name,
                              .role = Role::frontend,
                              .frontend = hypervisor_.self(),
                              .backend = {},
                              .id = DeviceId(id)};
        const auto text = store_.read(own_directory(address) + "/backend-id").value_or(std::nullopt);
        const auto backend = text ? domain_of(*text) : std::nullopt;
        if (!backend) return;
        // What has no state is not ours to negotiate, as console 0 that Xen's domain builder makes: the kernel has it
        // before any program runs.
        if (!store_.read(own_directory(address) + "/state").value_or(std::nullopt)) return;
        // A program of this domain brings its own data path.
        if (const auto claimed = store_.read(own_directory(address) + "/" + claimed_key); !claimed || *claimed) return;
        address.backend = *backend;
        consider(std::move(address));
    };
    for (const ClassEntry& entry : options_.catalogue) {
        const std::string name(entry.name);
        if (name == "console") one(name, 0);
        const auto ids = store_.list("device/" + name);
        if (!ids) return log_.peer(ids.error());
        for (const std::string& text : *ids)
            if (const auto id = parse_decimal<std::uint32_t>(text); id && std::to_string(*id) == text) one(name, *id);
    }
}

void Controller::consider(DeviceAddress address) {
    const std::string path = own_directory(address);
    const ClassHalf* half = find(options_.catalogue, address.device_class, address.role);
    if (!half || devices_.contains(path)) return;
    // A directory whose predecessor is still being released waits for that.
    const auto same = [&](const auto& one) { return own_directory(one->endpoint().address()) == path; };
    if (std::ranges::any_of(retiring_, same)) return;
    const auto moved = moving_.find(path);
    auto control = moved != moving_.end() ? std::move(moved->second) : half->control();
    auto device =
        std::make_unique<ControlledDevice>(*this, std::move(address), *half, std::move(control), next_number_++);
    if (const Status watched = store_.watch(device->watched(), peer_token + path); !watched)
        return log_.peer(watched.error());
    devices_[path] = std::move(device);
    changed_.insert(path);
}

void Controller::visit(const std::string& path) {
    const auto found = devices_.find(path);
    if (found == devices_.end()) return;
    Endpoint& endpoint = found->second->endpoint();
    const bool backend = endpoint.address().role == Role::backend;
    // The toolstack's node: who the peer is. Another peer is another device; but to the programs of a domain, a disk or
    // an interface that gets another backend is the one that it was: what they have of it stays.
    const auto peer = store_.read(path + (backend ? "/frontend-id" : "/backend-id"));
    if (!peer) return log_.peer(peer.error());
    if (*peer && domain_of(**peer) == endpoint.address().peer()) return endpoint.look();
    retire(path, peer->has_value() && !backend);
    scan_wanted_ |= peer->has_value();
}

void Controller::retire(const std::string& path, bool moves) {
    const auto found = devices_.find(path);
    found->second->moves = moves;
    static_cast<void>(store_.unwatch(found->second->watched(), peer_token + path));
    retiring_.push_back(std::move(found->second));
    devices_.erase(found);
    retiring_.back()->endpoint().remove();
}

// As if its directory were seen for the first time: its rings and channels are given up without a word to the peer,
// which learns it from the state that the new device shows.
void Controller::start_over(const std::string& path) {
    if (devices_.contains(path)) retire(path, true);
}

void Controller::retire_finished() {
    const auto gone = std::erase_if(retiring_, [this](const auto& one) {
        if (!one->endpoint().finished()) return false;
        if (one->moves) moving_[own_directory(one->endpoint().address())] = one->endpoint().take_control();
        return true;
    });
    if (gone == 0) return;
    // Its directory may have come back meanwhile.
    scan_wanted_ = true;
    first_ = loop_.after({}, [this] { look(); });
}

}  // namespace caisson
