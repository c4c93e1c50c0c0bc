/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks that were moved because their memory failed. Pointers, counts, headers and the journal
 * keep using the original number of such a block; only the place where its bytes are loaded and
 * stored is looked up here. So all its owners are right at once, and nothing that refers to it has
 * to change.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/pool.h"

/* in the key of a slot: maps a place to its block, not a block to its place */
#define NAME (1ull << 63)

static uint64_t place(const struct um_moved *moved, uint64_t key)
{
	uint64_t at = (key * 0x9e3779b97f4a7c15ull) >> 20;

	for (at &= moved->mask; moved->slot[at].key && moved->slot[at].key != key;)
		at = (at + 1) & moved->mask;
	return at;
}

um_lba_t um_moved_find(const struct um_moved *moved, um_lba_t lba)
{
	const struct um_moved_slot *slot = &moved->slot[place(moved, lba)];

	return slot->key ? slot->val : lba;
}

um_lba_t um_moved_name(const struct um_moved *moved, um_lba_t at)
{
	const struct um_moved_slot *slot = &moved->slot[place(moved, at | NAME)];

	return slot->key ? slot->val : at;
}

uint64_t um_pool_span(const struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	um_lba_t home;
	uint64_t i;

	if (__builtin_expect(!atomic_load_explicit(&pool->moved, memory_order_acquire), 1))
		return n;
	home = um_pool_home(pool, lba);
	for (i = 1; i < n && um_pool_home(pool, lba + i) == home + i; i++)
		;
	return i;
}

static void put(struct um_moved *moved, uint64_t key, um_lba_t val)
{
	moved->slot[place(moved, key)] = (struct um_moved_slot){key, val};
	moved->n++;
}

/* A table with room for one more entry, and the contents of the old one except for one block. */
static struct um_moved *copy_table(struct um_moved *old, um_lba_t but)
{
	uint64_t n = old ? old->n : 0, size = 16, i;
	struct um_moved *moved;

	while (size < 2 * (n + 2))
		size *= 2;
	moved = calloc(1, sizeof(*moved) + size * sizeof(moved->slot[0]));
	if (!moved)
		return NULL;
	moved->mask = size - 1;
	moved->older = old;
	for (i = 0; old && i <= old->mask; i++) {
		const struct um_moved_slot *slot = &old->slot[i];

		if (slot->key && slot->key != but && !(slot->key & NAME && slot->val == but))
			put(moved, slot->key, slot->val);
	}
	return moved;
}

int um_moved_make(struct um_pool *pool, um_lba_t lba, um_lba_t to, struct um_moved **out)
{
	struct um_moved *moved = copy_table(atomic_load(&pool->moved), lba);

	if (!moved)
		return -ENOMEM;
	if (to) {
		put(moved, lba, to);
		put(moved, to | NAME, lba);
	}
	*out = moved;
	return 0;
}

void um_moved_install(struct um_pool *pool, struct um_moved *moved)
{
	atomic_store_explicit(&pool->moved, moved, memory_order_release);
}

void um_moved_free(struct um_pool *pool)
{
	struct um_moved *moved = atomic_load(&pool->moved), *older;

	atomic_store(&pool->moved, NULL);
	for (; moved; moved = older) {
		older = moved->older;
		free(moved);
	}
}
