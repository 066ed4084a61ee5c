// A disk between two domains of a local hypervisor: a real backend, and a block::Disk (or a real frontend worker).
//
//     BlockWorld world({.nodes = {{"params", "memory:16M"}}});
//     auto disk = world.disk();                       // frontends/block/disk.h, in this thread
//     world.backend().kill();                         // the worker dies, the next one comes
//     world.until([&] { return answered == asked; });
//
// Workers are served in this thread, or (BlockOptions::processes) in processes of their own, which can be killed: the
// next one gets the same handover, journal and descriptors.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <map>

#include "backends/block/block.h"
#include "frontends/block/block.h"
#include "frontends/block/disk.h"
#include "tests/support/device_side.h"

namespace caisson::test {

using BlockNodes = std::map<std::string, std::string>;

// How the workers of one half are served.
struct BlockServing {
    bool processes = false;  // in processes of their own
    Loop::Options loop{};    // of such a process
    int cpu = -1;            // where it is pinned
};

class BlockSide final : public DeviceSide {
  public:
    BlockSide(LocalXen::Domain& domain, DeviceAddress address, std::unique_ptr<DeviceControl> control, ClassHalf half,
              BlockServing serving)
        : DeviceSide(domain, address, std::move(control), half),
          serving_(serving),
          processes_(serving.processes),
          loop_(need(Loop::make())) {
        open();
    }
    ~BlockSide() override { close(); }

    void update(std::vector<std::byte> message) override {
        if (process_ > 0) (void)!::send(mail_[0].get(), message.data(), message.size(), MSG_NOSIGNAL);
        DeviceSide::update(std::move(message));
    }
    void step() {
        DeviceSide::step();
        if (!processes_) (void)loop_->turn({});
    }

    // kill -9 and the next one at once. Only with processes.
    void kill() {
        if (process_ <= 0) return;
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
        start_process(true);
    }
    // Takes the device away from its peer and lets it come back, as a controller that is started anew.
    void stop() { endpoint().stop(); }

    static void pin(int cpu) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        ::sched_setaffinity(0, sizeof set, &set);
    }

  private:
    void start_worker(bool successor) override {
        if (processes_)
            start_process(successor);
        else if (const Status served = serve(*loop_, group_, successor, false); !served)
            return failed(served.error());
        answer([this] { endpoint().attached(); });
    }
    void start_process(bool successor) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("socketpair");
        mail_[0].reset(ends[0]), mail_[1].reset(ends[1]);
        process_ = ::fork();
        if (process_ != 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::prctl(PR_SET_NAME, "block worker");
        if (serving_.cpu >= 0) pin(serving_.cpu);
        auto loop = need(Loop::make(serving_.loop));
        if (const Status served = serve(*loop, group_, successor, true); !served) {
            std::fprintf(stderr, "worker: %s\n", served.error().message().c_str());
            ::_exit(1);
        }
        const auto mail = loop->watch(mail_[1].get(), POLLIN, [&](short) {
            std::array<std::byte, 4096> bytes;
            const ssize_t got = ::recv(mail_[1].get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
            if (got == 0) ::_exit(0);
            if (got > 0) (void)worker()->update(std::span(bytes).first(static_cast<std::size_t>(got)));
        });
        loop->run();
        ::_exit(0);
    }
    void end_worker() override {
        unserve();
        if (process_ <= 0) return;
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
        process_ = 0;
    }

    BlockServing serving_;
    bool processes_;
    std::unique_ptr<Loop> loop_;
    Fd mail_[2];
    std::shared_ptr<void> group_;
    pid_t process_ = 0;
};

struct BlockOptions {
    BlockNodes nodes{{"params", "memory:16M"}};  // of the backend's directory
    bool processes = false;                      // workers in processes of their own
    block::FrontendOptions frontend{};           // of frontend_worker()
    Loop::Options worker_loop{};                 // with processes: of the backend's
    int worker_cpu = -1;                         // where that is pinned
};

// A guest, a driver domain, and one device between them.
class BlockWorld {
  public:
    static constexpr DeviceId device{51712};

    explicit BlockWorld(BlockOptions options = {})
        : options_(std::move(options)),
          front_(xen_.domain()),
          dom0_(need(Store::open(xen_.directory() + "/dom0/xenstored"))),
          front_store_(need(Store::open(front_.xenstored))),
          loop_(need(Loop::make())) {
        new_backend_domain();
    }
    ~BlockWorld() {
        worker_.reset();
        back_.reset();
    }

