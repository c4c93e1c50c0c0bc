/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asynchronous I/O on a file or device: reads, writes and fdatasyncs are submitted, and a function
 * is called when they complete. io_uring carries them out, or a few threads where the kernel
 * refuses io_uring (a sysctl, a seccomp filter). Requests submitted together are not ordered: to
 * order two, wait for the first before submitting the second.
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
	UM_AIO_SYNC, /* fdatasync of everything written before it is submitted */
};

/* Owned by the caller until it is submitted, and again when done() is called. */
struct um_aio {
	enum um_aio_op op;
	int fd;
	void *buf;
	size_t len;
	uint64_t off;
	size_t align; /* short transfers resume at a multiple of this (direct I/O); 0: anywhere */
	/* Called in a thread of the engine; must not wait for other requests. err: 0, or
	 * negative. */
	void (*done)(struct um_aio *io);
	void *arg;
	int err;
	/* Used by the engine. Short transfers, EINTR and EAGAIN are resumed; `at` bytes are
	 * done. */
	size_t at;
	unsigned tries;
	struct um_aio *next;
};

/* name: for the log line that says which method is used. */
int um_aio_open(const char *name, struct um_aio_engine **out);
/* Waits until everything submitted has completed. NULL is allowed. */
void um_aio_close(struct um_aio_engine *engine);
/* Submits a list, linked by `next`. Cannot fail: what finds no room yet waits for it. */
void um_aio_submit(struct um_aio_engine *engine, struct um_aio *list);
/* Carries one out in the calling thread, which saves two hand-overs. may_poll: see um_aio_poll(). */
void um_aio_here(struct um_aio_engine *engine, struct um_aio *io, bool may_poll);
/* For um_aio_here(): a thread may poll for its read for so long (polled.h). Called before the first
 * request. */
void um_aio_poll(struct um_aio_engine *engine, uint64_t ns);

/* For tests: sees each result before the engine does, and may replace it by fewer bytes or a
 * negative errno. Set while no request is in flight. */
extern int (*um_aio_fault)(const struct um_aio *io, int result);
extern bool um_aio_refuse_ring; /* for tests: act as if the kernel had refused */

#endif
