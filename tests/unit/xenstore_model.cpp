// Random operations of several domains, in and out of transactions, against a model that is too simple to be wrong: a
// sorted map, copied where convenient, searched from end to end.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

namespace {

constexpr int node_quota = 14;

struct ModelNode {
    std::string value;
    std::vector<std::pair<int, char>> permissions;  // domain and letter
    std::uint64_t version = 0;
};
using ModelTree = std::map<std::string, ModelNode>;

struct Model {
    ModelTree tree{{"/", {.permissions = {{0, 'n'}}, .version = 1}}};
    std::uint64_t version = 1;

    struct Picture {  // of a transaction: every node as it was at the first look, and as it is now
        std::map<std::string, std::optional<ModelNode>> base, now;
        bool failed = false;
    };

    static std::string parent(const std::string& path) { return std::string(parent_path(path)); }
    static bool may(int domain, const ModelNode& node, char what) {
        if (domain == 0 || node.permissions[0].first == domain) return true;
        if (what == 'o') return false;
        char letter = node.permissions[0].second;
        for (std::size_t i = node.permissions.size(); i-- > 1;)
            if (node.permissions[i].first == domain) letter = node.permissions[i].second;
        return letter == 'b' || letter == what;
    }

    std::optional<ModelNode> get(Picture* tx, const std::string& path) {
        const auto node = tree.find(path);
        const auto live = node == tree.end() ? std::nullopt : std::optional(node->second);
        if (!tx) return live;
        tx->base.try_emplace(path, live);
        return tx->now.try_emplace(path, live).first->second;
    }
    void set(Picture* tx, const std::string& path, std::optional<ModelNode> node) {
        if (node) node->version = ++version;
        if (tx)
            tx->now[path] = node;
        else if (node)
            tree[path] = *node;
        else
            tree.erase(path);
    }
    void touch(Picture* tx, const std::string& path) { set(tx, path, get(tx, path)); }
    // All paths there are in this view, whether looked at or not.
    std::vector<std::string> paths(Picture* tx) {
        std::map<std::string, bool> all;
        for (const auto& [path, node] : tree) all[path] = true;
        if (tx)
            for (const auto& [path, node] : tx->now) all[path] = node.has_value();
        std::vector<std::string> list;
        for (const auto& [path, there] : all)
            if (there) list.push_back(path);
        return list;
    }
    int owned(Picture* tx, int domain) {
        int count = 0;
        for (const auto& [path, node] : tree) count += node.permissions[0].first == domain;
        if (!tx) return count;
        for (const auto& [path, node] : tx->base) count -= node && node->permissions[0].first == domain;
        for (const auto& [path, node] : tx->now) count += node && node->permissions[0].first == domain;
        return count;
    }

