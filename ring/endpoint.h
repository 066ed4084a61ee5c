// One device's side of the XenbusState handshake: reads the peer's state, asks the table, drives a DeviceControl.
//
// The peer's directory is computed from domain ids that the toolstack wrote, never from a path that a peer could write
// (XSA-57, 175, 178). Nothing here waits: every answer of a worker or of the peer is an event that comes later.
//
// Threads: one, the controller's.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ring/device.h"
#include "ring/xenbus_table.h"

namespace caisson {

// Where libxl puts a device. Own directories are relative to the own domain, peers' are absolute. Console 0 is special:
// its frontend is the domain's `console` directory (docs/misc/xenstore-paths.pandoc).
std::string own_directory(const DeviceAddress& address);
std::string peer_directory(const DeviceAddress& address);

// In a frontend's own directory: the device is left to a program of the domain, which has both halves in its own
// process (frontends/block/disk.h). No controller touches it. Of the toolstack, or of that program.
inline constexpr const char* claimed_key = "claimed";

// In a frontend's own directory, of the frontend: "1", it goes where backend-id points and takes with it what is
// unanswered. The toolstack then gives it another backend without taking the device from the guest.
inline constexpr const char* follows_key = "caisson-follows";

// How often a device may begin anew: so many times at once, and once more after each interval, or after ten times as
// long as our own part of the last one took. A peer that comes and goes costs its controller, the store and the
// hypervisor more than itself. A backend's beginning is its offer, a frontend's that it connects.
struct ConnectPace {
    unsigned at_once = 10;
    std::chrono::milliseconds interval{250};  // 0: as often as it likes
};

// What an endpoint asks of whoever runs it. Calls come from within the endpoint's own functions: answers are given
// later, never from inside the call.
class EndpointHost {
  public:
    virtual ~EndpointHost() = default;
    virtual void attach(Handover handover) = 0;  // answered by attached() or failed()
    virtual void detach() = 0;                   // answered by detached(), whatever became of the worker
    virtual void update(std::vector<std::byte> message) = 0;
    // Call expired() after this long. A new wish replaces the last one; none: forget it.
    virtual void timer(std::optional<std::chrono::milliseconds> delay) = 0;
};

class Endpoint {
  public:
    static constexpr std::chrono::milliseconds close_patience{5000};  // for a peer to answer our Closing
    static constexpr std::chrono::milliseconds remove_delay{1000};    // for a toolstack to see our last Closed

    Endpoint(DeviceAddress address, std::unique_ptr<DeviceControl> control, Hypervisor& hypervisor, Store& store,
             EndpointHost& host, Log& log, ConnectPace pace = {});
    // Whoever runs the endpoint has made sure that no worker serves the device any more.
    ~Endpoint();
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;

    // Something in our directory or in the peer's may have changed. Costs a few reads when nothing did.
    void look();

    // The worker's answers and complaints.
    void attached();
    // ESTALE, of a backend: the frontend's rings cannot be continued. It is sent away and invited again.
    void failed(const Error& error);
    void broken(const Error& error);
    void detached();
    void publish(std::string_view key, std::string_view value);

    void expired();  // the timer
    void remove();   // our directory is gone: release everything, write nothing
    void stop();     // orderly end of the controller: release everything, say Closed

    bool finished() const { return (removed_ || stopped_) && !connected_; }
    // For another endpoint of the same directory. Only when finished(); nothing but the destructor may follow.
    std::unique_ptr<DeviceControl> take_control() { return std::move(control_); }
    XenbusState state() const { return mine_; }
    XenbusState shown() const { return shown_; }
    const DeviceAddress& address() const { return address_; }
    std::string worker_group() const { return control_->worker_group(); }

  private:
    struct Observed {
        XenbusState peer = XenbusState::unknown;
        bool leave = false;  // the toolstack wants the device gone
    };
    Result<Observed> observe();
    bool made_anew(const Observed& seen) const;
    bool take(const Step& step);
    void begin_disconnect(const Step& then);
    void finish_disconnect();
    bool offer();
    bool must_wait(Role beginner);
    void pay_for(std::chrono::steady_clock::time_point begun);
    void connect();
    void close(const Error& error);
    void leave();
    void look_at_keys();
    void show(XenbusState state);
    Status write_own(std::string_view key, std::string_view value);
    void report(const Error& error);
    ControlContext context();
    std::vector<std::optional<std::string>> watched_values();

    const DeviceAddress address_;
    std::unique_ptr<DeviceControl> control_;
    Hypervisor& hypervisor_;
    Store& store_;
    EndpointHost& host_;
    Log& log_;
    const std::string own_, peer_;
    const ConnectPace pace_;
    double begun_ = 0;  // beginnings, less one for each interval since
    std::chrono::steady_clock::time_point begun_at_{};
    std::chrono::steady_clock::duration cost_{};  // of the last one: our own part of it

    XenbusState mine_ = XenbusState::unknown, shown_ = XenbusState::unknown;
    bool connected_ = false;  // connect() succeeded and disconnect() has not been called
    bool invite_ = false;     // when the peer has closed: see failed()
    bool attaching_ = false, detaching_ = false, announced_ = false;
    bool offline_ = false, removed_ = false, stopped_ = false;
    XenbusState last_peer_ = XenbusState::unknown;
    std::optional<XenbusState> failed_at_;  // what the peer showed when we gave up: it has to move first
    Step after_detach_;
    std::vector<std::optional<std::string>> seen_;  // the watched keys' values, own ones first
};

}  // namespace caisson
