/* SPDX-License-Identifier: BSD-3-Clause */
/* Changing a tree: insert, replace, delete, with splits and merges. */
#include <errno.h>
#include <string.h>

#include "btree/node.h"
#include "space/space.h"

uint64_t um_path_lower(const struct um_path *path, unsigned i)
{
	while (i--) {
		const struct um_step *step = &path->step[i];
		uint64_t key;
		const void *val;
		uint16_t len;

		if (step->slot && !um_body_get(um_node_body(step->block), UM_NODE_BODY, step->slot,
					  &key, &val, &len))
			return key;
	}
	return 0;
}

/*
 * Slot 0's key is never compared, and may have become too high when records left of it were
 * removed. A lower separator inserted behind it would break the order: so the key is corrected
 * first.
 */
static void lower_first_key(const struct um_path *path, unsigned i, void *body, uint64_t key)
{
	uint64_t first;
	const void *val;
	uint16_t len;

	um_body_slot(body, 0, &first, &val, &len);
	if (first >= key)
		um_body_set_key(body, 0, um_path_lower(path, i));
}

static int path_insert(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i,
	unsigned pos, uint64_t key, const void *val, uint16_t len);

/* Puts a root above the old one and its new right sibling. */
static int grow_root(struct um_txn *txn, struct um_tree *tree, uint64_t sep, struct um_ptr right)
{
	unsigned level = tree->root.level + 1u;
	struct um_ptr ptr;
	void *block, *body;
	int err;

	if (level >= UM_TREE_LEVELS)
		return -EFBIG;
	err = um_txn_new(txn, tree->type->kind, level, tree->root.ptr.lba, &ptr, &block);
	if (err)
		return err;
	body = um_node_body(block);
	um_body_init(body, UM_NODE_BODY);
	um_body_insert(body, UM_NODE_BODY, 0, 0, &tree->root.ptr, sizeof(struct um_ptr));
	um_body_insert(body, UM_NODE_BODY, 1, sep, &right, sizeof(right));
	tree->root.ptr = ptr;
	tree->root.level = level;
	tree->dirty = true;
	return 0;
}

/* The node of step i is full: part of it moves to a new right sibling, and the record enters one of
 * the two. */
static int path_split(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i,
	unsigned pos, uint64_t key, const void *val, uint16_t len)
{
	struct um_step *step = &path->step[i];
	unsigned level = um_node_level(step->block), from;
	void *block, *left = um_node_body(step->block), *right;
	struct um_ptr ptr;
	uint64_t sep;
	const void *first;
	uint16_t first_len;
	bool go_left;
	int err = um_txn_new(txn, tree->type->kind, level, step->ptr.lba, &ptr, &block);

	if (err)
		return err;
	right = um_node_body(block);
	um_body_init(right, UM_NODE_BODY);
	um_body_split_point(left, pos, len, &from, &go_left);
	um_body_append(right, UM_NODE_BODY, left, from);
	um_body_cut(left, UM_NODE_BODY, from);
	if (go_left)
		err = um_body_insert(left, UM_NODE_BODY, pos, key, val, len);
	else
		err = um_body_insert(right, UM_NODE_BODY, pos - from, key, val, len);
	if (err)
		return um_node_bad(tree, step->ptr, "record does not fit after a split");
	um_body_slot(right, 0, &sep, &first, &first_len);
	if (!i)
		return grow_root(txn, tree, sep, ptr);
	return path_insert(
		txn, tree, path, i - 1, path->step[i - 1].slot + 1, sep, &ptr, sizeof(ptr));
}

/* Inserts a record at pos of step i, which is owned, as are all above it. */
static int path_insert(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i,
	unsigned pos, uint64_t key, const void *val, uint16_t len)
{
	void *body;
	int err = um_path_edit(txn, tree, path, i, &body);

	if (err)
		return err;
	if (um_node_level(path->step[i].block) && pos == 1)
		lower_first_key(path, i, body, key);
	err = um_body_insert(body, UM_NODE_BODY, pos, key, val, len);
	if (err == -ENOSPC)
		err = path_split(txn, tree, path, i, pos, key, val, len);
	return err;
}

/* ---- after records left ----------------------------------------------------------------------------- */

