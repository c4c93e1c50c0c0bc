/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Internal to txn/: the log, its journal ring, the set of blocks to write home, the transaction.
 *
 * Locks of this directory, outermost first: writer -> checkpoint_lock -> ring_lock -> apply ->
 * sync_lock. Their place in the whole lock order is in src/DESIGN.md.
 */
#ifndef UM_TXN_INTERNAL_H
#define UM_TXN_INTERNAL_H

#include <errno.h>

#include "txn/txn.h"

/* ---- a growing buffer ------------------------------------------------------------------------- */

struct um_buf {
	uint8_t *at;
	size_t len, cap;
};
/* Room for `more` bytes behind len. -ENOMEM. */
int um_buf_reserve(struct um_buf *buf, size_t more);

/* ---- the journal: a ring of records ---------------------------------------------------------------- */

/* Offsets count bytes in the ring, which begins behind the header block. */
struct um_ring {
	struct um_pool *pool;
	um_lba_t lba, mirror; /* first block of the ring, and of its second copy or 0 */
	uint64_t size;        /* bytes */
	uint64_t head;        /* where the next record goes */
	uint64_t tail;        /* where replay would start */
	uint64_t used;        /* bytes from tail to head, including those skipped at the end */
	uint64_t seq;         /* of the last transaction written */
	uint64_t hint;        /* tail_seq as stored */
};

/* The contents of the header. */
struct um_ring_state {
	uint8_t boot_id[16];
	uint32_t mode;
	uint64_t tail, tail_seq; /* offset, and the sequence number expected there */
	bool repair;             /* one copy of the header is bad */
};
uint64_t um_journal_csum(const struct um_journal *head);
/*
 * Identifies what the host's page cache of the pool has lived through: the boot and, for a block
 * device, its attachment (a device that was lost took unwritten data with it). All zeros: unknown,
 * where there is no such identifier. An error is different: the identifier exists and could be read
 * another time, and it decides whether records of a dead daemon count.
 */
int um_boot_id(const struct um_pool *pool, uint8_t out[16]);
extern const uint8_t *um_boot_id_fake; /* NULL, or the boot id that tests substitute */
int um_ring_load(struct um_pool *pool, struct um_ring *ring, struct um_ring_state *out);
/* Writes the whole header: boot, mode, and the ring's tail with seq + 1 expected there. */
int um_ring_store(struct um_ring *ring, const uint8_t boot_id[16], uint32_t mode);
/* The next mount must not believe the host's page cache: only COMMITs count. Best effort. */
void um_ring_disown(struct um_ring *ring);
/* Moves the tail; durable after the next drain (direct) or barrier. */
int um_ring_move_tail(struct um_ring *ring, uint64_t offset, uint64_t next_seq);
/* Bytes that a record of len would take at the head now, including what has to be skipped. */
uint64_t um_ring_cost(const struct um_ring *ring, uint64_t len);
/* Seals the record (type and nentry are set by the caller; len is a multiple of 64) and writes it
 * at the head. On failure nothing counts as written. Not durable yet. */
int um_ring_append(struct um_ring *ring, struct um_record *record, uint64_t len, uint64_t seq);
/*
 * The valid record at the cursor, if its number is `next_seq`, that of the next transaction: 0 and
 * the record in the memory of the pool (usable until the ring is written to), the cursor moved past
 * it; -ENOENT at the end. WRAP records are followed, not returned.
 */
struct um_cursor {
	uint64_t offset;
	uint64_t walked; /* bytes; never more than the ring has */
};
int um_ring_read(const struct um_ring *ring, struct um_cursor *cursor, uint64_t next_seq,
	const struct um_record **out);

/* ---- entries of a record ------------------------------------------------------------------------------ */

/* Appends what turns `was` (NULL: unknown, everything) into `now`, a metadata block at ptr. The
 * buffer must have room for UM_DIFF_MAX bytes. Returns the number of entries. */
#define UM_DIFF_MAX (4 * UM_BLOCK_SIZE)
uint32_t um_diff_block(struct um_buf *buf, struct um_ptr ptr, const void *was, const void *now);
/* The same in two steps, for callers that need to know whether anything changed before the block is
 * sealed. */
#define UM_CHANGE_WORDS (UM_BLOCK_SIZE / 8 / 64)
struct um_changes {
	uint64_t word[UM_CHANGE_WORDS]; /* a bit for each 8 bytes that differ */
};
bool um_diff_find(const void *was, const void *now, struct um_changes *out); /* any? */
/* Marks these bytes as different. */
void um_diff_add(struct um_changes *changes, uint32_t off, uint32_t len);
uint32_t um_diff_put(struct um_buf *buf, struct um_ptr ptr, const void *was, const void *now,
	const struct um_changes *changes);
