/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Atomic durable updates. One transaction at a time changes metadata; readers continue meanwhile.
 *
 * A transaction works on copies: um_txn_edit() returns a private copy of a metadata block, and
 * nothing in the pool changes before um_txn_commit(). Commit compares the copies with the pool,
 * writes the differences as one checksummed redo record to the journal, makes it durable (direct
 * pools) or passes it to the kernel (indirect), then stores the changes to their homes under the
 * apply lock. An abort drops the copies and gives newly allocated blocks back; nothing else is
 * needed.
 *
 * Locks, outermost first (src/DESIGN.md has the whole order):
 *   log->writer   held from um_txn_begin to commit or abort; taken inside inode locks
 *   log->apply    shared by readers while they follow pointers in metadata; taken exclusively by
 *                 commit for the few microseconds of the stores. Never held while waiting.
 */
#ifndef UM_TXN_TXN_H
#define UM_TXN_TXN_H

#include "pool/pool.h"

struct um_log;
struct um_txn;
struct um_space;

/* Reads the journal header, replays what is needed, and prepares for transactions. */
int um_log_open(struct um_pool *pool, struct um_log **out);
/* Closes cleanly: everything durable, private pages written home. */
int um_log_close(struct um_log *log);
/* Drops the log without writing anything more (after a shutdown ioctl, in crash tests). */
void um_log_abandon(struct um_log *log);
/* mkfs: writes the journal header of a new pool. */
int um_log_format(struct um_pool *pool);
/* Transactions replayed at open; 0 after a clean unmount. */
uint64_t um_log_replayed(const struct um_log *log);
struct um_pool *um_log_pool(struct um_log *log);
/* Connects log and space: commit tells space which blocks became free. */
void um_log_set_space(struct um_log *log, struct um_space *space);

/* Makes all committed transactions durable on the medium. Direct pools: nothing to do. */
int um_log_sync(struct um_log *log);
/* The same without waiting: done() is called, in this thread or another, when what was committed
 * before the call is durable (err 0) or cannot be made so. It must not wait for other syncs. */
struct um_synced {
	void (*done)(struct um_synced *synced, int err);
	struct um_synced *next; /* used by the log */
};
void um_log_sync_start(struct um_log *log, bool may_wait, struct um_synced *synced);
/* Starts a thread of the log that does this; before that, and on direct pools, the caller's thread
 * does. */
int um_log_serve(struct um_log *log);
void um_log_serve_end(
	struct um_log *log); /* waits until all callers were notified; um_log_abandon does it too */
/* Indirect pools: writes all committed metadata home and empties the journal up to there. May be
 * called within a transaction, whose own changes are not included. Direct pools: nothing to do. */
int um_log_checkpoint(struct um_log *log);
/*
 * Sequence number of the last commit; of the last one known to be durable; of the last one whose
 * metadata is home, so that no journal record and no private page represents it any more (direct
 * pools: the same as committed).
 */
uint64_t um_log_committed(const struct um_log *log);
uint64_t um_log_durable(const struct um_log *log);
/* A group commit that depends on no list of data (pool/rests.h). */
int um_log_seal(struct um_log *log);
/* The last transaction that is durable whatever happens to file data listed by a COMMIT. */
uint64_t um_log_firm(const struct um_log *log);
uint64_t um_log_checkpointed(const struct um_log *log);
/* Stops all changes: from now on begin and sync fail with err (EIO after a shutdown ioctl, EROFS),
 * and nothing more is written. flush: sync first. */
void um_log_stop(struct um_log *log, int err, bool flush);

/*
 * Errors of the medium. If the journal cannot be written, or a barrier fails, nothing that follows
 * could be made durable; so changes stop, and begin and sync fail with EROFS from then on. What was
 * durable remains so; after a failed barrier the next mount finds exactly that, as after a power
 * cut. go_on: a failed journal write is an error of that transaction only. failed(arg) is called
 * once, when changes have stopped, with locks held.
 */
void um_log_on_error(struct um_log *log, bool go_on, void (*failed)(void *arg), void *arg);
/* 0, or the error because of which changes were stopped, and the operation it occurred in. */
int um_log_failed(const struct um_log *log, const char **out_what);
/* 0, or the error with which changes fail since they were stopped for any reason. */
int um_log_stopped(const struct um_log *log);

/* The readers' side of the apply lock. Not recursive; not needed by the thread that runs a txn. */
void um_log_read_lock(struct um_log *log);
void um_log_read_unlock(struct um_log *log);

/* ---- a transaction ------------------------------------------------------------------------------ */

#define UM_TXN_RESERVE 1u /* frees space: may use the blocks reserved for that */
int um_txn_begin(struct um_log *log, unsigned flags, struct um_txn **out);
/* At return the changes are durable (direct) or survive the daemon (indirect). The txn is gone,
 * also on error. */
