// What the doctor says of machines that are folders of files.
#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "domains/doctor/checks.h"
#include "tests/support/temporary.h"

using namespace caisson;
using doctor::Finding;
using doctor::Part;
using Verdict = doctor::Finding::Verdict;

namespace {

class Patient {
  public:
    Patient() {
        machine.root = folder.path();
        machine.release = "6.1.0-test";
        machine.user = 1000;
        machine.io_uring = machine.namespaces = machine.landlock = [] { return 0; };
    }
    void file(const std::string& path, const std::string& text = "") {
        const std::filesystem::path full(machine.root + path);
        std::filesystem::create_directories(full.parent_path());
        std::ofstream(full) << text;
        ::chmod(full.c_str(), 0755);
    }
    void modules(const std::string& names, const char* list = "modules.dep") {
        file("/lib/modules/6.1.0-test/" + std::string(list), names);
    }
    void driver_domain() {
        file("/sys/hypervisor/type", "xen\n");
        file("/sys/hypervisor/guest_type", "PVH\n");
        file("/sys/hypervisor/version/major", "4\n");
        file("/sys/hypervisor/version/minor", "17\n");
        for (const char* name : {"/dev/xen/gntdev", "/dev/xen/evtchn", "/dev/xen/xenbus", "/dev/net/tun"}) file(name);
    }
    Part part(const std::string& name) const {
        const auto all = doctor::examine(machine);
        const auto found = std::ranges::find(all, name, &Part::name);
        REQUIRE(found != all.end());
        return *found;
    }
    Finding finding(const std::string& of, const std::string& what) const {
        const Part whole = part(of);
        const auto found = std::ranges::find(whole.findings, what, &Finding::what);
        REQUIRE(found != whole.findings.end());
        return *found;
    }

    test::TemporaryFolder folder;
    doctor::Machine machine;
};

}  // namespace

TEST_CASE("the doctor finds nothing on an empty machine, and says for each part how to get it") {
    const Patient patient;
    for (const Part& part : doctor::examine(patient.machine)) {
        CHECK(!part.works());
        for (const Finding& one : part.findings) {
            CHECK(!one.says.empty());
            CHECK(one.what.size() < 20);  // the column of the table
        }
    }
}

TEST_CASE("a device whose module is at hand is a modprobe away, another one needs another kernel") {
    Patient patient;
    CHECK_THAT(patient.finding("local", "/dev/net/tun").says, Catch::Contains("(6.1.0-test) has no module tun"));
    patient.modules("kernel/drivers/net/tap.ko:\nkernel/drivers/net/tun.ko.xz: kernel/x.ko\n");
    CHECK_THAT(patient.finding("local", "/dev/net/tun").says, Catch::Contains("modprobe tun"));
    CHECK(patient.machine.module("tap") == doctor::Machine::Module::loadable);
    CHECK(patient.machine.module("ta") == doctor::Machine::Module::lacking);
    patient.modules("kernel/drivers/xen/xen-gntdev.ko\n", "modules.builtin");
    CHECK(patient.machine.module("xen_gntdev") == doctor::Machine::Module::there);
    patient.file("/dev/net/tun");
    CHECK(patient.finding("local", "/dev/net/tun").verdict == Verdict::there);
}

TEST_CASE("what the kernel refuses is named with its reason") {
    Patient patient;
    patient.file("/dev/net/tun");
    CHECK(patient.part("local").works());
    patient.machine.namespaces = [] { return EPERM; };
    CHECK_THAT(patient.finding("local", "namespaces").says, Catch::Contains("Operation not permitted"));
    CHECK(!patient.part("local").works());
    patient.machine.io_uring = [] { return ENOSYS; };
    CHECK(patient.finding("driver-domain", "io_uring").verdict == Verdict::lacking);
    patient.machine.landlock = [] { return EOPNOTSUPP; };
    CHECK(patient.finding("local", "landlock").verdict == Verdict::better);
}

TEST_CASE("a domain of Xen may serve backends, and rivals for its devices are named") {
    Patient patient;
    patient.driver_domain();
    CHECK(patient.part("driver-domain").works());
    CHECK(patient.finding("driver-domain", "Xen").says == "4.17, this domain is PVH");
    CHECK(!patient.part("guest").works());  // no gntalloc
    CHECK(!patient.part("control").works());
    patient.file("/dev/xen/gntalloc");
    CHECK(patient.part("guest").works());
    patient.file("/sys/bus/xen-backend/drivers/vif/bind");
    CHECK(patient.finding("driver-domain", "no xen-netback").verdict == Verdict::better);
    CHECK(patient.part("driver-domain").works());
}

TEST_CASE("Xen that is installed but was not booted is told from Xen that is not there") {
    Patient patient;
    CHECK_THAT(patient.finding("control", "Xen").says, Catch::Contains("apt install"));
    patient.file("/boot/xen-4.17-amd64.gz");
    CHECK_THAT(patient.finding("control", "Xen").says, Catch::Contains("choose it when booting"));
}

TEST_CASE("the control domain can pass devices through when pciback is there; Xen itself knows of the IOMMU") {
    Patient patient;
    patient.driver_domain();
    patient.file("/proc/xen/capabilities", "control_d\n");
    patient.file("/dev/xen/privcmd");
    patient.file("/usr/sbin/xl");
    patient.file("/sys/bus/pci/devices/0000:00:01.0");
    CHECK(patient.part("control").works());
    CHECK(patient.finding("passthrough", "IOMMU").verdict == Verdict::better);
    CHECK(!patient.part("passthrough").works());
    patient.file("/sys/module/xen_pciback/version");
    CHECK(patient.part("passthrough").works());
}
