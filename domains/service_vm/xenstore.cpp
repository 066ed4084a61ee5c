// What ring/store.cpp calls of libxenstore, for the static program. Debian's libxenstore.a is built without its reader
// thread, and then takes an event that comes before a reply for the lack of one: every second watch fails. The shared
// object has the thread and cannot be linked. So here are these fifteen functions with the meaning that xenstore.h
// gives them, over /dev/xen/xenbus: no thread, no socket, nothing of a toolstack's.
//
// The wire is that of xen/io/xs_wire.h: a header, then at most XENSTORE_PAYLOAD_MAX bytes.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <string>

extern "C" {  // the headers do not say so themselves
#include <xen/io/xs_wire.h>
#include <xenstore.h>
}

#include "protocols/words.h"
#include "ring/fd.h"

namespace {

using caisson::Fd;

struct Event {
    std::string path, token;
};

bool read_all(int fd, void* to, std::size_t size) {
    for (auto* at = static_cast<char*>(to); size > 0;) {
        const ssize_t got = ::read(fd, at, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return errno = got == 0 ? EIO : errno, false;
        at += got;
        size -= static_cast<std::size_t>(got);
    }
    return true;
}

int error_number(const std::string& name) {
    const auto* found = std::ranges::find(xsd_errors, name, &xsd_errors::errstring);
    return found == std::end(xsd_errors) ? EINVAL : found->errnum;
}

// One allocation: pointers, then the strings that they point at; the caller frees it.
char** strings(const std::string& bytes, std::size_t count) {
    auto* pointers = static_cast<char**>(std::malloc(count * sizeof(char*) + bytes.size() + 1));
    if (pointers == nullptr) return nullptr;
    auto* text = reinterpret_cast<char*>(pointers + count);
    std::memcpy(text, bytes.c_str(), bytes.size() + 1);
    for (std::size_t i = 0; i < count; ++i) {
        pointers[i] = text;
        text += std::strlen(text) + 1;
    }
    return pointers;
}

std::string with_end(const char* text) { return std::string(text, std::strlen(text) + 1); }
std::string without_end(const std::string& body) { return body.substr(0, body.find('\0')); }

}  // namespace

struct xs_handle {
    Fd bus{::open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC)};
    // Readable while there is an event: in the kernel, or here, where it came before a reply.
    Fd readable{::epoll_create1(EPOLL_CLOEXEC)}, queued{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::deque<Event> events;

    bool open() const {
        if (!bus || !readable || !queued) return false;
        for (const int fd : {bus.get(), queued.get()}) {
            epoll_event what{.events = EPOLLIN, .data = {}};
            if (::epoll_ctl(readable.get(), EPOLL_CTL_ADD, fd, &what) != 0) return false;
        }
        return true;
    }

    // The next message; an event is put into the queue, and true is said of it, too.
    bool receive(xsd_sockmsg& head, std::string& body) {
        if (!read_all(bus.get(), &head, sizeof head)) return false;
        if (head.len > XENSTORE_PAYLOAD_MAX) return errno = EIO, false;
        body.resize(head.len);
        if (!read_all(bus.get(), body.data(), body.size())) return false;
        if (head.type != XS_WATCH_EVENT) return true;
        const auto middle = body.find('\0');
        if (middle == std::string::npos) return errno = EIO, false;
        events.push_back({body.substr(0, middle), body.c_str() + middle + 1});
        (void)::eventfd_write(queued.get(), 1);
        return true;
    }

    // A request and its reply; errno says why there is none.
    std::optional<std::string> ask(xsd_sockmsg_type type, xs_transaction_t transaction, const std::string& payload) {
        if (payload.size() > XENSTORE_PAYLOAD_MAX) return errno = E2BIG, std::nullopt;
        xsd_sockmsg head{
            .type = type, .req_id = 0, .tx_id = transaction, .len = static_cast<std::uint32_t>(payload.size())};
        std::string message(reinterpret_cast<const char*>(&head), sizeof head);
        message += payload;
        // The bus takes a message whole, or says why not.
        if (::write(bus.get(), message.data(), message.size()) != static_cast<ssize_t>(message.size()))
            return std::nullopt;
        std::string body;
        do {
            if (!receive(head, body)) return std::nullopt;
        } while (head.type == XS_WATCH_EVENT);
        if (head.type != XS_ERROR) return body;
        errno = error_number(without_end(body));
        return std::nullopt;
    }

    std::optional<Event> next_event() {
        xsd_sockmsg head;
        std::string body;
        for (pollfd ready{bus.get(), POLLIN, 0}; ::poll(&ready, 1, 0) > 0;)
            if (!receive(head, body)) return std::nullopt;
        errno = EAGAIN;
        if (events.empty()) return std::nullopt;
        Event event = std::move(events.front());
        events.pop_front();
        eventfd_t count;
        if (events.empty()) (void)::eventfd_read(queued.get(), &count);
        return event;
    }

    // XS_UNWATCH_FILTER: what the watch has already said is not heard any more.
    void forget(const std::string& path, const std::string& token) {
        std::erase_if(events, [&](const Event& one) {
            return one.token == token && (one.path == path || one.path.starts_with(path + "/"));
        });
    }
};

extern "C" {

xs_handle* xs_open(unsigned long flags) {
    if ((flags & XS_OPEN_SOCKETONLY) != 0) return errno = ENOENT, nullptr;
    auto handle = std::make_unique<xs_handle>();
    return handle->open() ? handle.release() : nullptr;
}

void xs_close(xs_handle* h) { delete h; }
int xs_fileno(xs_handle* h) { return h->readable.get(); }

void* xs_read(xs_handle* h, xs_transaction_t t, const char* path, unsigned* length) {
    const auto value = h->ask(XS_READ, t, with_end(path));
    if (!value) return nullptr;
    auto* copy = static_cast<char*>(std::malloc(value->size() + 1));
    if (copy == nullptr) return nullptr;
    std::memcpy(copy, value->c_str(), value->size() + 1);
    if (length != nullptr) *length = static_cast<unsigned>(value->size());
    return copy;
}

char** xs_directory(xs_handle* h, xs_transaction_t t, const char* path, unsigned* count) {
    const auto names = h->ask(XS_DIRECTORY, t, with_end(path));
    if (!names) return nullptr;
    *count = static_cast<unsigned>(std::ranges::count(*names, '\0'));
    return strings(*names, *count);
}

bool xs_write(xs_handle* h, xs_transaction_t t, const char* path, const void* data, unsigned length) {
    return h->ask(XS_WRITE, t, with_end(path).append(static_cast<const char*>(data), length)).has_value();
}

bool xs_mkdir(xs_handle* h, xs_transaction_t t, const char* path) {
    return h->ask(XS_MKDIR, t, with_end(path)).has_value();
}
bool xs_rm(xs_handle* h, xs_transaction_t t, const char* path) { return h->ask(XS_RM, t, with_end(path)).has_value(); }

bool xs_set_permissions(xs_handle* h, xs_transaction_t t, const char* path, xs_permissions* permissions,
                        unsigned count) {
    constexpr const char letters[] = "nrwb";  // by XS_PERM_READ and XS_PERM_WRITE
    std::string payload = with_end(path);
    for (unsigned i = 0; i < count; ++i)
        payload += letters[permissions[i].perms & 3] + std::to_string(permissions[i].id) + '\0';
    return h->ask(XS_SET_PERMS, t, payload).has_value();
}

xs_transaction_t xs_transaction_start(xs_handle* h) {
    const auto id = h->ask(XS_TRANSACTION_START, XBT_NULL, with_end(""));
    return id ? caisson::parse_decimal<std::uint32_t>(without_end(*id)).value_or(XBT_NULL) : XBT_NULL;
}

bool xs_transaction_end(xs_handle* h, xs_transaction_t t, bool abort) {
    return h->ask(XS_TRANSACTION_END, t, with_end(abort ? "F" : "T")).has_value();
}

bool xs_watch(xs_handle* h, const char* path, const char* token) {
    return h->ask(XS_WATCH, XBT_NULL, with_end(path) + with_end(token)).has_value();
}

bool xs_unwatch(xs_handle* h, const char* path, const char* token) {
    const bool done = h->ask(XS_UNWATCH, XBT_NULL, with_end(path) + with_end(token)).has_value();
    const int error = errno;
    h->forget(path, token);
    errno = error;
    return done;
}

char** xs_check_watch(xs_handle* h) {
    const auto event = h->next_event();
    return event ? strings(with_end(event->path.c_str()) + event->token, 2) : nullptr;
}

// Only a toolstack introduces domains.
bool xs_introduce_domain(xs_handle*, unsigned, unsigned long, unsigned) { return errno = ENOSYS, false; }

}  // extern "C"
