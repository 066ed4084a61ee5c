// The smallest device class: a page with a counter that the frontend raises and the backend copies. For tests of
// controllers and workers, which know no class.
//
// Page: {u32 request, u32 response}. The backend's journal is {u64 attaches, u64 served}. A request of `poison` breaks
// the rules; one of `deadly` makes the backend's worker end at once, as a bug would.
#pragma once

#include <algorithm>
#include <array>

#include "domains/worker/worker.h"
#include "ring/device.h"
#include "ring/keys.h"
#include "tests/support/child.h"

namespace caisson::test {

inline constexpr std::uint32_t poison = 0xFFFF'FFFF, deadly = 0xFFFF'FFFE;

struct EchoRing {
    GrantRef ring{};
    Port channel{};
    static constexpr auto keys() {
        return std::tuple{needed("ring-ref", &EchoRing::ring), needed("event-channel", &EchoRing::channel)};
    }
};

// What a test may count: how often each call came, in this process.
struct EchoCalls {
    std::atomic<int> controls{0}, offers{0}, connects{0}, disconnects{0}, changes{0}, connected{0};
};
inline EchoCalls& echo_calls(Role role) {
    static std::array<EchoCalls, 2> calls;
    return calls[static_cast<std::size_t>(role)];
}

class EchoBackend final : public DeviceControl {
  public:
    Status offer(ControlContext& context) override {
        ++echo_calls(Role::backend).offers;
        group_ = TRY(context.own.text("group")).value_or("");
        return context.own.write("echo-version", 1);
    }
    Result<Handover> connect(ControlContext& context) override {
        ++echo_calls(Role::backend).connects;
        const auto ring = TRY(read_keys<EchoRing>(context.peer));
        channel_ = TRY(context.hypervisor.bind_interdomain(context.address.frontend, ring.channel));
        Handover handover;
        handover.put(ring.ring);
        TRY(handover.put(channel_));
        handover.journal_bytes = 2 * sizeof(std::uint64_t);
        return handover;
    }
    void connected(ControlContext&) override { ++echo_calls(Role::backend).connected; }
    void disconnect(ControlContext& context) override {
        ++echo_calls(Role::backend).disconnects;
        context.hypervisor.close(std::move(channel_));
    }
    std::vector<std::string> watched_peer() const override { return {"colour"}; }
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override {
        ++echo_calls(Role::backend).changes;
        const auto colour = TRY(context.peer.number("colour", 0));
        const auto bytes = std::as_bytes(std::span(&colour, 1));
        return std::vector<std::byte>(bytes.begin(), bytes.end());
    }
    bool worker_may_publish(std::string_view key) const override { return key == "attaches" || key == "shown-colour"; }
    std::string worker_group() const override { return group_; }

  private:
    EventChannel channel_;
    std::string group_;
};

class EchoBackendWorker final : public DeviceWorker, Polled {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& reader) {
        std::unique_ptr<EchoBackendWorker> self(new EchoBackendWorker(std::move(context)));
        const auto ref = TRY(reader.value<GrantRef>());
        self->channel_ = TRY(reader.channel());
        const GrantRef refs[] = {ref};
        self->page_ = TRY(self->context_.hypervisor.map(self->context_.address.peer(), refs, Access::read_write));
        self->count(0);
        self->context_.publish("attaches", std::to_string(self->journal(0)));
        self->handle_ = self->context_.loop.serve(*self, {&self->channel_});
        self->channel_.notify();
        return self;
    }
    Status update(std::span<const std::byte> message) override {
        std::uint32_t colour = 0;
        std::memcpy(&colour, message.data(), sizeof colour);
        context_.publish("shown-colour", std::to_string(colour));
        return {};
    }

