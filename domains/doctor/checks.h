// What each part of Caisson needs of a machine, and whether it is there.
//
// The parts are what a person may want to do with this machine; a part works when all that it needs is there. What is
// not needed but missed is said as well, and so is what stands in the way.
#pragma once

#include <string>
#include <vector>

#include "domains/doctor/machine.h"

namespace caisson::doctor {

struct Finding {
    enum class Verdict { there, lacking, better };  // better: it works without, but less of it
    std::string what;                               // "/dev/net/tun"
    Verdict verdict = Verdict::there;
    std::string says;  // what was found; where something lacks, what for and how to get it
};

struct Part {
    std::string name;     // "driver-domain"
    std::string purpose;  // "serve backends on Xen (caisson devd)"
    std::vector<Finding> findings;

    bool works() const;
};

// In the order in which a person reads them: local, driver-domain, guest, control, passthrough.
std::vector<Part> examine(const Machine& machine);

}  // namespace caisson::doctor
