// A local hypervisor of one's own, in a thread of the test, and as many domains as a test wants. Needs no root.
//
//     LocalXen xen;
//     auto back = xen.domain(), front = xen.domain();
//     auto pages = front.hypervisor->share(back.id, 1, Access::read_write);
//     setenv XENSTORED_PATH or Store::open(front.xenstored) speaks to the store as that domain.
//     xen.destroy(back);      // the domain dies: everything it had is released
//
// Each domain's Hypervisor belongs to whoever uses it (one thread); several can be opened on back.hypervisor_socket, as
// several processes of one domain would do. Domains have no process: destroy() is their only death. In the store,
// /local/domain/<id> belongs to the domain, so that it may write below it.
//
// Destroy everything that came from a domain's Hypervisor before the LocalXen.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "domains/hypervisor/broker.h"
#include "ring/local/control.h"
#include "ring/local/port.h"
#include "ring/store.h"

namespace caisson::test {

// The value, or the test ends with the error's own words.
template <class T>
T need(Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message());
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

class LocalXen {
  public:
    struct Domain {
        DomainId id{};
        std::uint32_t generation = 0;
        std::string hypervisor_socket;           // for local::open
        std::string xenstored;                   // for Store::open, and XENSTORED_PATH
        std::unique_ptr<Hypervisor> hypervisor;  // opened on hypervisor_socket
    };

    explicit LocalXen(hypervisor::Limits limits = {}) : directory_(make_directory()) {
        const std::string dom0 = new_directory("dom0");
        broker_ = need(hypervisor::Broker::make({.hypervisor = need(local::listen_at(dom0 + "/hypervisor")),
                                                 .xenstored = need(local::listen_at(dom0 + "/xenstored", SOCK_STREAM)),
                                                 .limits = limits}));
        thread_ = std::thread([this] { (void)broker_->run(); });
        control_.emplace(need(local::Control::open(dom0 + "/hypervisor")));
    }
    ~LocalXen() {
        stop();
        std::error_code ignored;
        std::filesystem::remove_all(directory_, ignored);
    }
    LocalXen(const LocalXen&) = delete;

    // A new domain. `process`: a pidfd of its PID 1, borrowed; the domain dies with it.
    Domain domain(int process = -1) {
        const std::string home = new_directory("domain" + std::to_string(++created_));
        Domain made{.hypervisor_socket = home + "/hypervisor", .xenstored = home + "/xenstored", .hypervisor = {}};
        const Fd hypervisor = need(local::listen_at(made.hypervisor_socket));
        const Fd store = need(local::listen_at(made.xenstored, SOCK_STREAM));
        const auto identity = need(control_->create_domain(hypervisor.get(), store.get(), process));
        made.id = identity.id;
        made.generation = identity.generation;
        give_home(made.id);
        made.hypervisor = need(local::open(made.hypervisor_socket));
        return made;
    }
    // Dom0, as another process of it would be.
    Domain dom0() {
        Domain made{.id = control_domain,
                    .generation = 1,
                    .hypervisor_socket = directory_ + "/dom0/hypervisor",
                    .xenstored = directory_ + "/dom0/xenstored",
                    .hypervisor = {}};
        made.hypervisor = need(local::open(made.hypervisor_socket));
        return made;
    }
    // Its descriptors stay as they are, like those of a process that has not noticed its death yet.
    void destroy(const Domain& domain) { need(control_->destroy_domain(domain.id, domain.generation)); }

    local::Control& control() { return *control_; }
    local::DomainInfo info(DomainId id) {
        for (const local::DomainInfo& domain : need(control_->list_domains()))
            if (domain.id == id) return domain;
        return {};
    }
    const std::string& directory() const { return directory_; }

    // The hypervisor dies. Look into broker() only afterwards.
    void stop() {
        if (!thread_.joinable()) return;
        broker_->stop();
        thread_.join();
    }
    hypervisor::Broker& broker() { return *broker_; }
    // The same for good: its sockets are closed.
    void crash() {
        stop();
        broker_.reset();
    }

  private:
    static std::string make_directory() {
        std::string path = std::filesystem::temp_directory_path() / "caisson-test-XXXXXX";
        if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
        return path;
    }
    std::string new_directory(const std::string& name) const {
        const std::string path = directory_ + "/" + name;
        std::filesystem::create_directory(path);
        return path;
    }
    // The domain owns /local/domain/<id>.
    void give_home(DomainId id) const {
        Store store = need(Store::open(directory_ + "/dom0/xenstored"));
        need(store.set_permissions("/local/domain/" + std::to_string(id.raw), {{.domain = id}}));
    }

    std::string directory_;
    std::unique_ptr<hypervisor::Broker> broker_;
    std::thread thread_;
    std::optional<local::Control> control_;
    int created_ = 0;
};

}  // namespace caisson::test
