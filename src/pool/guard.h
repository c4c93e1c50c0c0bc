/* SPDX-License-Identifier: BSD-3-Clause */
/* Loads from the pool that may fail. */
#ifndef UM_POOL_GUARD_H
#define UM_POOL_GUARD_H

#include <stddef.h>
#include <stdint.h>

struct um_pool;

/*
 * A failing load from the pool raises SIGBUS. The handler records the block, maps a page of zeros
 * in its place for this process and sets the thread's mark. Code that loads from the pool checks
 * the mark before it believes what it read: um_guard_check() is 0, or -EIO once after a failure.
 */
int um_guard_install(void);
void um_guard_register(struct um_pool *pool);
void um_guard_extend(struct um_pool *pool); /* map_len has increased */
void um_guard_unregister(struct um_pool *pool);
/* The block (um_lba_t); 0: no failure in this thread since the last check. */
extern _Thread_local volatile uint64_t um_guard_bad;
/*
 * Loads from each page of [p, p + len), so that it can then be passed to the kernel. -EIO: a load
 * failed. A reply whose memory faults while the kernel copies it ends with EIO and cannot be sent
 * again.
 */
int um_guard_touch(const void *p, size_t len);
/* Loads every cache line of [p, p + len), which is aligned to 64: a single line of a page may be
 * bad. */
int um_guard_read(const void *p, size_t len);
static inline int um_guard_check(void)
{
	if (__builtin_expect(!um_guard_bad, 1))
		return 0;
	um_guard_bad = 0;
	return -5; /* -EIO */
}

#endif
