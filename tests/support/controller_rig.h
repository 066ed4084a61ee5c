// Two domains with controllers of the echo class, and the toolstack's hand in xenstore.
#pragma once

#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>

#include <fstream>
#include <functional>
#include <future>
#include <sstream>

#include "domains/controller/controller.h"
#include "ring/endpoint.h"
#include "tests/support/echo_class.h"
#include "tests/support/local_xen.h"

namespace caisson::test {

using namespace std::chrono_literals;

// True as soon as `question` is; false after a time that only a hang exceeds.
inline bool eventually(const std::function<bool()>& question, std::chrono::seconds patience = 20s) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!question()) {
        if (std::chrono::steady_clock::now() > until) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

// A controller in a thread of its own, as a process of the domain would run it.
class ControllerThread {
  public:
    enum class Where { processes, this_thread };
    struct Roles {
        bool backends = false, frontends = false;
    };

    // What the controller gets in place of the domain's Hypervisor.
    using Wrap = std::function<std::unique_ptr<Hypervisor>(std::unique_ptr<Hypervisor>)>;

    ControllerThread(const LocalXen::Domain& domain, Roles roles, Where where, std::string statistics = {},
                     Wrap wrap = {})
        : thread_([=, this, hypervisor = domain.hypervisor_socket, xenstored = domain.xenstored] {
              run({.backends = roles.backends,
                   .frontends = roles.frontends,
                   .catalogue = echo_catalogue(),
                   .hypervisor_socket = hypervisor,
                   .xenstored_socket = xenstored,
                   .stats_directory = statistics,
                   .pace = {.interval = 0ms}},  // tests connect faster than a peer may
                  where, wrap);
          }) {
        started_.get_future().wait();
    }
    ~ControllerThread() { stop(); }

    // Orderly, as on SIGTERM.
    void stop() {
        if (!thread_.joinable()) return;
        loop_.load()->stop();
        asked_.set_value();
        thread_.join();
    }

  private:
    void run(const ControllerOptions& options, Where where, const Wrap& wrap) {
        auto hypervisor = need(local::open(options.hypervisor_socket));
        if (wrap) hypervisor = wrap(std::move(hypervisor));
        auto store = need(Store::open(options.xenstored_socket));
        auto loop = need(Loop::make());
        const auto workers =
            where == Where::processes ? make_process_workers(*loop, options.worker) : make_inline_workers(*loop);
        Controller controller(*loop, *hypervisor, store, *workers, options);
        need(controller.start());
        loop_ = loop.get();
        started_.set_value();
        loop->run();
        asked_.get_future().wait();  // a controller that lost its hypervisor stops its loop before we do
        controller.stop();
        for (int i = 0; i < 200 && !controller.idle(); ++i) loop->turn(10ms);
    }

    std::promise<void> started_, asked_;
    std::atomic<Loop*> loop_{nullptr};
    std::thread thread_;
};

// What the toolstack does, through Dom0's store.
class Toolstack {
  public:
    explicit Toolstack(LocalXen& xen) : store_(need(Store::open(xen.dom0().xenstored))) {}
    Store& store() { return store_; }

    static std::string home(DomainId id) { return "/local/domain/" + std::to_string(id.raw); }
    static std::string front(DomainId frontend, std::uint32_t id) {
        return home(frontend) + "/device/echo/" + std::to_string(id);
    }
    static std::string back(DomainId backend, DomainId frontend, std::uint32_t id) {
        return home(backend) + "/backend/echo/" + std::to_string(frontend.raw) + "/" + std::to_string(id);
    }

    void attach(DomainId backend, DomainId frontend, std::uint32_t id, const std::string& group = {}) {
        const std::string b = back(backend, frontend, id), f = front(frontend, id);
        need(store_.transaction([&]() -> Status {
            TRY(directory(b, backend, frontend));
            TRY(store_.write(b + "/frontend", f));
            TRY(store_.write(b + "/frontend-id", std::to_string(frontend.raw)));
            TRY(store_.write(b + "/online", "1"));
            TRY(store_.write(b + "/state", "1"));
            if (!group.empty()) TRY(store_.write(b + "/group", group));
            TRY(directory(f, frontend, backend));
            TRY(store_.write(f + "/backend", b));
            TRY(store_.write(f + "/backend-id", std::to_string(backend.raw)));
            return store_.write(f + "/state", "1");
        }));
    }
    // As libxl does: ask the backend to close; the directories go when it has.
    void detach(DomainId backend, DomainId frontend, std::uint32_t id) {
        write(back(backend, frontend, id) + "/online", "0");
        write(back(backend, frontend, id) + "/state", "5");
    }
    void remove(DomainId backend, DomainId frontend, std::uint32_t id) {
        need(store_.remove(back(backend, frontend, id)));
        need(store_.remove(front(frontend, id)));
    }
    void write(const std::string& path, const std::string& value) { need(store_.write(path, value)); }
    std::string read(const std::string& path) { return need(store_.read(path)).value_or(""); }

    bool connected(DomainId backend, DomainId frontend, std::uint32_t id) {
        return read(back(backend, frontend, id) + "/state") == "4" && read(front(frontend, id) + "/state") == "4";
    }

  private:
    // Owned by one end, readable for the other: what libxl gives device directories.
    Status directory(const std::string& path, DomainId owner, DomainId reader) {
        TRY(store_.remove(path));  // nodes keep the rights that they were made with
        TRY(store_.make_directory(path));
        return store_.set_permissions(path, {{.domain = owner}, {.domain = reader, .read = true}});
    }
    Store store_;
};

// The workers that serve an echo backend: children of this process that have a journal.
inline std::vector<pid_t> serving_workers() {
    std::vector<pid_t> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        const auto pid = parse_decimal<std::uint32_t>(entry.path().filename().string());
        if (!pid) continue;
        std::ifstream status(entry.path() / "status");
        std::string line;
        bool ours = false;
        while (std::getline(status, line))
            if (line == "PPid:\t" + std::to_string(::getpid())) ours = true;
        if (!ours) continue;
        std::ifstream maps(entry.path() / "maps");
        std::stringstream text;
        text << maps.rdbuf();
        if (text.str().find("memfd:caisson-journal") != std::string::npos) found.push_back(static_cast<pid_t>(*pid));
    }
    return found;
}

// Workers of any kind, spares too.
inline std::vector<pid_t> child_processes() {
    std::vector<pid_t> found;
    for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream children(thread.path() / "children");
        for (pid_t pid; children >> pid;) found.push_back(pid);
    }
    return found;
}

inline std::size_t open_descriptors() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
}

}  // namespace caisson::test
