#include "frontends/block/attachment_fuse.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson::block::frontend {

namespace {

class FuseMount final : public Attachment {
  public:
    FuseMount(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
    ~FuseMount() override {
        if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
        if (made_) ::unlink(path_.c_str());
    }
    const Fd& descriptor() const override { return fd_; }

    Status connected() override { return mounted_ ? Status{} : mount(); }

  private:
    Status mount() {
        struct stat seen{};
        const bool there = ::lstat(path_.c_str(), &seen) == 0;
        if (there && !S_ISREG(seen.st_mode)) return host_fault(EEXIST, "there is something else at", path_);
        if (!there) {
            made_ = bool(Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)));
            if (!made_) return host_fault(errno, "create", path_);
        }
        const std::string options = "fd=" + std::to_string(fd_.get()) +
                                    ",rootmode=100660,user_id=" + std::to_string(::geteuid()) +
                                    ",group_id=" + std::to_string(::getegid()) + ",allow_other,default_permissions";
        if (::mount("caisson", path_.c_str(), "fuse", MS_NOSUID | MS_NODEV | MS_NOEXEC, options.c_str()) != 0)
            return host_fault(errno, "mount", path_);
        mounted_ = true;
        return {};
    }

    std::string path_;
    bool made_ = false, mounted_ = false;
    Fd fd_;
};

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

Result<std::unique_ptr<Attachment>> open_fuse(const std::string& path) {
    Fd fuse(::open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fuse) return host_fault(errno, "open", "/dev/fuse");
    ::umount2(path.c_str(), MNT_DETACH);  // of a controller that was killed
    return std::make_unique<FuseMount>(path, std::move(fuse));
}

}  // namespace caisson::block::frontend