    // Another driver domain, and the device's nodes point to it; the one before is destroyed.
    void new_backend_domain() {
        back_.reset();
        if (back_domain_) xen_.destroy(*back_domain_);
        old_domains_.push_back(std::move(back_domain_));
        back_domain_ = std::make_unique<LocalXen::Domain>(xen_.domain());
        BlockNodes front{{"backend", back_path()},
                         {"backend-id", std::to_string(back_domain_->id.raw)},
                         {"state", "1"},
                         {"virtual-device", std::to_string(device.raw)},
                         {"device-type", "disk"}};
        BlockNodes back{{"frontend", front_path()},
                        {"frontend-id", std::to_string(front_.id.raw)},
                        {"online", "1"},
                        {"state", "1"},
                        {"mode", "w"},
                        {"dev", "xvda"},
                        {"device-type", "disk"}};
        for (const auto& [key, value] : options_.nodes) back[key] = value;
        write(back_path(), back_domain_->id, front_.id, back);
        write(front_path(), front_.id, back_domain_->id, front);
        start_backend();
    }
    // The toolstack takes the backend away, and gives the device a new one.
    void stop_backend() {
        back_.reset();
        need(dom0_.write(back_path() + "/state", "6"));
    }
    void restart_backend() {
        stop_backend();
        const auto away = [&] {
            const auto state = need(dom0_.read(front_path() + "/state"));
            return state == "6" || state == "1";
        };
        if (!until(away)) throw std::runtime_error("the frontend does not let go");
        need(dom0_.write(back_path() + "/state", "1"));
        start_backend();
    }
    void start_backend() {
        back_ = std::make_unique<BlockSide>(
            *back_domain_, address(Role::backend), block::backend_half().control(), block::backend_half(),
            BlockServing{options_.processes, options_.worker_loop, options_.worker_cpu});
    }
    // The controller dies with its workers, and the next one finds the states that it left.
    void crash_backend() {
        back_.reset();
        start_backend();
    }
    BlockSide& backend() { return *back_; }

    // The frontend as frontd runs it, with an attachment or without.
    BlockSide& frontend_worker() {
        worker_ = std::make_unique<BlockSide>(front_, address(Role::frontend),
                                              block::make_frontend_control(options_.frontend), block::frontend_half(),
                                              BlockServing{.processes = options_.processes});
        return *worker_;
    }

    BlockSide& frontend() { return *worker_; }

    // The disk of a program in the guest. Backends serve while it opens.
    std::unique_ptr<block::Disk> disk(block::Disk::Options options = {}) {
        options.device = device;
        const auto serve = loop_->every(std::chrono::milliseconds(1), [this] { back_->step(); });
        return need(block::Disk::open(*front_.hypervisor, front_store_, *loop_, options));
    }

    void step() {
        if (back_) back_->step();
        if (worker_) worker_->step();
        (void)loop_->turn({});
    }
    template <class Done>
    bool until(Done&& done) {
        return step_until(*this, std::forward<Done>(done));
    }

    LocalXen& xen() { return xen_; }
    Store& dom0() { return dom0_; }
    Loop& loop() { return *loop_; }
    const LocalXen::Domain& front() const { return front_; }
    const LocalXen::Domain& back() const { return *back_domain_; }
    std::string front_path() const {
        return "/local/domain/" + std::to_string(front_.id.raw) + "/device/vbd/" + std::to_string(device.raw);
    }
    std::string back_path() const {
        return "/local/domain/" + std::to_string(back_domain_->id.raw) + "/backend/vbd/" +
               std::to_string(front_.id.raw) + "/" + std::to_string(device.raw);
    }

    Usage usage() { return usage_of(xen_); }

  private:
    DeviceAddress address(Role role) const {
        return {.device_class = "vbd", .role = role, .frontend = front_.id, .backend = back_domain_->id, .id = device};
    }
    // In one transaction, as a toolstack does it: nobody sees half a device.
    void write(const std::string& path, DomainId owner, DomainId reader, const BlockNodes& nodes) {
        need(dom0_.transaction([&]() -> Status {
            TRY(dom0_.remove(path));
            TRY(dom0_.make_directory(path));
            TRY(dom0_.set_permissions(path, {{.domain = owner}, {.domain = reader, .read = true}}));
            for (const auto& [key, value] : nodes) TRY(dom0_.write(path + "/" + key, value));
            return {};
        }));
    }

    BlockOptions options_;
    LocalXen xen_;
    LocalXen::Domain front_;
    std::vector<std::unique_ptr<LocalXen::Domain>> old_domains_;
    std::unique_ptr<LocalXen::Domain> back_domain_;
    Store dom0_, front_store_;
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<BlockSide> back_, worker_;
};

// Bytes that are a function of `seed`.
inline std::vector<std::byte> test_bytes(std::size_t size, std::uint32_t seed) {
    std::vector<std::byte> bytes(size);
    std::uint32_t value = seed * 2654435761u + 1;
    for (std::byte& byte : bytes) {
        value = value * 1664525u + 1013904223u;
        byte = static_cast<std::byte>(value >> 24);
    }
    return bytes;
}

}  // namespace caisson::test
