#include "ring/hypervisor.h"

#include <utility>

namespace caisson {

SharedPages& SharedPages::operator=(SharedPages&& other) noexcept {
    if (this == &other) return *this;
    let_go();
    owner_ = std::exchange(other.owner_, nullptr);
    peer_ = other.peer_;
    access_ = other.access_;
    memory_ = std::exchange(other.memory_, {});
    refs_ = std::exchange(other.refs_, {});
    fd_ = std::move(other.fd_);
    return *this;
}

SharedPages::~SharedPages() { let_go(); }

void SharedPages::let_go() noexcept {
    (void)end();
    if (owner_ == nullptr) return;
    // Still mapped, or the hypervisor cannot be asked: either way the pages may not be reused.
    Hypervisor* owner = owner_;
    owner->quarantine(std::move(*this));
}

Result<End> SharedPages::end() {
    if (owner_ == nullptr) return End::ended;
    Result<End> tried = owner_->end(*this);
    if (tried && *tried == End::ended) Hypervisor::disown(*this);
    return tried;
}

void Hypervisor::disown(SharedPages& pages) {
    pages.owner_ = nullptr;
    pages.memory_ = {};
    pages.refs_.clear();
    pages.fd_.reset();
}

MappedPages& MappedPages::operator=(MappedPages&& other) noexcept {
    if (this == &other) return *this;
    if (owner_ != nullptr) owner_->unmap(handle_, memory_);
    owner_ = std::exchange(other.owner_, nullptr);
    handle_ = std::exchange(other.handle_, 0);
    memory_ = std::exchange(other.memory_, {});
    return *this;
}

MappedPages::~MappedPages() {
    if (owner_ != nullptr) owner_->unmap(handle_, memory_);
}

}  // namespace caisson