/* Bytes of an entry with what follows it. */
static inline size_t um_entry_size(const struct um_entry *entry)
{
	size_t len = sizeof(*entry);

	if (entry->type != UM_ENTRY_FILL)
		len += ((size_t)entry->len + 7) & ~(size_t)7;
	return len;
}
/* Are all entries of a record inside the record and inside the pool? */
bool um_record_sound(const struct um_pool *pool, const struct um_record *record);
/* Stores those entries of a record that are of the wanted type. Idempotent. The dirty set of an
 * indirect pool must have room (um_dirty_reserve). */
#define UM_APPLY_DATA 1u
#define UM_APPLY_META 2u
int um_record_apply(struct um_log *log, const struct um_record *record, unsigned which);

/* ---- indirect pools: blocks whose private page is newer than the file ------------------------------------ */

struct um_dirty_block {
	um_lba_t lba;
	uint64_t seq;   /* of the last change */
	uint64_t image; /* seq when a checkpoint last took its image */
};
struct um_dirty {
	struct um_dirty_block *at;
	uint32_t n, cap;
	uint32_t *index; /* open addressing, index into at + 1; a power of two, at least 2 * cap */
	uint32_t mask;
};
int um_dirty_reserve(struct um_dirty *dirty, uint32_t more);
void um_dirty_add(struct um_dirty *dirty, um_lba_t lba, uint64_t seq);
/* Removes the blocks for which gone returns true. */
void um_dirty_prune(struct um_dirty *dirty,
	bool (*gone)(const struct um_dirty_block *block, void *arg), void *arg);
void um_dirty_free(struct um_dirty *dirty);

/* ---- the transaction ---------------------------------------------------------------------------------------- */

struct um_copy {
	um_lba_t lba;
	um_lba_t mirror;
	uint8_t *now;    /* the private copy; NULL: none was needed so far */
	const void *was; /* the block in the pool, to compare with; NULL: write all of it */
	enum um_kind kind;
	bool fresh; /* allocated by this txn */
	bool freed; /* its last reference was dropped by this txn */
	/* Without `now`: the only change is that these 32-bit values become `value`. n 0: none. */
	struct um_fill {
		uint16_t first, n;
		uint32_t value;
	} fill;
};
struct um_hook {
	um_txn_hook_fn *fn;
	void *arg;
};
struct um_range {
	um_lba_t lba;
	uint32_t n;
	bool meta;
};
struct um_txn {
	struct um_log *log;
	unsigned flags;
	uint64_t seq;
	struct um_copy *copies;
	uint32_t ncopies, cap_copies;
	uint32_t nnow;   /* copies with content or a fill */
	uint32_t nnew;   /* of them new blocks */
	uint32_t nfresh; /* blocks written straight home */
	/* lba -> copy: open addressing; a slot is valid only if its stamp is this transaction's. */
	struct um_slot_ref {
		uint32_t stamp, copy;
	} * table;
	uint32_t mask, stamp;
	struct um_buf record; /* head, data entries as they come, metadata entries at commit */
	uint32_t nentry;
	uint32_t ndata; /* of them data */
	struct um_range *allocs, *frees;
	uint32_t nallocs, cap_allocs, nfrees, cap_frees;
	struct um_range *covers; /* blocks that enter or leave parity; meta: enter */
	uint32_t ncovers, cap_covers;
	struct um_hook *hooks;
	uint32_t nhooks, cap_hooks;
};
/* Blocks of one chunk whose bit changes. */
int um_txn_note_cover(struct um_txn *txn, um_lba_t lba, uint32_t n, bool on);
struct um_copy *um_txn_find(const struct um_txn *txn, um_lba_t lba);
/* Fills copy->now, which has room for a block, with what the block is in this transaction. */
int um_txn_load(struct um_txn *txn, struct um_copy *copy);
void um_txn_reset(struct um_txn *txn); /* releases the copies' buffers and clears everything */
void um_txn_free(struct um_txn *txn);  /* at the end of the log */

/* ---- the log --------------------------------------------------------------------------------------------------- */

struct um_log {
	struct um_pool *pool;
	struct um_space *space;
	bool direct;
	bool new_super; /* replay has changed the superblock */
	uint64_t replayed;
	uint8_t boot_id[16]; /* of the present boot; for indirect pools */

	pthread_mutex_t
		writer; /* one transaction: its holder owns txn and, on a direct pool, the ring */
	_Atomic(uintptr_t) owner; /* thread that holds writer, 0 when free: um_log_self() */
	struct um_txn txn;
	/*
	 * Indirect pools: protects ring and dirty, and what commits store to the mapping. It is not
	 * the writer lock, so that a transaction that waits for space can wait for a checkpoint or
	 * a group commit of others.
	 */
	pthread_mutex_t ring_lock;
	struct um_ring ring;
	struct um_dirty dirty;
	uint8_t **spare; /* block buffers for copies */
	uint32_t nspare, cap_spare;

