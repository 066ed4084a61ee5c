// The words of a disk: `params` and the other keys, taken apart. Nothing is opened here.
#include <limits>

#include "backends/block/target.h"

namespace caisson::block::backend {

namespace {

constexpr std::string_view default_nbd_port = "10809";

bool take(std::string_view& text, std::string_view prefix) {
    if (!text.starts_with(prefix)) return false;
    text.remove_prefix(prefix.size());
    return true;
}

std::unexpected<Error> no_target(std::string_view params, const char* why) {
    return unsupported("", "target '" + std::string(params) + "': " + why);
}

// "unix:/SOCKET[:EXPORT]"; qemu writes "exportname=EXPORT".
Result<TargetName> parse_unix_socket(std::string_view text, std::string_view params) {
    const std::size_t colon = std::min(text.find(':'), text.size());
    TargetName name{.kind = HostKind::nbd, .path = std::string(text.substr(0, colon))};
    text.remove_prefix(std::min(colon + 1, text.size()));
    take(text, "exportname=");
    name.nbd_export = text;
    if (!name.path.starts_with('/')) return no_target(params, "the socket's path does not begin with /");
    return name;
}

// "//HOST[:PORT][/EXPORT]"; HOST may be [::1].
Result<TargetName> parse_tcp(std::string_view text, std::string_view params) {
    const std::size_t slash = std::min(text.find('/'), text.size());
    std::string_view place = text.substr(0, slash);
    TargetName name{.kind = HostKind::nbd, .nbd_export = std::string(text.substr(std::min(slash + 1, text.size())))};
    const std::size_t colon = place.rfind(':');
    const bool port = colon != place.npos && place.find(']', colon) == place.npos;
    name.port = port ? place.substr(colon + 1) : default_nbd_port;
    if (port) place = place.substr(0, colon);
    if (place.starts_with('[') && place.ends_with(']')) place = place.substr(1, place.size() - 2);
    name.host = place;
    const auto number = parse_decimal<std::uint16_t>(name.port);
    if (name.host.empty() || !number || *number == 0) return no_target(params, "expected nbd://HOST[:PORT][/EXPORT]");
    return name;
}

Result<bool> word(const Directory& own, std::string_view key, bool absent) {
    const auto text = TRY(own.text(key));
    if (!text || text->empty()) return absent;
    if (*text == "1" || *text == "true") return true;
    if (*text == "0" || *text == "false") return false;
    return host_fault(EINVAL, "expected 0 or 1", std::string(key) + "=" + *text);
}

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
    unsigned shift = 0;
    if (!text.empty()) switch (text.back()) {
            case 'K':
            case 'k': shift = 10; break;
            case 'M':
            case 'm': shift = 20; break;
            case 'G':
            case 'g': shift = 30; break;
            case 'T':
            case 't': shift = 40; break;
            default: break;
        }
    if (shift != 0) text.remove_suffix(1);
    const auto number = parse_decimal<std::uint64_t>(text);
    if (!number || *number > (std::uint64_t{std::numeric_limits<std::int64_t>::max()} >> shift)) return std::nullopt;
    return *number << shift;
}

Result<TargetName> parse_target(std::string_view params) {
    std::string_view rest = params;
    if (params.find('\0') != params.npos) return no_target(params, "holds a zero byte");
    if (take(rest, "memory:") || take(rest, "null:")) {
        const auto bytes = parse_size(rest);
        if (!bytes) return no_target(params, "expected a size, like 64M");
        return TargetName{.kind = params.starts_with('m') ? HostKind::memory : HostKind::null, .bytes = *bytes};
    }
    if (take(rest, "nbd:unix:")) return parse_unix_socket(rest, params);
    if (take(rest, "nbd://")) return parse_tcp(rest, params);
    if (take(rest, "nbd:"))
        return no_target(params, "expected nbd:unix:/SOCKET[:EXPORT] or nbd://HOST[:PORT][/EXPORT]");
    // libxl's name for raw files of its qdisk.
    (void)(take(rest, "raw:") || take(rest, "aio:"));
    if (rest.starts_with('/')) return TargetName{.kind = HostKind::file, .path = std::string(rest)};
    if (rest.empty()) return no_target(params, "names nothing; an empty drive cannot be served");
    // XSA-258: what a guest wrote into its disk never decides how we read it, and no format but raw is read at all.
    return no_target(params,
                     "neither an absolute path nor memory:, null: or nbd:; images of any format but raw are "
                     "served by an NBD server");
}

Result<TargetWishes> read_wishes(const Directory& own) {
    TargetWishes wishes;
    const std::string mode = TRY(own.text(key::mode)).value_or("r");
    if (mode != "r" && mode != "w" && mode != "w!" && mode != "r!")
        return host_fault(EINVAL, "mode is none of r, w, w!", mode);
    wishes.read_only = mode.starts_with('r');
    wishes.shared = mode.ends_with('!');
    const std::string type = TRY(own.text(key::device_type)).value_or("disk");
    wishes.cdrom = type == "cdrom";
    wishes.removable = TRY(word(own, key::removable, false));
    wishes.discard = TRY(word(own, key::discard_enable, true));
    wishes.direct_io_safe = TRY(word(own, key::direct_io_safe, false));
    if (const auto text = TRY(own.text(key::direct_io)); text && !text->empty())
        wishes.direct_io = TRY(word(own, key::direct_io, false));
    const std::string sector = TRY(own.text(key::wished_sector_size)).value_or("512");
    if (sector != "512" && sector != "4096") return host_fault(EINVAL, "sector size is neither 512 nor 4096", sector);
    wishes.sector_size = sector == "4096" ? 4096 : 512;
    return wishes;
}

Result<Target> open_target(const Directory& own) {
    const auto params = TRY(own.text(key::params));
    if (!params) return host_fault(ENOENT, "the toolstack wrote no", std::string(key::params));
    return open_target(TRY(parse_target(*params)), TRY(read_wishes(own)));
}

}  // namespace caisson::block::backend
