/* SPDX-License-Identifier: BSD-3-Clause */
/* Blocks for a file: where its data goes, and who is responsible for blocks that nothing points at
 * yet. */
#include <errno.h>

#include "fs/data.h"

/*
 * Two files that grow side by side would take turns block by block. So when a growing file finds
 * the block after its last one taken, it does not take the next free one, where it would be in the
 * way again, but goes into a larger run, at some distance from its start: then both have room to
 * grow. Nothing is reserved for either; the rest of the run is given back at once.
 */
static int take_with_room(struct umbra_fs *fs, um_lba_t goal, uint32_t want, uint32_t room,
	unsigned flags, um_lba_t *lba, uint32_t *got)
{
	um_lba_t run;
	uint32_t len, skip;
	int err = um_space_take(fs->space, goal, want, flags, lba, got);

	if (err || !room || !goal || *lba == goal || want + 2 * room > UM_CHUNK_BLOCKS)
		return err;
	if (um_space_take(fs->space, goal, want + 2 * room, flags, &run, &len))
		return 0;
	if (len < want + room) {
		um_space_give(fs->space, run, len);
		return 0;
	}
	um_space_give(fs->space, *lba, *got);
	skip = len - want < room ? len - want : room;
	um_space_give(fs->space, run, skip);
	if (len > skip + want)
		um_space_give(fs->space, run + skip + want, len - skip - want);
	*lba = run + skip;
	*got = want;
	return 0;
}

/*
 * The first copy in a window of the file: placed at its position in an aligned, entirely free
 * window of the pool, so that its neighbours find their places free and no other window is put
 * there. Nothing is reserved for them.
 */
static bool take_in_window(struct umbra_fs *fs, um_lba_t goal, const struct um_wish *wish,
	um_lba_t *lba, uint32_t *got)
{
	uint32_t want = (uint32_t)wish->n, len, skip;
	um_lba_t run;

	if (um_space_take(fs->space, goal, 2 * UM_COW_WINDOW - 1, wish->flags, &run, &len))
		return false;
	skip = (uint32_t)(-run & (UM_COW_WINDOW - 1));
	if (len < skip + UM_COW_WINDOW) {
		um_space_give(fs->space, run, len);
		return false;
	}
	skip += wish->place - 1;
	if (skip)
		um_space_give(fs->space, run, skip);
	if (len > skip + want)
		um_space_give(fs->space, run + skip + want, len - skip - want);
	*lba = run + skip;
	*got = want;
	return true;
}

int um_pieces_take(struct umbra_fs *fs, struct um_mem *mem, const struct um_wish *wish,
	struct um_pieces *pieces, uint64_t *out_got)
{
	um_lba_t goal = wish->goal ? wish->goal : mem->next_goal;
	uint64_t got = 0;
	int err = 0;

	while (got < wish->n && pieces->n < UM_SEGMENT_BLOCKS) {
		struct um_piece *p = &pieces->v[pieces->n];
		uint64_t left = wish->n - got;
		uint32_t ask = left < UM_CHUNK_BLOCKS ? (uint32_t)left : UM_CHUNK_BLOCKS;

		if (got || !wish->place || !take_in_window(fs, goal, wish, &p->lba, &p->len))
			err = take_with_room(
				fs, goal, ask, wish->room, wish->flags, &p->lba, &p->len);
		if (err)
			break;
		p->block = wish->block + got;
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

void um_pieces_cut(struct umbra_fs *fs, struct um_pieces *pieces, uint64_t block)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pieces->n; i++) {
		struct um_piece *p = &pieces->v[i];
		uint32_t keep = block <= p->block           ? 0
				: block - p->block < p->len ? (uint32_t)(block - p->block)
							    : p->len;

		if (keep < p->len)
			um_space_give(fs->space, p->lba + keep, p->len - keep);
		p->len = keep;
		if (keep)
			pieces->v[n++] = *p;
	}
	pieces->n = n;
}

void um_pieces_give(struct umbra_fs *fs, struct um_pieces *pieces)
{
	for (unsigned i = pieces->counted; i < pieces->n; i++)
		um_space_give(fs->space, pieces->v[i].lba, pieces->v[i].len);
	pieces->n = pieces->counted = 0;
}