	pthread_rwlock_t apply; /* metadata in the mapping: shared to read, else to store */

	_Atomic(int) stopped; /* negative errno that begin returns */
	_Atomic(int) failed;  /* error of the medium that stopped it */
	_Atomic(const char *) failed_what;
	bool go_on;
	void (*on_failed)(void *arg);
	void *on_failed_arg;
	_Atomic(uint64_t) committed, durable, checkpointed;
	/* Up to where there is a COMMIT record; up to where there is one that depends on no list of
	 * data (both set with ring_lock held); and up to where that one is durable. */
	_Atomic(uint64_t) covered, covered_firm, firm;
	atomic_bool disowned; /* the ring, because a barrier failed */

	/* Group commit: callers of sync share a round that starts after their call. */
	pthread_mutex_t sync_lock;
	pthread_cond_t sync_cond;
	uint64_t rounds_started, rounds_done; /* under sync_lock, like the two below */
	bool sync_running;
	bool seal_wanted;           /* the next round must depend on no list */
	int sync_result;            /* of the last round */
	_Atomic(uint64_t) round_ns; /* how long rounds take, of late */

	/* The thread that commits for callers that do not wait; under sync_lock. */
	struct um_committer {
		pthread_t thread;
		pthread_cond_t cond;
		struct um_synced *first, **last; /* who asked */
		bool runs, stop;
		bool relieved; /* a caller carries out a round itself */
	} committer;

	pthread_mutex_t checkpoint_lock; /* one checkpoint at a time */
	uint8_t *images;                 /* UM_CHECKPOINT_BATCH blocks; under checkpoint_lock */

	_Atomic(uint64_t) n_commits, n_aborts, n_record_bytes, n_syncs, n_checkpoints, n_edits;
};
#define UM_CHECKPOINT_BATCH 256u

/* ---- parity (parity.c); nothing to do in a pool without ---------------------------------------------------------- */

/* For commit, under the apply lock: before the record is applied, and after. */
void um_parity_before(struct um_log *log, const struct um_record *record);
void um_parity_after(struct um_txn *txn);
/* Upper bound of the parity blocks that may change. */
uint32_t um_parity_blocks(const struct um_txn *txn);
/* For replay: collects what a record touches; then, when all are applied, recomputes it. */
struct um_stripes {
	um_lba_t *at;
	uint32_t n, cap;
};
int um_parity_note(struct um_log *log, const struct um_record *record, struct um_stripes *stripes);
int um_parity_replay(struct um_log *log, struct um_stripes *stripes, uint64_t seq);

/* A value that identifies the calling thread. */
uintptr_t um_log_self(void);
void um_log_lock_writer(struct um_log *log);
void um_log_unlock_writer(struct um_log *log);
static inline bool um_log_is_writer(const struct um_log *log)
{
	return atomic_load_explicit(&log->owner, memory_order_relaxed) == um_log_self();
}
/* Makes `seq` durable by a COMMIT without a list; returns at once if it already is. */
int um_log_seal_to(struct um_log *log, uint64_t seq);
/* At open: everything up to seq is committed, durable and home. */
void um_log_set_seq(struct um_log *log, uint64_t seq);
/* Stops all changes after an unrecoverable error, and logs it, once. */
void um_log_fail(struct um_log *log, int err, const char *what);
/* The file below has no room: this operation fails, the next may succeed. */
static inline bool um_no_room(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -EFBIG;
}
/* Takes the writer lock once changes are allowed and the journal has room for any transaction. */
int um_log_lock_for_txn(struct um_log *log);
/*
 * Kept free for COMMIT records when a transaction begins: for one before it, and its own. Each may
 * need one that lists data, for which the end of the ring may have to be skipped, and one that does
 * not (pool/rests.h): a block.
 */
#define UM_RING_RESERVE (2ull * UM_BLOCK_SIZE)
/* Largest record a transaction may have. */
uint64_t um_log_record_max(const struct um_log *log);
/* Reads the journal and stores what is committed but not home; the ring then ends after the last
 * record found. */
int um_log_replay(struct um_log *log, const struct um_ring_state *state);
int um_unshared_open(struct um_log *log);
void um_unshared_close(struct um_pool *pool);
/* Block buffers. */
uint8_t *um_log_get_buffer(struct um_log *log);
void um_log_put_buffer(struct um_log *log, uint8_t *buffer);

#endif
