// The words that every protocol shares: who is who, what went wrong, and data that nobody has looked at yet.
//
// Standard library only. Nothing here touches shared memory: that is ring/'s privilege.
#pragma once

#include <cerrno>
#include <charconv>
#include <compare>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace caisson {

// ---- Strong names: a domain id is never a device id --------------------------------------------------------------

template <class Tag, std::integral Rep>
struct Id {
    Rep raw{};
    constexpr Id() = default;
    constexpr explicit Id(Rep r) : raw(r) {}
    auto operator<=>(const Id&) const = default;
};

using DomainId = Id<struct DomainTag, std::uint16_t>;  // domid_t of xen.h; 0x7FF0 and above are reserved there
using DeviceId = Id<struct DeviceTag, std::uint32_t>;  // the last component of a device's xenstore directory
using GrantRef = Id<struct GrantTag, std::uint32_t>;   // grant_ref_t of grant_table.h
using Port = Id<struct PortTag, std::uint32_t>;        // evtchn_port_t of event_channel.h

inline constexpr DomainId control_domain{0};  // Dom0
inline constexpr std::uint16_t first_reserved_domid = 0x7FF0;
inline constexpr std::size_t page_size = 4096;  // XEN_PAGE_SIZE: the unit of every grant, whatever the CPU's page is

// ---- Errors are values; who is at fault decides what happens next ------------------------------------------------

enum class Fault : std::uint8_t {
    peer,         // the other domain broke the rules: the device is BROKEN until it reconnects
    host,         // our own system failed: this request is answered with an error, the device goes on
    unsupported,  // a legal wish that we do not grant: said so on the wire
};

enum class Wanted : std::uint8_t { nothing, at_most, at_least, exactly };

// What was expected, what came, and (added by whoever logs it) whose device it is. On paths that a peer drives use the
// forms without `detail`: they allocate nothing.
struct [[nodiscard]] Error {
    Fault fault = Fault::host;
    int err = EIO;          // an errno value
    const char* what = "";  // a string literal: "segments", "xenstore write"
    Wanted wanted = Wanted::nothing;
    std::uint64_t got = 0;  // meaningful unless wanted is nothing
    std::uint64_t limit = 0;
    std::string detail = {};  // a path, a key, a value; empty where a peer drives

    // "segments: 12, at most 11", "xenstore write /local/domain/3: Permission denied"
    std::string message() const {
        std::string text = what;
        if (!detail.empty()) text += (text.empty() ? "" : " ") + detail;
        static constexpr const char* relation[] = {"", ", at most ", ", at least ", ", expected "};
        if (wanted != Wanted::nothing)
            text += ": " + std::to_string(got) + relation[static_cast<int>(wanted)] + std::to_string(limit);
        else if (fault == Fault::host && err != 0)
            text += std::string(": ") + std::strerror(err);
        return text;
    }
};

template <class T = void>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> peer_fault(const char* what) {
    return std::unexpected(Error{.fault = Fault::peer, .err = EPROTO, .what = what});
}
inline std::unexpected<Error> peer_fault(const char* what, std::uint64_t got, Wanted wanted, std::uint64_t limit) {
    return std::unexpected(
        Error{.fault = Fault::peer, .err = EPROTO, .what = what, .wanted = wanted, .got = got, .limit = limit});
}
inline std::unexpected<Error> host_fault(int err, const char* what, std::string detail = {}) {
    return std::unexpected(Error{.fault = Fault::host, .err = err, .what = what, .detail = std::move(detail)});
}
inline std::unexpected<Error> unsupported(const char* what, std::string detail = {}) {
    return std::unexpected(
        Error{.fault = Fault::unsupported, .err = EOPNOTSUPP, .what = what, .detail = std::move(detail)});
}

// Unwrap a Result or return its error from the enclosing function. The only control-flow macro of the project.
#define TRY(expression)                                                           \
    ({                                                                            \
        auto&& try_result_ = (expression);                                        \
        if (!try_result_) return std::unexpected(std::move(try_result_).error()); \
        ::caisson::detail::take(std::move(try_result_));                          \
    })
namespace detail {
template <class T>
T take(std::expected<T, Error>&& r) {
    if constexpr (!std::is_void_v<T>) return std::move(*r);
}
}  // namespace detail

// The only range test of the project: offset + length is never computed, so nothing wraps.
template <std::unsigned_integral U>
constexpr bool fits(std::type_identity_t<U> offset, std::type_identity_t<U> length, U limit) {
    return length <= limit && offset <= limit - length;
}

// Strict decimal: digits only, no sign, no space, in range.
template <std::unsigned_integral U>
std::optional<U> parse_decimal(std::string_view text) {
    U value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// ---- Data nobody has looked at yet -------------------------------------------------------------------------------

// A type that may cross a domain boundary: every byte of it has a name, so none carries our stack to a stranger.
template <class T>
concept Wire =
    std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> && std::has_unique_object_representations_v<T>;

// A private snapshot of something a peer wrote. It can be moved and spent, not read: the only way out is check(),
// which hands it to a parser that returns a *different*, meaningful type.
template <Wire T>
class [[nodiscard]] Untrusted {
  public:
    explicit Untrusted(const T& snapshot) : value_(snapshot) {}
    Untrusted(Untrusted&&) = default;
    Untrusted& operator=(Untrusted&&) = default;
    Untrusted(const Untrusted&) = delete;
    Untrusted& operator=(const Untrusted&) = delete;

    template <class Parser>
    auto check(Parser&& parse) && -> std::invoke_result_t<Parser, const T&> {
        static_assert(!std::is_same_v<std::remove_cvref_t<std::invoke_result_t<Parser, const T&>>, T>,
                      "a parser returns another type than the wire's, or the check proved nothing");
        return std::invoke(std::forward<Parser>(parse), std::as_const(value_));
    }

  private:
    T value_;
};

}  // namespace caisson

template <class Tag, class Rep>
struct std::hash<caisson::Id<Tag, Rep>> {
    std::size_t operator()(caisson::Id<Tag, Rep> id) const noexcept { return std::hash<Rep>{}(id.raw); }
};
