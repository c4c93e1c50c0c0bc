/* SPDX-License-Identifier: BSD-3-Clause */
/* Internal to btree/: nodes, paths from a root to a leaf, embedded roots. */
#ifndef UM_BTREE_NODE_H
#define UM_BTREE_NODE_H

#include "btree/body.h"
#include "btree/btree.h"

#define UM_NODE_HDR sizeof(struct um_block_hdr)

/* One level of a path. */
struct um_step {
	struct um_ptr ptr;
	void *block;   /* as last read, or the transaction's copy, which alone may be written */
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

/* Logs that the node at ptr is invalid; -EUCLEAN. */
int um_node_bad(const struct um_tree *tree, struct um_ptr ptr, const char *why);
/* 0 if tree->root can be used: a known format, a possible level or length. */
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
/* Number of parents of the node at ptr; 0 is invalid. */
int um_node_count(struct um_src src, const struct um_tree *tree, struct um_ptr ptr, uint32_t *out);
/* Drops a node that has one parent. */
int um_node_free(struct um_txn *txn, struct um_ptr ptr);

/* Descends to the leaf for key. *out_exact: it has a record with this key. */
int um_path_find(struct um_src src, const struct um_tree *tree, uint64_t key, struct um_path *path,
	bool *out_exact);
/* Loads the root as step 0, and the child in step i's slot as step i + 1. */
int um_path_root(struct um_src src, const struct um_tree *tree, struct um_path *path);
int um_path_down(struct um_src src, const struct um_tree *tree, struct um_path *path);
/* Moves the path to the neighbouring leaf on the left (dir -1) or right (1). -ENOENT. */
int um_path_next(struct um_src src, const struct um_tree *tree, struct um_path *path, int dir);
/* Copies what is shared among the path's first n nodes, so that they belong to this tree alone. */
int um_path_own(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned n);
/* Returns the body of step i for changing; the step must be owned. */
int um_path_edit(struct um_txn *txn, const struct um_tree *tree, struct um_path *path, unsigned i,
	void **out_body);
/* To be called after records were removed from the leaf: removes empty nodes, merges small ones (if
 * `merge`), lowers the root. */
int um_path_shrink(struct um_txn *txn, struct um_tree *tree, struct um_path *path, bool merge);

/* Smallest key that may be below step i, according to its ancestors' slots. */
uint64_t um_path_lower(const struct um_path *path, unsigned i);
/* Replaces a root with one child by that child, and moves a small leaf back into its owner's
 * record. */
int um_tree_settle(struct um_txn *txn, struct um_tree *tree);

/* Copies an embedded or empty root into a body of UM_NODE_BODY bytes, and back (-ENOSPC: too
 * large). */
int um_embed_load(const struct um_tree *tree, void *body);
int um_embed_store(struct um_tree *tree, const void *body);
/* Makes the body the tree's root node. */
int um_embed_spill(struct um_txn *txn, struct um_tree *tree, const void *body);
/* The tree has no records left. */
void um_tree_set_empty(struct um_tree *tree);

#endif
