// The controller's half of a disk: opens the target, publishes what it is, reads the frontend's rings, and puts it all
// into a Handover.
#pragma once

#include <optional>

#include "backends/block/config.h"
#include "backends/block/nbd_connections.h"
#include "backends/block/target.h"
#include "ring/device.h"

namespace caisson::block::backend {

// Ours, in the backend's directory, written by the toolstack.
namespace key {
inline constexpr std::string_view rate_requests = "caisson-rate-iops";  // "N" or "N,BURST": requests a second
inline constexpr std::string_view rate_bytes = "caisson-rate-bytes";    // the same of bytes
inline constexpr std::string_view resize = "caisson-resize";            // any new value: look at the target again
// Seconds that requests wait for an NBD server that has gone, before they fail: 30.
inline constexpr std::string_view nbd_patience = "caisson-nbd-patience";
}  // namespace key

class Control final : public DeviceControl {
  public:
    Status offer(ControlContext& context) override;
    Result<Handover> connect(ControlContext& context) override;
    void disconnect(ControlContext& context) override;
    std::vector<std::string> watched_own() const override;
    bool worker_may_publish(std::string_view key) const override {
        return key == block::key::sectors || key == key::nbd_lost;
    }
    // The target was said to have another size: the worker is told. Or the worker has published it: the frontend is.
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override;

  private:
    Status renew_connection(ControlContext& context);
    Status publish_features(ControlContext& context);
    Status publish_disk(ControlContext& context);
    Status read_frontend(ControlContext& context);
    Status read_abi(const Directory& peer);
    Status put_queue(ControlContext& context, const Directory& keys, Handover& handover);

    Config config_;
    std::optional<Target> target_;
    bool numbered_refs_ = false;  // "ring-ref0", not "ring-ref"
    std::string announced_;       // `sectors`, as the frontend was last told
    std::string lost_;            // the worker's last word on its NBD connection
    bool away_ = false;           // the NBD server, and we have said so
    std::vector<EventChannel> channels_;
};

// "1000" or "1000,5000".
struct RateText {
    std::uint64_t per_second = 0, burst = 0;
};
Result<RateText> parse_rate(std::string_view text);

}  // namespace caisson::block::backend
