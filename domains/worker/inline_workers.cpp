#include <map>

#include "domains/worker/served.h"
#include "domains/worker/workers.h"

namespace caisson {
namespace {

Result<ReceivedAttachment> copy_of(const Attachment& attachment, bool successor) {
    return ReceivedAttachment{.body = body_of(attachment, successor),
                              .statistics = TRY(attachment.statistics.duplicate()),
                              .hypervisor = TRY(attachment.hypervisor.duplicate()),
                              .journal = attachment.journal ? TRY(attachment.journal.duplicate()) : Fd(),
                              .reader = TRY(attachment.handover.reader())};
}

class InlineWorkers final : public Workers {
  public:
    InlineWorkers(Loop& loop, WorkerPort port) : loop_(loop), port_(std::move(port)) {}

    void attach(std::uint32_t number, const Attachment& attachment, Attended& device) override {
        Job& job = jobs_[number];
        job.attachment = &attachment;
        job.device = &device;
        job.group = attachment.group.empty() ? "#" + std::to_string(number)
                                             : attachment.address.device_class + "/" + attachment.group;
        const Status served = serve(number, job, attachment, false);
        answer(job, [&device, error = served ? Error{} : served.error(), good = served.has_value()] {
            good ? device.attached() : device.failed(error);
        });
    }

    void update(std::uint32_t number, std::span<const std::byte> message) override {
        const auto found = jobs_.find(number);
        if (found == jobs_.end() || !found->second.served) return;
        if (const Status updated = found->second.served->update(message); !updated) broken(number, updated.error());
    }

    void renew(std::uint32_t number) override {
        const auto found = jobs_.find(number);
        if (found == jobs_.end() || !found->second.served) return;
        Job& job = found->second;
        job.served.reset();
        const Status served = serve(number, job, *job.attachment, true);
        if (!served) return broken(number, served.error());
        answer(job, [device = job.device] { device->restarted(); });
    }

    void detach(std::uint32_t number) override {
        Job& job = jobs_[number];
        job.served.reset();
        Attended* device = job.device;
        const std::string group = job.group;
        job.answers.clear();
        answer(job, [this, number, group, device] {
            jobs_.erase(number);
            std::erase_if(groups_, [](const auto& one) { return one.second.use_count() == 0; });
            device->detached();
        });
    }

  private:
    struct Job {
        const Attachment* attachment = nullptr;
        Attended* device = nullptr;
        std::string group;
        std::unique_ptr<Served> served;
        std::vector<Loop::Handle> answers;
    };

    Status serve(std::uint32_t number, Job& job, const Attachment& attachment, bool successor) {
        ServedEvents events{
            .broken = [this, number](const Error& error) { broken(number, error); },
            .publish =
                [this, number](std::string_view key, std::string_view value) {
                    Job& mine = jobs_[number];
                    answer(mine, [&mine, k = std::string(key), v = std::string(value)] { mine.device->publish(k, v); });
                },
        };
        auto copy = TRY(copy_of(attachment, successor));
        job.served =
            TRY(Served::make(loop_, port_, *attachment.half, std::move(copy), std::move(events), groups_[job.group]));
        return {};
    }

    void broken(std::uint32_t number, const Error& error) {
        Job& job = jobs_[number];
        answer(job, [&job, error] { job.device->broken(error); });
    }

    // Later, from the loop: never from inside a call.
    void answer(Job& job, std::function<void()> call) {
        if (job.answers.size() > 64) job.answers.erase(job.answers.begin(), job.answers.begin() + 32);
        job.answers.push_back(loop_.after(Loop::Clock::duration::zero(), std::move(call)));
    }

    Loop& loop_;
    WorkerPort port_;
    std::map<std::string, std::shared_ptr<void>> groups_;
    std::map<std::uint32_t, Job> jobs_;
};

}  // namespace

std::unique_ptr<Workers> make_inline_workers(Loop& loop, WorkerPort port) {
    return std::make_unique<InlineWorkers>(loop, std::move(port));
}

}  // namespace caisson
