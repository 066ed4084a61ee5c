// The controller's half of a vif: reads what the toolstack wrote, opens the host, publishes features, reads the
// frontend's rings, and puts it all into a Handover.
#pragma once

#include <optional>

#include "backends/net/journal.h"
#include "backends/net/tap_interface.h"
#include "ring/device.h"

namespace caisson::net::backend {

class Control final : public DeviceControl {
  public:
    Status offer(ControlContext& context) override;
    Result<Handover> connect(ControlContext& context) override;
    void disconnect(ControlContext& context) override;
    std::vector<std::string> watched_peer() const override;
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override;
    bool worker_may_publish(std::string_view key) const override { return key == net::key::carrier; }
    std::string worker_group() const override;

  private:
    Status read_settings(ControlContext& context);
    Status open_host(ControlContext& context);
    Status open_tap(const std::string& name);
    Status publish_features(ControlContext& context);
    Status read_frontend(ControlContext& context);
    Status bind_queue(ControlContext& context, const Directory& keys, Handover& handover);
    Status bind(ControlContext& context, std::uint32_t port, Handover& handover);
    Status put_control_ring(ControlContext& context, Handover& handover);

    Config config_;
    std::string bridge_, gateway_, script_, vifname_;
    std::optional<TapInterface> tap_;
    std::vector<EventChannel> channels_;
};

// "10.0.0.2 fd00::2", "10.0.0.2/32": addresses separated by blanks or commas; at most GuestAddresses::most a family.
Result<GuestAddresses> parse_addresses(std::string_view text);
// libxl's "bytes,microseconds".
Result<Rate> parse_rate(std::string_view text);

}  // namespace caisson::net::backend
