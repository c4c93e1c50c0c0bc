/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums of file data: 32 bits per block, in a table at a fixed place like that of the counts,
 * changed by the transaction that makes the data count. A chunk's block of the table is first
 * written when data is first placed in the chunk; bits in the group record which have been.
 */
#include <errno.h>
#include <string.h>

#include "pool/log.h"
#include "pool/seeded.h"
#include "space/space_int.h"

#define BATCH 64u /* values read per acquisition of the read lock */

/* The part of [lba, lba + n) in its first chunk. */
static uint32_t in_chunk(um_lba_t lba, uint64_t n)
{
	uint32_t left = UM_CHUNK_BLOCKS - lba % UM_CHUNK_BLOCKS;

	return n < left ? (uint32_t)n : left;
}

static int outside(um_lba_t lba)
{
	um_err("checksum of block %llu: not a data block", (unsigned long long)lba);
	return -EUCLEAN;
}

/* The chunk's values, for changing. */
static int edit_values(struct um_txn *txn, uint64_t chunk, uint32_t **out)
{
	const struct um_pool *pool = um_txn_pool(txn);
	struct um_place at = um_chunk_place(&pool->super, chunk);
	uint32_t i = at.i;
	struct um_ptr ag = um_csum_ag_ptr(pool, at.ag);
	struct um_ptr ptr = um_csums_ptr(pool, chunk);
	const void *block;
	void *now;
	int err = um_src_get(um_txn_src(txn), ag, UM_KIND_CSUM_AG, &block);

	if (err)
		return err;
	if (((const struct um_csum_ag *)block)->valid[i / 64] >> (i % 64) & 1) {
		err = um_txn_edit(txn, ptr, UM_KIND_CSUMS, &now);
	} else {
		err = um_txn_edit(txn, ag, UM_KIND_CSUM_AG, &now);
		if (err)
			return err;
		((struct um_csum_ag *)now)->valid[i / 64] |= 1ull << (i % 64);
		err = um_txn_overwrite(txn, ptr, UM_KIND_CSUMS, chunk, &now);
	}
	if (!err)
		*out = ((struct um_csums *)now)->value;
	return err;
}

int um_csum_set(struct um_txn *txn, um_lba_t lba, uint32_t n, const uint32_t *value)
{
	const struct um_pool *pool = um_txn_pool(txn);
	uint32_t *values, part;
	int err = 0;

	for (; !err && n; n -= part, lba += part, value += part) {
		part = in_chunk(lba, n);
		if (!um_lba_ok(pool, lba, part) || !um_chunk_ok(pool, um_chunk_of(lba)))
			return outside(lba);
		err = edit_values(txn, um_chunk_of(lba), &values);
		if (!err && !um_seeded_bug(24))
			memcpy(values + lba % UM_CHUNK_BLOCKS, value, part * sizeof(*value));
	}
	return err;
}

int um_csum_get(struct um_src src, um_lba_t lba, uint32_t n, uint32_t *out)
{
	const void *block;
	uint32_t part;
	int err = 0;

	for (; !err && n; n -= part, lba += part, out += part) {
		part = in_chunk(lba, n);
		if (!um_lba_ok(src.pool, lba, part) || !um_chunk_ok(src.pool, um_chunk_of(lba)))
			return outside(lba);
		err = um_src_get(
			src, um_csums_ptr(src.pool, um_chunk_of(lba)), UM_KIND_CSUMS, &block);
		if (!err)
			memcpy(out, ((const struct um_csums *)block)->value + lba % UM_CHUNK_BLOCKS,
				part * sizeof(*out));
	}
	return err ? err : um_guard_check();
}

static bool matches(const struct um_pool *pool, um_lba_t lba, uint32_t value)
{
	bool same;

	if (um_pool_lost(pool, lba, 1))
		return false;
	um_guard_check(); /* a mark left by an earlier load is not about this block */
	same = um_data_csum(um_pool_ptr(pool, lba)) == value;
	return !um_guard_check() && same;
}

/* A block that did not match may have been overwritten since its value was read. Under the read
 * lock data and value are consistent: data in place is stored under the apply lock too. */
static bool matches_now(struct um_log *log, um_lba_t lba)
{
	struct um_pool *pool = um_log_pool(log);
	uint32_t value;
	bool same;

	um_log_read_lock(log);
	same = !um_csum_get((struct um_src){pool, NULL}, lba, 1, &value) &&
	       matches(pool, lba, value);
	um_log_read_unlock(log);
	if (same)
		return true;
	atomic_fetch_add_explicit(&pool->data_errors, 1, memory_order_relaxed);
	if (um_pool_report_once(pool, lba))
		um_err("%s: block %llu: file data does not match its checksum", pool->path,
			(unsigned long long)lba);
	return false;
}

int um_csum_verify(struct um_log *log, um_lba_t lba, uint64_t n, um_lba_t *out_bad)
{
	struct um_pool *pool = um_log_pool(log);
	uint32_t value[BATCH], part;
	int err;

	for (; n; n -= part, lba += part) {
		part = n < BATCH ? (uint32_t)n : BATCH;
		*out_bad = lba;
		um_log_read_lock(log);
		err = um_csum_get((struct um_src){pool, NULL}, lba, part, value);
		um_log_read_unlock(log);
		if (err)
			return -EIO;
		for (uint32_t i = 0; i < part; i++) {
			if (matches(pool, lba + i, value[i]) || matches_now(log, lba + i))
				continue;
			*out_bad = lba + i;
			return -EIO;
		}
	}
	return 0;
}
