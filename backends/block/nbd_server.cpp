#include "backends/block/nbd_server.h"

#include <dlfcn.h>
#include <libnbd.h>

#include <chrono>
#include <memory>

namespace caisson::block::backend {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto patience = 3s;

// The functions of libnbd that we call, by the library's own declarations.
struct Library {
    // NOLINTBEGIN(bugprone-macro-parentheses): what is passed are names, not values
    // clang-format off: it finds no rest here
#define CAISSON_NBD_FUNCTIONS(X) \
    X(nbd_create) X(nbd_close) X(nbd_get_error) X(nbd_set_export_name) X(nbd_set_request_structured_replies) \
    X(nbd_aio_connect_unix) X(nbd_aio_connect_tcp) X(nbd_poll) X(nbd_aio_is_ready) X(nbd_aio_is_dead) \
    X(nbd_aio_is_closed) X(nbd_aio_get_fd) X(nbd_aio_disconnect) X(nbd_get_size) X(nbd_is_read_only) \
    X(nbd_can_flush) X(nbd_can_trim) X(nbd_get_block_size)
    // clang-format on
#define CAISSON_DECLARE(name) decltype(&::name) name = nullptr;
    CAISSON_NBD_FUNCTIONS(CAISSON_DECLARE)
#undef CAISSON_DECLARE
    bool loaded = false;

    Library() {
        void* library = ::dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) return;
        loaded = true;
#define CAISSON_LOAD(name)                                               \
    name = reinterpret_cast<decltype(&::name)>(::dlsym(library, #name)); \
    loaded = loaded && name != nullptr;
        CAISSON_NBD_FUNCTIONS(CAISSON_LOAD)
#undef CAISSON_LOAD
#undef CAISSON_NBD_FUNCTIONS
        // NOLINTEND(bugprone-macro-parentheses)
    }
};

const Library& library() {
    static const Library one;
    return one;
}

struct Close {
    void operator()(nbd_handle* handle) const { library().nbd_close(handle); }
};
using Handle = std::unique_ptr<nbd_handle, Close>;

std::unexpected<Error> failed(const TargetName& name) {
    const char* why = library().nbd_get_error();
    const std::string place = name.path.empty() ? name.host + ":" + name.port : name.path;
    return unsupported("", "NBD server at " + place + ": " + (why != nullptr ? why : "no answer"));
}

Status handshake(nbd_handle* handle, const TargetName& name) {
    const Library& nbd = library();
    if (nbd.nbd_set_export_name(handle, name.nbd_export.c_str()) != 0) return failed(name);
    // A worker understands simple replies only.
    if (nbd.nbd_set_request_structured_replies(handle, false) != 0) return failed(name);
    const int started = name.path.empty() ? nbd.nbd_aio_connect_tcp(handle, name.host.c_str(), name.port.c_str())
                                          : nbd.nbd_aio_connect_unix(handle, name.path.c_str());
    if (started != 0) return failed(name);
    const auto end = Clock::now() + patience;
    while (nbd.nbd_aio_is_ready(handle) != 1) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        if (left <= 0) return unsupported("", "NBD server: did not finish its handshake in time");
        if (nbd.nbd_poll(handle, static_cast<int>(left)) < 0 || nbd.nbd_aio_is_dead(handle) == 1 ||
            nbd.nbd_aio_is_closed(handle) == 1)
            return failed(name);
    }
    return {};
}

Result<NbdExport> describe(nbd_handle* handle, const TargetName& name) {
    const Library& nbd = library();
    const std::int64_t bytes = nbd.nbd_get_size(handle);
    if (bytes < 0) return failed(name);
    NbdExport found{.bytes = static_cast<std::uint64_t>(bytes)};
    found.read_only = nbd.nbd_is_read_only(handle) == 1;
    found.flush = nbd.nbd_can_flush(handle) == 1;
    found.trim = nbd.nbd_can_trim(handle) == 1;
    const auto block = [&](int which, std::uint32_t absent) {
        const std::int64_t size = nbd.nbd_get_block_size(handle, which);
        return size > 0 && size <= (1 << 25) ? static_cast<std::uint32_t>(size) : absent;
    };
    found.minimum_block = block(LIBNBD_SIZE_MINIMUM, 1);
    found.preferred_block = block(LIBNBD_SIZE_PREFERRED, 4096);
    return found;
}

Result<Handle> open_handle(const TargetName& name) {
    if (!library().loaded) return unsupported("", "an NBD disk needs libnbd.so.0 (Debian: libnbd0)");
    Handle handle(library().nbd_create());
    if (!handle) return host_fault(ENOMEM, "libnbd");
    TRY(handshake(handle.get(), name));
    return handle;
}

}  // namespace

Result<NbdServer::Connection> NbdServer::connect() const {
    const Handle handle = TRY(open_handle(name_));
    Connection connection;
    connection.found = TRY(describe(handle.get(), name_));
    // libnbd closes its descriptor without a word to the server; the connection lives on in ours.
    connection.socket.reset(::fcntl(library().nbd_aio_get_fd(handle.get()), F_DUPFD_CLOEXEC, 0));
    if (!connection.socket) return host_fault(errno, "dup of an NBD connection");
    return connection;
}

Result<NbdExport> NbdServer::look() const {
    const Handle handle = TRY(open_handle(name_));
    const NbdExport found = TRY(describe(handle.get(), name_));
    (void)library().nbd_aio_disconnect(handle.get(), 0);
    return found;
}

}  // namespace caisson::block::backend
