// cfg files: whatever the text, parsing ends, keeps its limits, and what it accepts is what the rest relies on.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "domains/domain/plan.h"
#include "domains/toolstack/cfg_file.h"
#include "domains/toolstack/device_spec.h"
#include "domains/toolstack/domain_config.h"
#include "domains/toolstack/toolstack.h"
#include "domains/toolstack/tree.h"

using namespace caisson;
using namespace caisson::toolstack;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

bool printable(std::string_view text) {
    return std::none_of(text.begin(), text.end(),
                        [](char c) { return static_cast<unsigned char>(c) < ' ' && c != '\t'; });
}

// A path of the tree never has more components than its key: no value became part of it.
void check_tree(const Tree& tree) {
    for (const auto& node : tree.nodes) {
        must(node.path.starts_with("/local/domain/") || node.path.starts_with("/libxl/") ||
             node.path.starts_with("/vm/"));
        must(node.path.find("//") == std::string::npos && node.path.find("..") == std::string::npos);
        must(node.path.size() < 256 && printable(node.path));
    }
}

void device_strings(std::string_view text) {
    if (const auto vif = parse_vif(text)) {
        must(vif->mac.empty() || vif->mac.size() == 17);
        must(vif->bridge.size() < 16 && vif->vifname.size() < 16 && vif->gatewaydev.size() < 16);
        must(printable(vif->ip) && printable(vif->script));
        check_tree(vif_tree(*vif, DomainId{1}, DomainId{2}));
    }
    if (const auto channel = parse_channel(text)) {
        must(!channel->name.empty() && channel->name.find('/') == std::string::npos);
        check_tree(console_tree(&*channel, DomainId{1}, DomainId{2}));
    }
    if (const auto interface = parse_interface(text)) must(!interface->addresses.empty());
    if (const auto uplink = parse_uplink(text)) must(uplink->kind != Uplink::Kind::none && !uplink->address.empty());
}

void whole_file(std::string_view text) {
    auto file = CfgFile::parse(text, "fuzz.cfg", {"name='fuzz'", "caisson_nftables=''"});
    if (!file) return;
    const auto parsed = parse_domain(*file);
    for (const auto& problem : file->problems()) must(printable(problem));
    if (!parsed) return;
    must(domain_name_valid(parsed->config.name));
    must(parsed->config.vifs.size() <= 64);
    check_tree(domain_tree(parsed->config, DomainId{1}));
    const auto plan = plan_of(parsed->config, DomainId{1});
    must(domain::plan_from_json(domain::to_json(plan)).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    (void)scan_keys(text);
    device_strings(text);
    whole_file(text);
    return 0;
}
