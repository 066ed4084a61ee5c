// That network interfaces came, went or changed. What the kernel says of it is not read: whoever hears it looks.
// Threads: one.
#pragma once

#include "ring/fd.h"

namespace caisson::domain {

class LinkNews {
  public:
    static Result<LinkNews> open();
    int fd() const { return socket_.get(); }  // readable: there are news
    void drain();                             // and then look

  private:
    explicit LinkNews(Fd socket) : socket_(std::move(socket)) {}
    Fd socket_;
};

}  // namespace caisson::domain
