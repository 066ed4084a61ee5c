// A guest without manners: a frontend that lies, through whichever port there is.
//
// Usage: lab_liar DEVICE SEED ROUNDS SECONDS       DEVICE: device/vbd/51712, device/vif/0 or device/console/1
//
// SECONDS is how long the backend may take for anything on a busy machine. Every lie is told on a connection of its
// own; then ROUNDS of random bytes in rings and nodes, states in any order, and a flood of events. Says what came of
// each lie, and at the end:
//     end LIES BROKEN ANSWERED SILENT     SILENT: the backend should have said something, and said nothing for SECONDS
// Its last word is a lie that breaks the device, and it stays so. Exit code 1: one was silent, or it could not connect.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <stdexcept>
#include <thread>

#include "protocols/block.h"
#include "protocols/console.h"
#include "protocols/net.h"
#include "ring/port.h"
#include "ring/store.h"

using namespace caisson;
using namespace std::chrono_literals;

namespace {

using Clock = std::chrono::steady_clock;

template <class T>
T need(Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message());
    return std::move(*result);
}

// A shared page as its bytes. A ring of xen/io/ring.h has its indices in front.
struct Page {
    SharedSpan memory;
    template <class T>
    void put(std::size_t at, const T& value) const {
        memory.copy_in(at, std::as_bytes(std::span(&value, 1)));
    }
    std::uint32_t word(std::size_t at) const {
        std::uint32_t value = 0;
        memory.copy_out(at, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    void fresh() const {
        memory.clear();
        put(4, std::uint32_t{1}), put(12, std::uint32_t{1});
    }
    template <class Request>
    void slot(std::uint32_t number, const Request& request) const {
        put(64 + number * sizeof request, request);
    }
    void producer(std::uint32_t value) const { put(0, value); }
    std::uint32_t answers() const { return word(8); }
};

constexpr std::uint32_t wild = 0x7FFFFFFF;  // a grant that nobody made

class Liar {
  public:
    enum class Wanted : std::uint8_t { a_word, nothing };

    Liar(std::string device, std::uint32_t seed, std::chrono::seconds patience)
        : device_(std::move(device)),
          random_(seed),
          patience_(patience),
          store_(need(Store::open(""))),
          xen_(need(open_hypervisor(find_hypervisor()))) {
        backend_ = need(store_.read(device_ + "/backend")).value_or("");
        peer_ =
            DomainId(static_cast<std::uint16_t>(std::stoul(need(store_.read(device_ + "/backend-id")).value_or("0"))));
        block_ = device_.find("/vbd/") != std::string::npos;
        net_ = device_.find("/vif/") != std::string::npos;
    }
    ~Liar() { let_go(); }

    int run(int rounds) {
        for (const auto& [name, lie] : lies()) tell(name, lie, Wanted::a_word);
        for (int i = 0; i < rounds; ++i) tell("random bytes", [this] { garbage(); }, Wanted::nothing);
        tell(
            "a flood of events",
            [this] {
                for (int i = 0; i < 5000; ++i) notify();
            },
            Wanted::nothing);
        toggle(rounds);
        const auto last = lies().front();
        tell(last.first, last.second, Wanted::a_word);
        std::printf("end %d %d %d %d\n", told_, broken_, answered_, silent_);
        std::fflush(stdout);
        return silent_ == 0 ? 0 : 1;
    }

  private:
    using Lies = std::vector<std::pair<const char*, std::function<void()>>>;

    // ---- What every frontend does ----

    void write(const std::string& key, const std::string& value) { (void)store_.write(device_ + "/" + key, value); }
    void state(int value) { write("state", std::to_string(value)); }
    int theirs() { return std::atoi(store_.read(backend_ + "/state").value_or("").value_or("").c_str()); }
    bool shows(int wanted) {
        for (const auto until = Clock::now() + patience_; Clock::now() < until; std::this_thread::sleep_for(20ms))
            if (theirs() == wanted) return true;
        return false;
    }
    void notify() { (void)channel_.notify(); }
    void let_go() {
        if (channel_) xen_->close(std::move(channel_));
        channel_ = {};
        pages_.clear();
    }
    Page page(Access access) {
        pages_.push_back(need(xen_->share(peer_, 1, access)));
        return {pages_.back().memory()};
    }
    std::uint32_t ref_of(std::size_t page) const { return pages_.at(page).refs()[0].raw; }

    void connect() {
        state(6);
        if (!shows(6)) throw std::runtime_error("the backend does not close");
        let_go();
        state(1);
        if (!shows(2)) throw std::runtime_error("the backend does not wait for a frontend");
        first_ = page(Access::read_write), second_ = page(Access::read_write), data_ = page(Access::read_write);
        channel_ = need(xen_->allocate_unbound(peer_));
        if (block_ || net_) first_.fresh(), second_.fresh();
        write(net_ ? "tx-ring-ref" : "ring-ref", std::to_string(ref_of(0)));
        write("rx-ring-ref", std::to_string(ref_of(1)));
        write("request-rx-copy", "1");
        write("protocol", "x86_64-abi");
        write(block_ || net_ ? "event-channel" : "port", std::to_string(channel_.port().raw));
        state(net_ ? 4 : 3);
        if (!shows(4)) throw std::runtime_error("the backend does not connect");
        state(4);
    }

    void tell(const char* name, const std::function<void()>& lie, Wanted wanted) {
        connect();
        ++told_;
        const std::uint32_t before = first_.answers() + second_.answers();
        lie();
        notify();
        const char* word = "no word";
        for (const auto until = Clock::now() + (wanted == Wanted::a_word ? patience_ : 0s);;) {
            if (theirs() != 4)
                word = "broken";
            else if ((block_ || net_) && first_.answers() + second_.answers() != before)
                word = "answered";
            if (*word != 'n' || Clock::now() > until) break;
            std::this_thread::sleep_for(20ms);
        }
        (*word == 'b' ? broken_ : *word == 'a' ? answered_ : wanted == Wanted::a_word ? silent_ : quiet_)++;
        std::printf("%s: %s\n", name, word);
    }

    // ---- The lies ----

    Lies lies() { return block_ ? of_blocks() : net_ ? of_packets() : of_bytes(); }

    void request(std::uint8_t operation, std::uint8_t count, std::uint64_t sector, block::Segment segment) {
        block::Native::Request request{.operation = operation, .count = count, .id = 1, .sector = sector};
        for (std::size_t i = 0; i < block::direct_segments; ++i)
            std::memcpy(request.tail.data() + i * sizeof segment, &segment, sizeof segment);
        first_.slot(0, request);
        first_.producer(1);
    }
    Lies of_blocks() {
        const auto segment = [](std::uint32_t ref, std::uint8_t first, std::uint8_t last) {
            block::Segment made{};
            made.gref = ref, made.first_sect = first, made.last_sect = last;
            return made;
        };
        return {
            {"a producer that runs ahead", [this] { first_.producer(1000); }},
            {"a grant that nobody made", [=, this] { request(0, 1, 0, segment(wild, 0, 7)); }},
            {"a write from one", [=, this] { request(1, 11, 0, segment(wild, 0, 7)); }},
            {"sectors behind the end", [=, this] { request(0, 1, ~0ULL - 3, segment(ref_of(2), 0, 7)); }},
            {"sectors that leave their page", [=, this] { request(1, 1, 0, segment(ref_of(2), 3, 200)); }},
            {"a last sector before the first", [=, this] { request(0, 1, 0, segment(ref_of(2), 7, 0)); }},
            {"more segments than there are", [=, this] { request(0, 255, 0, segment(ref_of(2), 0, 7)); }},
            {"no segments", [=, this] { request(1, 0, 0, segment(ref_of(2), 0, 7)); }},
            {"an operation that is none", [=, this] { request(99, 1, 0, segment(ref_of(2), 0, 7)); }},
            {"indirect segments in no page", [=, this] { request(6, 0, wild, segment(wild, 255, 255)); }},
            {"pages taken back at once",
             [=, this] {
                 request(0, 11, 0, segment(ref_of(2), 0, 7));
                 notify();
                 (void)pages_.at(2).end();
             }},
        };
    }

    void packet(std::uint32_t count, net::TxRequest request, bool ends = false) {
        for (std::uint32_t i = 0; i < count; ++i, ++request.id) {
            if (i + 1 == count && ends) request.flags = 0;
            first_.slot(i, request);
        }
        first_.producer(count);
    }
    Lies of_packets() {
        using namespace net;
        const auto tx = [this](std::uint32_t ref, std::uint16_t offset, std::uint16_t flags, std::uint16_t size) {
            return TxRequest{.gref = ref, .offset = offset, .flags = flags, .id = 0, .size = size};
        };
        return {
            {"a producer that runs ahead", [this] { first_.producer(1000); }},
            {"a receive producer that runs ahead", [this] { second_.producer(5000); }},
            {"a grant that nobody made", [=, this] { packet(1, tx(wild, 0, 0, 60)); }},
            {"a packet that leaves its page", [=, this] { packet(1, tx(ref_of(2), 4000, 0, 1000)); }},
            {"a packet of no bytes", [=, this] { packet(1, tx(ref_of(2), 0, 0, 0)); }},
            {"a packet of 64 KiB in one slot", [=, this] { packet(1, tx(ref_of(2), 0, 0, 65535)); }},
            {"a chain without an end", [=, this] { packet(200, tx(ref_of(2), 0, tx_flag::more_data, 2000)); }},
            {"fragments larger than their packet",
             [=, this] { packet(3, tx(ref_of(2), 0, tx_flag::more_data, 100), true); }},
            {"extra information without an end", [=, this] { packet(200, tx(0x01010101, 0x0101, 0xFFFF, 0x0101)); }},
            {"places for packets that are none",  // what is broadcast comes along
             [this] {
                 for (std::uint32_t i = 0; i < 256; ++i)
                     second_.slot(i, RxRequest{.id = static_cast<std::uint16_t>(i), .pad = 0, .gref = wild});
                 second_.producer(256);
             }},
        };
    }

    Lies of_bytes() {
        using namespace console;
        return {
            {"an out producer that runs ahead", [this] { first_.put(out_producer, std::uint32_t{1'000'000}); }},
            {"an out producer that goes back", [this] { first_.put(out_producer, ~std::uint32_t{0} - 5000); }},
        };
    }

    // ---- Noise ----

    void garbage() {
        for (const Page& ring : {first_, second_}) {
            for (std::size_t at = 16; at < page_size; at += 4) ring.put(at, random_() % 3 == 0 ? ref_of(2) : random_());
            if (block_ || net_) ring.producer(1 + random_() % 64);
        }
        notify();
        std::this_thread::sleep_for(20ms);
        for (std::size_t at = 0; at < page_size; at += 4) first_.put(at, random_());
    }
    void toggle(int rounds) {
        static const char* values[] = {"", "-1", "4294967296", "../../0", "%s", "0x4", "4\n", "999999999"};
        static const char* keys[] = {
            "ring-ref", "tx-ring-ref",     "event-channel",      "port", "multi-queue-num-queues",
            "protocol", "ring-page-order", "feature-persistent", "state"};
        for (int i = 0; i < rounds * 10; ++i) {
            state(static_cast<int>(random_() % 9));
            if (random_() % 2 == 0) write(keys[random_() % std::size(keys)], values[random_() % std::size(values)]);
        }
        write("multi-queue-num-queues", "1"), write("ring-page-order", "0"), write("feature-persistent", "0");
    }

    const std::string device_;
    std::mt19937 random_;
    const std::chrono::seconds patience_;
    Store store_;
    std::unique_ptr<Hypervisor> xen_;
    std::string backend_;
    DomainId peer_{};
    bool block_ = false, net_ = false;
    std::vector<SharedPages> pages_;
    Page first_, second_, data_;  // two rings (or one, or a console), and a page that is honestly shared
    EventChannel channel_;
    int told_ = 0, broken_ = 0, answered_ = 0, silent_ = 0, quiet_ = 0;
};

}  // namespace

int main(int count, char** words) {
    if (count != 5) return std::fprintf(stderr, "usage: %s DEVICE SEED ROUNDS SECONDS\n", words[0]), 2;
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    try {
        static Liar liar(words[1], static_cast<std::uint32_t>(std::stoul(words[2])),
                         std::chrono::seconds(std::atoi(words[4])));
        const int result = liar.run(std::atoi(words[3]));
        if (result == 0) ::pause();  // with its pages shared and its ring broken
        return result;
    } catch (const std::exception& error) {
        return std::printf("error %s: %s\n", words[1], error.what()), 1;
    }
}
