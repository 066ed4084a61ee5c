#include "frontends/block/disk.h"

#include <array>
#include <deque>

#include "frontends/block/block.h"
#include "frontends/block/link.h"
#include "ring/endpoint.h"

namespace caisson::block {

using namespace std::chrono_literals;
using frontend::DataPath;

namespace {

constexpr unsigned answers_a_turn = 128;  // of a queue

// A request of any length: its parts are submitted when there is room.
struct Job {
    Disk::Callback done;
    unsigned parts = 0;  // not ended
    int error = 0;
};
struct Part {
    std::shared_ptr<Job> job;
    Operation operation = Operation::read;
    bool secure = false;
    std::uint64_t offset = 0, length = 0;
    iovec data{};
};

// Who waits for a tag.
struct Waiter {
    enum class What : std::uint8_t { nobody, program, job } what = What::nobody;
    std::uint32_t parts = 0;
    iovec one{};              // of a read
    std::vector<iovec> many;  // when there are several
    std::shared_ptr<Job> job;
};

// The control outlives its endpoints: another domain as the backend is another endpoint.
class Lent final : public DeviceControl {
  public:
    explicit Lent(DeviceControl& control) : control_(control) {}
    Status offer(ControlContext& context) override { return control_.offer(context); }
    Result<Handover> connect(ControlContext& context) override { return control_.connect(context); }
    bool connected_at_once() const override { return control_.connected_at_once(); }
    void connected(ControlContext& context) override { control_.connected(context); }
    void disconnect(ControlContext& context) override { control_.disconnect(context); }
    std::vector<std::string> watched_own() const override { return control_.watched_own(); }
    std::vector<std::string> watched_peer() const override { return control_.watched_peer(); }
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override {
        return control_.changed(context);
    }

  private:
    DeviceControl& control_;
};

}  // namespace

class Disk::Impl final : public EndpointHost {
  public:
    Impl(Hypervisor& hypervisor, Store& store, Loop& loop, Options options, DeviceAddress address)
        : hypervisor_(hypervisor),
          store_(store),
          loop_(loop),
          options_(std::move(options)),
          address_(std::move(address)),
          log_(address_.name()),
          control_(make_frontend_control({.queues = options_.queues,
                                          .ring_order = options_.ring_order,
                                          .arena_pages = options_.arena_pages,
                                          .persistent = options_.persistent})),
          journal_(std::make_unique<frontend::ConnectionJournal>()) {}
    ~Impl() override;

    Status start();
    bool connected() const { return path_ && !dead_ && path_->ready(); }

    // ---- EndpointHost: answers are given later ----
    void attach(Handover handover) override;
    void detach() override;
    void update(std::vector<std::byte> message) override;
    void timer(std::optional<std::chrono::milliseconds> delay) override;

    bool owns(Buffer buffer) const { return fits<std::uint32_t>(buffer.first, buffer.pages, requests_->pool().size()); }
    int submit(const Request& request);
    std::span<const Ended> poll();
    void start_job(Part whole, Callback done);
    bool poll_queue(unsigned queue);
    bool arm_queue(unsigned queue);

    // One queue on the loop.
    struct Bell final : Polled {
        Bell(Impl& owner, unsigned number) : disk(owner), queue(number) {}
        bool poll() override { return disk.poll_queue(queue); }
        bool arm() override { return disk.arm_queue(queue); }
        Impl& disk;
        unsigned queue;
        Loop::Handle served;
    };

    Hypervisor& hypervisor_;
    Store& store_;
    Loop& loop_;
    const Options options_;
    DeviceAddress address_;
    Log log_;
    std::unique_ptr<DeviceControl> control_;
    std::unique_ptr<Endpoint> endpoint_;
    Loop::Handle store_watch_, timer_, ticks_;
    std::deque<std::function<void()>> later_;
    Loop::Handle later_handle_;

    std::optional<frontend::KeptMemory> kept_;
    std::optional<frontend::Requests> requests_;
    std::unique_ptr<frontend::ConnectionJournal> journal_;
    std::unique_ptr<DataPath> path_;
    DeviceStats stats_;
    std::vector<std::unique_ptr<Bell>> bells_;
    Geometry geometry_;
    bool dead_ = false;  // the path broke, or is going
    unsigned connections_ = 0;
    std::function<void()> changed_;

    std::array<Waiter, frontend::most_tags> waiters_;
    std::vector<Ended> ended_, told_;
    std::deque<Part> waiting_;  // bounded by what the program asks for

