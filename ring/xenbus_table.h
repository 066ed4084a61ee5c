// The two-sided XenbusState table: what we do when we are in one state and the peer shows another. Pure, total over all
// pairs, and the only place where a state is compared; classes see offer(), connect() and disconnect().
//
// `mine` is where this table has brought us, which is not always what the store shows: see Step::show. Sources:
// xen/io/xenbus.h and blkif.h (start-up and shut-down diagrams); the behaviour of Linux's netfront/netback/hvc_xen and
// of the Windows PV drivers where the headers are silent.
#pragma once

#include "protocols/xenbus.h"

namespace caisson {

enum class Do : std::uint8_t {
    nothing,
    offer,       // publish what we can (backend), get ready (frontend)
    connect,     // take the peer's rings (backend), share ours (frontend); `next` is reached when a worker serves
    disconnect,  // undo connect; nothing to undo is fine
    restart,     // disconnect, then offer: the peer starts over
};

struct Step {
    Do action = Do::nothing;
    XenbusState next = XenbusState::unknown;
    XenbusState show = next;  // what the store shall say
    bool operator==(const Step&) const = default;
};

// What a backend knows beside the two states.
struct BackendPast {
    XenbusState shown = XenbusState::unknown;  // what the store says of us: a dead predecessor's word, at first
    bool invites = false;                      // the frontend's rings cannot be continued: it has to begin anew
};

// We are a backend in `mine`, the frontend shows `peer`. `mine` is initialised from connect until a worker serves the
// device: the store still says InitWait then, or Connected where a predecessor had got so far.
constexpr Step backend_step(XenbusState mine, XenbusState peer, BackendPast past = {}) {
    using enum XenbusState;
    const Step stay{Do::nothing, mine, mine};
    switch (mine) {
        case unknown:
        case initialising:  // a directory that we see for the first time, perhaps as the successor of a dead controller
            if (peer == closing) return {Do::nothing, closing};
            // InitWait invites a frontend that our predecessor sent away, and (closed, closed) below keeps it there.
            if (peer == closed) return {Do::offer, closed, init_wait};
            // A live device is asked nothing: InitWait would send the frontend away while we take its rings over, and
            // it could be back with others before we see that it went.
            if (peer == connected && past.shown == connected) return {Do::offer, init_wait, connected};
            return {Do::offer, init_wait};
        case init_wait:
            if (peer == initialised || peer == connected) return {Do::connect, initialised, init_wait};
            // The Windows drivers' cycle before their first connect: Closing is answered with Closing, Closed with
            // Closed, Initialising with InitWait. Staying in InitWait would hang the whole guest.
            if (peer == closing) return {Do::nothing, closing};
            if (peer == closed) return {Do::nothing, closed};
            return stay;
        case initialised:
        case connected:
        case reconfiguring:
        case reconfigured:
            if (peer == initialising) return {Do::restart, init_wait};
            if (peer == closing) return {Do::disconnect, closing};
            if (peer == closed || peer == unknown) return {Do::disconnect, closed};
            return stay;
        case closing:  // ours or its wish; a broken device stays here until the peer itself lets go
            if (peer == closed && past.invites) return {Do::offer, closed, init_wait};
            if (peer == closed || peer == unknown) return {Do::disconnect, closed};
            if (peer == initialising) return {Do::restart, init_wait};
            return stay;
        case closed:
            // hvc_xen goes straight to Initialised when it is bound again, without waiting for InitWait.
            if (peer == initialising || peer == initialised || peer == connected) return {Do::offer, init_wait};
            return stay;
    }
    return stay;
}

// We are a frontend in `mine`, the backend shows `peer`. `mine` is initialised from connect until the backend is
// Connected, whatever the class shows meanwhile (netfront and blkfront show Connected at once).
constexpr Step frontend_step(XenbusState mine, XenbusState peer) {
    using enum XenbusState;
    const Step stay{Do::nothing, mine, mine};
    switch (mine) {
        case unknown:  // a directory that we see for the first time
            return {Do::offer, initialising};
        case initialising:
        case init_wait:  // a frontend is never there
            // Anything but InitWait is what is left of an earlier connection: our Initialising makes the backend
            // return.
            if (peer == init_wait) return {Do::connect, initialised, initialising};
            return stay;
        case initialised:
            if (peer == connected) return {Do::nothing, connected};
            if (peer == initialising) return {Do::restart, initialising};
            if (peer == closing || peer == closed || peer == unknown) return {Do::disconnect, closed};
            return stay;
        case connected:
        case reconfiguring:
        case reconfigured:
            if (peer == initialising || peer == init_wait) return {Do::restart, initialising};
            if (peer == closing || peer == closed || peer == unknown) return {Do::disconnect, closed};
            return stay;
        case closing:
            if (peer == initialised || peer == connected || peer == reconfiguring || peer == reconfigured) return stay;
            return {Do::disconnect, closed};
        case closed:
            if (peer == initialising || peer == init_wait) return {Do::offer, initialising};
            return stay;
    }
    return stay;
}

}  // namespace caisson
