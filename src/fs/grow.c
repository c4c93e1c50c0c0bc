/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing a pool. Nothing that exists moves: new groups begin behind the old end (a seam, see
 * FORMAT.md). Their tables are written while nobody knows of them; when they are durable one
 * transaction changes both superblocks; and when that is home, so that no record in the journal
 * predates it, the new space is given to the allocator. A crash leaves the old size or the new one,
 * with a file that may be longer than either. The backups in the older groups follow, a few at a
 * time, as there is one per group.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/data.h"

#define REFRESH_STEP 64u /* old backups collected before a transaction begins */

/* Geometry functions take a pool: this is one of the new size, with nothing but a superblock. */
static int make_shape(const struct um_super *super, struct um_pool **out)
{
	struct um_pool *shape = calloc(1, sizeof(*shape));

	if (!shape)
		return -ENOMEM;
	shape->super = *super;
	shape->nchunks = super->nchunks;
	shape->nblocks = super->nchunks * UM_CHUNK_BLOCKS;
	shape->nags = um_super_groups(super);
	*out = shape;
	return 0;
}

static um_lba_t backup_of(const struct um_super *super, uint32_t ag)
{
	return um_ag_first(super, ag) * UM_CHUNK_BLOCKS;
}

static int all_durable(struct um_pool *pool, int ret)
{
	um_pool_drain(pool);
	return ret ? ret : um_pool_barrier(pool);
}

/* The new groups' tables, then their backups of the superblock, all durable. A backup always has a
 * size whose tables exist: fsck may have to rely on it. */
static int write_groups(
	struct um_pool *pool, const struct um_pool *shape, uint32_t from, const void *block)
{
	int ret = all_durable(pool, um_space_format_groups(pool, shape, from));
	uint32_t ag;

	for (ag = from; ag < shape->nags && !ret; ag++)
		ret = um_pool_write(pool, backup_of(&shape->super, ag), 0, block, UM_BLOCK_SIZE);
	return all_durable(pool, ret);
}

struct step {
	struct umbra_fs *fs;
	struct um_super *next;
};

/* In the transaction's commit: from here on there is no way back. On a direct pool it is home by
 * now. */
static void committed(void *arg)
{
	struct step *step = arg;

	step->fs->pool->next = step->next;
	step->next = NULL;
	if (step->fs->pool->direct)
		um_log_publish(step->fs->log);
}

static int change_supers(struct umbra_fs *fs, const struct um_super *super, const void *block)
{
	struct step step = {fs, malloc(sizeof(*super))};
	struct um_txn *txn = NULL;
	int ret = step.next ? um_fs_begin(fs, UM_TXN_RESERVE, &txn) : -ENOMEM;

	if (!ret) {
		*step.next = *super;
		ret = um_txn_super(txn, um_super_second(super), block);
	}
	if (!ret)
		ret = um_txn_super(txn, 0, block);
	if (!ret)
		ret = um_txn_on_commit(txn, committed, &step);
	if (txn)
		ret = um_txn_end(txn, ret);
	free(step.next);
	return ret;
}

/* Is the backup a valid one of another size? A bad one is left to the scrub and fsck, which report
 * it. */
static bool is_old(const struct um_pool *pool, um_lba_t lba, const void *block)
{
	const void *at = um_pool_ptr(pool, lba);
	bool old;

	if (um_pool_lost(pool, lba, 1))
		return false;
	um_guard_check();
	old = memcmp(at, block, UM_BLOCK_SIZE) &&
	      !um_block_verify(pool, at, 0, UM_KIND_SUPER, NULL);
	return !um_guard_check() && old;
}

struct old {
	um_lba_t lba[REFRESH_STEP];
	uint32_t n;
};

/*
 * Finds old backups from group *ag on; returns where to continue. No transaction is open: usually no backup is old, and
 * reading one block of each group of a large pool would stop all writers for long. grow_lock keeps others from changing
 * the backups meanwhile.
 */
static void find_old(struct um_pool *pool, uint32_t *ag, const void *block, struct old *out)
{
	for (out->n = 0; *ag < pool->nags && out->n < REFRESH_STEP; ++*ag) {
		um_lba_t lba = backup_of(&pool->super, *ag);

		if (is_old(pool, lba, block))
			out->lba[out->n++] = lba;
	}
}

