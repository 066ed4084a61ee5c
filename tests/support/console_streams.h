// Numbered text, and what became of it on its way: lost in places, or, what must never be, there twice.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

namespace caisson::test {

// "000000000\n000000001\n"...: no 32 bytes of it come twice.
inline std::string words(std::uint32_t first, std::uint32_t count) {
    std::string text;
    for (std::uint32_t i = first; i < first + count; ++i) text += fmt::format("{:09}\n", i);
    return text;
}

struct Difference {
    std::size_t lost = 0, doubled = 0, foreign = 0;  // bytes; foreign: never sent
};

// Walks both texts; where they part, what comes next is looked for further on (then the bytes between were lost), and
// before (then it came twice).
inline Difference difference(std::string_view sent, std::string_view got) {
    constexpr std::size_t window = 24;
    Difference out;
    std::size_t at = 0, next = 0;
    for (; at < got.size(); ++at, ++next) {
        if (next < sent.size() && sent[next] == got[at]) continue;
        const std::string_view piece = got.substr(at, window);
        if (const std::size_t further = sent.find(piece, std::min(next, sent.size())); further != sent.npos) {
            out.lost += further - next;
            next = further;
        } else if (const std::size_t before = sent.find(piece); before != sent.npos) {
            out.doubled += next - before;
            next = before;
        } else {  // two losses close to each other, or none of ours
            ++out.foreign;
            --next;
        }
    }
    if (next < sent.size()) out.lost += sent.size() - next;
    return out;
}

}  // namespace caisson::test
