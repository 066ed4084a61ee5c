/* A fio engine: ioengine=external:/PATH/caisson-fio.so, filename=xvda. Built against the headers of the fio that runs
 * it (FIO_IOOPS_VERSION); fio.h is C and nothing else, so this is. What it does is disk_c.h's.
 *
 * getevents polls the ring for a while before it sleeps until the backend's event; see poll_us. Requests that fio
 * queues one by one reach the backend several at a time, at the latest when fio asks for an end. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <fio.h>
#include <optgroup.h>

#include "frontends/block/disk_c.h"

enum { page = 4096, longest_reason = 256, sleep_ms = 100, most_held = 8, polls_a_look = 64 };

struct settings {
    void* unused; /* fio takes an offset of 0 for none */
    int zero_copy;
    unsigned poll_us, queues, ring_order;
};

struct engine {
    struct caisson_disk* disk;
    struct io_u** ended;
    struct caisson_disk_end* ends;
    bool zero_copy;
    bool paced;    /* fio itself waits between requests: none may be held back meanwhile */
    unsigned held; /* taken, and the backend not yet told of */
};

static struct fio_option options[] = {
    {
        .name = "zero_copy",
        .lname = "Zero copy",
        .type = FIO_OPT_BOOL,
        .off1 = offsetof(struct settings, zero_copy),
        .help = "Buffers lie where the backend reads and writes them (where that is possible)",
        .def = "1",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "poll_us",
        .lname = "Poll",
        .type = FIO_OPT_INT,
        .off1 = offsetof(struct settings, poll_us),
        .help = "Microseconds to look for an end before sleeping until the backend's event; 0: sleep at once",
        .def = "1000",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "queues",
        .lname = "Queues",
        .type = FIO_OPT_INT,
        .off1 = offsetof(struct settings, queues),
        .help = "Rings, at most",
        .def = "1",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "ring_order",
        .lname = "Ring order",
        .type = FIO_OPT_INT,
        .off1 = offsetof(struct settings, ring_order),
        .help = "2^order pages a ring, 32 requests each, at most",
        .def = "2",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {.name = NULL},
};

static int open_disk(struct thread_data* td, struct caisson_disk** disk) {
    const struct settings* settings = td->eo;
    const unsigned long long data = (unsigned long long)td->o.iodepth * td_max_bs(td) * 2 + (1 << 20);
    struct caisson_disk_options wanted = {
        .queues = settings->queues,
        .ring_order = settings->ring_order,
        .arena_bytes = data > (16u << 20) ? 16u << 20 : (uint32_t)data,
    };
    char why[longest_reason] = "";
    if (td->o.nr_files != 1) {
        log_err("caisson: one disk a job, filename=xvda\n");
        return EINVAL;
    }
    const int error = caisson_disk_open(td->files[0]->file_name, &wanted, disk, why, sizeof why);
    if (error != 0) log_err("caisson: %s\n", why);
    return error;
}

/* In the process that will fork the jobs: all it needs is the size. */
static int setup(struct thread_data* td) {
    struct caisson_disk* disk;
    struct caisson_disk_geometry geometry;
    const int error = open_disk(td, &disk);
    if (error != 0) return error;
    caisson_disk_get_geometry(disk, &geometry);
    caisson_disk_close(disk);
    td->files[0]->real_file_size = geometry.bytes;
    td->files[0]->filetype = FIO_TYPE_BLOCK;
    fio_file_set_size_known(td->files[0]);
    if (geometry.read_only && td_write(td)) {
        log_err("caisson: %s is read-only\n", td->files[0]->file_name);
        return EROFS;
    }
    return 0;
}

static void cleanup(struct thread_data* td) {
    struct engine* engine = td->io_ops_data;
    if (engine == NULL) return;
    if (engine->disk != NULL) caisson_disk_close(engine->disk);
    free(engine->ended);
    free(engine->ends);
    free(engine);
    td->io_ops_data = NULL;
}

static int init(struct thread_data* td) {
    struct engine* engine = calloc(1, sizeof *engine);
    if (engine == NULL) return ENOMEM;
    td->io_ops_data = engine;
    engine->ended = calloc(td->o.iodepth, sizeof *engine->ended);
    engine->ends = calloc(td->o.iodepth, sizeof *engine->ends);
    if (engine->ended == NULL || engine->ends == NULL) return ENOMEM;
    engine->paced = td->o.thinktime != 0 || td->o.rate[0] | td->o.rate[1] | td->o.rate[2] | td->o.rate_iops[0] |
                                                td->o.rate_iops[1] | td->o.rate_iops[2];
    return open_disk(td, &engine->disk);
}

static int iomem_alloc(struct thread_data* td, size_t bytes) {
    struct engine* engine = td->io_ops_data;
    void* memory = NULL;
    if (((struct settings*)td->eo)->zero_copy) {
        engine->zero_copy = caisson_disk_memory(engine->disk, bytes, &memory) == 0;
        if (!engine->zero_copy) log_info("caisson: no zero copy: all data is copied once\n");
    }
    if (!engine->zero_copy && posix_memalign(&memory, page, bytes) != 0) return ENOMEM;
    td->orig_buffer = memory;
    return 0;
}

static void iomem_free(struct thread_data* td) {
    const struct engine* engine = td->io_ops_data;
    if (engine != NULL && !engine->zero_copy) free(td->orig_buffer); /* else it goes with the disk */
}

static enum fio_q_status queue(struct thread_data* td, struct io_u* io_u) {
    struct engine* engine = td->io_ops_data;
    struct caisson_disk_request request = {
        .offset = io_u->offset, .length = io_u->xfer_buflen, .data = io_u->xfer_buf, .cookie = (uintptr_t)io_u};
    fio_ro_check(td, io_u);
    switch (io_u->ddir) {
        case DDIR_READ: request.operation = CAISSON_DISK_READ; break;
        case DDIR_WRITE: request.operation = CAISSON_DISK_WRITE; break;
        case DDIR_TRIM: request.operation = CAISSON_DISK_DISCARD; break;
        case DDIR_SYNC:
        case DDIR_DATASYNC:
            request.operation = CAISSON_DISK_FLUSH;
            request.offset = request.length = 0;
            break;
        default: io_u->error = EOPNOTSUPP; return FIO_Q_COMPLETED;
    }
    const int error = caisson_disk_submit(engine->disk, &request);
    if (error == 0) return FIO_Q_QUEUED;
    if (error == EAGAIN) { /* with nothing in flight fio asks again and again, and never for events */
        caisson_disk_poll(engine->disk, NULL, 0, 1);
        return FIO_Q_BUSY;
    }
    io_u->error = error;
    return FIO_Q_COMPLETED;
}

static int commit(struct thread_data* td) {
    struct engine* engine = td->io_ops_data;
    if (!engine->paced && ++engine->held < most_held) return 0;
    engine->held = 0;
    caisson_disk_doorbell(engine->disk);
    return 0;
}

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int getevents(struct thread_data* td, unsigned int min, unsigned int max, const struct timespec* limit) {
    struct engine* engine = td->io_ops_data;
    const long long patience = ((struct settings*)td->eo)->poll_us * 1000LL;
    const long long most = limit == NULL ? LLONG_MAX : limit->tv_sec * 1000000000LL + limit->tv_nsec;
    long long start = 0, passed = 0;
    unsigned int count = 0, polls = 0;
    engine->held = 0; /* the first poll tells */
    do {
        const int wait = count < min && polls > 0 && passed >= patience ? sleep_ms : 0;
        const unsigned int more = caisson_disk_poll(engine->disk, engine->ends + count, max - count, wait);
        for (unsigned int i = count; i < count + more; ++i) {
            engine->ended[i] = (struct io_u*)(uintptr_t)engine->ends[i].cookie;
            engine->ended[i]->error = (unsigned int)engine->ends[i].error;
        }
        count += more;
        if (count >= min) break;
        if (++polls == 1)
            start = now_ns();
        else if (wait != 0 || polls % polls_a_look == 0)
            passed = now_ns() - start;
    } while (passed < most);
    return (int)count;
}

static struct io_u* event(struct thread_data* td, int number) {
    const struct engine* engine = td->io_ops_data;
    return engine->ended[number];
}

static int open_file(struct thread_data* td, struct fio_file* file) {
    (void)td, (void)file;
    return 0;
}

static int close_file(struct thread_data* td, struct fio_file* file) {
    (void)td, (void)file;
    return 0;
}

struct ioengine_ops ioengine = {
    .name = "caisson",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO | FIO_NOEXTEND | FIO_NODISKUTIL,
    .setup = setup,
    .init = init,
    .cleanup = cleanup,
    .iomem_alloc = iomem_alloc,
    .iomem_free = iomem_free,
    .queue = queue,
    .commit = commit,
    .getevents = getevents,
    .event = event,
    .open_file = open_file,
    .close_file = close_file,
    .option_struct_size = sizeof(struct settings),
    .options = options,
};
