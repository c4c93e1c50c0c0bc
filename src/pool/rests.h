/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Indirect pools: the file data that the records of the next group depend on. A record that counts
 * after a power cut must not refer to file data that is missing. Either the data is on the medium
 * before the COMMIT record is written, which takes a barrier of its own; or COMMIT lists the data
 * with checksums and counts only if all of it is present, and one barrier suffices. This is that
 * list.
 *
 * Listed data must not change until a later COMMIT is durable. A write that would change it first
 * makes a COMMIT without a list durable (if the list belongs to a commit), or voids the list (if it
 * is still being gathered), in which case the group takes two barriers. src/DESIGN.md, section 1,
 * has the argument.
 */
#ifndef UM_POOL_RESTS_H
#define UM_POOL_RESTS_H

#include "pool/pool.h"

#define UM_RESTS_MAX 62u /* with the record's head: 2 KiB of journal */

struct um_rest {
	uint64_t off; /* in the pool, bytes: the place, wherever the block was moved from */
	uint64_t csum;
	uint32_t len;
};
struct um_rest_list {
	bool open_end; /* incomplete: the list guarantees nothing */
	uint32_t n;
	uint64_t bytes;
	struct um_rest at[UM_RESTS_MAX];
};

/* seal(arg): makes a COMMIT without a list durable. */
int um_rests_open(struct um_pool *pool, int (*seal)(void *arg), void *arg);
void um_rests_close(struct um_pool *pool);
uint64_t um_rest_csum(const struct um_pool *pool, const void *bytes, size_t len);

/* Around a store of data, called by um_pool_write() and um_pool_overwrite(). off is that of the block,
 * which may have been moved. */
int um_rests_before(struct um_pool *pool, uint64_t off, size_t len);
void um_rests_after(struct um_pool *pool, uint64_t off, const void *src, size_t len);

/* Begins a group commit, after the number of the last transaction it covers was read: the gathered
 * list is copied out and belongs to the commit until um_rests_done(). One at a time. */
void um_rests_take(struct um_pool *pool, struct um_rest_list *out);
enum um_rests_end {
	UM_RESTS_SEALED,  /* a COMMIT without a list is durable */
	UM_RESTS_LISTED,  /* a COMMIT with this list is durable */
	UM_RESTS_BARRIER, /* none was written, but a barrier has passed */
	UM_RESTS_FAILED,
};
void um_rests_done(struct um_pool *pool, enum um_rests_end end);

#endif
