#include "domains/worker/worker.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <map>

#include "domains/sandbox/sandbox.h"
#include "domains/worker/served.h"

namespace caisson {
namespace {

// Both are far beyond what a class asks for; the controller is trusted, a bug of ours shall still end somewhere.
constexpr Mailbox::Limits from_controller{.bytes = 16 << 20, .descriptors = 2048, .turn = 16};

Result<HelloBody> read_hello(int control) {
    struct {
        std::uint32_t kind, device, more, zero;
        HelloBody body;
    } frame{};
    pollfd ready{.fd = control, .events = POLLIN, .revents = 0};
    while (::poll(&ready, 1, -1) < 0 && errno == EINTR) {
    }
    if (::recv(control, &frame, sizeof frame, 0) != sizeof frame ||
        frame.kind != static_cast<std::uint32_t>(MailKind::hello))
        return host_fault(EBADMSG, "the controller's greeting");
    return frame.body;
}

class WorkerProcess {
  public:
    WorkerProcess(std::unique_ptr<Loop> loop, WorkerPort port, Fd control, Catalogue catalogue)
        : loop_(std::move(loop)),
          port_(std::move(port)),
          catalogue_(catalogue),
          mailbox_(*loop_, std::move(control), from_controller,
                   {.received = [this](Mail mail) { receive(std::move(mail)); },
                    .closed = [this](const char*) { loop_->stop(); }}) {}

    void serve() {
        mailbox_.send(MailKind::armed, 0);
        loop_->run();
        devices_.clear();
    }

  private:
    void receive(Mail mail) {
        const std::uint32_t device = mail.device;
        switch (mail.kind) {
            case MailKind::attach:
                if (const Status attached = attach(std::move(mail)); !attached)
                    mailbox_.send(MailKind::failed, device, bytes_of(attached.error()));
                else
                    mailbox_.send(MailKind::attached, device);
                break;
            case MailKind::update:
                if (const auto found = devices_.find(device); found != devices_.end())
                    if (const Status updated = found->second->update(mail.bytes); !updated)
                        mailbox_.send(MailKind::broken, device, bytes_of(updated.error()));
                break;
            case MailKind::detach:
                devices_.erase(device);
                mailbox_.send(MailKind::detached, device);
                break;
            default: break;
        }
    }

    Status attach(Mail mail) {
        const std::uint32_t device = mail.device;
        auto attachment = TRY(read_attach(std::move(mail)));
        const Role role =
            attachment.body.role == static_cast<std::uint32_t>(Role::backend) ? Role::backend : Role::frontend;
        const ClassHalf* half = find(catalogue_, class_name(attachment.body.device_class), role);
        if (!half) return host_fault(ENODEV, "no such class in this worker");
        ServedEvents events{
            .broken = [this, device](const Error& error) { mailbox_.send(MailKind::broken, device, bytes_of(error)); },
            .publish =
                [this, device](std::string_view key, std::string_view value) {
                    const std::string both = std::string(key) + '\0' + std::string(value);
                    mailbox_.send(MailKind::publish, device, std::as_bytes(std::span(both)));
                },
        };
        devices_[device] = TRY(Served::make(*loop_, port_, *half, std::move(attachment), std::move(events), group_));
        return {};
    }

    std::unique_ptr<Loop> loop_;
    WorkerPort port_;
    Catalogue catalogue_;
    Mailbox mailbox_;
    std::shared_ptr<void> group_;
    std::map<std::uint32_t, std::unique_ptr<Served>> devices_;
};

Status work(int control, Catalogue catalogue) {
    if (control != 3 && ::dup2(control, 3) < 0) return host_fault(errno, "the control socket");
    ::syscall(SYS_close_range, 4u, ~0u, 0u);
    ::signal(SIGPIPE, SIG_IGN);  // a notify to a peer that is gone is an error value
    const HelloBody hello = TRY(read_hello(3));
    const Role role = hello.role == static_cast<std::uint32_t>(Role::backend) ? Role::backend : Role::frontend;
    const ClassHalf* half = find(catalogue, class_name(hello.device_class), role);
    if (!half) return host_fault(ENODEV, "no such class in this worker");
    const WorkerPolicy policy = half->policy ? half->policy() : WorkerPolicy{};
    const PortKind kind = hello.port == static_cast<std::uint32_t>(PortKind::xen) ? PortKind::xen : PortKind::local;
    auto port = TRY(WorkerPort::open(kind));
    auto loop = TRY(Loop::make({.spin = policy.spin}));
    TRY(loop->restrict_operations(policy.operations));
    TRY(seal({.namespaces = hello.namespaces != 0, .xen = kind == PortKind::xen, .policy = policy}));
    WorkerProcess process(std::move(loop), std::move(port), Fd(3), catalogue);
    process.serve();
    return {};
}

}  // namespace

int run_worker(int control, Catalogue catalogue) {
    const Status worked = work(control, catalogue);
    if (!worked) Log("worker").say(worked.error().message());
    // Not exit(): a sealed process has nothing to tidy that the kernel does not, and exit handlers know no sandbox.
    ::_exit(worked ? 0 : 1);
}

}  // namespace caisson
