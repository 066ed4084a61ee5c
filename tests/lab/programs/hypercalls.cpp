// Hypercalls that Xen without a policy grants to every PV domain, of which ours need one or two: what comes of each.
//
// Usage: lab_hypercalls      says "NAME=W NAME=W ...", W being yes, or the error's number
//
// Linux lets nobody ask Xen from a guest's user space, but with xen_privcmd.unrestricted=1.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen.h>  // before those that use its types

#include <xen/event_channel.h>
#include <xen/memory.h>
#include <xen/sys/privcmd.h>
#include <xen/version.h>
#include <xen/xenoprof.h>

namespace {

int privcmd = -1;

long hypercall(std::uint64_t number, std::uint64_t first, const void* second = nullptr, std::uint64_t third = 0,
               std::uint64_t fourth = 0) {
    privcmd_hypercall_t call{.op = number, .arg = {first, reinterpret_cast<std::uint64_t>(second), third, fourth, 0}};
    const long done = ::ioctl(privcmd, IOCTL_PRIVCMD_HYPERCALL, &call);
    return done < 0 ? -errno : done;
}

template <class T>
std::uint64_t address(T& argument) {
    return reinterpret_cast<std::uint64_t>(&argument);
}

// What tells of Xen itself is never an error: it says "<denied>", or nothing.
template <int question>
long told() {
    static std::array<char, 4096> answer;
    answer.fill(0);
    if (const long done = hypercall(__HYPERVISOR_xen_version, question, answer.data()); done < 0) return done;
    const bool nothing = std::ranges::all_of(answer, [](char one) { return one == 0; });
    return nothing || std::strcmp(answer.data(), "<denied>") == 0 ? -EPERM : 0;
}

long page_size() { return hypercall(__HYPERVISOR_xen_version, XENVER_pagesize) > 0 ? 0 : -EPERM; }

// The first port of a domain leads to its xenstore.
long channel_status() {
    evtchn_status status{.dom = DOMID_SELF, .port = 1, .status = 0, .vcpu = 0, .u = {}};
    return hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_status, &status);
}

// Whoever may do it hears that no reset has begun that could go on. A whole one would cut us off.
long channel_reset() {
    constexpr int EVTCHNOP_reset_cont = 14;  // Xen's headers keep it to Xen
    evtchn_reset reset{.dom = DOMID_SELF};
    const long done = hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_reset_cont, &reset);
    return done == -EBUSY ? 0 : done;
}

template <int question>
long memory_size() {
    xen_memory_domain domain{.domid = DOMID_SELF};
    return hypercall(__HYPERVISOR_memory_op, question, &domain);
}

// The map stays what it is.
long memory_map() {
    static std::array<std::byte, 128 * 20> entries;
    entries.fill(std::byte{0});
    xen_foreign_memory_map map{.domid = DOMID_SELF, .map = {.nr_entries = 128, .buffer = {entries.data()}}};
    if (hypercall(__HYPERVISOR_memory_op, XENMEM_memory_map, &map.map) < 0) map.map.nr_entries = 0;
    return hypercall(__HYPERVISOR_memory_op, XENMEM_set_memory_map, &map);
}

xen_pfn_t frame = 0;  // of a page that we asked for, and give back; Xen's own until then

// These say how many pages they did.
template <int what>
long reserve() {
    xen_memory_reservation one{.extent_start = {&frame}, .nr_extents = 1, .extent_order = 0, .domid = DOMID_SELF};
    const long done = hypercall(__HYPERVISOR_memory_op, what, &one);
    return done == 0 ? -EPERM : done;
}

long exchange() {
    xen_pfn_t other = frame;
    xen_memory_exchange both{.in = {.extent_start = {&frame}, .nr_extents = 1, .extent_order = 0, .domid = DOMID_SELF},
                             .out = {.extent_start = {&other}, .nr_extents = 1, .extent_order = 0, .domid = DOMID_SELF},
                             .nr_exchanged = 0};
    const long done = hypercall(__HYPERVISOR_memory_op, XENMEM_exchange, &both);
    if (done == 0) frame = other;
    return frame == 0 && done == -EINVAL ? 0 : done;  // it has looked for the page
}

long machine_to_physical() {
    mmu_update update{.ptr = frame << 12 | MMU_MACHPHYS_UPDATE, .val = 0};
    return hypercall(__HYPERVISOR_mmu_update, address(update), reinterpret_cast<void*>(1), 0, DOMID_SELF);
}

long profile_begin() {
    xenoprof_init begin{};
    return hypercall(__HYPERVISOR_xenoprof_op, XENOPROF_init, &begin);
}

long profile_buffer() {
    xenoprof_get_buffer buffer{};
    buffer.max_samples = 16;
    return hypercall(__HYPERVISOR_xenoprof_op, XENOPROF_get_buffer, &buffer);
}

struct Hypercall {
    const char* name;
    long (*issue)();
};

constexpr Hypercall list[] = {
    {"extraversion", told<XENVER_extraversion>},
    {"compile_info", told<XENVER_compile_info>},
    {"capabilities", told<XENVER_capabilities>},
    {"guest_handle", told<XENVER_guest_handle>},
    {"pagesize", page_size},
    {"evtchn_status", channel_status},
    {"evtchn_reset", channel_reset},
    {"current_reservation", memory_size<XENMEM_current_reservation>},
    {"maximum_reservation", memory_size<XENMEM_maximum_reservation>},
    {"maximum_gpfn", memory_size<XENMEM_maximum_gpfn>},
    {"set_memory_map", memory_map},
    {"increase_reservation", reserve<XENMEM_increase_reservation>},
    {"exchange", exchange},
    {"machphys_update", machine_to_physical},
    {"decrease_reservation", reserve<XENMEM_decrease_reservation>},
    {"xenoprof_init", profile_begin},
    {"xenoprof_get_buffer", profile_buffer},
};

}  // namespace

int main() {
    privcmd = ::open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
    if (privcmd < 0) return std::perror("/dev/xen/privcmd"), 1;
    ::mlockall(MCL_CURRENT | MCL_FUTURE);  // Xen waits for no page that Linux has yet to bring
    for (const auto& one : list) {
        const long done = one.issue();
        done < 0 ? std::printf("%s=%ld ", one.name, -done) : std::printf("%s=yes ", one.name);
    }
    std::puts("");
    return 0;
}
