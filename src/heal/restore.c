/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both superblocks are bad: they are replaced from one of the backups in the groups' table chunks.
 * Only a superblock says where groups begin, so each chunk is examined; and data that looks like a
 * backup, as in a file that is the image of a pool, must not be taken for one. Of the pool's own
 * backups the one with the most chunks is the latest.
 */
#include <errno.h>
#include <string.h>

#include "heal/check_int.h"
#include "pool/log.h"

/* The block itself says that a group begins there. */
static bool backup_sound(const struct um_pool *pool, um_lba_t lba, const void *block)
{
	const struct um_super *super = block;

	return super->hdr.magic == UM_MAGIC(UM_KIND_SUPER) && !super->hdr.lba &&
	       !memcmp(super->magic, UM_POOL_MAGIC, sizeof(super->magic)) &&
	       super->version == UM_FORMAT_VERSION && !(super->incompat & ~UM_INCOMPAT_KNOWN) &&
	       um_block_csum(block) == super->hdr.csum && !um_super_fault(super) &&
	       super->nchunks <= pool->nchunks && um_chunk_of(lba) < super->nchunks &&
	       !um_chunk_place(super, um_chunk_of(lba)).i;
}

struct search {
	struct um_pool *pool;
	um_lba_t lba; /* of the best backup so far; 0: none */
	um_block_t best;
	um_block_t other; /* the last one that is not this pool's: there may be many of the same */
};

static void look(struct search *s, um_lba_t lba)
{
	const struct um_super *best = (const struct um_super *)s->best;
	um_block_t block;
	const struct um_super *super = (const struct um_super *)block;

	if (um_pool_lost(s->pool, lba, 1))
		return;
	um_guard_check();
	memcpy(block, um_pool_ptr(s->pool, lba), sizeof(block));
	if (um_guard_check() || !backup_sound(s->pool, lba, block) ||
		(s->lba && super->nchunks <= best->nchunks) ||
		!memcmp(block, s->other, sizeof(block)))
		return;
	if (!um_super_agrees(s->pool, super)) {
		memcpy(s->other, block, sizeof(block));
		return;
	}
	memcpy(s->best, block, sizeof(block));
	s->lba = lba;
}

static int restore(struct um_pool *pool)
{
	struct search s = {.pool = pool};
	um_lba_t lba, second;
	int ret;

	for (lba = UM_CHUNK_BLOCKS; lba < pool->nblocks; lba += UM_CHUNK_BLOCKS)
		look(&s, lba);
	if (!s.lba)
		return -ENOENT;
	second = um_super_second((const struct um_super *)s.best);
	um_warn("%s: both superblocks are bad; taking the backup at block %llu", pool->path,
		(unsigned long long)s.lba);
	ret = um_pool_write(pool, second, 0, s.best, sizeof(s.best));
	if (!ret)
		ret = um_pool_write(pool, 0, 0, s.best, sizeof(s.best));
	um_pool_drain(pool);
	return ret ? ret : um_pool_barrier(pool);
}

int um_restore_super(const char *path)
{
	struct um_pool *pool;
	int ret = um_pool_open(path, UM_POOL_EXCL | UM_POOL_NOSUPER, 0, &pool);

	if (ret)
		return ret;
	ret = restore(pool);
	um_pool_close(pool);
	return ret;
}

int um_restore_super_image(void *base, uint64_t size)
{
	struct um_pool *pool;
	int ret = um_pool_open_image(base, size, UM_POOL_EXCL | UM_POOL_NOSUPER, &pool);

	if (ret)
		return ret;
	ret = restore(pool);
	um_pool_close(pool);
	return ret;
}
