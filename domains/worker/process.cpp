#include "domains/worker/process.h"

#include <liburing.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>

namespace caisson {

using namespace std::chrono_literals;

namespace {

// A worker may have been taken over by its guest: it says little, hands nothing over, and its log has an end.
constexpr Mailbox::Limits from_worker{.bytes = 1024, .descriptors = 0, .turn = 16};
constexpr std::size_t log_bytes = 64 * 1024;
constexpr auto log_window = 10s;
constexpr auto arm_patience = 60s;  // far beyond a start-up on an emulated or crowded machine

}  // namespace

Result<std::unique_ptr<WorkerHandle>> WorkerHandle::start(Loop& loop, const WorkerOptions& options,
                                                          std::string_view device_class, Role role, Log& log,
                                                          Handlers handlers) {
    auto [ours, theirs] = TRY(make_mail_sockets());
    int output[2];
    // Not blocking at their end: a worker whose controller is busy drops log lines and goes on.
    if (::pipe2(output, O_CLOEXEC | O_NONBLOCK) != 0) return host_fault(errno, "pipe");
    Fd log_reader(output[0]);
    const Fd log_writer(output[1]);
    Isolated process = TRY(spawn_isolated(
        {.path = options.program, .arguments = options.arguments, .control = theirs.get(), .log = log_writer.get()}));
    const std::string name = std::string(device_class) + (role == Role::backend ? " backend" : " frontend") + " worker";
    std::unique_ptr<WorkerHandle> worker(new WorkerHandle(loop, name, log, std::move(process), std::move(handlers)));
    WorkerHandle* self = worker.get();
    self->xen_ = options.port == PortKind::xen;
    self->output_ = std::move(log_reader);
    self->log_readable_ = loop.watch(self->output_.get(), POLLIN, [self](short events) { self->copy_log(events); });
    self->mailbox_ =
        std::make_unique<Mailbox>(loop, std::move(ours), from_worker,
                                  Mailbox::Handlers{.received = [self](Mail mail) { self->receive(std::move(mail)); },
                                                    .closed = [self](const char* why) { self->kill(why); }});
    const HelloBody hello{.namespaces = self->process_.namespaces,
                          .port = static_cast<std::uint32_t>(options.port),
                          .role = static_cast<std::uint32_t>(role),
                          .device_class = class_bytes(device_class)};
    self->mailbox_->send(MailKind::hello, 0, std::as_bytes(std::span(&hello, 1)));
    return worker;
}

WorkerHandle::WorkerHandle(Loop& loop, std::string name, Log& log, Isolated process, Handlers handlers)
    : loop_(loop), name_(std::move(name)), log_(log), process_(std::move(process)), handlers_(std::move(handlers)) {
    death_ = loop_.watch(process_.pidfd.get(), POLLIN, [this](short) { dead(); });
    patience_ = loop_.after(arm_patience, [this] { kill("was not armed in time"); });
}

WorkerHandle::~WorkerHandle() {
    if (!reaped_) {
        ::syscall(SYS_pidfd_send_signal, process_.pidfd.get(), SIGKILL, nullptr, 0);
        siginfo_t info;
        ::waitid(P_PIDFD, static_cast<id_t>(process_.pidfd.get()), &info, WEXITED);
    }
    let_go();
}

void WorkerHandle::kill(const char* why) {
    // The socket of a process that dies closes just before its pidfd becomes readable: only say what is news.
    siginfo_t info{};
    const bool ended =
        ::waitid(P_PIDFD, static_cast<id_t>(process_.pidfd.get()), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid != 0;
    if (!ended && std::string_view(why) != "has closed its socket")
        log_.peer(name_ + " " + std::to_string(process_.pid) + " is killed: it " + why);
    ::syscall(SYS_pidfd_send_signal, process_.pidfd.get(), SIGKILL, nullptr, 0);
}

void WorkerHandle::dead() {
    copy_log(POLLIN);  // its last words
    siginfo_t info{};
    ::waitid(P_PIDFD, static_cast<id_t>(process_.pidfd.get()), &info, WEXITED);
    reaped_ = true;
    death_.reset();
    patience_.reset();
    log_readable_.reset();
    const std::string how = info.si_code == CLD_EXITED ? "exit status " + std::to_string(info.si_status)
                                                       : "signal " + std::to_string(info.si_status);
    log_.peer(name_ + " " + std::to_string(process_.pid) + " ended with " + how);
    const auto died = std::move(handlers_.died);  // destroys us
    died(info.si_code == CLD_EXITED || info.si_status != SIGKILL);
}

// Taking a mount namespace down waits for the whole machine (RCU), and the process that held it last has to wait before
// it counts as dead. So we hold it, too, and have the kernel close it when nobody waits.
void WorkerHandle::let_go() {
    if (!mounts_) return;
    loop_.submit(
        [fd = mounts_.release()](io_uring_sqe* entry) {
            io_uring_prep_close(entry, fd);
            entry->flags |= IOSQE_ASYNC;
        },
        [](int) {});
}

void WorkerHandle::receive(Mail mail) {
    if (mail.kind == MailKind::armed) return arm();
    if (armed_) handlers_.received(std::move(mail));
}

void WorkerHandle::arm() {
    if (armed_) return;
    const auto seen = inspect(process_.pid);
    const Status sealed = seen ? verify(*seen, process_.namespaces, xen_) : Status(std::unexpected(seen.error()));
    mounts_.reset(::open(("/proc/" + std::to_string(process_.pid) + "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC));
    if (!sealed) return kill(("is not sealed: " + sealed.error().message()).c_str());
    armed_ = true;
    patience_.reset();
    handlers_.armed();
}

// The worker's standard error: bounded, and made harmless, since a worker may have been taken over (XSA-180).
void WorkerHandle::copy_log(short events) {
    std::array<char, 4096> text;
    const auto length = ::read(output_.get(), text.data(), text.size());
    if (length <= 0) {
        if (length == 0 || errno != EAGAIN || (events & POLLHUP) != 0) log_readable_.reset();
        return;
    }
    const auto now = Loop::Clock::now();
    if (now - log_window_ > log_window) log_window_ = now, logged_ = 0;
    const auto count = std::min(static_cast<std::size_t>(length), log_bytes - std::min(logged_, log_bytes));
    logged_ += static_cast<std::size_t>(length);
    for (char& c : std::span(text).first(count))
        if ((c < 0x20 || c > 0x7e) && c != '\n') c = '?';
    if (count > 0) (void)!::write(STDERR_FILENO, text.data(), count);
}

}  // namespace caisson
