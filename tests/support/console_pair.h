// A console between two domains of a local hypervisor: real controllers' endpoints, real workers, a toolstack's nodes.
//
//     LocalXen xen;
//     ConsolePair pair(xen, {.backend = {{"log", path}}});
//     pair.until([&] { return pair.connected(); });
//     ::write(pair.guest(), "hello", 5);             // as a program on /dev/hvc0 would
//     pair.until([&] { return pair.reader() == "hello"; });
//
// Workers live in this thread and loop, or (Options::processes) in processes of their own, which can be killed: the
// next one gets the same handover and journal.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "backends/console/attach.h"
#include "backends/console/console.h"
#include "frontends/console/console.h"
#include "protocols/console.h"
#include "tests/support/device_side.h"

namespace caisson::test {

class ConsoleSide final : public DeviceSide {
  public:
    ConsoleSide(LocalXen::Domain& domain, DeviceAddress address, ClassHalf half, Loop& loop, bool processes)
        : DeviceSide(domain, address, half.control(), half), loop_(loop), processes_(processes) {
        open();
    }
    ~ConsoleSide() override { close(); }

    void step() {
        DeviceSide::step();
        relay();
    }

    // ---- Death ----
    pid_t process() const { return process_; }
    // kill -9 and the next one at once.
    void replace_worker() {
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
        start_process(true);
    }
    void end_worker() override {
        unserve();
        if (process_ > 0) {
            ::kill(process_, SIGTERM);
            ::waitpid(process_, nullptr, 0);
        }
        process_ = 0;
    }

  private:
    void start_worker(bool successor) override {
        if (processes_)
            start_process(successor);
        else if (const Status served = serve(loop_, group_, successor, false); !served)
            return failed(served.error());
        answer([this] { endpoint().attached(); });
    }
    // The only thing its process publishes is how often it changed log files.
    void published_elsewhere(std::string_view value) override {
        dprintf(mail_[1].get(), "%.*s\n", static_cast<int>(value.size()), value.data());
    }
    void start_process(bool successor) {
        if (!mail_[0]) {
            int ends[2];
            if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error("pipe failed");
            mail_[0].reset(ends[0]), mail_[1].reset(ends[1]);
        }
        process_ = ::fork();
        if (process_ != 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::signal(SIGTERM, SIG_DFL);
        sigset_t end;
        ::sigemptyset(&end);
        ::sigaddset(&end, SIGTERM);
        ::sigprocmask(SIG_BLOCK, &end, nullptr);
        serve_alone(successor);
        ::_exit(0);
    }
    void serve_alone(bool successor) {
        auto loop = need(Loop::make());
        if (const Status served = serve(*loop, group_, successor, true); !served) {
            std::fprintf(stderr, "worker: %s\n", served.error().message().c_str());
            ::_exit(1);
        }
        for (sigset_t waiting; ::sigpending(&waiting) == 0 && !::sigismember(&waiting, SIGTERM);)
            loop->turn(std::chrono::milliseconds(20));
        unserve();
    }
    void relay() {
        char text[256];
        if (!mail_[0]) return;
        const ssize_t length = ::read(mail_[0].get(), text, sizeof text);
        if (length <= 1) return;
        const std::string_view lines(text, static_cast<std::size_t>(length) - 1);
        endpoint().publish(console::log_turn_key, lines.substr(lines.rfind('\n') + 1));
    }

    Loop& loop_;
    bool processes_;
    Fd mail_[2];
    std::shared_ptr<void> group_;
    pid_t process_ = 0;
};

using Nodes = std::map<std::string, std::string>;

// What the toolstack writes: both directories, each owned by its domain and readable by the other.
inline void write_console_nodes(Store& dom0, DomainId front, DomainId back, DeviceId id, const Nodes& backend,
                                const Nodes& frontend) {
    const std::string f = "/local/domain/" + std::to_string(front.raw), b = "/local/domain/" + std::to_string(back.raw);
    const std::string front_path = f + "/" + console::xenstore_path(id);
    const std::string back_path = b + "/backend/console/" + std::to_string(front.raw) + "/" + std::to_string(id.raw);
    const auto write = [&](const std::string& path, DomainId owner, DomainId reader, const Nodes& nodes) {
        need(dom0.make_directory(path));
        need(dom0.set_permissions(path, {{.domain = owner}, {.domain = reader, .read = true}}));
        for (const auto& [key, value] : nodes) need(dom0.write(path + "/" + key, value));
    };
    Nodes front_nodes{{"backend", back_path}, {"backend-id", std::to_string(back.raw)}, {"state", "1"}};
    Nodes back_nodes{
        {"frontend", front_path}, {"frontend-id", std::to_string(front.raw)}, {"online", "1"}, {"state", "1"}};
    front_nodes.insert(frontend.begin(), frontend.end());
    back_nodes.insert(backend.begin(), backend.end());
    write(front_path, front, back, front_nodes);
    write(back_path, back, front, back_nodes);
}

// The other end of a raw pty or socket, collecting what comes.
class Reader {
  public:
    explicit Reader(Fd fd) : fd_(std::move(fd)) {}
    // Everything that came so far. False at the end of the line.
    bool pump() {
        char bytes[4096];
        for (;;) {
            const ssize_t count = ::read(fd_.get(), bytes, sizeof bytes);
            if (count > 0)
                text_.append(bytes, static_cast<std::size_t>(count));
            else
                return count < 0 && errno == EAGAIN;
        }
    }
    const std::string& text() const { return text_; }
    int fd() const { return fd_.get(); }

