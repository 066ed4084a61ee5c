// What a worker gets for one device, and what it says back, as bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "domains/worker/mailbox.h"
#include "ring/device.h"

namespace caisson {

// The controller keeps it while the device is connected and gives it to each worker that takes the device over.
struct Attachment {
    DeviceAddress address;
    const ClassHalf* half = nullptr;
    std::string group;  // devices with the same non-empty one share a worker
    Handover handover;
    Fd journal;     // sealed in size; handover.journal_bytes long
    Fd statistics;  // one DeviceStats
    Fd hypervisor;  // from Hypervisor::restrict_to
};

// MailKind::hello
struct HelloBody {
    std::uint32_t namespaces = 0;
    std::uint32_t port = 0;  // PortKind
    std::uint32_t role = 0;
    std::array<char, 16> device_class{};
};

// MailKind::attach; the Handover's bytes follow. Descriptors: statistics, hypervisor, the journal if there is one, then
// the Handover's.
struct AttachBody {
    std::uint64_t journal_bytes = 0;
    std::uint32_t id = 0, role = 0;
    std::uint16_t frontend = 0, backend = 0;
    std::uint32_t successor = 0;
    std::array<char, 16> device_class{};
};

// MailKind::failed and broken; the text follows.
struct ErrorBody {
    std::uint32_t fault = 0;
    std::int32_t err = 0;
};

std::array<char, 16> class_bytes(std::string_view name);
std::string class_name(const std::array<char, 16>& bytes);

std::vector<std::byte> bytes_of(const Error& error);
// From a worker that may have been taken over: whatever came becomes an Error with bounded text.
Error error_of(std::span<const std::byte> bytes);

AttachBody body_of(const Attachment& attachment, bool successor);

// Fails when a descriptor that each worker gets anew cannot be made.
Status send_attach(Mailbox& mailbox, std::uint32_t device, const Attachment& attachment, bool successor);

struct ReceivedAttachment {
    AttachBody body;
    Fd statistics, hypervisor, journal;
    HandoverReader reader;
};
Result<ReceivedAttachment> read_attach(Mail mail);

// The class half that a name and a role mean; null when the catalogue has none.
const ClassHalf* find(Catalogue catalogue, std::string_view device_class, Role role);

}  // namespace caisson
