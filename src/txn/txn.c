/* SPDX-License-Identifier: BSD-3-Clause */
/* A transaction up to its end: copies, new and dropped blocks, data, notes for space/. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "pool/log.h"
#include "space/space.h"
#include "txn/internal.h"

#define TABLE_MIN 256u
#define EDIT_BYTES 1024u /* rough share of an edited block in the record */

/* ---- growing arrays ---------------------------------------------------------------------------------- */

static int grow(void **at, uint32_t n, uint32_t *cap, size_t size)
{
	uint32_t more = *cap ? 2 * *cap : 64;
	void *bigger;

	if (n < *cap)
		return 0;
	if (more > 1u << 28)
		return -ENOMEM;
	bigger = realloc(*at, more * size);
	if (!bigger)
		return -ENOMEM;
	*at = bigger;
	*cap = more;
	return 0;
}

/* ---- copies, found by LBA ------------------------------------------------------------------------------ */

static uint32_t slot_of(const struct um_txn *txn, um_lba_t lba)
{
	return (uint32_t)(lba * 0x9e3779b97f4a7c15ull >> 32) & txn->mask;
}

struct um_copy *um_txn_find(const struct um_txn *txn, um_lba_t lba)
{
	uint32_t slot;

	if (!txn->ncopies)
		return NULL;
	for (slot = slot_of(txn, lba); txn->table[slot].stamp == txn->stamp;
		slot = (slot + 1) & txn->mask)
		if (txn->copies[txn->table[slot].copy].lba == lba)
			return &txn->copies[txn->table[slot].copy];
	return NULL;
}

static void table_put(struct um_txn *txn, um_lba_t lba, uint32_t copy)
{
	uint32_t slot = slot_of(txn, lba);

	while (txn->table[slot].stamp == txn->stamp)
		slot = (slot + 1) & txn->mask;
	txn->table[slot].stamp = txn->stamp;
	txn->table[slot].copy = copy;
}

static int table_grow(struct um_txn *txn)
{
	uint32_t size = txn->table ? 2 * (txn->mask + 1) : TABLE_MIN, i;
	struct um_slot_ref *table;

	if (txn->table && 2 * (txn->ncopies + 1) <= txn->mask + 1)
		return 0;
	table = calloc(size, sizeof(*table));
	if (!table)
		return -ENOMEM;
	free(txn->table);
	txn->table = table;
	txn->mask = size - 1;
	txn->stamp = 1;
	for (i = 0; i < txn->ncopies; i++)
		table_put(txn, txn->copies[i].lba, i);
	return 0;
}

static int add_copy(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, struct um_copy **out)
{
	struct um_copy *copy;
	int ret = table_grow(txn);

	if (!ret)
		ret = grow((void **)&txn->copies, txn->ncopies, &txn->cap_copies, sizeof(*copy));
	if (ret)
		return ret;
	copy = &txn->copies[txn->ncopies];
	memset(copy, 0, sizeof(*copy));
	copy->lba = ptr.lba;
	copy->mirror = ptr.mirror;
	copy->kind = kind;
	table_put(txn, ptr.lba, txn->ncopies++);
	*out = copy;
	return 0;
}

static int give_content(struct um_txn *txn, struct um_copy *copy)
{
	copy->now = um_log_get_buffer(txn->log);
	if (!copy->now)
		return -ENOMEM;
	txn->nnow++;
	return 0;
}

void um_txn_reset(struct um_txn *txn)
{
	uint32_t i;

	for (i = 0; i < txn->ncopies; i++)
		um_log_put_buffer(txn->log, txn->copies[i].now);
	txn->ncopies = txn->nnow = txn->nnew = txn->nfresh = 0;
	txn->nallocs = txn->nfrees = txn->ncovers = txn->nhooks = 0;
	txn->nentry = txn->ndata = 0;
	txn->record.len = 0;
	/* Slots with older stamps are empty; when stamps wrap they are really cleared. */
	if (++txn->stamp == 0 && txn->table) {
		memset(txn->table, 0, ((size_t)txn->mask + 1) * sizeof(*txn->table));
		txn->stamp = 1;
	}
}

void um_txn_free(struct um_txn *txn)
{
	um_txn_reset(txn);
	free(txn->copies);
	free(txn->table);
	free(txn->record.at);
	free(txn->allocs);
	free(txn->frees);
	free(txn->covers);
	free(txn->hooks);
}

/* ---- begin and abort --------------------------------------------------------------------------------------- */

int um_txn_begin(struct um_log *log, unsigned flags, struct um_txn **out)
{
	struct um_txn *txn = &log->txn;
	int ret = um_log_lock_for_txn(log);

	if (ret)
		return ret;
	ret = um_buf_reserve(&txn->record, sizeof(struct um_record));
	if (ret) {
		um_log_unlock_writer(log);
		return ret;
	}
	memset(txn->record.at, 0, sizeof(struct um_record));
	txn->record.len = sizeof(struct um_record);
	txn->flags = flags;
	txn->seq = atomic_load(&log->committed) + 1;
	*out = txn;
	return 0;
}