/* Moves the right one of two neighbours into the left one; the caller drops its slot. */
static int merge_into(struct um_txn *txn, const struct um_tree *tree, const struct um_step *up,
	unsigned right_slot, struct um_step *left, const struct um_step *right)
{
	struct um_path path = {.n = 1, .step = {*left}};
	struct um_ptr ptr;
	unsigned nrec;
	uint64_t sep;
	void *body;
	int err = um_node_child(um_txn_src(txn), tree, up, right_slot, &sep, &ptr);

	if (!err)
		err = um_path_edit(txn, tree, &path, 0, &body);
	if (err)
		return err;
	nrec = um_body_nrec(body);
	um_body_append(body, UM_NODE_BODY, um_node_body(right->block), 0);
	/* A key that was never compared will be: the separator above is the true lower limit. */
	if (um_node_level(right->block))
		um_body_set_key(body, nrec, sep);
	return um_node_free(txn, right->ptr);
}

/* Tries to merge step i with the neighbour in slot nb of its parent. */
static int merge_with(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i,
	unsigned nb, bool *out_merged)
{
	struct um_src src = um_txn_src(txn);
	struct um_step *up = &path->step[i - 1], *step = &path->step[i], other = {.slot = 0};
	bool left = nb < up->slot;
	uint64_t key;
	uint32_t count;
	void *body;
	int err = um_node_child(src, tree, up, nb, &key, &other.ptr);

	if (!err)
		err = um_node_get(
			src, tree, other.ptr, um_node_level(step->block), false, &other.block);
	if (err)
		return err;
	if (other.ptr.lba == step->ptr.lba)
		return um_node_bad(tree, up->ptr, "two slots hold one child");
	if (um_body_safe(um_node_body(other.block), UM_NODE_BODY))
		return um_node_bad(tree, other.ptr, "invalid slots");
	if (um_body_used(um_node_body(other.block), UM_NODE_BODY) +
			um_body_used(um_node_body(step->block), UM_NODE_BODY) >
		UM_NODE_BODY / 4 * 3)
		return 0;
	err = um_node_count(src, tree, other.ptr, &count);
	if (err || count > 1)
		return err;
	if (left)
		err = merge_into(txn, tree, up, up->slot, &other, step);
	else
		err = merge_into(txn, tree, up, nb, step, &other);
	if (!err)
		err = um_path_edit(txn, tree, path, i - 1, &body);
	if (err)
		return err;
	um_body_delete(body, UM_NODE_BODY, left ? up->slot : nb);
	*out_merged = true;
	return 0;
}

static int path_merge(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i,
	bool *out_merged)
{
	const struct um_step *up = &path->step[i - 1];
	int err = 0;

	*out_merged = false;
	if (um_body_used(um_node_body(path->step[i].block), UM_NODE_BODY) > UM_NODE_BODY / 2)
		return 0;
	if (up->slot)
		err = merge_with(txn, tree, path, i, up->slot - 1, out_merged);
	if (!err && !*out_merged && up->slot + 1 < um_body_nrec(um_node_body(up->block)))
		err = merge_with(txn, tree, path, i, up->slot + 1, out_merged);
	return err;
}

int um_tree_settle(struct um_txn *txn, struct um_tree *tree)
{
	struct um_src src = um_txn_src(txn);
	struct um_path path;
	uint32_t count;
	uint64_t key;
	int err = um_path_root(src, tree, &path);

	while (!err && tree->root.level && um_body_nrec(um_node_body(path.step[0].block)) == 1) {
		struct um_ptr old = tree->root.ptr;

		/* A shared one keeps its child, which would gain a parent otherwise. */
		err = um_node_count(src, tree, old, &count);
		if (err || count > 1)
			return err;
		err = um_node_child(src, tree, &path.step[0], 0, &key, &tree->root.ptr);
		tree->root.level--;
		tree->dirty = true;
		if (!err)
			err = um_node_free(txn, old);
		if (!err)
			err = um_path_root(src, tree, &path);
	}
	if (err || tree->root.level ||
		um_body_safe(um_node_body(path.step[0].block), UM_NODE_BODY) ||
		um_body_used(um_node_body(path.step[0].block), UM_NODE_BODY) >
			tree->type->embed_max / 2u)
		return err;
	err = um_node_count(src, tree, path.step[0].ptr, &count);
	if (err || count > 1 || um_embed_store(tree, um_node_body(path.step[0].block)))
		return err;
	return um_node_free(txn, path.step[0].ptr);
}

