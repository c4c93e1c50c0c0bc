/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading a tree: find, walk, and whether a path is shared. */
#include <errno.h>
#include <string.h>

#include "btree/node.h"

/* Where a search ended: a record of the embedded root or of a leaf. */
struct found {
	uint64_t key;
	const void *val;
	uint16_t len;
};

static int embed_record(
	struct um_src src, const struct um_tree *tree, unsigned i, struct found *out)
{
	const struct um_tree_type *type = tree->type;

	if (um_body_get(tree->embed, tree->root.len, i, &out->key, &out->val, &out->len))
		return um_node_bad(tree, tree->root.ptr, "bad slot in embedded root");
	if (type->check && type->check(src.pool, out->key, out->val, out->len))
		return um_node_bad(tree, tree->root.ptr, "bad record in embedded root");
	return 0;
}

static int embed_find(struct um_src src, const struct um_tree *tree, uint64_t key,
	enum um_seek seek, struct found *out)
{
	unsigned pos;
	bool exact;

	if (um_body_search(tree->embed, tree->root.len, key, &pos, &exact))
		return um_node_bad(tree, tree->root.ptr, "bad embedded root");
	if (!exact && seek == UM_SEEK_LE)
		pos--; /* wraps at 0: not found below */
	if ((!exact && seek == UM_SEEK_EQ) || pos >= um_body_nrec(tree->embed))
		return -ENOENT;
	return embed_record(src, tree, pos, out);
}

/* Moves to the neighbour's nearest record if the leaf has none on the wanted side. */
static int leaf_step(
	struct um_src src, const struct um_tree *tree, struct um_path *path, enum um_seek seek)
{
	struct um_step *leaf = &path->step[path->n - 1];
	int err;

	if (seek == UM_SEEK_LE) {
		if (leaf->slot) {
			leaf->slot--;
			return 0;
		}
		return um_path_next(src, tree, path, -1);
	}
	if (leaf->slot < um_body_nrec(um_node_body(leaf->block)))
		return 0;
	err = um_path_next(src, tree, path, 1);
	if (!err)
		path->step[path->n - 1].slot = 0;
	return err;
}

static int node_find(struct um_src src, const struct um_tree *tree, uint64_t key, enum um_seek seek,
	struct found *out)
{
	struct um_path path;
	struct um_step *leaf;
	bool exact;
	int err = um_path_find(src, tree, key, &path, &exact);

	if (err)
		return err;
	if (!exact) {
		if (seek == UM_SEEK_EQ)
			return -ENOENT;
		err = leaf_step(src, tree, &path, seek);
		if (err)
			return err;
	}
	leaf = &path.step[path.n - 1];
	err = um_node_record(src, tree, leaf, leaf->slot, &out->key, &out->val, &out->len);
	if (err)
		return err;
	if (seek == UM_SEEK_LE ? out->key > key : out->key < key)
		return um_node_bad(tree, leaf->ptr, "keys out of order");
	return 0;
}

int um_tree_find(struct um_src src, const struct um_tree *tree, uint64_t key, enum um_seek seek,
	uint64_t *out_key, void *val, uint16_t size, uint16_t *out_len)
{
	struct found found = {.val = NULL};
	int err = um_tree_root_ok(tree);

	if (err)
		return err;
	if (tree->root.format == UM_ROOT_EMPTY)
		return -ENOENT;
	if (tree->root.format == UM_ROOT_EMBED)
		err = embed_find(src, tree, key, seek, &found);
	else
		err = node_find(src, tree, key, seek, &found);
	if (err)
		return err;
	if (out_key)
		*out_key = found.key;
	if (out_len)
		*out_len = found.len;
	if (val && found.len)
		memcpy(val, found.val, found.len < size ? found.len : size);
	return 0;
}

/* ---- walk ---------------------------------------------------------------------------------------- */

struct walk {
	uint64_t last, prev;
	bool any; /* prev is set */
	um_tree_visit_fn *fn;
	void *arg;
};

/* Keys must ascend over the whole walk. In a corrupt tree, whose nodes may be reachable on many
 * paths, this is also what bounds the walk. */
static int walk_visit(const struct um_tree *tree, struct um_ptr at, struct walk *walk,
	const struct found *rec, bool *out_end)
{
	*out_end = rec->key > walk->last;
	if (*out_end)
		return 0;
	if (walk->any && rec->key <= walk->prev)
		return um_node_bad(tree, at, "keys out of order");
	walk->any = true;
	walk->prev = rec->key;
	return walk->fn(walk->arg, rec->key, rec->val, rec->len);
}

