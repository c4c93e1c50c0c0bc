/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The masters' locks: a table of mutexes, selected by hashing the LBA's chunk. The blocks of one
 * file lie in few chunks, so a write usually takes one lock. Several are taken all at once, in
 * ascending order of the table; a thread that holds some takes no more.
 */
#include "page/table.h"

static unsigned slot_of(uint64_t chunk)
{
	return (unsigned)(um_page_mix(chunk) % UM_HOLD_SLOTS);
}

void um_hold_init(const struct um_page *p, struct um_hold *hold)
{
	*hold = (struct um_hold){.moves = p ? atomic_load(&p->moves) : 0};
}

void um_hold_add(struct um_hold *hold, um_lba_t lba, uint64_t n)
{
	uint64_t chunk = lba / UM_CHUNK_BLOCKS, last = (lba + n - 1) / UM_CHUNK_BLOCKS;

	for (; n && chunk <= last; chunk++)
		hold->slot[slot_of(chunk) / 64] |= 1ull << slot_of(chunk) % 64;
}

bool um_hold_within(const struct um_hold *inner, const struct um_hold *outer)
{
	for (unsigned i = 0; i < UM_HOLD_SLOTS / 64; i++)
		if (inner->slot[i] & ~outer->slot[i])
			return false;
	return true;
}

bool um_master_lock(struct um_page *p, struct um_hold *hold)
{
	bool waited = false;

	for (unsigned i = 0; p && i < UM_HOLD_SLOTS / 64; i++) {
		for (uint64_t left = hold->slot[i]; left; left &= left - 1) {
			struct um_stripe *s = &p->hold[i * 64 + (unsigned)__builtin_ctzll(left)];

			if (!pthread_mutex_trylock(&s->lock))
				continue;
			waited = true;
			pthread_mutex_lock(&s->lock);
		}
	}
	if (waited)
		atomic_fetch_add_explicit(&p->waits, 1, memory_order_relaxed);
	return !waited && um_master_unmoved(p, hold);
}

bool um_master_unmoved(const struct um_page *p, const struct um_hold *hold)
{
	return !p || atomic_load(&p->moves) == hold->moves;
}

void um_master_unlock(struct um_page *p, struct um_hold *hold)
{
	for (unsigned i = 0; p && i < UM_HOLD_SLOTS / 64; i++) {
		for (uint64_t left = hold->slot[i]; left; left &= left - 1)
			pthread_mutex_unlock(
				&p->hold[i * 64 + (unsigned)__builtin_ctzll(left)].lock);
		hold->slot[i] = 0;
	}
}

void um_master_moved(struct um_page *p)
{
	if (p)
		atomic_fetch_add(&p->moves, 1);
}
