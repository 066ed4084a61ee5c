// xl.cfg files: what libxlutil reads, where problems are, and that no key is swallowed.
#include <catch2/catch.hpp>

#include "domains/toolstack/cfg_file.h"
#include "domains/toolstack/domain_config.h"

using namespace caisson;
using namespace caisson::toolstack;

namespace {

Result<ParsedConfig> parsed(std::string_view text, const std::vector<std::string>& extra = {}) {
    auto file = CfgFile::parse(text, "test.cfg", extra);
    if (!file) return std::unexpected(file.error());
    return parse_domain(*file);
}

std::string complaint(std::string_view text, const std::vector<std::string>& extra = {}) {
    const auto result = parsed(text, extra);
    return result ? "no complaint" : result.error().message();
}

}  // namespace

TEST_CASE("The keys of a file are found with their lines, whatever hides between them") {
    const auto keys =
        scan_keys("# name = 'no'\nname = 'a'; memory = 5\nvif = [ 'x=1, inside = 2',\n  'b' ] # end\ntype='pv'\n");
    REQUIRE(keys.size() == 4);
    CHECK(keys[0].name == "name");
    CHECK(keys[0].line == 2);
    CHECK(keys[1].name == "memory");
    CHECK(keys[1].line == 2);
    CHECK(keys[2].name == "vif");
    CHECK(keys[2].line == 3);
    CHECK(keys[3].name == "type");
    CHECK(keys[3].line == 5);
}

TEST_CASE("A file of xl.cfg keys becomes a domain") {
    const auto result = parsed(R"(
name = "fw"
uuid = "4c6f6361-6c20-4879-8065-727669736f72"
type = "pvh"
memory = 256
vcpus = 2
driver_domain = 1
on_poweroff = "restart"
vif = [ "mac=00:16:3E:AB:CD:EF, backend=sys-net, ip=10.0.0.2 fe80::1, rate=10Mb/s@20ms", "bridge=br0,devid=5" ]
channel = [ "name=agent,connection=socket,path=/run/agent" ]
caisson_run = "true"
caisson_net = [ "ip=10.0.0.2/32,gateway=10.0.0.1" ]
caisson_forward = 1
)");
    REQUIRE(result);
    CHECK(result->warnings.empty());
    const auto& config = result->config;
    CHECK(config.name == "fw");
    CHECK(config.uuid == "4c6f6361-6c20-4879-8065-727669736f72");
    CHECK(config.type == "pvh");
    CHECK(config.memory_mib == 256);
    CHECK(config.vcpus == 2);
    CHECK(config.driver_domain);
    CHECK(config.forward);
    CHECK(config.on_poweroff == OnExit::restart);
    CHECK(config.on_crash == OnExit::destroy);
    REQUIRE(config.vifs.size() == 2);
    CHECK(config.vifs[0].id == 0);
    CHECK(config.vifs[0].mac == "00:16:3e:ab:cd:ef");
    CHECK(config.vifs[0].backend == "sys-net");
    CHECK(config.vifs[0].ip == "10.0.0.2 fe80::1");
    CHECK(config.vifs[0].rate_bytes == 25000);
    CHECK(config.vifs[0].rate_usecs == 20000);
    CHECK(config.vifs[1].id == 5);
    CHECK(config.vifs[1].bridge == "br0");
    CHECK(config.vifs[1].backend == "0");
    CHECK(config.vifs[1].mac.starts_with("00:16:3e:"));
    REQUIRE(config.channels.size() == 1);
    CHECK(config.channels[0].id == 1);
    CHECK(config.channels[0].path == "/run/agent");
    REQUIRE(config.interfaces.size() == 1);
    CHECK(config.interfaces[0].device == "eth0");
    CHECK(config.interfaces[0].gateway == "10.0.0.1");
}

TEST_CASE("A syntax error names file and line") {
    CHECK_THAT(complaint("name='a'\nmemory = = 3\n"), Catch::StartsWith("test.cfg:2: config parsing error"));
    CHECK_THAT(complaint("name='a'\nvif = [ 'x',\n"), Catch::Contains("test.cfg:"));
    CHECK_THAT(complaint(std::string_view("name='a'\0", 9)), Catch::Contains("zero byte"));
}

TEST_CASE("A wrong value names its line, all of them at once, and the key that counts is the last") {
    const std::string text = complaint("name='a'\nmemory='many'\nvcpus=0\nvif='x'\nvif=['mac=zz']\n");
    CHECK_THAT(text, Catch::Contains("test.cfg:2: memory: 'many' is not a number"));
    CHECK_THAT(text, Catch::Contains("test.cfg:3: vcpus: 0 is not within 1 to 512"));
    CHECK_THAT(text, Catch::Contains("test.cfg:5: vif: entry 1: mac: 'zz' is not like 00:16:3e:00:00:01"));
    CHECK_THAT(complaint("name='a'\ntype='arm'\n"), Catch::Contains("test.cfg:2: type: 'arm' is none of pv, pvh, hvm"));
    CHECK_THAT(complaint("name='a'\nvif=[['a']]\n"), Catch::Contains("test.cfg:2: vif: entry 1 is a list"));
    CHECK(complaint("name='a'\nvif='mac=1'\n") == "test.cfg:2: vif: is a single value, expected a list: vif=[\"...\"]");
    CHECK(complaint("name='a'\ncaisson_run=['ls']\n") ==
          "test.cfg:2: caisson_run: is a list, expected a single value: caisson_run=\"...\"");
}