  private:
    void follow_store();
    Status begin();
    Result<std::unique_ptr<DataPath>> open_path(const Handover& handover);
    void serve();
    void drop_path();
    void know(const frontend::Features& features);
    void answer_later(std::function<void()> answer);
    void ended(Tag tag, std::uint64_t cookie, int error);
    void part_ended(const std::shared_ptr<Job>& job, int error);
    void pump();
};

// ---- The device ----------------------------------------------------------------------------------------------------

Status Disk::Impl::start() {
    TRY(store_.watch(own_directory(address_), "own"));
    TRY(begin());
    store_watch_ = loop_.watch(store_.fd(), POLLIN, [this](short) { follow_store(); });
    ticks_ = loop_.every(1s, [this] {
        if (connected()) path_->tick();
    });
    return {};
}

Status Disk::Impl::begin() {
    endpoint_ =
        std::make_unique<Endpoint>(address_, std::make_unique<Lent>(*control_), hypervisor_, store_, *this, log_);
    TRY(store_.watch(peer_directory(address_), "peer"));
    endpoint_->look();
    return {};
}

Disk::Impl::~Impl() {
    drop_path();
    endpoint_->stop();
    endpoint_->detached();  // nobody serves any more
    (void)store_.unwatch(peer_directory(address_), "peer");
    (void)store_.unwatch(own_directory(address_), "own");
    endpoint_.reset();
    later_handle_.reset();
}

void Disk::Impl::follow_store() {
    bool any = false;
    while (store_.take_event()) any = true;
    if (!any) return;
    // Only the toolstack writes who the backend is.
    const auto text = store_.read(own_directory(address_) + "/backend-id").value_or(std::nullopt);
    const auto backend = text ? parse_decimal<std::uint16_t>(*text) : std::nullopt;
    if (backend && DomainId(*backend) != address_.backend && !options_.backend) {
        drop_path();
        later_.clear();
        (void)store_.unwatch(peer_directory(address_), "peer");
        endpoint_.reset();  // gives back what was shared
        address_.backend = DomainId(*backend);
        if (const Status begun = begin(); !begun) log_.peer(begun.error());
        return;
    }
    endpoint_->look();
}

void Disk::Impl::answer_later(std::function<void()> answer) {
    later_.push_back(std::move(answer));
    later_handle_ = loop_.after({}, [this] {
        for (std::size_t left = later_.size(); left > 0 && !later_.empty(); --left) {
            const auto next = std::move(later_.front());
            later_.pop_front();
            next();
        }
    });
}

void Disk::Impl::attach(Handover handover) {
    auto opened = open_path(handover);
    if (!opened) return answer_later([this, error = opened.error()] { endpoint_->failed(error); });
    path_ = std::move(*opened);
    dead_ = false;
    serve();
    know(kept_->read());
    path_->notify_all();
    answer_later([this] { endpoint_->attached(); });
}

Result<std::unique_ptr<DataPath>> Disk::Impl::open_path(const Handover& handover) {
    auto reader = TRY(handover.reader());
    const frontend::Link link = TRY(frontend::read_link(reader));
    Fd memory = TRY(reader.fd());
    if (!kept_) kept_ = TRY(frontend::KeptMemory::map(std::move(memory)));
    if (!requests_) requests_ = TRY(frontend::Requests::attach((*kept_)->disk.entries, link.arena_pages));
    *journal_ = {};
    auto taken = TRY(frontend::take_over(link, reader, hypervisor_, *requests_, *journal_, stats_,
                                         static_cast<unsigned>(options_.patience.count())));
    return std::move(taken.path);
}

void Disk::Impl::serve() {
    for (unsigned i = 0; i < path_->queues(); ++i) {
        Bell& bell = *bells_.emplace_back(std::make_unique<Bell>(*this, i));
        bell.served = loop_.serve(bell, {&path_->channel(i)});
    }
}

void Disk::Impl::drop_path() {
    dead_ = true;
    bells_.clear();
    path_.reset();
}

void Disk::Impl::detach() {
    drop_path();
    answer_later([this] { endpoint_->detached(); });
}

void Disk::Impl::timer(std::optional<std::chrono::milliseconds> delay) {
    timer_.reset();
    if (delay) timer_ = loop_.after(*delay, [this] { endpoint_->expired(); });
}

void Disk::Impl::update(std::vector<std::byte> message) {
    frontend::Features features;
    if (!path_ || dead_ || message.size() != sizeof features) return;
    std::memcpy(&features, message.data(), sizeof features);
    know(features);
}

void Disk::Impl::know(const frontend::Features& features) {
    if (!features.connected) return;
    if (!path_->ready()) ++connections_;
    geometry_ = features.geometry;
    if (const Status known = path_->know(features); !known) {
        dead_ = true;
        return answer_later([this, error = known.error()] { endpoint_->broken(error); });
    }
    answer_later([this] {
        pump();
        if (changed_) changed_();
    });
}

// ---- Requests ------------------------------------------------------------------------------------------------------

bool Disk::Impl::poll_queue(unsigned queue) {
    if (!connected()) return false;
    const auto done = path_->poll(queue, answers_a_turn,
                                  [this](Tag tag, std::uint64_t cookie, int error) { ended(tag, cookie, error); });
    if (!done) {
        dead_ = true;
        answer_later([this, error = done.error()] { endpoint_->broken(error); });
        return false;
    }
    if (!waiting_.empty()) pump();
    return *done > 0;
}

bool Disk::Impl::arm_queue(unsigned queue) {
    if (!connected()) return false;
    const auto work = path_->arm(queue);
    if (work) return *work;
    dead_ = true;
    answer_later([this, error = work.error()] { endpoint_->broken(error); });
    return false;
}

void Disk::Impl::ended(Tag tag, std::uint64_t cookie, int error) {
    Waiter& waiter = waiters_[tag.raw];
    if (error == 0 && waiter.parts != 0)
        path_->copy_out(tag, 0, waiter.parts == 1 ? std::span(&waiter.one, 1) : std::span(waiter.many));
    switch (std::exchange(waiter.what, Waiter::What::nobody)) {
        case Waiter::What::nobody: return;  // told before: it had expired
        case Waiter::What::program: return ended_.push_back({cookie, error});
        case Waiter::What::job: return part_ended(std::exchange(waiter.job, nullptr), error);
    }
}

int Disk::Impl::submit(const Request& request) {
    if (!connected()) return EAGAIN;
    if (const int error = path_->check(request.operation, request.secure, request.offset, request.length)) return error;
    if (request.buffer && !owns(*request.buffer)) return EINVAL;
    const bool moves_data = request.operation != Operation::flush && request.operation != Operation::discard;
    const iovec one{request.data.data(), request.data.size()};
    std::span<const iovec> data = request.parts;
    if (!request.data.empty()) data = {&one, 1};
    if (request.buffer) data = {};
    std::uint64_t bytes = request.buffer ? request.buffer->pages * page_size : 0;
    for (const iovec& part : data) bytes += part.iov_len;
    if (moves_data && (request.buffer ? bytes < request.length : bytes != request.length)) return EINVAL;
    if (data.size() > 64) return EINVAL;

    const bool read = request.operation == Operation::read;
    const auto tag = path_->submit({.operation = request.operation,
                                    .secure = request.secure,
                                    .offset = request.offset,
                                    .length = request.length,
                                    .cookie = request.cookie,
                                    .buffer = request.buffer ? std::optional(request.buffer->first) : std::nullopt},
                                   read || !moves_data ? std::span<const iovec>() : data);
    if (!tag) return EAGAIN;
    Waiter& waiter = waiters_[tag->raw];
    waiter.what = Waiter::What::program;
    waiter.parts = read ? static_cast<std::uint32_t>(data.size()) : 0;
    if (waiter.parts == 1) waiter.one = data[0];
    if (waiter.parts > 1) waiter.many.assign(data.begin(), data.end());
    return 0;
}

std::span<const Disk::Ended> Disk::Impl::poll() {
    if (connected())
        for (unsigned i = 0; i < path_->queues() && !dead_; ++i) (void)poll_queue(i);
    told_.clear();
    told_.swap(ended_);
    return told_;
}

// ---- Jobs ----------------------------------------------------------------------------------------------------------

void Disk::Impl::start_job(Part whole, Callback done) {
    const auto job = std::make_shared<Job>(std::move(done));
    const bool cut = whole.operation == Operation::read || whole.operation == Operation::write;
    const std::uint64_t most = frontend::pages_a_request / 2 * page_size;
    do {
        Part part = whole;
        part.job = job;
        if (cut) part.data.iov_len = part.length = std::min(whole.length, most);
        whole.offset += part.length, whole.length -= part.length;
        whole.data.iov_base = static_cast<std::byte*>(whole.data.iov_base) + part.length;
        ++job->parts;
        waiting_.push_back(std::move(part));
    } while (cut && whole.length > 0);
    pump();
}

// Submits what waits, as far as there is room.
void Disk::Impl::pump() {
    while (connected() && !waiting_.empty()) {
        const Part& part = waiting_.front();
        const Request request{.operation = part.operation,
                              .secure = part.secure,
                              .offset = part.offset,
                              .length = part.length,
                              .data = {static_cast<std::byte*>(part.data.iov_base), part.data.iov_len}};
        const int refused = path_->check(request.operation, request.secure, request.offset, request.length);
        if (refused != 0) {
            answer_later([this, job = part.job, refused] { part_ended(job, refused); });
            waiting_.pop_front();
            continue;
        }
        const bool write = part.operation == Operation::write, read = part.operation == Operation::read;
        const auto tag = path_->submit(
            {.operation = part.operation, .secure = part.secure, .offset = part.offset, .length = part.length},
            write ? std::span(&part.data, 1) : std::span<const iovec>());
        if (!tag) break;
        Waiter& waiter = waiters_[tag->raw];
        waiter.what = Waiter::What::job;
        waiter.parts = read ? 1 : 0;
        waiter.one = part.data;
        waiter.job = part.job;
        waiting_.pop_front();
    }
    if (connected()) path_->ring_bells();
}

void Disk::Impl::part_ended(const std::shared_ptr<Job>& job, int error) {
    if (error != 0) job->error = error;
    if (--job->parts > 0) return;
    job->done(job->error == 0 ? Status{} : Status(host_fault(job->error, "disk")));
}

// ---- Disk ----------------------------------------------------------------------------------------------------------

Disk::Disk(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Disk::~Disk() = default;

Result<std::unique_ptr<Disk>> Disk::open(Hypervisor& hypervisor, Store& store, Loop& loop, Options options) {
    DeviceAddress address{.device_class = std::string(device_class),
                          .role = Role::frontend,
                          .frontend = hypervisor.self(),
                          .backend = {},
                          .id = options.device};
    const std::string path = own_directory(address);
    const auto text = TRY(store.read(path + "/backend-id"));
    const auto backend = text ? parse_decimal<std::uint16_t>(*text) : std::nullopt;
    if (!backend) return host_fault(ENODEV, "no such disk", path);
    address.backend = options.backend.value_or(DomainId(*backend));
    const auto until = Loop::Clock::now() + options.timeout;
    auto impl = std::make_unique<Impl>(hypervisor, store, loop, std::move(options), std::move(address));
    std::unique_ptr<Disk> disk(new Disk(std::move(impl)));
    TRY(disk->impl_->start());
    while (!disk->connected()) {
        if (Loop::Clock::now() > until) return host_fault(ETIMEDOUT, "no backend for", path);
        loop.turn(10ms);
    }
    return disk;
}

const Geometry& Disk::geometry() const { return impl_->geometry_; }
bool Disk::connected() const { return impl_->connected(); }
unsigned Disk::queues() const { return impl_->path_ ? impl_->path_->queues() : 0; }
std::uint64_t Disk::largest_request() const {
    return std::min(frontend::pages_a_request - 2, impl_->requests_->pool().size()) * page_size;
}
unsigned Disk::reconnects() const { return impl_->connections_ - 1; }
void Disk::on_change(std::function<void()> changed) { impl_->changed_ = std::move(changed); }

Result<Disk::Buffer> Disk::buffer(std::size_t bytes) {
    const std::size_t pages = (bytes + page_size - 1) / page_size;
    if (pages == 0 || pages > frontend::pages_a_request) return host_fault(EINVAL, "buffer");
    const auto first = impl_->requests_->pool().take_run(static_cast<std::uint32_t>(pages));
    if (!first) return host_fault(ENOSPC, "buffer");
    return Buffer{*first, static_cast<std::uint32_t>(pages)};
}
void Disk::give_back(Buffer buffer) {
    if (impl_->owns(buffer)) impl_->requests_->pool().give_back_run(buffer.first, buffer.pages);
}
SharedSpan Disk::memory(Buffer buffer) const {
    return impl_->path_ ? impl_->path_->memory(buffer.first, buffer.pages) : SharedSpan();
}

int Disk::submit(const Request& request) { return impl_->submit(request); }
void Disk::doorbell() {
    if (impl_->connected()) impl_->path_->ring_bells();
}
std::span<const Disk::Ended> Disk::poll_rings() { return impl_->poll(); }

void Disk::read(std::uint64_t offset, std::span<std::byte> into, Callback done) {
    impl_->start_job({.job = {},
                      .operation = Operation::read,
                      .offset = offset,
                      .length = into.size(),
                      .data = {into.data(), into.size()}},
                     std::move(done));
}
void Disk::write(std::uint64_t offset, std::span<const std::byte> from, Callback done) {
    impl_->start_job({.job = {},
                      .operation = Operation::write,
                      .offset = offset,
                      .length = from.size(),
                      .data = {const_cast<std::byte*>(from.data()), from.size()}},  // only read from
                     std::move(done));
}
void Disk::flush(Callback done) { impl_->start_job({.job = {}, .operation = Operation::flush}, std::move(done)); }
void Disk::discard(std::uint64_t offset, std::uint64_t length, Callback done, bool secure) {
    impl_->start_job({.job = {}, .operation = Operation::discard, .secure = secure, .offset = offset, .length = length},
                     std::move(done));
}

}  // namespace caisson::block
