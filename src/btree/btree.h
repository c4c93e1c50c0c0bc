/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The tree: a copy-on-write B+tree of 4 KiB nodes with reference-counted nodes. Inodes, extents,
 * directories, xattrs and orphans all use it, with 64-bit keys and values of 0 to UM_VALUE_MAX
 * bytes.
 *
 * Sharing: two roots may point at one node. A node with one parent is changed in place (in the
 * transaction's copy); one with several is copied on the way down: each child of the copy gains a
 * reference, the old node loses one. Leaves whose values refer to data blocks do the same for
 * those, through struct um_tree_type.
 *
 * The only leaf of a small tree lives in its owner's record (UM_ROOT_EMBED) as long as it fits.
 *
 * Errors of all functions: -EUCLEAN for an invalid node (one log line names it), -EIO, -ENOMEM; of
 * those that change a tree also -ENOSPC, and -EMLINK passed through from `ref`. After an error of a
 * changing function the transaction must be aborted: the struct um_tree may be half changed.
 *
 * Values may have any alignment: copy them out (memcpy) or use packed structures.
 */
#ifndef UM_BTREE_BTREE_H
#define UM_BTREE_BTREE_H

#include "txn/txn.h"

/* The properties in which trees differ. */
struct um_tree_type {
	enum um_kind kind;
	uint16_t embed_max; /* largest embedded body; 0: always a node */
	/* A leaf was copied (delta +1) or is going away (-1): adjust the references of its value.
	 * May be NULL. */
	int (*ref)(struct um_txn *txn, uint64_t key, const void *val, uint16_t len, int delta);
	/* Is this value valid? 0 or -EUCLEAN. Called by the checker and on every read of a leaf.
	 * May be NULL. */
	int (*check)(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len);
};

/* A tree being worked on. The owner loads root (and embed, for UM_ROOT_EMBED) from its record and,
 * if `dirty` is set afterwards, stores both back in the same transaction. */
struct um_tree {
	const struct um_tree_type *type;
	struct um_root root;
	uint64_t owner; /* inode, for goal and header; 0 for the pool's own trees */
	um_lba_t goal;  /* allocate near */
	bool dirty;
	uint8_t embed[UM_INLINE_MAX] __attribute__((aligned(8)));
};

enum um_seek { UM_SEEK_EQ, UM_SEEK_LE, UM_SEEK_GE };
/* Finds a record: with this key, the last at or before it, or the first at or after it. Copies the
 * value (up to `size` bytes) and returns its full length. -ENOENT. */
int um_tree_find(struct um_src src, const struct um_tree *tree, uint64_t key, enum um_seek seek,
	uint64_t *out_key, void *val, uint16_t size, uint16_t *out_len);
/* Calls fn for records in [first, last], ascending, until it returns non-zero (passed through).
 * Values point into the pool or the txn: the rules of um_src apply. fn must not change the tree. */
typedef int um_tree_visit_fn(void *arg, uint64_t key, const void *val, uint16_t len);
int um_tree_walk(struct um_src src, const struct um_tree *tree, uint64_t first, uint64_t last,
	um_tree_visit_fn *fn, void *arg);

/*
 * The same leaf by leaf, for reading very many records: fn gets a body whose slots are safe to
 * access with um_body_slot(), from `pos` on. fn checks the values, and that keys ascend from call
 * to call.
 */
typedef int um_tree_leaf_fn(void *arg, const void *body, unsigned pos);
int um_tree_walk_leaves(struct um_src src, const struct um_tree *tree, uint64_t first,
	um_tree_leaf_fn *fn, void *arg);

/* Inserts a record; -EEXIST if the key exists. */
int um_tree_insert(
	struct um_txn *txn, struct um_tree *tree, uint64_t key, const void *val, uint16_t len);
/* Replaces the value of an existing record (-ENOENT) by one of any length. */
int um_tree_replace(
	struct um_txn *txn, struct um_tree *tree, uint64_t key, const void *val, uint16_t len);
int um_tree_delete(struct um_txn *txn, struct um_tree *tree, uint64_t key);
/* Callers of these three maintain the counts of what values refer to: `ref` is only for node
 * copies. */

/* Ensures that the root is a node (for sharing): an embedded or empty tree is moved into one. */
int um_tree_to_node(struct um_txn *txn, struct um_tree *tree);
/* Adds an owner to the root node (UM_ROOT_NODE): clone. -EMLINK at the limit. */
int um_tree_share(struct um_txn *txn, const struct um_tree *tree);
/*
 * The maximum number of parents of the nodes on the path to the leaf that holds key: if above 1,
 * the record is shared, with at least that many owners. What the record itself refers to is not
 * considered. Parents that a power cut would bring back count too, for readers that decide by it;
 * um_tree_parents_now leaves them out.
 */
int um_tree_parents(struct um_src src, const struct um_tree *tree, uint64_t key, uint32_t *out);
int um_tree_parents_now(struct um_src src, const struct um_tree *tree, uint64_t key, uint32_t *out);
/* The nodes on the path to where key is or would be, root first; none for an embedded or empty
 * root. */
struct um_tree_level {
	um_lba_t lba;
	uint64_t end; /* first key after what the node covers, UINT64_MAX: none */
	uint32_t parents;
};
int um_tree_trace(struct um_src src, const struct um_tree *tree, uint64_t key,
	struct um_tree_level out[UM_TREE_LEVELS], unsigned *out_n);
/*
 * Calls fn for each node, parents first, before it is read: 0 continues below it, UM_NODES_SKIP
 * skips what is below, anything else ends the walk and is returned. What cannot be read is skipped.
 */
#define UM_NODES_SKIP 1
typedef int um_tree_node_fn(void *arg, struct um_ptr ptr, unsigned level);
int um_tree_nodes(struct um_src src, const struct um_tree *tree, um_tree_node_fn *fn, void *arg);
/*
 * One bounded step of dropping all records with key >= first: whole subtrees where possible,
 * calling `ref` with -1 for values that go. A record that starts before first is left alone.
 * *out_done if none is left; otherwise commit and call again. Constant time where a node is shared.
 */
int um_tree_drop_step(struct um_txn *txn, struct um_tree *tree, uint64_t first, bool *out_done);

/* Operations on parts of trees as a whole (graft.c). Their cost depends on the nodes on the paths
 * to the edges and their children, not on what lies between: a bounded part of one transaction. */
/* Moves all records from key on into `right`, which need not be initialised; references move with
 * them. */
int um_tree_split(struct um_txn *txn, struct um_tree *tree, uint64_t key, struct um_tree *right);
/*
 * Makes what src has in [first, last] a tree of its own, `out`, which need not be initialised.
 * Whole nodes are shared. The nodes at the two edges are copied, and their children, or what their
 * values refer to, gain a reference. -EMLINK: a count is at its limit.
 */
int um_tree_slice(struct um_txn *txn, const struct um_tree *src, uint64_t first, uint64_t last,
	struct um_tree *out);
/* Appends the records of `right` to those of `left`: all keys of left are below `key`, none of
 * right's is. */
int um_tree_join(struct um_txn *txn, struct um_tree *left, struct um_tree *right, uint64_t key);

/* ---- for the checker ------------------------------------------------------------------------------ */

/* Checks the structure of a body: slots inside, ascending, values inside and not overlapping.
 * -EUCLEAN. */
int um_body_check(const void *body, uint16_t cap);
uint16_t um_body_nrec(const void *body);
/* Slot i of a body that passed the check. */
void um_body_slot(
	const void *body, unsigned i, uint64_t *out_key, const void **out_val, uint16_t *out_len);

#endif
