#include "domains/supervisor/supervisor.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "domains/domain/process.h"
#include "domains/supervisor/child.h"
#include "domains/supervisor/succession.h"
#include "domains/toolstack/cfg_file.h"
#include "domains/toolstack/device_spec.h"
#include "domains/toolstack/devices.h"
#include "domains/toolstack/state.h"
#include "ring/log.h"
#include "ring/loop.h"
#include "ring/signals.h"

namespace caisson::supervisor {

using namespace std::chrono_literals;

namespace {

constexpr const char* folder = "/tool/caisson/supervise/";
constexpr auto look_period = 250ms;
constexpr auto death_period = 25ms;      // after a domain has ended, until its directory has gone
constexpr unsigned looks_at_death = 40;  // so many
constexpr auto command_patience = 120s;  // for xl
constexpr auto leave_patience = 20s;     // for an orderly end
// What xl itself would do at a domain's end is the supervisor's to do.
const std::vector<std::string> ends{"on_poweroff=\"destroy\"", "on_reboot=\"destroy\"", "on_crash=\"destroy\""};

std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const auto& line : lines) text += line + "\n";
    return text;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);)
        if (!line.empty()) lines.push_back(line);
    return lines;
}

// "PID START": a number that was given out again is not taken for the old process.
std::string this_process() {
    const auto id = toolstack::process(::getpid());
    return std::to_string(::getpid()) + " " + std::to_string(id ? id->start : 0);
}

bool runs(const std::string& supervisor) {
    toolstack::ProcessId id;
    return std::istringstream(supervisor) >> id.pid >> id.start && toolstack::alive(id);
}

// One service VM: what it is, its health, its heirs.
class Vm {
  public:
    Vm(Loop& loop, Store& store, const Options& options, std::string file, std::string name)
        : loop_(loop),
          store_(store),
          options_(options),
          file_(std::move(file)),
          name_(std::move(name)),
          log_(name_),
          health_(options.patience),
          succession_(store, log_, options.patience.first_pause) {}

    // What an earlier supervisor knew; refuses where another one is at work.
    Status take_over() {
        const auto other = TRY(store_.read(key("supervisor")));
        if (other && runs(*other))
            return unsupported("", name_ + " is supervised already, by process " + other->substr(0, other->find(' ')));
        std::istringstream known(TRY(store_.read(key("predecessors"))).value_or("") + " " +
                                 TRY(store_.read(key("domid"))).value_or(""));
        for (std::string word; known >> word;)
            if (const auto id = parse_decimal<std::uint16_t>(word)) succession_.inherit(DomainId{*id});
        settings_ = lines_of(TRY(store_.read(key("settings"))).value_or(""));
        for (const auto& setting : settings_) log_.say("keeps " + escaped(setting) + ", which a restart gave it");
        TRY(store_.remove(key("restart")));
        TRY(store_.write(key("file"), file_));
        return store_.write(key("supervisor"), this_process());
    }

    void let_go() {
        (void)store_.remove(key("supervisor"));
        (void)store_.write(key("state"), "unsupervised");
    }

    bool exists() const { return health_.domain().has_value(); }

    // `may_begin`: all that it needs exist.
    void look(bool may_begin) {
        const auto now = Clock::now();
        if (!child_) {
            hear_wish(now);
            const auto sight = see();
            if (!sight) return log_.peer(sight.error());
            const auto wish = health_.look(*sight, now);
            notice(now);
            act(wish, may_begin, now);
        }
        if (exists() && !succession_.complete()) succession_.look(*health_.domain(), now);
        tell();
    }

  private:
    std::string key(const std::string& word) const { return folder + name_ + "/" + word; }

