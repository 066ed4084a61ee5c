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

#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "backends/net/net.h"
#include "frontends/net/attachment_socket.h"
#include "frontends/net/net.h"
#include "ring/endpoint.h"
#include "ring/local/port.h"
#include "tests/support/local_xen.h"

namespace caisson::test {

using NetNodes = std::map<std::string, std::string>;

struct NetOptions {
    net::FrontendOptions frontend{};
    NetNodes frontend_nodes{}, backend_nodes{};
    bool processes = false;
};

class NetSide;

// Where sides are served: this thread, or a process that serves all of its sides.
class NetCrew {
  public:
    explicit NetCrew(bool process) : process_wanted_(process), loop_(need(Loop::make())) {}
    ~NetCrew() { end_process(); }

    void add(NetSide& side);
    void remove(NetSide& side);
    void step() {
        if (!process_wanted_) (void)loop_->turn({});
    }
    // kill -9 of the process, and the next one at once.
    void kill() {
        end_process();
        start_process();
    }
    pid_t process() const { return process_; }

  private:
    void end_process() {
        if (process_ <= 0) return;
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
        process_ = 0;
    }
    void start_process();

    bool process_wanted_;
    std::unique_ptr<Loop> loop_;
    std::shared_ptr<void> group_;
    std::vector<NetSide*> sides_;
    pid_t process_ = 0;
};

// One half of one device: what a controller does, without its sandbox.
class NetSide final : public EndpointHost {
  public:
    NetSide(LocalXen::Domain& domain, DeviceAddress address, std::unique_ptr<DeviceControl> control, ClassHalf half,
            NetCrew& crew)
        : domain_(domain),
          half_(half),
          crew_(crew),
          log_(address.name()),
          store_(need(Store::open(domain.xenstored))),
          peer_(address.peer()),
          endpoint_(std::make_unique<Endpoint>(address, std::move(control), *domain.hypervisor, store_, *this, log_)) {
        need(store_.watch(peer_directory(address), "peer"));
        need(store_.watch(own_directory(address), "own"));
        stats_ = shared_bytes(sizeof(DeviceStats));
        new (stats_.data()) DeviceStats;
        endpoint_->look();
    }
    ~NetSide() override {
        crew_.remove(*this);
        endpoint_.reset();
        if (!journal_.empty()) ::munmap(journal_.data(), journal_.size());
        ::munmap(stats_.data(), stats_.size());
    }

    void attach(Handover handover) override {
        handover_ = std::move(handover);
        if (!journal_.empty()) ::munmap(journal_.data(), journal_.size());
        journal_ = shared_bytes(std::max<std::size_t>(handover_.journal_bytes, 1));
        agent_ = need(domain_.hypervisor->restrict_to(std::span(&peer_, 1)));
        successor = false;
        crew_.add(*this);
        if (!complaint) answers_.push_back([this] { endpoint_->attached(); });
    }
    void detach() override {
        crew_.remove(*this);
        handover_ = {};
        agent_.reset();
        answers_.push_back([this] { endpoint_->detached(); });
    }
    void update(std::vector<std::byte> message) override {
        if (worker_) (void)worker_->update(message);
    }
    void timer(std::optional<std::chrono::milliseconds> delay) override {
        due_ = delay ? std::optional(Loop::Clock::now() + *delay) : std::nullopt;
    }
    void step() {
        bool look = false;
        while (store_.take_event()) look = true;
        if (look) endpoint_->look();
        for (auto answers = std::exchange(answers_, {}); auto& answer : answers) answer();
        if (due_ && Loop::Clock::now() >= *due_) due_.reset(), endpoint_->expired();
    }

    Endpoint& endpoint() { return *endpoint_; }
    DeviceWorker* worker() { return worker_.get(); }
    Store& store() { return store_; }
    Hypervisor& hypervisor() { return *domain_.hypervisor; }
    DeviceStats& stats() { return *reinterpret_cast<DeviceStats*>(stats_.data()); }

