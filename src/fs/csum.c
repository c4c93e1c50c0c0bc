/* SPDX-License-Identifier: BSD-3-Clause */
/* Updating the checksums of file data. */
#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "fs/failure.h"

void um_data_sums(const struct um_pool *pool, const void *src, uint64_t nblocks, uint32_t *out)
{
	const uint8_t *at = src;

	if (!um_has_csum(pool))
		return;
	for (; nblocks; nblocks--, at += UM_BLOCK_SIZE)
		*out++ = um_data_csum(at);
}

int um_data_counts(struct um_txn *txn, um_lba_t lba, uint32_t n, const uint32_t *value)
{
	int err = um_txn_cover(txn, lba, n, true);

	if (err || !um_has_csum(um_txn_pool(txn)))
		return err;
	return um_csum_set(txn, lba, n, value);
}

int um_data_verify(struct umbra_fs *fs, um_lba_t lba, uint64_t n, um_lba_t *out_bad)
{
	struct um_trouble wrong = {.what = UM_TROUBLE_WRONG};

	if (!um_has_csum(fs->pool) || !um_csum_verify(fs->log, lba, n, &wrong.lba))
		return 0;
	if (out_bad)
		*out_bad = wrong.lba;
	if (!um_pool_lost(fs->pool, wrong.lba, 1)) {
		um_trouble_add(fs->pool, &wrong);
		um_failures_kick(fs);
	}
	return -EIO;
}

/*
 * The checksum of a block after some of its bytes change, computed from its present content, which
 * no other transaction can change meanwhile. A bad block stays bad: its new value then deliberately
 * does not match.
 */
static int merged_sum(struct um_txn *txn, um_lba_t lba, uint32_t off, const void *src, size_t len,
	bool keep_bad, uint32_t *out)
{
	const struct um_pool *pool = um_txn_pool(txn);
	uint8_t block[UM_BLOCK_SIZE];
	uint32_t value;
	bool bad;
	int err = um_csum_get(um_txn_src(txn), lba, 1, &value);

	if (err)
		return err;
	memcpy(block, um_pool_ptr(pool, lba), sizeof(block));
	bad = um_guard_check() || um_data_csum(block) != value;
	if (bad && !keep_bad)
		return -EIO;
	memcpy(block + off, src, len);
	*out = um_data_csum(block);
	if (bad)
		*out = ~*out;
	return 0;
}

#define PUT_BLOCKS 33u /* whose values are set at once */

int um_data_put(
	struct um_txn *txn, um_lba_t lba, uint32_t off, const void *src, size_t len, bool keep_bad)
{
	int err = um_txn_data(txn, lba, off, src, len);
	const uint8_t *at = src;
	uint32_t value[PUT_BLOCKS], n = 0;

	if (err || !um_has_csum(um_txn_pool(txn)))
		return err;
	lba += off / UM_BLOCK_SIZE;
	off %= UM_BLOCK_SIZE;
	while (!err && len) {
		uint32_t part = len < UM_BLOCK_SIZE - off ? (uint32_t)len : UM_BLOCK_SIZE - off;

		if (part == UM_BLOCK_SIZE)
			value[n] = um_data_csum(at);
		else
			err = merged_sum(txn, lba + n, off, at, part, keep_bad, &value[n]);
		n++;
		at += part;
		len -= part;
		off = 0;
		if (!err && (n == PUT_BLOCKS || !len)) {
			err = um_csum_set(txn, lba, n, value);
			lba += n;
			n = 0;
		}
	}
	return err;
}
