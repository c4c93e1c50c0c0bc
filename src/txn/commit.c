/* SPDX-License-Identifier: BSD-3-Clause */
/* Commit. Everything that can fail comes before the record is complete in the journal. From then on
 * the transaction has happened, and what follows only stores what the record says. */
#include <errno.h>
#include <string.h>

#include "pool/log.h"
#include "pool/seeded.h"
#include "space/space.h"
#include "txn/internal.h"

/* Indirect pools: file data in place goes to the kernel first, not through the journal. */
static int write_data(struct um_txn *txn)
{
	const uint8_t *at = txn->record.at + sizeof(struct um_record);
	uint32_t i;
	int ret;

	for (i = 0; i < txn->ndata; i++) {
		const struct um_entry *entry = (const struct um_entry *)at;

		ret = um_pool_write(txn->log->pool, entry->lba, entry->off, entry + 1, entry->len);
		if (ret)
			return ret;
		at += um_entry_size(entry);
	}
	txn->record.len = sizeof(struct um_record);
	txn->nentry = txn->ndata = 0;
	return 0;
}

/* Direct pools: a new block goes straight home, where nothing refers to it yet. If memory fails
 * under one copy, the other remains. */
static int write_fresh(struct um_txn *txn, const struct um_copy *copy)
{
	struct um_ptr ptr = {copy->lba, copy->mirror};
	struct um_pool *pool = txn->log->pool;
	int ret2 = -EIO, ret;

	ret = um_pool_write(pool, copy->lba, 0, copy->now, UM_BLOCK_SIZE);
	if (ret && (ret != -EIO || !um_pool_lost(pool, copy->lba, 1)))
		return ret;
	if (copy->mirror)
		ret2 = um_pool_write(pool, copy->mirror, 0, copy->now, UM_BLOCK_SIZE);
	if (copy->mirror && (ret || (ret2 == -EIO && um_pool_lost(pool, copy->mirror, 1)))) {
		if (ret && ret2)
			return -EIO;
		um_trouble_add(pool, &(struct um_trouble){ret ? copy->lba : copy->mirror, ptr,
					     copy->kind, UM_TROUBLE_COPY});
		return 0;
	}
	return ret || !copy->mirror ? ret : ret2;
}

/* Finds what a copy changes, before it is sealed. False: nothing. */
static bool find_changes(const struct um_copy *copy, struct um_changes *out)
{
	if (!copy->fill.n || !copy->was)
		return um_diff_find(copy->was, copy->now, out);
	memset(out, 0, sizeof(*out));
	um_diff_add(out, 4u * copy->fill.first, 4u * copy->fill.n);
	return true;
}

/* If memory fails while the old content is compared, it is replaced by zeros, and the differences
 * found would be too few for the other copy. Then the whole block goes into the record. */
static int add_to_record(struct um_txn *txn, struct um_copy *copy)
{
	struct um_ptr ptr = {copy->lba, copy->mirror};
	size_t len = txn->record.len;
	uint32_t nentry = txn->nentry;
	struct um_changes changes;
	int ret;

	if (!find_changes(copy, &changes))
		return 0;
	ret = um_buf_reserve(&txn->record, UM_DIFF_MAX);
	if (ret)
		return ret;
	um_block_seal(copy->now);
	um_diff_add(&changes, offsetof(struct um_block_hdr, csum), sizeof(um_le64_t));
	txn->nentry += um_diff_put(&txn->record, ptr, copy->was, copy->now, &changes);
	if (!um_guard_check() || !copy->was)
		return 0;
	txn->record.len = len;
	txn->nentry = nentry;
	copy->was = NULL;
	return add_to_record(txn, copy);
}

static int add_copy_to_record(struct um_txn *txn, struct um_copy *copy)
{
	int ret;

	if (copy->freed || (!copy->now && !copy->fill.n))
		return 0;
	if (copy->fresh && txn->log->direct) {
		um_block_seal(copy->now);
		txn->nfresh++;
		return write_fresh(txn, copy);
	}
	if (copy->now)
		return add_to_record(txn, copy);
	/* One buffer for all of these, in turn, so that it stays in the processor's cache. */
	copy->now = um_log_get_buffer(txn->log);
	ret = copy->now ? um_txn_load(txn, copy) : -ENOMEM;
	if (!ret)
		ret = add_to_record(txn, copy);
	um_log_put_buffer(txn->log, copy->now);
	copy->now = NULL;
	return ret;
}

