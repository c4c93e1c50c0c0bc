/* SPDX-License-Identifier: BSD-3-Clause */
/* The places of a pool's fixed structures; FORMAT.md has the picture. */
#include <errno.h>
#include <string.h>

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

/*
 * A pool in use may grow meanwhile (um_pool_publish): a seam is added behind all others, then the
 * number of chunks is raised. Readers load them in the opposite order: a reader that sees the new
 * chunks also sees the seam before them, so what existed before keeps its place.
 */
static uint32_t seams_of(const struct um_super *super)
{
	return __atomic_load_n(&super->nseams, __ATOMIC_ACQUIRE);
}

static uint64_t chunks_of(const struct um_super *super)
{
	return __atomic_load_n(&super->nchunks, __ATOMIC_ACQUIRE);
}

/* The range between two seams, or between a seam and an end of the pool. */
struct stretch {
	uint64_t first, end; /* chunks */
	uint64_t group;      /* number of the first group */
};

/* The stretch behind the n-th seam. */
static struct stretch stretch_at(
	const struct um_super *super, uint32_t n, uint32_t nseams, uint64_t nchunks)
{
	return (struct stretch){
		.first = n ? super->seam[n - 1].chunk : 0,
		.end = n < nseams ? super->seam[n].chunk : nchunks,
		.group = n ? super->seam[n - 1].group : 0,
	};
}

