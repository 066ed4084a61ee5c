// An nbdkit plugin: a PV disk of the domain that nbdkit runs in, for every NBD client.
//
//     nbdkit /PATH/nbdkit-caisson-plugin.so disk=xvda
//
// nbdkit's threads (one a request in flight) hand requests to the one thread that owns the Disk and sleep until they
// are answered. All connections share that disk and its backend's cache, so a flush through one covers what was
// answered through any (multi-conn). FUA is a write and a flush, which nbdkit makes of it; the wire has nothing better.
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <atomic>
#include <future>
#include <mutex>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "frontends/block/disk.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

using caisson::Fd;
using caisson::Status;
using caisson::block::Geometry;
using caisson::block::OpenDisk;

// Of a thread of nbdkit, which may end while the disk's thread is still on its way out of release().
using Bell = std::shared_ptr<std::binary_semaphore>;

struct Request {
    enum class What : std::uint8_t { read, write, flush, trim, geometry } what = What::geometry;
    std::uint64_t offset = 0;
    std::span<std::byte> data = {};  // only read from by a write
    std::uint64_t length = 0;        // of a trim
    int error = 0;
    Geometry geometry{};
    Bell answered = {};
};

// The thread that owns the disk.
class Service {
  public:
    int start(std::string disk);  // 0, or -1 and nbdkit has been told
    void stop();
    int ask(Request& request);  // 0 or an errno value

  private:
    void run(const std::string& disk, std::promise<Status> started);
    Status open(const std::string& disk);
    void take();
    void begin(Request& request);
    void trim(Request& request);

    std::thread thread_;
    std::mutex mutex_;
    std::vector<Request*> asked_;  // guarded by mutex_
    std::vector<Request*> taken_;
    Fd bell_;
    OpenDisk disk_;
    caisson::Loop::Handle watch_;
    std::atomic<bool> over_ = false;
};