static int build_record(struct um_txn *txn)
{
	struct um_log *log = txn->log;
	struct um_record *record;
	size_t len;
	uint32_t i;
	int ret = log->direct ? 0 : write_data(txn);

	for (i = 0; i < txn->ncopies && !ret; i++)
		ret = add_copy_to_record(txn, &txn->copies[i]);
	len = (txn->record.len + 63) & ~(size_t)63;
	if (!ret && len > um_log_record_max(log)) {
		um_err("%s: a transaction of %zu bytes is too large for the journal",
			log->pool->path, len);
		ret = -E2BIG;
	}
	if (!ret)
		ret = um_buf_reserve(&txn->record, len - txn->record.len);
	if (ret)
		return ret;
	memset(txn->record.at + txn->record.len, 0, len - txn->record.len);
	txn->record.len = len;
	record = (struct um_record *)txn->record.at;
	record->type = UM_RECORD_TXN;
	record->nentry = txn->nentry;
	return 0;
}

static bool is_freed(const struct um_txn *txn, um_lba_t lba)
{
	uint32_t i;

	for (i = 0; i < txn->nfrees; i++)
		if (lba >= txn->frees[i].lba && lba - txn->frees[i].lba < txn->frees[i].n)
			return true;
	return false;
}

/*
 * Copies good copies over bad ones that were found. A block is queued by somebody who reached it
 * under the apply lock or within a transaction, and every commit empties the queue; so only what
 * this transaction frees may have become something else.
 */
static void repair_noted(struct um_txn *txn)
{
	struct um_repair list[UM_REPAIRS_MAX];
	struct um_pool *pool = txn->log->pool;
	uint32_t i, n;
	um_lba_t fixed;

	if (!atomic_load_explicit(&pool->nrepair, memory_order_acquire))
		return;
	pthread_mutex_lock(&pool->repair_lock);
	n = pool->nrepair;
	memcpy(list, pool->repair, n * sizeof(list[0]));
	pool->nrepair = 0;
	pthread_mutex_unlock(&pool->repair_lock);
	for (i = 0; i < n; i++) {
		if (is_freed(txn, list[i].ptr.lba) ||
			um_block_repair(pool, list[i].ptr, list[i].kind, &fixed) || !fixed)
			continue;
		if (!txn->log->direct)
			um_dirty_add(&txn->log->dirty, fixed, txn->seq);
		um_info("%s: block %llu rewritten from its other copy", pool->path,
			(unsigned long long)fixed);
	}
}

static void apply_record(struct um_txn *txn)
{
	const struct um_record *record = (const struct um_record *)txn->record.at;
	struct um_log *log = txn->log;
	/* Readers must see data change together with its checksums and parity. */
	bool together = um_has_csum(log->pool) || um_has_parity(log->pool);
	uint32_t i;
	int ret;

	if (txn->ndata && !together)
		um_record_apply(log, record, UM_APPLY_DATA);
	pthread_rwlock_wrlock(&log->apply);
	um_parity_before(log, record);
	ret = um_record_apply(
		log, record, together ? UM_APPLY_DATA | UM_APPLY_META : UM_APPLY_META);
	if (log->direct)
		for (i = 0; i < txn->ncopies; i++)
			if (txn->copies[i].fresh && !txn->copies[i].freed)
				um_pool_mark(log->pool, txn->copies[i].lba, 1,
					!um_pool_lost(log->pool, txn->copies[i].lba, 1));
	um_parity_after(txn);
	repair_noted(txn);
	pthread_rwlock_unlock(&log->apply);
	if (ret)
		um_err("%s: storing transaction %llu: %s", log->pool->path,
			(unsigned long long)txn->seq, strerror(-ret));
}

