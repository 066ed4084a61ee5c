// Drives one fuzz target without libFuzzer: usage: fuzz_NAME CORPUS-FOLDER COUNT [FIRST]
//
// First every file of the folder, then COUNT inputs of a fixed series: random bytes, and mutations of the corpus files.
// The series is the same on every machine, so "input 1234" in a failure is the whole recipe: COUNT 1, FIRST 1234.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::size_t longest_random_input = 4096;

char current[512] = "nothing yet";  // read by the signal handler

// Names the input that killed the target, then dies as it would have.
void say_which(int signal) {
    static constexpr char before[] = "\nfuzz: the target died of ";
    (void)!::write(STDERR_FILENO, before, sizeof before - 1);
    (void)!::write(STDERR_FILENO, current, std::char_traits<char>::length(current));
    (void)!::write(STDERR_FILENO, "\n", 1);
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> found;
    if (std::filesystem::is_directory(folder))
        for (const auto& entry : std::filesystem::directory_iterator(folder))
            if (entry.is_regular_file()) found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    return found;
}

Bytes read_all(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// The n-th input of the series: mostly small, bytes biased towards the values at which limits sit.
Bytes input(std::uint64_t n, const std::vector<Bytes>& corpus) {
    std::mt19937_64 random(n * 0x9E3779B97F4A7C15u + 1);
    auto below = [&](std::size_t limit) { return static_cast<std::size_t>(random() % limit); };
    auto byte = [&] {
        static constexpr std::uint8_t edges[] = {0, 1, 0x7F, 0x80, 0xFE, 0xFF};
        return below(4) == 0 ? edges[below(std::size(edges))] : static_cast<std::uint8_t>(random());
    };
    Bytes bytes;
    if (!corpus.empty() && below(4) != 0) {
        bytes = corpus[below(corpus.size())];
        for (std::size_t change = 1 + below(8); change > 0 && !bytes.empty(); --change)
            bytes[below(bytes.size())] = byte();
        if (below(4) == 0) bytes.resize(below(bytes.size() + 1));
    } else {
        bytes.resize(below(std::size_t{1} << (1 + below(12))) % longest_random_input);
        std::generate(bytes.begin(), bytes.end(), byte);
    }
    return bytes;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s CORPUS-FOLDER COUNT [FIRST]\n", argv[0]);
        return 2;
    }
    if (LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&argc, &argv);
    for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, say_which);

    std::vector<Bytes> corpus;
    for (const auto& file : files_of(argv[1])) {
        corpus.push_back(read_all(file));
        std::snprintf(current, sizeof current, "corpus file %s", file.filename().c_str());
        LLVMFuzzerTestOneInput(corpus.back().data(), corpus.back().size());
    }
    const std::uint64_t count = std::strtoull(argv[2], nullptr, 10);
    const std::uint64_t first = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0;
    for (std::uint64_t n = first; n < first + count; ++n) {
        std::snprintf(current, sizeof current, "input %llu", static_cast<unsigned long long>(n));
        const Bytes bytes = input(n, corpus);
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
    std::printf("%zu corpus files and %llu inputs of the series from %llu on: survived\n", corpus.size(),
                static_cast<unsigned long long>(count), static_cast<unsigned long long>(first));
    return 0;
}
