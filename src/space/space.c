/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening and closing the index: only the groups' words are read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/log.h"
#include "space/space_int.h"

#define KEEP_MIN 16u
#define KEEP_MAX 8192u /* blocks */

static void load_word(struct um_space *space, uint64_t chunk, uint64_t word)
{
	struct um_chunk *c = &space->chunk[chunk];
	unsigned nfree = 0;

	switch (UM_WORD_STATE(word)) {
	case UM_CHUNK_UNIFORM:
		nfree = UM_WORD_COUNT(word) ? 0 : UM_CHUNK_BLOCKS;
		c->known = true;
		break;
	case UM_CHUNK_MIXED:
		nfree = UM_WORD_NFREE(word);
		if (nfree > UM_CHUNK_BLOCKS)
			nfree = UM_CHUNK_BLOCKS;
		break;
	default:
		um_err("chunk %llu: bad word in its group's table", (unsigned long long)chunk);
		c->known = true;
		break;
	}
	c->nfree = nfree;
	c->run = nfree;
	space->idle += nfree;
	um_chunk_lacks(space, chunk);
	if (nfree > space->region[chunk / UM_REGION_CHUNKS])
		space->region[chunk / UM_REGION_CHUNKS] = nfree;
}

/* A group whose table is lost has no free blocks; the rest of the pool remains usable. */
static int load_group(struct um_space *space, uint32_t ag)
{
	struct um_src src = {space->pool, NULL};
	uint64_t first = um_ag_first(&space->pool->super, ag);
	uint32_t n = um_ag_chunks(space->pool, ag);
	const void *block;
	bool lost = um_src_get(src, um_ag_ptr(space->pool, ag), UM_KIND_AG, &block) != 0;
	int err = 0;

	if (lost)
		um_err("group %u: its table cannot be read, nothing is allocated there", ag);
	for (uint32_t i = 0; i < n; i++) {
		bool table = !um_chunk_ok(space->pool, first + i);

		if (!table)
			space->total += UM_CHUNK_BLOCKS;
		if (table || lost)
			space->chunk[first + i].known = true;
		else
			load_word(space, first + i, ((const struct um_ag *)block)->word[i]);
		/* Stores through the mapping that could not fail when the blocks were handed out
		 * must not fail now. */
		if (!err && space->pool->direct && !table && !lost &&
			space->chunk[first + i].nfree < UM_CHUNK_BLOCKS)
			err = um_pool_ready(space->pool, first + i);
	}
	return err;
}

static int space_alloc(struct um_space *space)
{
	uint64_t regions = space->nchunks / UM_REGION_CHUNKS + 1;

	space->chunk = calloc(space->nchunks, sizeof(*space->chunk));
	space->region = calloc(regions, sizeof(*space->region));
	space->meta_free = calloc(regions, sizeof(*space->meta_free));
	space->dry = calloc(regions, sizeof(*space->dry));
	return space->chunk && space->region && space->meta_free && space->dry ? 0 : -ENOMEM;
}

static void set_keep(struct um_space *space)
{
	space->keep = space->total / 64;
	if (space->keep < KEEP_MIN)
		space->keep = KEEP_MIN;
	if (space->keep > KEEP_MAX)
		space->keep = KEEP_MAX;
}

/* Enlarges an array and zeroes the new part. */
static void *longer(void *array, size_t size, uint64_t was, uint64_t now)
{
	uint8_t *bigger = realloc(array, now * size);

	if (bigger)
		memset(bigger + was * size, 0, (now - was) * size);
	return bigger;
}

/* Without memory for all of it some arrays are longer than needed, which is harmless. */
static int grow_arrays(struct um_space *space, uint64_t nchunks)
{
	uint64_t was = space->nchunks / UM_REGION_CHUNKS + 1, now = nchunks / UM_REGION_CHUNKS + 1;
	void *chunk = longer(space->chunk, sizeof(*space->chunk), space->nchunks, nchunks);
	void *region = longer(space->region, sizeof(*space->region), was, now);
	void *meta_free = longer(space->meta_free, sizeof(*space->meta_free), was, now);
	void *dry = longer(space->dry, sizeof(*space->dry), was, now);
	void *discard =
		space->discard ? longer(space->discard, sizeof(*space->discard), was, now) : NULL;

	space->chunk = chunk ? chunk : space->chunk;
	space->region = region ? region : space->region;
	space->meta_free = meta_free ? meta_free : space->meta_free;
	space->dry = dry ? dry : space->dry;
	if (!discard)
		free(space->discard);
	space->discard = discard; /* without memory: no automatic discard until the next mount */
	return chunk && region && meta_free && dry ? 0 : -ENOMEM;
}

int um_space_grow(struct um_space *space)
{
	uint32_t ag = um_chunk_place(&space->pool->super, space->nchunks).ag;
	int err;

	/* In this order, as everywhere: the log's lock is inside the index's. */
	pthread_mutex_lock(&space->lock);
	err = grow_arrays(space, space->pool->nchunks);
	if (!err) {
		space->nchunks = space->pool->nchunks;
		um_log_read_lock(space->log);
		for (; ag < space->pool->nags && !err; ag++)
			err = load_group(space, ag);
		um_log_read_unlock(space->log);
		set_keep(space);
		space->came_free++;
	}
	pthread_mutex_unlock(&space->lock);
	return err;
}

int um_space_open(struct um_log *log, struct um_space **out)
{
	struct um_space *space = calloc(1, sizeof(*space));
	const struct um_super *super;
	uint64_t journal;
	int err;

	if (!space)
		return -ENOMEM;
	space->pool = um_log_pool(log);
	space->log = log;
	pthread_mutex_init(&space->lock, NULL);
	for (uint32_t ag = 0; ag < space->pool->nags; ag++)
		space->nchunks += um_ag_chunks(space->pool, ag);
	err = space->nchunks ? space_alloc(space) : -EUCLEAN;
	if (err) {
		um_space_close(space);
		return err;
	}
	um_log_read_lock(log);
	for (uint32_t ag = 0; ag < space->pool->nags && !err; ag++)
		err = load_group(space, ag);
	um_log_read_unlock(log);
	if (err) {
		um_err("%s: has holes where it is in use, that the filesystem below has no space "
		       "for",
			space->pool->path);
		um_space_close(space);
		return err;
	}
	super = &space->pool->super;
	journal = super->journal_blocks * (super->journal_mirror ? 2 : 1);
	space->total -= journal < space->total ? journal : space->total;
	set_keep(space);
	um_log_set_space(log, space);
	*out = space;
	return 0;
}

void um_space_close(struct um_space *space)
{
	if (!space)
		return;
	for (uint64_t i = 0; space->chunk && i < space->nchunks; i++)
		free(space->chunk[i].busy);
	free(space->chunk);
	free(space->region);
	free(space->meta_free);
	free(space->dry);
	free(space->withheld);
	free(space->discard);
	um_quarantine_drop(space);
	pthread_mutex_destroy(&space->lock);
	free(space);
}

int um_space_pin(struct um_space *space, uint64_t chunk)
{
	int err;

	pthread_mutex_lock(&space->lock);
	err = um_chunk_load(space, chunk);
	pthread_mutex_unlock(&space->lock);
	return err;
}
