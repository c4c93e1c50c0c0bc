/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One segment of a write (segment.c): planned under the read lock, its new blocks filled outside of
 * any transaction, then committed in one. write.c does the rest of a write.
 */
#ifndef UM_FS_SEGMENT_H
#define UM_FS_SEGMENT_H

#include "fs/data.h"
#include "fs/shadows.h"

struct um_segment {
	uint64_t off;
	size_t len;
	const uint8_t *buf;
	uint64_t first, nblocks;
	struct um_inode inode; /* as the plan saw it */
	bool journal;          /* overwrites are atomic */
	bool moves;            /* um_data_moves() */
	um_lba_t goal;         /* the place after the block before the segment, or 0 */
	uint32_t place;        /* as in struct um_wish */
	unsigned nruns;
	struct um_run runs[UM_SEGMENT_BLOCKS];
	struct um_pieces fresh;
	struct um_hold hold;              /* the masters of what is copied */
	uint32_t csum[UM_SEGMENT_BLOCKS]; /* of what was stored, by block */
};

/* Finds out what the file has at off, for len bytes, and what is to be done; len may be reduced. */
int um_segment_plan(struct umbra_fs *fs, um_ino_t ino, struct um_segment *s);
/* Does the segment change neither the mapping nor the size? Then writers need not exclude each
 * other. */
bool um_segment_overwrites(const struct um_segment *s);
/* Adds the masters of the shared blocks that it replaces. */
void um_segment_masters(const struct um_segment *s, struct um_hold *hold);
/* Stores everything that precedes the transaction. */
int um_segment_store(struct umbra_fs *fs, struct um_mem *mem, struct um_segment *s);
/* Is there nothing to commit? */
bool um_segment_is_done(const struct umbra_fs *fs, const struct um_segment *s, unsigned flags);
int um_segment_commit(struct umbra_fs *fs, struct um_segment *s, unsigned flags);
/* A write has changed the file: its times, unless the kernel owns them. */
void um_segment_touch(struct um_inode *inode, unsigned flags);
/* After -EIO: were kept bytes of its first or last block bad, and have they been recovered? */
bool um_segment_cured(struct umbra_fs *fs, const struct um_segment *s);

#endif
