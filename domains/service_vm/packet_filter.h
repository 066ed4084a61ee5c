// The packet filter of a firewall domain, told to nf_tables by netlink: there is no nft in the image.
//
// For the recipe's line "masquerade UPLINK", for every one of them, as nft would say it:
//
//   table inet caisson {
//       chain forward     { type filter hook forward priority 0; policy drop;
//                           ct state established,related accept
//                           iifname != ANY UPLINK oifname UPLINK accept }
//       chain postrouting { type nat hook postrouting priority 100;
//                           oifname UPLINK masquerade }
//   }
//
// So guests reach what is behind the uplink, and from there only answers come in; and guests do not reach each other.
#pragma once

#include <string>
#include <vector>

#include "protocols/words.h"

namespace caisson::service_vm {

// Whole or not at all: one transaction of nf_tables. Needs its modules: nf_tables, nft_ct, nft_chain_nat, nft_masq.
Status masquerade(const std::vector<std::string>& uplinks);

}  // namespace caisson::service_vm
