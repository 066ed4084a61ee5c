#include "domains/service_vm/packet_filter.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "ring/fd.h"

namespace caisson::service_vm {
namespace {

// Numbers of chains and verdicts, from linux/netfilter.h and linux/netfilter/nf_conntrack_common.h.
constexpr std::uint32_t filter_priority = 0, source_nat_priority = 100;
constexpr std::uint32_t established_or_related = (1u << 1) | (1u << 2);
constexpr const char* table = "caisson";

// A transaction of nf_tables under construction: messages, and in them attributes that may hold attributes.
class Transaction {
  public:
    Transaction() { mark(NFNL_MSG_BATCH_BEGIN); }

    template <class Fill>
    void message(std::uint16_t kind, Fill fill) {
        add({.nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | kind),
             .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK},
            {.nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0, .res_id = 0}, fill);
        ++messages_;
    }
    void text(std::uint16_t type, const std::string& value) { put(type, value.c_str(), value.size() + 1); }
    void number(std::uint16_t type, std::uint32_t value) {
        const std::uint32_t big_endian = htonl(value);
        put(type, &big_endian, sizeof big_endian);
    }
    void put(std::uint16_t type, const void* data, std::size_t size) {
        const nlattr head{static_cast<std::uint16_t>(NLA_HDRLEN + size), type};
        append(&head, sizeof head);
        append(data, size);
    }
    template <class Fill>
    void nested(std::uint16_t type, Fill fill) {
        const std::size_t at = bytes_.size();
        const nlattr head{0, static_cast<std::uint16_t>(type | NLA_F_NESTED)};
        append(&head, sizeof head);
        fill();
        const auto length = static_cast<std::uint16_t>(bytes_.size() - at);
        std::memcpy(bytes_.data() + at, &length, sizeof length);  // nla_len
    }

    Status commit() {
        mark(NFNL_MSG_BATCH_END);
        const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
        if (!socket || ::send(socket.get(), bytes_.data(), bytes_.size(), 0) < 0)
            return host_fault(errno, "packet filter");
        for (unsigned answers = 0; answers < messages_;) {
            std::array<std::byte, 16384> answer;
            const ssize_t got = ::recv(socket.get(), answer.data(), answer.size(), 0);
            if (got < 0) return host_fault(errno, "packet filter");
            auto left = static_cast<unsigned>(got);
            for (auto* one = reinterpret_cast<const nlmsghdr*>(answer.data()); NLMSG_OK(one, left);
                 one = NLMSG_NEXT(one, left)) {
                if (one->nlmsg_type != NLMSG_ERROR) continue;
                int error = 0;  // the first field of nlmsgerr
                std::memcpy(&error, one + 1, sizeof error);
                if (error != 0) return host_fault(-error, "packet filter (are its modules in the recipe?)");
                ++answers;
            }
        }
        return {};
    }

  private:
    void append(const void* data, std::size_t size) {
        bytes_.append(static_cast<const char*>(data), size);
        bytes_.resize(NLMSG_ALIGN(bytes_.size()));
    }
    template <class Fill>
    void add(nlmsghdr head, nfgenmsg family, Fill fill) {
        const std::size_t at = bytes_.size();
        append(&head, sizeof head);
        append(&family, sizeof family);
        fill();
        const auto length = static_cast<std::uint32_t>(bytes_.size() - at);
        std::memcpy(bytes_.data() + at, &length, sizeof length);  // nlmsg_len
    }
    void mark(std::uint16_t type) {
        add({.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST},
            {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)}, [] {});
    }

    std::string bytes_;
    unsigned messages_ = 0;
};

// ---- Expressions of a rule, in the order in which nf_tables runs them ----------------------------------------------

template <class Fill>
void expression(Transaction& to, const char* name, Fill fill) {
    to.nested(NFTA_LIST_ELEM, [&] {
        to.text(NFTA_EXPR_NAME, name);
        to.nested(NFTA_EXPR_DATA, fill);
    });
}

