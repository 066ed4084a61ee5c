// Guests on one bridge: real frontends and backends, as domains of a local hypervisor, driven step by step.
//
//     NetWorld world;
//     auto& a = world.guest(), & b = world.guest();
//     REQUIRE(world.until([&] { return a.connected() && b.connected(); }));
//     a.send(frame_to(b)); ... b.receive()
//
// Every frame goes program -> frontend -> backend -> switch -> backend -> frontend -> program. All backends live in one
// driver domain and one worker. Workers are served in this thread, or (NetOptions::processes) in processes of their
// own, which can be killed: the next one gets the same handover, journal and descriptors.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "backends/net/net.h"
#include "frontends/net/attachment_socket.h"
#include "frontends/net/net.h"
#include "tests/support/net_sides.h"

namespace caisson::test {

using NetNodes = std::map<std::string, std::string>;

struct NetOptions {
    net::FrontendOptions frontend{};
    NetNodes frontend_nodes{}, backend_nodes{};
    bool processes = false;
};

// A domain with one vif and a program behind its attachment.
class NetGuest {
  public:
    struct Frame {
        net::VirtioHeader header;
        std::vector<std::byte> bytes;
    };

    bool connected() const {
        return front->endpoint().shown() == XenbusState::connected &&
               back->endpoint().shown() == XenbusState::connected;
    }
    // False: the socket is full.
    bool send(std::span<const std::byte> frame, net::VirtioHeader header = {}, unsigned queue = 0) {
        const iovec parts[2] = {{&header, sizeof header}, {const_cast<std::byte*>(frame.data()), frame.size()}};
        return ::writev(ends.queue[queue].get(), parts, 2) > 0;
    }
    std::optional<Frame> receive() {
        for (const Fd& queue : ends.queue) {
            buffer.resize(70000);
            Frame frame;
            const iovec parts[2] = {{&frame.header, sizeof frame.header}, {buffer.data(), buffer.size()}};
            const ssize_t got = ::readv(queue.get(), parts, 2);
            if (got < static_cast<ssize_t>(sizeof frame.header)) continue;
            frame.bytes.assign(buffer.begin(), buffer.begin() + (got - static_cast<ssize_t>(sizeof frame.header)));
            return frame;
        }
        return std::nullopt;
    }

    LocalXen::Domain domain;
    net::Mac mac;
    net::frontend::SocketEnds ends;
    std::vector<std::byte> buffer;
    std::string front_path, back_path;
    std::unique_ptr<NetCrew> crew;
    std::unique_ptr<NetSide> front, back;
};

class NetWorld {
  public:
    explicit NetWorld(bool processes = false)
        : back_(xen_.domain()), dom0_(need(Store::open(xen_.directory() + "/dom0/xenstored"))), back_crew_(processes) {}
    ~NetWorld() {
        for (auto& guest : guests_) {
            guest->front.reset();
            guest->back.reset();
        }
    }

    NetGuest& guest(NetOptions options = {}) {
        NetGuest& guest = *guests_.emplace_back(std::make_unique<NetGuest>());
        guest.domain = xen_.domain();
        const auto number = static_cast<std::uint8_t>(guests_.size());
        guest.mac = {{0x00, 0x16, 0x3E, 0x00, 0x00, number}};
        const DomainId front = guest.domain.id, back = back_.id;
        guest.front_path = "/local/domain/" + std::to_string(front.raw) + "/device/vif/0";
        guest.back_path =
            "/local/domain/" + std::to_string(back.raw) + "/backend/vif/" + std::to_string(front.raw) + "/0";
        char mac[18];
        std::snprintf(mac, sizeof mac, "00:16:3e:00:00:%02x", number);
        NetNodes front_nodes{{"backend", guest.back_path},
                             {"backend-id", std::to_string(back.raw)},
                             {"state", "1"},
                             {"handle", "0"},
                             {"mac", mac},
                             {"mtu", "9000"}};
        NetNodes back_nodes{{"frontend", guest.front_path},
                            {"frontend-id", std::to_string(front.raw)},
                            {"online", "1"},
                            {"state", "1"},
                            {"handle", "0"},
                            {"mac", mac},
                            {"mtu", "9000"},
                            {"bridge", "testbr"},
                            {"script", "caisson-switch"}};
        options.frontend_nodes.merge(front_nodes);
        options.backend_nodes.merge(back_nodes);
        write(guest.front_path, front, back, options.frontend_nodes);
        write(guest.back_path, back, front, options.backend_nodes);

        const unsigned queues = options.frontend.queues;
        options.frontend.attachment = [&guest, queues](const DeviceAddress&, std::optional<net::Mac>)
            -> Result<std::unique_ptr<net::frontend::Attachment>> { return open_sockets(guest.ends, queues); };
        guest.back = backend_of(guest);
        guest.crew = std::make_unique<NetCrew>(options.processes);
        const DeviceAddress address{
            .device_class = "vif", .role = Role::frontend, .frontend = front, .backend = back, .id = DeviceId(0)};
        guest.front = std::make_unique<NetSide>(guest.domain, address, net::make_frontend_control(options.frontend),
                                                net::frontend_half(), *guest.crew);
        return guest;
    }

