#include "ring/store.h"

extern "C" {  // the header does not say so itself
#include <xenstore.h>
}

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

namespace caisson {
namespace {

constexpr unsigned transaction_tries = 8;
constexpr std::size_t most_permissions = 16;  // xenstored allows five a node by default

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

// libxenstore takes the socket from the environment, which belongs to the whole process: set it for the length of one
// call, restore it afterwards, and let nobody else in meanwhile.
xs_handle* open_socket(const std::string& socket) {
    static std::mutex environment;
    const std::lock_guard lock(environment);
    const char* before = std::getenv("XENSTORED_PATH");
    const std::optional<std::string> saved = before ? std::optional<std::string>(before) : std::nullopt;
    ::setenv("XENSTORED_PATH", socket.c_str(), 1);
    // Only the socket: a silent fall-back to /dev/xen/xenbus would make us another domain.
    xs_handle* handle = xs_open(XS_OPEN_SOCKETONLY);
    const int error = errno;
    if (saved)
        ::setenv("XENSTORED_PATH", saved->c_str(), 1);
    else
        ::unsetenv("XENSTORED_PATH");
    errno = error;
    return handle;
}

}  // namespace

void Store::Close::operator()(xs_handle* handle) const { xs_close(handle); }
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Result<Store> Store::open(const std::string& socket) {
    xs_handle* handle = socket.empty() ? xs_open(0) : open_socket(socket);
    if (!handle) return host_fault(errno, "xenstore", socket);
    return Store(handle);
}

// After the daemon's end libxenstore has no socket any more, and says so at each call.
std::unexpected<Error> Store::fault(const char* what, const std::string& path) {
    const int error = errno;
    lost_ |= error == EBADF || error == EPIPE || error == ECONNRESET || error == ENOTCONN;
    return host_fault(error, what, path);
}

Result<std::optional<std::string>> Store::read(const std::string& path) {
    unsigned length = 0;
    const std::unique_ptr<void, Free> value(xs_read(handle_.get(), transaction_, path.c_str(), &length));
    if (value) return std::string(static_cast<const char*>(value.get()), length);
    // ENOTDIR and EINVAL never come from a path that we made; ENOENT includes "a parent is missing".
    if (errno == ENOENT) return std::nullopt;
    return fault("xenstore read", path);
}

Status Store::write(const std::string& path, std::string_view value) {
    if (!xs_write(handle_.get(), transaction_, path.c_str(), value.data(), static_cast<unsigned>(value.size())))
        return fault("xenstore write", path);
    return {};
}

Status Store::make_directory(const std::string& path) {
    if (!xs_mkdir(handle_.get(), transaction_, path.c_str())) return fault("xenstore mkdir", path);
    return {};
}

Status Store::remove(const std::string& path) {
    if (!xs_rm(handle_.get(), transaction_, path.c_str()) && errno != ENOENT) return fault("xenstore rm", path);
    return {};
}

Result<std::vector<std::string>> Store::list(const std::string& path) {
    unsigned count = 0;
    const std::unique_ptr<char*, Free> names(xs_directory(handle_.get(), transaction_, path.c_str(), &count));
    if (!names && errno == ENOENT) return std::vector<std::string>{};
    if (!names) return fault("xenstore directory", path);
    return std::vector<std::string>(names.get(), names.get() + count);
}

Status Store::set_permissions(const std::string& path, const std::vector<StorePermission>& permissions) {
    if (permissions.size() > most_permissions) return host_fault(E2BIG, "xenstore permissions", path);
    std::vector<xs_permissions> raw;
    for (const StorePermission& one : permissions)
        raw.push_back(
            {.id = one.domain.raw,
             .perms = static_cast<unsigned>((one.read ? XS_PERM_READ : 0) | (one.write ? XS_PERM_WRITE : 0))});
    if (!xs_set_permissions(handle_.get(), transaction_, path.c_str(), raw.data(), static_cast<unsigned>(raw.size())))
        return fault("xenstore permissions", path);
    return {};
}

Status Store::introduce(DomainId domain) {
    if (!xs_introduce_domain(handle_.get(), domain.raw, 0, 0)) return fault("xenstore introduce", "");
    return {};
}

Status Store::transaction(const std::function<Status()>& body) {
    for (unsigned tried = 0; tried < transaction_tries; ++tried) {
        transaction_ = xs_transaction_start(handle_.get());
        if (transaction_ == 0) return fault("xenstore transaction", "");
        const Status done = body();
        const xs_transaction_t id = std::exchange(transaction_, 0);
        const bool ended = xs_transaction_end(handle_.get(), id, !done);
        if (!done) return done;
        if (ended) return {};
        if (errno != EAGAIN) return fault("xenstore transaction", "");
        // Somebody else was quicker. A little jitter keeps two who retry from meeting again.
        thread_local std::minstd_rand jitter{std::random_device{}()};
        std::this_thread::sleep_for(std::chrono::microseconds(jitter() % (100u << tried)));
    }
    return host_fault(EAGAIN, "xenstore transaction");
}

Status Store::watch(const std::string& path, const std::string& token) {
    if (!xs_watch(handle_.get(), path.c_str(), token.c_str())) return fault("xenstore watch", path);
    watches_.emplace(token, path);
    return {};
}

Status Store::unwatch(const std::string& path, const std::string& token) {
    const auto [first, last] = watches_.equal_range(token);
    const auto found = std::find_if(first, last, [&](const auto& one) { return one.second == path; });
    if (found != last) watches_.erase(found);
    if (!xs_unwatch(handle_.get(), path.c_str(), token.c_str()) && errno != ENOENT)
        return fault("xenstore unwatch", path);
    return {};
}

int Store::fd() { return xs_fileno(handle_.get()); }

// Events that were on their way when their watch ended are nobody's. libxenstore would sort them out by itself
// (XS_UNWATCH_FILTER), but 4.17 forgets the memory of each, and how many there are is a guest's choice.
bool Store::watched(const WatchEvent& event) const {
    const auto [first, last] = watches_.equal_range(event.token);
    return std::any_of(first, last, [&](const auto& one) {
        const std::string& path = one.second;
        return event.path.starts_with(path) &&
               (event.path.size() == path.size() || path.ends_with('/') || event.path[path.size()] == '/');
    });
}

std::optional<WatchEvent> Store::take_event() {
    for (;;) {
        errno = EAGAIN;
        const std::unique_ptr<char*, Free> event(xs_check_watch(handle_.get()));
        if (!event) {
            lost_ |= errno != EAGAIN;  // libxenstore: EINVAL when its reader thread has closed the socket
            return std::nullopt;
        }
        WatchEvent one{event.get()[XS_WATCH_PATH], event.get()[XS_WATCH_TOKEN]};
        if (watched(one)) return one;
    }
}

// ---- Directory ----------------------------------------------------------------------------------------------------

namespace {

// The key's name is ours, its value is not: the message shows the name and never the value.
std::unexpected<Error> bad_value(std::string_view key) {
    return std::unexpected(
        Error{.fault = Fault::peer, .err = EPROTO, .what = "not a valid value in", .detail = std::string(key)});
}

}  // namespace

Result<std::uint32_t> Directory::number(std::string_view key, std::uint32_t absent) const {
    const auto value = TRY(text(key));
    if (!value) return absent;
    if (const auto parsed = parse_decimal<std::uint32_t>(*value)) return *parsed;
    return bad_value(key);
}

Result<std::uint32_t> Directory::number(std::string_view key) const {
    const auto value = TRY(text(key));
    if (!value)
        return std::unexpected(
            Error{.fault = Fault::peer, .err = EPROTO, .what = "missing key", .detail = std::string(key)});
    if (const auto parsed = parse_decimal<std::uint32_t>(*value)) return *parsed;
    return bad_value(key);
}

Result<bool> Directory::flag(std::string_view key, bool absent) const {
    const auto value = TRY(text(key));
    if (!value) return absent;
    if (*value == "0") return false;
    if (*value == "1") return true;
    return bad_value(key);
}

}  // namespace caisson
