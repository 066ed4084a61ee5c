/* frontends/block/disk.h for programs in C: a PV disk of the domain that the program runs in, polled.
 *
 * Errors are errno values, 0 is success. Thread: one, whichever opened the disk. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct caisson_disk;

struct caisson_disk_options {
    uint32_t queues, ring_order; /* at most; 0: the library's own idea */
    uint32_t arena_bytes;        /* of data in flight; 0: the same */
    uint32_t timeout_ms;         /* for a backend to be there; 0: the same */
};

struct caisson_disk_geometry {
    uint64_t bytes;
    uint64_t largest_request; /* bytes */
    uint32_t sector_size, physical_sector_size;
    uint32_t discard_granularity; /* 0: no discard */
    uint32_t read_only, flush;    /* flush: the disk has a cache that is flushed */
};

enum caisson_disk_operation { CAISSON_DISK_READ, CAISSON_DISK_WRITE, CAISSON_DISK_FLUSH, CAISSON_DISK_DISCARD };

struct caisson_disk_request {
    enum caisson_disk_operation operation;
    uint64_t offset, length; /* bytes; a flush has none */
    void* data;              /* of a read or write; stays until a read is over */
    uint64_t cookie;         /* comes back with the end */
};

struct caisson_disk_end {
    uint64_t cookie;
    int error;
};

/* `name`: "xvda". On an error `why` (if not null) holds a sentence. */
int caisson_disk_open(const char* name, const struct caisson_disk_options* options, struct caisson_disk** disk,
                      char* why, size_t why_size);
void caisson_disk_close(struct caisson_disk* disk);
void caisson_disk_get_geometry(const struct caisson_disk* disk, struct caisson_disk_geometry* geometry);

/* Memory that the backend reads and writes itself: a request whose data lies in it, on a page, is not copied. Once a
 * disk. It stays at its place, and good, while backends come and go. The backend can change all of it at any time.
 * ENOSPC, EOPNOTSUPP: there is no such memory; use any other. */
int caisson_disk_memory(struct caisson_disk* disk, size_t bytes, void** memory);

/* EAGAIN: no room now, or no backend; poll and ask again. Taken requests reach the backend at doorbell() or poll(). */
int caisson_disk_submit(struct caisson_disk* disk, const struct caisson_disk_request* request);
void caisson_disk_doorbell(struct caisson_disk* disk);

/* Takes up to `most` ends. When there is none: 0 at once (wait_ms 0), or after waiting so long for one. To be called
 * whenever there is nothing else to do, with requests in flight or not: reconnects happen here. */
unsigned caisson_disk_poll(struct caisson_disk* disk, struct caisson_disk_end* ends, unsigned most, int wait_ms);

#ifdef __cplusplus
}
#endif