    // "" and the node, or no node and an error or "" for "not there, and he may know".
    std::string reach(Picture* tx, int who, const std::string& path, char what, std::optional<ModelNode>& node) {
        node = get(tx, path);
        if (node) return may(who, *node, what) ? "" : "EACCES";
        std::string above = path;
        std::optional<ModelNode> found;
        while (!found) found = get(tx, above = parent(above));
        return may(who, *found, what) ? "" : "EACCES";
    }
    std::string read(Picture* tx, int who, const std::string& path, std::string& value) {
        std::optional<ModelNode> node;
        const std::string error = reach(tx, who, path, 'r', node);
        if (!error.empty()) return error;
        if (!node) return "ENOENT";
        value = node->value;
        return "";
    }
    std::string create(Picture* tx, int who, const std::string& path, const std::string& value) {
        std::vector<std::string> missing{path};
        while (!get(tx, parent(missing.back()))) missing.push_back(parent(missing.back()));
        auto permissions = get(tx, parent(missing.back()))->permissions;
        if (who != 0) {
            permissions[0].first = who;
            if (owned(tx, who) + static_cast<int>(missing.size()) > node_quota) return "ENOSPC";
        }
        for (; !missing.empty(); missing.pop_back()) {
            set(tx, missing.back(), ModelNode{.value = missing.size() == 1 ? value : "", .permissions = permissions});
            touch(tx, parent(missing.back()));
        }
        return "";
    }
    std::string write(Picture* tx, int who, const std::string& path, const std::string& value, bool mkdir) {
        std::optional<ModelNode> node;
        const std::string error = reach(tx, who, path, 'w', node);
        if (!error.empty()) return error;
        if (!node) return create(tx, who, path, value);
        if (mkdir) return "";
        node->value = value;
        set(tx, path, node);
        return "";
    }
    std::string remove(Picture* tx, int who, const std::string& path) {
        std::optional<ModelNode> node;
        const std::string error = reach(tx, who, path, 'w', node);
        if (!error.empty()) return error;
        if (!node) return get(tx, parent(path)) ? "" : "ENOENT";
        if (path == "/") return "EINVAL";
        for (const std::string& victim : paths(tx)) {
            if (!path_within(victim, path)) continue;
            get(tx, victim);
            set(tx, victim, std::nullopt);
        }
        touch(tx, parent(path));
        return "";
    }
    std::string chmod(Picture* tx, int who, const std::string& path, std::vector<std::pair<int, char>> permissions) {
        std::optional<ModelNode> node;
        const std::string error = reach(tx, who, path, 'o', node);
        if (!error.empty()) return error;
        if (!node) return "ENOENT";
        if (who != 0 && permissions[0].first != node->permissions[0].first) return "EPERM";
        node->permissions = std::move(permissions);
        set(tx, path, node);
        return "";
    }
    bool conflicts(const Picture& tx) const {
        return std::ranges::any_of(tx.base, [&](const auto& entry) {
            const auto live = tree.find(entry.first);
            return (entry.second ? entry.second->version : 0) != (live == tree.end() ? 0 : live->second.version);
        });
    }
    std::string commit(Picture& tx, int who) {
        if (tx.failed) return "ENOMEM";
        if (conflicts(tx)) return "EAGAIN";
        if (who != 0 && owned(&tx, who) > node_quota && owned(&tx, who) > owned(nullptr, who)) return "ENOSPC";
        for (const auto& [path, node] : tx.now) {
            const auto& base = tx.base[path];
            if ((node ? node->version : 0) != (base ? base->version : 0)) set(nullptr, path, node);
        }
        return "";
    }
    void die(int domain) {
        std::vector<std::string> tops;
        for (const auto& [path, node] : tree)
            if (path != "/" && node.permissions[0].first == domain) tops.push_back(path);
        for (const std::string& top : tops)
            if (tree.contains(top)) remove(nullptr, 0, top);
        for (auto& [path, node] : tree) {
            const auto before = node.permissions;
            if (node.permissions[0].first == domain) node.permissions[0] = {0, 'n'};  // "/", which is never deleted
            std::erase_if(node.permissions, [&](const auto& entry) { return entry.first == domain; });
            if (node.permissions != before) touch(nullptr, path);
        }
    }
};

struct World {
    Model model;
    Xenstored store{{.nodes = node_quota, .write_rate = 1e9}};
    std::mt19937 random;
    std::uint32_t generation = 1;
    struct Client {
        int domain;
        std::unique_ptr<StorePeer> peer;
        std::uint32_t tx = 0;
        Model::Picture picture;
    };
    std::vector<Client> clients;
    std::map<std::string, int> outcomes;  // of commits: how often each

    explicit World(unsigned seed) : random(seed) {
        for (const int domain : {1, 2, 3}) join(domain);
        for (const int domain : {0, 0, 1, 1, 2, 3}) connect(domain);
        const auto permissions = std::vector<std::pair<int, char>>{{0, 'b'}};
        REQUIRE(store.set_permissions("/", {"b0"}));
        model.chmod(nullptr, 0, "/", permissions);
    }
    void join(int domain) { REQUIRE(store.introduce(DomainId(static_cast<std::uint16_t>(domain)), generation)); }
    void connect(int domain) {
        clients.push_back({domain, std::make_unique<StorePeer>(store, static_cast<std::uint16_t>(domain)), 0, {}});
    }
    int below(int limit) { return static_cast<int>(random() % static_cast<unsigned>(limit)); }
    std::string path() {
        std::string path;
        for (int depth = below(4); depth >= 0; --depth) path += "/" + std::string(1, static_cast<char>('a' + below(3)));
        return below(30) == 0 ? "/" : path;
    }

    void reborn(int domain) {
        store.domain_died(DomainId(static_cast<std::uint16_t>(domain)));
        model.die(domain);
        ++generation;
        join(domain);
        for (Client& client : clients) {
            if (client.domain != domain) continue;
            REQUIRE(client.peer->broken());
            client.peer = std::make_unique<StorePeer>(store, static_cast<std::uint16_t>(domain));
            client.tx = 0;
        }
        // What a transaction put the dead domain's name on cannot be compared with the simple model any more.
        for (Client& client : clients) {
            if (client.tx == 0) continue;
            client.peer->end(client.tx, false);
            client.tx = 0;
        }
    }

