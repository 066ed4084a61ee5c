// The console: a shared page with two byte rings, and where its settings come from.
//
// Sources: xen/io/console.h (Debian's 4.17; the `connection` byte is newer: xen-project/xen, public/io/console.h),
// docs/misc/console.txt, and what libxl writes (libxl_console.c).
//
// Where a console lives in xenstore (the path after /local/domain/N/):
//
//     frontend   console for number 0, device/console/ID for the others (console.txt); xenstore_path() below
//     backend    backend/console/FRONTEND/ID, for every number
//
// The two byte rings have no event words: each side notifies after every change. `in` is towards the guest.
//
// Console 0 on real Xen is made by the domain builder: its `ring-ref` is a machine frame number (not a grant), its port
// is preallocated, both are written by the toolstack, and there is no XenbusState. Only the control domain can map it.
// On the local hypervisor console 0 is a device like the others: the frontend shares the page as a grant, writes
// `ring-ref` and `port` itself, and both sides go through the XenbusState table. `ring-ref` is parsed as a grant
// reference here; it is the port for real Xen that has to know better.
//
// XSA-57: whatever decides what the backend's own system does (where output goes, which file, how much of it) is read
// from the backend's directory, which the guest cannot write. libxl puts `limit`, `type`, `output` and `tty` into the
// frontend's directory, too; nothing here reads them from there.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <tuple>

#include "protocols/words.h"