void um_txn_abort(struct um_txn *txn)
{
	struct um_log *log;
	uint32_t i;

	if (!txn)
		return;
	log = txn->log;
	for (i = 0; i < txn->nallocs; i++)
		um_space_give(log->space, txn->allocs[i].lba, txn->allocs[i].n);
	um_txn_reset(txn);
	atomic_fetch_add_explicit(&log->n_aborts, 1, memory_order_relaxed);
	um_log_unlock_writer(log);
}

int um_txn_end(struct um_txn *txn, int err)
{
	if (!err)
		return um_txn_commit(txn);
	um_txn_abort(txn);
	return err;
}

/* ---- reading and changing metadata ----------------------------------------------------------------------------- */

static int wrong_pointer(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind)
{
	um_err("%s: block %llu: two pointers of this transaction disagree about it (kind %d, "
	       "mirror %llu)",
		txn->log->pool->path, (unsigned long long)ptr.lba, (int)kind,
		(unsigned long long)ptr.mirror);
	return -EUCLEAN;
}

static bool fits(const struct um_copy *copy, struct um_ptr ptr, enum um_kind kind)
{
	return copy->kind == kind && copy->mirror == ptr.mirror;
}

/* The C library's loop uses the processor's widest vectors. */
static void set_values(uint8_t *block, const struct um_fill *fill)
{
	static_assert(sizeof(wchar_t) == sizeof(fill->value), "wide characters are values");

	wmemset((wchar_t *)(void *)block + fill->first, (wchar_t)fill->value, fill->n);
}

int um_txn_load(struct um_txn *txn, struct um_copy *copy)
{
	struct um_ptr ptr = {copy->lba, copy->mirror};
	struct um_pool *pool = txn->log->pool;
	const void *block;
	int ret, tries;

	for (tries = 0; tries < 2; tries++) {
		ret = um_block_get(pool, ptr, copy->kind, &block);
		if (ret)
			return ret;
		memcpy(copy->now, block, UM_BLOCK_SIZE);
		if (um_guard_check())
			continue; /* it has just gone bad: again, from the other copy */
		/* A bad primary is written whole, which repairs it. */
		copy->was = block == um_pool_ptr(pool, copy->lba) ? block : NULL;
		set_values(copy->now, &copy->fill);
		return 0;
	}
	return -EIO;
}

/* Gives the block a private copy that can be changed. */
static int make_content(struct um_txn *txn, struct um_copy *copy)
{
	bool counted = copy->fill.n;
	int ret = give_content(txn, copy);

	if (!ret)
		ret = um_txn_load(txn, copy);
	if (ret) {
		um_log_put_buffer(txn->log, copy->now);
		if (copy->now)
			txn->nnow--;
		copy->now = NULL;
		return ret;
	}
	copy->fill.n = 0;
	if (counted)
		txn->nnow--;
	else
		atomic_fetch_add_explicit(&txn->log->n_edits, 1, memory_order_relaxed);
	return 0;
}

int um_src_get(struct um_src src, struct um_ptr ptr, enum um_kind kind, const void **out)
{
	struct um_copy *copy = src.txn ? um_txn_find(src.txn, ptr.lba) : NULL;

	if (!copy || (!copy->now && !copy->fill.n))
		return um_block_get(src.pool, ptr, kind, out);
	if (!fits(copy, ptr, kind))
		return wrong_pointer(src.txn, ptr, kind);
	if (!copy->now) {
		int ret = make_content(src.txn, copy);

		if (ret)
			return ret;
	}
	*out = copy->now;
	return 0;
}

int um_txn_edit(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, void **out)
{
	struct um_copy *copy = um_txn_find(txn, ptr.lba);
	const void *block;
	int ret;

	if (copy && !fits(copy, ptr, kind))
		return wrong_pointer(txn, ptr, kind);
	if (!copy) {
		ret = um_block_get(txn->log->pool, ptr, kind, &block);
		if (!ret)
			ret = add_copy(txn, ptr, kind, &copy);
		if (ret)
			return ret;
	}
	if (!copy->now) {
		ret = make_content(txn, copy);
		if (ret)
			return ret;
	}
	*out = copy->now;
	return 0;
}

