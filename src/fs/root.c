/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool root block: where the pool's own trees begin, and its counters. */
#include <errno.h>
#include <string.h>

#include "fs/fs.h"

int um_root_get(struct um_src src, const struct um_pool_root **out)
{
	const void *block;
	int ret = um_src_get(src, src.pool->super.root, UM_KIND_ROOT, &block);

	if (ret)
		return ret;
	*out = block;
	return 0;
}

int um_root_edit(struct um_txn *txn, struct um_pool_root **out)
{
	void *block;
	int ret = um_txn_edit(txn, um_txn_pool(txn)->super.root, UM_KIND_ROOT, &block);

	if (ret)
		return ret;
	*out = block;
	return 0;
}

static bool root_sound(const struct um_pool *pool, const struct um_root *root)
{
	if (root->format == UM_ROOT_EMPTY)
		return true;
	return root->format == UM_ROOT_NODE && root->level < UM_TREE_LEVELS &&
	       um_lba_ok(pool, root->ptr.lba, 1);
}

static const struct um_tree_type *const types[] = {
	&um_inodes_type, &um_orphans_type, &um_bads_type, &um_events_type};
static const size_t places[] = {
	offsetof(struct um_pool_root, inodes),
	offsetof(struct um_pool_root, orphans),
	offsetof(struct um_pool_root, remap),
	offsetof(struct um_pool_root, events),
};
static const char *const names[] = {"inode", "orphan", "remap", "event"};

int um_root_tree(struct um_src src, enum um_root_which which, struct um_tree *out)
{
	const struct um_pool_root *root;
	int ret = um_root_get(src, &root);

	if (ret)
		return ret;
	out->type = types[which];
	memcpy(&out->root, (const uint8_t *)root + places[which], sizeof(out->root));
	out->owner = 0;
	out->goal = out->root.format == UM_ROOT_NODE ? out->root.ptr.lba : 0;
	out->dirty = false;
	if (!root_sound(src.pool, &out->root)) {
		um_err("block %llu: pool root: invalid root of the %s tree",
			(unsigned long long)src.pool->super.root.lba, names[which]);
		return -EUCLEAN;
	}
	return 0;
}

int um_root_store(struct um_txn *txn, enum um_root_which which, const struct um_tree *tree)
{
	struct um_pool_root *root;
	int ret;

	if (!tree->dirty)
		return 0;
	ret = um_root_edit(txn, &root);
	if (ret)
		return ret;
	memcpy((uint8_t *)root + places[which], &tree->root, sizeof(tree->root));
	return 0;
}