namespace caisson::console {

inline constexpr std::string_view device_class = "console";

// ---- struct xencons_interface ------------------------------------------------------------------------------------

inline constexpr std::size_t in_offset = 0, in_bytes = 1024;       // backend produces, frontend consumes
inline constexpr std::size_t out_offset = 1024, out_bytes = 2048;  // frontend produces, backend consumes
inline constexpr std::size_t in_consumer = 3072, in_producer = 3076;
inline constexpr std::size_t out_consumer = 3080, out_producer = 3084;

// A hint to frontends that would rather not fill a ring that nobody empties (newer Linux drops its output meanwhile).
// Set by whoever makes the page (disconnected) and by the backend; nothing of ours depends on it, whatever it says.
inline constexpr std::size_t connection_offset = 3088;
inline constexpr std::uint8_t connected = 0;  // so in a page of zeros: backends from before the byte existed
inline constexpr std::uint8_t disconnected = 1;

// ---- Keys --------------------------------------------------------------------------------------------------------

// A row of a key table, as ring/keys.h reads it.
template <class S, class F>
struct Row {
    const char* name;
    F S::* field;
    std::uint32_t least = 0, most = std::numeric_limits<std::uint32_t>::max();
    bool required = false;
};

// What the frontend publishes: all that a backend reads of its directory.
struct Line {
    GrantRef ring_ref{};
    Port port{};
    static constexpr auto keys() {
        return std::tuple{
            Row<Line, GrantRef>{.name = "ring-ref", .field = &Line::ring_ref, .required = true},
            Row<Line, Port>{.name = "port", .field = &Line::port, .required = true},
        };
    }
};

// Bytes of output that wait for a slow reader; libxl's LIBXL_XENCONSOLE_LIMIT is 1048576.
inline constexpr std::uint32_t least_limit = 4096, most_limit = 1 << 20, default_limit = most_limit;
// Bytes of log on disk, the older half included.
inline constexpr std::uint32_t least_log_limit = 128 << 10, most_log_limit = 1 << 30, default_log_limit = 2 << 20;
// Bytes of log a second, after a first burst as long as the log may be.
inline constexpr std::uint32_t default_log_rate = 1 << 20;

// What the toolstack writes into the backend's directory. `output`, `connection`, `path` and `name` are libxl's; those
// that begin with "log" are ours.
struct BackendKeys {
    std::string output = "pty";  // "pty", "none", or "chardev:..." of a channel: then `connection` decides
    std::string connection;      // "pty" or "socket"
    std::string path;            // of the socket, in the backend's domain
    std::string name;            // of a channel
    std::uint32_t limit = default_limit;
    std::string log;  // the log file, in the backend's domain; the older half is FILE.1
    std::uint32_t log_limit = default_log_limit;
    std::uint32_t log_rate = default_log_rate;
    bool log_timestamps = false;
    static constexpr auto keys() {
        using B = BackendKeys;
        return std::tuple{
            Row<B, std::string>{.name = "output", .field = &B::output},
            Row<B, std::string>{.name = "connection", .field = &B::connection},
            Row<B, std::string>{.name = "path", .field = &B::path},
            Row<B, std::string>{.name = "name", .field = &B::name},
            Row<B, std::uint32_t>{.name = "limit", .field = &B::limit, .most = most_limit},
            Row<B, std::string>{.name = "log", .field = &B::log},
            Row<B, std::uint32_t>{.name = "log-limit", .field = &B::log_limit, .most = most_log_limit},
            Row<B, std::uint32_t>{.name = "log-rate", .field = &B::log_rate, .least = 1},
            Row<B, bool>{.name = "log-timestamps", .field = &B::log_timestamps},
        };
    }
};

// Written by the backend into its own directory: where a person attaches. `tty` when the console is a pty (as
// xenconsoled and QEMU do, but in the backend's directory: the frontend's is the guest's), `path` when it is a socket.
inline constexpr std::string_view tty_key = "tty", path_key = "path";
// Written by a backend worker: how often it changed log files; the controller renames them.
inline constexpr std::string_view log_turn_key = "log-turn";
// Written by the guest's toolstack into the frontend's directory, if at all: where the symbolic link to the guest's pty
// goes instead of /dev/hvcID.
inline constexpr std::string_view link_key = "link";

// "console" for number 0, "device/console/ID" for the others: below /local/domain/N/.
inline std::string xenstore_path(DeviceId id) {
    return id.raw == 0 ? std::string("console") : "device/console/" + std::to_string(id.raw);
}

// ---- Settings: the keys, checked ---------------------------------------------------------------------------------

enum class HostKind : std::uint8_t {
    pty,
    socket,  // listening, AF_UNIX, one client at a time
    none,    // only the log
};

struct Settings {
    HostKind host = HostKind::pty;
    std::string socket_path;  // empty: the backend's default
    std::string name;
    std::uint32_t limit = default_limit;  // a power of two
    std::string log_path;                 // empty: no log
    std::uint32_t log_limit = default_log_limit, log_rate = default_log_rate;
    bool log_timestamps = false;
};

inline constexpr std::size_t longest_socket_path = 107;  // sun_path, and its NUL

// A channel's name, and thus a file's: letters, digits, '.', '_', '-', at most 64, not beginning with a dot.
constexpr bool valid_name(std::string_view name) {
    if (name.empty() || name.size() > 64 || name[0] == '.') return false;
    for (const char c : name) {
        const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                          c == '_' || c == '-';
        if (!good) return false;
    }
    return true;
}

// Absolute, printable, and without a ".." in it.
constexpr bool valid_path(std::string_view path) {
    if (path.size() < 2 || path[0] != '/' || path.back() == '/') return false;
    for (const char c : path)
        if (c < 0x21 || c > 0x7e) return false;
    return (std::string_view(path).find("/../") == path.npos) && !path.ends_with("/..");
}

// The only way from keys to Settings. An error is the toolstack's (or the person's), so it is the host's fault.
inline Result<Settings> parse(const BackendKeys& keys) {
    Settings out{
        .name = keys.name, .log_path = keys.log, .log_rate = keys.log_rate, .log_timestamps = keys.log_timestamps};
    const std::string_view kind = !keys.connection.empty()              ? std::string_view(keys.connection)
                                  : keys.output.starts_with("chardev:") ? std::string_view("pty")
                                                                        : std::string_view(keys.output);
    if (kind == "pty")
        out.host = HostKind::pty;
    else if (kind == "socket")
        out.host = HostKind::socket;
    else if (kind == "none")
        out.host = HostKind::none;
    else
        return host_fault(EINVAL, "console output (pty, socket or none)", std::string(kind));
    if (out.host == HostKind::socket) {
        if (!keys.path.empty() && (!valid_path(keys.path) || keys.path.size() > longest_socket_path))
            return host_fault(EINVAL, "console socket path", keys.path);
        out.socket_path = keys.path;
    }
    if (!keys.name.empty() && !valid_name(keys.name)) return host_fault(EINVAL, "channel name", keys.name);
    if (!keys.log.empty() && !valid_path(keys.log)) return host_fault(EINVAL, "console log path", keys.log);
    out.limit = least_limit;
    while (out.limit < keys.limit && out.limit < most_limit) out.limit *= 2;
    out.log_limit = keys.log_limit < least_log_limit ? least_log_limit : keys.log_limit;
    return out;
}

}  // namespace caisson::console