  private:
    Fd fd_;
    std::string text_;
};

// The console `id` between a new guest and a new driver domain (or given ones).
class ConsolePair {
  public:
    struct Options {
        DeviceId id{0};
        Nodes backend, frontend;
        bool processes = false;          // workers in processes of their own
        bool front = true, back = true;  // without one: somebody else plays that side
    };

    ConsolePair(LocalXen& xen, Options options) : ConsolePair(xen, options, own_domains(xen)) {}
    struct Domains {
        LocalXen::Domain front, back;
    };
    static std::shared_ptr<Domains> own_domains(LocalXen& xen) {
        return std::make_shared<Domains>(Domains{.front = xen.domain(), .back = xen.domain()});
    }
    ConsolePair(LocalXen& xen, Options options, std::shared_ptr<Domains> domains)
        : xen_(xen), domains_(std::move(domains)), loop_(need(Loop::make())) {
        link_ =
            xen.directory() + "/hvc" + std::to_string(domains_->front.id.raw) + "." + std::to_string(options.id.raw);
        options.frontend.emplace("link", link_);
        Store dom0 = need(Store::open(xen.directory() + "/dom0/xenstored"));
        write_console_nodes(dom0, front_id(), back_id(), options.id, options.backend, options.frontend);
        const DeviceAddress address{
            .device_class = "console", .frontend = front_id(), .backend = back_id(), .id = options.id};
        DeviceAddress front = address, back = address;
        front.role = Role::frontend;
        back.role = Role::backend;
        const bool processes = options.processes;
        if (options.back)
            back_ = std::make_unique<ConsoleSide>(domains_->back, back, console::backend_half(), *loop_, processes);
        if (options.front)
            front_ = std::make_unique<ConsoleSide>(domains_->front, front, console::frontend_half(), *loop_, processes);
    }

    void step() {
        if (front_) front_->step();
        if (back_) back_->step();
        loop_->turn(std::chrono::milliseconds(1));
    }
    template <class Done>
    bool until(Done&& done) {
        return step_until(*this, std::forward<Done>(done));
    }
    bool connected() {
        return front_->endpoint().shown() == XenbusState::connected &&
               back_->endpoint().state() == XenbusState::connected;
    }

    // What a program in the guest sees; opened once, raw if asked for.
    int guest(bool raw = true) {
        if (guest_) return guest_.get();
        guest_.reset(::open(link_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
        if (!guest_) throw std::runtime_error("no pty at " + link_);
        if (raw) {
            termios modes{};
            ::tcgetattr(guest_.get(), &modes);
            ::cfmakeraw(&modes);
            ::tcsetattr(guest_.get(), TCSANOW, &modes);
        }
        return guest_.get();
    }
    // The same once more, for a Reader.
    Fd program(bool raw = true) {
        Fd copy(::fcntl(guest(raw), F_DUPFD_CLOEXEC, 0));
        if (!copy) throw std::runtime_error("dup failed");
        return copy;
    }
    // What the toolstack attaches to, as it would.
    Result<Fd> attach() {
        const Directory own(back_->store(), own_directory(back_->endpoint().address()));
        const console::AttachPoint point{.tty = TRY(own.text("tty")).value_or(""),
                                         .path = TRY(own.text("path")).value_or("")};
        const Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
        return console::attach(root.get(), point);
    }

    DomainId front_id() const { return domains_->front.id; }
    DomainId back_id() const { return domains_->back.id; }
    LocalXen::Domain& front_domain() { return domains_->front; }
    std::shared_ptr<Domains> domains() { return domains_; }
    ConsoleSide& front() { return *front_; }
    ConsoleSide& back() { return *back_; }
    Loop& loop() { return *loop_; }
    const std::string& link() const { return link_; }

    // The guest's controller ends in order: its worker may finish.
    void shut_down_guest() {
        front_->endpoint().stop();
        until([&] { return front_->endpoint().finished(); });
    }
    // The guest's domain dies with everything in it.
    void destroy_guest() {
        front_.reset();
        guest_.reset();
        xen_.destroy(domains_->front);
    }

  private:
    LocalXen& xen_;
    std::shared_ptr<Domains> domains_;
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<ConsoleSide> front_, back_;
    std::string link_;
    Fd guest_;
};

inline std::string contents(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace caisson::test
