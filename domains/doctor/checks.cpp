#include "domains/doctor/checks.h"

#include <algorithm>
#include <cstring>

namespace caisson::doctor {
namespace {

using Verdict = Finding::Verdict;

Finding there(std::string what, std::string says) { return {std::move(what), Verdict::there, std::move(says)}; }
Finding lacking(std::string what, std::string says) { return {std::move(what), Verdict::lacking, std::move(says)}; }
Finding better(std::string what, std::string says) { return {std::move(what), Verdict::better, std::move(says)}; }

// How a module that is not there comes to be.
std::string get_module(const Machine& machine, const std::string& module) {
    if (machine.module(module) == Machine::Module::loadable) return "load it with 'modprobe " + module + "'";
    return "this kernel (" + machine.release + ") has no module " + module + ": take Debian's";
}

Finding device(const Machine& machine, const std::string& path, const std::string& module, const std::string& purpose) {
    if (machine.usable(path)) return there(path, purpose);
    if (machine.has(path))
        return lacking(path, purpose + ": closed to this user: run as root, or open it by a udev rule");
    return lacking(path, purpose + ": " + get_module(machine, module));
}

Finding program(const Machine& machine, const std::string& name, const std::string& purpose,
                const std::string& package) {
    if (machine.program(name)) return there(name, purpose);
    return better(name, "for " + purpose + ": 'apt install " + package + "'");
}

Finding io_uring(const Machine& machine) {
    const int refused = machine.io_uring();
    if (refused == 0) return there("io_uring", "every worker runs on it");
    return lacking("io_uring", std::string("every worker runs on it: ") + std::strerror(refused) +
                                   ": 'sysctl kernel.io_uring_disabled=0' (in a container: allow it in its seccomp "
                                   "profile)");
}

Finding tun(const Machine& machine) { return device(machine, "/dev/net/tun", "tun", "network interfaces of domains"); }

Finding fuse(const Machine& machine) {
    if (machine.usable("/dev/fuse")) return there("/dev/fuse", "disks as files");
    return better("/dev/fuse", "disks as files: " + get_module(machine, "fuse"));
}

Finding sandbox(const Machine& machine) {
    if (machine.landlock() == 0) return there("landlock", "one more wall around workers");
    return better("landlock", "one more wall around workers: boot with 'lsm=landlock,...' on a kernel that has it");
}

// ---- Xen ----

bool on_xen(const Machine& machine) { return machine.line("/sys/hypervisor/type") == "xen"; }
bool in_control_domain(const Machine& machine) {
    return machine.line("/proc/xen/capabilities").find("control_d") != std::string::npos;
}

Finding xen(const Machine& machine) {
    if (on_xen(machine)) {
        const std::string version =
            machine.line("/sys/hypervisor/version/major") + "." + machine.line("/sys/hypervisor/version/minor");
        const std::string kind = machine.line("/sys/hypervisor/guest_type");
        return there("Xen", version + (kind.empty() ? "" : ", this domain is " + kind) +
                                (in_control_domain(machine) ? ", the control domain" : ""));
    }
    const auto boot = machine.entries("/boot");
    const bool installed = std::any_of(boot.begin(), boot.end(), [](const auto& name) {
        return name.starts_with("xen-") && (name.ends_with(".gz") || name.ends_with(".efi"));
    });
    return lacking("Xen", installed ? "this kernel does not run on it, though it is installed: choose it when booting"
                                    : "this kernel does not run on it: 'apt install xen-system-amd64', then boot that");
}

void ports_of_xen(const Machine& machine, Part& part) {
    part.findings.push_back(xen(machine));
    part.findings.push_back(device(machine, "/dev/xen/gntdev", "xen-gntdev", "other domains' pages"));
    part.findings.push_back(device(machine, "/dev/xen/evtchn", "xen-evtchn", "event channels"));
    part.findings.push_back(device(machine, "/dev/xen/xenbus", "xenfs", "xenstore"));
}

// Drivers of the kernel that take the same devices as soon as they see them.
void rivals(const Machine& machine, Part& part, const std::string& bus, const std::string& net,
            const std::string& block) {
    for (const auto& [device_class, module] :
         {std::pair{std::string("vif"), net}, std::pair{std::string("vbd"), block}})
        if (machine.has("/sys/bus/" + bus + "/drivers/" + device_class))
            part.findings.push_back(better("no " + module, "it takes every " + device_class +
                                                               " before Caisson does: a line 'blacklist " + module +
                                                               "' in /etc/modprobe.d"));
}

// ---- Parts ----

Part local(const Machine& machine) {
    Part part{"local", "domains of the local hypervisor, without Xen (./dev demo, caisson create)", {}};
    part.findings.push_back(io_uring(machine));
    const int refused = machine.namespaces();
    part.findings.push_back(
        refused == 0
            ? there("namespaces",
                    machine.user == 0 ? "a domain lives in its own" : "a domain lives in its own, no root needed")
            : lacking("namespaces", std::string("a domain lives in its own: ") + std::strerror(refused) +
                                        ": 'sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000', "
                                        "or run as root (in a container: --privileged)"));
    part.findings.push_back(tun(machine));
    part.findings.push_back(fuse(machine));
    part.findings.push_back(program(machine, "nft", "firewall domains", "nftables"));
    part.findings.push_back(program(machine, "nbdkit", "disks in qcow2 and other formats", "nbdkit"));
    part.findings.push_back(sandbox(machine));
    return part;
}

Part driver_domain(const Machine& machine) {
    Part part{"driver-domain", "serve backends in a domain of Xen (caisson devd)", {}};
    ports_of_xen(machine, part);
    part.findings.push_back(io_uring(machine));
    part.findings.push_back(tun(machine));
    part.findings.push_back(sandbox(machine));
    rivals(machine, part, "xen-backend", "xen-netback", "xen-blkback");
    return part;
}

Part guest(const Machine& machine) {
    Part part{"guest", "drive frontends in a domain of Xen (caisson frontd, the library)", {}};
    ports_of_xen(machine, part);
    part.findings.push_back(device(machine, "/dev/xen/gntalloc", "xen-gntalloc", "pages of ours for the backend"));
    part.findings.push_back(io_uring(machine));
    part.findings.push_back(tun(machine));
    part.findings.push_back(fuse(machine));
    rivals(machine, part, "xen", "xen-netfront", "xen-blkfront");
    return part;
}

Part control(const Machine& machine) {
    Part part{"control", "make driver domains and guests on Xen (xl create)", {}};
    part.findings.push_back(xen(machine));
    part.findings.push_back(
        in_control_domain(machine)
            ? there("the control domain", "this is it")
            : lacking("the control domain", "only there xl can make domains: this is another one, or none"));
    part.findings.push_back(machine.program("xl") ? there("xl", "makes domains")
                                                  : lacking("xl", "makes domains: 'apt install xen-utils-4.17'"));
    part.findings.push_back(device(machine, "/dev/xen/privcmd", "xen-privcmd", "what xl asks of Xen"));
    return part;
}

Part passthrough(const Machine& machine) {
    Part part{"passthrough", "give a network card or a disk controller to a driver domain", {}};
    const bool xen_has_it = in_control_domain(machine);
    if (!machine.entries("/sys/class/iommu").empty())
        part.findings.push_back(there("IOMMU", "on: " + machine.entries("/sys/class/iommu").front() + " ..."));
    else if (xen_has_it)
        part.findings.push_back(
            better("IOMMU", "Xen keeps it to itself: 'xl info' says hvm_directio in virt_caps when it is on"));
    else
        part.findings.push_back(lacking("IOMMU",
                                        "keeps a device's domain to its own memory: switch VT-d or AMD-Vi on in the "
                                        "firmware, and boot with intel_iommu=on (Xen: iommu=1)"));
    const auto pci = machine.entries("/sys/bus/pci/devices");
    part.findings.push_back(pci.empty() ? lacking("PCI devices", "this machine shows none")
                                        : there("PCI devices", std::to_string(pci.size())));
    if (xen_has_it)
        part.findings.push_back(
            machine.module("xen-pciback") == Machine::Module::there
                ? there("xen-pciback", "holds devices for domains")
                : lacking("xen-pciback", "holds devices for domains: " + get_module(machine, "xen-pciback")));
    return part;
}

}  // namespace

bool Part::works() const {
    return std::none_of(findings.begin(), findings.end(),
                        [](const Finding& finding) { return finding.verdict == Verdict::lacking; });
}

std::vector<Part> examine(const Machine& machine) {
    return {local(machine), driver_domain(machine), guest(machine), control(machine), passthrough(machine)};
}

}  // namespace caisson::doctor
