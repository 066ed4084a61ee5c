#include "frontends/block/disk_impl.h"

namespace caisson::block {

using namespace std::chrono_literals;

namespace {
constexpr unsigned answers_a_turn = 128;  // of a queue
}  // namespace

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
    auto impl = std::make_unique<Impl>(hypervisor, store, loop, options, std::move(address));
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