void compare(Transaction& to, nft_cmp_ops how, const void* data, std::size_t size) {
    expression(to, "cmp", [&] {
        to.number(NFTA_CMP_SREG, NFT_REG_1);
        to.number(NFTA_CMP_OP, how);
        to.nested(NFTA_CMP_DATA, [&] { to.put(NFTA_DATA_VALUE, data, size); });
    });
}

void interface_is(Transaction& to, nft_meta_keys which, nft_cmp_ops how, const std::string& name) {
    expression(to, "meta", [&] {
        to.number(NFTA_META_KEY, which);
        to.number(NFTA_META_DREG, NFT_REG_1);
    });
    std::array<char, IFNAMSIZ> padded{};
    name.copy(padded.data(), padded.size() - 1);
    compare(to, how, padded.data(), padded.size());
}

void answer_of_something(Transaction& to) {
    constexpr std::uint32_t none = 0;
    expression(to, "ct", [&] {
        to.number(NFTA_CT_KEY, NFT_CT_STATE);
        to.number(NFTA_CT_DREG, NFT_REG_1);
    });
    expression(to, "bitwise", [&] {
        to.number(NFTA_BITWISE_SREG, NFT_REG_1);
        to.number(NFTA_BITWISE_DREG, NFT_REG_1);
        to.number(NFTA_BITWISE_LEN, sizeof none);
        to.nested(NFTA_BITWISE_MASK,
                  [&] { to.put(NFTA_DATA_VALUE, &established_or_related, sizeof established_or_related); });
        to.nested(NFTA_BITWISE_XOR, [&] { to.put(NFTA_DATA_VALUE, &none, sizeof none); });
    });
    compare(to, NFT_CMP_NEQ, &none, sizeof none);
}

void accept(Transaction& to) {
    expression(to, "immediate", [&] {
        to.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        to.nested(NFTA_IMMEDIATE_DATA,
                  [&] { to.nested(NFTA_DATA_VERDICT, [&] { to.number(NFTA_VERDICT_CODE, NF_ACCEPT); }); });
    });
}

// ---- Chains and rules ----------------------------------------------------------------------------------------------

void chain(Transaction& to, const char* name, const char* type, std::uint32_t hook, std::uint32_t priority,
           std::uint32_t policy) {
    to.message(NFT_MSG_NEWCHAIN, [&] {
        to.text(NFTA_CHAIN_TABLE, table);
        to.text(NFTA_CHAIN_NAME, name);
        to.nested(NFTA_CHAIN_HOOK, [&] {
            to.number(NFTA_HOOK_HOOKNUM, hook);
            to.number(NFTA_HOOK_PRIORITY, priority);
        });
        to.number(NFTA_CHAIN_POLICY, policy);
        to.text(NFTA_CHAIN_TYPE, type);
    });
}

template <class Fill>
void rule(Transaction& to, const char* in_chain, Fill fill) {
    to.message(NFT_MSG_NEWRULE, [&] {
        to.text(NFTA_RULE_TABLE, table);
        to.text(NFTA_RULE_CHAIN, in_chain);
        to.nested(NFTA_RULE_EXPRESSIONS, fill);
    });
}

}  // namespace

Status masquerade(const std::vector<std::string>& uplinks) {
    if (uplinks.empty()) return {};
    Transaction to;
    to.message(NFT_MSG_NEWTABLE, [&] { to.text(NFTA_TABLE_NAME, table); });
    chain(to, "forward", "filter", NF_INET_FORWARD, filter_priority, NF_DROP);
    chain(to, "postrouting", "nat", NF_INET_POST_ROUTING, source_nat_priority, NF_ACCEPT);
    rule(to, "forward", [&] {
        answer_of_something(to);
        accept(to);
    });
    for (const auto& uplink : uplinks) {
        rule(to, "forward", [&] {
            for (const auto& outside : uplinks) interface_is(to, NFT_META_IIFNAME, NFT_CMP_NEQ, outside);
            interface_is(to, NFT_META_OIFNAME, NFT_CMP_EQ, uplink);
            accept(to);
        });
        rule(to, "postrouting", [&] {
            interface_is(to, NFT_META_OIFNAME, NFT_CMP_EQ, uplink);
            expression(to, "masq", [] {});
        });
    }
    return to.commit();
}

}  // namespace caisson::service_vm
