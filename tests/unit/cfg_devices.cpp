// The strings that describe devices in cfg files.
#include <catch2/catch.hpp>

#include "domains/toolstack/device_spec.h"

using namespace caisson;
using namespace caisson::toolstack;

namespace {

template <class T>
std::string why(const Result<T>& result) {
    return result ? "accepted" : result.error().message();
}

}  // namespace

TEST_CASE("A console's log has a file, and limits that are numbers of bytes") {
    const auto log = parse_console_log("file=/run/guest.log,limit=1000000,timestamps=1");
    REQUIRE(log);
    CHECK((log->file == "/run/guest.log" && log->limit == 1000000 && log->rate == 0 && log->timestamps));
    CHECK(why(parse_console_log("limit=5")) == "needs file=/PATH, in the domain that serves the console");
    CHECK(why(parse_console_log("file=/a,limit=much")) == "limit: 'much' is no number of bytes");
    CHECK(why(parse_console_log("file=/a,level=3")) == "'level=3' is none of file=, limit=, rate=, timestamps=0|1");
}

TEST_CASE("A vif takes xl's keys and says which one is wrong") {
    CHECK(parse_vif(""));
    CHECK(parse_vif(" mac = 00:16:3e:00:00:01 , backend = 3 ,")->backend == "3");
    CHECK(parse_vif("mtu=9000,trusted=0")->mtu == 9000);
    CHECK_FALSE(parse_vif("trusted=0")->trusted);
    CHECK(parse_vif("model=e1000,type=ioemu")->unused == std::vector<std::string>{"model", "type"});
    CHECK(why(parse_vif("colour=red")) == "'colour' is no key of a vif");
    CHECK(why(parse_vif("mac")) == "'mac' is not KEY=VALUE");
    CHECK(why(parse_vif("ip=10.0.0.1,ip=10.0.0.2")) == "ip is there twice");
    CHECK(why(parse_vif("mac=01:00:5e:00:00:01")) == "mac: 01:00:5e:00:00:01 is a multicast address");
    CHECK(why(parse_vif("mac=00:16:3e:00:00:0g")) == "mac: '00:16:3e:00:00:0g' is not like 00:16:3e:00:00:01");
    CHECK(why(parse_vif("ip=10.0.0.256")) == "ip: '10.0.0.256' is no IP address");
    CHECK(why(parse_vif("ip=10.0.0.1/24")) == "ip: '10.0.0.1/24' is no IP address");
    CHECK(why(parse_vif("rate=fast")) == "rate: 'fast' is not like 10Mb/s or 250KB/s@20ms");
    CHECK(why(parse_vif("mtu=67")) == "mtu: '67' is not a number from 68 to 65535");
    CHECK(why(parse_vif("devid=-1")) == "devid: '-1' is not a number from 0 to 255");
    CHECK(why(parse_vif("bridge=../../etc")) == "bridge: '../../etc' is no interface name");
    CHECK(why(parse_vif("vifname=sixteen-letters-")) == "vifname: 'sixteen-letters-' is no interface name");
    CHECK(why(parse_vif("backend=a;b")) == "backend: 'a;b' is neither a domain's name nor an id");
    CHECK(why(parse_vif("type=paravirtualised")) == "type: 'paravirtualised' is neither vif nor ioemu");
    CHECK(why(parse_vif("script=a\x1b[2J")) == "holds a control character");
    CHECK(why(parse_vif(std::string(5000, 'a'))) == "5000 bytes, at most 4096");
}

TEST_CASE("A channel is a pty or a socket with a path, and has a name") {
    const auto channel = parse_channel("name=org.qemu.agent,connection=socket,path=/run/a,backend=sys");
    REQUIRE(channel);
    CHECK(channel->path == "/run/a");
    CHECK(channel->backend == "sys");
    CHECK(parse_channel("name=a,connection=pty"));
    CHECK_FALSE(parse_channel("name=a"));
    CHECK_FALSE(parse_channel("connection=pty"));
    CHECK_FALSE(parse_channel("name=a,connection=pty,path=/x"));
    CHECK_FALSE(parse_channel("name=a,connection=socket"));
    CHECK_FALSE(parse_channel("name=../../etc/passwd,connection=pty"));
    CHECK_FALSE(parse_channel("name=a,connection=tcp"));
}

TEST_CASE("An interface of the guest has addresses with a prefix") {
    CHECK(parse_interface("ip=10.0.0.2/32 fd00::2/64,gateway=10.0.0.1,dev=eth1")->addresses.size() == 2);
    CHECK_FALSE(parse_interface("dev=eth0"));
    CHECK_FALSE(parse_interface("ip=10.0.0.2"));
    CHECK_FALSE(parse_interface("ip=10.0.0.2/33"));
    CHECK_FALSE(parse_interface("ip=10.0.0.2/32,gateway=host"));
}

TEST_CASE("An uplink is a sandbox with two ends or an interface of the machine") {
    const auto sandbox = parse_uplink("sandbox,ip=192.0.2.2/24,peer=192.0.2.1/24");
    REQUIRE(sandbox);
    CHECK(sandbox->gateway == "192.0.2.1");
    CHECK(parse_uplink("netdev,dev=ens3,ip=10.0.0.2/24,gateway=10.0.0.1")->device == "ens3");
    CHECK_FALSE(parse_uplink("sandbox,ip=192.0.2.2/24"));
    CHECK_FALSE(parse_uplink("netdev,ip=10.0.0.2/24"));
    CHECK_FALSE(parse_uplink("netdev,dev=a/b,ip=10.0.0.2/24"));
    CHECK_FALSE(parse_uplink("cloud"));
    CHECK_FALSE(parse_uplink(""));
}

TEST_CASE("A made-up MAC is in Xen's range and unicast") {
    for (int i = 0; i < 100; ++i) CHECK(parse_mac(random_mac()));
    CHECK(random_mac() != random_mac());
}
