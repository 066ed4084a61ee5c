#include "domains/service_vm/recipe.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <span>

#include "ring/log.h"

namespace caisson::service_vm {
namespace {

constexpr std::string_view on_command_line = "caisson.";
constexpr std::size_t longest_name = 15;  // IFNAMSIZ of linux/if.h, without its end

using Words = std::span<const std::string>;

std::unexpected<Error> wrong(std::string text) { return unsupported("", std::move(text)); }

std::vector<std::string> split(std::string_view text, std::string_view separators) {
    std::vector<std::string> parts;
    while (true) {
        text.remove_prefix(std::min(text.find_first_not_of(separators), text.size()));
        if (text.empty()) return parts;
        const auto end = std::min(text.find_first_of(separators), text.size());
        parts.emplace_back(text.substr(0, end));
        text.remove_prefix(end);
    }
}

bool only(std::string_view text, std::string_view also) {
    return !text.empty() && std::ranges::all_of(text, [&](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               also.find(c) != std::string_view::npos;
    });
}

Result<std::string> interface_name(const std::string& text) {
    if (text.size() > longest_name || !only(text, "._-") || text.front() == '.')
        return wrong("'" + escaped(text) + "' is no name of an interface");
    return text;
}

bool address_of(int family, const std::string& text) {
    std::array<std::byte, sizeof(in6_addr)> bytes;
    return ::inet_pton(family, text.c_str(), bytes.data()) == 1;
}

Result<std::string> host(const std::string& text) {
    if (!address_of(AF_INET, text) && !address_of(AF_INET6, text))
        return wrong("'" + escaped(text) + "' is no address");
    return text;
}

Result<Address> address(const std::string& text) {
    const auto slash = text.find('/');
    if (slash == std::string::npos) return wrong("'" + escaped(text) + "' has no /BITS");
    Address made{.host = TRY(host(text.substr(0, slash)))};
    const auto bits = parse_decimal<unsigned>(std::string_view(text).substr(slash + 1));
    if (!bits || *bits > (made.v6() ? 128u : 32u)) return wrong("'" + escaped(text) + "' has no sound /BITS");
    made.bits = *bits;
    return made;
}

Interface& known(Recipe& recipe, const std::string& name) {
    const auto found = std::ranges::find(recipe.interfaces, name, &Interface::name);
    if (found != recipe.interfaces.end()) return *found;
    return recipe.interfaces.emplace_back(Interface{.name = name, .addresses = {}, .gateway = {}, .master = {}});
}

// ---- One word each: `rest` is what follows it ----------------------------------------------------------------------

Status module_line(Recipe& recipe, Words rest) {
    if (rest.empty()) return wrong("module: which one?");
    if (!only(rest[0], "_-")) return wrong("'" + escaped(rest[0]) + "' is no name of a module");
    Module module{.name = rest[0], .parameters = {}};
    for (const auto& one : rest.subspan(1)) {
        if (one.find('=') == std::string::npos) return wrong("'" + escaped(one) + "' is no PARAMETER=VALUE");
        module.parameters += (module.parameters.empty() ? "" : " ") + one;
    }
    recipe.modules.push_back(std::move(module));
    return {};
}

Status interface_line(Recipe& recipe, Words rest) {
    if (rest.empty()) return wrong("interface: which one?");
    Interface& interface = known(recipe, TRY(interface_name(rest[0])));
    for (std::size_t i = 1; i < rest.size(); ++i) {
        const bool named = rest[i] == "via" || rest[i] == "in";
        if (named && i + 1 == rest.size()) return wrong("'" + rest[i] + "' is the last word");
        if (rest[i] == "via")
            interface.gateway = TRY(host(rest[++i]));
        else if (rest[i] == "in")
            interface.master = TRY(interface_name(rest[++i]));
        else
            interface.addresses.push_back(TRY(address(rest[i])));
    }
    return {};
}

Status bridge_line(Recipe& recipe, Words rest) {
    if (rest.empty() || rest.size() > 2) return wrong("expected: bridge NAME [ADDRESS/BITS]");
    Interface& bridge = known(recipe, TRY(interface_name(rest[0])));
    bridge.bridge = true;
    if (rest.size() == 2) bridge.addresses.push_back(TRY(address(rest[1])));
    return {};
}

Status forward_line(Recipe& recipe, Words rest) {
    if (!rest.empty()) return wrong("'forward' stands alone");
    recipe.forward = true;
    return {};
}

Status masquerade_line(Recipe& recipe, Words rest) {
    if (rest.size() != 1) return wrong("expected: masquerade NAME");
    recipe.masquerades.push_back(TRY(interface_name(rest[0])));
    return {};
}

Status serve_line(Recipe& recipe, Words rest) {
    const std::string what = rest.size() == 1 ? rest[0] : "";
    if (what != "backends" && what != "frontends" && what != "both")
        return wrong("expected: serve backends, frontends or both");
    recipe.backends |= what != "frontends";
    recipe.frontends |= what != "backends";
    return {};
}

struct Word {
    std::string_view name;
    Status (*line)(Recipe&, Words);
};
constexpr Word words[] = {{"module", module_line},   {"bridge", bridge_line},         {"interface", interface_line},
                          {"forward", forward_line}, {"masquerade", masquerade_line}, {"serve", serve_line}};

Status add_line(Recipe& recipe, std::string_view line) {
    const auto parts = split(line.substr(0, line.find('#')), " \t\r");
    if (parts.empty()) return {};
    const auto* word = std::ranges::find(words, std::string_view(parts[0]), &Word::name);
    if (word == std::end(words)) return wrong("there is no word '" + escaped(parts[0]) + "'");
    return word->line(recipe, Words(parts).subspan(1));
}

Status consistent(const Recipe& recipe) {
    if (!recipe.backends && !recipe.frontends) return wrong("nothing is served: no line 'serve'");
    for (const auto& one : recipe.interfaces)
        if (!one.master.empty() && std::ranges::none_of(recipe.interfaces, [&](const Interface& other) {
                return other.bridge && other.name == one.master;
            }))
            return wrong("'" + one.name + "' shall be in '" + one.master + "', which is no bridge of the recipe");
    return {};
}

}  // namespace

Result<Recipe> parse_recipe(std::string_view text, const std::string& file) {
    Recipe recipe;
    std::size_t number = 0;
    const auto located = [&](const Status& done) {
        return wrong(file + ":" + std::to_string(number) + ": " + done.error().message());
    };
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        ++number;
        if (const Status done = add_line(recipe, text.substr(0, end)); !done) return located(done);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    if (const Status done = consistent(recipe); !done) return located(done);
    return recipe;
}

std::string lines_of_command_line(std::string_view command_line) {
    std::string lines;
    for (std::string& word : split(command_line, " \t\n")) {
        if (!word.starts_with(on_command_line)) continue;
        word.erase(0, on_command_line.size());
        std::ranges::replace(word, ',', ' ');
        const auto equals = word.find_first_of("= ");  // a module's parameters have a = of their own
        if (equals != std::string::npos) word[equals] = ' ';
        lines += word + "\n";
    }
    return lines;
}

}  // namespace caisson::service_vm
