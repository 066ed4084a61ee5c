// A learning switch among the vifs of one bridge, all of which live in one worker: a packet goes from guest to guest
// with one copy. Optional uplinks are TAP queues, one for each device that brought one.
//
// The table of addresses is bounded, each port may fill only its share, and what was not seen for `ageing` is
// forgotten; unknown and group addresses are flooded. Threads and lifetime: one worker's thread; the switch lives as
// long as one of its ports.
#pragma once

#include <chrono>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backends/net/config.h"
#include "backends/net/host_tap.h"
#include "ring/loop.h"

namespace caisson::net::backend {

class Switch final : Polled {
  public:
    static constexpr std::size_t most_addresses = 4096, most_addresses_a_guest = 64;
    static constexpr std::chrono::seconds ageing{300};
    using Clock = std::chrono::steady_clock;

    explicit Switch(Loop& loop)
        : loop_(&loop), tick_(loop.every(std::chrono::seconds(1), [this] { age(Clock::now()); })) {}

    using PortNumber = std::uint32_t;
    PortNumber add(PacketSink& guest);
    PortNumber add_uplink(Fd tap);
    void remove(PortNumber port);

    // True when it was delivered to somebody, or flooded.
    bool forward(PortNumber from, const Frame& frame);
    void age(Clock::time_point now);
    std::size_t addresses() const { return table_.size(); }

  private:
    struct Port {
        PortNumber number;
        PacketSink* guest = nullptr;  // or
        Fd tap;
        Loop::Handle readable;
        bool gone = false;
        std::size_t learned = 0;
    };
    struct Entry {
        PortNumber port;
        Clock::time_point seen;
    };

    bool poll() override;
    bool arm() override;
    bool read_uplink(Port& port);
    bool deliver(Port& port, const Frame& frame);
    void learn(Port& from, Mac source);
    Port* find(PortNumber number);

    Loop* loop_;
    std::vector<std::unique_ptr<Port>> ports_;
    std::unordered_map<std::uint64_t, Entry> table_;
    PortNumber next_port_ = 1;
    Clock::time_point now_ = Clock::now();
    std::vector<std::byte> packet_ = std::vector<std::byte>(header_bytes + max_packet);
    Loop::Handle tick_, served_;
};

// One vif's place in the switch of its worker.
class SwitchPort final : public Host {
  public:
    static Result<std::unique_ptr<Host>> make(std::shared_ptr<void>& group, Loop& loop, const Config& config,
                                              PacketSink& guest, HandoverReader& handover);
    SwitchPort(std::shared_ptr<Switch> with, Switch::PortNumber port) : switch_(std::move(with)), port_(port) {}
    ~SwitchPort() override;
    bool send(unsigned, const Frame& frame) override { return switch_->forward(port_, frame); }

  private:
    std::shared_ptr<Switch> switch_;
    Switch::PortNumber port_, uplink_ = 0;
};

}  // namespace caisson::net::backend
