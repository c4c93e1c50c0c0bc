/* SPDX-License-Identifier: BSD-3-Clause */
/* Compares the stored reference counts with the recount. */
#include <string.h>

#include "heal/check_int.h"

/* One chunk: what is stored, and what was found. */
struct chunk {
	uint64_t number, word;
	uint32_t stored[UM_CHUNK_BLOCKS], found[UM_CHUNK_BLOCKS];
	bool uniform; /* as found */
	bool leaks, misses, page_bad;
	unsigned nfree; /* as stored */
	um_lba_t first; /* that differs */
	unsigned ndiffer;
};

static void load_stored(struct um_check *c, struct chunk *chunk)
{
	const char *why;
	um_block_t block;
	unsigned i;

	if (UM_WORD_STATE(chunk->word) == UM_CHUNK_MIXED) {
		if (!um_load_fixed(
			    c, um_refs_ptr(c->pool, chunk->number), UM_KIND_REF, block, &why)) {
			memcpy(chunk->stored, ((struct um_refs *)block)->count,
				sizeof(chunk->stored));
			return;
		}
		chunk->page_bad = true;
		memset(chunk->stored, 0, sizeof(chunk->stored));
		return;
	}
	for (i = 0; i < UM_CHUNK_BLOCKS; i++)
		chunk->stored[i] = UM_WORD_COUNT(chunk->word);
	/* A word with an unknown state is useless. */
	chunk->page_bad = UM_WORD_STATE(chunk->word) != UM_CHUNK_UNIFORM;
}

/* Nothing refers to a block whose memory is bad, and it is not free. */
static void keep_retired(struct um_check *c, struct chunk *chunk)
{
	unsigned i;

	for (i = 0; i < UM_CHUNK_BLOCKS; i++) {
		if (chunk->found[i] || chunk->stored[i] != UM_REF_RETIRED)
			continue;
		chunk->found[i] = UM_REF_RETIRED;
		chunk->uniform = false;
		c->nretired++;
	}
}

static void compare(struct chunk *chunk)
{
	unsigned i;

	for (i = 0; i < UM_CHUNK_BLOCKS; i++) {
		chunk->nfree += !chunk->stored[i];
		if (chunk->stored[i] == chunk->found[i])
			continue;
		if (!chunk->ndiffer++)
			chunk->first = chunk->number * UM_CHUNK_BLOCKS + i;
		if (chunk->stored[i] > chunk->found[i])
			chunk->leaks = true;
		else
			chunk->misses = true;
	}
}

static void write_refs(struct um_check *c, const struct chunk *chunk)
{
	struct um_ptr at = um_refs_ptr(c->pool, chunk->number);
	um_block_t block = {0};

	um_block_init(c->pool, block, UM_KIND_REF, 0, at, 0, chunk->number);
	memcpy(((struct um_refs *)block)->count, chunk->found, sizeof(chunk->found));
	um_write_block(c, at, block);
}

static uint64_t word_of(const struct chunk *chunk)
{
	unsigned i, nfree = 0;

	if (chunk->uniform)
		return UM_WORD(UM_CHUNK_UNIFORM, 0, chunk->found[0]);
	for (i = 0; i < UM_CHUNK_BLOCKS; i++)
		nfree += !chunk->found[i];
	return UM_WORD(UM_CHUNK_MIXED, nfree, 0);
}

