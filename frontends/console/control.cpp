#include "frontends/console/console.h"

#include "frontends/console/pty.h"
#include "frontends/console/worker.h"
#include "ring/keys.h"

namespace caisson::console {

namespace {

// Keeps the pty from the first offer to the end of the device: programs stay on it while backends come and go.
class FrontendControl final : public DeviceControl {
  public:
    Status offer(ControlContext& context) override {
        if (pty_) return {};
        std::string link =
            TRY(context.own.text(link_key)).value_or("/dev/hvc" + std::to_string(context.address.id.raw));
        if (!valid_path(link)) return host_fault(EINVAL, "console's link", link);
        std::vector<std::string> links{std::move(link)};
        // A channel is found by its name.
        if (const auto name = TRY(context.own.text("name")); name && !name->empty()) {
            if (!valid_name(*name)) return host_fault(EINVAL, "channel name", *name);
            links.push_back("/run/caisson/channel/" + *name);
        }
        pty_ = TRY(GuestPty::open(std::move(links)));
        return {};
    }

    Result<Handover> connect(ControlContext& context) override {
        TRY(offer(context));  // a backend that is in InitWait already gets our rings at once
        page_ = TRY(context.hypervisor.share(context.address.peer(), 1, Access::read_write));
        channel_ = TRY(context.hypervisor.allocate_unbound(context.address.peer()));
        Handover handover;
        TRY(handover.put(page_));
        TRY(handover.put(channel_));
        TRY(handover.put(pty_.master()));
        handover.journal_bytes = sizeof(FrontJournal);
        TRY(write_keys(context.own, Line{.ring_ref = page_.refs().front(), .port = channel_.port()}));
        return handover;
    }

    bool connected_at_once() const override { return false; }  // as Linux' hvc_xen: Initialised first

    void disconnect(ControlContext& context) override {
        (void)remove_keys<Line>(context.own);  // nobody shall map what is about to end
        page_ = {};                            // ended, or into quarantine
        if (channel_) context.hypervisor.close(std::move(channel_));
        channel_ = {};
    }

  private:
    GuestPty pty_;
    SharedPages page_;
    EventChannel channel_;
};

std::unique_ptr<DeviceControl> make_control() { return std::make_unique<FrontendControl>(); }

}  // namespace

ClassHalf frontend_half() { return {.control = make_control, .serve = FrontendWorker::serve, .policy = nullptr}; }

}  // namespace caisson::console
