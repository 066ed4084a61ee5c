// libxen-dev's macros, used as Linux's blkfront and blkback use them: look at the producer once a round, copy each
// slot, push a batch and check for notify, final check when there is nothing left.
#include <array>
#include <cstring>

#include "tests/bench/trial.h"

extern "C" {
#include <stdint.h>
#define mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define wmb() __atomic_thread_fence(__ATOMIC_RELEASE)
#include <xen/io/ring.h>
#include <xen/xen.h>
}

namespace {
using Request16 = bench::Request16;
using Response16 = bench::Response16;
using NetRequest = bench::NetRequest;
using NetResponse = bench::NetResponse;
DEFINE_RING_TYPES(r16, Request16, Response16);
DEFINE_RING_TYPES(rnet, NetRequest, NetResponse);

template <class Sring, class FrontT, class BackT, class Request, class Response, std::uint32_t Push>
class Xen final : public bench::Contender {
  public:
    Xen() {
        auto* shared = reinterpret_cast<Sring*>(memory_.data());
        SHARED_RING_INIT(shared);
        FRONT_RING_INIT(&front_, shared, memory_.size());
        BACK_RING_INIT(&back_, shared, memory_.size());
    }
    std::uint64_t front(const std::atomic<bool>& stop) override {
        std::uint64_t answered = 0, sum = 0;
        std::uint32_t next = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            for (std::uint32_t i = 0; i < bench::batch && !RING_FULL(&front_); ++i)
                push_request(next++, i + 1 == bench::batch);
            push_requests();
            const RING_IDX end = front_.sring->rsp_prod;
            rmb();
            for (; front_.rsp_cons != end; ++front_.rsp_cons, ++answered) {
                Response copy;
                RING_COPY_RESPONSE(&front_, front_.rsp_cons, &copy);
                sum += copy.id;
            }
            if (front_.rsp_cons != front_.req_prod_pvt) {
                int more = 0;
                RING_FINAL_CHECK_FOR_RESPONSES(&front_, more);
            } else {
                front_.sring->rsp_event = front_.rsp_cons + 1;
            }
        }
        sink_ = sum;
        return answered;
    }
    void back(const std::atomic<bool>& stop) override {
        while (!stop.load(std::memory_order_relaxed)) {
            const RING_IDX end = back_.sring->req_prod;
            rmb();
            if (RING_REQUEST_PROD_OVERFLOW(&back_, end)) return;
            std::uint32_t in_batch = 0;
            while (back_.req_cons != end) {
                Request copy;
                RING_COPY_REQUEST(&back_, back_.req_cons, &copy);
                ++back_.req_cons;
                *RING_GET_RESPONSE(&back_, back_.rsp_prod_pvt++) = bench::answer<Response>(copy);
                if (++in_batch == Push) push(), in_batch = 0;
            }
            if (in_batch > 0) push();
            int more = 0;
            RING_FINAL_CHECK_FOR_REQUESTS(&back_, more);
        }
    }

  private:
    void push_request(std::uint32_t number, bool last) {
        *RING_GET_REQUEST(&front_, front_.req_prod_pvt++) = bench::make_request<Request>(number);
        if (Push == 1 && !last) push_requests();
    }
    void push_requests() {
        int notify = 0;
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front_, notify);
        notifies_ += static_cast<unsigned>(notify);
    }
    void push() {
        int notify = 0;
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&back_, notify);
        notifies_back_ += static_cast<unsigned>(notify);
    }
    alignas(4096) std::array<std::byte, 4096> memory_{};
    alignas(128) FrontT front_{};
    std::uint64_t notifies_ = 0;
    volatile std::uint64_t sink_ = 0;
    alignas(128) BackT back_{};
    std::uint64_t notifies_back_ = 0;
};

}  // namespace

std::unique_ptr<bench::Contender> bench::make_xen(std::string_view name) {
    if (name == "xen_16")
        return std::make_unique<Xen<r16_sring, r16_front_ring, r16_back_ring, Request16, Response16, bench::batch>>();
    if (name == "xen_single_16")
        return std::make_unique<Xen<r16_sring, r16_front_ring, r16_back_ring, Request16, Response16, 1>>();
    if (name == "xen_single_net")
        return std::make_unique<Xen<rnet_sring, rnet_front_ring, rnet_back_ring, NetRequest, NetResponse, 1>>();
    if (name == "xen_net")
        return std::make_unique<
            Xen<rnet_sring, rnet_front_ring, rnet_back_ring, NetRequest, NetResponse, bench::batch>>();
    return nullptr;
}
