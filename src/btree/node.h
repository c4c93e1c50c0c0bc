/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside the tree room: nodes, paths from a root to a leaf, embedded roots. */
#ifndef UM_BTREE_NODE_H
#define UM_BTREE_NODE_H

#include "btree/body.h"
#include "btree/btree.h"

#define UM_NODE_HDR sizeof(struct um_block_hdr)

/* One level of a path. */
struct um_step {
	struct um_ptr ptr;
	void *block;   /* as last read, or the transaction's copy: written only when that */
	unsigned slot; /* the child taken; in the leaf: where the key is or would be */
};
/* step[0] is the root, step[n - 1] the leaf. */
struct um_path {
	unsigned n;
	struct um_step step[UM_TREE_LEVELS];
};

static inline void *um_node_body(const void *block)
{
	return (uint8_t *)block + UM_NODE_HDR;
}
static inline unsigned um_node_level(const void *block)
{
	return ((const struct um_block_hdr *)block)->level;
}

/* Logs that the node at ptr is unsound; -EUCLEAN. */
int um_node_bad(const struct um_tree *tree, struct um_ptr ptr, const char *why);
/* 0 when tree->root can be used: a known format, its level or length possible. */
int um_tree_root_ok(const struct um_tree *tree);

/* Reads the node at ptr, which must be of this level; `root`: it may be an empty leaf. */
int um_node_get(struct um_src src, const struct um_tree *tree, struct um_ptr ptr, unsigned level,
	bool root, void **out);
/* Key and child in slot i of an interior node. */
int um_node_child(const struct um_src src, const struct um_tree *tree, const struct um_step *step,
	unsigned i, uint64_t *out_key, struct um_ptr *out_ptr);
/* Record i of a leaf, its value checked by the tree's type. */
int um_node_record(const struct um_src src, const struct um_tree *tree, const struct um_step *step,
	unsigned i, uint64_t *out_key, const void **out_val, uint16_t *out_len);
/* Parents of the node at ptr; 0 is unsound. */
int um_node_count(struct um_src src, const struct um_tree *tree, struct um_ptr ptr, uint32_t *out);
/* Drops a node that has one parent. */
int um_node_free(struct um_txn *txn, struct um_ptr ptr);

/* Descends to the leaf that holds key. *out_exact: it has a record with it. */
int um_path_find(struct um_src src, const struct um_tree *tree, uint64_t key, struct um_path *path,
	bool *out_exact);
/* Loads the root as step 0, and the child in step i's slot as step i + 1. */
int um_path_root(struct um_src src, const struct um_tree *tree, struct um_path *path);
int um_path_down(struct um_src src, const struct um_tree *tree, struct um_path *path);
/* Turns the path to the neighbouring leaf on the left (dir -1) or right (1). -ENOENT. */
int um_path_next(struct um_src src, const struct um_tree *tree, struct um_path *path, int dir);
/* Copies what is shared among the path's first n nodes, so that they are this tree's alone. */
int um_path_own(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned n);
/* Body of step i to change; the step must be owned. */
int um_path_edit(struct um_txn *txn, const struct um_tree *tree, struct um_path *path, unsigned i,
	void **out_body);
/* After records left the leaf: removes empty nodes, merges small ones (if `merge`), lowers the root. */
int um_path_shrink(struct um_txn *txn, struct um_tree *tree, struct um_path *path, bool merge);

/* Smallest key that may be below step i, as its ancestors' slots say. */
uint64_t um_path_lower(const struct um_path *path, unsigned i);
/* A root with one child gives way to it, and a small leaf returns into its owner's record. */
int um_tree_settle(struct um_txn *txn, struct um_tree *tree);

/* Embedded or empty root as a body of UM_NODE_BODY bytes, and back (-ENOSPC: too large). */
int um_embed_load(const struct um_tree *tree, void *body);
int um_embed_store(struct um_tree *tree, const void *body);
/* The body becomes the tree's root node. */
int um_embed_spill(struct um_txn *txn, struct um_tree *tree, const void *body);
/* The tree has no record left. */
void um_tree_set_empty(struct um_tree *tree);

#endif
