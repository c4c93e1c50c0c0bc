/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Atomic durable updates. One transaction at a time changes metadata; readers go on meanwhile.
 *
 * A transaction works on copies: um_txn_edit() gives a private copy of a metadata block, and nothing
 * in the pool changes before um_txn_commit(). Commit compares the copies with the pool, writes what
 * differs as one checksummed redo record to the journal, makes it durable (direct pools) or hands it
 * to the kernel (indirect), then stores the changes to their homes under the apply lock. An abort
 * drops the copies and gives the newly allocated blocks back: nothing else is needed.
 *
 * Locks, outermost first (src/DESIGN.md has the whole order):
 *   log->writer   held from um_txn_begin to commit or abort; taken inside inode locks
 *   log->apply    readers share it while they follow pointers in metadata; commit takes it alone
 *                 for the few microseconds of the stores. Never held while waiting for anything.
 */
#ifndef UM_TXN_TXN_H
#define UM_TXN_TXN_H

#include "pool/pool.h"

struct um_log;
struct um_txn;
struct um_space;

/* Reads the journal header, replays what is needed, and is ready for transactions. */
int um_log_open(struct um_pool *pool, struct um_log **out);
/* Orderly end: everything durable, private pages written home. */
int um_log_close(struct um_log *log);
/* Drops the log without writing anything more (after a shutdown ioctl, in crash tests). */
void um_log_abandon(struct um_log *log);
/* mkfs: writes the journal header of a new pool. */
int um_log_format(struct um_pool *pool);
/* Transactions replayed at open; 0 after an orderly unmount. */
uint64_t um_log_replayed(const struct um_log *log);
struct um_pool *um_log_pool(struct um_log *log);
/* txn and space know each other through this: commit tells space which blocks became free. */
void um_log_set_space(struct um_log *log, struct um_space *space);

/* Makes all committed transactions durable on the medium. Direct pools: nothing to do. */
int um_log_sync(struct um_log *log);
/*
 * The same for who has other things to do: done() is called, in this thread or another, when what was committed
 * before the call is durable (err 0) or cannot be made so. It must not wait for other syncs.
 */
struct um_synced {
	void (*done)(struct um_synced *synced, int err);
	struct um_synced *next; /* the log's */
};
void um_log_sync_start(struct um_log *log, struct um_synced *synced);
/* From here on a thread of the log's does that; until then, and on direct pools, the caller's. */
int um_log_serve(struct um_log *log);
void um_log_serve_end(
	struct um_log *log); /* when all who asked have been told; um_log_abandon does it too */
/*
 * Indirect pools: writes all committed metadata home and empties the journal up to there; also within a
 * transaction, whose own changes are not in it. Direct pools: nothing to do.
 */
int um_log_checkpoint(struct um_log *log);
/*
 * Sequence number of the last commit; the last one known to be durable; the last one whose metadata
 * is at home, so that no journal record and no private page stands for it any more (direct pools: the
 * same as committed).
 */
uint64_t um_log_committed(const struct um_log *log);
uint64_t um_log_durable(const struct um_log *log);
/* A group commit that rests on no list of data (pool/rests.h). */
int um_log_seal(struct um_log *log);
/* Durable, whatever becomes of file data that a COMMIT lists. */
uint64_t um_log_firm(const struct um_log *log);
uint64_t um_log_checkpointed(const struct um_log *log);
/*
 * Stops all changes: begin and sync fail with err (EIO after a shutdown ioctl, EROFS) from now on, and
 * nothing more is written. flush: sync first.
 */
void um_log_stop(struct um_log *log, int err, bool flush);

/*
 * Errors of the medium. The journal could not be written, or a barrier failed: nothing that follows could be made durable, so
 * changes stop, and begin and sync fail with EROFS from then on. What was durable is; after a barrier that failed the next
 * mount finds that and no more, as after a power cut. go_on: a journal write that fails is only that transaction's
 * error. failed(arg) is called once, when changes have stopped, with locks held.
 */
void um_log_on_error(struct um_log *log, bool go_on, void (*failed)(void *arg), void *arg);
/* 0, or the error that changes were stopped for, and in which doing. */
int um_log_failed(const struct um_log *log, const char **out_what);
/* 0, or the error that changes fail with since they were stopped, for whatever reason. */
int um_log_stopped(const struct um_log *log);

/* Readers' side of the apply lock. Not recursive; not needed by the thread that runs a txn. */
void um_log_read_lock(struct um_log *log);
void um_log_read_unlock(struct um_log *log);

/* ---- a transaction ------------------------------------------------------------------------------ */

#define UM_TXN_RESERVE 1u /* frees space: may use the blocks kept back for that */
int um_txn_begin(struct um_log *log, unsigned flags, struct um_txn **out);
/* Durable (direct) or safe from the daemon's death (indirect) at return. The txn is gone, also on error. */
int um_txn_commit(struct um_txn *txn);
void um_txn_abort(struct um_txn *txn); /* NULL is fine */
/* Commit when *err is 0, abort otherwise; returns the final error. For one-exit functions. */
int um_txn_end(struct um_txn *txn, int err);
uint64_t um_txn_seq(const struct um_txn *txn); /* the number it will commit under */
unsigned um_txn_flags(const struct um_txn *txn);
struct um_log *um_txn_log(struct um_txn *txn);
struct um_pool *um_txn_pool(struct um_txn *txn);
struct um_space *um_txn_space(struct um_txn *txn);
/* Bytes its record would have now, roughly, and how many are sensible in one transaction. */
size_t um_txn_bytes(const struct um_txn *txn);
#define UM_TXN_BYTES_SOFT (256u << 10)

