#include "domains/domain/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstddef>

#include "ring/signals.h"

namespace caisson::domain {
namespace {

bool copy_some(int from, int to) {
    std::array<std::byte, 8192> bytes;
    const ssize_t got = ::read(from, bytes.data(), bytes.size());
    if (got <= 0) return got < 0 && (errno == EINTR || errno == EAGAIN);
    for (ssize_t at = 0; at < got;) {
        const ssize_t put = ::write(to, bytes.data() + at, static_cast<std::size_t>(got - at));
        if (put < 0 && errno != EINTR && errno != EAGAIN) return false;
        if (put > 0) at += put;
    }
    return true;
}

void copy_size(const Fd& master) {
    winsize size{};
    if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) ::ioctl(master.get(), TIOCSWINSZ, &size);
}

}  // namespace

RawTerminal::RawTerminal() {
    if (::tcgetattr(STDIN_FILENO, &saved_) != 0) return;
    termios raw = saved_;
    ::cfmakeraw(&raw);
    changed_ = ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

RawTerminal::~RawTerminal() {
    if (changed_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
}

void relay_terminal(const Fd& master, const Fd& done) {
    const RawTerminal raw;
    const Fd resized = take_signals({SIGWINCH}).value_or(Fd());
    copy_size(master);
    bool input = true, ended = false;
    while (true) {
        pollfd ready[] = {{master.get(), POLLIN, 0},
                          {input ? STDIN_FILENO : -1, POLLIN, 0},
                          {ended ? -1 : done.get(), POLLIN, 0},
                          {resized.get(), POLLIN, 0}};
        const int count = ::poll(ready, 4, ended ? 0 : -1);
        if (count < 0 && errno != EINTR) return;
        if (count == 0 && ended) return;
        if ((ready[0].revents & POLLIN) != 0) {
            if (!copy_some(master.get(), STDOUT_FILENO)) return;
        } else if (ready[0].revents != 0) {
            return;  // every holder of the other side is gone
        }
        if (ready[1].revents != 0) input = copy_some(STDIN_FILENO, master.get());
        if (ready[2].revents != 0) ended = true;
        if (ready[3].revents != 0) {
            signalfd_siginfo info{};
            while (::read(resized.get(), &info, sizeof info) > 0) continue;
            copy_size(master);
        }
    }
}

}  // namespace caisson::domain