int Service::start(std::string disk) {
    std::promise<Status> promise;
    auto started = promise.get_future();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are nbdkit's
    thread_ = std::thread(
        [this, disk = std::move(disk), promise = std::move(promise)]() mutable { run(disk, std::move(promise)); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    const Status status = started.get();
    if (status) return 0;
    thread_.join();
    nbdkit_error("%s", status.error().message().c_str());
    return -1;
}

void Service::stop() {
    if (!thread_.joinable()) return;
    over_ = true;
    static_cast<void>(::eventfd_write(bell_.get(), 1));
    thread_.join();
}

void Service::run(const std::string& disk, std::promise<Status> started) {
    Status opened = open(disk);
    const bool good = opened.has_value();
    started.set_value(std::move(opened));
    if (good) disk_.loop->run();
    watch_.reset();
    disk_ = {};
}

Status Service::open(const std::string& disk) {
    bell_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!bell_) return caisson::host_fault(errno, "eventfd");
    disk_ = TRY(caisson::block::open_disk(disk));
    watch_ = disk_.loop->watch(bell_.get(), POLLIN, [this](short) { take(); });
    return {};
}

int Service::ask(Request& request) {
    static thread_local const Bell answered = std::make_shared<std::binary_semaphore>(0);
    request.answered = answered;
    bool first = false;
    {
        const std::scoped_lock lock(mutex_);
        first = asked_.empty();
        asked_.push_back(&request);
    }
    if (first) static_cast<void>(::eventfd_write(bell_.get(), 1));
    answered->acquire();
    return request.error;
}

void Service::take() {
    eventfd_t rung = 0;
    static_cast<void>(::eventfd_read(bell_.get(), &rung));  // before looking: what comes later rings again
    if (over_) return disk_.loop->stop();
    {
        const std::scoped_lock lock(mutex_);
        taken_.swap(asked_);
    }
    for (Request* const request : taken_) begin(*request);
    taken_.clear();
}

// The request is its thread's: gone when that is awake.
void finish(Request& request, int error) {
    const Bell bell = request.answered;
    request.error = error;
    bell->release();
}

void Service::begin(Request& request) {
    const auto done = [&request](const Status& status) { finish(request, status ? 0 : status.error().err); };
    auto& disk = *disk_.disk;
    switch (request.what) {
        case Request::What::read: return disk.read(request.offset, request.data, done);
        case Request::What::write: return disk.write(request.offset, request.data, done);
        case Request::What::flush: return disk.flush(done);
        case Request::What::trim: return trim(request);
        case Request::What::geometry: request.geometry = disk.geometry(); return finish(request, 0);
    }
}

// What is no whole sector at either end stays: a trim is a hint.
void Service::trim(Request& request) {
    const std::uint64_t unit = disk_.disk->geometry().sector_size;
    const std::uint64_t from = (request.offset + unit - 1) / unit * unit;
    const std::uint64_t to = (request.offset + request.length) / unit * unit;
    if (from >= to) return finish(request, 0);
    disk_.disk->discard(from, to - from,
                        [&request](const Status& status) { finish(request, status ? 0 : status.error().err); });
}

// ---- nbdkit's calls ------------------------------------------------------------------------------------------------

Service service;
std::string disk_name;

// Of a connection: what the disk was when it began. NBD has no word for a size that changes meanwhile.
struct Connection {
    Geometry geometry;
    bool read_only = false;
};
const Connection& of(void* handle) { return *static_cast<Connection*>(handle); }

int answer(Request request) {
    const int error = service.ask(request);
    if (error == 0) return 0;
    nbdkit_set_error(error);
    return -1;
}

int config(const char* key, const char* value) {
    if (std::string_view(key) != "disk") {
        nbdkit_error("unknown parameter '%s'", key);
        return -1;
    }
    if (!caisson::block::device_named(value)) {
        nbdkit_error("disk: '%s' is no name like xvda, sda1, hda, d0p0 or 51712", value);
        return -1;
    }
    disk_name = value;
    return 0;
}

int config_complete() {
    if (!disk_name.empty()) return 0;
    nbdkit_error("which disk? disk=xvda");
    return -1;
}

// Before nbdkit forks, and before anybody waits for its socket: a disk that is not there ends it with a word. What was
// opened here does not survive the fork.
int get_ready() {
    const auto probe = caisson::block::open_disk(disk_name);
    if (probe) return 0;
    nbdkit_error("%s", probe.error().message().c_str());
    return -1;
}
int after_fork() { return service.start(disk_name); }
void cleanup() { service.stop(); }

void* open_connection(int read_only) {
    Request request;
    if (service.ask(request) != 0) return nullptr;
    return new Connection{request.geometry, read_only != 0 || request.geometry.read_only()};
}
void close_connection(void* handle) { delete static_cast<Connection*>(handle); }

std::int64_t get_size(void* handle) { return static_cast<std::int64_t>(of(handle).geometry.bytes()); }
int can_write(void* handle) { return of(handle).read_only ? 0 : 1; }
int can_trim(void* handle) { return of(handle).geometry.discard ? 1 : 0; }
int yes(void*) { return 1; }
int no(void*) { return 0; }
int can_fua(void*) { return NBDKIT_FUA_EMULATE; }
const char* description(void*) { return "a paravirtual disk"; }

int block_size(void* handle, std::uint32_t* least, std::uint32_t* preferred, std::uint32_t* most) {
    constexpr std::uint32_t page = 4096, largest_preferred = 32 << 20;
    const Geometry& disk = of(handle).geometry;
    *least = disk.sector_size;
    *preferred = std::clamp(disk.physical_sector_size, page, largest_preferred);
    *most = 0xFFFFFFFF;  // any: it goes in pieces
    return 0;
}

int pread(void*, void* into, std::uint32_t count, std::uint64_t offset, std::uint32_t) {
    return answer({.what = Request::What::read, .offset = offset, .data = {static_cast<std::byte*>(into), count}});
}
int pwrite(void*, const void* from, std::uint32_t count, std::uint64_t offset, std::uint32_t) {
    auto* bytes = const_cast<std::byte*>(static_cast<const std::byte*>(from));
    return answer({.what = Request::What::write, .offset = offset, .data = {bytes, count}});
}
int flush(void*, std::uint32_t) { return answer({.what = Request::What::flush}); }
int trim(void*, std::uint32_t count, std::uint64_t offset, std::uint32_t) {
    return answer({.what = Request::What::trim, .offset = offset, .length = count});
}

nbdkit_plugin plugin = {
    .name = "caisson",
    .longname = "Caisson: paravirtual disks",
    .description = "Serves a disk of the Xen domain (or of the local hypervisor's) that nbdkit runs in.",
    .config = config,
    .config_complete = config_complete,
    .config_help = "disk=NAME    (required) The disk: xvda, sda1, hda, d0p0 or a number.",
    .open = open_connection,
    .close = close_connection,
    .get_size = get_size,
    .can_write = can_write,
    .can_flush = yes,
    .is_rotational = no,
    .can_trim = can_trim,
    .errno_is_preserved = 0,
    .can_fua = can_fua,
    .pread = pread,
    .pwrite = pwrite,
    .flush = flush,
    .trim = trim,
    .magic_config_key = "disk",
    .can_multi_conn = yes,
    .get_ready = get_ready,
    .after_fork = after_fork,
    .export_description = description,
    .cleanup = cleanup,
    .block_size = block_size,
};

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)
