/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The recount: references to each block, as found. A chunk whose blocks are data with one owner
 * each takes 64 bytes; five bytes per block are used only where blocks are shared or hold metadata.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heal/check_int.h"

struct um_chunk_map {
	uint64_t
		once[UM_CHUNK_BLOCKS / 64]; /* data with one reference; unused when full is there */
	uint64_t *written;                  /* a bit for each block; NULL: none */
	struct full {
		uint32_t count[UM_CHUNK_BLOCKS];
		uint8_t use[UM_CHUNK_BLOCKS];
	} * full;
};

/* Tables and their mirrors are not counted: their words say STATIC. */
int um_counts_open(struct um_counts *counts, const struct um_pool *pool)
{
	counts->nchunks = pool->nchunks;
	counts->chunk = calloc(counts->nchunks, sizeof(*counts->chunk));
	return counts->chunk ? 0 : -ENOMEM;
}

void um_counts_close(struct um_counts *counts)
{
	uint64_t i;

	for (i = 0; counts->chunk && i < counts->nchunks; i++) {
		if (counts->chunk[i]) {
			free(counts->chunk[i]->full);
			free(counts->chunk[i]->written);
		}
		free(counts->chunk[i]);
	}
	free(counts->chunk);
	memset(counts, 0, sizeof(*counts));
}

static struct um_chunk_map *map_of(const struct um_counts *counts, um_lba_t lba)
{
	return counts->chunk[um_chunk_of(lba)];
}

static bool once(const struct um_chunk_map *map, unsigned i)
{
	return map->once[i / 64] >> (i % 64) & 1;
}

static struct um_chunk_map *map_make(struct um_counts *counts, um_lba_t lba)
{
	struct um_chunk_map **at = &counts->chunk[um_chunk_of(lba)];

	if (!*at)
		*at = calloc(1, sizeof(**at));
	return *at;
}

static struct full *full_make(struct um_counts *counts, um_lba_t lba)
{
	struct um_chunk_map *map = map_make(counts, lba);
	unsigned i;

	if (!map || map->full)
		return map ? map->full : NULL;
	map->full = calloc(1, sizeof(*map->full));
	for (i = 0; map->full && i < UM_CHUNK_BLOCKS; i++) {
		map->full->count[i] = once(map, i);
		map->full->use[i] = once(map, i) ? UM_USE_DATA : UM_USE_NONE;
	}
	return map->full;
}

enum um_use um_counts_use(const struct um_counts *counts, um_lba_t lba)
{
	const struct um_chunk_map *map = map_of(counts, lba);
	unsigned i = lba % UM_CHUNK_BLOCKS;

	if (!map)
		return UM_USE_NONE;
	if (map->full)
		return map->full->use[i];
	return once(map, i) ? UM_USE_DATA : UM_USE_NONE;
}

uint32_t um_counts_get(const struct um_counts *counts, um_lba_t lba)
{
	const struct um_chunk_map *map = map_of(counts, lba);
	unsigned i = lba % UM_CHUNK_BLOCKS;

	if (!map)
		return 0;
	return map->full ? map->full->count[i] : once(map, i);
}

static void count_up(struct full *full, unsigned i, enum um_use use)
{
	if (full->count[i] < UM_REF_MAX)
		full->count[i]++;
	full->use[i] = (uint8_t)use;
}

int um_counts_add(struct um_counts *counts, um_lba_t lba, enum um_use use)
{
	struct full *full = full_make(counts, lba);

	if (!full)
		return -ENOMEM;
	count_up(full, lba % UM_CHUNK_BLOCKS, use);
	return 0;
}

void um_counts_sub(struct um_counts *counts, um_lba_t lba)
{
	struct um_chunk_map *map = map_of(counts, lba);
	unsigned i = lba % UM_CHUNK_BLOCKS;

	if (!map)
		return;
	if (!map->full) {
		map->once[i / 64] &= ~(1ull << (i % 64));
	} else if (map->full->count[i] && !--map->full->count[i]) {
		map->full->use[i] = UM_USE_NONE;
	}
}

int um_counts_data(struct um_counts *counts, um_lba_t lba, uint32_t n)
{
	struct um_chunk_map *map = map_make(counts, lba);
	unsigned first = lba % UM_CHUNK_BLOCKS, i;
	struct full *full;

	if (!map)
		return -ENOMEM;
	for (i = first; !map->full && i < first + n; i++)
		if (once(map, i))
			break;
	if (!map->full && i == first + n) {
		for (i = first; i < first + n; i++)
			map->once[i / 64] |= 1ull << (i % 64);
		return 0;
	}
	full = full_make(counts, lba);
	if (!full)
		return -ENOMEM;
	for (i = first; i < first + n; i++)
		count_up(full, i, UM_USE_DATA);
	return 0;
}

int um_counts_write(struct um_counts *counts, um_lba_t lba, uint32_t n)
{
	struct um_chunk_map *map = map_make(counts, lba);
	unsigned first = lba % UM_CHUNK_BLOCKS, i;

	if (map && !map->written)
		map->written = calloc(UM_CHUNK_BLOCKS / 64, sizeof(*map->written));
	if (!map || !map->written)
		return -ENOMEM;
	for (i = first; i < first + n; i++)
		map->written[i / 64] |= 1ull << (i % 64);
	return 0;
}

const uint64_t *um_counts_written(const struct um_counts *counts, uint64_t chunk)
{
	return counts->chunk[chunk] ? counts->chunk[chunk]->written : NULL;
}

uint32_t um_counts_free_of_meta(const struct um_counts *counts, um_lba_t lba, uint32_t n)
{
	const struct um_chunk_map *map = map_of(counts, lba);
	unsigned first = lba % UM_CHUNK_BLOCKS, i;

	if (!map || !map->full)
		return n;
	for (i = 0; i < n; i++)
		if (map->full->use[first + i] > UM_USE_DATA)
			break;
	return i;
}

bool um_counts_none(const struct um_counts *counts, uint64_t chunk)
{
	return !counts->chunk[chunk];
}

bool um_counts_chunk(const struct um_counts *counts, uint64_t chunk, uint32_t out[UM_CHUNK_BLOCKS])
{
	const struct um_chunk_map *map = counts->chunk[chunk];
	bool equal = true;
	unsigned i;

	for (i = 0; i < UM_CHUNK_BLOCKS; i++) {
		out[i] = !map ? 0 : map->full ? map->full->count[i] : once(map, i);
		equal = equal && out[i] == out[0];
	}
	return equal;
}
