// What a service VM is: the lines of a recipe (images/), read again by its PID 1.
//
//   module NAME [PARAMETER=VALUE...]                      a kernel module; in an image after those that it needs
//   bridge NAME [ADDRESS/BITS]                            for the vifs whose configuration says bridge=NAME
//   interface NAME [ADDRESS/BITS] [via GATEWAY] [in BRIDGE]   configured whenever it appears
//   forward                                               packets pass from one interface to another
//   masquerade NAME                                       out through it go packets with its address, in come only
//   answers serve backends | frontends | both                     which controllers run
//
// `#` begins a comment. Of a domain that is made from the image a word more may be said on its kernel's command line:
// caisson.interface=eth0,10.0.0.2/24 is the line "interface eth0 10.0.0.2/24".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

namespace caisson::service_vm {

struct Module {
    std::string name, parameters;  // "xen-gntalloc", "limit=16384"
};

struct Address {
    std::string host;  // "10.0.0.1", "fd00::1"
    unsigned bits = 0;
    bool v6() const { return host.find(':') != std::string::npos; }
};

// A bridge is an interface that PID 1 makes.
struct Interface {
    std::string name;
    bool bridge = false;
    std::vector<Address> addresses;
    std::string gateway, master;  // empty: none
};

struct Recipe {
    std::vector<Module> modules;
    std::vector<Interface> interfaces;
    std::vector<std::string> masquerades;
    bool forward = false, backends = false, frontends = false;
};

// All lines or the first error, as "FILE:LINE: what is wrong". A word said again of the same interface adds to it.
Result<Recipe> parse_recipe(std::string_view text, const std::string& file);

// The lines that a kernel command line adds: "caisson.forward quiet" gives "forward\n".
std::string lines_of_command_line(std::string_view command_line);

}  // namespace caisson::service_vm
