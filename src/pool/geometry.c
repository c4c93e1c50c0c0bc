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
/* The same block of two of a group's chunks; mirror 0: of one. */
static struct um_ptr chunk_ptr(uint32_t ag, uint32_t chunk, uint32_t mirror, uint32_t index)
{
	um_lba_t first = (um_lba_t)ag * UM_AG_BLOCKS + index;
	struct um_ptr ptr = {first + (um_lba_t)chunk * UM_CHUNK_BLOCKS, 0};

	if (mirror)
		ptr.mirror = first + (um_lba_t)mirror * UM_CHUNK_BLOCKS;
	return ptr;
}

static struct um_ptr table_ptr(const struct um_pool *pool, uint32_t ag, uint32_t index)
{
	uint32_t chunks = um_ag_chunks(pool, ag);

	if (!chunks)
		return (struct um_ptr){0, 0};
	return chunk_ptr(ag, 0, pool->super.copies == 2 ? chunks - 1 : 0, index);
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

void um_group_layout(const struct um_super *super, uint32_t ag, struct um_group *out)
{
	uint64_t first = (uint64_t)ag * UM_AG_CHUNKS, left;
	uint32_t end;

	*out = (struct um_group){0};
	if (first >= super->nchunks)
		return;
	left = super->nchunks - first;
	out->chunks = left < UM_AG_CHUNKS ? (uint32_t)left : UM_AG_CHUNKS;
	out->first = 1;
	end = out->chunks - 1;
	if (super->incompat & UM_INCOMPAT_DATA_CSUM) {
		out->csum = out->first++;
		if (super->copies == 2)
			out->csum_mirror = --end;
	}
	out->data = end > out->first ? end - out->first : 0;
	if (super->incompat & UM_INCOMPAT_PARITY) {
		out->nparity = (out->data + UM_PARITY_WIDTH) / (UM_PARITY_WIDTH + 1);
		out->data -= out->nparity;
		out->parity = out->first + out->data;
	}
}

bool um_chunk_usable(const struct um_super *super, uint64_t chunk)
{
	uint32_t i = (uint32_t)(chunk % UM_AG_CHUNKS);
	struct um_group group;

	if (chunk >= super->nchunks)
		return false;
	um_group_layout(super, (uint32_t)(chunk / UM_AG_CHUNKS), &group);
	return i >= group.first && i - group.first < group.data;
}

um_lba_t um_parity_lba(const struct um_pool *pool, um_lba_t lba)
{
	um_lba_t first = lba / UM_AG_BLOCKS * UM_AG_BLOCKS;
	struct um_group group;

	um_group_layout(&pool->super, (uint32_t)(lba / UM_AG_BLOCKS), &group);
	return first + (um_lba_t)group.parity * UM_CHUNK_BLOCKS +
	       (lba - first - (um_lba_t)group.first * UM_CHUNK_BLOCKS) / UM_PARITY_WIDTH;
}

struct um_ptr um_cover_ptr(const struct um_pool *pool, uint64_t chunk)
{
	uint32_t ag = (uint32_t)(chunk / UM_AG_CHUNKS);
	struct um_group group;

	um_group_layout(&pool->super, ag, &group);
	if (!group.nparity)
		return (struct um_ptr){0, 0};
	return table_ptr(pool, ag,
		UM_TABLE_REF + group.parity + (uint32_t)(chunk % UM_AG_CHUNKS) / UM_COVER_CHUNKS);
}

static struct um_ptr csum_ptr(const struct um_pool *pool, uint32_t ag, uint32_t index)
{
	struct um_group group;

	um_group_layout(&pool->super, ag, &group);
	if (!group.csum)
		return (struct um_ptr){0, 0};
	return chunk_ptr(ag, group.csum, group.csum_mirror, index);
}

struct um_ptr um_csum_ag_ptr(const struct um_pool *pool, uint32_t ag)
{
	return csum_ptr(pool, ag, UM_TABLE_AG);
}

struct um_ptr um_csums_ptr(const struct um_pool *pool, uint64_t chunk)
{
	return csum_ptr(pool, (uint32_t)(chunk / UM_AG_CHUNKS),
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
