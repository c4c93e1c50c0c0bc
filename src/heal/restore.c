/* SPDX-License-Identifier: BSD-3-Clause */
/* Both superblocks are bad: one of the backups in the groups' table chunks takes their place. */
#include <errno.h>
#include <string.h>

#include "heal/check_int.h"
#include "pool/log.h"

/* A group begins there by what the block itself says: seams may be anywhere. */
static bool backup_sound(const struct um_pool *pool, um_lba_t lba, const void *block)
{
	const struct um_super *super = block;

	return super->hdr.magic == UM_MAGIC(UM_KIND_SUPER) && !super->hdr.lba &&
	       !memcmp(super->magic, UM_POOL_MAGIC, sizeof(super->magic)) &&
	       super->version == UM_FORMAT_VERSION && um_super_shape_ok(super) &&
	       super->nchunks <= pool->nchunks && um_block_csum(block) == super->hdr.csum &&
	       um_chunk_of(lba) < super->nchunks && !um_chunk_place(super, um_chunk_of(lba)).i;
}

static int restore(struct um_pool *pool)
{
	um_block_t block;
	um_lba_t lba, second;
	int ret;

	for (lba = UM_CHUNK_BLOCKS; lba < pool->nblocks; lba += UM_CHUNK_BLOCKS) {
		if (um_pool_lost(pool, lba, 1))
			continue;
		um_guard_check();
		memcpy(block, um_pool_ptr(pool, lba), sizeof(block));
		if (um_guard_check() || !backup_sound(pool, lba, block))
			continue;
		second = um_super_second((const struct um_super *)block);
		um_warn("%s: both superblocks are bad; taking the backup at block %llu", pool->path,
			(unsigned long long)lba);
		ret = um_pool_write(pool, second, 0, block, sizeof(block));
		if (!ret)
			ret = um_pool_write(pool, 0, 0, block, sizeof(block));
		um_pool_drain(pool);
		return ret ? ret : um_pool_barrier(pool);
	}
	return -ENOENT;
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
