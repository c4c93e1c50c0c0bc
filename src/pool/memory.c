/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools in memory, for tests and tools: zeroed memory, or an image that the caller owns. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "pool/backend.h"

static int memory_map(struct um_pool *pool)
{
	void *map = mmap(NULL, pool->map_len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return -ENOMEM;
	pool->base = map;
	return 0;
}

static void memory_unmap(struct um_pool *pool)
{
	munmap(pool->base, pool->map_len);
}

static int image_map(struct um_pool *pool)
{
	(void)pool; /* base is set by the caller of open */
	return 0;
}

static void image_unmap(struct um_pool *pool)
{
	(void)pool;
}

static int memory_store(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	if (src)
		memcpy(pool->base + off, src, len);
	else
		memset(pool->base + off, 0, len);
	return 0;
}

static void memory_drain(struct um_pool *pool)
{
	(void)pool;
}

/* Reads as zeros afterwards, like a hole in a file. */
static int memory_punch(struct um_pool *pool, uint64_t off, uint64_t len)
{
	return memory_store(pool, off, NULL, len);
}

const struct um_pool_ops um_ops_memory = {
	.name = "memory",
	.punch = memory_punch,
	.map = memory_map,
	.unmap = memory_unmap,
	.write = memory_store,
	.apply = memory_store,
	.drain = memory_drain,
	.barrier = um_barrier_none,
};

const struct um_pool_ops um_ops_image = {
	.name = "image",
	.punch = memory_punch,
	.map = image_map,
	.unmap = image_unmap,
	.write = memory_store,
	.apply = memory_store,
	.drain = memory_drain,
	.barrier = um_barrier_none,
};

void (*um_image_hook)(struct um_pool *pool);

static int open_memory(void *base, uint64_t size, bool copy, struct um_pool **out)
{
	struct um_pool *pool;
	int ret = um_pool_new(
		base ? "image" : "memory", base && !copy ? &um_ops_image : &um_ops_memory, &pool);

	if (ret)
		return ret;
	pool->kind = UMBRA_POOL_MEMORY;
	pool->direct = true;
	pool->map_len = size & ~(uint64_t)(UM_BLOCK_SIZE - 1);
	if (base && !copy)
		pool->base = base;
	if (base && um_image_hook)
		um_image_hook(pool);
	ret = pool->ops->map(pool);
	if (!ret && copy)
		memcpy(pool->base, base, pool->map_len);
	if (!ret)
		ret = um_pool_alloc_verified(pool);
	if (!ret)
		ret = um_pool_set_size(pool, pool->map_len & ~(UM_CHUNK_SIZE - 1));
	if (ret)
		um_pool_free(pool);
	else
		*out = pool;
	return ret;
}

int um_pool_open_memory(uint64_t size, struct um_pool **out)
{
	return open_memory(NULL, size, false, out);
}

int um_pool_open_image(void *base, uint64_t size, unsigned flags, struct um_pool **out)
{
	struct um_pool *pool;
	/* As with files: in a read-only pool even replay goes to private pages. */
	int ret = open_memory(base, size, flags & UM_POOL_RDONLY, &pool);

	if (ret)
		return ret;
	pool->readonly = (flags & UM_POOL_RDONLY) && !(flags & UM_POOL_PRIVATE);
	um_guard_install();
	um_guard_register(pool);
	if (!(flags & UM_POOL_NOSUPER)) {
		ret = um_super_load(pool);
		if (!ret && !(flags & UM_POOL_RDONLY))
			um_super_rewrite(pool);
	}
	if (ret)
		um_pool_free(pool);
	else
		*out = pool;
	return ret;
}