int um_path_shrink(struct um_txn *txn, struct um_tree *tree, struct um_path *path, bool merge)
{
	for (unsigned i = path->n - 1;; i--) {
		struct um_step *step = &path->step[i];
		bool merged = false;
		void *body;
		int err = 0;

		if (!um_body_nrec(um_node_body(step->block))) {
			err = um_node_free(txn, step->ptr);
			if (!err && !i) {
				um_tree_set_empty(tree);
				return 0;
			}
			if (!err)
				err = um_path_edit(txn, tree, path, i - 1, &body);
			if (!err)
				um_body_delete(body, UM_NODE_BODY, path->step[i - 1].slot);
		} else {
			if (i && merge)
				err = path_merge(txn, tree, path, i, &merged);
			if (!err && !merged)
				return um_tree_settle(txn, tree);
		}
		if (err)
			return err;
	}
}

/* ---- the three changes -------------------------------------------------------------------------------- */

enum change { INSERT, REPLACE, DELETE };

/* Is what the caller wants to do compatible with what exists? */
static int change_ok(enum change what, bool exact, uint16_t len)
{
	if (len > UM_VALUE_MAX)
		return -EINVAL;
	if (what == INSERT)
		return exact ? -EEXIST : 0;
	return exact ? 0 : -ENOENT;
}

static int embed_change(struct um_txn *txn, struct um_tree *tree, enum change what, uint64_t key,
	const void *val, uint16_t len)
{
	uint8_t body[UM_NODE_BODY] __attribute__((aligned(8)));
	unsigned pos;
	bool exact;
	int err = um_embed_load(tree, body);

	if (!err)
		err = um_body_search(body, UM_NODE_BODY, key, &pos, &exact);
	if (!err)
		err = change_ok(what, exact, len);
	if (err)
		return err;
	if (what != INSERT)
		um_body_delete(body, UM_NODE_BODY, pos);
	if (what != DELETE)
		err = um_body_insert(body, UM_NODE_BODY, pos, key, val, len);
	if (!err)
		err = um_embed_store(tree, body);
	if (err == -ENOSPC) {
		/* The body on the stack becomes the node: uninitialised bytes must not leak into
		 * it. */
		memset(body + sizeof(struct um_body_head) +
				um_body_nrec(body) * sizeof(struct um_slot),
			0,
			um_body_head(body)->heap - sizeof(struct um_body_head) -
				um_body_nrec(body) * sizeof(struct um_slot));
		err = um_embed_spill(txn, tree, body);
	}
	return err;
}

static int node_change(struct um_txn *txn, struct um_tree *tree, enum change what, uint64_t key,
	const void *val, uint16_t len)
{
	struct um_path path;
	unsigned pos, last;
	bool exact;
	void *body;
	int err = um_path_find(um_txn_src(txn), tree, key, &path, &exact);

	if (!err)
		err = change_ok(what, exact, len);
	if (!err)
		err = um_path_own(txn, tree, &path, path.n);
	if (err)
		return err;
	last = path.n - 1;
	pos = path.step[last].slot;
	if (what == INSERT)
		return path_insert(txn, tree, &path, last, pos, key, val, len);
	err = um_path_edit(txn, tree, &path, last, &body);
	if (err)
		return err;
	if (what == REPLACE) {
		err = um_body_replace(body, UM_NODE_BODY, pos, val, len);
		if (err != -ENOSPC)
			return err;
	}
	um_body_delete(body, UM_NODE_BODY, pos);
	if (what == REPLACE)
		return path_insert(txn, tree, &path, last, pos, key, val, len);
	return um_path_shrink(txn, tree, &path, true);
}

static int change(struct um_txn *txn, struct um_tree *tree, enum change what, uint64_t key,
	const void *val, uint16_t len)
{
	int err = um_tree_root_ok(tree);

	if (err)
		return err;
	if (tree->root.format == UM_ROOT_NODE)
		return node_change(txn, tree, what, key, val, len);
	return embed_change(txn, tree, what, key, val, len);
}

int um_tree_insert(
	struct um_txn *txn, struct um_tree *tree, uint64_t key, const void *val, uint16_t len)
{
	return change(txn, tree, INSERT, key, val, len);
}

int um_tree_replace(
	struct um_txn *txn, struct um_tree *tree, uint64_t key, const void *val, uint16_t len)
{
	return change(txn, tree, REPLACE, key, val, len);
}

int um_tree_delete(struct um_txn *txn, struct um_tree *tree, uint64_t key)
{
	return change(txn, tree, DELETE, key, NULL, 0);
}
