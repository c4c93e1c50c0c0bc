/* SPDX-License-Identifier: BSD-3-Clause */
/* Internal to the handling of bad blocks: the queue (failure.c) and the repair of each
 * (failure_cure.c). */
#ifndef UM_FS_FAILURE_INT_H
#define UM_FS_FAILURE_INT_H

#include "fs/failure.h"

#define UM_FAILURES_LATER 64u /* beyond this, all bad places are searched */

struct um_failures {
	pthread_t thread;
	bool manual;          /* no thread: um_failures_run() */
	pthread_mutex_t lock; /* protects stop, wake */
	pthread_cond_t wake;
	bool stop;
	pthread_mutex_t work; /* one block after the other; protects everything below */
	bool untold;          /* there may be records without an event */
	unsigned ticks;
	uint64_t *given_up; /* a bit per block: nothing can be done for it, and this was said */
	uint64_t nblocks;   /* that the pool may grow to while it is mounted */
	um_lba_t later[UM_FAILURES_LATER]; /* free but not available yet */
	unsigned nlater;
	bool all_later;
};

/* ---- failure.c; work is held ---- */

/* Nothing can be done for it, and this was reported. The second: false if it was so before. */
bool um_failure_given_up(const struct um_failures *f, um_lba_t lba);
bool um_failure_give_up(struct um_failures *f, um_lba_t lba);
/* To be examined again next time. */
void um_failure_later(struct um_failures *f, um_lba_t lba);
/* Adds an event for which there is no record. */
void um_failure_tell(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba,
	unsigned cause, unsigned done, um_lba_t other);
/* The first record at or after *lba. */
int um_failure_record(struct umbra_fs *fs, um_lba_t *lba, struct um_bad *out);

/* ---- failure_cure.c; work is held. 0, or an error when it is to be tried again ---- */

int um_cure_data(struct umbra_fs *fs, um_lba_t lba); /* -EIO: lost, -ESTALE: nobody's */
int um_cure_wrong(struct umbra_fs *fs, um_lba_t lba);
int um_cure_node(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba);
int um_cure_records(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause);
int um_cure_fixed(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause);
int um_cure_cover(struct umbra_fs *fs, const struct um_found *found);
int um_cure_free(struct umbra_fs *fs, um_lba_t lba);
/* There is no good copy: reports this, once. */
void um_cure_none(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause);
/* Removes records of blocks that nothing refers to any more. */
void um_cure_sweep(struct umbra_fs *fs);

#endif