  private:
    explicit EchoBackendWorker(WorkerContext context) : context_(std::move(context)) {}
    std::uint64_t journal(std::size_t i) const {
        std::uint64_t value;
        std::memcpy(&value, context_.journal.data() + i * sizeof value, sizeof value);
        return value;
    }
    void count(std::size_t i) {
        const std::uint64_t value = journal(i) + 1;
        std::memcpy(context_.journal.data() + i * sizeof value, &value, sizeof value);
    }
    bool poll() override {
        std::uint32_t request = 0, response = 0;
        if (broken_) return false;
        page_.memory().copy_out(0, std::as_writable_bytes(std::span(&request, 1)));
        page_.memory().copy_out(4, std::as_writable_bytes(std::span(&response, 1)));
        if (request == response) return false;
        if (request == poison) {
            broken_ = true;
            context_.broken(peer_fault("counter", request, Wanted::at_most, deadly - 1).error());
            return false;
        }
        if (request == deadly) ::_exit(7);
        count(1);
        page_.memory().copy_in(4, std::as_bytes(std::span(&request, 1)));
        context_.stats.queue[0].requests.add(1);
        channel_.notify();
        return true;
    }
    bool arm() override { return false; }

    WorkerContext context_;
    EventChannel channel_;
    MappedPages page_;
    bool broken_ = false;
    Loop::Handle handle_;
};

class EchoFrontend final : public DeviceControl {
  public:
    EchoFrontend() { ++echo_calls(Role::frontend).controls; }
    Status offer(ControlContext&) override {
        ++echo_calls(Role::frontend).offers;
        return {};
    }
    Result<Handover> connect(ControlContext& context) override {
        ++echo_calls(Role::frontend).connects;
        if (TRY(context.peer.number("echo-version", 1)) != 1) return unsupported("echo version");
        page_ = TRY(context.hypervisor.share(context.address.backend, 1, Access::read_write));
        channel_ = TRY(context.hypervisor.allocate_unbound(context.address.backend));
        TRY(write_keys(context.own, EchoRing{.ring = page_.refs()[0], .channel = channel_.port()}));
        Handover handover;
        TRY(handover.put(page_));
        TRY(handover.put(channel_));
        return handover;
    }
    bool connected_at_once() const override { return false; }
    void connected(ControlContext&) override { ++echo_calls(Role::frontend).connected; }
    void disconnect(ControlContext& context) override {
        ++echo_calls(Role::frontend).disconnects;
        static_cast<void>(remove_keys<EchoRing>(context.own));
        page_ = {};
        context.hypervisor.close(std::move(channel_));
    }

  private:
    SharedPages page_;
    EventChannel channel_;
};

// Raises the counter each time the backend has answered, at most once a millisecond.
class EchoFrontendWorker final : public DeviceWorker, Polled {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& reader) {
        std::unique_ptr<EchoFrontendWorker> self(new EchoFrontendWorker(std::move(context)));
        self->page_ = TRY(reader.pages(self->context_.hypervisor));
        self->channel_ = TRY(reader.channel());
        self->handle_ = self->context_.loop.serve(*self, {&self->channel_});
        self->timer_ = self->context_.loop.every(std::chrono::milliseconds(1), [raw = self.get()] { raw->ask(); });
        return self;
    }

  private:
    explicit EchoFrontendWorker(WorkerContext context) : context_(std::move(context)) {}
    bool poll() override { return false; }
    bool arm() override { return false; }
    void ask() {
        std::uint32_t request = 0, response = 0;
        page_.memory().copy_out(0, std::as_writable_bytes(std::span(&request, 1)));
        page_.memory().copy_out(4, std::as_writable_bytes(std::span(&response, 1)));
        if (request == response) {
            ++request;
            context_.stats.queue[0].requests.add(1);
            page_.memory().copy_in(0, std::as_bytes(std::span(&request, 1)));
        }
        channel_.notify();
    }

    WorkerContext context_;
    SharedPages page_;
    EventChannel channel_;
    Loop::Handle handle_, timer_;
};

template <class Control>
std::unique_ptr<DeviceControl> make_control() {
    return std::make_unique<Control>();
}

inline Catalogue echo_catalogue() {
    static constexpr ClassEntry entries[] = {
        {.name = "echo",
         .frontend = {.control = make_control<EchoFrontend>, .serve = EchoFrontendWorker::serve},
         .backend = {.control = make_control<EchoBackend>, .serve = EchoBackendWorker::serve}}};
    return entries;
}

inline const bool echo_worker = add_child("worker", [](int, char**) { return run_worker(3, echo_catalogue()); });

}  // namespace caisson::test
