/* SPDX-License-Identifier: BSD-3-Clause */
/* Between seeing to bad blocks one after the other (failure.c) and what is done about each (failure_cure.c). */
#ifndef UM_FS_FAILURE_INT_H
#define UM_FS_FAILURE_INT_H

#include "fs/failure.h"

#define UM_FAILURES_LATER 64u /* more: all bad places are gone through */

struct um_failures {
	pthread_t thread;
	bool manual;          /* no thread: um_failures_run() */
	pthread_mutex_t lock; /* of stop, wake */
	pthread_cond_t wake;
	bool stop;
	pthread_mutex_t work; /* one block after the other; everything below */
	bool untold;          /* records may have no event yet */
	unsigned ticks;
	uint64_t *given_up; /* a bit a block: nothing can be done for it, and that was said */
	uint64_t nblocks;   /* as the pool may become, while it is mounted */
	um_lba_t later[UM_FAILURES_LATER]; /* free but not to be had yet */
	unsigned nlater;
	bool all_later;
};

/* ---- failure.c; work is held ---- */

/* Nothing can be done for it, and that was said. The second: false, it was so before. */
bool um_failure_given_up(const struct um_failures *f, um_lba_t lba);
bool um_failure_give_up(struct um_failures *f, um_lba_t lba);
/* It is looked at again next time. */
void um_failure_later(struct um_failures *f, um_lba_t lba);
/* An event that no record stands for. */
void um_failure_tell(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba,
	unsigned cause, unsigned done, um_lba_t other);
/* The first record at or behind *lba. */
int um_failure_record(struct umbra_fs *fs, um_lba_t *lba, struct um_bad *out);

/* ---- failure_cure.c; work is held. 0, or an error when it is to be tried again ---- */

int um_cure_data(struct umbra_fs *fs, um_lba_t lba); /* -EIO, -ESTALE: lost, nobody's */
int um_cure_wrong(struct umbra_fs *fs, um_lba_t lba);
int um_cure_node(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba);
int um_cure_records(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause);
int um_cure_fixed(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause);
int um_cure_cover(struct umbra_fs *fs, const struct um_found *found);
int um_cure_free(struct umbra_fs *fs, um_lba_t lba);
/* There is no good copy: that is told, once. */
void um_cure_none(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause);
/* Gives up records of blocks that nothing refers to any more. */
void um_cure_sweep(struct umbra_fs *fs);

#endif
