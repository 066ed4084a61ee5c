// A Disk's inside: the endpoint of its device (disk_connection.cpp), and the requests of its users (disk.cpp).
#pragma once

#include <array>
#include <deque>

#include "frontends/block/bells.h"
#include "frontends/block/block.h"
#include "frontends/block/disk.h"
#include "frontends/block/link.h"
#include "ring/endpoint.h"

namespace caisson::block {

class Disk::Impl final : public EndpointHost {
  public:
    // A request of any length: its parts are submitted when there is room.
    struct Job {
        Disk::Callback done;
        unsigned parts = 0;  // not ended
        int error = 0;
    };
    struct Part {
        std::shared_ptr<Job> job;
        Operation operation = Operation::read;
        bool secure = false;
        std::uint64_t offset = 0, length = 0;
        iovec data{};
    };

    // Who waits for a tag.
    struct Waiter {
        enum class What : std::uint8_t { nobody, program, job } what = What::nobody;
        std::uint32_t parts = 0;
        iovec one{};              // of a read
        std::vector<iovec> many;  // when there are several
        std::shared_ptr<Job> job;
    };

    Impl(Hypervisor& hypervisor, Store& store, Loop& loop, const Options& options, DeviceAddress address)
        : hypervisor_(hypervisor),
          store_(store),
          loop_(loop),
          options_(options),
          address_(std::move(address)),
          log_(address_.name()),
          control_(make_frontend_control({.queues = options_.queues,
                                          .ring_order = options_.ring_order,
                                          .arena_pages = options_.arena_pages,
                                          .persistent = options_.persistent})),
          journal_(std::make_unique<frontend::ConnectionJournal>()) {}
    ~Impl() override;

    Status start();
    bool connected() const { return path_ && !dead_ && path_->ready(); }

    // ---- EndpointHost: answers are given later ----
    void attach(Handover handover) override;
    void detach() override;
    void update(std::vector<std::byte> message) override;
    void timer(std::optional<std::chrono::milliseconds> delay) override;

    bool owns(Buffer buffer) const { return fits<std::uint32_t>(buffer.first, buffer.pages, requests_->pool().size()); }
    int submit(const Request& request);
    std::span<const Ended> poll();
    void start_job(Part whole, Callback done);
    bool poll_queue(unsigned queue);
    bool arm_queue(unsigned queue);

    Hypervisor& hypervisor_;
    Store& store_;
    Loop& loop_;
    const Options options_;
    DeviceAddress address_;
    Log log_;
    std::unique_ptr<DeviceControl> control_;
    std::unique_ptr<Endpoint> endpoint_;
    Loop::Handle store_watch_, timer_, ticks_;
    std::deque<std::function<void()>> later_;
    Loop::Handle later_handle_;

    std::optional<frontend::KeptMemory> kept_;
    std::optional<frontend::Requests> requests_;
    std::unique_ptr<frontend::ConnectionJournal> journal_;
    std::unique_ptr<frontend::DataPath> path_;
    DeviceStats stats_;
    frontend::Bells<Impl> bells_;
    Geometry geometry_;
    bool dead_ = false;  // the path broke, or is going
    unsigned connections_ = 0;
    std::function<void()> changed_;

    std::array<Waiter, frontend::most_tags> waiters_;
    std::vector<Ended> ended_, told_;
    std::deque<Part> waiting_;  // bounded by what the program asks for

  private:
    void follow_store();
    Status begin();
    Result<std::unique_ptr<frontend::DataPath>> open_path(const Handover& handover);
    void drop_path();
    void know(const frontend::Features& features);
    void answer_later(std::function<void()> answer);
    void ended(Tag tag, std::uint64_t cookie, int error);
    void part_ended(const std::shared_ptr<Job>& job, int error);
    void pump();
};

}  // namespace caisson::block
