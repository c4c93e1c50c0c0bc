/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests to a file or device that nobody waits for: reads, writes and fdatasyncs are handed in, and a function is
 * called when they are done. io_uring carries them out, or a few threads where the kernel refuses it (a
 * sysctl, a seccomp filter). Requests handed in together have no order among each other: whoever needs one
 * waits for the first before handing in the second.
 */
#ifndef UM_POOL_AIO_H
#define UM_POOL_AIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct um_aio_engine;

enum um_aio_op {
	UM_AIO_READ,
	UM_AIO_WRITE,
	UM_AIO_SYNC, /* fdatasync: what had been written when it was handed in */
};

/* The caller's until it is handed in, and again when done() is called. */
struct um_aio {
	enum um_aio_op op;
	int fd;
	void *buf;
	size_t len;
	uint64_t off;
	size_t align; /* what comes short is gone on with at a multiple of this (direct I/O); 0: anywhere */
	/* In a thread of the engine's: must not wait for other requests. err: 0, or negative. */
	void (*done)(struct um_aio *io);
	void *arg;
	int err;
	/* The engine's. Transfers that come short, EINTR and EAGAIN are gone on with; `at` bytes are done. */
	size_t at;
	unsigned tries;
	_Atomic(int) handed; /* the kernel orders it all; this says so to tools that do not know */
	struct um_aio *next;
};

/* name: for the log line that says which way it goes. */
int um_aio_open(const char *name, struct um_aio_engine **out);
/* When all that was handed in is done. NULL is fine. */
void um_aio_close(struct um_aio_engine *engine);
/* A list, linked by `next`. Cannot fail: what finds no room is carried out by the caller's thread. */
void um_aio_submit(struct um_aio_engine *engine, struct um_aio *list);
/* Carries one out in the calling thread: for who finds that nothing else is under way, two hand-overs less. */
void um_aio_here(struct um_aio_engine *engine, struct um_aio *io);

/*
 * Tests: looks at each result before the engine does, and may give another in its place: fewer bytes, or
 * a negative errno. Set while no request is under way.
 */
extern int (*um_aio_fault)(const struct um_aio *io, int result);
extern bool um_aio_refuse_ring; /* tests: as if the kernel had */

#endif
