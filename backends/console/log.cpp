#include "backends/console/log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

namespace caisson::console {

static_assert(LogWriter::most_bytes * worst_growth + worst_rest + 64 <= least_log_limit / 2);

namespace {

struct Existing {
    Fd fd;
    std::uint64_t size = 0;
    timespec changed{};
};

Result<Existing> open_one(const std::string& path) {
    Existing one{.fd = Fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600))};
    if (!one.fd) return host_fault(errno, "open console log", path);
    struct stat status{};
    if (::fstat(one.fd.get(), &status) != 0) return host_fault(errno, "stat console log", path);
    if (!S_ISREG(status.st_mode)) return host_fault(EINVAL, "console log is not a regular file", path);
    one.size = static_cast<std::uint64_t>(status.st_size);
    one.changed = status.st_mtim;
    return one;
}

std::string stamp_now() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    tm utc{};
    ::gmtime_r(&now.tv_sec, &utc);
    return fmt::format("[{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z] ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                       utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1'000'000);
}

}  // namespace

Status OpenLog::rename_to(std::uint32_t now) {
    if (path.empty() || (now - turn) % 2 == 0) {
        turn = now;
        return {};
    }
    const std::string older = path + ".1";
    if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, older.c_str(), RENAME_EXCHANGE) != 0)
        return host_fault(errno, "exchange the names of a console log", path);
    turn = now;
    return {};
}

Result<OpenLog> open_log(const std::string& path, std::uint32_t log_limit) {
    const std::string folder = path.substr(0, path.rfind('/'));
    if (!folder.empty() && ::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
        return host_fault(errno, "make folder", folder);
    Existing newer = TRY(open_one(path)), older = TRY(open_one(path + ".1"));
    // A turn at the very end of a connection may have found nobody to rename the files.
    const auto age = [](const Existing& one) { return std::pair(one.changed.tv_sec, one.changed.tv_nsec); };
    if (older.size > 0 && age(older) > age(newer)) {
        if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, (path + ".1").c_str(), RENAME_EXCHANGE) != 0)
            return host_fault(errno, "exchange the names of a console log", path);
        std::swap(newer, older);
    }
    const std::uint32_t file_limit = log_limit / 2;
    // A smaller limit than last time holds for what is there already, too.
    if (newer.size > file_limit && ::ftruncate(newer.fd.get(), file_limit) != 0)
        return host_fault(errno, "cut console log", path);
    if (older.size > file_limit && ::ftruncate(older.fd.get(), file_limit) != 0)
        return host_fault(errno, "cut console log", path);
    OpenLog log{.path = path};
    log.begin.offset = static_cast<std::uint32_t>(std::min<std::uint64_t>(newer.size, file_limit));
    log.files[0] = std::move(newer.fd);
    log.files[1] = std::move(older.fd);
    return log;
}

LogWriter::LogWriter(Fd first, Fd second, Options options) : options_(options), allowance_(options.limit) {
    files_[0] = std::move(first);
    files_[1] = std::move(second);
}

bool LogWriter::record(Journal& journal, Progress& next, std::span<const std::byte> bytes, Clock::time_point now) {
    text_.clear();
    const std::string stamp = options_.timestamps ? stamp_now() : std::string();
    EscapeState after = next.log.escape;
    if (left_out_ > 0) {
        if (after.in_line != 0) text_ += '\n';
        text_ += fmt::format("[caisson: {} bytes left out]\n", left_out_);
        after = {};
    }
    escape(after, bytes, stamp, text_);
    if (!affordable(text_.size(), now)) {
        left_out_ += bytes.size();
        left_out_total_ += bytes.size();
        return false;
    }
    left_out_ = 0;
    const bool turned = make_room(journal, next, text_.size());
    next.log.escape = after;
    write(next.log, text_);
    return turned;
}

void LogWriter::finish(Journal& journal) {
    Progress next = journal.progress();
    text_.clear();
    if (left_out_ > 0)
        text_ += fmt::format("{}[caisson: {} bytes left out]\n", next.log.escape.in_line != 0 ? "\n" : "",
                             std::exchange(left_out_, 0));
    escape_rest(next.log.escape, options_.timestamps ? stamp_now() : std::string(), text_);
    if (text_.empty()) return;
    make_room(journal, next, text_.size());
    write(next.log, text_);
    journal.commit(next);
}

void LogWriter::cut(const LogPosition& position) const {
    if (::ftruncate(file(position.turn), std::min(position.offset, file_limit())) != 0) return;  // only tidiness
}

bool LogWriter::affordable(std::size_t text, Clock::time_point now) {
    if (filled_ != Clock::time_point{})
        allowance_ += std::chrono::duration<double>(now - filled_).count() * options_.rate;
    filled_ = now;
    allowance_ = std::min<double>(allowance_, options_.limit);
    if (allowance_ < static_cast<double>(text)) return false;
    allowance_ -= static_cast<double>(text);
    return true;
}

// Changes over to the other file when `text` bytes no longer fit, and commits that alone: a successor must not find the
// same bytes in both files.
bool LogWriter::make_room(Journal& journal, Progress& next, std::size_t text) {
    if (fits(next.log.offset, text, static_cast<std::size_t>(file_limit()))) return false;
    Progress turned = journal.progress();
    turned.log.turn += 1;
    turned.log.offset = 0;
    if (::ftruncate(file(turned.log.turn), 0) != 0) ++failures_;
    journal.commit(turned);
    next.log.turn = turned.log.turn;
    next.log.offset = 0;
    return true;
}

void LogWriter::write(LogPosition& at, std::string_view text) {
    while (!text.empty()) {
        const ssize_t count = ::pwrite(file(at.turn), text.data(), text.size(), at.offset);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) {  // a full disk: the rest of this text is lost, the next may find room
            ++failures_;
            return;
        }
        at.offset += static_cast<std::uint32_t>(count);
        text.remove_prefix(static_cast<std::size_t>(count));
    }
}

}  // namespace caisson::console