static int embed_walk(
	struct um_src src, const struct um_tree *tree, uint64_t first, struct walk *walk)
{
	struct found rec;
	unsigned pos;
	bool end = false;
	int err;

	if (um_body_search(tree->embed, tree->root.len, first, &pos, &end))
		return um_node_bad(tree, tree->root.ptr, "bad embedded root");
	for (end = false; !end && pos < um_body_nrec(tree->embed); pos++) {
		err = embed_record(src, tree, pos, &rec);
		if (!err)
			err = walk_visit(tree, tree->root.ptr, walk, &rec, &end);
		if (err)
			return err;
	}
	return 0;
}

static int leaf_walk(struct um_src src, const struct um_tree *tree, const struct um_step *leaf,
	struct walk *walk, bool *out_end)
{
	struct found rec;
	unsigned nrec = um_body_nrec(um_node_body(leaf->block));
	int err = 0;

	for (unsigned i = leaf->slot; !err && !*out_end && i < nrec; i++) {
		err = um_node_record(src, tree, leaf, i, &rec.key, &rec.val, &rec.len);
		if (!err)
			err = walk_visit(tree, leaf->ptr, walk, &rec, out_end);
	}
	return err;
}

static int node_walk(
	struct um_src src, const struct um_tree *tree, uint64_t first, struct walk *walk)
{
	struct um_path path;
	bool end;
	int err = um_path_find(src, tree, first, &path, &end);

	for (end = false; !err && !end;) {
		err = leaf_walk(src, tree, &path.step[path.n - 1], walk, &end);
		if (err || end)
			return err;
		err = um_path_next(src, tree, &path, 1);
		if (err == -ENOENT)
			return 0;
		path.step[path.n - 1].slot = 0;
	}
	return err;
}

int um_tree_walk(struct um_src src, const struct um_tree *tree, uint64_t first, uint64_t last,
	um_tree_visit_fn *fn, void *arg)
{
	struct walk walk = {.last = last, .fn = fn, .arg = arg};
	int err = um_tree_root_ok(tree);

	if (err || first > last || tree->root.format == UM_ROOT_EMPTY)
		return err;
	if (tree->root.format == UM_ROOT_EMBED)
		return embed_walk(src, tree, first, &walk);
	return node_walk(src, tree, first, &walk);
}

int um_tree_walk_leaves(struct um_src src, const struct um_tree *tree, uint64_t first,
	um_tree_leaf_fn *fn, void *arg)
{
	struct um_path path;
	unsigned pos;
	bool exact;
	int err = um_tree_root_ok(tree);

	if (err || tree->root.format == UM_ROOT_EMPTY)
		return err;
	if (tree->root.format == UM_ROOT_EMBED) {
		if (um_body_safe(tree->embed, tree->root.len) ||
			um_body_search(tree->embed, tree->root.len, first, &pos, &exact))
			return um_node_bad(tree, tree->root.ptr, "bad embedded root");
		return fn(arg, tree->embed, pos);
	}
	err = um_path_find(src, tree, first, &path, &exact);
	while (!err) {
		struct um_step *leaf = &path.step[path.n - 1];

		if (um_body_safe(um_node_body(leaf->block), UM_NODE_BODY))
			return um_node_bad(tree, leaf->ptr, "invalid slots");
		err = fn(arg, um_node_body(leaf->block), leaf->slot);
		if (!err)
			err = um_path_next(src, tree, &path, 1);
		path.step[path.n - 1].slot = 0;
	}
	return err == -ENOENT ? 0 : err;
}

/* ---- sharing ------------------------------------------------------------------------------------- */

static int path_parents(
	struct um_src src, const struct um_tree *tree, uint64_t key, bool lately, uint32_t *out)
{
	struct um_path path;
	bool exact;
	int err = um_tree_root_ok(tree);

	*out = 1;
	if (err || tree->root.format != UM_ROOT_NODE)
		return err;
	err = um_path_find(src, tree, key, &path, &exact);
	for (unsigned i = 0; !err && i < path.n; i++) {
		uint32_t count;

		err = um_node_count(src, tree, path.step[i].ptr, &count);
		if (!err && count < 2 && lately &&
			um_unshared_lately(src.pool, path.step[i].ptr.lba))
			count = 2;
		if (!err && count > *out)
			*out = count;
	}
	return err;
}

int um_tree_parents(struct um_src src, const struct um_tree *tree, uint64_t key, uint32_t *out)
{
	return path_parents(src, tree, key, !src.txn, out);
}

int um_tree_parents_now(struct um_src src, const struct um_tree *tree, uint64_t key, uint32_t *out)
{
	return path_parents(src, tree, key, false, out);
}
