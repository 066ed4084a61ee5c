#include <sys/syscall.h>

#include "frontends/block/bells.h"
#include "frontends/block/block.h"
#include "frontends/block/fuse_server.h"
#include "frontends/block/link.h"
#include "frontends/block/nbd_server.h"

namespace caisson::block {

using namespace std::chrono_literals;

namespace frontend {
namespace {

constexpr unsigned answers_a_turn = 128;  // of a queue
constexpr unsigned messages_a_turn = 32;  // of the attachment
constexpr unsigned patience = 30;         // seconds, for a silent backend

Result<std::unique_ptr<AttachmentServer>> serve_attachment_of(const Link& link, Fd fd, Inbox& inbox, DataPath& path) {
    switch (link.attachment) {
        case Attachment::Kind::none: break;
        case Attachment::Kind::fuse: return std::make_unique<FuseServer>(std::move(fd), inbox, path);
        case Attachment::Kind::nbd: return NbdServer::open(std::move(fd), inbox, path);
    }
    return nullptr;
}

class FrontendWorker final : public DeviceWorker {
  public:
    explicit FrontendWorker(WorkerContext context) : context_(std::move(context)) {}
    Status open(HandoverReader& handover);
    Status start();
    Status update(std::span<const std::byte> message) override;
    bool poll_queue(unsigned queue);
    bool arm_queue(unsigned queue);

  private:
    ConnectionJournal& journal() { return *reinterpret_cast<ConnectionJournal*>(context_.journal.data()); }
    bool serving() const { return !dead_ && path_->ready(); }
    void serve_attachment();
    void listen();
    void fail(const Error& error) {
        attachment_.reset();
        listens_for_ = 0;
        if (!std::exchange(dead_, true)) context_.broken(error);
    }

    WorkerContext context_;
    std::optional<KeptMemory> kept_;
    std::optional<Requests> requests_;
    std::unique_ptr<DataPath> path_;
    std::unique_ptr<AttachmentServer> server_;
    Bells<FrontendWorker> bells_;
    Loop::Handle attachment_, ticks_;
    short listens_for_ = 0;
    bool dead_ = false, full_ = false, gone_ = false;
};

Status FrontendWorker::open(HandoverReader& handover) {
    if (context_.journal.size() < sizeof(ConnectionJournal)) return host_fault(EBADMSG, "journal too small");
    const Link link = TRY(read_link(handover));
    Fd memory = TRY(handover.fd());
    kept_ = TRY(KeptMemory::map(std::move(memory)));
    requests_ = TRY(Requests::attach((*kept_)->disk.entries, link.arena_pages));
    TakenOver taken =
        TRY(take_over(link, handover, context_.hypervisor, *requests_, journal(), context_.stats, patience));
    path_ = std::move(taken.path);
    server_ = TRY(serve_attachment_of(link, std::move(taken.attachment), (*kept_)->disk.inbox, *path_));
    return {};  // NOLINT(clang-analyzer-cplusplus.NewDeleteLeaks): it loses sight of the pointer in TRY
}

Status FrontendWorker::start() {
    bells_.serve(context_.loop, *path_, *this);
    ticks_ = context_.loop.every(1s, [this] {
        if (serving()) path_->tick();
    });
    TRY(path_->know(kept_->read()));
    path_->notify_all();
    serve_attachment();  // a predecessor's message is in no descriptor any more
    return {};
}

Status FrontendWorker::update(std::span<const std::byte> message) {
    Features features;
    if (message.size() != sizeof features) return host_fault(EBADMSG, "update");
    std::memcpy(&features, message.data(), sizeof features);
    if (dead_) return {};
    if (const Status known = path_->know(features); !known)
        fail(known.error());
    else
        serve_attachment();
    return {};
}

// Not for messages that would find no room, but for room to answer.
void FrontendWorker::listen() {
    const bool deaf = !server_ || !serving() || gone_;
    const auto wanted = static_cast<short>(deaf ? 0 : server_->waits_for() | (full_ ? 0 : POLLIN));
    if (wanted == listens_for_) return;
    listens_for_ = wanted;
    attachment_.reset();
    if (wanted != 0)
        attachment_ = context_.loop.watch(server_->wait_fd(), wanted, [this](short) { serve_attachment(); });
}

void FrontendWorker::serve_attachment() {
    if (!server_ || !serving() || gone_) return;
    const AttachmentServer::Served served = server_->serve(messages_a_turn);
    path_->ring_bells();
    full_ = served.full;
    gone_ = served.gone;
    listen();
}

bool FrontendWorker::poll_queue(unsigned queue) {
    if (!serving()) return false;
    const auto done = path_->poll(queue, answers_a_turn, [this](Tag tag, std::uint64_t cookie, int error) {
        if (server_) server_->ended(tag, cookie, error);
    });
    if (!done) return fail(done.error()), false;
    if (*done == 0) return false;
    full_ ? serve_attachment() : listen();
    return true;
}

bool FrontendWorker::arm_queue(unsigned queue) {
    if (!serving()) return false;
    const auto work = path_->arm(queue);
    if (!work) return fail(work.error()), false;
    if (!*work) context_.stats.queue[queue].sleeps.add(1);
    return *work;
}

Result<std::unique_ptr<DeviceWorker>> serve_frontend(WorkerContext context, HandoverReader& handover) {
    auto worker = std::make_unique<FrontendWorker>(std::move(context));
    TRY(worker->open(handover));
    TRY(worker->start());
    return worker;
}

}  // namespace
}  // namespace frontend

ClassHalf frontend_half() {
    return {.control = [] { return make_frontend_control({.attachment = frontend::open_attachment}); },
            .serve = frontend::serve_frontend,
            .policy =
                [] {
                    // recvmsg() and sendmsg(), which every worker may use, with the count where a successor finds it.
                    return WorkerPolicy{.system_calls = {SYS_recvmmsg, SYS_sendmmsg}};
                }};
}

}  // namespace caisson::block
