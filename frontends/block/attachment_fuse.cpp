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
    Kind kind() const override { return Kind::fuse; }
    const Fd& descriptor() const override { return fd_; }

    Status connected(const Geometry&) override { return mounted_ ? Status{} : mount(); }

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

}  // namespace

Result<std::unique_ptr<Attachment>> open_fuse(const std::string& path) {
    Fd fuse(::open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fuse) return host_fault(errno, "open", "/dev/fuse");
    ::umount2(path.c_str(), MNT_DETACH);  // of a controller that was killed
    return std::make_unique<FuseMount>(path, std::move(fuse));
}

}  // namespace caisson::block::frontend
