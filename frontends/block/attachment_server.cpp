#include "frontends/block/attachment_server.h"

namespace caisson::block::frontend {

void AttachmentServer::fetch_pages(std::span<const iovec> parts) {
    for (const iovec& part : parts) {
        const auto* bytes = static_cast<const volatile std::byte*>(part.iov_base);
        for (std::size_t at = 0; at < part.iov_len; at += page_size) (void)bytes[at];
        if (part.iov_len > 0) (void)bytes[part.iov_len - 1];
    }
}

// Written, because the kernel writes there.
void AttachmentServer::fetch_pages(Inbox& inbox) {
    auto* bytes = reinterpret_cast<volatile std::byte*>(&inbox);
    for (std::size_t at = 0; at < sizeof inbox; at += page_size) bytes[at] = static_cast<std::byte>(bytes[at]);
}

}  // namespace caisson::block::frontend
