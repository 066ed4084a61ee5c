// A host that is not there: takes everything, gives nothing. For tests, and for a vif that must not lead anywhere.
#pragma once

#include "backends/net/host.h"

namespace caisson::net::backend {

class NullHost final : public Host {
  public:
    bool send(unsigned, const Frame& frame) override {
        ++packets_;
        bytes_ += frame.size;
        return true;
    }
    std::uint64_t packets() const { return packets_; }
    std::uint64_t bytes() const { return bytes_; }

  private:
    std::uint64_t packets_ = 0, bytes_ = 0;
};

}  // namespace caisson::net::backend
