// Folders and files of a test's own, gone with it: by default where temporary files are, and by names that say whose
// they were.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ring/fd.h"

namespace caisson::test {

class TemporaryFolder {
  public:
    explicit TemporaryFolder(const std::string& below = std::filesystem::temp_directory_path())
        : path_(below + "/caisson-test-XXXXXX") {
        if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no folder " + path_);
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    // A file of so many zeros in it: its path.
    std::string file(const std::string& name, std::uint64_t bytes = 0) const {
        std::ofstream(*this / name).flush();
        std::filesystem::resize_file(*this / name, bytes);
        return *this / name;
    }

  private:
    std::string path_;
};

// A file that begins as zeros: a disk whose content outlives the backend, for one.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::uint64_t bytes = 0)
        : path_(std::filesystem::temp_directory_path() / "caisson-test-XXXXXX") {
        const Fd fd(::mkstemp(path_.data()));
        if (!fd) throw std::runtime_error("no file " + path_);
        resize(bytes);
    }
    ~TemporaryFile() { ::unlink(path_.c_str()); }
    TemporaryFile(const TemporaryFile&) = delete;

    const std::string& path() const { return path_; }
    void resize(std::uint64_t bytes) const { std::filesystem::resize_file(path_, bytes); }
    std::vector<std::byte> read(std::uint64_t offset, std::size_t size) const {
        const Fd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
        std::vector<std::byte> bytes(size);
        if (::pread(file.get(), bytes.data(), size, static_cast<off_t>(offset)) != std::ssize(bytes))
            throw std::runtime_error("cannot read " + path_);
        return bytes;
    }
    void write(std::uint64_t offset, std::string_view bytes) const {
        const Fd file(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
        if (::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) != std::ssize(bytes))
            throw std::runtime_error("cannot write " + path_);
    }

  private:
    std::string path_;
};

}  // namespace caisson::test