TEST_CASE("A domain needs a name that is none of a number") {
    CHECK_THAT(complaint("memory=5\n"), Catch::Contains("name: a domain needs one"));
    CHECK_THAT(complaint("name='12'\n"), Catch::Contains("'12' is no name"));
    CHECK_THAT(complaint("name='a/b'\n"), Catch::Contains("is no name"));
    CHECK_THAT(complaint("name='-a'\n"), Catch::Contains("is no name"));
    CHECK(parsed("name='a.b-c_d+e'\n"));
}

TEST_CASE("Unknown keys are named, keys without a meaning here are named, caisson's own are taken") {
    const auto result = parsed("name='a'\nmemroy=5\nkernel='/boot/vmlinuz'\ncaisson_runn='x'\nmemroy=6\n");
    REQUIRE(result);
    REQUIRE(result->warnings.size() == 3);
    CHECK(result->warnings[0] == "test.cfg:5: memroy: unknown key");
    CHECK(result->warnings[1] == "test.cfg:3: kernel: a key of xl.cfg that the local hypervisor has no use for");
    CHECK(result->warnings[2] == "test.cfg:4: caisson_runn: unknown key");
}

TEST_CASE("Devices without a backend are refused, not forgotten") {
    CHECK_THAT(complaint("name='a'\nvkb=['backend-type=linux']\n"),
               Catch::Contains("test.cfg:2: vkb: no backend of this version"));
    CHECK(parsed("name='a'\nvkb=[]\n"));
    CHECK(parsed("name='a'\nvkb=['backend-type=linux']\n", {"vkb=[]"}));
}

TEST_CASE("Disks are read as xl reads them, refined by a key of ours, and wrong ones are named with their line") {
    const auto result = parsed(
        "name='a'\ndisk=['/srv/a.img,raw,xvda,rw,backend=sys-storage','vdev=hdc,cdrom,script=x,target=/srv/b.iso']\n"
        "caisson_disk=['vdev=xvda,rate-iops=100']\ncaisson_bind=['/srv','/dev/sdb']\n");
    REQUIRE(result);
    REQUIRE(result->config.disks.size() == 2);
    CHECK(result->config.disks[0].backend == "sys-storage");
    CHECK(result->config.disks[0].rate_iops == "100");
    CHECK(result->config.disks[0].where == "test.cfg:2: disk: entry 1");
    CHECK(result->config.disks[1].cdrom);
    CHECK(result->config.binds == std::vector<std::string>{"/srv", "/dev/sdb"});
    CHECK(result->warnings ==
          std::vector<std::string>{"test.cfg:2: disk: script: passed on in xenstore, not run by the local hypervisor"});
    CHECK_THAT(complaint("name='a'\ndisk=['/a,raw,xvda,rw','b,raw,xvdb,rw']\n"),
               Catch::Contains("test.cfg:2: disk: entry 2: target: 'b' is no absolute path"));
    CHECK_THAT(complaint("name='a'\ndisk=['/a,raw,xvda,rw','/b,raw,d0p0,rw']\n"),
               Catch::Contains("test.cfg:2: disk: d0p0 is there twice"));
    CHECK_THAT(complaint("name='a'\ncaisson_disk=['vdev=xvda,shared=1']\n"),
               Catch::Contains("test.cfg:2: caisson_disk: entry 1: there is no disk 'xvda'"));
    for (const char* path : {"srv", "/", "/a/../b", "//a", ""})
        CHECK_THAT(complaint(std::string("name='a'\ncaisson_bind=['") + path + "']\n"),
                   Catch::Contains("is no absolute path"));
}

TEST_CASE("Two vifs that their backend could not tell apart are refused") {
    CHECK(complaint("name='a'\nvif=['mac=00:16:3e:00:00:01','backend=b','mac=00:16:3E:00:00:01']\n") ==
          "test.cfg:2: vif: entries 1 and 3 have the MAC 00:16:3e:00:00:01, on one backend");
    CHECK(complaint("name='a'\nvif=['ip=10.0.0.1 fd00:0::1','ip=10.0.0.2 fd00::1']\n") ==
          "test.cfg:2: vif: entries 1 and 2 have the address fd00::1, on one backend");
    CHECK(parsed("name='a'\nvif=['ip=10.0.0.1,backend=one','ip=10.0.0.1,backend=two']\n"));
    CHECK(parsed("name='a'\nvif=['','']\n"));
}

TEST_CASE("An interface to be configured that no vif makes is named") {
    const auto result = parsed(
        "name='a'\nvif=['','devid=5']\n"
        "caisson_net=['ip=10.0.0.2/32','dev=eth5,ip=10.0.0.3/32','dev=eth1,ip=10.0.0.4/32']\n");
    REQUIRE(result);
    CHECK(result->warnings == std::vector<std::string>{"test.cfg:3: caisson_net: entry 3: no vif makes an interface "
                                                       "eth1 (the vifs make eth0, eth5)"});
    const auto none = parsed("name='a'\ncaisson_net=['ip=10.0.0.2/32']\n");
    REQUIRE(none);
    CHECK(none->warnings == std::vector<std::string>{"test.cfg:2: caisson_net: entry 1: no vif makes an interface "
                                                     "eth0 (there is no vif)"});
}

TEST_CASE("Settings of the command line override the file and are named as such") {
    const auto result = parsed("name='a'\nmemory=64", {"memory=128", "name='b'"});
    REQUIRE(result);
    CHECK(result->config.memory_mib == 128);
    CHECK(result->config.name == "b");
    CHECK_THAT(complaint("name='a'\n", {"memory=0"}), Catch::Contains("command line: memory: 0 is not within"));
}
