#include <cstdio>
#include <nlohmann/json.hpp>

#include <algorithm>

#include "domains/command/command.h"
#include "domains/doctor/checks.h"

namespace caisson::command {
namespace {

using doctor::Finding;
using doctor::Part;

const char* word(Finding::Verdict verdict) {
    switch (verdict) {
        case Finding::Verdict::there: return "ok";
        case Finding::Verdict::lacking: return "lacks";
        case Finding::Verdict::better: return "better";
    }
    return "";
}

void print(const Part& part) {
    std::printf("%s: %s: %s\n", part.name.c_str(), part.purpose.c_str(), part.works() ? "works" : "does not work here");
    for (const Finding& one : part.findings)
        std::printf("    %-7s %-18s %s\n", word(one.verdict), one.what.c_str(), one.says.c_str());
}

nlohmann::json as_json(const Part& part) {
    auto findings = nlohmann::json::array();
    for (const Finding& one : part.findings)
        findings.push_back({{"what", one.what}, {"verdict", word(one.verdict)}, {"says", one.says}});
    return {{"part", part.name}, {"purpose", part.purpose}, {"works", part.works()}, {"findings", findings}};
}

}  // namespace

int doctor(const DoctorOptions& options) {
    auto parts = doctor::examine(doctor::this_machine());
    if (!options.parts.empty())
        std::erase_if(parts, [&](const Part& part) { return std::ranges::count(options.parts, part.name) == 0; });
    if (options.json) {
        auto all = nlohmann::json::array();
        for (const Part& part : parts) all.push_back(as_json(part));
        std::printf("%s\n", all.dump(2).c_str());
    } else {
        for (const Part& part : parts) print(part);
    }
    // Asked for certain parts, all of them are meant; else it is good news when there is one thing to do here.
    const auto works = [](const Part& part) { return part.works(); };
    const bool good = options.parts.empty() ? std::ranges::any_of(parts, works) : std::ranges::all_of(parts, works);
    return good ? exit_ok : exit_machine_lacks;
}

}  // namespace caisson::command