    void step() {
        Client& client = clients[static_cast<std::size_t>(below(static_cast<int>(clients.size())))];
        StorePeer& peer = *client.peer;
        const int who = client.domain;
        if (below(400) == 0) return reborn(1 + below(3));
        if (client.tx == 0 && below(8) == 0) {
            client.tx = peer.start();
            REQUIRE(client.tx != 0);
            client.picture = {};
            return;
        }
        const bool inside = client.tx != 0 && below(3) != 0;
        Model::Picture* tx = inside ? &client.picture : nullptr;
        const std::uint32_t id = inside ? client.tx : 0;
        if (inside && below(8) == 0) {
            const bool commit = below(4) != 0;
            const std::string expected = commit ? model.commit(client.picture, who) : "";
            REQUIRE(peer.end(id, commit).error() == expected);
            if (commit) ++outcomes[expected];
            client.tx = 0;
            return;
        }
        const std::string at = path(), value = std::to_string(below(1000));
        std::string error, expected, text;
        if (inside && model.conflicts(client.picture)) {
            // It has lost: what it still sees depends on the order of first looks, but it must do no harm.
            peer.call(static_cast<StoreOp>(std::array{1, 2, 11, 12, 13}[static_cast<std::size_t>(below(5))]),
                      strings(at), id);
            error = peer.end(id).error();
            REQUIRE((error == "EAGAIN" || error == "ENOMEM"));
            ++outcomes[error];
            client.tx = 0;
            return;
        }
        if (tx && tx->failed) {
            REQUIRE(peer.read(at, id).error() == "ENOMEM");
            return;
        }
        switch (below(7)) {
            case 0:
            case 1: error = peer.write(at, value, id).error(), expected = model.write(tx, who, at, value, false); break;
            case 2: error = peer.mkdir(at, id).error(), expected = model.write(tx, who, at, "", true); break;
            case 3: error = peer.rm(at, id).error(), expected = model.remove(tx, who, at); break;
            case 4: {
                static constexpr std::string_view letters = "nrwb";
                std::vector<std::pair<int, char>> permissions;
                std::string payload = strings(at);
                for (int i = below(3); i >= 0; --i) {
                    permissions.emplace_back(below(4), letters[static_cast<std::size_t>(below(4))]);
                    payload += strings(permissions.back().second + std::to_string(permissions.back().first));
                }
                error = peer.call(StoreOp::set_perms, payload, id).error();
                expected = model.chmod(tx, who, at, permissions);
                break;
            }
            case 5: {
                const Answer answer = peer.directory(at, id);
                std::string list;
                error = answer.error(), expected = model.read(tx, who, at, text);
                if (!expected.empty()) break;
                for (const std::string& other : model.paths(tx))
                    if (other != "/" && Model::parent(other) == at) list += strings(std::string(leaf_name(other)));
                REQUIRE(answer.payload == list);
                break;
            }
            default: {
                const Answer answer = peer.read(at, id);
                error = answer.error(), expected = model.read(tx, who, at, text);
                if (expected.empty()) REQUIRE(answer.payload == text);
            }
        }
        INFO(at << " by domain " << who << (inside ? " in a transaction" : ""));
        REQUIRE(error == expected);
        if (tx && expected == "ENOSPC") tx->failed = true;
    }

    void compare() {
        REQUIRE(store.exact());
        REQUIRE(store.tree().size() == model.tree.size());
        for (const auto& [path, node] : model.tree) {
            const NodeRef real = store.tree().pin(path);
            REQUIRE(real);
            REQUIRE(real->value == node.value);
            std::vector<std::pair<int, char>> permissions;
            for (const Permission& entry : real->permissions)
                permissions.emplace_back(entry.whom.id.raw, "nrwb"[static_cast<int>(entry.access)]);
            REQUIRE(permissions == node.permissions);
        }
    }
};

}  // namespace

TEST_CASE("Random transactions of several domains end as the model says") {
    std::map<std::string, int> outcomes;
    for (unsigned seed = 1; seed <= 40; ++seed) {
        INFO("seed " << seed);
        World world(seed);
        for (int i = 0; i < 3000; ++i) {
            INFO("step " << i);
            world.step();
            if (i % 16 == 0) world.compare();
        }
        world.compare();
        for (const auto& [outcome, count] : world.outcomes) outcomes[outcome] += count;
    }
    for (const auto& [outcome, count] : outcomes) UNSCOPED_INFO(count << " commits ended with \"" << outcome << "\"");
    CHECK(outcomes[""] > 1000);  // else this proves nothing
    CHECK(outcomes["EAGAIN"] > 1000);
    CHECK(outcomes["ENOMEM"] > 10);
}
