// A driver domain with one disk on a real local hypervisor and xenstored, and a guest that writes its keys and its
// rings by hand. Turn by turn in one thread; no controller, no endpoint.
#pragma once

#include "tests/support/block_backend_alone.h"
#include "tests/support/local_xen.h"

namespace caisson::test {

struct BlockBackendWorld {
    explicit BlockBackendWorld(const std::string& params = "memory:1M") {
        own.write("params", params).value();
        own.write("mode", std::string_view("w")).value();
        own.write("frontend-id", 2u).value();
        need(front_store.make_directory(frontend_path));
        need(front_store.set_permissions(frontend_path, {{.domain = front.id}, {.domain = back.id, .read = true}}));
    }
    ControlContext context() {
        return {.hypervisor = *back.hypervisor, .own = own, .peer = peer, .address = address, .log = log};
    }
    Status offer() {
        auto lent = context();
        return control->offer(lent);
    }
    Result<Handover> connect() {
        auto lent = context();
        return control->connect(lent);
    }
    void disconnect() {
        auto lent = context();
        control->disconnect(lent);
    }
    void say(const std::string& key, const std::string& value) {
        need(front_store.write(frontend_path + "/" + key, value));
    }
    void forget() {
        need(front_store.remove(frontend_path));
        need(front_store.make_directory(frontend_path));
        need(front_store.set_permissions(frontend_path, {{.domain = front.id}, {.domain = back.id, .read = true}}));
    }
    std::string published(std::string_view key) { return need(own.text(key)).value_or(""); }

    // The guest's side of one queue, under `prefix`.
    struct Queue {
        SharedPages pages;
        EventChannel channel;
        BlockRing<block::Native> ring;
    };
    Queue queue(const std::string& prefix, unsigned pages, bool numbered) {
        auto shared = need(front.hypervisor->share(back.id, pages, Access::read_write));
        auto channel = need(front.hypervisor->allocate_unbound(back.id));
        for (unsigned i = 0; i < pages; ++i)
            say(prefix + "ring-ref" + (numbered ? std::to_string(i) : ""), std::to_string(shared.refs()[i].raw));
        say(prefix + "event-channel", std::to_string(channel.port().raw));
        const SharedSpan memory = shared.memory();
        return {std::move(shared), std::move(channel), BlockRing<block::Native>(memory)};
    }
    // As the controller's process would: a worker with a restricted hypervisor of its own.
    struct Serving {
        std::unique_ptr<Hypervisor> hypervisor;
        std::vector<block::backend::QueueHead> journal;
        std::unique_ptr<DeviceWorker> worker;
    };
    Serving serve(const Handover& handover) {
        Serving out;
        out.hypervisor = need(local::open_restricted(need(back.hypervisor->restrict_to(std::span(&front.id, 1)))));
        out.journal.resize(handover.journal_bytes / sizeof(block::backend::QueueHead) + 1);
        auto reader = need(handover.reader());
        out.worker = need(block::backend_half().serve(
            {.loop = *loop,
             .hypervisor = *out.hypervisor,
             .address = address,
             .journal = std::as_writable_bytes(std::span(out.journal)),
             .successor = false,
             .stats = stats,
             .log = log,
             .broken = [this](const Error& error) { faults.push_back(error); },
             .publish = [this](std::string_view key, std::string_view value) { need(own.write(key, value)); },
             .group = group},
            reader));
        return out;
    }
    void turns(unsigned count = 3) {
        for (unsigned i = 0; i < count; ++i) (void)loop->turn({});
    }

    LocalXen xen;
    LocalXen::Domain back = xen.domain(), front = xen.domain();
    Store back_store = need(Store::open(back.xenstored)), front_store = need(Store::open(front.xenstored));
    const std::string frontend_path = "/local/domain/2/device/vbd/51712";
    Directory own{back_store, "/local/domain/1/backend/vbd/2/51712"}, peer{back_store, frontend_path};
    DeviceAddress address{.device_class = "vbd",
                          .role = Role::backend,
                          .frontend = DomainId(2),
                          .backend = DomainId(1),
                          .id = DeviceId(51712)};
    Log log{"vbd under test"};
    std::unique_ptr<DeviceControl> control = block::backend_half().control();
    std::unique_ptr<Loop> loop = need(Loop::make());
    DeviceStats stats;
    std::shared_ptr<void> group;
    std::vector<Error> faults;
};

}  // namespace caisson::test
