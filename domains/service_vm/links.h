// The network interfaces of a service VM: bridges are made, and whatever the recipe says of an interface is done
// whenever it appears, be it a NIC, or the other side of our own frontend. By ioctl and procfs: there is no iproute2.
//
// Threads: one, PID 1's.
#pragma once

#include <map>
#include <string>

#include "domains/domain/link_news.h"
#include "domains/service_vm/recipe.h"
#include "ring/log.h"

namespace caisson::service_vm {

class Links {
  public:
    // `recipe` outlives us.
    static Result<Links> set_up(const Recipe& recipe);

    int fd() const { return news_.fd(); }  // readable: an interface has come, gone or changed; call refresh()
    // An interface that cannot be configured is told to the log, once for each time that it appears.
    void refresh(Log& log);

  private:
    Links(const Recipe& recipe, domain::LinkNews news) : recipe_(&recipe), news_(std::move(news)) {}
    const Recipe* recipe_;
    domain::LinkNews news_;
    std::map<std::string, unsigned> configured_;  // interface to the index that it had then
};

}  // namespace caisson::service_vm
