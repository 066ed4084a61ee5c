#include "domains/toolstack/device_spec.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sys/random.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "domains/toolstack/xlutil.h"
#include "ring/log.h"
#include "ring/store.h"

namespace caisson::toolstack {
namespace {

constexpr std::size_t longest_spec = 4096;  // xenstore takes no longer value
constexpr std::size_t most_addresses = 16;  // of one vif
constexpr std::uint32_t most_device_id = 255;

std::unexpected<Error> wrong(std::string text) { return unsupported("", std::move(text)); }

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t");
    if (first == text.npos) return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::vector<std::string> words(std::string_view text, char separator) {
    std::vector<std::string> found;
    while (!text.empty()) {
        const auto end = std::min(text.find(separator), text.size());
        if (const auto word = trimmed(text.substr(0, end)); !word.empty()) found.emplace_back(word);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return found;
}

bool plain(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

// Interface and bridge names end up on command lines in the driver domain.
bool interface_name_valid(std::string_view name) {
    return !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." &&
           std::all_of(name.begin(), name.end(), [](char c) { return plain(c) || c == '_' || c == '-' || c == '.'; });
}

// The name becomes a file's, in the guest and in the backend's domain.
bool channel_name_valid(std::string_view name) {
    return !name.empty() && name.size() <= 64 && name.front() != '.' &&
           std::all_of(name.begin(), name.end(), [](char c) { return plain(c) || c == '_' || c == '-' || c == '.'; });
}

Result<std::string> interface_name(std::string_view key, const std::string& value) {
    if (!interface_name_valid(value)) return wrong(fmt::format("{}: '{}' is no interface name", key, escaped(value)));
    return value;
}

Result<std::string> backend_name(const std::string& value) {
    if (!domain_name_valid(value) && !parse_decimal<std::uint16_t>(value))
        return wrong(fmt::format("backend: '{}' is neither a domain's name nor an id", escaped(value)));
    return value;
}

Result<std::uint32_t> bounded(std::string_view key, const std::string& value, std::uint32_t low, std::uint32_t high) {
    const auto number = parse_decimal<std::uint32_t>(value);
    if (!number || *number < low || *number > high)
        return wrong(fmt::format("{}: '{}' is not a number from {} to {}", key, escaped(value), low, high));
    return *number;
}

Result<std::string> one_address(std::string_view key, const std::string& value, bool with_prefix) {
    if (!address_valid(value, with_prefix))
        return wrong(
            fmt::format("{}: '{}' is no IP address{}", key, escaped(value), with_prefix ? " (ADDRESS/PREFIX)" : ""));
    return value;
}

Result<std::vector<std::string>> addresses(std::string_view key, const std::string& value, bool with_prefix) {
    auto found = words(value, ' ');
    if (found.empty() || found.size() > most_addresses)
        return wrong(fmt::format("{}: {} addresses, expected 1 to {}", key, found.size(), most_addresses));
    for (const auto& address : found) TRY(one_address(key, address, with_prefix));
    return found;
}

// libxlutil's own parser ("10Mb/s@20ms"), which wants a configuration only to complain to.
Status rate(const std::string& value, Vif& vif) {
    char* bytes = nullptr;
    std::size_t length = 0;
    std::FILE* report = open_memstream(&bytes, &length);
    if (report == nullptr) return host_fault(ENOMEM, "rate");
    XLU_Config* cfg = xlu_cfg_init(report, "rate");
    libxl_device_nic nic{};
    const int failed = cfg == nullptr ? ENOMEM : xlu_vif_parse_rate(cfg, value.c_str(), &nic);
    if (cfg != nullptr) xlu_cfg_destroy(cfg);
    std::fclose(report);  // may move `bytes`
    std::free(bytes);
    if (failed != 0) return wrong(fmt::format("rate: '{}' is not like 10Mb/s or 250KB/s@20ms", escaped(value)));
    vif.rate_bytes = nic.rate_bytes_per_interval;
    vif.rate_usecs = nic.rate_interval_usecs;
    return {};
}

Status set_vif(Vif& vif, const std::string& key, const std::string& value) {
    if (key == "mac")
        vif.mac = TRY(parse_mac(value));
    else if (key == "ip")
        TRY(addresses(key, vif.ip = value, false));
    else if (key == "bridge")
        vif.bridge = TRY(interface_name(key, value));
    else if (key == "vifname")
        vif.vifname = TRY(interface_name(key, value));
    else if (key == "gatewaydev")
        vif.gatewaydev = TRY(interface_name(key, value));
    else if (key == "backend")
        vif.backend = TRY(backend_name(value));
    else if (key == "script")
        vif.script = value;
    else if (key == "rate")
        TRY(rate(value, vif));
    else if (key == "mtu")
        vif.mtu = TRY(bounded(key, value, 68, 65535));
    else if (key == "devid")
        vif.id = TRY(bounded(key, value, 0, most_device_id));
    else if (key == "trusted")
        vif.trusted = TRY(bounded(key, value, 0, 1)) == 1;
    else if (key == "type" && value != "vif" && value != "ioemu")
        return wrong(fmt::format("type: '{}' is neither vif nor ioemu", escaped(value)));
    else if (key == "model" || key == "netdev" || key == "accel" || key == "forwarddev" || key.starts_with("colo_") ||
             (key == "type" && value == "ioemu"))
        vif.unused.push_back(key);
    else if (key != "type")
        return wrong(fmt::format("'{}' is no key of a vif", escaped(key)));
    return {};
}

}  // namespace

Result<std::vector<std::pair<std::string, std::string>>> split_pairs(std::string_view spec) {
    if (spec.size() > longest_spec) return wrong(fmt::format("{} bytes, at most {}", spec.size(), longest_spec));
    if (std::any_of(spec.begin(), spec.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' && c != '\t'; }))
        return wrong("holds a control character");
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const auto& word : words(spec, ',')) {
        const auto equals = word.find('=');
        const auto key = trimmed(std::string_view(word).substr(0, equals));
        if (equals == word.npos || key.empty()) return wrong(fmt::format("'{}' is not KEY=VALUE", escaped(word)));
        for (const auto& [other, value] : pairs)
            if (other == key) return wrong(fmt::format("{} is there twice", escaped(key)));
        pairs.emplace_back(key, trimmed(std::string_view(word).substr(equals + 1)));
    }
    return pairs;
}

Result<Vif> parse_vif(std::string_view spec) {
    Vif vif;
    vif.id = UINT32_MAX;  // given by the position in the list
    for (const auto& [key, value] : TRY(split_pairs(spec))) TRY(set_vif(vif, key, value));
    return vif;
}

Result<Channel> parse_channel(std::string_view spec) {
    Channel channel;
    for (const auto& [key, value] : TRY(split_pairs(spec))) {
        if (key == "backend")
            channel.backend = TRY(backend_name(value));
        else if (key == "name")
            channel.name = value;
        else if (key == "connection")
            channel.connection = value;
        else if (key == "path")
            channel.path = value;
        else
            return wrong(fmt::format("'{}' is no key of a channel", escaped(key)));
    }
    if (!channel_name_valid(channel.name))
        return wrong("a channel needs a name: 1 to 64 letters, digits, dots, '_', '-', not beginning with a dot");
    if (channel.connection != "pty" && channel.connection != "socket")
        return wrong(fmt::format("connection: '{}' is neither pty nor socket", escaped(channel.connection)));
    if ((channel.connection == "socket") != !channel.path.empty())
        return wrong("connection=socket needs path=FILE, and only it");
    return channel;
}

Result<ConsoleLog> parse_console_log(std::string_view spec) {
    ConsoleLog log;
    const auto bytes = [](const std::string& key, const std::string& value) -> Result<std::uint32_t> {
        const auto number = parse_decimal<std::uint32_t>(value);
        if (!number || *number == 0) return wrong(fmt::format("{}: '{}' is no number of bytes", key, escaped(value)));
        return *number;
    };
    for (const auto& [key, value] : TRY(split_pairs(spec))) {
        if (key == "file")
            log.file = value;
        else if (key == "limit")
            log.limit = TRY(bytes(key, value));
        else if (key == "rate")
            log.rate = TRY(bytes(key, value));
        else if (key == "timestamps" && (value == "0" || value == "1"))
            log.timestamps = value == "1";
        else
            return wrong(
                fmt::format("'{}={}' is none of file=, limit=, rate=, timestamps=0|1", escaped(key), escaped(value)));
    }
    if (!log.file.starts_with('/')) return wrong("needs file=/PATH, in the domain that serves the console");
    return log;
}

Result<Interface> parse_interface(std::string_view spec) {
    Interface interface;
    for (const auto& [key, value] : TRY(split_pairs(spec))) {
        if (key == "dev")
            interface.device = TRY(interface_name(key, value));
        else if (key == "ip")
            interface.addresses = TRY(addresses(key, value, true));
        else if (key == "gateway")
            interface.gateway = TRY(one_address(key, value, false));
        else
            return wrong(fmt::format("'{}' is none of dev, ip, gateway", escaped(key)));
    }
    if (interface.addresses.empty()) return wrong("needs ip=ADDRESS/PREFIX");
    return interface;
}

Result<Uplink> parse_uplink(std::string_view spec) {
    const auto comma = std::min(spec.find(','), spec.size());
    const auto kind = trimmed(spec.substr(0, comma));
    Uplink uplink;
    if (kind == "sandbox")
        uplink.kind = Uplink::Kind::sandbox;
    else if (kind == "netdev")
        uplink.kind = Uplink::Kind::netdev;
    else
        return wrong(fmt::format("'{}' is neither sandbox nor netdev", escaped(kind)));
    for (const auto& [key, value] : TRY(split_pairs(spec.substr(std::min(comma + 1, spec.size()))))) {
        if (key == "dev")
            uplink.device = TRY(interface_name(key, value));
        else if (key == "ip")
            uplink.address = TRY(one_address(key, value, true));
        else if (key == "peer")
            uplink.peer = TRY(one_address(key, value, true));
        else if (key == "gateway")
            uplink.gateway = TRY(one_address(key, value, false));
        else
            return wrong(fmt::format("'{}' is none of dev, ip, peer, gateway", escaped(key)));
    }
    const bool sandbox = uplink.kind == Uplink::Kind::sandbox;
    if (uplink.address.empty()) return wrong("needs ip=ADDRESS/PREFIX");
    if (sandbox && (uplink.peer.empty() || !uplink.device.empty())) return wrong("sandbox needs peer=, and no dev=");
    if (!sandbox && (uplink.device.empty() || !uplink.peer.empty())) return wrong("netdev needs dev=, and no peer=");
    if (sandbox && uplink.gateway.empty()) uplink.gateway = uplink.peer.substr(0, uplink.peer.find('/'));
    return uplink;
}

bool domain_name_valid(std::string_view name) {
    return !name.empty() && name.size() <= 63 && plain(name.front()) &&
           std::all_of(name.begin(), name.end(),
                       [](char c) { return plain(c) || c == '-' || c == '_' || c == '.' || c == '+'; }) &&
           !std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<std::string> parse_mac(std::string_view text) {
    constexpr std::string_view form = "00:00:00:00:00:00";
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); };
    bool good = text.size() == form.size();
    for (std::size_t i = 0; good && i < text.size(); ++i) good = i % 3 == 2 ? text[i] == ':' : hex(text[i]);
    if (!good) return wrong(fmt::format("mac: '{}' is not like 00:16:3e:00:00:01", escaped(text)));
    std::string mac(text);
    for (char& c : mac)
        if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
    if (std::strtoul(mac.substr(0, 2).c_str(), nullptr, 16) & 1)
        return wrong(fmt::format("mac: {} is a multicast address", mac));
    return mac;
}

bool address_valid(std::string_view text, bool with_prefix) {
    const auto slash = text.find('/');
    if ((slash != text.npos) != with_prefix) return false;
    const std::string address(text.substr(0, slash));
    if (address.find('\0') != address.npos) return false;
    std::array<std::uint8_t, 16> bytes{};
    const bool v4 = inet_pton(AF_INET, address.c_str(), bytes.data()) == 1;
    if (!v4 && inet_pton(AF_INET6, address.c_str(), bytes.data()) != 1) return false;
    if (!with_prefix) return true;
    const auto prefix = parse_decimal<std::uint8_t>(text.substr(slash + 1));
    return prefix && *prefix <= (v4 ? 32 : 128);
}

std::string random_mac() {
    std::array<std::uint8_t, 3> tail{};
    if (::getrandom(tail.data(), tail.size(), 0) != static_cast<ssize_t>(tail.size())) tail = {0, 0, 1};
    return fmt::format("00:16:3e:{:02x}:{:02x}:{:02x}", tail[0] & 0x7F, tail[1], tail[2]);
}

}  // namespace caisson::toolstack