/*
 * Direct pools, three fences: the record is durable before anything changes; the changes before the
 * tail passes the record; the tail before any block freed here is used again. A fourth comes before
 * the record if there are new blocks or data was stored for it: a record that is complete by chance
 * must not refer to blocks that are not.
 */
static int write_and_apply(struct um_txn *txn)
{
	struct um_log *log = txn->log;
	struct um_ring *ring = &log->ring;
	int ret;

	if (log->direct && um_pool_undrained && !um_seeded_bug(1))
		um_pool_drain(log->pool);
	if (um_seeded_bug(4))
		apply_record(txn);
	if (um_seeded_bug(6))
		((struct um_record *)txn->record.at)->nentry--;
	ret = um_ring_append(ring, (struct um_record *)txn->record.at, txn->record.len, txn->seq);
	if (um_seeded_bug(6))
		((struct um_record *)txn->record.at)->nentry++;
	if (ret) {
		um_err("%s: cannot write to the journal: %s", log->pool->path, strerror(-ret));
		if (ret == -EUCLEAN) {
			ret = -EIO;
			um_log_fail(log, ret, "taking back what was written");
		} else if (!um_no_room(ret) && !log->go_on) {
			um_log_fail(log, ret, "writing to the journal");
		}
		return ret;
	}
	if (!um_seeded_bug(2))
		um_pool_drain(log->pool);
	atomic_store(&log->committed, txn->seq);
	if (um_seeded_bug(5)) {
		um_ring_move_tail(ring, ring->head, txn->seq + 1);
		um_pool_drain(log->pool);
	}
	apply_record(txn);
	if (!log->direct)
		return 0;
	if (!um_seeded_bug(3))
		um_pool_drain(log->pool);
	ring->tail = ring->head;
	ring->used = 0;
	ret = um_ring_move_tail(ring, ring->tail, txn->seq + 1);
	um_pool_drain(log->pool);
	if (ret)
		/* Replaying this record repeatedly is harmless; a later one over it is not. */
		um_log_fail(log, ret, "moving the journal's tail");
	return 0;
}

static void tell(struct um_txn *txn)
{
	struct um_log *log = txn->log;
	uint32_t i;

	for (i = 0; i < txn->nallocs; i++)
		um_space_allocated(log->space, txn->allocs[i].lba, txn->allocs[i].n);
	for (i = 0; i < txn->nfrees; i++)
		um_space_committed(log->space, txn->seq, txn->frees[i].lba, txn->frees[i].n,
			txn->frees[i].meta);
	for (i = 0; i < txn->nhooks; i++)
		txn->hooks[i].fn(txn->hooks[i].arg);
}

/* Indirect pools: excludes checkpoints, and COMMIT records of others. */
static int write_and_apply_locked(struct um_txn *txn)
{
	struct um_log *log = txn->log;
	int ret;

	pthread_mutex_lock(&log->ring_lock);
	ret = um_dirty_reserve(
		&log->dirty, 2 * txn->nentry + UM_REPAIRS_MAX + um_parity_blocks(txn));
	if (!ret)
		ret = write_and_apply(txn);
	pthread_mutex_unlock(&log->ring_lock);
	return ret;
}

int um_txn_commit(struct um_txn *txn)
{
	struct um_log *log = txn->log;
	int ret = atomic_load(&log->stopped);

	if (!ret)
		ret = build_record(txn);
	if (!ret && txn->nentry)
		ret = log->direct ? write_and_apply(txn) : write_and_apply_locked(txn);
	if (ret) {
		um_txn_abort(txn);
		return ret;
	}
	if ((um_seeded_bug(25) || um_seeded_bug(26)) && txn->nfrees)
		((uint8_t *)um_pool_ptr(log->pool, txn->frees[0].lba))[100] ^= 1;
	tell(txn);
	atomic_fetch_add_explicit(&log->n_commits, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(
		&log->n_record_bytes, txn->nentry ? txn->record.len : 0, memory_order_relaxed);
	um_txn_reset(txn);
	um_log_unlock_writer(log);
	return 0;
}
