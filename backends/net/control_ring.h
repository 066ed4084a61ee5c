// The frontend's control ring: how it wants received packets to be hashed and spread over its queues.
//
// Static grant mappings are answered NOT_SUPPORTED. A request that a predecessor took and did not answer is done again:
// each of them sets a value, so twice is once.
#pragma once

#include "backends/net/vif.h"

namespace caisson::net::backend {

class HashControl {
  public:
    static Result<HashControl> make(Vif& vif, SharedSpan page, Doorbell& bell, bool successor);

    Result<bool> poll();
    Result<bool> arm() { return ring_.arm(); }

  private:
    HashControl(Vif& vif, BackRing<ControlRing> ring, Doorbell& bell)
        : vif_(&vif), ring_(std::move(ring)), bell_(&bell) {}
    void answer(Untrusted<ControlRequest>&& raw);
    ControlResponse serve(const ControlCall& request);
    std::uint32_t set_key(const ControlCall& request);
    std::uint32_t set_mapping(const ControlCall& request);
    bool fetch(GrantRef page, std::span<std::byte> into);

    Vif* vif_;
    BackRing<ControlRing> ring_;
    Doorbell* bell_;
};

}  // namespace caisson::net::backend
