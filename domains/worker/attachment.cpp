#include "domains/worker/attachment.h"

#include <algorithm>

namespace caisson {

std::array<char, 16> class_bytes(std::string_view name) {
    std::array<char, 16> bytes{};
    std::ranges::copy(name.substr(0, bytes.size() - 1), bytes.begin());
    return bytes;
}

std::string class_name(const std::array<char, 16>& bytes) {
    return std::string(bytes.data(), std::find(bytes.begin(), bytes.end() - 1, '\0') - bytes.begin());
}

std::vector<std::byte> bytes_of(const Error& error) {
    const ErrorBody body{.fault = static_cast<std::uint32_t>(error.fault), .err = error.err};
    const std::string text = error.message();
    std::vector<std::byte> bytes(sizeof body + std::min<std::size_t>(text.size(), 200));
    std::memcpy(bytes.data(), &body, sizeof body);
    std::memcpy(bytes.data() + sizeof body, text.data(), bytes.size() - sizeof body);
    return bytes;
}

Error error_of(std::span<const std::byte> bytes) {
    ErrorBody body;
    if (bytes.size() < sizeof body) return {.fault = Fault::host, .err = EPROTO, .what = "the worker gave no reason"};
    std::memcpy(&body, bytes.data(), sizeof body);
    const auto text = bytes.subspan(sizeof body).first(std::min<std::size_t>(bytes.size() - sizeof body, 200));
    return {.fault = body.fault == static_cast<std::uint32_t>(Fault::peer) ? Fault::peer : Fault::host,
            .err = body.err == ESTALE ? ESTALE : 0,  // the one that the endpoint knows
            .what = "worker:",
            .detail = std::string(reinterpret_cast<const char*>(text.data()), text.size())};
}

AttachBody body_of(const Attachment& attachment, bool successor) {
    return {.journal_bytes = attachment.handover.journal_bytes,
            .id = attachment.address.id.raw,
            .role = static_cast<std::uint32_t>(attachment.address.role),
            .frontend = attachment.address.frontend.raw,
            .backend = attachment.address.backend.raw,
            .successor = successor,
            .device_class = class_bytes(attachment.address.device_class)};
}

Status send_attach(Mailbox& mailbox, std::uint32_t device, const Attachment& attachment, bool successor) {
    const std::vector<Fd> fds = TRY(attachment.handover.copies());
    const AttachBody body = body_of(attachment, successor);
    const auto handover = attachment.handover.bytes();
    std::vector<std::byte> bytes(sizeof body + handover.size());
    std::memcpy(bytes.data(), &body, sizeof body);
    if (!handover.empty()) std::memcpy(bytes.data() + sizeof body, handover.data(), handover.size());
    std::vector<int> descriptors{attachment.statistics.get(), attachment.hypervisor.get()};
    if (attachment.journal) descriptors.push_back(attachment.journal.get());
    for (const Fd& fd : fds) descriptors.push_back(fd.get());
    mailbox.send(MailKind::attach, device, bytes, descriptors);
    return {};
}

Result<ReceivedAttachment> read_attach(Mail mail) {
    AttachBody body;
    if (mail.bytes.size() < sizeof body) return host_fault(EBADMSG, "attach message");
    std::memcpy(&body, mail.bytes.data(), sizeof body);
    mail.bytes.erase(mail.bytes.begin(), mail.bytes.begin() + sizeof body);
    const std::size_t fixed = body.journal_bytes > 0 ? 3 : 2;
    if (mail.descriptors.size() < fixed) return host_fault(EBADMSG, "attach message");
    auto& all = mail.descriptors;
    ReceivedAttachment received{.body = body,
                                .statistics = std::move(all[0]),
                                .hypervisor = std::move(all[1]),
                                .journal = fixed == 3 ? std::move(all[2]) : Fd(),
                                .reader = HandoverReader({}, {})};
    all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(fixed));
    received.reader = HandoverReader(std::move(mail.bytes), std::move(all));
    return received;
}

const ClassHalf* find(Catalogue catalogue, std::string_view device_class, Role role) {
    for (const ClassEntry& entry : catalogue) {
        if (entry.name != device_class) continue;
        const ClassHalf& half = role == Role::backend ? entry.backend : entry.frontend;
        return half.control && half.serve ? &half : nullptr;
    }
    return nullptr;
}

}  // namespace caisson
