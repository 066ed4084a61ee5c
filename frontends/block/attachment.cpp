#include "frontends/block/attachment.h"

#include "frontends/block/attachment_fuse.h"
#include "frontends/block/attachment_nbd.h"

namespace caisson::block::frontend {

namespace {

std::string letters_of(std::uint32_t disk) {
    std::string text;
    for (++disk; disk > 0; disk = (disk - 1) / 26) text.insert(text.begin(), static_cast<char>('a' + (disk - 1) % 26));
    return text;
}

}  // namespace

// docs/man/xen-vbd-interface.7, backwards.
std::string file_of(DeviceId device) {
    const std::uint32_t id = device.raw;
    const auto named = [](const char* kind, std::uint32_t disk, std::uint32_t partition) {
        return std::string("/dev/") + kind + letters_of(disk) + (partition != 0 ? std::to_string(partition) : "");
    };
    if (id >> 28 == 1) return named("xvd", (id & 0x0FFFFFFF) >> 8, id & 0xFF);
    switch (id >> 8) {
        case 202: return named("xvd", id >> 4 & 15, id & 15);
        case 8: return named("sd", id >> 4 & 15, id & 15);
        case 3: return named("hd", id >> 6 & 1, id & 63);
        case 22: return named("hd", 2 + (id >> 6 & 1), id & 63);
        default: return "/dev/vbd-" + std::to_string(id);
    }
}

Result<std::unique_ptr<Attachment>> open_attachment(ControlContext& context) {
    const std::string path = file_of(context.address.id);
    const std::string wanted = TRY(context.own.text(attachment_key)).value_or("");
    if (wanted == "fuse") return open_fuse(path);
    if (wanted != "nbd" && !wanted.empty()) return host_fault(EINVAL, "attachment is neither nbd nor fuse", wanted);
    auto device = open_nbd(path);
    if (device || wanted == "nbd") return device;
    return open_fuse(path);
}

}  // namespace caisson::block::frontend
