#include "domains/toolstack/state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ring/text_file.h"

namespace caisson::toolstack {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ProcessId, pid, start)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DomainRecord, domid, generation, name, uuid, type, memory_mib, vcpus, driver_domain,
                                   init, keeper)

namespace {

constexpr std::size_t longest_socket_path = 107;  // sun_path, and its NUL

std::string record_path(const State& state, std::uint16_t domid) {
    return state.records() + "/" + std::to_string(domid) + ".json";
}
std::string mark_path(const State& state, std::uint16_t domid) {
    return state.records() + "/" + std::to_string(domid) + ".destroyed";
}

Status private_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return host_fault(errno, "mkdir", path);
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) return host_fault(errno, "stat", path);
    if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 077) != 0)
        return unsupported("", path + ": must be a folder of yours that nobody else may enter (chmod 700)");
    return {};
}

}  // namespace

Result<State> find_state(const std::string& chosen) {
    const char* variable = std::getenv("CAISSON_STATE");
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    std::string folder = chosen;
    if (folder.empty() && variable != nullptr) folder = variable;
    if (folder.empty() && ::geteuid() == 0) folder = "/run/caisson";
    if (folder.empty() && runtime != nullptr && *runtime != '\0') folder = std::string(runtime) + "/caisson";
    if (folder.empty())
        return unsupported("",
                           "no place for the hypervisor's state: set XDG_RUNTIME_DIR, or name a folder with --state");
    std::error_code error;
    State state{.folder = std::filesystem::absolute(folder, error).lexically_normal().string()};
    if (state.folder.ends_with('/')) state.folder.pop_back();
    if (state.xenstored_socket().size() > longest_socket_path)
        return unsupported("", state.folder + ": too long a name for a folder with sockets in it");
    return state;
}

Status prepare_state(const State& state) {
    TRY(private_folder(state.folder));
    TRY(private_folder(state.records()));
    TRY(private_folder(state.stats()));
    return private_folder(state.logs());
}

Result<Fd> lock_creation(const State& state) {
    const std::string path = state.folder + "/create";
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file || ::flock(file.get(), LOCK_EX) != 0) return host_fault(errno, "lock", path);
    return file;
}

// Field 22 of /proc/PID/stat, counted from behind the command's name, which may hold anything.
std::optional<ProcessId> process(pid_t pid) {
    const std::string text = read_text("/proc/" + std::to_string(pid) + "/stat").value_or("");
    auto at = text.rfind(')');
    if (at == std::string::npos || at + 2 >= text.size() || text[at + 2] == 'Z') return std::nullopt;
    for (int field = 2; field < 22 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
    if (at == std::string::npos) return std::nullopt;
    return ProcessId{.pid = pid, .start = std::strtoull(text.c_str() + at + 1, nullptr, 10)};
}

bool alive(const ProcessId& id) { return id.pid > 0 && process(id.pid) == id; }

std::optional<ProcessId> hypervisor_process(const State& state) {
    const std::string path = state.xenstored_socket();
    const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ucred peer{};
    socklen_t length = sizeof peer;
    if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return std::nullopt;
    return process(peer.pid);
}

Status write_record(const State& state, const DomainRecord& record) {
    const std::string path = record_path(state, record.domid), draft = path + ".new";
    {
        std::ofstream out(draft, std::ios::binary | std::ios::trunc);
        out << nlohmann::json(record).dump(1) << '\n';
        if (!out.flush()) return host_fault(errno, "write", draft);
    }
    if (std::rename(draft.c_str(), path.c_str()) != 0) return host_fault(errno, "rename", draft);
    return {};
}

void remove_record(const State& state, std::uint16_t domid) {
    ::unlink(record_path(state, domid).c_str());
    ::unlink(mark_path(state, domid).c_str());
}

std::vector<DomainRecord> read_records(const State& state) {
    std::vector<DomainRecord> records;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(state.records(), error)) {
        if (entry.path().extension() != ".json") continue;
        const auto json = nlohmann::json::parse(read_text(entry.path()).value_or(""), nullptr, false);
        if (json.is_discarded()) continue;  // gone, or half written by somebody who is no keeper
        try {
            records.push_back(json.get<DomainRecord>());
        } catch (const nlohmann::json::exception&) {
            continue;
        }
    }
    return records;
}

Status say_consoles_served(const State& state, bool served) {
    const std::string mark = state.folder + "/no-console";
    if (served) return ::unlink(mark.c_str()) == 0 || errno == ENOENT ? Status{} : host_fault(errno, "unlink", mark);
    const Fd file(::open(mark.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600));
    return file ? Status{} : host_fault(errno, "open", mark);
}

bool consoles_served(const State& state) { return ::access((state.folder + "/no-console").c_str(), F_OK) != 0; }

void mark_destroyed(const State& state, std::uint16_t domid) {
    const Fd mark(::open(mark_path(state, domid).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

bool marked_destroyed(const State& state, std::uint16_t domid) {
    return ::access(mark_path(state, domid).c_str(), F_OK) == 0;
}

}  // namespace caisson::toolstack
