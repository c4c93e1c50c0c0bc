/* SPDX-License-Identifier: BSD-3-Clause */
/* Blocks for a file: where its data goes, and who answers for blocks that nothing points at yet. */
#include <errno.h>

#include "fs/data.h"

int um_pieces_take(struct umbra_fs *fs, struct um_mem *mem, um_lba_t goal, uint64_t block,
	uint64_t want, unsigned flags, struct um_pieces *pieces, uint64_t *out_got)
{
	uint64_t got = 0;
	int err = 0;

	if (!goal)
		goal = mem->next_goal;
	while (got < want && pieces->n < UM_SEGMENT_BLOCKS) {
		struct um_piece *p = &pieces->v[pieces->n];
		uint64_t left = want - got;
		uint32_t ask = left < UM_CHUNK_BLOCKS ? (uint32_t)left : UM_CHUNK_BLOCKS;

		err = um_space_take(fs->space, goal, ask, flags, &p->lba, &p->len);
		if (err)
			break;
		p->block = block + got;
		pieces->n++;
		got += p->len;
		goal = p->lba + p->len;
		mem->next_goal = goal;
	}
	*out_got = got;
	return err == -ENOSPC && got ? 0 : err;
}

int um_pieces_count(struct um_txn *txn, struct um_pieces *pieces)
{
	int err = 0;

	while (!err && pieces->counted < pieces->n) {
		const struct um_piece *p = &pieces->v[pieces->counted];

		err = um_ref_alloc(txn, p->lba, p->len);
		if (!err)
			pieces->counted++;
	}
	return err;
}

int um_pieces_add(
	struct um_txn *txn, struct um_tree *tree, const struct um_pieces *pieces, bool unwritten)
{
	int err = 0;

	for (unsigned i = 0; !err && i < pieces->n; i++) {
		const struct um_piece *p = &pieces->v[i];

		err = um_extents_add(txn, tree, p->block, p->len, p->lba, unwritten);
	}
	return err;
}

void um_pieces_give(struct umbra_fs *fs, struct um_pieces *pieces)
{
	for (unsigned i = pieces->counted; i < pieces->n; i++)
		um_space_give(fs->space, pieces->v[i].lba, pieces->v[i].len);
	pieces->n = pieces->counted = 0;
}
