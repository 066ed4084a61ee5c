#include "ring/escape.h"

#include <algorithm>
#include <iterator>

namespace caisson {

namespace {

// How long a sequence that begins so is; 1: this byte stands alone; 0: no sequence begins so.
std::size_t sequence_length(std::uint8_t first) {
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first < 0xE0) return 2;
    if (first >= 0xE0 && first < 0xF0) return 3;
    if (first >= 0xF0 && first < 0xF5) return 4;
    return 0;
}

// The byte after `first` is narrower than 80..BF where an overlong form, a surrogate or too large a number begins.
bool continues(std::uint8_t first, std::size_t at, std::uint8_t byte) {
    std::uint8_t low = 0x80, high = 0xBF;
    if (at == 1) {
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
    }
    return byte >= low && byte <= high;
}

// Characters that are not what they seem, or are not seen: "Trojan Source" and its relatives.
bool harmless(std::uint32_t character) {
    struct Range {
        std::uint32_t first, last;
    };
    static constexpr Range harmful[] = {{0, 0x1F},        {0x7F, 0x9F},     {0x61C, 0x61C},
                                        {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F},
                                        {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB}, {0xE0000, 0xE007F}};
    return std::ranges::none_of(harmful,
                                [&](const Range& one) { return character >= one.first && character <= one.last; });
}

std::uint32_t decode(const std::uint8_t* bytes, std::size_t length) {
    if (length == 1) return bytes[0];
    std::uint32_t character = bytes[0] & (0xFFu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) character = character << 6 | (bytes[i] & 0x3Fu);
    return character;
}

class Writer {
  public:
    Writer(EscapeState& state, std::string_view stamp, std::string& out) : state_(state), stamp_(stamp), out_(out) {}

    void byte(std::uint8_t byte) {
        if (state_.length > 0) {
            if (continues(state_.pending[0], state_.length, byte)) return continued(byte);
            rest_of_sequence();
        }
        if (state_.carriage != 0 && byte != '\n' && byte != '\r') carriage();
        first(byte);
    }
    void rest() {
        rest_of_sequence();
        if (state_.carriage != 0) carriage();
    }

  private:
    void first(std::uint8_t byte) {
        if (byte == '\r') {
            state_.carriage = 1;  // several in a row are one
        } else if (byte == '\n') {
            begin();
            out_ += '\n';
            state_.carriage = state_.in_line = 0;
        } else if (byte == '\t' || (byte >= 0x20 && byte < 0x7F)) {
            begin();
            out_ += static_cast<char>(byte);
        } else if (sequence_length(byte) > 1) {
            state_.pending[0] = byte;
            state_.length = 1;
        } else {
            hexadecimal(byte);
        }
    }
    void continued(std::uint8_t byte) {
        const std::size_t whole = sequence_length(state_.pending[0]);
        if (state_.length + 1u < whole) {
            state_.pending[state_.length++] = byte;
            return;
        }
        std::array<std::uint8_t, 4> sequence{};
        std::copy_n(state_.pending.begin(), state_.length, sequence.begin());
        sequence[state_.length] = byte;
        state_.length = 0;
        if (!harmless(decode(sequence.data(), whole)))
            return std::for_each_n(sequence.begin(), whole, [&](std::uint8_t one) { hexadecimal(one); }), void();
        begin();
        out_.append(sequence.begin(), sequence.begin() + static_cast<std::ptrdiff_t>(whole));
    }
    void rest_of_sequence() {
        for (std::uint8_t i = 0; i < state_.length; ++i) hexadecimal(state_.pending[i]);
        state_.length = 0;
    }
    void carriage() {
        state_.carriage = 0;
        hexadecimal('\r');
    }
    void hexadecimal(std::uint8_t byte) {
        static constexpr char digits[] = "0123456789abcdef";
        begin();
        out_ += "\\x";
        out_ += digits[byte >> 4];
        out_ += digits[byte & 15];
    }
    void begin() {
        if (state_.in_line == 0) out_ += stamp_.substr(0, longest_stamp);
        state_.in_line = 1;
    }

    EscapeState& state_;
    std::string_view stamp_;
    std::string& out_;
};

}  // namespace

void escape(EscapeState& state, std::span<const std::byte> bytes, std::string_view stamp, std::string& out) {
    Writer writer(state, stamp, out);
    for (const std::byte byte : bytes) writer.byte(static_cast<std::uint8_t>(byte));
}

void escape_rest(EscapeState& state, std::string_view stamp, std::string& out) { Writer(state, stamp, out).rest(); }

}  // namespace caisson
