// The console's log on disk: two files written in turns, so that rotation needs no open() in a sealed worker.
//
//   controller   open_log(): opens FILE and FILE.1, says where to go on; exchanges their names when the worker has
//                changed over, so that FILE is always the newer half
//   worker       LogWriter: harmless text at known offsets; each file holds at most half of the limit
//
// Nothing here fails the device: a full disk costs log text, which is counted.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "backends/console/journal.h"
#include "protocols/console.h"
#include "ring/fd.h"

namespace caisson::console {

struct OpenLog {
    Fd files[2];        // written in turns 0, 1, 0, ...
    LogPosition begin;  // after what was there
    std::string path;
    std::uint32_t turn = 0;  // which turn's file has the name `path`

    // The worker writes turn `now`: files[now % 2] gets the name `path`, the other `path`.1.
    Status rename_to(std::uint32_t now);
};

// In the controller. Makes the last folder of the path if it is missing; refuses symbolic links and whatever is not a
// regular file.
Result<OpenLog> open_log(const std::string& path, std::uint32_t log_limit);

class LogWriter {
  public:
    using Clock = std::chrono::steady_clock;
    struct Options {
        std::uint32_t limit = default_log_limit;  // of both files together
        std::uint32_t rate = default_log_rate;    // bytes a second, after a burst of `limit`
        bool timestamps = false;
    };
    // Bytes of output that fit into a file of the smallest limit whatever they become.
    static constexpr std::size_t most_bytes = 1024;

    LogWriter() = default;
    LogWriter(Fd first, Fd second, Options options);

    explicit operator bool() const { return static_cast<bool>(files_[0]); }

    // Writes what at most most_bytes of output become, behind `journal`'s position; `next` gets the position after it.
    // Commits a turn by itself, before anything is written into the other file. True when a turn was made.
    bool record(Journal& journal, Progress& next, std::span<const std::byte> bytes, Clock::time_point now);
    // What was held back for more; there will be none.
    void finish(Journal& journal);
    // A predecessor may have written behind the position and died before it committed that.
    void cut(const LogPosition& position) const;

    std::uint64_t left_out() const { return left_out_total_; }  // bytes of output
    std::uint64_t failures() const { return failures_; }

  private:
    std::uint32_t file_limit() const { return options_.limit / 2; }
    int file(std::uint32_t turn) const { return files_[turn % 2].get(); }
    bool affordable(std::size_t text, Clock::time_point now);
    bool make_room(Journal& journal, Progress& next, std::size_t text);
    void write(LogPosition& at, std::string_view text);

    Fd files_[2];
    Options options_;
    std::string text_;
    double allowance_ = 0;
    Clock::time_point filled_{};
    std::uint64_t left_out_ = 0, left_out_total_ = 0, failures_ = 0;
};

}  // namespace caisson::console