int um_txn_commit(struct um_txn *txn);
void um_txn_abort(struct um_txn *txn); /* NULL is allowed */
/* Commits if *err is 0, else aborts; returns the final error. For functions with one exit. */
int um_txn_end(struct um_txn *txn, int err);
uint64_t um_txn_seq(const struct um_txn *txn); /* the number it will commit under */
unsigned um_txn_flags(const struct um_txn *txn);
struct um_log *um_txn_log(struct um_txn *txn);
struct um_pool *um_txn_pool(struct um_txn *txn);
struct um_space *um_txn_space(struct um_txn *txn);
/* Approximate size of its record now, and the largest sensible size. */
size_t um_txn_bytes(const struct um_txn *txn);
#define UM_TXN_BYTES_SOFT (256u << 10)

/*
 * Source of metadata reads: a transaction (its copies first), or a reader that holds
 * um_log_read_lock() (txn NULL). Pointers from um_src_get are valid until the lock is released or,
 * within a txn, until that block is edited or freed.
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

/* A copy of the block at ptr to change; repeated calls return the same copy. Header fields are
 * unchanged. */
int um_txn_edit(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, void **out);
/* Sets n 32-bit values of a block, from the first-th after its start. An edit; but a block that is
 * changed in no other way, as many count pages are when a leaf is copied, needs no copy. */
int um_txn_fill(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, unsigned first,
	unsigned n, uint32_t value);
/*
 * Edits a block at a static place whose old content does not matter and may never have been
 * initialised (a chunk's counts): it is not verified; returns a zeroed copy with a fresh header,
 * which is written whole. If this txn already has a copy, that one is zeroed again.
 */
int um_txn_overwrite(
	struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, uint64_t owner, void **out);
/*
 * A superblock, or a backup of it, at lba becomes `block`. The home of the first copy is stored
 * last of all, once everything else in the transaction is durable: at any moment one of the two
 * copies is valid.
 */
int um_txn_super(struct um_txn *txn, um_lba_t lba, const void *block);
/* The pool's next superblock takes effect for readers and for the next transaction
 * (um_pool_publish). */
void um_log_publish(struct um_log *log);
/*
 * A new metadata block (and its mirror): allocated, refcount 1, header filled in, body zero.
 * -ENOSPC. goal: an LBA to be near, or 0.
 */
int um_txn_new(struct um_txn *txn, enum um_kind kind, uint8_t level, um_lba_t goal,
	struct um_ptr *out_ptr, void **out);
/*
 * Drops one reference to a metadata block; if it was the last (*out_last), the block and its mirror
 * become free at commit. The caller then drops what the block referred to, before or after; its
 * content stays readable until commit.
 */
int um_txn_drop(struct um_txn *txn, struct um_ptr ptr, bool *out_last);
/* New bytes for file data in place, atomic with the rest of the transaction (direct pools: through
 * the journal; indirect: pwrite at commit). The source is copied now. */
int um_txn_data(struct um_txn *txn, um_lba_t lba, uint32_t off, const void *src, size_t len);
/*
 * Parity covers n blocks from now on (whose content is there, or will be with the record), or no
 * longer. New and dropped metadata blocks, and freed blocks, are handled automatically; whoever
 * makes file data count, or stop counting, calls this.
 */
int um_txn_cover(struct um_txn *txn, um_lba_t lba, uint32_t n, bool on);
/*
 * Rebuilds a block from the others of its stripe and their parity. The result is only trustworthy
 * if a checksum confirms it. -EIO: one of those cannot be read; -ENODATA: parity does not cover the
 * block. Called as a reader of metadata, or within a transaction that has changed nothing yet.
 */
int um_parity_rebuild(struct um_src src, um_lba_t lba, void *out);
/* XOR of those blocks of lba's stripe whose bit is in mask. -EIO. */
int um_parity_sum(const struct um_pool *pool, um_lba_t lba, unsigned mask, void *out);
/* The right contents of the parity block at `at`. -EIO; -ENODATA: there is no parity block. Called
 * as um_parity_rebuild. */
int um_parity_content(struct um_src src, um_lba_t at, void *out);
/* Does it have these contents? True also if this cannot be determined because a block cannot be
 * read or is known to be wrong. */
bool um_parity_right(struct um_src src, um_lba_t at);
/* Called after a commit took effect, in the committing thread, before the writer lock is
 * released. */
typedef void um_txn_hook_fn(void *arg);
int um_txn_on_commit(struct um_txn *txn, um_txn_hook_fn *fn, void *arg);

/* For space/: blocks this txn allocated (returned on abort) or freed (released after commit). */
int um_txn_note_alloc(struct um_txn *txn, um_lba_t lba, uint32_t n);
int um_txn_note_free(struct um_txn *txn, um_lba_t lba, uint32_t n, bool meta);

/*
 * Indirect pools: a block that lost an owner but not its last counts as shared until that is
 * durable and relies on no list of data (unshared.c). For space/, and for code that decides whether
 * file data may be overwritten in place.
 */
void um_unshared_note(struct um_txn *txn, um_lba_t lba, uint32_t n);
bool um_unshared_lately(const struct um_pool *pool, um_lba_t lba);

struct um_log_stats {
	uint64_t commits, aborts, record_bytes, syncs, checkpoints, edits;
};
void um_log_stats(struct um_log *log, struct um_log_stats *out);

#endif
