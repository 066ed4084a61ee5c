// Carries bytes between this process's terminal and another one's master side. Threads: one.
#pragma once

#include <termios.h>

#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::domain {

// Raw mode and window size as long as it lives; puts the old mode back.
class RawTerminal {
  public:
    RawTerminal();
    ~RawTerminal();
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;

  private:
    termios saved_{};
    bool changed_ = false;
};

// Until `master` hangs up, or until `done` (a pidfd) becomes readable and what was written meanwhile is carried over.
void relay_terminal(const Fd& master, const Fd& done);

}  // namespace caisson::domain
