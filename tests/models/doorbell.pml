/* The doorbell of xen/io/ring.h, in both directions of its danger: a producer that rings only when asked, a consumer
 * that asks and then sleeps, and an event channel between them. README.md tells it in prose.
 *
 * Each side's stores to the shared page go through a store buffer of its own, as a CPU's do: a store may become visible
 * any time later, and a load may overtake it. A store that is sequentially consistent is followed by a full fence, which
 * waits until the buffer is empty.
 *
 * -DWEAK_PRODUCER   the producer's index is published with release only: its load of the event index may overtake it
 * -DWEAK_CONSUMER   the event index is published with release only: the consumer's second look may overtake it
 * -DNO_RECHECK      the consumer sleeps without looking again
 * -DLATE_CLEAR      the consumer clears the event channel's latch after its second look, instead of when it wakes
 *
 * Verified: no state in which the producer is done and the consumer sleeps for ever with an item in the ring
 * (an invalid end state), and every item arrives. Indices are bytes that wrap: FIRST is chosen so that they do.
 */
#ifndef ITEMS
#define ITEMS 4
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#define FIRST 254

byte prod = FIRST;       /* shared page: the producer's index               */
byte event = FIRST + 1;  /* shared page: "ring when you pass this"          */
byte cons_shown = FIRST; /* what the producer knows of free slots: by response, which is an acquire of its own */
bool pending = false;    /* the event channel's latch                       */
byte taken = 0;          /* ghost: how many items arrived                   */

/* One buffered store per side suffices: each side has at most one store to the shared page in flight per round. */
bool prod_buffered = false;
byte prod_value;
bool event_buffered = false;
byte event_value;

/* The memory system: drains the store buffers whenever it likes, until both sides have ended. */
active proctype memory() {
end: do
    :: atomic { prod_buffered -> prod = prod_value; prod_buffered = false }
    :: atomic { event_buffered -> event = event_value; event_buffered = false }
    od
}

#define fence(buffered) !(buffered)  /* blocks until the side's own buffer is empty */

active proctype producer() {
    byte mine = FIRST;
    byte old;
    byte seen;
    byte left = ITEMS;
    byte batch;
    do
    :: left == 0 -> break
    :: left > 0 ->
        /* fill one or more free slots, then publish them at once */
        atomic { (mine - cons_shown + 256) % 256 < SLOTS -> batch = 1 }
        if
        :: batch < left && (mine + 1 - cons_shown + 256) % 256 < SLOTS -> batch = 2
        :: true
        fi;
        old = mine;
        mine = mine + batch;
        left = left - batch;
        !prod_buffered;  /* stores of one CPU become visible in order */
        atomic { prod_buffered = true; prod_value = mine }
#ifndef WEAK_PRODUCER
        fence(prod_buffered);
#endif
        seen = event;
        if
        :: (mine - seen + 256) % 256 < (mine - old + 256) % 256 ->
            fence(prod_buffered);  /* notifying is a system call, or an atomic in the hypervisor: it drains the buffer */
            pending = true
        :: else
        fi
    od
}

active proctype consumer() {
    byte cons = FIRST;
    byte seen;
    do
    :: taken == ITEMS -> break
    :: else ->
        /* drain */
        seen = prod;
        do
        :: cons != seen -> cons = cons + 1; taken++
        :: else -> break
        od;
        cons_shown = cons;
        /* arm the doorbell, then look again */
        !event_buffered;
        atomic { event_buffered = true; event_value = cons + 1 }
#ifndef WEAK_CONSUMER
        fence(event_buffered);
#endif
#ifndef NO_RECHECK
        if
        :: prod != cons -> goto again
        :: else
        fi;
#endif
        if
        :: taken == ITEMS -> break
        :: else
        fi;
        /* sleep until the event channel is pending; waking clears the latch, before the next drain */
#ifdef LATE_CLEAR
        pending = false;
        pending;
#else
        atomic { pending -> pending = false }
#endif
    again: skip
    od;
    assert(taken == ITEMS)
}
