#include "domains/domain/ids.h"

#include <fcntl.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace caisson::domain {
namespace {

// Above what distributions give to users and containers (subuid), below the 2^31 that some programs take for negative.
constexpr std::uint64_t first_id = 0x40000000, ranges = 16000;

// The ranges in which some process runs, by any of its four user ids.
std::set<std::uint64_t> inhabited() {
    std::set<std::uint64_t> found;
    std::error_code error;
    for (std::filesystem::directory_iterator entry("/proc", error), end; !error && entry != end;
         entry.increment(error)) {
        if (std::isdigit(static_cast<unsigned char>(entry->path().filename().c_str()[0])) == 0) continue;
        std::ifstream status(entry->path() / "status");
        for (std::string line; std::getline(status, line);) {
            if (!line.starts_with("Uid:")) continue;
            std::istringstream ids(line.substr(4));
            for (std::uint64_t id; ids >> id;)
                if (id >= first_id) found.insert((id - first_id) / IdRange::ids);
            break;
        }
    }
    return found;
}

}  // namespace

Result<IdRange> IdRange::claim(std::uint64_t start, const std::string& file) {
    Fd lock(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock) return host_fault(errno, "open", file);
    const auto taken = inhabited();
    for (std::uint64_t i = 0; i < ranges; ++i) {
        const std::uint64_t number = (start + i) % ranges;
        // Of the open file, not of the process: two claims of one process exclude each other as well.
        struct flock byte{};
        byte.l_type = F_WRLCK;
        byte.l_whence = SEEK_SET;
        byte.l_start = static_cast<off_t>(number);
        byte.l_len = 1;
        if (taken.contains(number)) continue;
        if (::fcntl(lock.get(), F_OFD_SETLK, &byte) == 0) return IdRange(std::move(lock), first_id + number * ids);
        if (errno != EAGAIN && errno != EACCES) return host_fault(errno, "lock", file);
    }
    return host_fault(EUSERS, "a range of user ids for the domain: all are taken");
}

}  // namespace caisson::domain
