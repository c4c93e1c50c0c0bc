/* SPDX-License-Identifier: BSD-3-Clause */
/* Parity: the cover against what the walk found, then the parity of each stripe. Verifying it reads
 * everything in use, which PREEN does not; PREEN recomputes what it changes. */
#include <string.h>

#include "heal/check_int.h"

#define STRIPE UM_PARITY_WIDTH
#define WORDS (UM_CHUNK_BLOCKS / 64)

/* Nodes, their second copies, written data. */
static void found_bits(const struct um_check *c, uint64_t chunk, uint64_t out[WORDS])
{
	const uint64_t *written = um_counts_written(&c->counts, chunk);

	memset(out, 0, WORDS * sizeof(*out));
	for (unsigned i = 0; i < UM_CHUNK_BLOCKS; i++) {
		enum um_use use = um_counts_use(&c->counts, chunk * UM_CHUNK_BLOCKS + i);
		bool data = written && written[i / 64] >> (i % 64) & 1;

		if (use == UM_USE_NODE || use == UM_USE_MIRROR || (use == UM_USE_DATA && data))
			out[i / 64] |= 1ull << (i % 64);
	}
}

/* -1: unknown, or recorded as void; else whether the stripe's parity is right. *sum is the right
 * one. */
static int compare(struct um_check *c, um_lba_t stripe, unsigned mask, um_block_t sum)
{
	um_block_t stored;

	if (um_pool_lost(c->pool, um_parity_lba(c->pool, stripe), 1) ||
		um_parity_sum(c->pool, stripe, mask, sum))
		return -1;
	return um_read_raw(c, um_parity_lba(c->pool, stripe), stored) &&
	       !memcmp(sum, stored, UM_BLOCK_SIZE);
}

/* Checks the parity of a chunk's stripes; of all, or of those whose bits change. */
static void check_sums(struct um_check *c, uint64_t chunk, const uint64_t bits[WORDS],
	const uint64_t changed[WORDS], bool all)
{
	uint64_t bad[WORDS] = {0};
	um_lba_t base = chunk * UM_CHUNK_BLOCKS, first = 0;
	unsigned n = 0;
	um_block_t sum;
	bool now;

	for (unsigned i = 0; i < UM_CHUNK_BLOCKS; i += STRIPE) {
		unsigned mask = bits[i / 64] >> (i % 64) & 0xff;

		if (!mask || (!all && !(changed[i / 64] >> (i % 64) & 0xff)) ||
			compare(c, base + i, mask, sum))
			continue;
		bad[i / 64] |= 1ull << (i % 64);
		first = n++ ? first : base + i;
	}
	if (!n)
		return;
	now = um_problem(c, "parity", UM_CURE_SAFE,
		"chunk %llu: parity of %u stripes is wrong (the first is of block %llu)",
		(unsigned long long)chunk, n, (unsigned long long)first);
	for (unsigned i = 0; now && i < UM_CHUNK_BLOCKS; i += STRIPE)
		if (bad[i / 64] >> (i % 64) & 1 &&
			!compare(c, base + i, bits[i / 64] >> (i % 64) & 0xff, sum))
			um_write_raw(c, um_parity_lba(c->pool, base + i), sum);
}

/* Returns true if the chunk's bits have changed. */
static bool check_chunk(struct um_check *c, uint64_t chunk, um_le64_t *bits, bool lost)
{
	uint64_t found[WORDS], changed[WORDS];
	unsigned ndiffer = 0;
	bool fix = lost;

	found_bits(c, chunk, found);
	for (unsigned i = 0; i < WORDS; i++) {
		changed[i] = found[i] ^ bits[i];
		ndiffer += (unsigned)__builtin_popcountll(changed[i]);
	}
	/* If anything is unreadable, what it led to may only seem unused. */
	if (ndiffer && !lost)
		fix = um_problem(c, "cover", c->found == c->fixed ? UM_CURE_SAFE : UM_CURE_FULL,
			"chunk %llu: parity covers %u blocks that it should not, or not those it "
			"should",
			(unsigned long long)chunk, ndiffer);
	if (fix)
		memcpy(bits, found, sizeof(found));
	check_sums(c, chunk, bits, changed, lost || c->mode != UMBRA_CHECK_PREEN);
	return fix && ndiffer;
}

static void check_block(struct um_check *c, uint64_t chunk, uint64_t end)
{
	struct um_ptr at = um_cover_ptr(c->pool, chunk);
	um_block_t block;
	struct um_cover *cover = (struct um_cover *)block;
	bool changed = false, lost;
	const char *why;

	lost = um_load_fixed(c, at, UM_KIND_COVER, block, &why);
	if (lost) {
		changed = um_problem(c, "cover", UM_CURE_FULL,
			"chunks from %llu on: what parity covers, at block %llu, is lost (%s); "
			"recomputed",
			(unsigned long long)chunk, (unsigned long long)at.lba, why);
		if (!changed)
			return;
		memset(block, 0, sizeof(block));
		um_block_init(c->pool, block, UM_KIND_COVER, 0, at, 0, 0);
	}
	for (unsigned i = 0; chunk + i < end && !c->err; i++)
		if (um_chunk_usable(&c->pool->super, chunk + i))
			changed |= check_chunk(c, chunk + i, cover->bits[i], lost);
	if (changed && c->fix)
		um_write_block(c, at, block);
}

void um_check_parity(struct um_check *c)
{
	const struct um_super *super = &c->pool->super;
	uint64_t chunk = 0, end, group;

	while (um_has_parity(c->pool) && chunk < c->pool->nchunks && !c->err) {
		uint32_t ag = um_chunk_place(super, chunk).ag;

		group = um_ag_first(super, ag) + um_ag_chunks(c->pool, ag);
		end = chunk + UM_COVER_CHUNKS < group ? chunk + UM_COVER_CHUNKS : group;
		if (um_cover_ptr(c->pool, chunk).lba)
			check_block(c, chunk, end);
		chunk = end;
	}
}