int um_txn_fill(struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, unsigned first,
	unsigned n, uint32_t value)
{
	const struct um_fill fill = {(uint16_t)first, (uint16_t)n, value};
	struct um_copy *copy = um_txn_find(txn, ptr.lba);
	const void *block;
	unsigned at;
	void *now;
	int ret;

	if (copy) {
		ret = um_txn_edit(txn, ptr, kind, &now);
		if (!ret)
			set_values(now, &fill);
		return ret;
	}
	ret = um_block_get(txn->log->pool, ptr, kind, &block);
	if (!ret)
		ret = add_copy(txn, ptr, kind, &copy);
	if (ret)
		return ret;
	copy->fill = fill;
	for (at = 0; at < UM_BLOCK_SIZE; at += 64)
		__builtin_prefetch((const uint8_t *)block + at); /* read as a whole at commit */
	txn->nnow++;
	atomic_fetch_add_explicit(&txn->log->n_edits, 1, memory_order_relaxed);
	return 0;
}

int um_txn_overwrite(
	struct um_txn *txn, struct um_ptr ptr, enum um_kind kind, uint64_t owner, void **out)
{
	struct um_copy *copy = um_txn_find(txn, ptr.lba);
	int ret = 0;

	if (!um_lba_ok(txn->log->pool, ptr.lba, 1) ||
		(ptr.mirror && !um_lba_ok(txn->log->pool, ptr.mirror, 1)))
		return -EUCLEAN;
	if (copy && !fits(copy, ptr, kind))
		return wrong_pointer(txn, ptr, kind);
	if (!copy) {
		/* The committed state does not use what is there: written like a new block. */
		ret = add_copy(txn, ptr, kind, &copy);
		if (!ret) {
			copy->fresh = true;
			txn->nnew++;
		}
	}
	/* Content first, so that what is compared with the pool is what the pool has. */
	if (!ret && !copy->now)
		ret = copy->fill.n ? make_content(txn, copy) : give_content(txn, copy);
	if (ret)
		return ret;
	memset(copy->now, 0, UM_BLOCK_SIZE);
	um_block_init(txn->log->pool, copy->now, kind, 0, ptr, txn->seq, owner);
	*out = copy->now;
	return 0;
}

int um_txn_super(struct um_txn *txn, um_lba_t lba, const void *block)
{
	struct um_copy *copy = um_txn_find(txn, lba);
	int ret = 0;

	if (!copy)
		ret = add_copy(txn, (struct um_ptr){lba, 0}, UM_KIND_SUPER, &copy);
	if (!ret && !copy->now)
		ret = give_content(txn, copy);
	if (ret)
		return ret;
	memcpy(copy->now, block, UM_BLOCK_SIZE);
	/* A bad copy becomes a good one: to be compared with, it need not be valid. */
	copy->was = um_pool_ptr(txn->log->pool, lba);
	return 0;
}

int um_txn_new(struct um_txn *txn, enum um_kind kind, uint8_t level, um_lba_t goal,
	struct um_ptr *out_ptr, void **out)
{
	unsigned flags =
		UM_SPACE_META | (txn->flags & UM_TXN_RESERVE ? (unsigned)UM_SPACE_RESERVE : 0);
	struct um_space *space = txn->log->space;
	struct um_copy *copy;
	struct um_ptr ptr;
	int ret;

	ret = um_space_take_meta(space, goal, flags, &ptr);
	if (ret)
		return ret;
	ret = um_ref_alloc(txn, ptr.lba, 1);
	if (ret) {
		um_space_give(space, ptr.lba, 1);
		if (ptr.mirror)
			um_space_give(space, ptr.mirror, 1);
		return ret;
	}
	/* From here on an abort gives the primary back. */
	if (ptr.mirror)
		ret = um_ref_alloc(txn, ptr.mirror, 1);
	if (ret) {
		um_space_give(space, ptr.mirror, 1);
		return ret;
	}
	ret = um_txn_cover(txn, ptr.lba, 1, true);
	if (!ret && ptr.mirror)
		ret = um_txn_cover(txn, ptr.mirror, 1, true);
	if (!ret)
		ret = add_copy(txn, ptr, kind, &copy);
	if (!ret)
		ret = give_content(txn, copy);
	if (ret)
		return ret;
	copy->fresh = true;
	txn->nnew++;
	memset(copy->now, 0, UM_BLOCK_SIZE);
	um_block_init(txn->log->pool, copy->now, kind, level, ptr, txn->seq, 0);
	*out_ptr = ptr;
	*out = copy->now;
	return 0;
}

int um_txn_drop(struct um_txn *txn, struct um_ptr ptr, bool *out_last)
{
	struct um_copy *copy;
	const struct um_block_hdr *hdr;
	uint32_t freed = 0;
	int ret;

	ret = um_ref_put(txn, ptr.lba, 1, true, &freed);
	if (out_last)
		*out_last = !ret && freed;
	if (ret || !freed)
		return ret;
	if (ptr.mirror)
		ret = um_ref_put(txn, ptr.mirror, 1, true, NULL);
	copy = um_txn_find(txn, ptr.lba);
	if (!ret && !copy) {
		/* Only to know that it is gone, in case somebody still edits it. */
		hdr = um_pool_ptr(txn->log->pool, ptr.lba);
		ret = add_copy(txn, ptr, (enum um_kind)hdr->kind, &copy);
		um_guard_check();
	}
	if (!ret)
		copy->freed = true;
	return ret;
}

