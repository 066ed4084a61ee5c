// The words of xenstore's wire: operations, errors, paths and permissions as text.
//
// Source: xen/io/xs_wire.h and docs/misc/xenstore.txt of Xen 4.17. Everything here is a pure function of bytes that a
// client sent; nothing reads the tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

namespace caisson::hypervisor {

enum class StoreOp : std::uint32_t {  // enum xsd_sockmsg_type
    control = 0,
    directory = 1,
    read = 2,
    get_perms = 3,
    watch = 4,
    unwatch = 5,
    transaction_start = 6,
    transaction_end = 7,
    introduce = 8,
    release = 9,
    get_domain_path = 10,
    write = 11,
    mkdir = 12,
    rm = 13,
    set_perms = 14,
    watch_event = 15,
    error = 16,
    is_domain_introduced = 17,
    resume = 18,
    set_target = 19,
    reset_watches = 21,
    directory_part = 22,
};

struct StoreHeader {  // struct xsd_sockmsg
    std::uint32_t type, request, transaction, length;
};
static_assert(Wire<StoreHeader> && sizeof(StoreHeader) == 16);

inline constexpr std::size_t store_payload_max = 4096;        // XENSTORE_PAYLOAD_MAX
inline constexpr std::size_t store_absolute_path_max = 3072;  // XENSTORE_ABS_PATH_MAX
inline constexpr std::size_t store_relative_path_max = 2048;  // XENSTORE_REL_PATH_MAX
inline constexpr std::size_t store_message_max = sizeof(StoreHeader) + store_payload_max;

// "ENOENT" and so on, as in xsd_errors; an errno that is not in that table is "EINVAL".
std::string_view store_error_name(int err);

// An error that the client gets as XS_ERROR. Allocates nothing.
inline std::unexpected<Error> refuse(int err, const char* what) {
    return std::unexpected(Error{.fault = Fault::peer, .err = err, .what = what});
}

// The absolute form of a path that `who` sent, or EINVAL. Relative paths start at /local/domain/<who>/. The length is
// checked before and after the prefix is added (XSA-323); the result is "/", or has no '/' at its end and no "//".
Result<std::string> canonical_path(std::string_view path, DomainId who);
std::string domain_path(DomainId domain);             // "/local/domain/<n>"
std::string_view parent_path(std::string_view path);  // of "/a/b" it is "/a", of "/a" and "/" it is "/"
std::string_view leaf_name(std::string_view path);    // of "/a/b" it is "b"
std::string child_path(std::string_view parent, std::string_view name);
// True for a path that equals `top` or lies below it.
bool path_within(std::string_view path, std::string_view top);

// The payload as NUL-terminated strings; EINVAL unless the last byte is NUL.
Result<std::vector<std::string_view>> payload_strings(std::string_view payload);

// Strict decimal domain id below DOMID_FIRST_RESERVED.
Result<DomainId> parse_domain(std::string_view text);

// One entry of a permission list as text: a letter (n, r, w, b) and a domain id.
enum class Access : std::uint8_t { none = 0, read = 1, write = 2, both = 3 };
struct PermissionText {
    DomainId domain{};
    Access access = Access::none;
};
Result<PermissionText> parse_permission(std::string_view text);
std::string permission_text(DomainId domain, Access access);

}  // namespace caisson::hypervisor
