// Bytes from several hostile domains, and some of Dom0's, into xenstored: whatever comes, every count stays exact,
// quotas hold, the dead leave nothing, and what only Dom0 may touch stays as it was.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : data_(reinterpret_cast<const char*>(data), size) {}
    bool empty() const { return data_.empty(); }
    std::uint8_t byte() {
        const std::uint8_t value = empty() ? 0 : static_cast<std::uint8_t>(data_.front());
        data_.remove_prefix(empty() ? 0 : 1);
        return value;
    }
    std::string_view bytes(std::size_t count) {
        const auto part = data_.substr(0, count);
        data_.remove_prefix(part.size());
        return part;
    }

  private:
    std::string_view data_;
};

const StoreQuota quota{.outstanding = 3,
                       .watches = 4,
                       .transactions = 2,
                       .transaction_nodes = 24,
                       .nodes = 12,
                       .node_size = 300,
                       .memory = 24 * 1024,
                       .connections = 3,
                       .events = 6,
                       .work = 40};

class World {
  public:
    World() {
        for (const std::uint16_t domain : {1, 2, 3}) make_home(store_, domain, generation_);
        must(store_.write("/secret/of/dom0", "secret").has_value());
        must(store_.write("/shared", "").has_value() && store_.set_permissions("/shared", {"b0"}).has_value());
        for (const std::uint16_t domain : {0, 1, 1, 2, 3})
            peers_.push_back(std::make_unique<StorePeer>(store_, domain));
    }

    void step(Input& input) {
        const std::uint8_t what = input.byte();
        std::unique_ptr<StorePeer>& peer = peers_[what % peers_.size()];
        now_ += StoreTime(1000);
        peer->now = now_;
        switch (what / peers_.size() % 16) {
            case 0: reborn(static_cast<std::uint16_t>(1 + input.byte() % 3)); break;
            case 1: {
                const DomainId domain = peer->connection().who().id;
                peer.reset();
                peer = std::make_unique<StorePeer>(store_, domain);
                break;
            }
            case 2: store_.tick(now_ += std::chrono::milliseconds(input.byte() * 100)); break;
            case 3:
                if (peer->connection().who().id != control_domain) peer->push(input.bytes(1 + input.byte()));
                break;
            case 4: drain(*peer, input.byte()); break;
            default: request(*peer, input);
        }
        check();
    }

  private:
    static std::string path(Input& input) {
        static constexpr std::string_view parts[] = {
            "a",  "bb",   "local",          "domain", "1",   "2",    "shared",       "secret",
            "of", "dom0", "@releaseDomain", "",       "x/y", "\x01", "local/domain", "3"};
        std::string path;
        const std::uint8_t shape = input.byte();
        if (shape % 8 == 7) return std::string(input.bytes(input.byte()));
        if (shape % 8 == 6) path = std::string(input.byte() * 16U, 'l');
        if (shape % 8 == 5) path = "/shared";
        for (int i = 0; i <= shape / 8 % 4; ++i) {
            if (i > 0 || shape & 1) path += '/';
            path += parts[input.byte() % std::size(parts)];
        }
        return path;
    }

    void request(StorePeer& peer, Input& input) {
        const auto op = static_cast<StoreOp>(input.byte() % 25);
        const std::uint8_t shape = input.byte();
        const std::uint32_t transaction = shape % 4;  // 0: none; ids start at 1
        std::string payload;
        switch (op) {
            case StoreOp::write: payload = strings(path(input)) += std::string(input.byte() * 2U, 'v'); break;
            case StoreOp::transaction_start: payload = strings(""); break;
            case StoreOp::transaction_end: payload = strings(shape & 16 ? "F" : "T"); break;
            case StoreOp::watch:
            case StoreOp::unwatch: payload = strings(path(input), std::string(input.byte() % 3, 't')); break;
            case StoreOp::directory_part: payload = strings(path(input), std::to_string(input.byte())); break;
            case StoreOp::introduce: payload = strings(std::to_string(input.byte() % 5), "1", "1"); break;
            case StoreOp::set_target:
                payload = strings(std::to_string(input.byte() % 5), std::to_string(input.byte() % 5));
                break;
            case StoreOp::release:
            case StoreOp::resume:
            case StoreOp::get_domain_path:
            case StoreOp::is_domain_introduced: payload = strings(std::to_string(input.byte() % 5)); break;
            case StoreOp::set_perms:
                payload = strings(path(input));
                for (int i = 0; i <= shape / 16 % 6; ++i)
                    payload += strings("nrwbx"[input.byte() % 5] + std::to_string(input.byte() % 5));
                break;
            default: payload = strings(path(input));
        }
        if (shape & 8) payload.resize(payload.size() / 2);
        if (shape & 4) peer.pull();
        const std::string_view target = std::string_view(payload).substr(0, payload.find('\0'));
        if (peer.connection().who().id == control_domain && (target.starts_with("/secret") || target == "/")) return;
        peer.push(bytes_of({static_cast<std::uint32_t>(op), 7, transaction, static_cast<std::uint32_t>(payload.size())},
                           payload));
        peer.replies.clear();
        peer.events.clear();
    }

    void drain(StorePeer& peer, std::size_t bytes) {
        while (bytes > 0 && !peer.connection().output().empty()) {
            const std::size_t part = std::min(bytes, peer.connection().output().size());
            peer.connection().drained(part, now_);
            bytes -= part;
        }
        // A message read in part this way cannot be read by the peer any more.
        const DomainId domain = peer.connection().who().id;
        for (auto& other : peers_)
            if (other.get() == &peer) {
                other.reset();
                other = std::make_unique<StorePeer>(store_, domain);
            }
    }

    void reborn(std::uint16_t domain) {
        store_.domain_died(DomainId(domain));
        for (std::uint32_t past = 1; past <= generation_; ++past)
            must(store_.tree().usage({DomainId(domain), past}) == Usage{});
        must(store_.introduce(DomainId(domain), ++generation_).has_value());
        for (auto& peer : peers_) {
            if (peer->connection().who().id != DomainId(domain)) continue;
            must(peer->broken() && peer->connection().output().empty());
            peer.reset();
            peer = std::make_unique<StorePeer>(store_, domain);
        }
    }

    void check() {
        must(store_.exact());
        const NodeRef secret = store_.tree().pin("/secret/of/dom0");
        must(secret && secret->value == "secret" && secret->permissions.size() == 1);
        for (const std::uint16_t domain : {1, 2, 3}) {
            must(store_.watches(DomainId(domain)) <= quota.watches);
            must(store_.transactions(DomainId(domain)) <= quota.transactions);
        }
        for (auto& peer : peers_) {
            if (!peer->broken()) continue;
            const DomainId domain = peer->connection().who().id;
            peer.reset();
            peer = std::make_unique<StorePeer>(store_, domain);
        }
    }

    Xenstored store_{quota};
    std::uint32_t generation_ = 1;
    StoreTime now_{0};
    std::vector<std::unique_ptr<StorePeer>> peers_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    World world;
    for (int steps = 0; !input.empty() && steps < 400; ++steps) world.step(input);
    return 0;
}
