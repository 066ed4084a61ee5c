#include "domains/domain/link_news.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>

namespace caisson::domain {

Result<LinkNews> LinkNews::open() {
    Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = RTMGRP_LINK;
    if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return host_fault(errno, "watch network interfaces");
    return LinkNews(std::move(socket));
}

void LinkNews::drain() {
    std::array<char, 8192> news;
    for (ssize_t got = 1; got > 0 || (got < 0 && errno == ENOBUFS);)
        got = ::recv(socket_.get(), news.data(), news.size(), MSG_TRUNC);
}

}  // namespace caisson::domain
