/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads by the thread that needs the data. It either sleeps in pread(), or submits to a ring and
 * polls that. A processor that has gone idle takes longer to wake, above all in a virtual machine,
 * than fast media take for a block; with slow ones, polling keeps the processor from whoever
 * carries out the read. So the time of both is taken, polling is used where it is clearly faster,
 * and the other way is tried now and then.
 */
#ifndef UM_POOL_POLLED_H
#define UM_POOL_POLLED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct um_polled;

/* False: with one processor, who polls keeps the one from working for whom it waits. */
bool um_may_poll(void);

/* max_ns: how long to poll before sleeping. NULL: no polling here (no io_uring of Linux 5.19, one
 * processor, or no memory). */
struct um_polled *um_polled_open(uint64_t max_ns);
/* Nothing is being read any more. NULL is allowed. */
void um_polled_close(struct um_polled *polled);
/* As pread(), but returns a negative errno. Several threads may read; one at a time polls. */
ssize_t um_polled_read(struct um_polled *polled, int fd, void *buf, size_t len, off_t off);

/* This thread has probably slept for the medium, and may be on another processor than before. Set
 * here and for fsync; whoever asks resets it. */
extern _Thread_local bool um_slept;

#endif
