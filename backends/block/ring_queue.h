// A Queue of one ABI. See queue.h.
#pragma once

#include "backends/block/bounce.h"
#include "backends/block/grants.h"
#include "backends/block/job.h"
#include "backends/block/queue.h"

namespace caisson::block::backend {

template <class Wire>
class RingQueue final : public Queue {
  public:
    static Result<std::unique_ptr<Queue>> make(Disk& disk, unsigned number, HandoverReader& handover, bool successor);

    Result<bool> poll() override;
    Result<bool> arm() override;
    void done(std::uint32_t tag, int error) override;
    void give_up() override;
    bool throttled() const override { return throttled_; }
    const EventChannel& channel() const override { return channel_; }
    std::uint32_t pages_mapped() const override { return grants_.mapped(); }

  private:
    using Clock = std::chrono::steady_clock;
    using Request = typename Wire::Request;

    struct Transport {
        MappedPages pages;
        EventChannel channel;
        QueueJournal<Wire> journal;
    };
    RingQueue(Disk& disk, unsigned number, Transport transport, BackRing<Wire> ring, InFlight<Wire> in_flight);

    Result<std::uint32_t> take(std::uint32_t budget);
    void continue_waiting();
    void begin(Tag tag, Untrusted<Request>&& request);
    bool start(Tag tag, Call& call);
    bool start_in_place(Tag tag, const Command& command, std::span<const Extent> extents);
    bool start_kept(Tag tag, const Command& command, std::span<const Extent> extents);
    std::expected<std::span<const Extent>, const char*> fetch_segments(Command& command);
    bool read_mapped(std::span<const GrantRef> pages, std::span<std::byte> to);
    bool read_copied(const Command& command, std::span<std::byte> to);
    bool map(Job& job, std::span<const Extent> extents);
    bool pin(std::vector<std::uint32_t>& places);
    bool find_memory(Job& job);
    bool copy(Job& job, GrantCopy::Direction direction);
    void advance(Tag tag);
    void submit(Tag tag, const Job& job);
    void complete(Tag tag);
    void release(Job& job);
    void refuse(Tag tag, const Rejected& why);
    void answer(Tag tag, std::int16_t status);
    QueueStats& stats() { return disk_.context.stats.queue[number_]; }
    Job& job(Tag tag) { return jobs_[tag.raw]; }

    Disk& disk_;
    const unsigned number_;
    MappedPages pages_;
    EventChannel channel_;
    BackRing<Wire> ring_;
    InFlight<Wire> in_flight_;
    GrantCache grants_;
    BouncePool pool_;
    std::vector<Job> jobs_;  // by tag
    Line waiting_;
    std::uint32_t active_ = 0;  // started and not done
    bool barrier_ = false;      // the one that is active is a barrier: nothing else starts
    bool throttled_ = false;
    bool answered_ = false, due_ = true;  // rings once at first, in case a predecessor's notify was lost
    bool given_up_ = false;
    std::uint32_t batches_ = 0;
    Clock::time_point now_{}, mapping_since_{};
    std::vector<Segment> segments_;
    std::vector<Extent> extents_;
    std::vector<GrantRef> refs_;
    std::vector<std::uint32_t> segment_places_;
    std::vector<SharedSpan> spans_;
    std::vector<GrantCopy> copies_;
};

}  // namespace caisson::block::backend
