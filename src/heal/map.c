/* SPDX-License-Identifier: BSD-3-Clause */
/* A hash map from number to number, open addressing, that only grows. */
#include <errno.h>
#include <stdlib.h>

#include "heal/check_int.h"

static uint64_t place(const struct um_map *map, uint64_t key)
{
	uint64_t at = (key * 0x9e3779b97f4a7c15ull) >> 20;

	for (at &= map->cap - 1; map->slot[2 * at] && map->slot[2 * at] != key;)
		at = (at + 1) & (map->cap - 1);
	return at;
}

static int map_grow(struct um_map *map)
{
	struct um_map bigger = {.cap = map->cap ? 2 * map->cap : 64, .n = map->n};
	uint64_t i, at;

	bigger.slot = calloc(bigger.cap, 2 * sizeof(uint64_t));
	if (!bigger.slot)
		return -ENOMEM;
	for (i = 0; i < map->cap; i++) {
		if (!map->slot[2 * i])
			continue;
		at = place(&bigger, map->slot[2 * i]);
		bigger.slot[2 * at] = map->slot[2 * i];
		bigger.slot[2 * at + 1] = map->slot[2 * i + 1];
	}
	free(map->slot);
	*map = bigger;
	return 0;
}

void um_map_clear(struct um_map *map)
{
	free(map->slot);
	*map = (struct um_map){0};
}

int um_map_set(struct um_map *map, uint64_t key, uint64_t val)
{
	uint64_t at;

	if (2 * (map->n + 1) > map->cap && map_grow(map))
		return -ENOMEM;
	at = place(map, key);
	if (!map->slot[2 * at]) {
		map->slot[2 * at] = key;
		map->n++;
	}
	map->slot[2 * at + 1] = val;
	return 0;
}

bool um_map_get(const struct um_map *map, uint64_t key, uint64_t *out)
{
	uint64_t at;

	if (!map->n || !key)
		return false;
	at = place(map, key);
	if (!map->slot[2 * at])
		return false;
	if (out)
		*out = map->slot[2 * at + 1];
	return true;
}
