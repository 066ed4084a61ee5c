// One side of a console played by hand: it keeps to no rule unless a test wants it to.
#pragma once

#include <atomic>
#include <cstring>

#include "ring/detail/shared_access.h"
#include "tests/support/console_pair.h"

namespace caisson::test {

class Liar {
  public:
    // As the frontend: shares a page and says where it is. The backend must have offered itself.
    static Liar frontend(LocalXen::Domain& self, DomainId backend, DeviceId id = DeviceId(0)) {
        Liar liar(self, "/local/domain/" + std::to_string(self.id.raw) + "/" + console::xenstore_path(id));
        liar.own_ = need(self.hypervisor->share(backend, 1, Access::read_write));
        liar.channel_ = need(self.hypervisor->allocate_unbound(backend));
        liar.page_ = liar.own_.memory();
        liar.write("ring-ref", std::to_string(liar.own_.refs()[0].raw));
        liar.write("port", std::to_string(liar.channel_.port().raw));
        return liar;
    }
    // As the backend: maps what the frontend in `front` has shared.
    static Liar backend(LocalXen::Domain& self, DomainId frontend, DeviceId id = DeviceId(0)) {
        Liar liar(self, "/local/domain/" + std::to_string(self.id.raw) + "/backend/console/" +
                            std::to_string(frontend.raw) + "/" + std::to_string(id.raw));
        const Directory peer(liar.store_,
                             "/local/domain/" + std::to_string(frontend.raw) + "/" + console::xenstore_path(id));
        const GrantRef ref(need(peer.number("ring-ref")));
        liar.mapped_ = need(self.hypervisor->map(frontend, std::span(&ref, 1), Access::read_write));
        liar.channel_ = need(self.hypervisor->bind_interdomain(frontend, Port(need(peer.number("port")))));
        liar.page_ = liar.mapped_.memory();
        return liar;
    }

    void write(const std::string& key, const std::string& value) { need(store_.write(path_ + "/" + key, value)); }
    void state(int state) { write("state", std::to_string(state)); }
    void notify() { channel_.notify(); }
    const EventChannel& channel() const { return channel_; }

    std::atomic_ref<std::uint32_t> word(std::size_t offset) const {
        return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(base() + offset));
    }
    std::byte* base() const { return detail::SharedAccess::base(page_); }
    void put(std::size_t offset, std::string_view text) const {
        std::memcpy(base() + offset, text.data(), text.size());
    }
    void let_go() { mapped_ = {}, own_ = {}, page_ = {}; }

  private:
    Liar(LocalXen::Domain& self, std::string path)
        : store_(need(Store::open(self.xenstored))), path_(std::move(path)) {}
    Store store_;
    std::string path_;
    SharedPages own_;
    MappedPages mapped_;
    EventChannel channel_;
    SharedSpan page_;
};

inline std::size_t open_descriptors() {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

}  // namespace caisson::test
