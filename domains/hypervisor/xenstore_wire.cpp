#include "domains/hypervisor/xenstore_wire.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace caisson::hypervisor {

namespace {

// The only bytes a path may have (docs/misc/xenstore.txt).
bool path_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '/' ||
           c == '_' || c == '@';
}

}  // namespace

std::string_view store_error_name(int err) {
    static constexpr std::array<std::pair<int, std::string_view>, 16> names{{
        {EINVAL, "EINVAL"},
        {EACCES, "EACCES"},
        {EEXIST, "EEXIST"},
        {EISDIR, "EISDIR"},
        {ENOENT, "ENOENT"},
        {ENOMEM, "ENOMEM"},
        {ENOSPC, "ENOSPC"},
        {EIO, "EIO"},
        {ENOTEMPTY, "ENOTEMPTY"},
        {ENOSYS, "ENOSYS"},
        {EROFS, "EROFS"},
        {EBUSY, "EBUSY"},
        {EAGAIN, "EAGAIN"},
        {EISCONN, "EISCONN"},
        {E2BIG, "E2BIG"},
        {EPERM, "EPERM"},
    }};
    for (const auto& [number, name] : names)
        if (number == err) return name;
    return "EINVAL";
}

std::string domain_path(DomainId domain) { return "/local/domain/" + std::to_string(domain.raw); }

Result<std::string> canonical_path(std::string_view path, DomainId who) {
    if (path.empty()) return refuse(EINVAL, "path");
    if (path.front() != '/' && path.size() > store_relative_path_max) return refuse(EINVAL, "path too long");
    std::string full = path.front() == '/' ? std::string(path) : domain_path(who) + "/" + std::string(path);
    if (full.size() > store_absolute_path_max) return refuse(EINVAL, "path too long");
    if (full.size() > 1 && full.back() == '/') return refuse(EINVAL, "path ends in /");
    if (full.find("//") != std::string::npos) return refuse(EINVAL, "path has //");
    if (!std::ranges::all_of(full, path_byte)) return refuse(EINVAL, "path has an illegal byte");
    return full;
}

std::string_view parent_path(std::string_view path) {
    const auto slash = path.rfind('/');
    return slash == 0 || slash == path.npos ? std::string_view("/") : path.substr(0, slash);
}

std::string_view leaf_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string child_path(std::string_view parent, std::string_view name) {
    std::string path(parent == "/" ? "" : parent);
    path += '/';
    path += name;
    return path;
}

bool path_within(std::string_view path, std::string_view top) {
    if (top == "/") return path.starts_with('/');
    return path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
}

Result<std::vector<std::string_view>> payload_strings(std::string_view payload) {
    if (payload.empty() || payload.back() != '\0') return refuse(EINVAL, "strings not terminated");
    std::vector<std::string_view> strings;
    while (!payload.empty()) {
        const auto end = payload.find('\0');
        strings.push_back(payload.substr(0, end));
        payload.remove_prefix(end + 1);
    }
    return strings;
}

Result<DomainId> parse_domain(std::string_view text) {
    std::uint16_t raw{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), raw);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size() || raw >= first_reserved_domid)
        return refuse(EINVAL, "domain id");
    return DomainId(raw);
}

Result<PermissionText> parse_permission(std::string_view text) {
    static constexpr std::string_view letters = "nrwb";  // in the order of Access
    const auto access = text.empty() ? letters.npos : letters.find(text.front());
    if (access == letters.npos) return refuse(EINVAL, "permission letter");
    const DomainId domain = TRY(parse_domain(text.substr(1)));
    return PermissionText{.domain = domain, .access = static_cast<Access>(access)};
}

std::string permission_text(DomainId domain, Access access) {
    return "nrwb"[static_cast<std::size_t>(access)] + std::to_string(domain.raw);
}

}  // namespace caisson::hypervisor
