/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cloning a range at the same offset in both files: whole nodes of the source's tree are shared, in
 * one transaction whose size depends on the height of the trees, not on the extents in the range.
 * What the destination had there becomes a tree of its own, which the reaper frees.
 *
 * At both edges an extent may extend beyond the range. In the destination it is split first; of the
 * source's, the part inside is shared by itself.
 */
#include <errno.h>
#include <string.h>

#include "fs/orphan.h"
#include "fs/shadows.h"

/* The planned operation; both files are locked. */
struct range {
	const struct um_remap *r;
	uint64_t first, end; /* file blocks */
	/* The source's extents that extend beyond the range, cut to it; len 0: none. */
	struct um_run left, right;
	uint64_t src_blocks, dst_blocks; /* mapped in the range */
};

/* ---- planning ----------------------------------------------------------------------------------- */

/* Blocks mapped in the range: counted there or, if that is most of the file, everywhere else. */
static int count_blocks(struct umbra_fs *fs, const struct um_inode *inode, uint64_t first,
	uint64_t end, uint64_t *out)
{
	uint64_t span = um_blocks_of(inode->core.size), before;
	struct um_orphan orphan;
	struct um_tree tree;
	int err;

	um_inode_tree(inode, UM_FORK_DATA, &tree);
	if (end - first <= (end > span ? end : span) / 2)
		return um_extents_count(fs, &tree, first, end, out);
	/* While blocks beyond the end are being dropped, the record does not count them. */
	um_log_read_lock(fs->log);
	err = um_orphan_get(um_fs_src(fs), inode->ino, &orphan);
	um_log_read_unlock(fs->log);
	if (!err)
		return um_extents_count(fs, &tree, first, end, out);
	if (err != -ENOENT)
		return err;
	err = um_extents_count(fs, &tree, 0, first, &before);
	if (!err)
		err = um_extents_count(fs, &tree, end, UINT64_MAX, out);
	if (err)
		return err;
	before += *out;
	/* A record that is wrong already must not wrap around as well. */
	if (before > inode->core.blocks)
		return um_extents_count(fs, &tree, first, end, out);
	*out = inode->core.blocks - before;
	return 0;
}

static int plan_edges(struct um_src src, const struct um_tree *tree, struct range *g)
{
	struct um_run run;
	int err = um_extent_at(src, tree, g->first, &run);

	if (!err && run.block < g->first) {
		uint64_t skip = g->first - run.block;

		g->left = run;
		g->left.block = g->first;
		g->left.lba += skip;
		g->left.len -= skip;
		if (g->left.len > g->end - g->first)
			g->left.len = g->end - g->first;
	}
	if (err && err != -ENOENT)
		return err;
	err = um_extent_at(src, tree, g->end - 1, &run);
	if (!err && run.block >= g->first && run.block + run.len > g->end) {
		g->right = run;
		g->right.len = g->end - run.block;
	}
	return err == -ENOENT ? 0 : err;
}

/* As a reader, before the transaction: takes time proportional to the number of extents. */
static int plan_counts(struct range *g)
{
	struct umbra_fs *fs = g->r->fs;
	struct um_inode src, dst;
	int err = um_inode_read(fs, g->r->src->ino, &src);

	if (!err)
		err = um_inode_read(fs, g->r->dst->ino, &dst);
	if (err)
		return err;
	err = count_blocks(fs, &src, g->first, g->end, &g->src_blocks);
	if (!err)
		err = count_blocks(fs, &dst, g->first, g->end, &g->dst_blocks);
	return err;
}

/* ---- doing ---------------------------------------------------------------------------------------- */

static int add_edge(struct um_txn *txn, struct um_tree *tree, const struct um_run *run)
{
	int err;

	if (!run->len)
		return 0;
	err = um_ref_get(txn, run->lba, (uint32_t)run->len);
	return err ? err
		   : um_extents_add(
			     txn, tree, run->block, (uint32_t)run->len, run->lba, run->unwritten);
}

/* Replaces the range in the destination's tree by the source's; what was there is left in *old. */
static int exchange(struct um_txn *txn, const struct range *g, const struct um_tree *src,
	struct um_tree *dst, struct um_tree *old)
{
	uint64_t lo = g->left.len ? g->left.block + g->left.len : g->first;
	uint64_t hi = g->right.len ? g->right.block : g->end;
	struct um_tree rest, part;
	int err = um_extents_cut_at(txn, dst, g->end);

