#include "backends/console/console.h"

#include <sys/syscall.h>

#include "backends/console/host.h"
#include "backends/console/log.h"
#include "backends/console/worker.h"
#include "ring/keys.h"

namespace caisson::console {

namespace {

// Keeps the host and the log open from the first offer to the end of the device: whoever is attached stays attached
// while workers die and frontends come and go.
class BackendControl final : public DeviceControl {
  public:
    Status offer(ControlContext& context) override {
        const BackendKeys keys = TRY(read_keys<BackendKeys>(context.own));
        settings_ = TRY(parse(keys));
        if (host_.kind != settings_.host || !opened_) {
            host_ = TRY(open_host(settings_, context.address.frontend, context.address.id));
            opened_ = true;
        }
        if (host_.kind == HostKind::pty) TRY(context.own.write(tty_key, host_.where));
        if (host_.kind == HostKind::socket) TRY(context.own.write(path_key, host_.where));
        return {};
    }

    Result<Handover> connect(ControlContext& context) override {
        const Line line = TRY(read_keys<Line>(context.peer));
        if (!settings_.log_path.empty()) log_ = TRY(open_log(settings_.log_path, settings_.log_limit));
        TRY(context.own.remove(log_turn_key));
        channel_ = TRY(context.hypervisor.bind_interdomain(context.address.peer(), line.port));

        Handover handover;
        handover.put(plan(line));
        TRY(handover.put(channel_));
        if (host_.fd) TRY(handover.put(host_.fd));
        if (log_.files[0])
            for (const Fd& file : log_.files) TRY(handover.put(file));
        handover.journal_bytes = Journal::bytes(settings_.limit);
        return handover;
    }

    void disconnect(ControlContext& context) override {
        if (channel_) context.hypervisor.close(std::move(channel_));
        channel_ = {};
        log_ = {};
    }

    std::vector<std::string> watched_own() const override { return {std::string(log_turn_key)}; }
    bool worker_may_publish(std::string_view key) const override { return key == log_turn_key; }

    // The worker writes into the other log file from now on: the names follow.
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override {
        const auto turn = TRY(context.own.number(log_turn_key, 0));
        if (const auto renamed = log_.rename_to(turn); !renamed) context.log.peer(renamed.error());
        return std::nullopt;
    }

  private:
    BackendPlan plan(const Line& line) const {
        return {.ring_ref = line.ring_ref,
                .host = host_.kind,
                .log = static_cast<bool>(log_.files[0]),
                .log_timestamps = settings_.log_timestamps,
                .limit = settings_.limit,
                .log_limit = settings_.log_limit,
                .log_rate = settings_.log_rate,
                .log_begin = log_.begin};
    }

    Settings settings_;
    OpenHost host_;
    bool opened_ = false;
    OpenLog log_;
    EventChannel channel_;
};

std::unique_ptr<DeviceControl> make_control() { return std::make_unique<BackendControl>(); }

WorkerPolicy policy() {
    return {.system_calls = {SYS_pwrite64, SYS_ftruncate, SYS_accept4, SYS_sendmsg},
            .operations = {},
            .max_file_size = most_log_limit / 2};
}

}  // namespace

ClassHalf backend_half() { return {.control = make_control, .serve = BackendWorker::serve, .policy = policy}; }

}  // namespace caisson::console