    // The domain that we know is asked for its name alone: others are looked through when it has gone.
    Result<Sight> see() {
        Sight sight;
        const auto has_name = [&](DomainId id) -> Result<bool> {
            const auto name = TRY(store_.read(toolstack::domain_path(id) + "/name"));
            return name && *name == name_;
        };
        const auto known = health_.domain();
        if (known && TRY(has_name(*known))) sight.domain = known;
        if (!sight.domain) {
            const auto all = TRY(store_.list("/local/domain"));
            for (const auto& text : all)
                if (const auto id = parse_decimal<std::uint16_t>(text); id && TRY(has_name(DomainId{*id})))
                    sight.domain = DomainId{*id};
        }
        if (!sight.domain) return sight;
        const std::string service = toolstack::domain_path(*sight.domain) + "/data/service/";
        sight.state = TRY(store_.read(service + "state")).value_or("");
        sight.why = TRY(store_.read(service + "why")).value_or("");
        sight.heartbeat = TRY(store_.read(service + "heartbeat")).value_or("");
        return sight;
    }

    // ---- What is to be done -------------------------------------------------------------------------------------

    void act(Supervised::Wish wish, bool may_begin, Clock::time_point now) {
        if (wish == Supervised::Wish::create && may_begin) create(now);
        if (wish == Supervised::Wish::destroy && !leaves_by_itself(now)) destroy();
    }

    void create(Clock::time_point now) {
        auto arguments = options_.commands.create;
        arguments.push_back(file_);
        on_trial_ = trial_.has_value();
        const auto& settings = on_trial_ ? *trial_ : settings_;
        arguments.insert(arguments.end(), settings.begin(), settings.end());
        arguments.insert(arguments.end(), ends.begin(), ends.end());
        arguments.push_back("name=\"" + name_ + "\"");  // whatever the file says by now
        run(arguments, [this](const Child::Ended& ended) {
            const auto sight = see();
            if (!sight || sight->domain) return;
            const std::string why =
                ended.code == 0 ? "it ended as soon as it was made" : "it is not made: " + words_of(ended);
            give_up_trial(why) ? health_.not_changed(why, Clock::now()) : health_.not_created(why, Clock::now());
        });
        if (!child_) health_.not_created("its command does not start", now);
    }

    std::string words_of(const Child::Ended& ended) const {
        if (!ended.last_words.empty()) return ended.last_words;
        return options_.commands.create.front() + " ended with " + std::to_string(ended.code) +
               (ended.code == 127 ? ": there is no such program" : "");
    }

    void destroy() {
        auto arguments = options_.commands.destroy;
        arguments.push_back(std::to_string(health_.domain()->raw));
        run(arguments, [](const Child::Ended&) {});  // what it did is seen
    }

    void run(const std::vector<std::string>& arguments, std::function<void(const Child::Ended&)> ended) {
        auto child =
            Child::start(loop_, arguments, command_patience, [this, ended = std::move(ended)](const auto& how) {
                child_.reset();
                ended(how);
            });
        if (!child) return log_.peer(child.error());
        child_.emplace(std::move(*child));
    }

    // ---- On purpose ---------------------------------------------------------------------------------------------

    void hear_wish(Clock::time_point now) {
        const auto wish = store_.read(key("restart"));
        if (!wish || !*wish) return;
        (void)store_.remove(key("restart"));
        if (auto settings = lines_of(**wish); !settings.empty()) trial_ = std::move(settings);
        health_.replace("it is replaced on purpose");
        leave_until_ = now + leave_patience;
        asked_itself_ = false;
        stock_ = stock_devices();
        for (const auto& link : stock_) (void)toolstack::ask_to_close(store_, link);
    }

    // An orderly end, as far as it goes in time: a stock frontend gives its device up before its backend dies with
    // requests in hand, then the domain ends by itself.
    bool leaves_by_itself(Clock::time_point now) {
        if (now >= leave_until_ || !health_.domain()) return false;
        const bool half = now >= leave_until_ - leave_patience / 2;
        const auto open = [&](const auto& link) { return !toolstack::closed(store_, link).value_or(true); };
        if (!half && std::ranges::any_of(stock_, open)) return true;
        if (!options_.commands.hears_shutdown) return false;
        if (!std::exchange(asked_itself_, true))
            (void)store_.write(toolstack::domain_path(*health_.domain()) + "/control/shutdown", "poweroff");
        return true;
    }

