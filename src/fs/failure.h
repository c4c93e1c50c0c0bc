/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory failure: what is known of bad blocks is made good or put on record. pool/ notices that a load or a store
 * failed and lets the operation go on with an error; here is found out what the block was, its bytes are fetched
 * from wherever they still are and put elsewhere, and what was done becomes an event. Done by a thread of its own, one
 * block after the other; a reader who can have the bytes at once does it itself (um_failure_cure).
 */
#ifndef UM_FS_FAILURE_H
#define UM_FS_FAILURE_H

#include "fs/fs.h"

/* ---- the record of bad blocks: the remap tree (bad.c) ------------------------------------------------ */

int um_bad_get(struct um_src src, um_lba_t lba, struct um_bad *out); /* -ENOENT */
/* The first at or behind *lba. */
int um_bad_next(struct um_src src, um_lba_t *lba, struct um_bad *out);
int um_bad_put(struct um_txn *txn, um_lba_t lba, const struct um_bad *bad); /* new or other */
int um_bad_del(struct um_txn *txn, um_lba_t lba);
/* Writes the whole tree anew, in other blocks: some of its own are bad. */
int um_bad_rebuild(struct um_txn *txn);
/*
 * The same when parts of it have no good copy: by what the pool in memory knows of bad places since it was opened. What was
 * lost comes back on record when it is seen to again.
 */
int um_bad_salvage(struct um_txn *txn);
/* Has the record read whenever a log of this pool is opened: struct um_pool, load_bad. */
void um_bad_attach(struct um_pool *pool);

/* ---- events (event.c) ---------------------------------------------------------------------------------- */

#define UM_EVENT_MAX                                                                               \
	(sizeof(struct um_event) +                                                                 \
		UM_EVENT_OWNERS * (sizeof(struct um_event_owner) + UM_EVENT_PATH))
/* One more, of len bytes with its owners; the oldest goes when there are enough. */
int um_event_add(struct um_txn *txn, const void *event, uint16_t len);

/* ---- what a block is (failure_find.c) -------------------------------------------------------------------- */

enum um_found_what {
	UM_FOUND_FREE,
	UM_FOUND_RETIRED,
	UM_FOUND_FIXED, /* superblock, tables, journal */
	UM_FOUND_NODE,
	UM_FOUND_DATA, /* or nothing that can be found */
};
struct um_found {
	enum um_found_what what;
	enum um_kind kind;
	struct um_ptr ptr; /* FIXED, NODE: both copies; FIXED without another copy: mirror 0 */
	um_ino_t ino;      /* NODE: whose; 0: the pool's */
};
/* Is it a place that is never allocated, or the journal? Then what it has there; kind 0: nothing. */
bool um_failure_fixed(const struct um_pool *pool, um_lba_t lba, struct um_found *out);
int um_failure_find(struct umbra_fs *fs, um_lba_t lba, struct um_found *out);
/* Fills in the event's owners, with paths; returns its length. `event` has room for UM_EVENT_MAX. */
uint16_t um_failure_owners(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, void *event);

/* ---- what belongs in it (failure_rewrite.c) --------------------------------------------------------------- */

/* The good copy of metadata. -ENODATA: there is none. */
int um_failure_copy(struct um_pool *pool, const struct um_found *found, um_lba_t bad, void *out);
/* What parity covers, a block of that, from all trees; in a transaction. -ENODATA: they cannot be read. (failure_cover.c) */
int um_failure_cover(struct umbra_fs *fs, struct um_ptr at, void *out);
int um_failure_parity(struct umbra_fs *fs, um_lba_t lba, void *out);
/* Of file data whose memory failed: from wherever it is. -ENOENT, -EIO: nowhere. */
int um_failure_content(struct umbra_fs *fs, um_lba_t lba, void *out);
/*
 * In place. wrong: memory is well and the bytes are not; -EALREADY when they are. -EAGAIN: not now; -ENODATA: nobody knows what
 * belongs there; else it cannot be stored.
 */
int um_failure_rewrite_fixed(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, bool wrong);
/* File data that does not match its checksum: 1 done, 0 it matches; -ENODATA, -EAGAIN, -ESTALE: nobody's data any more. */
int um_failure_rewrite_data(struct umbra_fs *fs, um_lba_t lba);

/* ---- seeing to it (failure.c) ------------------------------------------------------------------------------ */

#define UM_CURES                                                                                   \
	4u /* of one block, in one operation: whoever makes it bad again meanwhile, it is not for us */

int um_failures_start(struct umbra_fs *fs);
void um_failures_stop(struct umbra_fs *fs);
/* There may be something to do. */
void um_failures_kick(struct umbra_fs *fs);
/* Does it now; for tests without a thread, and at the end of a mount. */
void um_failures_run(struct umbra_fs *fs);
/*
 * File data at lba cannot be read, or does not match its checksum: 0 when it can be again (or lba is UM_LBA_MASK: which block it was is not known, look
 * again), -EIO. Outside of transactions and without the read lock; an epoch may be held.
 */
int um_failure_cure(struct umbra_fs *fs, um_lba_t lba);
/*
 * Makes the bytes of a block of file data again from redundancy that the pool has: 0, -ENOENT (there is none), -EIO (too
 * much is gone). NULL: parity, if the pool has it; tests put something else here. Called with no lock of fs/, by one thread at a time.
 */
extern int (*um_failure_source)(struct umbra_fs *fs, um_lba_t lba, void *out);

#endif
