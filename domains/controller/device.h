// One device of a controller: the endpoint, what its workers get, and its statistics.
#pragma once

#include "domains/controller/controller.h"
#include "domains/worker/served.h"
#include "ring/endpoint.h"

namespace caisson {

class ControlledDevice final : EndpointHost, Attended {
  public:
    ControlledDevice(Controller& controller, DeviceAddress address, const ClassHalf& half,
                     std::unique_ptr<DeviceControl> control, std::uint32_t number);
    ~ControlledDevice() override;

    Endpoint& endpoint() { return endpoint_; }
    const Endpoint& endpoint() const { return endpoint_; }
    const std::string& watched() const { return peer_path_; }

    bool moves = false;  // the next device of this directory gets its control

  private:
    void attach(Handover handover) override;
    void detach() override;
    void update(std::vector<std::byte> message) override;
    void timer(std::optional<std::chrono::milliseconds> delay) override;

    void attached() override { endpoint_.attached(); }
    void failed(const Error& error) override { endpoint_.failed(error); }
    void broken(const Error& error) override;
    void publish(std::string_view key, std::string_view value) override { endpoint_.publish(key, value); }
    void detached() override;
    void restarted() override;

    Result<Attachment> prepare(Handover handover);
    void watch_connection();
    void connection_lost(Loop::Clock::time_point since);
    Status open_statistics();

    Controller& controller_;
    const ClassHalf& half_;
    const std::uint32_t number_;
    const std::string peer_path_;
    Log log_;
    std::string statistics_path_;
    Fd statistics_file_;
    Mapping statistics_;
    std::optional<Attachment> attachment_;
    bool with_workers_ = false;
    Loop::Handle timer_, answer_, connection_;
    Endpoint endpoint_;  // the last: its destructor may still call us
};

}  // namespace caisson
