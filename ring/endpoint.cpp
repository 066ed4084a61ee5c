#include "ring/endpoint.h"

#include <algorithm>

namespace caisson {
namespace {

std::string device_path(const DeviceAddress& address, Role role) {
    if (role == Role::backend)
        return "backend/" + address.device_class + "/" + std::to_string(address.frontend.raw) + "/" +
               std::to_string(address.id.raw);
    if (address.device_class == "console" && address.id == DeviceId(0)) return "console";
    return "device/" + address.device_class + "/" + std::to_string(address.id.raw);
}

bool publishable(std::string_view key, std::string_view value) {
    const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
    const auto printable = [](char c) { return c >= 0x20 && c <= 0x7e; };
    return !key.empty() && key.size() <= 64 && value.size() <= 256 && std::ranges::all_of(key, plain) &&
           std::ranges::all_of(value, printable);
}

}  // namespace

std::string own_directory(const DeviceAddress& address) { return device_path(address, address.role); }

std::string peer_directory(const DeviceAddress& address) {
    const Role role = address.role == Role::backend ? Role::frontend : Role::backend;
    return "/local/domain/" + std::to_string(address.peer().raw) + "/" + device_path(address, role);
}

Endpoint::Endpoint(DeviceAddress address, std::unique_ptr<DeviceControl> control, Hypervisor& hypervisor, Store& store,
                   EndpointHost& host, Log& log, ConnectPace pace)
    : address_(std::move(address)),
      control_(std::move(control)),
      hypervisor_(hypervisor),
      store_(store),
      host_(host),
      log_(log),
      own_(own_directory(address_)),
      peer_(peer_directory(address_)),
      pace_(pace) {}

Endpoint::~Endpoint() {
    if (!connected_) return;
    auto lent = context();
    control_->disconnect(lent);
}

ControlContext Endpoint::context() {
    return {.hypervisor = hypervisor_,
            .own = Directory(store_, own_),
            .peer = Directory(store_, peer_),
            .address = address_,
            .log = log_};
}

// ---- Looking ------------------------------------------------------------------------------------------------------

Result<Endpoint::Observed> Endpoint::observe() {
    const Directory own(store_, own_), peer(store_, peer_);
    Observed seen;
    // A state node that we may not read, or that holds nonsense, is a peer without a state: no reason to fail.
    if (const auto text = peer.text("state"); text && *text) seen.peer = parse_xenbus_state(**text);
    const auto state = TRY(own.text("state"));
    if (state) shown_ = parse_xenbus_state(*state);
    if (address_.role == Role::backend) {
        const auto online = TRY(own.text("online"));
        offline_ = online && *online == "0";
        // libxl detaches by writing online=0 and our state to Closing.
        seen.leave = offline_ || (shown_ == XenbusState::closing && mine_ == XenbusState::connected);
    }
    return seen;
}

// The toolstack has removed our directory and made it again while we were not looking: we go to where the table offers.
bool Endpoint::made_anew(const Observed& seen) const {
    const bool at_rest = mine_ == XenbusState::unknown || mine_ == XenbusState::initialising ||
                         mine_ == XenbusState::closing || mine_ == XenbusState::closed;
    return address_.role == Role::backend && shown_ == XenbusState::initialising && !at_rest && !seen.leave;
}

void Endpoint::look() {
    // Each step brings us nearer to rest; a peer that changes its state as fast as we look gets a bounded turn.
    for (int steps = 0; steps < 4; ++steps) {
        if (removed_ || stopped_ || detaching_) return;
        const auto seen = observe();
        if (!seen) return log_.peer(seen.error());
        last_peer_ = seen->peer;
        if (failed_at_ && *failed_at_ == seen->peer && !seen->leave) return;
        failed_at_.reset();
        if (seen->leave) leave();
        if (made_anew(*seen)) {
            begin_disconnect({Do::disconnect, XenbusState::closed, XenbusState::initialising});
            continue;
        }
        const Step step = address_.role == Role::backend
                              ? backend_step(mine_, seen->peer, {.shown = shown_, .invites = invite_})
                              : frontend_step(mine_, seen->peer);
        if (!take(step)) {
            if (mine_ == XenbusState::connected && seen->peer == XenbusState::connected && !announced_) {
                announced_ = true;
                auto lent = context();
                control_->connected(lent);
            }
            break;
        }
    }
    look_at_keys();
}

// True when something was done, so that it is worth looking again.
bool Endpoint::take(const Step& step) {
    if (step.action == Do::nothing && step.next == mine_) return false;
    if (attaching_ && step.action == Do::nothing) return false;  // the worker's answer comes first
    if (offline_ && (step.action == Do::offer || step.action == Do::restart)) {
        if (mine_ == XenbusState::closed) return false;
        begin_disconnect({Do::disconnect, XenbusState::closed, XenbusState::closed});
        return true;
    }
    switch (step.action) {
        case Do::nothing:
            mine_ = step.next;
            show(step.show);
            break;
        case Do::offer:
            if (must_wait(Role::backend)) return false;
            host_.timer(std::nullopt);
            if (!offer()) return true;
            mine_ = step.next;
            show(step.show);
            break;
        case Do::connect:
            if (must_wait(Role::frontend)) return false;
            mine_ = step.next;
            connect();
            break;
        case Do::disconnect:
        case Do::restart: begin_disconnect(step); break;
    }
    return true;
}

// ---- Connecting ---------------------------------------------------------------------------------------------------

bool Endpoint::offer() {
    invite_ = false;
    auto lent = context();
    const auto begun = std::chrono::steady_clock::now();
    Status offered = control_->offer(lent);
    if (offered && address_.role == Role::frontend) offered = write_own(follows_key, "1");
    pay_for(begun);
    if (!offered) close(offered.error());
    return offered.has_value();
}

bool Endpoint::must_wait(Role beginner) {
    if (address_.role != beginner || pace_.interval.count() == 0) return false;
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double> each =
        std::max<std::chrono::steady_clock::duration>(pace_.interval, cost_ * 10);
    begun_ = std::max(0.0, begun_ - (now - begun_at_) / each);
    begun_at_ = now;
    if (begun_ + 1 > pace_.at_once) {
        log_.peer("the peer begins again and again: it waits for its turn");
        host_.timer(std::chrono::ceil<std::chrono::milliseconds>((begun_ + 1 - pace_.at_once) * each));
        return true;
    }
    begun_ += 1;
    cost_ = {};
    return false;
}

void Endpoint::pay_for(std::chrono::steady_clock::time_point begun) {
    cost_ += std::chrono::steady_clock::now() - begun;
}

void Endpoint::connect() {
    const auto begun = std::chrono::steady_clock::now();
    seen_ = watched_values();  // before connect() reads them: a change in between is seen as a change
    auto lent = context();
    auto handover = control_->connect(lent);
    pay_for(begun);
    if (!handover) {
        control_->disconnect(lent);  // what it had bound before the error: the peer decides how often this happens
        return close(handover.error());
    }
    connected_ = attaching_ = true;
    announced_ = false;
    host_.attach(std::move(*handover));
}

void Endpoint::attached() {
    if (!std::exchange(attaching_, false) || detaching_) return;
    if (address_.role == Role::backend) mine_ = XenbusState::connected;
    const bool at_once = address_.role == Role::backend || control_->connected_at_once();
    show(at_once ? XenbusState::connected : XenbusState::initialised);
    static_cast<void>(store_.remove("error/" + own_ + "/error"));
    look();
}

// ---- Disconnecting ------------------------------------------------------------------------------------------------

void Endpoint::begin_disconnect(const Step& then) {
    after_detach_ = then;
    mine_ = then.next;
    attaching_ = false;
    if (!connected_) return finish_disconnect();
    if (std::exchange(detaching_, true)) return;
    host_.detach();
}

void Endpoint::detached() {
    if (!std::exchange(detaching_, false)) return;
    finish_disconnect();
    look();
}

void Endpoint::finish_disconnect() {
    if (std::exchange(connected_, false)) {
        auto lent = context();
        control_->disconnect(lent);
    }
    if (removed_) return;
    if (after_detach_.action == Do::restart) {
        if (must_wait(Role::backend)) return void(mine_ = XenbusState::closed);  // from where the table offers
        if (!offer()) return;
    }
    show(after_detach_.show);
    if (mine_ == XenbusState::closing && after_detach_.show != XenbusState::closed)
        host_.timer(close_patience);
    else if (offline_ && mine_ == XenbusState::closed)
        host_.timer(remove_delay);
    else
        host_.timer(std::nullopt);
}

void Endpoint::failed(const Error& error) {
    if (!attaching_) return;
    invite_ = error.err == ESTALE && address_.role == Role::backend;
    close(error);
}

void Endpoint::broken(const Error& error) {
    if (connected_ && !detaching_) close(error);
}

// Closes the device from our side: Closing now, Closed when the peer has answered or our patience ends.
void Endpoint::close(const Error& error) {
    report(error);
    failed_at_ = last_peer_;  // or we would offer the same again at once, for ever
    show(XenbusState::closing);
    begin_disconnect({Do::disconnect, XenbusState::closing, XenbusState::closing});
}

// The toolstack wants the device gone. The frontend closes first, so that it can finish what is in flight; we let go
// when it has, or when our patience ends.
void Endpoint::leave() {
    if (mine_ == XenbusState::closing || mine_ == XenbusState::closed) return;
    mine_ = XenbusState::closing;
    attaching_ = false;
    show(XenbusState::closing);
    host_.timer(close_patience);
}

void Endpoint::expired() {
    if (removed_ || stopped_ || detaching_) return;
    if (mine_ == XenbusState::closing) {
        // Not `closed` to the table: only the peer itself can begin anew with us.
        begin_disconnect({Do::disconnect, offline_ ? XenbusState::closed : XenbusState::closing, XenbusState::closed});
    } else if (offline_ && mine_ == XenbusState::closed) {
        // In a driver domain nobody else may be allowed to: libxl leaves the backend's directory to its owner.
        static_cast<void>(store_.remove(own_));
    } else {
        look();  // must_wait()
    }
}

void Endpoint::remove() {
    removed_ = true;
    host_.timer(std::nullopt);
    if (!detaching_) begin_disconnect({Do::disconnect, XenbusState::closed, XenbusState::closed});
}

void Endpoint::stop() {
    if (removed_) return;
    stopped_ = true;
    if (!detaching_) begin_disconnect({Do::disconnect, XenbusState::closed, XenbusState::closed});
    host_.timer(std::nullopt);
}

// ---- Keys and words -----------------------------------------------------------------------------------------------

std::vector<std::optional<std::string>> Endpoint::watched_values() {
    std::vector<std::optional<std::string>> values;
    const auto note = [&](const std::string& directory, const std::vector<std::string>& keys) {
        for (const std::string& key : keys) values.push_back(store_.read(directory + "/" + key).value_or(std::nullopt));
    };
    note(own_, control_->watched_own());
    note(peer_, control_->watched_peer());
    return values;
}

void Endpoint::look_at_keys() {
    if (!connected_ || attaching_ || detaching_) return;
    auto values = watched_values();
    if (values == seen_) return;
    seen_ = std::move(values);
    auto lent = context();
    auto message = control_->changed(lent);
    if (!message) return close(message.error());
    if (*message) host_.update(std::move(**message));
}

void Endpoint::publish(std::string_view key, std::string_view value) {
    if (removed_ || !connected_) return;
    if (!publishable(key, value) || !control_->worker_may_publish(key))
        return log_.peer("the worker wants to publish a key that is not its own");
    if (const Status written = write_own(key, value); !written) log_.peer(written.error());
}

void Endpoint::show(XenbusState state) {
    if (state == shown_ || removed_) return;
    if (const Status written = write_own("state", std::to_string(static_cast<int>(state))); !written)
        return log_.peer(written.error());
    shown_ = state;
}

// A write must not bring a directory back that the toolstack has just removed.
Status Endpoint::write_own(std::string_view key, std::string_view value) {
    return store_.transaction([&]() -> Status {
        const char* proof = address_.role == Role::backend ? "/frontend-id" : "/backend-id";
        if (!TRY(store_.read(own_ + proof))) return {};
        return store_.write(own_ + "/" + std::string(key), value);
    });
}

// As xenbus_dev_error() does: error/<path>/error in our own domain. A domain that may not write there does without.
void Endpoint::report(const Error& error) {
    log_.peer(error);
    if (!removed_)
        static_cast<void>(
            store_.write("error/" + own_ + "/error", std::to_string(error.err) + " " + escaped(error.message())));
}

}  // namespace caisson
