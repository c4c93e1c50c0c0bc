/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums of file data: the tables, and every written block against its value. The data is read
 * in the order of the pool, once, however many files share it. PREEN does not read it, as it has to
 * be quick and could repair nothing.
 */
#include <string.h>

#include "heal/check_int.h"

/* Bad data that parity cannot rebuild stays bad in any mode. */
static void report_data(struct um_check *c, um_lba_t lba, const char *why)
{
	bool fix = c->fix;

	c->fix = false;
	um_problem(
		c, "data", UM_CURE_FULL, "block %llu: file data %s", (unsigned long long)lba, why);
	c->fix = fix;
}

/* Can the block be rebuilt from the rest of its stripe? */
static bool rebuilt(struct um_check *c, um_lba_t lba, uint32_t value, um_block_t out)
{
	struct um_src src = {c->pool, NULL};

	return !um_parity_rebuild(src, lba, out) && um_data_csum(out) == value;
}

static void check_data(struct um_check *c, um_lba_t lba, uint32_t value)
{
	const char *why = "cannot be read";
	um_block_t block;

	if (um_pool_lost(c->pool, lba, 1))
		return; /* that has been recorded */
	if (um_read_raw(c, lba, block)) {
		if (um_data_csum(block) == value)
			return;
		why = "does not match its checksum";
	}
	if (!rebuilt(c, lba, value, block))
		report_data(c, lba, why);
	else if (um_problem(c, "data", UM_CURE_FULL, "block %llu: file data %s; parity has it",
			 (unsigned long long)lba, why))
		um_write_raw(c, lba, block);
}

/* The values of a chunk are lost: they are recomputed from its present data. */
static bool remake(struct um_check *c, uint64_t chunk, const uint64_t *written)
{
	struct um_ptr at = um_csums_ptr(c->pool, chunk);
	um_block_t block = {0}, data;
	struct um_csums *csums = (struct um_csums *)block;

	if (!um_problem(c, "csums", UM_CURE_FULL,
		    "chunk %llu: the checksums of its data are lost; recomputed from the data",
		    (unsigned long long)chunk))
		return false;
	um_block_init(c->pool, block, UM_KIND_CSUMS, 0, at, 0, chunk);
	for (unsigned i = 0; i < UM_CHUNK_BLOCKS; i++)
		if (written[i / 64] >> (i % 64) & 1 &&
			um_read_raw(c, chunk * UM_CHUNK_BLOCKS + i, data))
			csums->value[i] = um_data_csum(data);
	um_write_block(c, at, block);
	return true;
}

static bool sound_copy(struct um_check *c, um_lba_t lba)
{
	um_block_t block;

	return lba && um_read_raw(c, lba, block) &&
	       !um_block_verify(c->pool, block, lba, UM_KIND_CSUMS, NULL);
}

/* Does the chunk's block of checksums look valid by itself? */
static bool there(struct um_check *c, uint64_t chunk)
{
	struct um_ptr at = um_csums_ptr(c->pool, chunk);

	return sound_copy(c, at.lba) || sound_copy(c, at.mirror);
}

/* Returns whether the chunk has checksums when the pass is over. */
static bool check_chunk(struct um_check *c, uint64_t chunk, bool valid)
{
	const uint64_t *written = um_counts_written(&c->counts, chunk);
	um_block_t block;
	const char *why;

	if (!valid && !written)
		return false;
	if (!valid || um_load_fixed(c, um_csums_ptr(c->pool, chunk), UM_KIND_CSUMS, block, &why)) {
		static const uint64_t none[UM_CHUNK_BLOCKS / 64];

		return remake(c, chunk, written ? written : none) || valid;
	}
	for (unsigned i = 0; written && i < UM_CHUNK_BLOCKS; i++) {
		/* A repairing pass only has to know that there will be something to report. */
		if (c->mode == UMBRA_CHECK_PREEN || (c->mute && c->found > c->fixed))
			break;
		if (written[i / 64] >> (i % 64) & 1)
			check_data(c, chunk * UM_CHUNK_BLOCKS + i,
				((struct um_csums *)block)->value[i]);
	}
	return true;
}

static void check_group(struct um_check *c, uint32_t ag)
{
	struct um_ptr at = um_csum_ag_ptr(c->pool, ag);
	uint64_t first = um_ag_first(&c->pool->super, ag);
	um_block_t block;
	struct um_csum_ag *table = (struct um_csum_ag *)block;
	bool changed = false, lost;
	const char *why;

	lost = um_load_fixed(c, at, UM_KIND_CSUM_AG, block, &why);
	if (lost) {
		changed = um_problem(c, "csums", UM_CURE_FULL,
			"group %u: table of checksums at block %llu is lost (%s); rebuilt", ag,
			(unsigned long long)at.lba, why);
		memset(block, 0, sizeof(block));
		um_block_init(c->pool, block, UM_KIND_CSUM_AG, 0, at, 0, 0);
	}
	for (uint32_t i = 0; i < um_ag_chunks(c->pool, ag) && !c->err; i++) {
		bool was = table->valid[i / 64] >> (i % 64) & 1, is = false;

		/* If the bit is lost, the chunk's block is still self-describing. */
		if (um_chunk_usable(&c->pool->super, first + i))
			is = check_chunk(c, first + i, was || (lost && there(c, first + i)));
		if (is == was)
			continue;
		changed = true;
		table->valid[i / 64] ^= 1ull << (i % 64);
	}
	if (changed && c->fix)
		um_write_block(c, at, block);
}

void um_check_csums(struct um_check *c)
{
	for (uint32_t ag = 0; um_has_csum(c->pool) && ag < c->pool->nags && !c->err; ag++)
		check_group(c, ag);
}
