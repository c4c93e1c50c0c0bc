/* SPDX-License-Identifier: BSD-3-Clause */
/* Ownership of whole trees: share a root, drop a tree in bounded steps. */
#include <errno.h>
#include <string.h>

#include "btree/node.h"
#include "space/space.h"

/* Maximum number of shared children released in one step. */
#define DROP_CHILDREN 64u

int um_tree_to_node(struct um_txn *txn, struct um_tree *tree)
{
	uint8_t body[UM_NODE_BODY] __attribute__((aligned(8))) = {0};
	int err = um_tree_root_ok(tree);

	if (err || tree->root.format == UM_ROOT_NODE)
		return err;
	err = um_embed_load(tree, body);
	return err ? err : um_embed_spill(txn, tree, body);
}

int um_tree_share(struct um_txn *txn, const struct um_tree *tree)
{
	int err = um_tree_root_ok(tree);

	if (err)
		return err;
	if (tree->root.format != UM_ROOT_NODE)
		return -EINVAL;
	if (!um_lba_ok(um_txn_pool(txn), tree->root.ptr.lba, 1))
		return um_node_bad(tree, tree->root.ptr, "address outside the pool");
	return um_ref_get(txn, tree->root.ptr.lba, 1);
}

/* ---- dropping ------------------------------------------------------------------------------------ */

/* Releases what the records of a body from pos on refer to. */
static int unref_records(struct um_txn *txn, const struct um_tree *tree, struct um_ptr at,
	const void *body, uint16_t cap, unsigned pos)
{
	const struct um_tree_type *type = tree->type;
	struct um_pool *pool = um_txn_pool(txn);
	int err = 0;

	for (; type->ref && !err && pos < um_body_nrec(body); pos++) {
		uint64_t key;
		const void *val;
		uint16_t len;

		if (um_body_get(body, cap, pos, &key, &val, &len) ||
			(type->check && type->check(pool, key, val, len)))
			return um_node_bad(tree, at, "bad record");
		err = type->ref(txn, key, val, len, -1);
	}
	return err;
}

static int embed_drop(struct um_txn *txn, struct um_tree *tree, uint64_t first)
{
	uint8_t body[UM_NODE_BODY] __attribute__((aligned(8)));
	unsigned pos;
	bool exact;
	int err = um_embed_load(tree, body);

	if (!err)
		err = um_body_search(body, UM_NODE_BODY, first, &pos, &exact);
	if (err || pos == um_body_nrec(body))
		return err;
	err = unref_records(txn, tree, tree->root.ptr, body, UM_NODE_BODY, pos);
	if (err)
		return err;
	um_body_cut(body, UM_NODE_BODY, pos);
	return um_embed_store(tree, body);
}

/* Descends the right edge as far as necessary: to the leaf, or to an interior node whose last child
 * is shared and lies entirely at or after first (*out_shared). */
static int edge_find(struct um_src src, const struct um_tree *tree, uint64_t first,
	struct um_path *path, uint64_t *out_lower, bool *out_shared)
{
	int err = um_path_root(src, tree, path);

	*out_lower = 0;
	*out_shared = false;
	while (!err) {
		struct um_step *step = &path->step[path->n - 1];
		struct um_ptr child;
		uint64_t key, lower;
		uint32_t count;

		if (!um_node_level(step->block))
			return 0;
		step->slot = um_body_nrec(um_node_body(step->block)) - 1;
		err = um_node_child(src, tree, step, step->slot, &key, &child);
		if (err)
			return err;
		lower = step->slot ? key : *out_lower;
		if (lower >= first) {
			if (!um_lba_ok(src.pool, child.lba, 1))
				return um_node_bad(tree, step->ptr, "child outside the pool");
			err = um_node_count(src, tree, child, &count);
			*out_shared = !err && count > 1;
			if (err || *out_shared)
				return err;
		}
		*out_lower = lower;
		err = um_path_down(src, tree, path);
	}
	return err;
}

/* Releases the shared children at the end of the path's last node that lie after first. */
static int drop_shared(struct um_txn *txn, struct um_tree *tree, uint64_t first, uint64_t lower,
	struct um_path *path)
{
	struct um_src src = um_txn_src(txn);
	struct um_step *step = &path->step[path->n - 1];
	void *body;
	int err = um_path_own(txn, tree, path, path->n);

