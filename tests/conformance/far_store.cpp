#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "tests/conformance/far_hypervisor.h"
#include "tests/support/temporary.h"

namespace caisson::conformance {

struct FarStore::Relay {
    struct Connection {
        Fd socket;
        std::string handle;
        std::string pending;  // the beginning of a message of the client's
    };

    explicit Relay(std::shared_ptr<FarDomain> far) : domain(std::move(far)) {
        listener = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
            ::listen(listener.get(), 8) != 0)
            throw std::runtime_error("listen");
        thread = std::thread([this] {
            while (!stopping) turn();
        });
    }
    ~Relay() {
        stopping = true;
        thread.join();
        for (const Connection& one : connections) (void)domain->call("stream close " + one.handle);
    }

    void turn() {
        std::vector<pollfd> waiting{{.fd = listener.get(), .events = POLLIN, .revents = 0}};
        for (const Connection& one : connections)
            waiting.push_back({.fd = one.socket.get(), .events = POLLIN, .revents = 0});
        (void)::poll(waiting.data(), waiting.size(), 10);
        std::erase_if(connections, [this](Connection& one) {
            if (carry(one)) return false;
            (void)domain->call("stream close " + one.handle);
            return true;
        });
        Fd next(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!next) return;
        if (auto opened = domain->call("stream open")) connections.push_back({std::move(next), opened->at(0)});
    }

    // What the client wrote goes to the store, what the store has for it comes back. False: the client has gone.
    bool carry(Connection& one) {
        std::string bytes(most_bytes, '\0');
        const ssize_t got = ::read(one.socket.get(), bytes.data(), bytes.size());
        if (got == 0 || (got < 0 && errno != EAGAIN)) return false;
        one.pending.append(bytes, 0, got > 0 ? static_cast<std::size_t>(got) : 0);
        for (bool more = true; more;) {
            const std::string message = take_message(one.pending);
            const auto answer = domain->call("stream " + one.handle + " " + to_hex(message));
            if (!answer) return false;
            const std::string back = from_hex(answer->at(0));
            more = !message.empty() || back.size() == most_bytes;
            for (std::string_view rest = back; !rest.empty();) {
                const ssize_t put = ::write(one.socket.get(), rest.data(), rest.size());
                if (put < 0 && errno != EAGAIN) return false;
                rest.remove_prefix(put > 0 ? static_cast<std::size_t>(put) : 0);
            }
        }
        return true;
    }

    // xs_wire.h: four words, the last one is the length of what follows. Half a message would have no answer.
    static std::string take_message(std::string& pending) {
        std::uint32_t header[4];
        if (pending.size() < sizeof header) return "";
        std::memcpy(header, pending.data(), sizeof header);
        if (pending.size() - sizeof header < header[3]) return "";
        std::string message = pending.substr(0, sizeof header + header[3]);
        pending.erase(0, message.size());
        return message;
    }

    std::shared_ptr<FarDomain> domain;
    test::TemporaryFolder folder;
    std::string path = folder / "socket";
    Fd listener;
    std::vector<Connection> connections;
    std::atomic<bool> stopping{false};
    std::thread thread;
};

FarStore::FarStore(std::shared_ptr<FarDomain> domain) : relay_(std::make_unique<Relay>(std::move(domain))) {}
FarStore::~FarStore() = default;
std::string FarStore::path() const { return relay_->path; }

}  // namespace caisson::conformance