    std::vector<toolstack::DeviceLink> stock_devices() {
        if (!health_.domain()) return {};
        auto all = toolstack::served_by(store_, *health_.domain()).value_or(std::vector<toolstack::DeviceLink>{});
        std::erase_if(all, [&](const auto& link) { return toolstack::follows(store_, link).value_or(true); });
        return all;
    }

    bool give_up_trial(const std::string& why) {
        if (!std::exchange(on_trial_, false)) return false;
        log_.peer("with the new settings it does not get ready (" + why + "): back to the old ones");
        trial_.reset();
        return true;
    }

    // ---- What has happened --------------------------------------------------------------------------------------

    void notice(Clock::time_point now) {
        const State before = std::exchange(state_, health_.state());
        const auto lived_as = std::exchange(domain_, health_.domain());
        if (lived_as && lived_as != domain_) {
            succession_.inherit(*lived_as);
            ended_ = ended_.value_or(now);
            give_up_trial(health_.why());
        }
        if (domain_ && lived_as != domain_) log_.peer("runs as domain " + std::to_string(domain_->raw));
        const auto due = std::exchange(due_, health_.due());
        if (state_ == State::waiting && due != due_) say_why_it_waits(before, now);
        if (before == state_) return;
        if (state_ == State::ill) {
            ended_ = ended_.value_or(now);
            log_.peer(health_.why() + ": it is made again");
        }
        if (state_ == State::ready) say_ready(now);
    }

    void say_why_it_waits(State before, Clock::time_point now) {
        std::string text = before == State::ill ? "" : health_.why();
        if (health_.due() > now)
            text += (text.empty() ? "" : "; ") + times_in_a_row() + "it is made again in " +
                    std::to_string((health_.due() - now + 999ms) / 1s) + " s";
        if (!text.empty()) log_.peer(text);
    }

    std::string times_in_a_row() const {
        if (health_.short_lives() < 2) return "";
        return std::to_string(health_.short_lives()) + " times in a row it did not last: ";
    }

    void say_ready(Clock::time_point now) {
        if (std::exchange(on_trial_, false)) settings_ = *std::exchange(trial_, std::nullopt);
        if (!ended_) return log_.peer("is ready");
        outage_ = std::chrono::duration_cast<std::chrono::milliseconds>(now - *ended_);
        ended_.reset();
        log_.peer("is ready again, " + std::to_string(outage_->count()) + " ms after its end was noticed");
    }

    // Only what has changed is written.
    void tell() {
        std::map<std::string, std::string> words{{"state", text_of(health_.state())},
                                                 {"why", escaped(health_.why())},
                                                 {"restarts", std::to_string(health_.restarts())},
                                                 {"settings", joined(settings_)}};
        words["domid"] = health_.domain() ? std::to_string(health_.domain()->raw) : "";
        words["outage"] = outage_ ? std::to_string(outage_->count()) : "";
        for (const DomainId id : succession_.predecessors()) words["predecessors"] += std::to_string(id.raw) + " ";
        if (!words.contains("predecessors")) words["predecessors"] = "";
        for (const auto& [word, value] : words)
            if (const auto told = told_.find(word); told == told_.end() || told->second != value)
                if (store_.write(key(word), value)) told_[word] = value;
    }

    Loop& loop_;
    Store& store_;
    const Options& options_;
    const std::string file_, name_;
    Log log_;
    Supervised health_;
    Succession succession_;
    std::vector<std::string> settings_;              // of the last life that got ready
    std::optional<std::vector<std::string>> trial_;  // to be tried
    bool on_trial_ = false;                          // in this life
    std::optional<Child> child_;
    Clock::time_point leave_until_{};
    std::vector<toolstack::DeviceLink> stock_;  // of a domain that leaves: asked to close
    bool asked_itself_ = false;
    State state_ = State::waiting;
    Clock::time_point due_{};
    std::optional<DomainId> domain_;
    std::optional<Clock::time_point> ended_;
    std::optional<std::chrono::milliseconds> outage_;
    std::map<std::string, std::string> told_;
};

class Supervisor {
  public:
    Supervisor(Loop& loop, Store& store) : loop_(loop), store_(store) {}

