/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the fixed structures of a pool are; FORMAT.md has the picture. */
#include "pool/pool.h"

uint32_t um_pool_groups(uint64_t nchunks, uint64_t *out_used)
{
	uint64_t groups = nchunks / UM_AG_CHUNKS;
	uint64_t tail = nchunks % UM_AG_CHUNKS;

	if (tail >= UM_AG_MIN_CHUNKS)
		groups++;
	else
		nchunks -= tail;
	if (out_used)
		*out_used = nchunks;
	return (uint32_t)groups;
}

uint32_t um_ag_chunks(const struct um_pool *pool, uint32_t ag)
{
	uint64_t first = (uint64_t)ag * UM_AG_CHUNKS;

	if (ag >= pool->nags || first >= pool->nchunks)
		return 0;
	return pool->nchunks - first < UM_AG_CHUNKS ? (uint32_t)(pool->nchunks - first)
						    : UM_AG_CHUNKS;
}

/* Block `index` of the group's table chunk, and the same block of the mirror chunk. */
static struct um_ptr table_ptr(const struct um_pool *pool, uint32_t ag, uint32_t index)
{
	um_lba_t first = (um_lba_t)ag * UM_AG_BLOCKS;
	uint32_t chunks = um_ag_chunks(pool, ag);
	struct um_ptr ptr = {0, 0};

	if (!chunks)
		return ptr;
	ptr.lba = first + index;
	if (pool->super.copies == 2)
		ptr.mirror = first + (um_lba_t)(chunks - 1) * UM_CHUNK_BLOCKS + index;
	return ptr;
}

struct um_ptr um_ag_ptr(const struct um_pool *pool, uint32_t ag)
{
	return table_ptr(pool, ag, UM_TABLE_AG);
}

struct um_ptr um_refs_ptr(const struct um_pool *pool, uint64_t chunk)
{
	return table_ptr(pool, (uint32_t)(chunk / UM_AG_CHUNKS),
		UM_TABLE_REF + (uint32_t)(chunk % UM_AG_CHUNKS));
}

um_lba_t um_super_mirror(uint64_t nchunks)
{
	uint64_t used;

	um_pool_groups(nchunks, &used);
	if (used > UM_AG_CHUNKS)
		used = UM_AG_CHUNKS;
	return used ? (used - 1) * UM_CHUNK_BLOCKS : 0;
}
