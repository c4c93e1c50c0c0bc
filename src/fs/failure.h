/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory failure: bad blocks are repaired or recorded. pool/ notices that a load or a store failed
 * and lets the operation continue with an error. Here it is found out what the block was; its bytes
 * are fetched from wherever they still exist and put elsewhere, and the action becomes an event. A
 * separate thread does this, one block after the other; a reader that can have the bytes at once
 * does it itself (um_failure_cure).
 */
#ifndef UM_FS_FAILURE_H
#define UM_FS_FAILURE_H

#include "fs/fs.h"

/* ---- the record of bad blocks: the remap tree (bad.c) ------------------------------------------------ */

int um_bad_get(struct um_src src, um_lba_t lba, struct um_bad *out); /* -ENOENT */
/* The first record at or after *lba. */
int um_bad_next(struct um_src src, um_lba_t *lba, struct um_bad *out);
int um_bad_put(struct um_txn *txn, um_lba_t lba, const struct um_bad *bad); /* new or changed */
int um_bad_del(struct um_txn *txn, um_lba_t lba);
/* Rewrites the whole tree in other blocks: some of its own are bad. */
int um_bad_rebuild(struct um_txn *txn);
/* The same when parts of it have no good copy: from what the pool in memory knows of bad places
 * since it was opened. What was lost is recorded again when it is handled again. */
int um_bad_salvage(struct um_txn *txn);
/* Makes the records be read whenever a log of this pool is opened: struct um_pool, load_bad. */
void um_bad_attach(struct um_pool *pool);

/* ---- events (event.c) ---------------------------------------------------------------------------------- */

#define UM_EVENT_MAX                                                                               \
	(sizeof(struct um_event) +                                                                 \
		UM_EVENT_OWNERS * (sizeof(struct um_event_owner) + UM_EVENT_PATH))
/* Adds an event of len bytes including its owners; the oldest goes if there are enough. */
int um_event_add(struct um_txn *txn, const void *event, uint16_t len);

/* ---- what a block is (failure_find.c) -------------------------------------------------------------------- */

enum um_found_what {
	UM_FOUND_FREE,
	UM_FOUND_RETIRED,
	UM_FOUND_FIXED, /* superblock, tables, journal */
	UM_FOUND_NODE,
	UM_FOUND_DATA, /* or unknown */
};
struct um_found {
	enum um_found_what what;
	enum um_kind kind;
	struct um_ptr ptr; /* FIXED, NODE: both copies; FIXED without a second copy: mirror 0 */
	um_ino_t ino;      /* NODE: the owner; 0: the pool */
};
/* Is it a place that is never allocated, or the journal? Then also what it holds; kind 0:
 * nothing. */
bool um_failure_fixed(const struct um_pool *pool, um_lba_t lba, struct um_found *out);
int um_failure_find(struct umbra_fs *fs, um_lba_t lba, struct um_found *out);
/* Fills in the event's owners, with paths; returns its length. `event` has room for
 * UM_EVENT_MAX. */
uint16_t um_failure_owners(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, void *event);

/* ---- what belongs in it (failure_rewrite.c) --------------------------------------------------------------- */

/* The good copy of metadata. -ENODATA: there is none. */
int um_failure_copy(struct um_pool *pool, const struct um_found *found, um_lba_t bad, void *out);
/* Recomputes a block of cover (what parity covers) from all trees; in a transaction. -ENODATA: they
 * cannot be read. (failure_cover.c) */
int um_failure_cover(struct umbra_fs *fs, struct um_ptr at, void *out);
int um_failure_parity(struct umbra_fs *fs, um_lba_t lba, void *out);
/* Content of file data whose memory failed, from any source. -ENOENT, -EIO: there is none. */
int um_failure_content(struct umbra_fs *fs, um_lba_t lba, void *out);
/* Rewrites a block in place. wrong: its memory is good and its bytes are not; -EALREADY if they
 * are. -EAGAIN: not now; -ENODATA: its contents are unknown; other errors: it cannot be stored. */
int um_failure_rewrite_fixed(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, bool wrong);
/* Rewrites file data that does not match its checksum: 1 done, 0 it matches; -ENODATA, -EAGAIN,
 * -ESTALE: no longer anybody's data. */
int um_failure_rewrite_data(struct umbra_fs *fs, um_lba_t lba);

/* ---- seeing to it (failure.c) ------------------------------------------------------------------------------ */

#define UM_CURES                                                                                   \
	4u /* per block and operation: if it keeps going bad meanwhile, it is not ours to repair */

int um_failures_start(struct umbra_fs *fs);
void um_failures_stop(struct umbra_fs *fs);
/* There may be something to do. */
void um_failures_kick(struct umbra_fs *fs);
/* Does it now; for tests without a thread, and at the end of a mount. */
void um_failures_run(struct umbra_fs *fs);
/*
 * File data at lba cannot be read, or does not match its checksum (lba UM_LBA_MASK: it is unknown
 * which block was, check again). 0: it can be read now; -EIO. Called outside transactions and
 * without the read lock; an epoch may be held.
 */
int um_failure_cure(struct umbra_fs *fs, um_lba_t lba);
/*
 * Recreates a block of file data from the pool's redundancy: 0, -ENOENT (there is none), -EIO (too
 * much is lost). NULL: parity, if the pool has it; tests put something else here. Called with no
 * lock of fs/, by one thread at a time.
 */
extern int (*um_failure_source)(struct umbra_fs *fs, um_lba_t lba, void *out);

#endif
