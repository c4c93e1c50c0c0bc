/* SPDX-License-Identifier: BSD-3-Clause */
/* The right contents of a block that cannot be read, or has wrong bytes: from its other copy, from
 * parity, from memory. And storing them, where that is possible in place. */
#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "fs/failure.h"

#define SYNCS_TRIED 8u

/* The good copy of a node. -ENODATA: there is none. */
int um_failure_copy(struct um_pool *pool, const struct um_found *found, um_lba_t bad, void *out)
{
	um_lba_t good = bad == found->ptr.lba ? found->ptr.mirror : found->ptr.lba;
	const struct um_block_hdr *hdr = out;

	if (!good || um_pool_lost(pool, good, 1))
		return -ENODATA;
	um_guard_check();
	memcpy(out, um_pool_ptr(pool, good), UM_BLOCK_SIZE);
	if (um_guard_check() || um_block_verify(pool, out, good, found->kind, NULL) ||
		hdr->lba != found->ptr.lba || hdr->mirror != found->ptr.mirror)
		return -ENODATA;
	return 0;
}

/* The block's checksum decides, if there is one. The read lock is held. */
static int agrees(struct um_src src, um_lba_t lba, const void *content)
{
	uint32_t value;
	int ret;

	if (!um_has_csum(src.pool))
		return 0;
	ret = um_csum_get(src, lba, 1, &value);
	return ret ? ret : um_data_csum(content) == value ? 0 : -EIO;
}

/* Rebuilds it from the other blocks of the stripe: right if all of those are. */
int um_failure_parity(struct umbra_fs *fs, um_lba_t lba, void *out)
{
	struct um_src src = um_fs_src(fs);
	int ret;

	if (!um_has_parity(fs->pool))
		return -ENOENT;
	um_log_read_lock(fs->log);
	ret = um_parity_rebuild(src, lba, out);
	if (!ret)
		ret = agrees(src, lba, out);
	um_log_read_unlock(fs->log);
	return ret;
}

int um_failure_content(struct umbra_fs *fs, um_lba_t lba, void *out)
{
	int ret;

	if (um_failure_source)
		return um_failure_source(fs, lba, out);
	/* On an indirect pool usually only a page of the mapping is lost, and file data is never
	 * only there. */
	um_log_read_lock(fs->log);
	ret = um_pool_reread(fs->pool, lba, out);
	if (!ret)
		ret = agrees(um_fs_src(fs), lba, out);
	um_log_read_unlock(fs->log);
	return ret ? um_failure_parity(fs, lba, out) : 0;
}

/* ---- fixed places --------------------------------------------------------------------------------- */

/* Pages of counts or checksums are only written when their chunk needs one. */
static bool page_in_use(struct umbra_fs *fs, enum um_kind kind, um_lba_t lba)
{
	uint32_t ag = um_chunk_place(&fs->pool->super, um_chunk_of(lba)).ag;
	unsigned i = lba % UM_CHUNK_BLOCKS - UM_TABLE_REF;
	const void *block;

	if (kind == UM_KIND_CSUMS)
		return um_block_get(
			       fs->pool, um_csum_ag_ptr(fs->pool, ag), UM_KIND_CSUM_AG, &block) ||
		       ((const struct um_csum_ag *)block)->valid[i / 64] >> (i % 64) & 1;
	return um_block_get(fs->pool, um_ag_ptr(fs->pool, ag), UM_KIND_AG, &block) ||
	       UM_WORD_STATE(((const struct um_ag *)block)->word[i]) == UM_CHUNK_MIXED;
}

/* The right contents. -ENODATA: unknown. The writer lock is held. */
static int fixed_content(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, uint8_t *out)
{
	um_lba_t other = lba == found->ptr.lba ? found->ptr.mirror : found->ptr.lba;
	const struct um_super *super = fs->pool->next ? fs->pool->next : &fs->pool->super;

	memset(out, 0, UM_BLOCK_SIZE);
	switch (found->kind) {
	case UM_KIND_SUPER:
		memcpy(out, super, sizeof(*super));
		um_block_seal(out);
		return 0;
	case UM_KIND_JOURNAL:
		if (other && !um_pool_lost(fs->pool, other, 1)) {
			um_guard_check();
			memcpy(out, um_pool_ptr(fs->pool, other), UM_BLOCK_SIZE);
			return um_guard_check() ? -ENODATA : 0;
		}
		/* On a direct pool all records have gone home. */
		return lba == super->journal_lba || lba == super->journal_mirror ||
				       !fs->pool->direct
			       ? -ENODATA
			       : 0;
	case UM_KIND_REF:
	case UM_KIND_CSUMS:
		if (!um_failure_copy(fs->pool, found, lba, out))
			return 0;
		memset(out, 0, UM_BLOCK_SIZE);
		return page_in_use(fs, found->kind, lba) ? -ENODATA : 0;
	case UM_KIND_AG:
	case UM_KIND_ROOT:
	case UM_KIND_CSUM_AG:
		return um_failure_copy(fs->pool, found, lba, out);
	case UM_KIND_COVER:
		return um_failure_copy(fs->pool, found, lba, out) &&
				       um_failure_cover(fs, found->ptr, out)
			       ? -ENODATA
			       : 0;
	case UM_KIND_PARITY:
		return um_parity_content(um_fs_src(fs), lba, out) ? -ENODATA : 0;
	default:
		return 0; /* unused */
	}
}

