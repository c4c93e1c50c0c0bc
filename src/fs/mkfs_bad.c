/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Preserves the previous pool's list of bad blocks for the pool that replaces it: formatting does
 * not repair memory. Nothing of the old pool is trusted, and nothing of it is changed: its journal
 * is replayed to private pages.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/failure.h"
#include "fs/mkfs_int.h"

#define RETIRE_STEP 64u /* blocks per transaction */

/* ---- the list ------------------------------------------------------------------------------------- */

void um_badset_free(struct um_badset *set)
{
	free(set->lba);
	*set = (struct um_badset){0};
}

int um_badset_add(struct um_badset *set, um_lba_t lba)
{
	um_lba_t *bigger;

	if (set->n == set->cap) {
		bigger = realloc(set->lba, (set->cap ? 2 * set->cap : 64) * sizeof(*bigger));
		if (!bigger)
			return -ENOMEM;
		set->lba = bigger;
		set->cap = set->cap ? 2 * set->cap : 64;
	}
	set->lba[set->n++] = lba;
	return 0;
}

static int by_lba(const void *a, const void *b)
{
	um_lba_t x = *(const um_lba_t *)a, y = *(const um_lba_t *)b;

	return (x > y) - (x < y);
}

void um_badset_sort(struct um_badset *set)
{
	size_t n = 0;

	if (!set->n)
		return;
	qsort(set->lba, set->n, sizeof(*set->lba), by_lba);
	for (size_t i = 0; i < set->n; i++)
		if (!n || set->lba[n - 1] != set->lba[i])
			set->lba[n++] = set->lba[i];
	set->n = n;
}

/* Position of the first entry of the list that is not before lba. */
static size_t place_of(const struct um_badset *set, um_lba_t lba)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (set->lba[mid] < lba)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- what the old pool says --------------------------------------------------------------------------- */

static int add_retired(struct um_pool *pool, uint64_t chunk, struct um_badset *set)
{
	um_lba_t lba = chunk * UM_CHUNK_BLOCKS, end = lba + UM_CHUNK_BLOCKS;
	struct um_src src = {pool, NULL};
	uint32_t count, run;
	int ret = 0;

	while (!ret && lba < end) {
		ret = um_ref_count(src, lba, (uint32_t)(end - lba), &count, &run);
		for (; !ret && run; run--, lba++)
			if (count == UM_REF_RETIRED)
				ret = um_badset_add(set, lba);
	}
	/* What was read while memory failed is not to be believed. */
	return ret ? ret : um_guard_check();
}

/* Blocks in use whose memory failed. For the others on record only the bytes were wrong, or are
 * unknown (parity). */
static int add_recorded(struct um_pool *pool, struct um_badset *set)
{
	struct um_src src = {pool, NULL};
	struct um_bad bad;
	um_lba_t lba = 0;
	int ret;

	for (;; lba++) {
		ret = um_bad_next(src, &lba, &bad);
		if (!ret && !(bad.flags & UM_BAD_WRONG) && bad.kind != UM_KIND_PARITY)
			ret = um_badset_add(set, lba);
		if (ret)
			return ret == -ENOENT ? 0 : ret;
	}
}

static int read_old(struct um_pool *pool, struct um_badset *set)
{
	struct um_log *log = NULL;
	int ret;

	um_bad_attach(pool);
	ret = um_log_open(pool, &log);
	for (uint64_t chunk = 0; !ret && chunk < pool->nchunks; chunk++)
		if (um_chunk_usable(&pool->super, chunk))
			ret = add_retired(pool, chunk, set);
	if (!ret)
		ret = add_recorded(pool, set);
	um_log_abandon(log);
	return ret;
}

int um_badset_load(const char *path, struct um_badset *set)
{
	size_t was = set->n;
	struct um_pool *pool;
	/* The caller has the lock. */
	int ret = um_pool_open(path, UM_POOL_RDONLY | UM_POOL_PRIVATE | UM_POOL_NOLOCK, 0, &pool);

	if (!ret) {
		ret = read_old(pool, set);
		um_pool_close(pool);
	}
	if (ret)
		set->n = was;
	else
		um_badset_sort(set);
	return ret;
}

