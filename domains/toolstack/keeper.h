// The process that stays with a domain, as xl's does on Xen: it made PID 1, so it learns how that ended; it writes the
// domain's log, bounded and escaped; when the domain dies it removes it from xenstore, or makes it again if the cfg
// file says so.
//
// Threads: one process, one thread.
#pragma once

#include <functional>

#include "domains/toolstack/domain_config.h"
#include "domains/toolstack/state.h"
#include "protocols/words.h"

namespace caisson::toolstack {

struct KeeperOptions {
    bool echo = false;  // the domain's output goes to standard output, too
    // Once, when the domain runs or could not be made.
    std::function<void(const Result<DomainRecord>&)> born;
};

// Makes a domain and stays until it is gone for good; the exit code of its PID 1 (128 + signal when it was killed).
int keep(const State& state, const DomainConfig& config, const KeeperOptions& options);

// The same in a process of its own, which has no terminal and writes to the domain's log; returns when the domain runs.
Result<DomainRecord> keep_in_background(const State& state, const DomainConfig& config);

// A file of at most `limit` bytes, and the one before it as FILE.1: a guest must not fill the disk (XSA-180).
class BoundedLog {
  public:
    static Result<BoundedLog> open(std::string path, std::uint64_t limit);
    void append(std::string_view text);
    // A line of the keeper's own, with the time (UTC): "2026-01-31T12:00:00Z caisson: TEXT". A log holds many lives of
    // a name, and these lines keep them apart.
    void note(std::string_view text);

  private:
    BoundedLog(std::string path, Fd file, std::uint64_t limit)
        : path_(std::move(path)), file_(std::move(file)), limit_(limit) {}
    std::string path_;
    Fd file_;
    std::uint64_t limit_, size_ = 0;
    bool within_line_ = false;
};

}  // namespace caisson::toolstack
