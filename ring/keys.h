// Negotiation as data: a class's xenstore keys are a table beside its layout. The side that writes and the side that
// reads use the same row, so a key is spelled once.
//
//   struct Offer {
//       std::uint32_t max_queues = 1;
//       bool split_events = false;
//       static constexpr auto keys() {
//           return std::tuple{key("multi-queue-max-queues", &Offer::max_queues, 1, 8),
//                             key("feature-split-event-channels", &Offer::split_events)};
//       }
//   };
//   TRY(write_keys(context.own, Offer{.max_queues = 4}));              // one side
//   const auto offer = TRY(read_keys<Offer>(context.peer));            // the other: strict, clamped, read once
//
// A table in protocols/ spells its rows with protocols/'s own struct; anything with `name`, `field`, and optionally
// `least`, `most` and `required` is a row. A number above `most` is taken as `most` (a generous peer is legal, ours is
// the limit); below `least`, or not strict decimal, is the peer's fault. Members: unsigned integers, bool ("0", "1"),
// Id types such as GrantRef, std::string (at most 256 bytes, printable ASCII).
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "ring/store.h"

namespace caisson {

template <class S, class F>
struct Key {
    const char* name;
    F S::* field;
    std::uint32_t least = 0, most = std::numeric_limits<std::uint32_t>::max();
    bool required = false;
};

// May be absent: the member keeps the value it has in a default-constructed struct.
template <class S, class F>
constexpr Key<S, F> key(const char* name, F S::* field, std::uint32_t least = 0,
                        std::uint32_t most = std::numeric_limits<std::uint32_t>::max()) {
    return {name, field, least, most, false};
}
// Its absence is the peer's fault.
template <class S, class F>
constexpr Key<S, F> needed(const char* name, F S::* field, std::uint32_t least = 0,
                           std::uint32_t most = std::numeric_limits<std::uint32_t>::max()) {
    return {name, field, least, most, true};
}

namespace detail {

inline constexpr std::size_t longest_text = 256;

template <class T>
concept StrongId = requires(T id) {
    typename T;
    id.raw;
} && !std::is_arithmetic_v<T>;

template <class Row>
constexpr std::uint32_t least_of(const Row& row) {
    if constexpr (requires { row.least; }) return row.least;
    return 0;
}
template <class Row>
constexpr std::uint32_t most_of(const Row& row) {
    if constexpr (requires { row.most; }) return row.most;
    return std::numeric_limits<std::uint32_t>::max();
}
template <class Row>
constexpr bool required(const Row& row) {
    if constexpr (requires { row.required; }) return row.required;
    return false;
}

inline bool printable(std::string_view text) {
    for (const char c : text)
        if (c < 0x20 || c > 0x7e) return false;
    return text.size() <= longest_text;
}

inline std::unexpected<Error> missing(const char* name) {
    return std::unexpected(Error{.fault = Fault::peer, .err = EPROTO, .what = "missing key", .detail = name});
}
inline std::unexpected<Error> not_valid(const char* name) {
    return std::unexpected(Error{.fault = Fault::peer, .err = EPROTO, .what = "not a valid value in", .detail = name});
}

template <class U>
Status read_number(const Directory& directory, const char* name, std::uint32_t least, std::uint32_t most, bool needed,
                   U& out) {
    const auto text = TRY(directory.text(name));  // once: the peer may change it between two looks
    if (!text) return needed ? Status(missing(name)) : Status{};
    const auto parsed = parse_decimal<std::uint32_t>(*text);
    if (!parsed) return not_valid(name);
    const std::uint32_t value = *parsed;
    if (value < least) return peer_fault(name, value, Wanted::at_least, least);
    const std::uint32_t limit = std::min<std::uint64_t>(most, std::numeric_limits<U>::max());
    out = static_cast<U>(std::min(value, limit));
    return {};
}

template <class S, class Row>
Status read_row(const Directory& directory, const Row& row, S& out) {
    auto& member = out.*row.field;
    using F = std::remove_reference_t<decltype(member)>;
    if constexpr (std::same_as<F, bool>) {
        const auto text = TRY(directory.text(row.name));
        if (!text) return required(row) ? Status(missing(row.name)) : Status{};
        if (*text != "0" && *text != "1") return not_valid(row.name);
        member = *text == "1";
    } else if constexpr (std::same_as<F, std::string>) {
        auto text = TRY(directory.text(row.name));
        if (!text) return required(row) ? Status(missing(row.name)) : Status{};
        if (!printable(*text)) return not_valid(row.name);
        member = std::move(*text);
    } else if constexpr (StrongId<F>) {
        TRY(read_number(directory, row.name, least_of(row), most_of(row), required(row), member.raw));
    } else {
        TRY(read_number(directory, row.name, least_of(row), most_of(row), required(row), member));
    }
    return {};
}

template <class S, class Row>
Status write_row(const Directory& directory, const Row& row, const S& in) {
    const auto& member = in.*row.field;
    using F = std::remove_cvref_t<decltype(member)>;
    if constexpr (std::same_as<F, std::string>)
        return directory.write(row.name, std::string_view(member));
    else if constexpr (StrongId<F>)
        return directory.write(row.name, static_cast<std::uint32_t>(member.raw));
    else
        return directory.write(row.name, static_cast<std::uint32_t>(member));
}

}  // namespace detail

template <class S>
Result<S> read_keys(const Directory& directory) {
    S out{};
    Status status;
    const auto one = [&](const auto& row) {
        if (status) status = detail::read_row(directory, row, out);
    };
    std::apply([&](const auto&... rows) { (one(rows), ...); }, S::keys());
    if (!status) return std::unexpected(std::move(status).error());
    return out;
}

template <class S>
Status write_keys(const Directory& directory, const S& values) {
    Status status;
    const auto one = [&](const auto& row) {
        if (status) status = detail::write_row(directory, row, values);
    };
    std::apply([&](const auto&... rows) { (one(rows), ...); }, S::keys());
    return status;
}

// Takes away what write_keys() wrote.
template <class S>
Status remove_keys(const Directory& directory) {
    Status status;
    const auto one = [&](const auto& row) {
        if (status) status = directory.remove(row.name);
    };
    std::apply([&](const auto&... rows) { (one(rows), ...); }, S::keys());
    return status;
}

}  // namespace caisson