    // ---- For the crew ----
    Status serve(Loop& loop, std::shared_ptr<void>& group, bool in_process) {
        hypervisor_ = TRY(local::open_restricted(TRY(agent_.duplicate())));
        HandoverReader reader = TRY(handover_.reader());
        WorkerContext context{.loop = loop,
                              .hypervisor = *hypervisor_,
                              .address = endpoint_->address(),
                              .journal = journal_.first(handover_.journal_bytes),
                              .successor = successor,
                              .stats = stats(),
                              .log = log_,
                              .broken =
                                  [this, in_process](const Error& error) {
                                      if (in_process) {  // seen through stats()
                                          log_.say(error.message());
                                          return stats().broken.add(1);
                                      }
                                      answers_.push_back([this, error] {
                                          complaint = error;
                                          endpoint_->broken(error);
                                      });
                                  },
                              .publish =
                                  [this, in_process](std::string_view key, std::string_view value) {
                                      if (in_process) return;
                                      answers_.push_back([this, key = std::string(key), value = std::string(value)] {
                                          endpoint_->publish(key, value);
                                      });
                                  },
                              .group = group};
        worker_ = TRY(half_.serve(std::move(context), reader));
        return {};
    }
    void unserve() {
        worker_.reset();
        hypervisor_.reset();
    }
    void failed(const Error& error) {
        complaint = error;
        answers_.push_back([this, error] { endpoint_->failed(error); });
    }
    bool successor = false;
    std::optional<Error> complaint;

  private:
    static std::span<std::byte> shared_bytes(std::size_t size) {
        void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::runtime_error("mmap failed");
        return {static_cast<std::byte*>(memory), size};
    }

    LocalXen::Domain& domain_;
    ClassHalf half_;
    NetCrew& crew_;
    Log log_;
    Store store_;
    DomainId peer_;
    std::span<std::byte> stats_, journal_;
    Handover handover_;
    Fd agent_;
    std::unique_ptr<Hypervisor> hypervisor_;
    std::unique_ptr<DeviceWorker> worker_;
    std::vector<std::function<void()>> answers_;
    std::optional<Loop::Clock::time_point> due_;
    std::unique_ptr<Endpoint> endpoint_;
};

inline void NetCrew::add(NetSide& side) {
    sides_.push_back(&side);
    if (process_wanted_) return kill();
    if (const Status served = side.serve(*loop_, group_, false); !served) side.failed(served.error());
}

inline void NetCrew::remove(NetSide& side) {
    if (std::erase(sides_, &side) == 0) return;
    side.unserve();
    if (!process_wanted_) return;
    end_process();
    if (!sides_.empty()) start_process();
}

inline void NetCrew::start_process() {
    process_ = ::fork();
    if (process_ != 0) {
        for (NetSide* side : sides_) side->successor = true;
        return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto loop = need(Loop::make());
    std::shared_ptr<void> group;
    for (NetSide* side : sides_)
        if (const Status served = side->serve(*loop, group, true); !served) {
            std::fprintf(stderr, "worker: %s\n", served.error().message().c_str());
            ::_exit(1);
        }
    loop->run();
    ::_exit(0);
}

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
    // Steps until `done`; false after a minute: a hang is an error, whatever the machine's speed.
    template <class Done>
    bool until(Done&& done) {
        const auto end = Loop::Clock::now() + std::chrono::seconds(60);
        while (!done()) {
            if (Loop::Clock::now() > end) return false;
            step();
        }
        return true;
    }

    LocalXen& xen() { return xen_; }
    Store& dom0() { return dom0_; }
    NetCrew& back_crew() { return back_crew_; }
    const LocalXen::Domain& back_domain() const { return back_; }

    // What is in use, for comparing before and after. Descriptors are this process's.
    struct Usage {
        std::uint32_t grants, mappings, ports;
        std::size_t descriptors;
        bool operator==(const Usage&) const = default;
    };
    Usage usage() {
        Usage all{};
        for (const local::DomainInfo& info : need(xen_.control().list_domains()))
            all.grants += info.grants, all.mappings += info.mappings, all.ports += info.ports;
        DIR* directory = ::opendir("/proc/self/fd");
        while (::readdir(directory) != nullptr) ++all.descriptors;
        ::closedir(directory);
        return all;
    }

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
