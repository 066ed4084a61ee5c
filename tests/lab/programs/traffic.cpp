// TCP traffic between two domains, every byte of which is checked.
//
// Usage: lab_traffic serve PORT            sends back what comes, with its own clock in each message
//        lab_traffic ask HOST PORT         until a line comes on standard input
//
// Two connections: one asks small questions, one a millisecond at most, and one carries 64 KiB a message. `ask` says, a
// line each, with CLOCK_MONOTONIC of its domain in seconds:
//     probe ASKED ENDED      a small question and its answer
//     error WORDS            a connection that ended, or an answer that is not what was sent
//     clocks DIFFERENCE      the server's clock minus ours, from the quickest answer of all
// and at the end: end MESSAGES BYTES ERRORS
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;

struct Header {
    std::uint64_t number;
    std::uint64_t words;  // that follow, 8 bytes each
    double clock;         // the server's
};
constexpr std::uint64_t most_words = 8192;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

bool send_all(int fd, const void* from, std::size_t bytes) {
    for (const char* at = static_cast<const char*>(from); bytes > 0;) {
        const ssize_t sent = ::send(fd, at, bytes, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        at += sent, bytes -= static_cast<std::size_t>(sent);
    }
    return true;
}
bool receive_all(int fd, void* to, std::size_t bytes) {
    return bytes == 0 || ::recv(fd, to, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes);
}

void echo(int fd) {
    const int one = 1;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    std::vector<std::uint64_t> payload(most_words);
    for (Header header{}; receive_all(fd, &header, sizeof header) && header.words <= most_words;) {
        if (!receive_all(fd, payload.data(), header.words * 8)) break;
        header.clock = now();
        if (!send_all(fd, &header, sizeof header) || !send_all(fd, payload.data(), header.words * 8)) break;
    }
    ::close(fd);
}

int serve(std::uint16_t port) {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    (void)::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(listener, 8) != 0)
        return std::perror("listen"), 1;
    for (;;)
        if (const int fd = ::accept(listener, nullptr, nullptr); fd >= 0) std::thread(echo, fd).detach();
}

class Traffic {
  public:
    Traffic(const char* host, const char* port) {
        address_.sin_family = AF_INET;
        address_.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
        ::inet_pton(AF_INET, host, &address_.sin_addr);
    }

    int run() {
        std::thread small([this] { ask(8, true); }), large([this] { ask(most_words, false); });
        pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
        (void)::poll(&input, 1, -1);
        stop_ = true;
        small.join(), large.join();
        std::printf("clocks %.6f\nend %lu %lu %lu\n", difference_, messages_.load(), bytes_.load(), errors_.load());
        return errors_ == 0 ? 0 : 1;
    }

  private:
    void ask(std::uint64_t words, bool probe) {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
        (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (::connect(fd, reinterpret_cast<const sockaddr*>(&address_), sizeof address_) != 0) return error("connect");
        std::vector<std::uint64_t> sent(words), got(words);
        for (Header header{.number = 1, .words = words, .clock = 0}; !stop_; ++header.number) {
            std::uint64_t value = header.number * 0x9E3779B97F4A7C15u | 1;
            for (std::uint64_t i = 0; i < words; ++i) sent[i] = value = std::rotl(value, 7) * 0xD1342543DE82EF95u + i;
            const double asked = now();
            Header answer{};
            if (!send_all(fd, &header, sizeof header) || !send_all(fd, sent.data(), words * 8) ||
                !receive_all(fd, &answer, sizeof answer) || !receive_all(fd, got.data(), words * 8))
                return error("the connection ended");
            if (answer.number != header.number || got != sent) return error("an answer is not what was sent");
            ++messages_, bytes_ += 2 * (sizeof header + words * 8);
            if (probe) answered(asked, now(), answer.clock);
        }
        ::close(fd);
    }
    void answered(double asked, double ended, double theirs) {
        std::printf("probe %.6f %.6f\n", asked, ended);
        if (ended - asked < quickest_) quickest_ = ended - asked, difference_ = theirs - (asked + ended) / 2;
        std::this_thread::sleep_for(1ms);
    }
    void error(const char* what) {
        ++errors_;
        std::printf("error %s: %s\n", what, std::strerror(errno));
        std::fflush(stdout);
    }

    sockaddr_in address_{};
    std::atomic<bool> stop_ = false;
    std::atomic<std::uint64_t> messages_ = 0, bytes_ = 0, errors_ = 0;
    double quickest_ = 1e9, difference_ = 0;
};

}  // namespace

int main(int count, char** words) {
    const std::string what = count > 1 ? words[1] : "";
    if (what == "serve" && count == 3) return serve(static_cast<std::uint16_t>(std::atoi(words[2])));
    if (what == "ask" && count == 4) return Traffic(words[2], words[3]).run();
    return std::fprintf(stderr, "usage: %s serve PORT | ask HOST PORT\n", words[0]), 2;
}
