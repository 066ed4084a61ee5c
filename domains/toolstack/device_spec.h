// The strings that describe one device in a cfg file: "mac=00:16:3e:00:00:01,backend=sys-net,ip=10.0.0.2".
//
// The syntax is xl's (xl-network-configuration(5), xl.cfg(5) for channels): comma-separated key=value pairs, blanks
// around them ignored. Errors are a sentence without the place: the caller knows file and line. Pure functions; any
// thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocols/words.h"

namespace caisson::toolstack {

// An entry of vif=[...]. Text fields are empty when the key is absent.
struct Vif {
    std::uint32_t id = 0;
    std::string backend = "0";  // name or number of the driver domain
    std::string mac;            // "00:16:3e:xx:xx:xx", lower case
    std::string ip;             // addresses, separated by a blank
    std::string bridge, script, vifname, gatewaydev;
    std::uint64_t rate_bytes = 0;  // per interval; 0: no limit
    std::uint32_t rate_usecs = 0;
    std::uint32_t mtu = 1500;
    bool trusted = true;
    std::string where;                // "FILE:LINE: vif: entry 1", for what is found out later
    std::vector<std::string> unused;  // keys xl knows and the local hypervisor has no use for: model, type=ioemu ...
};

// An entry of channel=[...]: a named console.
struct Channel {
    std::uint32_t id = 0;  // console device id, from 1: console 0 is the domain's own
    std::string backend = "0";
    std::string name;
    std::string connection;  // "pty" or "socket"
    std::string path;        // of the socket
    std::string where;       // as a Vif's
};

// caisson_console_log="file=/run/guest.log,limit=2097152": what console 0 prints, kept by its backend's domain.
struct ConsoleLog {
    std::string file;  // there; the older half is FILE.1
    // Bytes on disk, both halves; bytes a second; zero: the backend's own default.
    std::uint32_t limit = 0, rate = 0;
    bool timestamps = false;
};

// An entry of caisson_net=[...]: what a guest's own configuration (ifupdown, networkd) would say about an interface.
struct Interface {
    std::string device = "eth0";
    std::vector<std::string> addresses;  // "10.0.0.2/32"
    std::string gateway;                 // on this link, whatever the prefix says; empty: no default route
};

// caisson_uplink="KIND,...": where a network domain's traffic leaves the world of domains.
struct Uplink {
    enum class Kind : std::uint8_t {
        none,
        sandbox,  // a network of its own inside the domain: eth0 there is `peer`, here uplink0 has `address`
        netdev,   // an interface of the machine is moved into the domain (needs root). When the domain ends the kernel
                  // gives hardware back to the machine; an interface of software (veth, macvlan) ends with it
    } kind = Kind::none;
    std::string device;   // netdev: its name
    std::string address;  // of the domain's end, "192.0.2.2/24"
    std::string peer;     // sandbox: the other end's
    std::string gateway;  // default route; sandbox: the peer
    std::string where;    // "FILE:LINE: caisson_uplink"
};

Result<std::vector<std::pair<std::string, std::string>>> split_pairs(std::string_view spec);
Result<Vif> parse_vif(std::string_view spec);
Result<Channel> parse_channel(std::string_view spec);
Result<ConsoleLog> parse_console_log(std::string_view spec);
Result<Interface> parse_interface(std::string_view spec);
Result<Uplink> parse_uplink(std::string_view spec);

bool domain_name_valid(std::string_view name);                // a host name that cannot be taken for a domain id
Result<std::string> parse_mac(std::string_view text);         // lower case; unicast only
bool address_valid(std::string_view text, bool with_prefix);  // IPv4 or IPv6
std::string random_mac();                                     // in Xen's range 00:16:3e

}  // namespace caisson::toolstack
