/* SPDX-License-Identifier: BSD-3-Clause */
/* The volatile index of free blocks: built from the groups' words at mount, refined by a chunk's
 * counts when it is first searched. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/log.h"
#include "space/space_int.h"

/* Mask of bits [first, first + n) that fall into word i of a chunk's bitmap. */
static uint64_t word_mask(unsigned i, unsigned first, unsigned n)
{
	unsigned lo = first > i * 64 ? first - i * 64 : 0;
	unsigned end = first + n > i * 64 ? first + n - i * 64 : 0;

	if (lo >= 64 || !end)
		return 0;
	return (end >= 64 ? ~0ull : (1ull << end) - 1) & (~0ull << lo);
}

/* First bit at or after `from` that is `set`; UM_CHUNK_BLOCKS for none. */
static unsigned find_bit(const uint64_t *bits, unsigned from, bool set)
{
	for (unsigned i = from / 64; i < UM_CHUNK_WORDS; i++) {
		uint64_t word = set ? bits[i] : ~bits[i];

		if (i == from / 64)
			word &= ~0ull << (from % 64);
		if (word)
			return i * 64 + (unsigned)__builtin_ctzll(word);
	}
	return UM_CHUNK_BLOCKS;
}

static bool is_dry(const struct um_space *space, uint64_t chunk)
{
	return space->dry[chunk / 64] >> (chunk % 64) & 1;
}

/* Hidden or not. */
static unsigned free_of(const struct um_chunk *c)
{
	return c->nfree + c->hidden;
}

/* To be called after nfree or run changed: updates the summaries. */
static void chunk_changed(struct um_space *space, uint64_t chunk)
{
	struct um_chunk *c = &space->chunk[chunk];
	uint64_t bit = 1ull << (chunk % 64);

	if (c->run > c->nfree)
		c->run = c->nfree;
	if (c->run > space->region[chunk / UM_REGION_CHUNKS])
		space->region[chunk / UM_REGION_CHUNKS] = c->run;
	if (free_of(c) == UM_CHUNK_BLOCKS)
		c->meta = false;
	if (c->meta && c->nfree)
		space->meta_free[chunk / 64] |= bit;
	else
		space->meta_free[chunk / 64] &= ~bit;
	if (c->known && (!free_of(c) || free_of(c) == UM_CHUNK_BLOCKS)) {
		free(c->busy);
		c->busy = NULL;
	}
}

static void chunk_set_nfree(struct um_space *space, uint64_t chunk, unsigned nfree)
{
	if (is_dry(space, chunk)) {
		space->hidden += nfree;
		space->hidden -= space->chunk[chunk].hidden;
		space->chunk[chunk].hidden = (uint16_t)nfree;
		return;
	}
	space->idle += nfree;
	space->idle -= space->chunk[chunk].nfree;
	if (space->chunk[chunk].lacks) {
		space->idle_lacking += nfree;
		space->idle_lacking -= space->chunk[chunk].nfree;
	}
	space->chunk[chunk].nfree = (uint16_t)nfree;
}

/* Committed counts of a mixed chunk as a bitmap; *out_nfree of them are 0. */
static int read_busy(struct um_space *space, uint64_t chunk, uint64_t *busy, unsigned *out_nfree)
{
	struct um_src src = {space->pool, NULL};
	const void *block;
	struct um_place at = um_chunk_place(&space->pool->super, chunk);
	uint64_t word = 0;
	unsigned nfree = 0;
	int err;

	um_log_read_lock(space->log);
	err = um_src_get(src, um_ag_ptr(space->pool, at.ag), UM_KIND_AG, &block);
	if (!err)
		word = ((const struct um_ag *)block)->word[at.i];
	if (!err && UM_WORD_STATE(word) == UM_CHUNK_MIXED) {
		err = um_src_get(src, um_refs_ptr(space->pool, chunk), UM_KIND_REF, &block);
		for (unsigned i = 0; !err && i < UM_CHUNK_BLOCKS; i++) {
			uint64_t zero = !((const struct um_refs *)block)->count[i];

			busy[i / 64] |= (zero ^ 1) << (i % 64);
			nfree += zero;
		}
	} else if (!err) {
		bool all = UM_WORD_STATE(word) == UM_CHUNK_UNIFORM && !UM_WORD_COUNT(word);

		nfree = all ? UM_CHUNK_BLOCKS : 0;
	}
	um_log_read_unlock(space->log);
	*out_nfree = nfree;
	return err;
}

int um_chunk_load(struct um_space *space, uint64_t chunk)
{
	struct um_chunk *c = &space->chunk[chunk];
	uint64_t *busy;
	unsigned nfree;
	int err;

	if (c->known)
		return 0;
	busy = calloc(UM_CHUNK_WORDS, sizeof(*busy));
	if (!busy)
		return -ENOMEM;
	err = read_busy(space, chunk, busy, &nfree);
	if (err) {
		um_err("chunk %llu: counts cannot be read, its free blocks are not used",
			(unsigned long long)chunk);
		nfree = 0;
	} else if (nfree != free_of(c)) {
		um_err("chunk %llu: %u free blocks by its counts, %u by its word",
			(unsigned long long)chunk, nfree, free_of(c));
	}
	c->busy = busy;
	c->known = true;
	c->run = UM_CHUNK_BLOCKS;
	chunk_set_nfree(space, chunk, nfree);
	chunk_changed(space, chunk);
	return err;
}

