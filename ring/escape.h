// Makes what a guest prints harmless to whoever looks at it later: with cat, with less -R, in a web page of a CI
// system.
//
// Kept: printable ASCII, tab, newline, and well-formed UTF-8 that is text. Everything else becomes \xNN a byte: escape
// and other control characters (C1, too, also as UTF-8), malformed UTF-8, and what makes text look other than it is
// (direction overrides, invisible characters). "\r\n" is a newline; a lone "\r" is \x0d, for it would overwrite.
//
// The state between two pieces is a plain struct that may live in a journal: output is the same however it is cut up.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace caisson {

struct EscapeState {
    std::array<std::uint8_t, 3> pending{};  // the beginning of a UTF-8 sequence
    std::uint8_t length = 0;
    // Flags, as bytes: what a journal holds need not be a bool.
    std::uint8_t in_line = 0;   // something of this line was already written
    std::uint8_t carriage = 0;  // the last byte was "\r"

    // Of a journal: believed only within reason.
    bool valid() const { return length <= pending.size() && in_line <= 1 && carriage <= 1; }
};

// What n bytes become is at most n * worst_growth + worst_rest long, with a stamp of at most longest_stamp.
inline constexpr std::size_t longest_stamp = 28;
inline constexpr std::size_t worst_growth = 4 + longest_stamp, worst_rest = 16 + longest_stamp;

// Appends the harmless form of `bytes` to `out`; `stamp` goes in front of every line that begins in it.
void escape(EscapeState& state, std::span<const std::byte> bytes, std::string_view stamp, std::string& out);
// What was held back for the next piece, when there will be none.
void escape_rest(EscapeState& state, std::string_view stamp, std::string& out);

}  // namespace caisson