	if (!err)
		err = um_path_edit(txn, tree, path, path->n - 1, &body);
	for (unsigned n = 0; !err && n < DROP_CHILDREN && um_body_nrec(body); n++) {
		unsigned last = um_body_nrec(body) - 1;
		struct um_ptr child;
		uint64_t key;
		uint32_t count;

		err = um_node_child(src, tree, step, last, &key, &child);
		if (err || (last ? key : lower) < first)
			break;
		err = um_node_count(src, tree, child, &count);
		if (err || count == 1)
			break;
		err = um_node_free(txn, child);
		if (!err)
			um_body_delete(body, UM_NODE_BODY, last);
	}
	return err ? err : um_path_shrink(txn, tree, path, false);
}

/* Drops the records of the path's leaf from pos on. */
static int drop_leaf(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned pos)
{
	struct um_step *leaf = &path->step[path->n - 1];
	uint32_t count;
	void *body;
	/* A leaf that goes entirely is released, not copied: it is owned only if part of it
	 * stays. */
	int err = um_path_own(txn, tree, path, path->n - (pos ? 0 : 1));

	if (!err)
		err = um_node_count(um_txn_src(txn), tree, leaf->ptr, &count);
	if (!err && count == 1)
		err = unref_records(
			txn, tree, leaf->ptr, um_node_body(leaf->block), UM_NODE_BODY, pos);
	if (err)
		return err;
	if (pos) {
		err = um_path_edit(txn, tree, path, path->n - 1, &body);
		if (err)
			return err;
		um_body_cut(body, UM_NODE_BODY, pos);
		return um_path_shrink(txn, tree, path, false);
	}
	err = um_node_free(txn, leaf->ptr);
	if (err)
		return err;
	if (path->n == 1) {
		um_tree_set_empty(tree);
		return 0;
	}
	path->n--;
	err = um_path_edit(txn, tree, path, path->n - 1, &body);
	if (err)
		return err;
	um_body_delete(body, UM_NODE_BODY, path->step[path->n - 1].slot);
	return um_path_shrink(txn, tree, path, false);
}

static int node_drop(struct um_txn *txn, struct um_tree *tree, uint64_t first, bool *out_done)
{
	struct um_src src = um_txn_src(txn);
	struct um_path path;
	struct um_step *leaf;
	uint64_t lower;
	uint32_t count;
	unsigned pos;
	bool shared, exact;
	int err;

	if (!first) {
		if (!um_lba_ok(src.pool, tree->root.ptr.lba, 1))
			return um_node_bad(tree, tree->root.ptr, "address outside the pool");
		err = um_node_count(src, tree, tree->root.ptr, &count);
		if (err)
			return err;
		if (count > 1) {
			err = um_node_free(txn, tree->root.ptr);
			if (!err)
				um_tree_set_empty(tree);
			*out_done = true;
			return err;
		}
	}
	err = edge_find(src, tree, first, &path, &lower, &shared);
	if (err)
		return err;
	if (shared)
		return drop_shared(txn, tree, first, lower, &path);
	leaf = &path.step[path.n - 1];
	if (um_body_search(um_node_body(leaf->block), UM_NODE_BODY, first, &pos, &exact))
		return um_node_bad(tree, leaf->ptr, "bad node head");
	*out_done = pos || lower < first;
	if (pos && pos == um_body_nrec(um_node_body(leaf->block)))
		return 0;
	return drop_leaf(txn, tree, &path, pos);
}

int um_tree_drop_step(struct um_txn *txn, struct um_tree *tree, uint64_t first, bool *out_done)
{
	int err = um_tree_root_ok(tree);

	*out_done = false;
	if (err)
		return err;
	if (tree->root.format == UM_ROOT_NODE) {
		err = node_drop(txn, tree, first, out_done);
	} else {
		if (tree->root.format == UM_ROOT_EMBED)
			err = embed_drop(txn, tree, first);
		*out_done = true;
	}
	/* Not if the last leaf has just become an embedded one: the next step handles that. */
	if (tree->root.format == UM_ROOT_EMPTY)
		*out_done = true;
	return err;
}
