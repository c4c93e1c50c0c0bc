/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space: persistent reference counts, and the volatile index of free blocks.
 *
 * A block is allocated if and only if its count is above 0; there is no other record. The index of
 * free space is built at mount from the groups' chunk words (one word per 2 MiB); the counts of a
 * chunk are read when an allocation first searches it.
 *
 * Freed blocks are reused only when (1) the transaction that freed them is durable and relies on no
 * list of data (pool/rests.h), (2) every request that could still point at them has ended (epochs),
 * and (3) on indirect pools, for metadata blocks wanted as data, a checkpoint has passed. Until then
 * they wait in quarantine; they count as free in statfs.
 */
#ifndef UM_SPACE_SPACE_H
#define UM_SPACE_SPACE_H

#include "txn/txn.h"

struct um_space;

int um_space_open(struct um_log *log, struct um_space **out);
/* Before or after the log is closed, when no more transactions will run. NULL is allowed. */
void um_space_close(struct um_space *space);
/* mkfs: words and counts of a new pool; the journal's blocks (and its mirror's) get count 1. */
int um_space_format(struct um_pool *pool);
/* The same for the groups from `from` on, of a pool with the geometry of shape's superblock. */
int um_space_format_groups(struct um_pool *pool, const struct um_pool *shape, uint32_t from);
/* The pool has grown: what was added is free. -ENOMEM: it stays unused until the next mount. */
int um_space_grow(struct um_space *space);

struct um_space_stat {
	uint64_t total;    /* blocks that are not tables or journal */
	uint64_t free;     /* count 0, including reserved and quarantined ones */
	uint64_t avail;    /* available to file data: free less the reserve */
	uint64_t reserved; /* taken with um_space_take, not yet committed */
	uint64_t quarantined;
};
void um_space_stat(struct um_space *space, struct um_space_stat *out);

#define UM_SPACE_META 1u    /* for metadata: may use the metadata reserve */
#define UM_SPACE_RESERVE 2u /* for a txn that frees space: may use the last reserve */
/*
 * Takes a run of up to `want` free blocks at or after goal (0: anywhere), never crossing a chunk.
 * It is volatile until um_ref_alloc in a committed transaction, or um_space_give. Waits for
 * quarantined blocks (forcing a sync) before it returns -ENOSPC. Prefers a run of `want`, else the
 * longest it finds nearby. Metadata is kept together, away from data; a mirror far from its
 * primary. Must not be called with um_log_read_lock held; may be called inside a transaction.
 */
int um_space_take(struct um_space *space, um_lba_t goal, uint32_t want, unsigned flags,
	um_lba_t *out_lba, uint32_t *out_got);
void um_space_give(struct um_space *space, um_lba_t lba, uint32_t n);
/* Takes exactly this block; -EBUSY if it is not free, or in quarantine. */
int um_space_take_at(struct um_space *space, um_lba_t lba);
/* Like take, for one metadata block and, with copies == 2, its mirror. */
int um_space_take_meta(struct um_space *space, um_lba_t goal, unsigned flags, struct um_ptr *out);

/* ---- back to the host (trim.c) ---------------------------------------------------------------------- */

/*
 * Trims a piece of the chunks from *chunk to end: free runs of at least `min` blocks are returned
 * to the host. *chunk: where to continue; *blocks is increased. -EOPNOTSUPP: not possible for this
 * pool; other errors are those of the host.
 */
int um_space_trim(
	struct um_space *space, uint64_t *chunk, uint64_t end, uint32_t min, uint64_t *blocks);
/* um_space_discard: from now on chunks in which blocks come free are recorded.
 * um_space_discard_some: trims up to `limit` of them; are there more? */
int um_space_discard(struct um_space *space);
int um_space_discard_some(struct um_space *space, unsigned limit, bool *more);

/* ---- counts; all in a transaction -------------------------------------------------------------- */

/* Taken blocks, all in one chunk, become allocated: 0 -> 1. From here on the txn gives them back if
 * it aborts; after an error the caller still has to. */
int um_ref_alloc(struct um_txn *txn, um_lba_t lba, uint32_t n);
/* +1 for each of n blocks. -EMLINK (nothing changed) if a count is at UM_REF_MAX: copy instead. */
int um_ref_get(struct um_txn *txn, um_lba_t lba, uint32_t n);
/* -1 for each; those that reach 0 are noted as freed. *out_freed (or NULL): their number. */
int um_ref_put(struct um_txn *txn, um_lba_t lba, uint32_t n, bool meta, uint32_t *out_freed);
/* Have all blocks of the block's chunk the same count, and which? Cheap: no counts are read. */
bool um_ref_uniform(struct um_src src, um_lba_t lba, uint32_t *out_count);
/*
 * A block whose place is bad (um_pool_place_bad) does not become free when its last reference goes,
 * but retired: its count stays UM_REF_RETIRED, and it is not noted as freed, though *out_freed
 * counts it. um_ref_retire retires a free block, taken with um_space_take_at.
 */
int um_ref_retire(struct um_txn *txn, um_lba_t lba);
/* Count of one block, and for how many of the following n blocks (1..n) it is the same. */
int um_ref_count(
	struct um_src src, um_lba_t lba, uint32_t n, uint32_t *out_count, uint32_t *out_run);

/* ---- checksums of file data (csum.c); pools that have them ---------------------------------------- */

/* Sets the checksums of n blocks from lba on, in the transaction that makes the data count. */
int um_csum_set(struct um_txn *txn, um_lba_t lba, uint32_t n, const uint32_t *value);
/* The stored checksums of n blocks of written file data. */
int um_csum_get(struct um_src src, um_lba_t lba, uint32_t n, uint32_t *out);
/*
 * Verifies the checksums of n blocks of written file data, which an epoch protects from reuse; the
 * caller holds neither the read lock nor a transaction. -EIO: *out_bad is the first that does not
 * match or cannot be read. Blocks that a transaction overwrites meanwhile are no error.
 */
int um_csum_verify(struct um_log *log, um_lba_t lba, uint64_t n, um_lba_t *out_bad);

/*
 * For commit only, after it took effect, with no lock but the writer's: once for each run given to
 * um_txn_note_alloc (they are allocated for good), once for each given to um_txn_note_free. An
 * abort calls um_space_give for each run given to um_txn_note_alloc.
 */
void um_space_allocated(struct um_space *space, um_lba_t lba, uint32_t n);
void um_space_committed(struct um_space *space, uint64_t seq, um_lba_t lba, uint32_t n, bool meta);

/* ---- epochs --------------------------------------------------------------------------------------- */

/* A thread that will access the pool without a lock (a reply from pool memory) holds an epoch from
 * before its lookup until the reply has been sent. Cheap, no lock; may nest. */
void um_epoch_enter(struct um_space *space);
void um_epoch_leave(struct um_space *space);
/* The same for work that outlives the thread's present task; any thread can release it. */
void *um_epoch_hold(struct um_space *space);
void um_epoch_let_go(struct um_space *space, void *hold);
/* Moves what may be reused out of quarantine; called by take, statfs and the background thread. */
void um_space_reap(struct um_space *space);

#endif
