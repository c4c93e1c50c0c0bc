/* SPDX-License-Identifier: BSD-3-Clause */
/* The identifier of a file's content: files that share all of it have the same one. */
#include <errno.h>
#include <string.h>

#include "fs/data.h"

#define RUNS 64u

/* The smallest number of owners of any block of an embedded tree. */
static int embedded_owners(
	struct um_src src, const struct um_tree *tree, uint64_t blocks, struct umbra_content *out)
{
	struct um_run runs[RUNS];
	uint32_t least = UINT32_MAX;
	unsigned n;
	int ret = um_runs_get(src, tree, 0, blocks, UM_RUNS_REFS, runs, RUNS, &n);

	if (ret)
		return ret;
	for (unsigned i = 0; i < n; i++) {
		if (!runs[i].lba || runs[i].refs >= least)
			continue;
		least = runs[i].refs;
		out->lba = runs[i].lba;
	}
	out->owners = least == UINT32_MAX ? 1 : least;
	return 0;
}

static int name_tree(struct um_src src, const struct um_inode *inode, struct umbra_content *out)
{
	struct um_tree_level level[UM_TREE_LEVELS];
	struct um_tree tree;
	unsigned n;
	int ret;

	static_assert(UM_INLINE_MAX <= sizeof(out->body), "an embedded tree fits");
	um_inode_tree(inode, UM_FORK_DATA, &tree);
	if (tree.root.format == UM_ROOT_EMBED) {
		out->kind = UMBRA_CONTENT_EXTENTS;
		out->len = tree.root.len;
		memcpy(out->body, tree.embed, tree.root.len);
		if (um_body_check(out->body, out->len))
			return -EUCLEAN;
		return embedded_owners(src, &tree, um_blocks_of(inode->core.size), out);
	}
	ret = um_tree_trace(src, &tree, 0, level, &n);
	if (ret || !n)
		return ret;
	out->kind = UMBRA_CONTENT_ROOT;
	out->root = out->lba = level[0].lba;
	out->owners = level[0].parents;
	return 0;
}

int umbra_content(struct umbra_fs *fs, uint64_t ino, struct umbra_content *out)
{
	struct um_inode inode;
	int ret;

	memset(out, 0, offsetof(struct umbra_content, body));
	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, &inode);
	if (!ret) {
		out->size = inode.core.size;
		out->mode = inode.core.mode;
		out->flags = inode.core.flags;
		if (S_ISREG(inode.core.mode) && inode.core.data.format >= UM_ROOT_EMBED)
			ret = name_tree(um_fs_src(fs), &inode, out);
	}
	um_log_read_unlock(fs->log);
	return ret;
}

bool umbra_content_same(const struct umbra_content *a, const struct umbra_content *b)
{
	if (a->kind != b->kind || a->size != b->size || a->kind == UMBRA_CONTENT_NONE)
		return false;
	if (a->kind == UMBRA_CONTENT_ROOT)
		return a->root == b->root;
	return a->len == b->len && !memcmp(a->body, b->body, a->len);
}

bool umbra_content_has(const struct umbra_content *content, uint64_t lba)
{
	if (content->kind == UMBRA_CONTENT_ROOT)
		return content->root == lba;
	if (content->kind != UMBRA_CONTENT_EXTENTS)
		return false;
	for (unsigned i = 0; i < um_body_nrec(content->body); i++) {
		struct um_extent extent;
		const void *val;
		uint64_t key;
		uint16_t len;

		um_body_slot(content->body, i, &key, &val, &len);
		if (len != sizeof(extent))
			continue;
		memcpy(&extent, val, sizeof(extent));
		if (lba - (extent.addr & UM_LBA_MASK) < extent.len)
			return true;
	}
	return false;
}