/* ---- file data -------------------------------------------------------------------------------------------- */

int um_txn_data(struct um_txn *txn, um_lba_t lba, uint32_t off, const void *src, size_t len)
{
	struct um_log *log = txn->log;
	struct um_entry *entry;
	size_t padded = (len + 7) & ~(size_t)7, size = sizeof(*entry) + padded;
	int ret;

	lba += off / UM_BLOCK_SIZE;
	off %= UM_BLOCK_SIZE;
	if (!len)
		return 0;
	if (!um_lba_ok(log->pool, lba, (off + len + UM_BLOCK_SIZE - 1) / UM_BLOCK_SIZE))
		return -EUCLEAN;
	if (um_pool_lost(log->pool, lba, (off + len + UM_BLOCK_SIZE - 1) / UM_BLOCK_SIZE))
		return -EIO;
	if (txn->record.len + size > log->ring.size / 4)
		return -E2BIG;
	ret = um_buf_reserve(&txn->record, size);
	if (ret)
		return ret;
	entry = (struct um_entry *)(txn->record.at + txn->record.len);
	memset(entry, 0, sizeof(*entry));
	entry->lba = lba;
	entry->off = (uint16_t)off;
	entry->type = UM_ENTRY_DATA;
	entry->len = (uint32_t)len;
	memcpy(entry + 1, src, len);
	memset((uint8_t *)(entry + 1) + len, 0, padded - len);
	txn->record.len += size;
	txn->nentry++;
	txn->ndata++;
	return 0;
}

/* ---- notes -------------------------------------------------------------------------------------------------- */

static int add_range(
	struct um_range **at, uint32_t *n, uint32_t *cap, um_lba_t lba, uint32_t len, bool meta)
{
	struct um_range *last = *n ? &(*at)[*n - 1] : NULL;
	int ret;

	/* space/ works by chunks: a run never crosses one. */
	if (last && last->lba + last->n == lba && last->meta == meta && lba % UM_CHUNK_BLOCKS) {
		last->n += len;
		return 0;
	}
	ret = grow((void **)at, *n, cap, sizeof(**at));
	if (!ret)
		(*at)[(*n)++] = (struct um_range){lba, len, meta};
	return ret;
}

int um_txn_note_alloc(struct um_txn *txn, um_lba_t lba, uint32_t n)
{
	return add_range(&txn->allocs, &txn->nallocs, &txn->cap_allocs, lba, n, false);
}

int um_txn_note_free(struct um_txn *txn, um_lba_t lba, uint32_t n, bool meta)
{
	int ret = um_txn_cover(txn, lba, n, false);

	if (ret)
		return ret;
	return add_range(&txn->frees, &txn->nfrees, &txn->cap_frees, lba, n, meta);
}

int um_txn_note_cover(struct um_txn *txn, um_lba_t lba, uint32_t n, bool on)
{
	return add_range(&txn->covers, &txn->ncovers, &txn->cap_covers, lba, n, on);
}

int um_txn_on_commit(struct um_txn *txn, um_txn_hook_fn *fn, void *arg)
{
	int ret = grow((void **)&txn->hooks, txn->nhooks, &txn->cap_hooks, sizeof(*txn->hooks));

	if (!ret)
		txn->hooks[txn->nhooks++] = (struct um_hook){fn, arg};
	return ret;
}

/* ---- questions ----------------------------------------------------------------------------------------------- */

uint64_t um_txn_seq(const struct um_txn *txn)
{
	return txn->seq;
}

unsigned um_txn_flags(const struct um_txn *txn)
{
	return txn->flags;
}

struct um_log *um_txn_log(struct um_txn *txn)
{
	return txn->log;
}

struct um_pool *um_txn_pool(struct um_txn *txn)
{
	return txn->log->pool;
}

struct um_space *um_txn_space(struct um_txn *txn)
{
	return txn->log->space;
}

size_t um_txn_bytes(const struct um_txn *txn)
{
	size_t bytes = txn->record.len + (size_t)txn->nnow * EDIT_BYTES;
	uint64_t max = um_log_record_max(txn->log);

	/* In an indirect pool's record new blocks are complete. */
	if (!txn->log->direct)
		bytes += (size_t)txn->nnew * (UM_BLOCK_SIZE - EDIT_BYTES);
	/* A small journal: the sensible size is half of what it can take. */
	if (max < 2 * UM_TXN_BYTES_SOFT)
		bytes *= 2 * UM_TXN_BYTES_SOFT / max;
	return bytes;
}