/*
 * Where metadata is read: through a transaction (its copies first) or by a reader that holds
 * um_log_read_lock() (txn NULL). Pointers from um_src_get are good until the lock is given up, or,
 * within the txn, until that block is edited or freed.
 */
struct um_src {
	struct um_pool *pool;
	struct um_txn *txn;
};
int um_src_get(struct um_src src, struct um_ptr ptr, enum um_kind kind, const void **out);
static inline struct um_src um_txn_src(struct um_txn *txn)
{
	return (struct um_src){um_txn_pool(txn), txn};
}

/* A copy of the block at ptr to change; the same copy when asked again. Header fields stay as they are. */
int um_txn_edit(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, void **out);
/*
 * Sets n 32-bit values of a block, the first-th behind its start and on. As an edit; but a block that is
 * changed in no other way, as many count pages are when a leaf is copied, needs no copy.
 */
int um_txn_fill(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, unsigned first,
	unsigned n, uint32_t value);
/*
 * An edit of a block at a static place whose old content does not matter and may never have been
 * initialised (a chunk's counts): not verified; a zeroed copy with a fresh header, written whole as
 * if it were new. The current copy when this txn has one already, zeroed again.
 */
int um_txn_overwrite(
	struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, uint64_t owner, void **out);
/*
 * A superblock, or a backup of it, at lba becomes `block`. The first one's home is stored to last of all that the
 * transaction changes, and when that is durable: at any moment one of the two copies is sound.
 */
int um_txn_super(struct um_txn *txn, um_lba_t lba, const void *block);
/* The pool's next superblock takes force, in the eyes of readers and of the next transaction (um_pool_publish). */
void um_log_publish(struct um_log *log);
/*
 * A new metadata block (and its mirror): allocated, refcount 1, header filled in, body zero.
 * -ENOSPC. goal: an LBA to be near, or 0.
 */
int um_txn_new(struct um_txn *txn, enum um_kind kind, uint8_t level, um_lba_t goal,
	struct um_ptr *out_ptr, void **out);
/*
 * Drops one reference from a metadata block; when it was the last, the block and its mirror become
 * free at commit. *out_last says so (the caller then drops what the block referred to, before or
 * after; its content stays readable until commit).
 */
int um_txn_drop(struct um_txn *txn, struct um_ptr ptr, bool *out_last);
/*
 * New bytes for file data in place, all or nothing with the rest of the transaction (direct pools:
 * through the journal; indirect: pwrite at commit). The source is copied now.
 */
int um_txn_data(struct um_txn *txn, um_lba_t lba, uint32_t off, const void *src, size_t len);
/*
 * Parity covers n blocks from now on (whose content is there, or will be with the record), or not any more. New
 * and dropped metadata blocks, and freed blocks, see to it themselves; who makes file data count, or not count,
 * calls this.
 */
int um_txn_cover(struct um_txn *txn, um_lba_t lba, uint32_t n, bool on);
/*
 * What a block should have, from the others of its stripe and their parity: a pool's own word only where a
 * checksum says the same. -EIO: one of those cannot be read; -ENODATA: no parity covers the block. As a reader of
 * metadata, or within a transaction that has changed nothing yet.
 */
int um_parity_rebuild(struct um_src src, um_lba_t lba, void *out);
/* XOR of those blocks of lba's stripe whose bit is in mask. -EIO. */
int um_parity_sum(const struct um_pool *pool, um_lba_t lba, unsigned mask, void *out);
/* What the parity block at `at` should have. -EIO, -ENODATA: not one of those. As um_parity_rebuild. */
int um_parity_content(struct um_src src, um_lba_t at, void *out);
/* Is it that, with every block that it is the sum of? One that cannot be read, or is known to be wrong, cannot tell: true. */
bool um_parity_right(struct um_src src, um_lba_t at);
/* Called after commit took effect, in the committing thread, before the writer lock is released. */
typedef void um_txn_hook_fn(void *arg);
int um_txn_on_commit(struct um_txn *txn, um_txn_hook_fn *fn, void *arg);

/* For space/: blocks this txn allocated (returned on abort) or freed (released after commit). */
int um_txn_note_alloc(struct um_txn *txn, um_lba_t lba, uint32_t n);
int um_txn_note_free(struct um_txn *txn, um_lba_t lba, uint32_t n, bool meta);

/*
 * Indirect pools: a block that lost an owner but not its last counts as shared until that is durable
 * (unshared.c). For space/, and for whoever decides whether file data may be overwritten in place.
 */
void um_unshared_note(struct um_txn *txn, um_lba_t lba, uint32_t n);
bool um_unshared_lately(const struct um_pool *pool, um_lba_t lba);

struct um_log_stats {
	uint64_t commits, aborts, record_bytes, syncs, checkpoints, edits;
};
void um_log_stats(struct um_log *log, struct um_log_stats *out);

#endif
