// The controller of a domain: finds the domain's devices in xenstore, drives each through its handshake, and sees to it
// that workers serve them. `devd` is a controller of backends, `frontd` of frontends; a firewall domain, guest and
// driver domain at once, runs one with both roles.
//
// It never blocks on a peer, never touches a ring, and nothing that a peer writes into xenstore does more than close
// that peer's own device.
//
// A controller that loses xenstored or the hypervisor ends with an error that names it, its workers with it.
//
// Threads: one.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "domains/worker/workers.h"
#include "protocols/xenbus.h"
#include "ring/device.h"
#include "ring/endpoint.h"

namespace caisson {

struct ControllerOptions {
    bool backends = false, frontends = false;  // the roles
    Catalogue catalogue;
    std::string hypervisor_socket;  // empty: $CAISSON_HYPERVISOR, else /run/caisson/hypervisor
    std::string xenstored_socket;   // empty: $XENSTORED_PATH, else what libxenstore finds
    std::string stats_directory;    // empty: $CAISSON_STATS, else /run/caisson/stats
    WorkerOptions worker;
    ConnectPace pace;
    // Called once the watches are set, then every second from the loop: whoever started us sees that we are well.
    std::function<void()> pulse{};
};

// `caisson devd` and `caisson frontd`: runs until SIGTERM or SIGINT, then closes every device in order.
Status run_controller(const ControllerOptions& options);

// Controller and worker in one process and one thread, without a sandbox: for a vendor or a test.
Status serve(const ControllerOptions& options);

class ControlledDevice;

class Controller {
  public:
    // All by reference: they outlive the controller.
    Controller(Loop& loop, Hypervisor& hypervisor, Store& store, Workers& workers, const ControllerOptions& options);
    ~Controller();

    // Sets its watches; the devices that are there already are found in the first turn of the loop.
    Status start();
    // Says Closed for every device; idle() when all are released.
    void stop();
    bool idle() const;
    // Set, and the loop stopped, when the connection to xenstored or to the hypervisor is lost. Nothing can be repaired
    // from here: watches, ports and grants went with it. Whoever started the controller starts it again (PID 1 of a
    // local domain does), and the next one finds the devices as after a kill.
    const std::optional<Error>& lost() const { return lost_; }

    // For tests and for status displays: "backend/vif/3/0" or "device/vif/0" to what the device shows.
    std::map<std::string, XenbusState> devices() const;

  private:
    friend class ControlledDevice;
    void look();
    void lose(const char* whom, const std::string& socket);
    void note(const WatchEvent& event);
    void scan();
    void scan_backends();
    void scan_frontends();
    void consider(DeviceAddress address);
    void visit(const std::string& path);
    void start_over(const std::string& path);
    void retire(const std::string& path, bool moves);
    void retire_finished();

    Loop& loop_;
    Hypervisor& hypervisor_;
    Store& store_;
    Workers& workers_;
    const ControllerOptions options_;
    Log log_{"controller"};
    std::map<std::string, std::unique_ptr<ControlledDevice>> devices_;  // by own directory
    std::vector<std::unique_ptr<ControlledDevice>> retiring_;           // directory gone, worker not yet
    // Of frontends that another backend gets, or that start over, between the two devices: with the control stays what
    // programs have of it (a tap, a mount, a journal).
    std::map<std::string, std::unique_ptr<DeviceControl>> moving_;
    std::set<std::string> changed_;  // own directories: one bit a device, however many events came (XSA-349)
    bool scan_wanted_ = true;
    std::uint32_t next_number_ = 1;
    std::optional<Error> lost_;
    Fd hypervisor_connection_;
    Loop::Handle events_, first_, every_second_, hypervisor_lost_;
};

}  // namespace caisson