/* Updates old backups from number *at on, in one transaction of bounded size; returns where to continue. */
static int refresh_some(struct umbra_fs *fs, const struct old *old, uint32_t *at, const void *block)
{
	struct um_txn *txn;
	int ret = um_fs_begin(fs, UM_TXN_RESERVE, &txn);

	if (ret)
		return ret;
	while (*at < old->n && um_txn_bytes(txn) < UM_TXN_BYTES_SOFT && !ret)
		ret = um_txn_super(txn, old->lba[(*at)++], block);
	return um_txn_end(txn, ret);
}

/* In place, but through the journal: one that a crash tears is repaired by replay. grow_lock is
 * held. */
static void refresh_backups(struct umbra_fs *fs)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_pool *pool = fs->pool;
	uint32_t ag = 1, at;
	struct old old;
	int ret = 0;

	memcpy(block, &pool->super, sizeof(pool->super));
	um_block_seal(block);
	while (ag < pool->nags && !ret) {
		find_old(pool, &ag, block, &old);
		for (at = 0; at < old.n && !ret;)
			ret = refresh_some(fs, &old, &at, block);
	}
	if (ret)
		um_warn("%s: backups of the superblock stay those of a smaller size: %s",
			pool->path, strerror(-ret));
}

void um_backups_refresh(struct umbra_fs *fs)
{
	/* Who is growing it comes to that himself. */
	if (um_data_may_change(fs) || pthread_mutex_trylock(&fs->grow_lock))
		return;
	if (!fs->pool->next)
		refresh_backups(fs);
	pthread_mutex_unlock(&fs->grow_lock);
}

/*
 * Makes the committed superblock take effect, perhaps for an earlier call that could not finish.
 * Indirect pools: not before it is home, since records that name new blocks are invalid for a
 * process that opens the pool with its old size.
 */
static int take_force(struct umbra_fs *fs, uint64_t was)
{
	struct um_pool *pool = fs->pool;
	int ret;

	if (pool->next) {
		ret = um_log_checkpoint(fs->log);
		if (ret)
			return ret;
		um_log_publish(fs->log);
	}
	if (pool->size == was)
		return 0;
	um_info("%s: has grown from %llu to %llu bytes", pool->path, (unsigned long long)was,
		(unsigned long long)pool->size);
	if (um_space_grow(fs->space))
		um_warn("%s: no memory: the new space is used from the next mount on", pool->path);
	return 0;
}

static int grow_to(struct umbra_fs *fs, uint64_t size, bool sparse)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_super *super = (struct um_super *)block;
	struct um_pool *pool = fs->pool, *shape;
	uint64_t was = pool->size;
	int ret = um_super_grow(&pool->super, size / UM_CHUNK_SIZE, super);

	if (ret)
		return ret == -EINVAL ? 0 : ret; /* less than a group was added */
	um_block_seal(block);
	ret = um_pool_extend(pool, super->nchunks * UM_CHUNK_SIZE, sparse);
	if (!ret)
		ret = make_shape(super, &shape);
	if (ret)
		return ret;
	ret = write_groups(pool, shape, pool->nags, block);
	free(shape);
	if (!ret)
		ret = change_supers(fs, super, block);
	return ret ? ret : take_force(fs, was);
}

int umbra_grow(
	struct umbra_fs *fs, uint64_t size, bool sparse, uint64_t *out_was, uint64_t *out_size)
{
	struct um_pool *pool = fs->pool;
	int ret = um_fs_alive(fs);

	*out_was = *out_size = pool->size;
	if (!ret)
		ret = um_data_may_change(fs);
	if (ret)
		return ret;
	pthread_mutex_lock(&fs->grow_lock);
	*out_was = pool->size;
	ret = take_force(fs, pool->size);
	if (!ret && size == UMBRA_GROW_ALL)
		ret = um_pool_medium(pool, &size);
	if (!ret && size < pool->size)
		ret = -EINVAL;
	if (!ret)
		ret = grow_to(fs, size, sparse);
	/* Including those that an earlier call, or a daemon that died, has left. */
	if (!ret)
		refresh_backups(fs);
	*out_size = pool->size;
	pthread_mutex_unlock(&fs->grow_lock);
	return ret;
}
