// Keeps service VMs running, from the control domain: makes them, notices their death or ill health, makes them again,
// and gives the devices that they served to their successors. What `caisson supervise` runs.
//
// In xenstore, for people and for `caisson restart`, below /tool/caisson/supervise/NAME/ (Dom0's alone):
//
//   file, supervisor   its cfg file; the process that looks after it: its number and its start time
//   domid, state, why  supervised.h
//   restarts           lives that ended
//   outage             milliseconds from the notice of the last end to the next "ready"
//   predecessors       domids of earlier lives that left devices which are not moved yet
//   settings           KEY=VALUE lines that restart gave it, kept from one supervisor to the next
//   restart            a wish: see ask_restart(); removed when it is taken up
//
// Threads: one.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "domains/supervisor/supervised.h"
#include "protocols/words.h"
#include "ring/store.h"

namespace caisson::supervisor {

// How domains are made and ended here.
struct Commands {
    std::vector<std::string> create;   // "xl create -q", and then FILE KEY=VALUE...
    std::vector<std::string> check;    // the same, of which nothing comes but words about what is wrong
    std::vector<std::string> destroy;  // "xl destroy", and then an id
    bool hears_shutdown = false;       // its domains act on control/shutdown: Xen's do
    std::string xenstored;             // its socket; empty: what libxenstore finds
};

struct Options {
    Commands commands;
    // xl.cfg files, in the order in which they need each other: each waits for those before it to exist.
    std::vector<std::string> files;
    Patience patience{};
};

// Runs until SIGTERM or SIGINT. The domains go on; another supervisor takes them over as they are.
Status supervise(const Options& options);

// On purpose, if what it is to be passes the check, whose words go to standard error: orderly where it can be, with
// `settings` (KEY=VALUE, as of `xl create FILE KEY=VALUE`) in the place of the file's until others come; a life with
// new ones that does not get ready is followed by one with the old.
Status ask_restart(Store& store, const Commands& commands, const std::string& name,
                   const std::vector<std::string>& settings);
bool is_setting(const std::string& text);  // KEY=VALUE, on a line

// What xenstore says of it: the keys above. An error when nobody looks after it.
Result<std::map<std::string, std::string>> status_of(Store& store, const std::string& name);

}  // namespace caisson::supervisor