/* Begins a transaction once everything committed is durable, and not by lists only: only that may
 * be stored home. */
static int begin_durable(struct umbra_fs *fs, struct um_txn **out)
{
	int ret = -EAGAIN;

	for (unsigned i = 0; i < SYNCS_TRIED && ret == -EAGAIN; i++) {
		ret = fs->pool->direct ? um_log_sync(fs->log) : um_log_seal(fs->log);
		if (!ret)
			ret = um_txn_begin(fs->log, UM_TXN_RESERVE, out);
		if (ret)
			return ret;
		if (um_log_firm(fs->log) >= um_log_committed(fs->log))
			return 0;
		um_txn_abort(*out);
		ret = -EAGAIN;
	}
	return ret;
}

/* Are the present contents right? Superblock: as in memory; parity: the XOR of its stripe. */
static bool is_right(struct umbra_fs *fs, um_lba_t lba, const uint8_t *content)
{
	bool same;

	um_guard_check();
	same = !memcmp(um_pool_ptr(fs->pool, lba), content, UM_BLOCK_SIZE);
	return !um_guard_check() && same;
}

static bool parity_is_void(struct umbra_fs *fs, um_lba_t lba, uint8_t *content)
{
	bool ret;

	um_log_read_lock(fs->log);
	ret = um_parity_content(um_fs_src(fs), lba, content) != 0;
	um_log_read_unlock(fs->log);
	return ret;
}

int um_failure_rewrite_fixed(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, bool wrong)
{
	_Alignas(64) uint8_t content[UM_BLOCK_SIZE];
	struct um_txn *txn;
	int ret;

	/* Called often if a file has a lost page that nobody rewrites. */
	if (found->kind == UM_KIND_PARITY && parity_is_void(fs, lba, content))
		return -ENODATA;
	ret = begin_durable(fs, &txn);
	if (ret)
		return -EAGAIN;
	ret = fixed_content(fs, found, lba, content);
	if (ret)
		ret = -ENODATA;
	else if (!wrong)
		ret = um_pool_heal(fs->pool, lba, content);
	else if (um_pool_lost(fs->pool, lba, 1) || is_right(fs, lba, content))
		ret = -EALREADY;
	else
		ret = um_pool_mend(fs->pool, lba, content);
	um_txn_abort(txn);
	return ret;
}

/* ---- file data ------------------------------------------------------------------------------------ */

/* No transaction changes it meanwhile. -ENOENT: it is no longer anybody's data. */
static int verify_in_txn(struct umbra_fs *fs, um_lba_t lba)
{
	struct um_src src = um_fs_src(fs);
	uint32_t value, count, same;
	int ret = um_ref_count(src, lba, 1, &count, &same);

	if (!ret && (!count || count == UM_REF_RETIRED))
		return -ENOENT;
	if (!ret)
		ret = um_csum_get(src, lba, 1, &value);
	if (ret)
		return ret;
	if (um_pool_lost(fs->pool, lba, 1))
		return -EIO;
	um_guard_check();
	ret = um_data_csum(um_pool_ptr(fs->pool, lba)) == value ? 0 : -EBADMSG;
	return um_guard_check() ? -EIO : ret;
}

int um_failure_rewrite_data(struct umbra_fs *fs, um_lba_t lba)
{
	_Alignas(64) uint8_t content[UM_BLOCK_SIZE];
	struct um_txn *txn;
	int ret = begin_durable(fs, &txn);

	if (ret)
		return -EAGAIN;
	ret = verify_in_txn(fs, lba);
	if (ret == -EBADMSG) {
		ret = um_failure_source ? um_failure_source(fs, lba, content)
					: um_failure_parity(fs, lba, content);
		ret = ret ? -ENODATA : um_pool_mend(fs->pool, lba, content);
		if (!ret)
			ret = verify_in_txn(fs, lba) ? -ENODATA : 1;
	}
	um_txn_abort(txn);
	return ret == -ENOENT ? -ESTALE : ret;
}