static bool judge(struct um_check *c, const struct chunk *chunk)
{
	unsigned long long n = chunk->number;

	if (chunk->page_bad)
		return um_problem(c, "counts", UM_CURE_FULL,
			"chunk %llu: its reference counts are lost; rebuilt", n);
	if (chunk->ndiffer && !chunk->misses)
		/* If anything is unreadable, what it led to may only seem unused. */
		return um_problem(c, "leak", c->found == c->fixed ? UM_CURE_SAFE : UM_CURE_FULL,
			"chunk %llu: %u blocks are counted that nothing refers to, or less (block "
			"%llu: %u, found %u)",
			n, chunk->ndiffer, (unsigned long long)chunk->first,
			chunk->stored[chunk->first % UM_CHUNK_BLOCKS],
			chunk->found[chunk->first % UM_CHUNK_BLOCKS]);
	if (chunk->ndiffer)
		return um_problem(c, "refcount", UM_CURE_FULL,
			"chunk %llu: %u blocks have wrong counts (block %llu: %u, found %u)", n,
			chunk->ndiffer, (unsigned long long)chunk->first,
			chunk->stored[chunk->first % UM_CHUNK_BLOCKS],
			chunk->found[chunk->first % UM_CHUNK_BLOCKS]);
	if (UM_WORD_STATE(chunk->word) == UM_CHUNK_MIXED &&
		UM_WORD_NFREE(chunk->word) != chunk->nfree)
		return um_problem(c, "word", UM_CURE_SAFE,
			"chunk %llu: word says %u free blocks, there are %u", n,
			UM_WORD_NFREE(chunk->word), chunk->nfree);
	return false;
}

/* Returns the right word. */
static uint64_t check_chunk(struct um_check *c, uint64_t number, uint64_t word)
{
	struct chunk chunk = {.number = number, .word = word};
	unsigned i;

	/* Most of a pool that is large and new. */
	if (word == UM_WORD(UM_CHUNK_UNIFORM, 0, 0) && um_counts_none(&c->counts, number)) {
		c->report->blocks_free += UM_CHUNK_BLOCKS;
		return word;
	}
	chunk.uniform = um_counts_chunk(&c->counts, number, chunk.found);
	load_stored(c, &chunk);
	keep_retired(c, &chunk);
	compare(&chunk);
	for (i = 0; i < UM_CHUNK_BLOCKS; i++) {
		c->report->blocks_used += chunk.found[i] && chunk.found[i] != UM_REF_RETIRED;
		c->report->blocks_free += !chunk.found[i];
	}
	if (!judge(c, &chunk))
		return word;
	if (!chunk.uniform)
		write_refs(c, &chunk);
	return word_of(&chunk);
}

static void check_group(struct um_check *c, uint32_t ag)
{
	struct um_ptr at = um_ag_ptr(c->pool, ag);
	uint32_t n = um_ag_chunks(c->pool, ag), i;
	const char *why = NULL;
	bool changed = false;
	um_block_t block;
	struct um_ag *words = (struct um_ag *)block;

	if (um_load_fixed(c, at, UM_KIND_AG, block, &why)) {
		changed = um_problem(c, "words", UM_CURE_FULL,
			"group %u: chunk words at block %llu are lost (%s); rebuilt", ag,
			(unsigned long long)at.lba, why);
		memset(block, 0, sizeof(block));
		um_block_init(c->pool, block, UM_KIND_AG, 0, at, 0, 0);
		for (i = 0; i < n; i++) /* nothing stored: every chunk is treated as lost */
			words->word[i] = UM_WORD(3, 0, 0);
	}
	for (i = 0; i < n && !c->err; i++) {
		uint64_t number = um_ag_first(&c->pool->super, ag) + i;
		bool fixed = !um_chunk_usable(&c->pool->super, number);
		uint64_t want = UM_WORD(UM_CHUNK_STATIC, 0, 0), word = words->word[i];

		if (!fixed)
			want = why && changed ? 0 : word;
		if (!fixed)
			want = check_chunk(c, number, word);
		else if (UM_WORD_STATE(word) == UM_CHUNK_STATIC ||
			 (!changed &&
				 !um_problem(c, "word", UM_CURE_FULL,
					 "group %u: word %u is not that of a table chunk", ag, i)))
			want = word;
		changed = changed || want != word;
		words->word[i] = want;
	}
	if (changed && c->fix)
		um_write_block(c, at, block);
}

void um_check_space(struct um_check *c)
{
	uint32_t ag;

	c->nretired = 0;
	for (ag = 0; ag < c->pool->nags && !c->err; ag++)
		check_group(c, ag);
	c->report->blocks_retired = c->nretired;
	if (c->err || c->root.retired == c->nretired)
		return;
	um_problem(c, "root", UM_CURE_FULL, "pool root: %llu blocks retired, there are %llu",
		(unsigned long long)c->root.retired, (unsigned long long)c->nretired);
	c->root.retired = c->nretired;
	c->root_dirty = true;
}
