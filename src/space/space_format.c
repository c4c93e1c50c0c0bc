/* SPDX-License-Identifier: BSD-3-Clause */
/* mkfs: the groups' words, and the counts of the chunks that the journal has a part of. */
#include <errno.h>
#include <string.h>

#include "space/space_int.h"

struct range {
	um_lba_t lba;
	uint64_t n;
};

/* Sets the counts of the range's blocks in the chunk to 1; how many there are. */
static unsigned count_range(const struct range *range, uint64_t chunk, uint32_t *count)
{
	um_lba_t first = chunk * UM_CHUNK_BLOCKS, end = first + UM_CHUNK_BLOCKS;
	um_lba_t from = range->lba > first ? range->lba : first;
	um_lba_t to = range->lba + range->n < end ? range->lba + range->n : end;

	for (um_lba_t lba = from; lba < to; lba++)
		count[lba - first] = 1;
	return from < to ? (unsigned)(to - from) : 0;
}

static int write_both(struct um_pool *pool, struct um_ptr ptr, void *block)
{
	int err;

	um_block_seal(block);
	err = um_pool_write(pool, ptr.lba, 0, block, UM_BLOCK_SIZE);
	if (!err && ptr.mirror)
		err = um_pool_write(pool, ptr.mirror, 0, block, UM_BLOCK_SIZE);
	return err;
}

static int format_chunk(
	struct um_pool *pool, const struct range journal[2], uint64_t chunk, uint64_t *out_word)
{
	struct um_refs refs = {.pad = {0}};
	struct um_ptr ptr = um_refs_ptr(pool, chunk);
	unsigned used = count_range(&journal[0], chunk, refs.count) +
			count_range(&journal[1], chunk, refs.count);

	if (!um_chunk_ok(pool, chunk)) {
		*out_word = UM_WORD(UM_CHUNK_STATIC, 0, 0);
		return used ? -EINVAL : 0;
	}
	if (!used || used >= UM_CHUNK_BLOCKS) {
		*out_word = UM_WORD(UM_CHUNK_UNIFORM, 0, used ? 1 : 0);
		return used > UM_CHUNK_BLOCKS ? -EINVAL : 0;
	}
	*out_word = UM_WORD(UM_CHUNK_MIXED, UM_CHUNK_BLOCKS - used, 0);
	um_block_init(pool, &refs, UM_KIND_REF, 0, ptr, 0, chunk);
	return write_both(pool, ptr, &refs);
}

/* No chunk has checksums yet. */
static int format_csums(struct um_pool *pool)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < pool->nags; i++) {
		struct um_csum_ag ag = {.pad = {0}};
		struct um_ptr ptr = um_csum_ag_ptr(pool, i);

		um_block_init(pool, &ag, UM_KIND_CSUM_AG, 0, ptr, 0, 0);
		err = write_both(pool, ptr, &ag);
	}
	return err;
}

/* Parity covers nothing yet. */
static int format_cover(struct um_pool *pool)
{
	int err = 0;

	for (uint64_t chunk = 0; !err && chunk < pool->nchunks;) {
		struct um_ptr ptr = um_cover_ptr(pool, chunk);
		uint32_t left = (uint32_t)(UM_AG_CHUNKS - chunk % UM_AG_CHUNKS);
		struct um_cover cover = {.bits = {{0}}};

		um_block_init(pool, &cover, UM_KIND_COVER, 0, ptr, 0, 0);
		if (ptr.lba)
			err = write_both(pool, ptr, &cover);
		chunk += left < UM_COVER_CHUNKS ? left : UM_COVER_CHUNKS;
	}
	return err;
}

int um_space_format(struct um_pool *pool)
{
	const struct um_super *super = &pool->super;
	struct range journal[2] = {{super->journal_lba, super->journal_blocks},
		{super->journal_mirror, super->journal_mirror ? super->journal_blocks : 0}};
	struct um_ag ag;
	int err = 0;

	for (uint32_t i = 0; !err && i < pool->nags; i++) {
		uint64_t first = (uint64_t)i * UM_AG_CHUNKS;

		memset(&ag, 0, sizeof(ag));
		um_block_init(pool, &ag, UM_KIND_AG, 0, um_ag_ptr(pool, i), 0, 0);
		for (uint32_t j = 0; !err && j < um_ag_chunks(pool, i); j++)
			err = format_chunk(pool, journal, first + j, &ag.word[j]);
		if (!err)
			err = write_both(pool, um_ag_ptr(pool, i), &ag);
	}
	if (!err && um_has_csum(pool))
		err = format_csums(pool);
	return err || !um_has_parity(pool) ? err : format_cover(pool);
}
