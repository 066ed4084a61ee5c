// What a log shows of what a guest printed.
#include <catch2/catch.hpp>
#include <random>

#include "ring/escape.h"

namespace caisson {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string escaped_whole(std::string_view text, std::string_view stamp = {}) {
    EscapeState state;
    std::string out;
    escape(state, bytes(text), stamp, out);
    escape_rest(state, stamp, out);
    return out;
}

}  // namespace

TEST_CASE("text passes as it is: ASCII, tabs, newlines, UTF-8") {
    for (const char* text :
         {"plain text\n", "tab\there\n", "gr\xc3\xbc\xc3\x9f", "\xe2\x82\xac", "\xf0\x9f\x9a\xa2", ""})
        CHECK(escaped_whole(text) == text);
}

TEST_CASE("whatever a terminal would obey is shown instead") {
    CHECK(escaped_whole("\x1b[2J") == "\\x1b[2J");
    CHECK(escaped_whole("\x1b]0;title\x07") == "\\x1b]0;title\\x07");
    CHECK(escaped_whole(std::string_view("\0", 1)) == "\\x00");
    CHECK(escaped_whole("\x7f\b\f\v") == "\\x7f\\x08\\x0c\\x0b");
    CHECK(escaped_whole("\x9b"
                        "31m") == "\\x9b31m");  // C1 as a byte
    CHECK(escaped_whole("\xc2\x9b"
                        "31m") == "\\xc2\\x9b31m");  // and as UTF-8
}

TEST_CASE("a carriage return before a newline is part of it; alone it would overwrite, so it is shown") {
    CHECK(escaped_whole("one\r\ntwo\r\r\n") == "one\ntwo\n");
    CHECK(escaped_whole("good\rbad") == "good\\x0dbad");
    CHECK(escaped_whole("end\r") == "end\\x0d");
}

TEST_CASE("malformed UTF-8 is shown byte by byte") {
    CHECK(escaped_whole("\xff\xfe") == "\\xff\\xfe");
    CHECK(escaped_whole("\xc0\xaf") == "\\xc0\\xaf");                    // overlong
    CHECK(escaped_whole("\xe0\x80\xaf") == "\\xe0\\x80\\xaf");           // overlong
    CHECK(escaped_whole("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // a surrogate
    CHECK(escaped_whole("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // beyond Unicode
    CHECK(escaped_whole("\xe2\x82") == "\\xe2\\x82");                    // cut off
    CHECK(escaped_whole("\xe2\x82"
                        "A") ==
          "\\xe2\\x82"
          "A");
    CHECK(escaped_whole("\x80") == "\\x80");
}

TEST_CASE("characters that make text look other than it is are shown") {
    CHECK(escaped_whole("\xe2\x80\xae") == "\\xe2\\x80\\xae");           // right-to-left override
    CHECK(escaped_whole("\xe2\x80\x8b") == "\\xe2\\x80\\x8b");           // zero-width space
    CHECK(escaped_whole("\xe2\x80\xa8") == "\\xe2\\x80\\xa8");           // line separator
    CHECK(escaped_whole("\xf3\xa0\x81\x81") == "\\xf3\\xa0\\x81\\x81");  // a tag
    CHECK(escaped_whole("\xef\xbb\xbf") == "\\xef\\xbb\\xbf");           // byte order mark
}

TEST_CASE("a stamp stands in front of every line, once") {
    CHECK(escaped_whole("a\nb\n\nc", "> ") == "> a\n> b\n> \n> c");
    CHECK(escaped_whole("\n", "> ") == "> \n");
}

TEST_CASE("text comes out the same however it is cut into pieces") {
    std::mt19937 random(1);
    for (int round = 0; round < 500; ++round) {
        std::string text;
        static constexpr std::string_view parts[] = {
            "abc", "\r\n", "\r", "\n", "\xe2\x82\xac", "\xf0\x9f\x9a\xa2", "\xc3", "\x1b[0m", "\xe2\x80\xae", "\xff"};
        for (int i = 0; i < 40; ++i) text += parts[random() % std::size(parts)];
        EscapeState state;
        std::string out;
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t piece = std::min<std::size_t>(1 + random() % 5, text.size() - at);
            escape(state, bytes(text).subspan(at, piece), "|", out);
            at += piece;
        }
        escape_rest(state, "|", out);
        REQUIRE(out == escaped_whole(text, "|"));
    }
}

TEST_CASE("output never grows beyond what a log file has room for") {
    const std::string stamp(longest_stamp, 's');
    for (const char* unit : {"\n", "\x1b", "\x1b\n", "\r", "\xc3\n", "\xe2\x82", "\xf0\x9f\x9a"}) {
        EscapeState state;
        std::string text, out;
        while (text.size() < 1000) text += unit;
        escape(state, bytes(text), stamp, out);
        escape_rest(state, stamp, out);
        CHECK(out.size() <= text.size() * worst_growth + worst_rest);
    }
}

}  // namespace caisson
