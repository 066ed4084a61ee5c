#include "domains/controller/device.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <new>

namespace caisson {
namespace {

// Larger journals than any class needs are a bug of ours.
constexpr std::size_t largest_journal = 64 << 20;
// How often, and how long, a new hypervisor connection is asked for in place of a lost one.
constexpr auto renewal_pause = std::chrono::milliseconds(50);
constexpr auto renewal_patience = std::chrono::seconds(10);

// Fixed in size before anybody else has it: a worker that was taken over can neither shrink it under its successor nor
// make it grow.
Result<Fd> make_journal(std::size_t bytes) {
    Fd journal(::memfd_create("caisson-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!journal) return host_fault(errno, "memfd");
    if (bytes > largest_journal) return host_fault(E2BIG, "journal");
    if (::ftruncate(journal.get(), static_cast<off_t>(bytes)) != 0) return host_fault(errno, "ftruncate");
    if (::fcntl(journal.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return host_fault(errno, "seals");
    return journal;
}

std::string statistics_name(const DeviceAddress& address) {
    return address.device_class + (address.role == Role::backend ? "-backend-" : "-frontend-") +
           std::to_string(address.frontend.raw) + "-" + std::to_string(address.id.raw);
}

}  // namespace

ControlledDevice::ControlledDevice(Controller& controller, DeviceAddress address, const ClassHalf& half,
                                   std::unique_ptr<DeviceControl> control, std::uint32_t number)
    : controller_(controller),
      half_(half),
      number_(number),
      peer_path_(peer_directory(address)),
      log_(address.name()),
      endpoint_(address, std::move(control), controller.hypervisor_, controller.store_, *this, log_,
                controller.options_.pace) {
    if (const Status opened = open_statistics(); !opened) log_.say(opened.error().message());
}

ControlledDevice::~ControlledDevice() {
    if (!statistics_path_.empty()) ::unlink(statistics_path_.c_str());
}

// A file that `caisson top` finds; where there is no such directory, memory that nobody finds.
Status ControlledDevice::open_statistics() {
    const DeviceAddress& address = endpoint_.address();
    const std::string& directory = controller_.options_.stats_directory;
    if (!directory.empty()) {
        const std::string path = directory + "/" + statistics_name(address);
        ::unlink(path.c_str());  // a predecessor's: its readers keep theirs
        statistics_file_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
        if (statistics_file_) statistics_path_ = path;
    }
    if (!statistics_file_) statistics_file_.reset(::memfd_create("caisson-statistics", MFD_CLOEXEC));
    if (!statistics_file_ || ::ftruncate(statistics_file_.get(), sizeof(DeviceStats)) != 0)
        return host_fault(errno, "statistics");
    statistics_ = TRY(Mapping::of(statistics_file_, sizeof(DeviceStats)));
    auto* page = new (statistics_.bytes().data()) DeviceStats;
    page->size = sizeof(DeviceStats);
    page->frontend = address.frontend.raw;
    page->backend = address.backend.raw;
    page->device = address.id.raw;
    page->role = static_cast<std::uint32_t>(address.role);
    page->set_class(address.device_class);
    return {};
}

// ---- The endpoint's wishes ----------------------------------------------------------------------------------------

Result<Attachment> ControlledDevice::prepare(Handover handover) {
    const DeviceAddress& address = endpoint_.address();
    const DomainId peers[] = {address.peer()};
    Attachment attachment{.address = address,
                          .half = &half_,
                          .group = endpoint_.worker_group(),
                          .handover = std::move(handover),
                          .journal = {},
                          .statistics = TRY(statistics_file_.duplicate()),
                          .hypervisor = TRY(controller_.hypervisor_.restrict_to(peers))};
    if (attachment.handover.journal_bytes > 0)
        attachment.journal = TRY(make_journal(attachment.handover.journal_bytes));
    return attachment;
}

void ControlledDevice::attach(Handover handover) {
    auto prepared = prepare(std::move(handover));
    if (!prepared) {
        answer_ = controller_.loop_.after({}, [this, error = prepared.error()] { endpoint_.failed(error); });
        return;
    }
    attachment_ = std::move(*prepared);
    with_workers_ = true;
    watch_connection();
    controller_.workers_.attach(number_, *attachment_, *this);
}

// Our duplicate of the worker's end: it hangs up when the broker drops it or the worker finds it unusable. The rings
// would go on, but nothing could be mapped or granted any more: a device that looks connected and is dead. On Xen there
// is no broker that could.
void ControlledDevice::watch_connection() {
    if (controller_.hypervisor_.connection() < 0) return;
    connection_ = controller_.loop_.watch(attachment_->hypervisor.get(), 0,
                                          [this](short) { connection_lost(Loop::Clock::now()); });
}

void ControlledDevice::connection_lost(Loop::Clock::time_point since) {
    connection_.reset();
    // What a frontend granted through it ended with it, and the backend has been told those references: only a new
    // start helps, as after the death of a controller.
    if (endpoint_.address().role == Role::frontend) {
        log_.peer("the worker's connection to the hypervisor is lost: the device starts over");
        return controller_.start_over(own_directory(endpoint_.address()));
    }
    const DomainId peers[] = {endpoint_.address().peer()};
    auto renewed = controller_.hypervisor_.restrict_to(peers);
    if (!renewed && Loop::Clock::now() - since < renewal_patience) {
        connection_ = controller_.loop_.after(renewal_pause, [this, since] { connection_lost(since); });
        return;
    }
    if (!renewed) return endpoint_.broken(renewed.error());
    log_.peer("the worker's connection to the hypervisor is lost: it gets another one");
    attachment_->hypervisor = std::move(*renewed);
    watch_connection();
    controller_.workers_.renew(number_);
}

void ControlledDevice::detach() {
    connection_.reset();
    if (with_workers_) return controller_.workers_.detach(number_);
    answer_ = controller_.loop_.after({}, [this] { detached(); });
}

void ControlledDevice::update(std::vector<std::byte> message) { controller_.workers_.update(number_, message); }

void ControlledDevice::timer(std::optional<std::chrono::milliseconds> delay) {
    timer_.reset();
    if (delay) timer_ = controller_.loop_.after(*delay, [this] { endpoint_.expired(); });
}

// ---- The workers' answers -----------------------------------------------------------------------------------------

void ControlledDevice::broken(const Error& error) {
    if (!statistics_.bytes().empty() && error.fault == Fault::peer)
        reinterpret_cast<DeviceStats*>(statistics_.bytes().data())->broken.add(1);
    endpoint_.broken(error);
}

void ControlledDevice::restarted() {
    if (!statistics_.bytes().empty()) reinterpret_cast<DeviceStats*>(statistics_.bytes().data())->restarts.add(1);
}

void ControlledDevice::detached() {
    with_workers_ = false;
    attachment_.reset();
    endpoint_.detached();
    // We may be the last of a removed directory: the controller looks after the call, not in it.
    answer_ = controller_.loop_.after({}, [controller = &controller_] { controller->retire_finished(); });
}

}  // namespace caisson