    Status add(const Options& options, const std::string& file) {
        auto cfg = TRY(toolstack::CfgFile::read(file, {}));
        const auto name = cfg.text("name");
        if (!name || !toolstack::domain_name_valid(*name))
            return unsupported("", file + ": it has no name= that could be a domain's");
        if (!names_.insert(*name).second) return unsupported("", file + ": '" + *name + "' is there twice");
        auto vm = std::make_unique<Vm>(loop_, store_, options, std::filesystem::absolute(file), *name);
        TRY(vm->take_over());
        vms_.push_back(std::move(vm));
        return {};
    }
    void let_go() {
        for (auto& vm : vms_) vm->let_go();
    }

    Status run() {
        const Fd signals = TRY(take_signals({SIGTERM, SIGINT}));
        TRY(store_.watch("@releaseDomain", "release"));
        const auto ends_now = loop_.watch(signals.get(), POLLIN, [this](short) { loop_.stop(); });
        const auto events = loop_.watch(store_.fd(), POLLIN, [this](short) {
            while (store_.take_event()) death_looks_ = looks_at_death;
            look();
        });
        const auto regular = loop_.every(look_period, [this] { look(); });
        look();
        loop_.run();
        if (store_.lost()) return host_fault(ENOTCONN, "lost the connection to", "xenstored");
        let_go();
        return {};
    }

  private:
    void look() {
        bool all_exist = true;
        for (auto& vm : vms_) {
            if (store_.lost()) return loop_.stop();
            vm->look(all_exist);
            all_exist = all_exist && vm->exists();
        }
        if (death_looks_ == 0 || soon_) return;
        --death_looks_;
        soon_ = loop_.after(death_period, [this] {
            soon_.reset();
            look();
        });
    }

    Loop& loop_;
    Store& store_;
    std::set<std::string> names_;
    std::vector<std::unique_ptr<Vm>> vms_;
    unsigned death_looks_ = 0;
    Loop::Handle soon_;
};

}  // namespace

Status supervise(const Options& options) {
    const auto loop = TRY(Loop::make());
    auto store = TRY(Store::open(options.commands.xenstored));
    Supervisor supervisor(*loop, store);
    for (const auto& file : options.files)
        if (Status added = supervisor.add(options, file); !added) return supervisor.let_go(), added;
    return supervisor.run();
}

Result<std::map<std::string, std::string>> status_of(Store& store, const std::string& name) {
    std::map<std::string, std::string> words;
    const auto keys = toolstack::domain_name_valid(name) ? TRY(store.list(folder + name)) : std::vector<std::string>{};
    for (const auto& key : keys) words[key] = TRY(store.read(folder + name + "/" + key)).value_or("");
    if (!words.contains("supervisor") || !runs(words["supervisor"]))
        return std::unexpected(Error{.fault = Fault::unsupported,
                                     .err = ESRCH,
                                     .what = "nobody looks after a domain",
                                     .detail = "'" + escaped(name) + "' ('caisson supervise FILE' does)"});
    return words;
}

Status ask_restart(Store& store, const Commands& commands, const std::string& name,
                   const std::vector<std::string>& settings) {
    const auto status = TRY(status_of(store, name));
    const auto word = [&](const char* key) {
        const auto found = status.find(key);
        return found == status.end() ? std::string() : found->second;
    };
    for (const auto& setting : settings)
        if (!is_setting(setting)) return unsupported("", "'" + escaped(setting) + "' is no KEY=VALUE");
    auto check = commands.check;
    check.push_back(word("file"));
    const auto& all = settings.empty() ? lines_of(word("settings")) : settings;
    check.insert(check.end(), all.begin(), all.end());
    const pid_t child = TRY(domain::spawn(check));
    int ended = 0;
    while (::waitpid(child, &ended, 0) < 0 && errno == EINTR) continue;
    if (ended != 0) return unsupported("", name + " goes on as it is: it could not be made so");
    return store.write(folder + name + "/restart", joined(settings));
}

bool is_setting(const std::string& text) {
    return text.find('=') != std::string::npos && text.find('\n') == std::string::npos;
}

}  // namespace caisson::supervisor
