/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recomputes which blocks parity covers, when no copy of that is left: nodes, their second copies,
 * written data. All trees are read, as by fsck, with the writer lock held, so that the result is
 * what the lost block had, and parity, which was maintained by it, is still right.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/data.h"
#include "fs/failure.h"

struct cover_walk {
	struct um_src src;
	struct um_cover *cover;
	uint64_t first; /* the first of the chunks whose bits are there */
	/* Roots that clones share, walked once: open addressing. */
	um_lba_t *seen;
	size_t nseen, cap;
};

static void set_bits(struct cover_walk *w, um_lba_t lba, uint32_t n)
{
	for (; n; lba++, n--) {
		uint64_t chunk = um_chunk_of(lba);
		unsigned i = lba % UM_CHUNK_BLOCKS;

		if (chunk >= w->first && chunk - w->first < UM_COVER_CHUNKS)
			w->cover->bits[chunk - w->first][i / 64] |= 1ull << (i % 64);
	}
}

static int cover_node(void *arg, struct um_ptr ptr, unsigned level)
{
	struct cover_walk *w = arg;

	(void)level;
	set_bits(w, ptr.lba, 1);
	if (ptr.mirror)
		set_bits(w, ptr.mirror, 1);
	return 0;
}

static int cover_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	(void)arg, (void)key, (void)val, (void)len;
	return 0;
}

static int cover_extent(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct um_extent extent;

	(void)key;
	if (len != sizeof(extent))
		return -EUCLEAN;
	memcpy(&extent, val, sizeof(extent));
	if (!(extent.addr & UM_EXTENT_UNWRITTEN))
		set_bits(arg, extent.addr & UM_LBA_MASK, extent.len);
	return 0;
}

static size_t slot_of(const struct cover_walk *w, um_lba_t lba)
{
	size_t at = (size_t)(lba * 0x9e3779b97f4a7c15ull >> 20) & (w->cap - 1);

	while (w->seen[at] && w->seen[at] != lba)
		at = (at + 1) & (w->cap - 1);
	return at;
}

static int grow_seen(struct cover_walk *w)
{
	um_lba_t *old = w->seen;
	size_t n = w->cap;

	w->seen = calloc(n ? 2 * n : 1024, sizeof(*w->seen));
	if (!w->seen) {
		w->seen = old;
		return -ENOMEM;
	}
	w->cap = n ? 2 * n : 1024;
	for (size_t i = 0; i < n; i++)
		if (old[i])
			w->seen[slot_of(w, old[i])] = old[i];
	free(old);
	return 0;
}

/* 1: a tree with this root was walked before; 0; or an error. */
static int met(struct cover_walk *w, const struct um_root *root)
{
	uint32_t count, same;
	size_t at;
	int ret = 0;

	if (root->format != UM_ROOT_NODE)
		return 0;
	ret = um_ref_count(w->src, root->ptr.lba, 1, &count, &same);
	if (ret || count < 2)
		return ret;
	if (2 * w->nseen >= w->cap)
		ret = grow_seen(w);
	if (ret)
		return ret;
	at = slot_of(w, root->ptr.lba);
	if (w->seen[at])
		return 1;
	w->seen[at] = root->ptr.lba;
	w->nseen++;
	return 0;
}

/* Records of every tree are read: unlike in um_tree_nodes(), a node that cannot be read ends the
 * walk. */
static int cover_tree(struct cover_walk *w, const struct um_tree *tree, um_tree_visit_fn *fn)
{
	int ret = met(w, &tree->root);

	if (ret)
		return ret < 0 ? ret : 0;
	if (tree->root.format == UM_ROOT_NODE)
		ret = um_tree_nodes(w->src, tree, cover_node, w);
	return ret ? ret : um_tree_walk(w->src, tree, 0, UINT64_MAX, fn, w);
}

static int cover_inode(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct cover_walk *w = arg;
	struct um_inode inode;
	struct um_tree tree;
	int ret = um_inode_load(w->src, key, &inode);

	(void)val, (void)len;
	if (!ret) {
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		ret = cover_tree(w, &tree, S_ISREG(inode.core.mode) ? cover_extent : cover_record);
	}
	if (!ret) {
		um_inode_tree(&inode, UM_FORK_XATTR, &tree);
		ret = cover_tree(w, &tree, cover_record);
	}
	return ret;
}

static int walk_all(struct cover_walk *w)
{
	struct um_tree tree;
	int ret = 0;

	for (int which = UM_ROOT_INODES; !ret && which <= UM_ROOT_EVENTS; which++) {
		ret = um_root_tree(w->src, (enum um_root_which)which, &tree);
		if (!ret)
			ret = cover_tree(
				w, &tree, which == UM_ROOT_INODES ? cover_inode : cover_record);
	}
	return ret;
}

int um_failure_cover(struct umbra_fs *fs, struct um_ptr at, void *out)
{
	struct um_pool *pool = fs->pool;
	struct cover_walk w = {.src = um_fs_src(fs), .cover = out};
	uint64_t chunk = 0;
	int ret;

	while (chunk < pool->nchunks && um_cover_ptr(pool, chunk).lba != at.lba)
		chunk++;
	if (chunk >= pool->nchunks)
		return -ENODATA;
	w.first = chunk;
	memset(out, 0, UM_BLOCK_SIZE);
	um_log_read_lock(fs->log);
	ret = walk_all(&w);
	um_log_read_unlock(fs->log);
	free(w.seen);
	if (um_guard_check() || ret)
		return -ENODATA;
	um_block_init(pool, out, UM_KIND_COVER, 0, at, 0, 0);
	um_block_seal(out);
	return 0;
}
