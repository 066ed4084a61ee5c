// What a disk must hold: for each sector the version that was written last and answered, and the one that was written
// last at all. The two differ only while a write or a discard is under way, or after whoever wrote was killed.
//
// The model is a file that is mapped, so that it outlives a killed writer as the disk does. Every sector that is
// written says in its 512 bytes where it is, which version it holds, and is filled with what follows from both: a lost
// write, a torn sector and one in the wrong place are told apart.
//
// Threads: one at a time.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace caisson::chaos {

inline constexpr std::size_t sector = 512;

enum class What : std::uint8_t { read, write, flush, discard };

struct Piece {
    What what = What::read;
    std::uint64_t first = 0, count = 0;  // sectors
    std::uint32_t version = 0;           // of a write or discard
};

struct Findings {
    std::uint64_t checked = 0, lost = 0, torn = 0, elsewhere = 0;
    std::string first;  // of them, in words
};

class Shadow {
  public:
    // A file that is not there yet is a disk of zeros.
    Shadow(const std::string& path, std::uint64_t sectors, std::uint32_t seed)
        : sectors_(sectors), busy_(sectors), random_(seed) {
        const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes())) != 0) throw std::runtime_error(path);
        void* memory = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        ::close(fd);
        if (memory == MAP_FAILED) throw std::runtime_error("mmap of " + path);
        known_ = {static_cast<Known*>(memory), sectors};
        for (const Known& one : known_)
            last_version_ = std::max({last_version_, number(one.answered), number(one.asked)});
    }
    ~Shadow() { ::munmap(known_.data(), bytes()); }
    Shadow(const Shadow&) = delete;

    bool discards = true;  // where the disk has them

    // Another piece of work on sectors that nothing under way touches; `count` 0: there was no such place.
    Piece next() {
        const auto dice = random_() % 100;
        const What what = dice < 55   ? What::write
                          : dice < 92 ? What::read
                          : dice < 97 ? What::flush
                          : discards  ? What::discard
                                      : What::write;
        if (what == What::flush) return {.what = what, .count = 1};
        // Mostly small, from 512 bytes to 1 MiB: each power of two half as often as the one before.
        std::uint64_t most = 1;
        while (most < 2048 && random_() % 5 < 3) most *= 2;
        const std::uint64_t count = std::min(1 + random_() % most, sectors_);
        return take({.what = what, .first = random_() % (sectors_ - count + 1), .count = count});
    }
    Piece take(Piece wanted) {
        const auto place = std::span(busy_).subspan(wanted.first, wanted.count);
        if (std::ranges::any_of(place, [](char one) { return one != 0; })) return {};
        std::ranges::fill(place, 1);
        if (wanted.what == What::write || wanted.what == What::discard) {
            wanted.version = ++last_version_;
            for (Known& one : sectors_of(wanted))
                one.asked = wanted.version | (wanted.what == What::discard ? zeros : 0);
        }
        return wanted;
    }
    // Answered without an error.
    void ended(const Piece& piece) {
        if (piece.what == What::flush) return;
        std::ranges::fill(std::span(busy_).subspan(piece.first, piece.count), 0);
        if (piece.version != 0)
            for (Known& one : sectors_of(piece)) one.answered = one.asked;
    }
    static void fill(const Piece& piece, std::span<std::byte> bytes) {
        for (std::uint64_t i = 0; i < piece.count; ++i) {
            const Words words = words_of(piece.first + i, piece.version);
            std::memcpy(bytes.data() + i * sector, words.data(), sector);
        }
    }
    // What was read. The first time that a sector is seen after its writer was killed, it may be old or new; then it is
    // what it was seen to be.
    void check(const Piece& piece, std::span<const std::byte> bytes) {
        for (std::uint64_t i = 0; i < piece.count; ++i) {
            Words seen;
            std::memcpy(seen.data(), bytes.data() + i * sector, sector);
            check(piece.first + i, seen);
        }
    }

    const Findings& findings() const { return findings_; }
    std::uint64_t sectors() const { return sectors_; }

  private:
    static constexpr std::uint32_t zeros = 1u << 31;  // discarded by that version
    using Words = std::array<std::uint64_t, sector / 8>;
    struct Known {
        std::uint32_t answered = 0, asked = 0;  // 0: never written
    };

    static std::uint32_t number(std::uint32_t version) { return version & ~zeros; }
    static Words words_of(std::uint64_t at, std::uint32_t version) {
        Words words{at, version};
        std::uint64_t value = (at << 32 | version) * 0x9E3779B97F4A7C15u | 1;
        for (std::size_t i = 2; i < words.size(); ++i) words[i] = value = std::rotl(value, 7) * 0xD1342543DE82EF95u + i;
        return words;
    }
    static bool holds(const Words& seen, std::uint64_t at, std::uint32_t version) {
        return version == 0 || (version & zeros) != 0 ? seen == Words{} : seen == words_of(at, version);
    }
    void check(std::uint64_t at, const Words& seen) {
        Known& known = known_[at];
        ++findings_.checked;
        if (holds(seen, at, known.asked)) return void(known.answered = known.asked);
        if (holds(seen, at, known.answered)) return void(known.asked = known.answered);
        const auto version = static_cast<std::uint32_t>(seen[1]);
        const bool whole = seen == Words{} || seen == words_of(seen[0], version);
        std::uint64_t& count = !whole                             ? findings_.torn
                               : seen != Words{} && seen[0] != at ? findings_.elsewhere
                                                                  : findings_.lost;
        ++count;
        if (findings_.first.empty())
            findings_.first = "sector " + std::to_string(at) + " should hold version " + text(known.answered) +
                              (known.asked != known.answered ? " or " + text(known.asked) : "") + ", and holds " +
                              (seen == Words{} ? "zeros"
                               : whole         ? "version " + text(version) + " of sector " + std::to_string(seen[0])
                                               : "parts of several");
    }
    static std::string text(std::uint32_t version) {
        return std::to_string(number(version)) + ((version & zeros) != 0 ? " (discarded)" : "");
    }
    std::size_t bytes() const { return sectors_ * sizeof(Known); }
    std::span<Known> sectors_of(const Piece& piece) { return known_.subspan(piece.first, piece.count); }

    std::uint64_t sectors_;
    std::span<Known> known_;
    std::vector<char> busy_;
    std::mt19937 random_;
    std::uint32_t last_version_ = 0;
    Findings findings_;
};

}  // namespace caisson::chaos