/* The one that a chunk, or a group, lies in. The callers' constant makes two functions of it. */
static inline __attribute__((always_inline)) struct stretch stretch_of(
	const struct um_super *super, uint64_t key, bool group)
{
	uint64_t nchunks = chunks_of(super);
	uint32_t nseams = seams_of(super), lo = 0, hi = nseams;

	if (__builtin_expect(!nseams, 1))
		return (struct stretch){0, nchunks, 0};
	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;
		const struct um_seam *seam = &super->seam[mid];

		if ((group ? seam->group : seam->chunk) <= key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return stretch_at(super, lo, nseams, nchunks);
}

static struct stretch stretch_of_chunk(const struct um_super *super, uint64_t chunk)
{
	return stretch_of(super, chunk, false);
}

static struct stretch stretch_of_group(const struct um_super *super, uint32_t ag)
{
	return stretch_of(super, ag, true);
}

static struct stretch last_stretch(const struct um_super *super)
{
	uint64_t nchunks = chunks_of(super);
	uint32_t nseams = seams_of(super);

	return stretch_at(super, nseams, nseams, nchunks);
}

uint64_t um_ag_first(const struct um_super *super, uint32_t ag)
{
	struct stretch s = stretch_of_group(super, ag);

	return s.first + (ag - s.group) * UM_AG_CHUNKS;
}

struct um_place um_chunk_place(const struct um_super *super, uint64_t chunk)
{
	struct stretch s = stretch_of_chunk(super, chunk);
	uint64_t ag = (chunk - s.first) / UM_AG_CHUNKS;

	return (struct um_place){
		(uint32_t)(s.group + ag), (uint32_t)(chunk - s.first - ag * UM_AG_CHUNKS)};
}

uint32_t um_super_groups(const struct um_super *super)
{
	struct stretch s = last_stretch(super);

	return (uint32_t)(s.group + um_pool_groups(s.end - s.first, NULL));
}

/* The number of chunks of a group, and the first of them. */
static uint32_t group_at(const struct um_super *super, uint32_t ag, uint64_t *out_first)
{
	struct stretch s = stretch_of_group(super, ag);
	uint64_t first = s.first + (ag - s.group) * UM_AG_CHUNKS;

	*out_first = first;
	if (first >= s.end)
		return 0;
	return s.end - first < UM_AG_CHUNKS ? (uint32_t)(s.end - first) : UM_AG_CHUNKS;
}

static uint32_t group_chunks(const struct um_super *super, uint32_t ag)
{
	uint64_t first;

	return group_at(super, ag, &first);
}

uint32_t um_ag_chunks(const struct um_pool *pool, uint32_t ag)
{
	return group_chunks(&pool->super, ag);
}

bool um_super_shape_ok(const struct um_super *super)
{
	uint64_t first = 0, group = 0, used;
	uint32_t i;

	if (!super->nchunks || super->nchunks > UM_LBA_MASK / UM_CHUNK_BLOCKS ||
		super->nseams > UM_SEAMS_MAX ||
		!super->nseams != !(super->incompat & UM_INCOMPAT_SEAMS))
		return false;
	for (i = 0; i <= super->nseams; i++) {
		uint64_t end = i < super->nseams ? super->seam[i].chunk : super->nchunks;

		if (end <= first || end > super->nchunks)
			return false;
		group += um_pool_groups(end - first, &used);
		if (used != end - first)
			return false;
		if (i < super->nseams && super->seam[i].group != group)
			return false;
		first = end;
	}
	return true;
}

int um_super_grow(const struct um_super *super, uint64_t nchunks, struct um_super *out)
{
	uint32_t n = super->nseams;
	struct stretch last = last_stretch(super);
	/* A full last group needs no seam behind it. */
	bool seam = (last.end - last.first) % UM_AG_CHUNKS;
	uint64_t first = seam ? last.end : last.first, used;

	if (nchunks <= last.end)
		return -EINVAL;
	um_pool_groups(nchunks - first, &used);
	if (first + used <= last.end)
		return -EINVAL;
	if (seam && n == UM_SEAMS_MAX)
		return -E2BIG;
	*out = *super;
	if (seam) {
		out->seam[n] = (struct um_seam){last.end, um_super_groups(super)};
		out->nseams = n + 1;
		out->incompat |= UM_INCOMPAT_SEAMS;
	}
	out->nchunks = first + used;
	return 0;
}

bool um_super_older(const struct um_super *old, const struct um_super *now)
{
	struct um_super was = *now;
	uint32_t i, n = old->nseams;

	if (!um_super_shape_ok(old) || old->nchunks >= now->nchunks || n > now->nseams)
		return false;
	for (i = n; i < now->nseams; i++)
		was.seam[i] = (struct um_seam){0, 0};
	was.nseams = n;
	if (!n)
		was.incompat &= ~UM_INCOMPAT_SEAMS;
	was.nchunks = old->nchunks;
	was.hdr.csum = old->hdr.csum;
	return !memcmp(&was, old, sizeof(was));
}

/* The same block of two chunks of the group that begins with chunk `group`; mirror 0: of one. */
static struct um_ptr chunk_ptr(uint64_t group, uint32_t chunk, uint32_t mirror, uint32_t index)
{
	um_lba_t first = (um_lba_t)group * UM_CHUNK_BLOCKS + index;
	struct um_ptr ptr = {first + (um_lba_t)chunk * UM_CHUNK_BLOCKS, 0};

	if (mirror)
		ptr.mirror = first + (um_lba_t)mirror * UM_CHUNK_BLOCKS;
	return ptr;
}

/* Block `index` of the group's table chunk, and the same block of the mirror chunk. */
static struct um_ptr table_ptr(const struct um_pool *pool, uint32_t ag, uint32_t index)
{
	uint64_t first;
	uint32_t chunks = group_at(&pool->super, ag, &first);

	if (!chunks)
		return (struct um_ptr){0, 0};
	return chunk_ptr(first, 0, pool->super.copies == 2 ? chunks - 1 : 0, index);
}

struct um_ptr um_ag_ptr(const struct um_pool *pool, uint32_t ag)
{
	return table_ptr(pool, ag, UM_TABLE_AG);
}

struct um_ptr um_refs_ptr(const struct um_pool *pool, uint64_t chunk)
{
	struct um_place at = um_chunk_place(&pool->super, chunk);

	return table_ptr(pool, at.ag, UM_TABLE_REF + at.i);
}

void um_group_layout(const struct um_super *super, uint32_t ag, struct um_group *out)
{
	uint32_t end;

	*out = (struct um_group){.chunks = group_chunks(super, ag)};
	if (!out->chunks)
		return;
	out->first = 1;
	end = out->chunks - 1;
	if (um_super_has(super, UM_INCOMPAT_DATA_CSUM)) {
		out->csum = out->first++;
		if (super->copies == 2)
			out->csum_mirror = --end;
	}
	out->data = end > out->first ? end - out->first : 0;
	if (um_super_has(super, UM_INCOMPAT_PARITY)) {
		out->nparity = (out->data + UM_PARITY_WIDTH) / (UM_PARITY_WIDTH + 1);
		out->data -= out->nparity;
		out->parity = out->first + out->data;
	}
}

bool um_chunk_usable(const struct um_super *super, uint64_t chunk)
{
	struct um_place at = um_chunk_place(super, chunk);
	struct um_group group;

	if (chunk >= chunks_of(super))
		return false;
	um_group_layout(super, at.ag, &group);
	return at.i >= group.first && at.i - group.first < group.data;
}

um_lba_t um_parity_lba(const struct um_pool *pool, um_lba_t lba)
{
	uint32_t ag = um_chunk_place(&pool->super, um_chunk_of(lba)).ag;
	um_lba_t first = um_ag_first(&pool->super, ag) * UM_CHUNK_BLOCKS;
	struct um_group group;

	um_group_layout(&pool->super, ag, &group);
	return first + (um_lba_t)group.parity * UM_CHUNK_BLOCKS +
	       (lba - first - (um_lba_t)group.first * UM_CHUNK_BLOCKS) / UM_PARITY_WIDTH;
}

struct um_ptr um_cover_ptr(const struct um_pool *pool, uint64_t chunk)
{
	struct um_place at = um_chunk_place(&pool->super, chunk);
	struct um_group group;

	um_group_layout(&pool->super, at.ag, &group);
	if (!group.nparity)
		return (struct um_ptr){0, 0};
	return table_ptr(pool, at.ag, UM_TABLE_REF + group.parity + at.i / UM_COVER_CHUNKS);
}

static struct um_ptr csum_ptr(const struct um_pool *pool, uint32_t ag, uint32_t index)
{
	struct um_group group;

	um_group_layout(&pool->super, ag, &group);
	if (!group.csum)
		return (struct um_ptr){0, 0};
	return chunk_ptr(um_ag_first(&pool->super, ag), group.csum, group.csum_mirror, index);
}

struct um_ptr um_csum_ag_ptr(const struct um_pool *pool, uint32_t ag)
{
	return csum_ptr(pool, ag, UM_TABLE_AG);
}

struct um_ptr um_csums_ptr(const struct um_pool *pool, uint64_t chunk)
{
	struct um_place at = um_chunk_place(&pool->super, chunk);

	return csum_ptr(pool, at.ag, UM_TABLE_REF + at.i);
}

um_lba_t um_super_second(const struct um_super *super)
{
	uint32_t n = group_chunks(super, 0);

	return n ? (um_lba_t)(n - 1) * UM_CHUNK_BLOCKS : 0;
}

um_lba_t um_super_mirror(uint64_t nchunks)
{
	uint64_t used;

	um_pool_groups(nchunks, &used);
	if (used > UM_AG_CHUNKS)
		used = UM_AG_CHUNKS;
	return used ? (used - 1) * UM_CHUNK_BLOCKS : 0;
}