    // A new backend for a guest whose nodes are there, as a new driver domain's controller would make it.
    std::unique_ptr<NetSide> backend_of(const NetGuest& guest) {
        const DeviceAddress address{.device_class = "vif",
                                    .role = Role::backend,
                                    .frontend = guest.domain.id,
                                    .backend = back_.id,
                                    .id = DeviceId(0)};
        return std::make_unique<NetSide>(back_, address, net::backend_half().control(), net::backend_half(),
                                         back_crew_);
    }

    void step() {
        for (auto& guest : guests_) {
            if (guest->front) guest->front->step();
            if (guest->back) guest->back->step();
            guest->crew->step();
        }
        back_crew_.step();
    }
    void steps(unsigned count) {
        while (count-- > 0) step();
    }
    template <class Done>
    bool until(Done&& done) {
        return step_until(*this, std::forward<Done>(done));
    }

    LocalXen& xen() { return xen_; }
    Store& dom0() { return dom0_; }
    NetCrew& back_crew() { return back_crew_; }
    const LocalXen::Domain& back_domain() const { return back_; }

    Usage usage() { return usage_of(xen_); }

  private:
    static Result<std::unique_ptr<net::frontend::Attachment>> open_sockets(net::frontend::SocketEnds& ends,
                                                                           unsigned n) {
        return net::frontend::open_sockets(ends, n);
    }
    void write(const std::string& path, DomainId owner, DomainId reader, const NetNodes& nodes) {
        need(dom0_.make_directory(path));
        need(dom0_.set_permissions(path, {{.domain = owner}, {.domain = reader, .read = true}}));
        for (const auto& [key, value] : nodes) need(dom0_.write(path + "/" + key, value));
    }

    LocalXen xen_;
    LocalXen::Domain back_;
    Store dom0_;
    NetCrew back_crew_;
    std::vector<std::unique_ptr<NetGuest>> guests_;
};

// ---- Frames ----

// `size` bytes, whose content is a function of `seed`, after an Ethernet header of a type that nobody knows.
inline std::vector<std::byte> test_frame(net::Mac to, net::Mac from, std::size_t size, std::uint32_t seed) {
    std::vector<std::byte> frame(size);
    std::memcpy(frame.data(), to.bytes.data(), 6);
    std::memcpy(frame.data() + 6, from.bytes.data(), 6);
    frame[12] = std::byte{0x88}, frame[13] = std::byte{0xB5};  // local experimental
    std::uint32_t value = seed * 2654435761u + 1;
    for (std::size_t i = 14; i < size; ++i) {
        value = value * 1664525u + 1013904223u;
        frame[i] = static_cast<std::byte>(value >> 24);
    }
    return frame;
}

// An IPv4 or IPv6 TCP segment whose checksum is left to the hardware: the field holds the pseudo header's sum.
inline std::vector<std::byte> tcp_frame(net::Mac to, net::Mac from, std::size_t size, bool v6, std::uint32_t seed) {
    std::vector<std::byte> frame = test_frame(to, from, size, seed);
    const std::span<std::byte> all(frame);
    net::put_big16(all, 12, v6 ? net::ethertype::ipv6 : net::ethertype::ipv4);
    const std::size_t ip = 14, transport = ip + (v6 ? 40 : 20);
    std::fill_n(frame.begin() + 14, transport + 20 - 14, std::byte{});
    if (v6) {
        frame[ip] = std::byte{0x60};
        net::put_big16(all, ip + 4, static_cast<std::uint16_t>(size - transport));
        frame[ip + 6] = std::byte{6}, frame[ip + 7] = std::byte{64};
        frame[ip + 8] = frame[ip + 24] = std::byte{0xFD};
        frame[ip + 23] = std::byte{1}, frame[ip + 39] = std::byte{2};
    } else {
        frame[ip] = std::byte{0x45};
        net::put_big16(all, ip + 2, static_cast<std::uint16_t>(size - ip));
        frame[ip + 8] = std::byte{64}, frame[ip + 9] = std::byte{6};
        frame[ip + 12] = frame[ip + 16] = std::byte{10};
        frame[ip + 15] = std::byte{1}, frame[ip + 19] = std::byte{2};
    }
    frame[transport + 12] = std::byte{0x50};
    const auto headers = net::parse_headers(std::span(frame).first(std::min<std::size_t>(size, net::header_bytes)));
    net::put_big16(all, transport + 16,
                   net::pseudo_header_sum(frame, headers, static_cast<std::uint32_t>(size - transport)));
    return frame;
}

}  // namespace caisson::test
