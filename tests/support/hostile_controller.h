// One controller under attack, and a neighbour pair of other domains beside it that must not notice.
#pragma once

#include "tests/support/controller_rig.h"

namespace caisson::test {

// Everything runs in this process: descriptors, grants, ports and mappings can be counted.
class UnderAttack {
  public:
    explicit UnderAttack(Role victim) : victim_(victim) {
        if (victim == Role::backend)
            devd_.emplace(back, ControllerThread::Roles{.backends = true}, ControllerThread::Where::this_thread);
        else
            devd_.emplace(neighbour, ControllerThread::Roles{.backends = true}, ControllerThread::Where::this_thread);
        frontd_.emplace(victim == Role::backend ? neighbour : front, ControllerThread::Roles{.frontends = true},
                        ControllerThread::Where::this_thread);
        toolstack.attach(back.id, front.id, 0);
        // The neighbour shares the victim's controller, and has an honest peer.
        if (victim == Role::backend)
            toolstack.attach(back.id, neighbour.id, 1);
        else
            toolstack.attach(neighbour.id, front.id, 1);
        if (!eventually([&] { return neighbour_connected(); })) throw std::runtime_error("the neighbour is not served");
    }

    LocalXen xen;
    LocalXen::Domain back = xen.domain(), front = xen.domain(), neighbour = xen.domain();
    Toolstack toolstack{xen};

    std::string b() const { return Toolstack::back(back.id, front.id, 0); }
    std::string f() const { return Toolstack::front(front.id, 0); }
    DomainId victim() const { return victim_ == Role::backend ? back.id : front.id; }
    DomainId nb() const { return victim_ == Role::backend ? back.id : neighbour.id; }
    DomainId nf() const { return victim_ == Role::backend ? neighbour.id : front.id; }
    bool neighbour_connected() { return toolstack.connected(nb(), nf(), 1); }
    bool shows(const std::string& path, const std::string& state) {
        return eventually([&] { return toolstack.read(path + "/state") == state; });
    }

    // The controller has looked at everything that was written before: a change on the neighbour went through it. Only
    // for a victim that is a backend.
    bool settled() {
        const std::string colour = std::to_string(++colour_);
        toolstack.write(Toolstack::front(nf(), 1) + "/colour", colour);
        return eventually([&] { return toolstack.read(Toolstack::back(nb(), nf(), 1) + "/shown-colour") == colour; });
    }

    // What the victim holds of the hypervisor, and this whole process of the kernel.
    struct Held {
        std::uint32_t grants, mappings, ports, connections;
        std::size_t descriptors;
        bool operator==(const Held&) const = default;
    };
    Held held() {
        const local::DomainInfo info = xen.info(victim());
        return {info.grants, info.mappings, info.ports, info.connections, open_descriptors()};
    }

  private:
    const Role victim_;
    std::optional<ControllerThread> devd_, frontd_;
    std::uint32_t colour_ = 0;
};

// A frontend by hand: real rings, and the will to misuse them.
class HandmadeFrontend {
  public:
    explicit HandmadeFrontend(UnderAttack& rig)
        : store_(need(Store::open(rig.front.xenstored))),
          page_(need(rig.front.hypervisor->share(rig.back.id, 1, Access::read_write))),
          hypervisor_(*rig.front.hypervisor),
          channel_(need(hypervisor_.allocate_unbound(rig.back.id))),
          directory_(store_, "device/echo/0") {
        announce();
    }
    ~HandmadeFrontend() { hypervisor_.close(std::move(channel_)); }
    void announce() { need(write_keys(directory_, EchoRing{page_.refs()[0], channel_.port()})); }
    void write(const std::string& key, std::string_view value) { need(directory_.write(key, value)); }
    void state(int value) { write("state", std::to_string(value)); }
    void ask(std::uint32_t request) {
        page_.memory().copy_in(0, std::as_bytes(std::span(&request, 1)));
        channel_.notify();
    }

  private:
    Store store_;
    SharedPages page_;
    Hypervisor& hypervisor_;
    EventChannel channel_;
    Directory directory_;
};

// What a hostile peer may put into a node.
inline std::vector<std::string> hostile_values() {
    return {"",
            "0",
            "1",
            "4",
            "9",
            "-1",
            "+4",
            " 4",
            "4 ",
            "0x4",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "\n",
            "%s",
            "../../0",
            "/local/domain/0/name",
            "@releaseDomain",
            std::string("4\0004", 3),
            std::string(1500, '9'),
            std::string(1500, '\xff'),
            "/local/domain/1/backend/echo/2/0",
            "\x1b[2Jroot"};
}

}  // namespace caisson::test
