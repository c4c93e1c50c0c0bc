/* SPDX-License-Identifier: BSD-3-Clause */
/* mkfs: the groups' words, and the counts of the chunks that contain part of the journal. */
#include <errno.h>
#include <string.h>

#include "space/space_int.h"

struct range {
	um_lba_t lba;
	uint64_t n;
};

/* Sets the counts of the range's blocks in the chunk to 1; returns their number. */
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

/* `shape` gives the geometry; blocks are written to `pool`. */
struct format {
	struct um_pool *pool;
	const struct um_pool *shape;
	struct range journal[2];
};

static int format_chunk(const struct format *f, uint64_t chunk, uint64_t *out_word)
{
	struct um_refs refs = {.pad = {0}};
	struct um_ptr ptr = um_refs_ptr(f->shape, chunk);
	unsigned used = count_range(&f->journal[0], chunk, refs.count) +
			count_range(&f->journal[1], chunk, refs.count);

	if (!um_chunk_ok(f->shape, chunk)) {
		*out_word = UM_WORD(UM_CHUNK_STATIC, 0, 0);
		return used ? -EINVAL : 0;
	}
	if (!used || used >= UM_CHUNK_BLOCKS) {
		*out_word = UM_WORD(UM_CHUNK_UNIFORM, 0, used ? 1 : 0);
		return used > UM_CHUNK_BLOCKS ? -EINVAL : 0;
	}
	*out_word = UM_WORD(UM_CHUNK_MIXED, UM_CHUNK_BLOCKS - used, 0);
	um_block_init(f->shape, &refs, UM_KIND_REF, 0, ptr, 0, chunk);
	return write_both(f->pool, ptr, &refs);
}

/* No chunk has checksums yet. */
static int format_csums(const struct format *f, uint32_t group)
{
	struct um_csum_ag ag = {.pad = {0}};
	struct um_ptr ptr = um_csum_ag_ptr(f->shape, group);

	um_block_init(f->shape, &ag, UM_KIND_CSUM_AG, 0, ptr, 0, 0);
	return write_both(f->pool, ptr, &ag);
}

/* Parity covers nothing yet. */
static int format_cover(const struct format *f, uint32_t group)
{
	uint64_t first = um_ag_first(&f->shape->super, group);
	int err = 0;

	for (uint32_t i = 0; !err && i < um_ag_chunks(f->shape, group); i += UM_COVER_CHUNKS) {
		struct um_ptr ptr = um_cover_ptr(f->shape, first + i);
		struct um_cover cover = {.bits = {{0}}};

		um_block_init(f->shape, &cover, UM_KIND_COVER, 0, ptr, 0, 0);
		if (ptr.lba)
			err = write_both(f->pool, ptr, &cover);
	}
	return err;
}

static int format_words(const struct format *f, uint32_t group)
{
	uint64_t first = um_ag_first(&f->shape->super, group);
	struct um_ptr ptr = um_ag_ptr(f->shape, group);
	struct um_ag ag;
	int err = 0;

	memset(&ag, 0, sizeof(ag));
	um_block_init(f->shape, &ag, UM_KIND_AG, 0, ptr, 0, 0);
	for (uint32_t i = 0; !err && i < um_ag_chunks(f->shape, group); i++)
		err = format_chunk(f, first + i, &ag.word[i]);
	return err ? err : write_both(f->pool, ptr, &ag);
}

int um_space_format_groups(struct um_pool *pool, const struct um_pool *shape, uint32_t from)
{
	const struct um_super *super = &shape->super;
	struct format f = {pool, shape,
		{{super->journal_lba, super->journal_blocks},
			{super->journal_mirror,
				super->journal_mirror ? super->journal_blocks : 0}}};
	int err = 0;

	for (uint32_t i = from; !err && i < shape->nags; i++) {
		err = format_words(&f, i);
		if (!err && um_has_csum(shape))
			err = format_csums(&f, i);
		if (!err && um_has_parity(shape))
			err = format_cover(&f, i);
	}
	return err;
}

int um_space_format(struct um_pool *pool)
{
	return um_space_format_groups(pool, pool, 0);
}
