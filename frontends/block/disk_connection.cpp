// How a Disk finds its backend, loses it and finds it again.
#include "frontends/block/disk_impl.h"

namespace caisson::block {

using namespace std::chrono_literals;
using frontend::DataPath;

namespace {

// The control outlives its endpoints: another domain as the backend is another endpoint.
class Lent final : public DeviceControl {
  public:
    explicit Lent(DeviceControl& control) : control_(control) {}
    Status offer(ControlContext& context) override { return control_.offer(context); }
    Result<Handover> connect(ControlContext& context) override { return control_.connect(context); }
    bool connected_at_once() const override { return control_.connected_at_once(); }
    void connected(ControlContext& context) override { control_.connected(context); }
    void disconnect(ControlContext& context) override { control_.disconnect(context); }
    std::vector<std::string> watched_own() const override { return control_.watched_own(); }
    std::vector<std::string> watched_peer() const override { return control_.watched_peer(); }
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override {
        return control_.changed(context);
    }

  private:
    DeviceControl& control_;
};

}  // namespace

Status Disk::Impl::start() {
    TRY(store_.watch(own_directory(address_), "own"));
    TRY(begin());
    store_watch_ = loop_.watch(store_.fd(), POLLIN, [this](short) { follow_store(); });
    ticks_ = loop_.every(1s, [this] {
        if (connected()) path_->tick();
    });
    return {};
}

Status Disk::Impl::begin() {
    endpoint_ =
        std::make_unique<Endpoint>(address_, std::make_unique<Lent>(*control_), hypervisor_, store_, *this, log_);
    TRY(store_.watch(peer_directory(address_), "peer"));
    endpoint_->look();
    return {};
}

Disk::Impl::~Impl() {
    drop_path();
    endpoint_->stop();
    endpoint_->detached();  // nobody serves any more
    (void)store_.unwatch(peer_directory(address_), "peer");
    (void)store_.unwatch(own_directory(address_), "own");
    endpoint_.reset();
    later_handle_.reset();
}

void Disk::Impl::follow_store() {
    bool any = false;
    while (store_.take_event()) any = true;
    if (!any) return;
    // Only the toolstack writes who the backend is.
    const auto text = store_.read(own_directory(address_) + "/backend-id").value_or(std::nullopt);
    const auto backend = text ? parse_decimal<std::uint16_t>(*text) : std::nullopt;
    if (backend && DomainId(*backend) != address_.backend && !options_.backend) {
        drop_path();
        later_.clear();
        (void)store_.unwatch(peer_directory(address_), "peer");
        endpoint_.reset();  // gives back what was shared
        address_.backend = DomainId(*backend);
        if (const Status begun = begin(); !begun) log_.peer(begun.error());
        return;
    }
    endpoint_->look();
}

void Disk::Impl::answer_later(std::function<void()> answer) {
    later_.push_back(std::move(answer));
    later_handle_ = loop_.after({}, [this] {
        for (std::size_t left = later_.size(); left > 0 && !later_.empty(); --left) {
            const auto next = std::move(later_.front());
            later_.pop_front();
            next();
        }
    });
}

void Disk::Impl::attach(Handover handover) {
    auto opened = open_path(handover);
    if (!opened) return answer_later([this, error = opened.error()] { endpoint_->failed(error); });
    path_ = std::move(*opened);
    dead_ = false;
    bells_.serve(loop_, *path_, *this);
    know(kept_->read());
    path_->notify_all();
    answer_later([this] { endpoint_->attached(); });
}

Result<std::unique_ptr<DataPath>> Disk::Impl::open_path(const Handover& handover) {
    auto reader = TRY(handover.reader());
    const frontend::Link link = TRY(frontend::read_link(reader));
    Fd memory = TRY(reader.fd());
    if (!kept_) kept_ = TRY(frontend::KeptMemory::map(std::move(memory)));
    if (!requests_) requests_ = TRY(frontend::Requests::attach((*kept_)->disk.entries, link.arena_pages));
    *journal_ = {};
    auto taken = TRY(frontend::take_over(link, reader, hypervisor_, *requests_, *journal_, stats_,
                                         static_cast<unsigned>(options_.patience.count())));
    return std::move(taken.path);
}

void Disk::Impl::drop_path() {
    dead_ = true;
    bells_.clear();
    path_.reset();
}

void Disk::Impl::detach() {
    drop_path();
    answer_later([this] { endpoint_->detached(); });
}

void Disk::Impl::timer(std::optional<std::chrono::milliseconds> delay) {
    timer_.reset();
    if (delay) timer_ = loop_.after(*delay, [this] { endpoint_->expired(); });
}

void Disk::Impl::update(std::vector<std::byte> message) {
    frontend::Features features;
    if (!path_ || dead_ || message.size() != sizeof features) return;
    std::memcpy(&features, message.data(), sizeof features);
    know(features);
}

void Disk::Impl::know(const frontend::Features& features) {
    if (!features.connected) return;
    if (!path_->ready()) ++connections_;
    geometry_ = features.geometry;
    if (const Status known = path_->know(features); !known) {
        dead_ = true;
        return answer_later([this, error = known.error()] { endpoint_->broken(error); });
    }
    answer_later([this] {
        pump();
        if (changed_) changed_();
    });
}

}  // namespace caisson::block
