// The network configuration of a local domain: what ifupdown or networkd would do in a guest, with iproute2 and nft.
//
// Interfaces come and go with their frontends and backends, so everything is applied again when an interface appears
// under a new index. Threads: one, PID 1's.
#pragma once

#include <map>
#include <string>

#include "domains/domain/link_news.h"
#include "domains/domain/plan.h"
#include "protocols/words.h"
#include "ring/log.h"

namespace caisson::domain {

class Network {
  public:
    // Firewall rules, then forwarding (not without its rules), and the uplink at once; interfaces as they appear.
    // Errors go to the log: a domain without network is still one that can be looked at.
    static Result<Network> set_up(const Plan& plan, Log& log);

    int fd() const { return news_.fd(); }  // readable: interfaces changed, call refresh()
    void refresh();
    bool complete() const;  // every interface of the plan is there and configured
    // Those that are not there (yet), as a sentence for the log; empty: complete.
    std::string missing() const;

  private:
    Network(const Plan& plan, Log& log, LinkNews news) : plan_(&plan), log_(&log), news_(std::move(news)) {}
    void check(const Status& done);

    const Plan* plan_;
    Log* log_;
    LinkNews news_;
    std::map<std::string, unsigned> configured_;  // interface to the index it had then
};

}  // namespace caisson::domain
