// xenstore, through libxenstore on both ports. Only controllers and the toolstack have a Store; a worker has none.
//
// What a peer wrote is bytes: at most 4096 of them, parsed strictly, read once per connect, and no path in them is ever
// followed (XSA-57, 175, 178).
//
// Threads: one thread. libxenstore starts a reader thread of its own at the first watch.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

struct xs_handle;

namespace caisson {

struct StorePermission {
    DomainId domain{};
    bool read = false, write = false;
};

struct WatchEvent {
    std::string path, token;
};

class Store {
  public:
    // `socket`: the domain's xenstored socket (XENSTORED_PATH for programs that use libxenstore themselves); empty:
    // what libxenstore finds by itself (real Xen).
    static Result<Store> open(const std::string& socket);
    Store(Store&&) noexcept;
    Store& operator=(Store&&) noexcept;
    ~Store();

    // Paths are absolute, or relative to /local/domain/<own id>. ENOENT is a value, not an error, in read().
    Result<std::optional<std::string>> read(const std::string& path);
    Status write(const std::string& path, std::string_view value);
    Status make_directory(const std::string& path);
    Status remove(const std::string& path);                          // a node that is not there is fine
    Result<std::vector<std::string>> list(const std::string& path);  // empty when not there
    // The first entry names the owner, and what all others may do (Xen's rule); libxl's device nodes are owner + peer.
    Status set_permissions(const std::string& path, const std::vector<StorePermission>& permissions);

    // XS_INTRODUCE: the domain has its nodes and is about to run; @introduceDomain fires. Dom0's toolstack only. A
    // local domain has no store ring, so the frame and the port that the message carries are zero.
    Status introduce(DomainId domain);

    // Everything `body` does through this Store is one transaction; tried again on conflict, at most 8 times. An error
    // from `body` aborts it.
    Status transaction(const std::function<Status()>& body);

    // The first event of a watch comes at once, and none after unwatch(). take_event() never blocks; poll fd() for
    // POLLIN.
    Status watch(const std::string& path, const std::string& token);
    Status unwatch(const std::string& path, const std::string& token);
    int fd();
    std::optional<WatchEvent> take_event();
    // xenstored has ended or dropped us, and every call fails from here on. Known after a call that failed of it, or a
    // take_event() that found none; fd() does not tell, so whoever waits on it looks now and then.
    bool lost() const { return lost_; }

  private:
    struct Close {
        void operator()(xs_handle* handle) const;
    };
    explicit Store(xs_handle* handle) : handle_(handle) {}
    bool watched(const WatchEvent& event) const;
    std::unexpected<Error> fault(const char* what, const std::string& path);

    std::unique_ptr<xs_handle, Close> handle_;
    std::multimap<std::string, std::string, std::less<>> watches_;  // token to path
    std::uint32_t transaction_ = 0;
    bool lost_ = false;
};

// One device's directory, its own or its peer's.
class Directory {
  public:
    Directory(Store& store, std::string path) : store_(&store), path_(std::move(path)) {}
    const std::string& path() const { return path_; }
    Directory sub(std::string_view name) const { return {*store_, path_ + "/" + std::string(name)}; }
    Store& store() const { return *store_; }

    Result<std::optional<std::string>> text(std::string_view key) const {
        return store_->read(path_ + "/" + std::string(key));
    }
    // A number the peer wrote: absent gives `absent`, anything but strict decimal is the peer's fault.
    Result<std::uint32_t> number(std::string_view key, std::uint32_t absent) const;
    Result<std::uint32_t> number(std::string_view key) const;            // absent is the peer's fault, too
    Result<bool> flag(std::string_view key, bool absent = false) const;  // "0" or "1"
    Status write(std::string_view key, std::string_view value) const {
        return store_->write(path_ + "/" + std::string(key), value);
    }
    Status write(std::string_view key, std::uint32_t value) const { return write(key, std::to_string(value)); }
    Status remove(std::string_view key) const { return store_->remove(path_ + "/" + std::string(key)); }

  private:
    Store* store_;
    std::string path_;
};

}  // namespace caisson
