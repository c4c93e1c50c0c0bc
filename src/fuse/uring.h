/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FUSE over io_uring (Linux 6.14; off there until somebody turns it on): requests and replies pass
 * through memory that we share with the kernel, instead of through read(2) and write(2) of
 * /dev/fuse. The kernel has a queue for each processor, and puts a request into that of its caller:
 * none is common to all, and no thread on another processor need be woken.
 *
 * Forgets, interrupts and notifications stay on /dev/fuse, so there are workers (worker.h) too.
 */
#ifndef UM_FUSE_URING_H
#define UM_FUSE_URING_H

#include "fuse/session.h"

struct um_uring;

/* Before mounting: turns it on in the kernel, if the options ask for it. */
void um_uring_switch_on(const struct um_mount *m);
/* When INIT has come: makes m->uring, if it is wanted and possible. From the reply on the kernel
 * holds all requests back until each queue has an entry. */
void um_uring_offer(struct um_mount *m);
/* Starts the threads. NULL is allowed, as below. */
int um_uring_start(struct um_uring *u);
/* Ends them. Requests that others have not answered yet never will be. */
void um_uring_stop(struct um_uring *u);
/* Nobody replies any more. */
void um_uring_free(struct um_uring *u);
unsigned um_uring_threads(const struct um_uring *u);

/* Sends a reply: header first, then what belongs to it. False: the request did not come this way.
 * True does not mean that the caller has got it: the kernel looks at it later. */
bool um_uring_reply(struct um_uring *u, const struct iovec *iov, int count);
/* Where this thread's reply will lie, UM_MAX_IO bytes from the beginning of a page: what is read into
 * it need not be copied. NULL: its request did not come this way. */
void *um_uring_memory(void);

#endif