/* Length of the free run around bit `at`, which is free. */
static unsigned run_around(const uint64_t *busy, unsigned at)
{
	unsigned first = at;

	while (first && !(busy[(first - 1) / 64] >> ((first - 1) % 64) & 1))
		first--;
	return find_bit(busy, at, true) - first;
}

int um_chunk_mark(struct um_space *space, uint64_t chunk, unsigned first, unsigned n, bool busy)
{
	struct um_chunk *c = &space->chunk[chunk];
	unsigned changed = 0;

	if (!c->busy) {
		c->busy = malloc(UM_CHUNK_WORDS * sizeof(*c->busy));
		if (!c->busy)
			return -ENOMEM;
		memset(c->busy, free_of(c) ? 0 : 0xff, UM_CHUNK_WORDS * sizeof(*c->busy));
	}
	for (unsigned i = 0; i < UM_CHUNK_WORDS; i++) {
		uint64_t mask = word_mask(i, first, n);

		changed += __builtin_popcountll((busy ? ~c->busy[i] : c->busy[i]) & mask);
		c->busy[i] = busy ? c->busy[i] | mask : c->busy[i] & ~mask;
	}
	chunk_set_nfree(space, chunk, busy ? free_of(c) - changed : free_of(c) + changed);
	if (!busy && n) {
		unsigned run = run_around(c->busy, first);

		if (run > c->run)
			c->run = run;
	}
	chunk_changed(space, chunk);
	return 0;
}

unsigned um_chunk_find(const struct um_space *space, uint64_t chunk, unsigned from, unsigned want,
	unsigned *out_first)
{
	const struct um_chunk *c = &space->chunk[chunk];
	unsigned best = 0;

	if (!c->nfree || from >= UM_CHUNK_BLOCKS)
		return 0;
	if (!c->busy) {
		*out_first = from;
		return UM_CHUNK_BLOCKS - from;
	}
	while ((from = find_bit(c->busy, from, false)) < UM_CHUNK_BLOCKS) {
		unsigned end = find_bit(c->busy, from, true);

		if (end - from > best) {
			best = end - from;
			*out_first = from;
		}
		if (best >= want)
			break;
		from = end;
	}
	return best;
}

uint64_t um_chunk_next(
	struct um_space *space, uint64_t from, uint64_t to, unsigned want, bool skip_meta)
{
	while (from < to) {
		uint64_t region = from / UM_REGION_CHUNKS;
		uint64_t end = (region + 1) * UM_REGION_CHUNKS;
		bool whole = from % UM_REGION_CHUNKS == 0;
		unsigned most = 0;

		if (space->region[region] < want) {
			from = end;
			continue;
		}
		if (end > space->nchunks)
			end = space->nchunks;
		for (; from < end; from++) {
			const struct um_chunk *c = &space->chunk[from];

			if (from >= to)
				return to;
			if (c->run >= want && !(skip_meta && c->meta))
				return from;
			if (c->run > most)
				most = c->run;
		}
		if (whole)
			space->region[region] = most;
	}
	return to;
}

void um_chunk_bound(struct um_space *space, uint64_t chunk, unsigned run)
{
	if (space->chunk[chunk].run > run)
		space->chunk[chunk].run = run;
}

void um_chunk_lacks(struct um_space *space, uint64_t chunk)
{
	struct um_chunk *c = &space->chunk[chunk];
	bool lacks = um_pool_lacks(space->pool, chunk);

	if (lacks && !c->lacks)
		space->idle_lacking += c->nfree;
	else if (!lacks && c->lacks)
		space->idle_lacking -= c->nfree;
	c->lacks = lacks;
}

/* Moves the chunk's free blocks from one sum to the other. */
static void change_sight(struct um_space *space, uint64_t chunk, unsigned nfree)
{
	chunk_set_nfree(space, chunk, 0);
	space->dry[chunk / 64] ^= 1ull << (chunk % 64);
	chunk_set_nfree(space, chunk, nfree);
	space->chunk[chunk].run = (uint16_t)nfree;
	chunk_changed(space, chunk);
}

void um_chunk_hide(struct um_space *space, uint64_t chunk)
{
	if (is_dry(space, chunk))
		return;
	space->ndry++;
	change_sight(space, chunk, space->chunk[chunk].nfree);
}

void um_chunk_show(struct um_space *space, uint64_t chunk)
{
	if (!is_dry(space, chunk))
		return;
	space->ndry--;
	change_sight(space, chunk, space->chunk[chunk].hidden);
}

void um_chunk_set_meta(struct um_space *space, uint64_t chunk)
{
	space->chunk[chunk].meta = true;
	if (space->chunk[chunk].nfree)
		space->meta_free[chunk / 64] |= 1ull << (chunk % 64);
}
