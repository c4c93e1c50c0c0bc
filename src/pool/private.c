/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools opened read-only. Even then the journal may have to be replayed, and fsck -n tries its
 * repairs: all of this goes to private pages and ends with the process. For files and block devices
 * the kernel provides these; devdax refuses private mappings, so they are made here, in the units
 * at which its mapping can be split.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pool/backend.h"

/* priv, devdax only: one byte per unit, set if it was replaced by memory of our own. */

static int private_map(struct um_pool *pool)
{
	bool devdax = pool->kind == UMBRA_POOL_DEVDAX;
	/* A device's mapping ends at the end of a unit. */
	uint64_t len = (pool->map_len + pool->guard_unit - 1) & ~(pool->guard_unit - 1);
	void *map = mmap(NULL, len, PROT_READ | (devdax ? 0 : PROT_WRITE),
		devdax ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE, pool->fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	pool->base = map;
	if (!devdax)
		return 0;
	pool->priv = calloc(1, pool->map_len / pool->guard_unit + 1);
	if (pool->priv)
		return 0;
	munmap(map, len);
	pool->base = NULL;
	return -ENOMEM;
}

static void private_unmap(struct um_pool *pool)
{
	munmap(pool->base, (pool->map_len + pool->guard_unit - 1) & ~(pool->guard_unit - 1));
	free(pool->priv);
}

/* Replaces one unit of a devdax mapping by a copy in memory; loads see the same bytes
 * throughout. */
static int make_private(struct um_pool *pool, uint64_t unit)
{
	uint8_t *done = pool->priv, *at = pool->base + unit * pool->guard_unit;
	void *copy;

	if (done[unit])
		return 0;
	copy = mmap(NULL, pool->guard_unit, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (copy == MAP_FAILED)
		return -ENOMEM;
	memcpy(copy, at, pool->guard_unit);
	if (mremap(copy, pool->guard_unit, pool->guard_unit, MREMAP_MAYMOVE | MREMAP_FIXED, at) ==
		MAP_FAILED) {
		munmap(copy, pool->guard_unit);
		return -errno;
	}
	done[unit] = 1;
	return 0;
}

static int private_store(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	uint64_t unit;
	int ret = 0;

	if (!len)
		return 0;
	if (pool->priv)
		for (unit = off / pool->guard_unit;
			unit <= (off + len - 1) / pool->guard_unit && !ret; unit++)
			ret = make_private(pool, unit);
	if (ret)
		return ret;
	if (src)
		memcpy(pool->base + off, src, len);
	else
		memset(pool->base + off, 0, len);
	return 0;
}

static void private_drain(struct um_pool *pool)
{
	(void)pool;
}

static int private_badblocks(struct um_pool *pool, um_bad_fn *fn, void *arg)
{
	return (pool->kind == UMBRA_POOL_DEVDAX ? &um_ops_devdax : &um_ops_file)
		->badblocks(pool, fn, arg);
}

const struct um_pool_ops um_ops_private = {
	.name = "private",
	.map = private_map,
	.unmap = private_unmap,
	.write = private_store,
	.apply = private_store,
	.drain = private_drain,
	.barrier = um_barrier_none,
	.badblocks = private_badblocks,
};