/* ---- where the new pool has something that cannot be elsewhere ------------------------------------------- */

/* Starts over after the last bad block in the way, as often as necessary. */
static um_lba_t first_run(
	const struct um_badset *bad, um_lba_t lba, um_lba_t end, uint64_t n, bool last)
{
	um_lba_t at = last && end - lba >= n ? end - n : lba;

	while (at >= lba && at < end && end - at >= n) {
		size_t i = place_of(bad, at), next = place_of(bad, at + n);

		if (i == next)
			return at;
		if (last && bad->lba[i] < n)
			return 0;
		at = last ? bad->lba[i] - n : bad->lba[next - 1] + 1;
	}
	return 0;
}

um_lba_t um_badset_room(
	const struct um_badset *bad, const struct um_super *super, uint64_t n, bool last)
{
	uint32_t groups = um_super_groups(super);
	um_lba_t found = 0;

	for (uint32_t ag = 0; !found && ag < groups; ag++) {
		struct um_group group;
		um_lba_t lba;

		um_group_layout(super, ag, &group);
		lba = (um_ag_first(super, ag) + group.first) * UM_CHUNK_BLOCKS;
		found = first_run(bad, lba, lba + (um_lba_t)group.data * UM_CHUNK_BLOCKS, n, last);
	}
	return found;
}

/* A bad block where a table has to be: all of it is rewritten anyway, in a way that lets the device
 * heal. Parity does not matter: a mount can handle a bad block of it. */
static int make_fixed_good(struct um_pool *pool, um_lba_t lba)
{
	static const uint8_t zeros[UM_BLOCK_SIZE];
	struct um_found found = {0};
	int ret;

	if (!um_failure_fixed(pool, lba, &found) || !found.kind)
		return 0;
	ret = um_pool_retry(pool, lba, zeros);
	if (!ret || found.kind == UM_KIND_PARITY)
		return 0;
	um_err("%s: block %llu is bad and cannot be rewritten, and the new pool would have its %s "
	       "there: make it "
	       "with another size or other features, or try that memory again with --forget-bad",
		pool->path, (unsigned long long)lba, umbra_kind_name(found.kind));
	return -EIO;
}

int um_badset_fixed(struct um_pool *pool, const struct um_badset *bad)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < bad->n && bad->lba[i] < pool->nblocks; i++)
		if (!um_chunk_usable(&pool->super, um_chunk_of(bad->lba[i])))
			ret = make_fixed_good(pool, bad->lba[i]);
	return ret;
}

/* ---- into the new pool --------------------------------------------------------------------------------- */

static int retire(struct um_txn *txn, struct um_space *space, um_lba_t lba)
{
	int ret = um_space_take_at(space, lba);

	if (ret)
		return ret;
	ret = um_ref_retire(txn, lba);
	if (ret)
		um_space_give(space, lba, 1);
	return ret;
}

int um_badset_retire(struct um_log *log, struct um_space *space, const struct um_badset *bad)
{
	struct um_pool *pool = um_log_pool(log);
	uint64_t kept = 0, beyond = bad->n - place_of(bad, pool->nblocks);
	size_t i = 0, n = bad->n - beyond;
	struct um_txn *txn;
	int ret = 0;

	while (!ret && i < n) {
		ret = um_txn_begin(log, UM_TXN_RESERVE, &txn);
		if (ret)
			break;
		for (unsigned j = 0; !ret && i < n && j < RETIRE_STEP; i++, j++) {
			if (!um_chunk_usable(&pool->super, um_chunk_of(bad->lba[i])))
				continue;
			ret = retire(txn, space, bad->lba[i]);
			kept++;
		}
		ret = um_txn_end(txn, ret);
	}
	if (!ret && kept)
		um_info("%s: %llu bad blocks of the pool before are not used", pool->path,
			(unsigned long long)kept);
	if (!ret && n > kept)
		um_info("%s: %llu more lie where the pool has its tables, and were rewritten",
			pool->path, (unsigned long long)(n - kept));
	if (!ret && beyond)
		um_warn("%s: %llu more lie behind the end of the new pool, which does not know of "
			"them",
			pool->path, (unsigned long long)beyond);
	return ret;
}
