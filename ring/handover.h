// What a controller gives a worker for one device: plain values and descriptors, in order. It is all the worker will
// ever have; it can open nothing.
//
// The controller keeps the Handover while the device is connected, and sends it again to the next worker when one dies.
// The worker reads in the order in which the controller wrote; a mismatch is a bug of ours, found by a type tag a
// value.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"
#include "ring/event_channel.h"
#include "ring/fd.h"
#include "ring/hypervisor.h"

namespace caisson {

class HandoverReader;

class Handover {
  public:
    // Keeps its own duplicate of every descriptor that it is given by reference.
    template <class T>
        requires std::is_trivially_copyable_v<T>
    void put(const T& value) {
        put_bytes(std::as_bytes(std::span(&value, 1)));
    }
    void put(std::string_view text) { put_bytes(std::as_bytes(std::span(text))); }
    void put(std::span<const GrantRef> refs) { put_bytes(std::as_bytes(refs)); }
    Status put(const Fd& fd);
    Status put(const EventChannel& channel);
    Status put(const SharedPages& pages);
    // A descriptor of its own for each worker: `make` is called in the controller whenever the handover is sent. For
    // open files whose state must not be shared with a predecessor, of which the kernel may still hold a request.
    void put_each_time(std::function<Result<Fd>()> make);

    // Private memory that survives the worker: zero the first time, as the predecessor left it afterwards. Untrusted
    // like a ring: the predecessor may have been taken over.
    std::size_t journal_bytes = 0;

    std::span<const std::byte> bytes() const { return bytes_; }
    // What one worker is sent: duplicates, and what is made anew. Fails with the error of a `make`.
    Result<std::vector<Fd>> copies() const;
    // For a worker in this process.
    Result<HandoverReader> reader() const;

  private:
    friend class HandoverReader;
    void put_bytes(std::span<const std::byte> value);
    std::vector<std::byte> bytes_;
    std::vector<Fd> descriptors_;                                // empty where one is made anew
    std::map<std::size_t, std::function<Result<Fd>()>> makers_;  // by place in descriptors_
};

class HandoverReader {
  public:
    HandoverReader(std::vector<std::byte> bytes, std::vector<Fd> descriptors)
        : bytes_(std::move(bytes)), descriptors_(std::move(descriptors)) {}

    template <class T>
        requires std::is_trivially_copyable_v<T>
    Result<T> value() {
        T out{};
        TRY(get_bytes(std::as_writable_bytes(std::span(&out, 1))));
        return out;
    }
    Result<std::string> text();
    Result<std::vector<GrantRef>> refs();
    Result<Fd> fd();
    Result<EventChannel> channel();
    Result<SharedPages> pages(Hypervisor& hypervisor);  // adopted: the controller ends them

  private:
    Status get_bytes(std::span<std::byte> out);
    Result<std::span<const std::byte>> next();
    std::vector<std::byte> bytes_;
    std::vector<Fd> descriptors_;
    std::size_t at_ = 0, fd_at_ = 0;
};

}  // namespace caisson
