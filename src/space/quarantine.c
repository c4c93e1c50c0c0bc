/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quarantine: freed blocks wait here until the transaction that freed them is durable without
 * relying on a list of data (pool/rests.h), and everybody who could still point at them has left.
 * Otherwise, if the medium lost listed data, a power cut would bring the old owners of the blocks
 * back, with other bytes. On indirect pools freed metadata also waits for a checkpoint: a journal
 * record that could be replayed must not meet a block that has become file data.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "pool/log.h"
#include "pool/seeded.h"
#include "space/space_int.h"

#define EPOCH_WAIT_MSEC 50u /* longest time that an allocation waits for others' epochs to end */

static int list_grow(struct um_freed_list *list)
{
	size_t cap = list->cap ? list->cap * 2 : 64;
	struct um_freed *ring = calloc(cap, sizeof(*ring));

	if (!ring)
		return -ENOMEM;
	for (size_t i = 0; i < list->len; i++)
		ring[i] = list->ring[(list->head + i) % list->cap];
	free(list->ring);
	list->ring = ring;
	list->cap = cap;
	list->head = 0;
	return 0;
}

static int list_push(struct um_freed_list *list, const struct um_freed *freed)
{
	struct um_freed *last =
		list->len ? &list->ring[(list->head + list->len - 1) % list->cap] : NULL;

	if (last && last->seq == freed->seq && last->epoch == freed->epoch &&
		last->lba + last->n == freed->lba &&
		um_chunk_of(last->lba) == um_chunk_of(freed->lba)) {
		last->n += freed->n;
	} else {
		if (list->len == list->cap && list_grow(list))
			return -ENOMEM;
		list->ring[(list->head + list->len++) % list->cap] = *freed;
	}
	list->blocks += freed->n;
	return 0;
}

void um_space_committed(struct um_space *space, uint64_t seq, um_lba_t lba, uint32_t n, bool meta)
{
	struct um_freed_list *list = meta ? &space->freed_meta : &space->freed_data;
	struct um_freed freed = {.seq = seq, .lba = lba};
	uint32_t left = n;
	int err = 0;

	pthread_mutex_lock(&space->lock);
	freed.epoch = um_epoch_now();
	for (; left; left -= freed.n, freed.lba += freed.n) {
		freed.n = UM_CHUNK_BLOCKS - freed.lba % UM_CHUNK_BLOCKS;
		if (freed.n > left)
			freed.n = left;
		if (list_push(list, &freed))
			err = -ENOMEM;
	}
	pthread_mutex_unlock(&space->lock);
	if (err)
		um_warn("no memory: freed blocks at %llu are not reused before the next mount",
			(unsigned long long)lba);
}

static bool list_reap(
	struct um_space *space, struct um_freed_list *list, uint64_t firm, uint64_t oldest)
{
	bool any = false;

	while (list->len) {
		struct um_freed *freed = &list->ring[list->head];

		if ((freed->seq > firm && !um_seeded_bug(16)) || freed->epoch >= oldest)
			break;
		/* A full chunk's bitmap may need memory: without it, later. */
		if (um_chunk_mark(space, um_chunk_of(freed->lba), freed->lba % UM_CHUNK_BLOCKS,
			    freed->n, false))
			break;
		if (space->discard)
			space->discard[um_chunk_of(freed->lba) / 64] |=
				1ull << (um_chunk_of(freed->lba) % 64);
		list->blocks -= freed->n;
		list->head = (list->head + 1) % list->cap;
		list->len--;
		any = true;
	}
	space->came_free += any;
	return any;
}

bool um_quarantine_reap(struct um_space *space)
{
	uint64_t oldest;
	bool any;

	if (!space->freed_data.len && !space->freed_meta.len)
		return false;
	oldest = um_epoch_oldest();
	any = list_reap(space, &space->freed_data, um_log_firm(space->log), oldest);
	return list_reap(space, &space->freed_meta, um_log_checkpointed(space->log), oldest) || any;
}

void um_space_reap(struct um_space *space)
{
	pthread_mutex_lock(&space->lock);
	um_quarantine_reap(space);
	pthread_mutex_unlock(&space->lock);
}

static bool waits_for_us(const struct um_freed_list *list)
{
	uint64_t own = um_epoch_own();

	return !list->len || (own && list->ring[list->head].epoch >= own);
}

/* One attempt; *out_left: something may come free without action by the caller. */
static bool try_reap(struct um_space *space, uint64_t seen, bool *out_left)
{
	bool any;

	pthread_mutex_lock(&space->lock);
	um_quarantine_reap(space);
	any = space->came_free != seen;
	*out_left = space->trimming || !waits_for_us(&space->freed_data) ||
		    !waits_for_us(&space->freed_meta);
	pthread_mutex_unlock(&space->lock);
	return any;
}

bool um_quarantine_flush(struct um_space *space, uint64_t seen)
{
	const struct timespec msec = {.tv_nsec = 1000000};
	bool left;

	if (try_reap(space, seen, &left))
		return true;
	if (!left)
		return false;
	if (um_log_firm(space->log) < um_log_committed(space->log) && um_log_seal(space->log))
		return false;
	if (try_reap(space, seen, &left))
		return true;
	/* Whether it helped is checked below. */
	(void)um_log_checkpoint(space->log);
	for (unsigned i = 0; i < EPOCH_WAIT_MSEC; i++) {
		if (try_reap(space, seen, &left))
			return true;
		if (!left)
			return false;
		nanosleep(&msec, NULL);
	}
	return false;
}

void um_quarantine_drop(struct um_space *space)
{
	free(space->freed_data.ring);
	free(space->freed_meta.ring);
}
