// The local toolstack beside libxl itself: for the same lines of a cfg file, the same nodes with the same values and
// the same rights. What libxl writes was recorded on real Xen (tests/lab/truth/; the lab's scenario "truth" says
// whether it still does). Each difference that stays stands below, with its reason.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "domains/toolstack/tree.h"

using namespace caisson;
using namespace caisson::toolstack;

namespace {

constexpr DomainId guest{5}, back{2};
const std::string truth = CAISSON_SOURCE "/tests/lab/truth/";

struct Entry {
    std::string value, permissions;
    bool operator==(const Entry&) const = default;
};
using Entries = std::map<std::string, Entry>;

std::string slurp(const std::string& path) {
    std::ifstream file(path);
    REQUIRE(file);
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
}

// The lines of a recording: PATH = "VALUE"   (PERMISSIONS). Values of many lines do not occur.
Entries recorded(const std::string& name) {
    Entries all;
    std::istringstream lines(slurp(truth + name));
    static const std::regex line_of(R"re((/\S*) = "(.*)"\s+\((.*)\))re");
    for (std::string line; std::getline(lines, line);) {
        std::smatch found;
        INFO(line);
        REQUIRE(std::regex_match(line, found, line_of));
        all[found[1]] = {found[2], found[3]};
    }
    return all;
}

std::string domain_text(DomainId domain) {
    return domain == guest ? "GUEST" : domain == back ? "BACK" : std::to_string(domain.raw);
}

std::string text(const std::vector<StorePermission>& permissions) {
    std::string all;
    for (const auto& [domain, read, write] : permissions)
        all += (all.empty() ? "" : ",") +
               std::string(read && write ? "b"
                           : read        ? "r"
                           : write       ? "w"
                                         : "n") +
               domain_text(domain);
    return all;
}

std::string parent(const std::string& path) { return path.substr(0, path.rfind('/')); }

// As the store will have it: a node without rights of its own has its folder's; folders that nobody wrote are there,
// too.
void write(Entries& store, const Tree& tree) {
    for (const auto& node : tree.nodes) {
        std::vector<std::string> missing;
        for (std::string path = node.path; !path.empty() && !store.contains(path); path = parent(path))
            missing.push_back(path);
        for (; !missing.empty(); missing.pop_back())
            store[missing.back()] = {"",
                                     parent(missing.back()).empty() ? "n0" : store[parent(missing.back())].permissions};
        store[node.path].value = node.value;
        if (!node.permissions.empty()) store[node.path].permissions = text(node.permissions);
    }
}

std::string named(std::string path, const std::string& uuid) {
    path = std::regex_replace(path, std::regex("/(domain|libxl)/5(?=/|$)"), "/$1/GUEST");
    path = std::regex_replace(path, std::regex("/domain/2(?=/|$)"), "/domain/BACK");
    path = std::regex_replace(path, std::regex("(/backend/[a-z]*)/5(?=/|$)"), "$1/GUEST");
    if (const auto at = path.find(uuid); at != std::string::npos) path.replace(at, uuid.size(), "UUID");
    return path;
}

// What is below the guest's own nodes, and below its part of the backends': a recording begins there.
bool recording_has(const std::string& path) {
    static const std::regex below("/(local/domain|libxl)/5/.*|/vm/[^/]*/.*|/local/domain/2/backend/[a-z]*/5(/.*)?");
    return std::regex_match(path, below);
}

Entries ours() {
    CfgFile file = *CfgFile::parse(
        "name='guest'\nkernel='/run/vmlinux'\nmemory=224\nvcpus=1\n" + slurp(truth + "guest.cfg"), "guest.cfg", {});
    const auto parsed = parse_domain(file);
    if (!parsed) FAIL(parsed.error().message());
    const DomainConfig& config = parsed->config;
    Entries store;
    store["/local/domain/2"] = {"", "n0,rBACK"};
    write(store, domain_tree(config, guest));
    write(store, console_tree(nullptr, guest, control_domain));
    for (const Vif& vif : config.vifs) write(store, vif_tree(vif, guest, back));
    for (const Disk& disk : config.disks) write(store, vbd_tree(disk, guest, back));
    // xl 4.17 gives the first channel the number of console 0, and libxl writes nothing for it.
    for (Channel channel : config.channels) {
        channel.id -= config.channels.front().id;
        if (channel.id != 0) write(store, console_tree(&channel, guest, back));
    }
    Entries all;
    for (const auto& [path, entry] : store) {
        if (!recording_has(path)) continue;
        Entry shown{named(entry.value, config.uuid), entry.permissions};
        static const std::regex own(".*/(frontend-id|domid)"), other(".*/backend-id"),
            changing(".*/(start_time|port|ring-ref|target|static-max)");
        if (std::regex_match(path, own) && shown.value == "5") shown.value = "GUEST";
        if (std::regex_match(path, other) && shown.value == "2") shown.value = "BACK";
        if (std::regex_match(path, changing)) shown.value = "*";
        all[named(path, config.uuid)] = shown;
    }
    return all;
}

// A difference that stays. What it is about is a regular expression over "PATH", for nodes that only one side has, and
// over "PATH = VALUE (RIGHTS)" of libxl's side for nodes that both have.
struct Difference {
    const char* what;
    const char* why;
};

const std::vector<Difference> only_libxl{
    {"/vm/UUID/image.*", "a process has no kernel image"},
    {"/local/domain/GUEST/store.*", "a process reaches the store through a socket, not a ring"},
    {"/local/domain/GUEST/console/(ring-ref|port)", "the domain builder's; here the frontend writes its own"},
    {"/libxl/GUEST/dm-version", "there is no device model"},
    {".*/vif/.*/hotplug-status", "emptied for the hotplug scripts, which the local toolstack does not have"},
    {".*/vif/(GUEST/)?0/script", "libxl's default script; here the bridge's name alone says what is wanted"},
    {".*/vif/(GUEST/)?1/bridge", "libxl's default bridge, whose script routes"},
    {".*/vbd/.*/script", "the hotplug script for block devices"},
    {".*/(vbd|qdisk)/.*/specification", "libxl's mark for disks that are not virtio's"},
    {".*/device/vbd/[0-9]*/protocol", "the frontend writes it when it connects, as Linux's does"},
    {".*/backend/qdisk/.*", "one backend serves every disk here, and its class is vbd"},
};
const std::vector<Difference> only_ours{
    {".*/backend/vbd/GUEST/51728(/.*)?", "one backend serves every disk here, and its class is vbd"},
    {"/local/domain/GUEST/console/(state|protocol)",
     "console 0 is a device like others here: no kernel has it from its start"},
};
const std::vector<Difference> otherwise{
    {".*/vif/(GUEST/)?1/script = .*", "the backend knows the script by its name, wherever it lies"},
    {".*/trusted = .*", "libxl lets the guest write it; a backend that believes it should not be told by the guest"},
    {"/local/domain/GUEST/console( .*|/backend = .*)",
     "console 0 is a device like others here, and its directory is the frontend's"},
    {"/local/domain/GUEST/console/tty = .*", "xenconsoled's pty on Xen; here nobody has it yet"},
    {"/local/domain/GUEST/device/console/1/output = .*", "libxl names QEMU's character device"},
    {"/local/domain/GUEST/device/console/1/type = .*", "ioemu is QEMU's backend, which is not there"},
    {".*/vbd/51728/(backend|params) = .*", "qdisk is served by the backend of vbd; aio: is a word for QEMU"},
};

// And which of them were needed: an excuse for nothing hides the next difference.
std::set<const Difference*> needed;

bool excused(const std::vector<Difference>& differences, const std::string& what) {
    const auto found = std::ranges::find_if(
        differences, [&](const Difference& one) { return std::regex_match(what, std::regex(one.what)); });
    if (found == differences.end()) return false;
    needed.insert(&*found);
    return true;
}

}  // namespace

TEST_CASE(
    "For the same cfg file the local toolstack writes what libxl writes, but for differences that have a reason") {
    const Entries theirs = recorded("guest.txt"), mine = ours();
    for (const auto& [path, entry] : theirs) {
        INFO(path << " = \"" << entry.value << "\" (" << entry.permissions << ")");
        const auto found = mine.find(path);
        if (found == mine.end()) {
            CHECK(excused(only_libxl, path));
        } else if (found->second != entry &&
                   !excused(otherwise, path + " = " + entry.value + " (" + entry.permissions + ")")) {
            CHECK(found->second.value == entry.value);
            CHECK(found->second.permissions == entry.permissions);
        }
    }
    for (const auto& [path, entry] : mine) {
        INFO(path << " = \"" << entry.value << "\" (" << entry.permissions << ")");
        if (!theirs.contains(path)) CHECK(excused(only_ours, path));
    }
    for (const auto* differences : {&only_libxl, &only_ours, &otherwise})
        for (const Difference& one : *differences) {
            INFO(one.what << ": " << one.why);
            CHECK(needed.contains(&one));
        }
}