	if (!err)
		err = um_extents_cut_at(txn, dst, g->first);
	if (!err)
		err = um_tree_split(txn, dst, g->end, &rest);
	if (!err)
		err = um_tree_split(txn, dst, g->first, old);
	if (!err)
		err = add_edge(txn, dst, &g->left);
	if (!err && lo < hi)
		err = um_tree_slice(txn, src, lo, hi - 1, &part);
	if (!err && lo < hi)
		err = um_tree_join(txn, dst, &part, lo);
	if (!err)
		err = add_edge(txn, &rest, &g->right);
	return err ? err : um_tree_join(txn, dst, &rest, hi);
}

/* Moves the tree that was replaced to a nameless inode, unless it can be dropped in one step. */
static int shed_old(
	struct um_txn *txn, const struct range *g, const struct um_tree *old, um_ino_t *heir)
{
	struct um_inode bearer = {.ino = g->r->dst->ino};

	um_inode_set_tree(&bearer, UM_FORK_DATA, old);
	bearer.core.blocks = g->dst_blocks;
	return um_data_shed(txn, &bearer, heir);
}

static int apply(struct um_txn *txn, struct range *g, um_ino_t *heir)
{
	const struct um_remap *r = g->r;
	uint64_t size = g->end << UM_BLOCK_SHIFT;
	struct um_tree from, to, old;
	struct um_inode src, dst;
	int err = um_inode_load(um_txn_src(txn), r->src->ino, &src);

	if (!err)
		err = um_inode_load(um_txn_src(txn), r->dst->ino, &dst);
	if (err)
		return err;
	um_inode_tree(&src, UM_FORK_DATA, &from);
	um_inode_tree(&dst, UM_FORK_DATA, &to);
	err = plan_edges(um_txn_src(txn), &from, g);
	if (!err)
		err = exchange(txn, g, &from, &to, &old);
	if (!err)
		err = shed_old(txn, g, &old, heir);
	if (err)
		return err;
	um_inode_set_tree(&dst, UM_FORK_DATA, &to);
	dst.core.blocks += g->src_blocks;
	dst.core.blocks -= g->dst_blocks;
	if (size > r->dst_size)
		size = r->dst_size;
	if (size > dst.core.size)
		dst.core.size = size;
	if (!r->same_content)
		um_inode_touch(&dst, UM_TOUCH_M | UM_TOUCH_C);
	return um_inode_store(txn, &dst);
}

/* Trees of one node are faster extent by extent, and need not grow another node. */
static int worth_it(const struct um_remap *r, bool *out)
{
	struct um_inode src, dst;
	int err;

	*out = !r->one_by_one && r->src != r->dst && r->src_block == r->dst_block &&
	       r->blocks > UM_STEP_RUNS;
	if (!*out)
		return 0;
	err = um_inode_read(r->fs, r->src->ino, &src);
	if (!err)
		err = um_inode_read(r->fs, r->dst->ino, &dst);
	*out = !err && src.core.data.format != UM_ROOT_INLINE &&
	       dst.core.data.format != UM_ROOT_INLINE &&
	       ((src.core.data.format == UM_ROOT_NODE && src.core.data.level) ||
		       (dst.core.data.format == UM_ROOT_NODE && dst.core.data.level));
	return err;
}

int um_data_graft(const struct um_remap *remap, bool *out_done)
{
	struct range g = {
		.r = remap,
		.first = remap->dst_block,
		.end = remap->dst_block + remap->blocks,
	};
	struct um_txn *txn;
	um_ino_t heir = 0;
	int err = worth_it(remap, out_done);

	if (err || !*out_done)
		return err;
	err = plan_counts(&g);
	if (!err)
		err = um_txn_begin(remap->fs->log, 0, &txn);
	if (err)
		return err;
	err = um_txn_end(txn, apply(txn, &g, &heir));
	if (!err)
		um_shadows_toss(remap->fs, remap->dst->ino, g.first, g.end - g.first);
	if (!err && heir)
		um_reaper_kick(remap->fs, heir);
	/* A node or block is at its owner limit: extent by extent, with copies. */
	*out_done = err != -EMLINK;
	return *out_done ? err : 0;
}
