/* SPDX-License-Identifier: BSD-3-Clause */
/* Embedded roots: the leaf of a small tree inside its owner's record, in as few bytes as
 * possible. */
#include <errno.h>
#include <string.h>

#include "btree/node.h"

void um_tree_set_empty(struct um_tree *tree)
{
	tree->root = (struct um_root){.format = UM_ROOT_EMPTY};
	tree->dirty = true;
}

int um_embed_load(const struct um_tree *tree, void *body)
{
	um_body_init(body, UM_NODE_BODY);
	if (tree->root.format == UM_ROOT_EMPTY)
		return 0;
	if (um_body_safe(tree->embed, tree->root.len))
		return um_node_bad(tree, tree->root.ptr, "invalid embedded root");
	um_body_append(body, UM_NODE_BODY, tree->embed, 0);
	return 0;
}

int um_embed_store(struct um_tree *tree, const void *body)
{
	unsigned len = (um_body_used(body, UM_NODE_BODY) + 7) & ~7u;

	if (!um_body_nrec(body)) {
		um_tree_set_empty(tree);
		return 0;
	}
	if (len > tree->type->embed_max)
		return -ENOSPC;
	tree->root = (struct um_root){.format = UM_ROOT_EMBED, .len = len};
	memset(tree->embed, 0, len);
	um_body_init(tree->embed, len);
	um_body_append(tree->embed, len, body, 0);
	tree->dirty = true;
	return 0;
}

int um_embed_spill(struct um_txn *txn, struct um_tree *tree, const void *body)
{
	struct um_ptr ptr;
	void *block;
	int err = um_txn_new(txn, tree->type->kind, 0, tree->goal, &ptr, &block);

	if (err)
		return err;
	memcpy(um_node_body(block), body, UM_NODE_BODY);
	tree->root = (struct um_root){.ptr = ptr, .format = UM_ROOT_NODE};
	tree->dirty = true;
	return 0;
}
