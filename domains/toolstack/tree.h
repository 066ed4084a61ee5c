// What the toolstack writes into xenstore for a domain and its devices: the keys and the permissions that libxl writes,
// so that every program that reads them on Xen reads them here.
//
// Sources: xenstore-paths.pandoc of Xen; libxl's domain creation and device addition (observed trees); XSA-57 for what
// a guest must not be able to write; XSA-175 and XSA-178 for the trusted copy below /libxl.
// What is left out because a process has no such thing: store/port, store/ring-ref, the image keys; console/ring-ref
// and console/port are the frontend's to write, where on Xen the domain builder does.
//
// Pure: a tree is a list of nodes; the last two functions alone touch a store. Threads: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "domains/toolstack/domain_config.h"
#include "protocols/words.h"
#include "ring/store.h"

namespace caisson::toolstack {

struct Node {
    std::string path, value;
    std::vector<StorePermission> permissions{};  // empty: as the folder it is in
};

struct Tree {
    std::vector<std::string> removed;  // first, with all below
    std::vector<Node> nodes;           // then, in this order
};

struct DeviceLink {
    std::string device_class;  // "vif", "vbd", "console"
    DeviceId id{};
    DomainId frontend{}, backend{};
    bool operator==(const DeviceLink&) const = default;
};

// The keys of a device's directories, but for those that say where they are. `front` may be written by the guest;
// `fixed` lies in the guest's directory but only the backend may write it (XSA-57); `back` is the backend's, and is
// copied to where only Dom0 looks (XSA-175, XSA-178).
struct DeviceEntries {
    std::vector<std::pair<std::string, std::string>> front, fixed, back;
};

std::string name_of(const DeviceLink& link);  // for people: "vbd 51712 of domain 3"
std::string domain_path(DomainId domain);     // /local/domain/N
std::string libxl_path(DomainId domain);      // /libxl/N: nobody but Dom0 may read or write it
std::string frontend_path(const DeviceLink& link);
std::string backend_path(const DeviceLink& link);
std::string trusted_path(const DeviceLink& link);  // /libxl/N/device/CLASS/ID

Tree domain_tree(const DomainConfig& config, DomainId domain);
// All three directories anew.
Tree device_tree(const DeviceLink& link, const DeviceEntries& entries);
Tree vif_tree(const Vif& vif, DomainId frontend, DomainId backend);
Tree vbd_tree(const Disk& disk, DomainId frontend, DomainId backend);
// `channel` absent: console 0, which may have a log.
Tree console_tree(const Channel* channel, DomainId frontend, DomainId backend, const ConsoleLog* log = nullptr);

// One transaction; the other is for within one.
Status write_tree(Store& store, const Tree& tree);
Status write_nodes(Store& store, const Tree& tree);

}  // namespace caisson::toolstack
