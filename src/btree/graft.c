/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations on parts of trees: splitting a tree, taking a range of one as a tree of its own, and
 * concatenating trees. A range clone is made of these, so none of them may visit what lies between
 * the edges: they follow the paths to the edges, and handle the children of the nodes there.
 *
 * Nodes may end up with few slots, which the structure allows. Joining merges the nodes on both
 * sides of the seam where they fit into one, so that a file cloned piece by piece gets the nodes it
 * would have as a whole.
 */
#include <errno.h>
#include <string.h>

#include "btree/node.h"
#include "space/space.h"

static void tree_init(struct um_tree *tree, const struct um_tree *like)
{
	memset(tree, 0, sizeof(*tree));
	tree->type = like->type;
	tree->owner = like->owner;
	tree->goal = like->goal;
	tree->root.format = UM_ROOT_EMPTY;
}

/* ---- splitting ---------------------------------------------------------------------------------------- */

static int embed_split(struct um_tree *tree, uint64_t key, struct um_tree *right)
{
	uint8_t body[UM_NODE_BODY] __attribute__((aligned(8)));
	uint8_t rest[UM_NODE_BODY] __attribute__((aligned(8)));
	unsigned pos;
	bool exact;
	int err = um_embed_load(tree, body);

	if (!err)
		err = um_body_search(body, UM_NODE_BODY, key, &pos, &exact);
	if (err || pos == um_body_nrec(body))
		return err;
	um_body_init(rest, UM_NODE_BODY);
	um_body_append(rest, UM_NODE_BODY, body, pos);
	um_body_cut(body, UM_NODE_BODY, pos);
	err = um_embed_store(tree, body);
	return err ? err : um_embed_store(right, rest);
}

/* Where a path is cut: the parts on both sides in the nodes of each level, leaf first. */
struct cut {
	bool left[UM_TREE_LEVELS], right[UM_TREE_LEVELS];
};

static void cut_look(const struct um_path *path, struct cut *cut)
{
	for (unsigned level = 0; level < path->n; level++) {
		const struct um_step *step = &path->step[path->n - 1 - level];
		unsigned nrec = um_body_nrec(um_node_body(step->block));

		if (!level) {
			cut->left[0] = step->slot > 0;
			cut->right[0] = step->slot < nrec;
		} else {
			cut->left[level] = cut->left[level - 1] || step->slot > 0;
			cut->right[level] = cut->right[level - 1] || step->slot + 1 < nrec;
		}
	}
}

/* Moves what is right of the cut in one owned node to a new one; child: the new node below, if
 * any. */
static int split_node(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i,
	const struct cut *cut, uint64_t key, struct um_ptr *child)
{
	unsigned level = path->n - 1 - i, from = path->step[i].slot;
	void *block, *body, *rest;
	struct um_ptr ptr;
	int err = um_path_edit(txn, tree, path, i, &body);

	if (!err)
		err = um_txn_new(txn, tree->type->kind, level, path->step[i].ptr.lba, &ptr, &block);
	if (err)
		return err;
	rest = um_node_body(block);
	um_body_init(rest, UM_NODE_BODY);
	/* The child on the path stays unless all of it lies after the cut. */
	if (level && cut->left[level - 1])
		from++;
	if (child->lba)
		um_body_insert(rest, UM_NODE_BODY, 0, key, child, sizeof(*child));
	um_body_append(rest, UM_NODE_BODY, body, from);
	um_body_cut(body, UM_NODE_BODY, from);
	*child = ptr;
	return 0;
}

static int node_split(struct um_txn *txn, struct um_tree *tree, uint64_t key, struct um_tree *right)
{
	struct um_ptr child = {0};
	struct um_path path;
	struct cut cut;
	unsigned level = 0, top;
	bool exact;
	int err = um_path_find(um_txn_src(txn), tree, key, &path, &exact);

	if (err)
		return err;
	top = path.n - 1;
	cut_look(&path, &cut);
	if (!cut.right[top])
		return 0;
	if (!cut.left[top]) {
		right->root = tree->root;
		right->dirty = true;
		um_tree_set_empty(tree);
		return 0;
	}
	while (!cut.left[level] || !cut.right[level])
		level++;
	err = um_path_own(txn, tree, &path, path.n - level);
	for (; !err && level <= top; level++)
		err = split_node(txn, tree, &path, top - level, &cut, key, &child);
	if (err)
		return err;
	right->root = (struct um_root){.ptr = child, .format = UM_ROOT_NODE, .level = (uint8_t)top};
	right->dirty = true;
	err = um_tree_settle(txn, tree);
	return err ? err : um_tree_settle(txn, right);
}

int um_tree_split(struct um_txn *txn, struct um_tree *tree, uint64_t key, struct um_tree *right)
{
	int err = um_tree_root_ok(tree);

	tree_init(right, tree);
	if (err || tree->root.format == UM_ROOT_EMPTY)
		return err;
	if (tree->root.format == UM_ROOT_EMBED)
		return embed_split(tree, key, right);
	return node_split(txn, tree, key, right);
}

/* ---- slicing ------------------------------------------------------------------------------------------ */

struct slice {
	struct um_txn *txn;
	const struct um_tree *tree; /* the source */
	uint64_t first, last;
};

/* Smallest (dir -1) or largest (1) key below a node. */
static int extreme_key(
	const struct slice *s, struct um_ptr ptr, unsigned level, int dir, uint64_t *out)
{
	struct um_src src = um_txn_src(s->txn);
	struct um_step step = {.ptr = ptr};
	const void *val;
	uint16_t len;
	int err;

	for (;; level--) {
		unsigned nrec;

		err = um_node_get(src, s->tree, step.ptr, level, false, &step.block);
		if (err)
			return err;
		nrec = um_body_nrec(um_node_body(step.block));
		step.slot = dir < 0 ? 0 : nrec - 1;
		if (!level)
			return um_node_record(src, s->tree, &step, step.slot, out, &val, &len);
		err = um_node_child(src, s->tree, &step, step.slot, out, &step.ptr);
		if (err)
			return err;
	}
}

/* Does all of a node lie in the range? *lo and *hi are the limits that follow from its place. */
static int node_inside(const struct slice *s, struct um_ptr ptr, unsigned level, uint64_t lo,
	uint64_t hi, bool *out)
{
	int err = 0;

	if (lo < s->first)
		err = extreme_key(s, ptr, level, -1, &lo);
	if (!err && lo >= s->first && hi > s->last)
		err = extreme_key(s, ptr, level, 1, &hi);
	*out = !err && lo >= s->first && hi <= s->last;
	return err;
}

/* Makes a body with the records of a leaf that lie in the range; what they refer to gains a
 * reference. */
static int slice_records(const struct slice *s, const struct um_step *step, void *body)
{
	struct um_src src = um_txn_src(s->txn);
	unsigned pos, nrec = um_body_nrec(um_node_body(step->block));
	bool exact;
	int err = 0;

	if (um_body_safe(um_node_body(step->block), UM_NODE_BODY) ||
		um_body_search(um_node_body(step->block), UM_NODE_BODY, s->first, &pos, &exact))
		return um_node_bad(s->tree, step->ptr, "invalid slots");
	for (; !err && pos < nrec; pos++) {
		uint64_t key;
		const void *val;
		uint16_t len;

		err = um_node_record(src, s->tree, step, pos, &key, &val, &len);
		if (err || key > s->last)
			break;
		um_body_insert(body, UM_NODE_BODY, um_body_nrec(body), key, val, len);
		if (s->tree->type->ref)
			err = s->tree->type->ref(s->txn, key, val, len, +1);
	}
	return err;
}

static int slice_node(const struct slice *s, struct um_ptr ptr, unsigned level, uint64_t lo,
	uint64_t hi, struct um_ptr *out);

/* Makes a body with the children of an interior node, or parts of them, that lie in the range. */
static int slice_children(
	const struct slice *s, const struct um_step *step, uint64_t lo, uint64_t hi, void *body)
{
	struct um_src src = um_txn_src(s->txn);
	unsigned level = um_node_level(step->block), i;
	unsigned nrec = um_body_nrec(um_node_body(step->block));
	int err = 0;

	if (um_body_safe(um_node_body(step->block), UM_NODE_BODY))
		return um_node_bad(s->tree, step->ptr, "invalid slots");
	for (i = 0; !err && i < nrec; i++) {
		struct um_ptr child, next, copy = {0};
		uint64_t key, end = hi;

		err = um_node_child(src, s->tree, step, i, &key, &child);
		if (!err && i + 1 < nrec) {
			err = um_node_child(src, s->tree, step, i + 1, &end, &next);
			end--; /* not 0: it is above another key */
		}
		if (err || (i && key > s->last))
			break;
		if (end < s->first)
			continue;
		err = slice_node(s, child, level - 1, i ? key : lo, end, &copy);
		if (!err && copy.lba)
			um_body_insert(
				body, UM_NODE_BODY, um_body_nrec(body), key, &copy, sizeof(copy));
	}
	return err;
}

/* The node itself with one more parent, a copy of a part of it, or nothing (out->lba 0). */
static int slice_node(const struct slice *s, struct um_ptr ptr, unsigned level, uint64_t lo,
	uint64_t hi, struct um_ptr *out)
{
	uint8_t body[UM_NODE_BODY] __attribute__((aligned(8))) = {0};
	struct um_step step = {.ptr = ptr};
	void *block;
	bool inside;
	int err;

	*out = (struct um_ptr){0};
	/* For most nodes the place is sufficient; they are not read. */
	if (!um_lba_ok(um_txn_pool(s->txn), ptr.lba, 1))
		return um_node_bad(s->tree, ptr, "address outside the pool");
	err = node_inside(s, ptr, level, lo, hi, &inside);
	if (err)
		return err;
	if (inside) {
		*out = ptr;
		return um_ref_get(s->txn, ptr.lba, 1);
	}
	err = um_node_get(um_txn_src(s->txn), s->tree, ptr, level, false, &step.block);
	if (err)
		return err;
	um_body_init(body, UM_NODE_BODY);
	err = level ? slice_children(s, &step, lo, hi, body) : slice_records(s, &step, body);
	if (err || !um_body_nrec(body))
		return err;
	err = um_txn_new(s->txn, s->tree->type->kind, (uint8_t)level, ptr.lba, out, &block);
	if (!err)
		memcpy(um_node_body(block), body, UM_NODE_BODY);
	return err;
}

static int embed_slice(const struct slice *s, struct um_tree *out)
{
	uint8_t body[UM_NODE_BODY] __attribute__((aligned(8)));
	uint8_t part[UM_NODE_BODY] __attribute__((aligned(8)));
	const struct um_tree_type *type = s->tree->type;
	struct um_pool *pool = um_txn_pool(s->txn);
	int err = um_embed_load(s->tree, body);

	um_body_init(part, UM_NODE_BODY);
	for (unsigned i = 0; !err && i < um_body_nrec(body); i++) {
		uint64_t key;
		const void *val;
		uint16_t len;

		um_body_slot(body, i, &key, &val, &len);
		if (key < s->first || key > s->last)
			continue;
		if (type->check && type->check(pool, key, val, len))
			return um_node_bad(s->tree, s->tree->root.ptr, "bad record");
		um_body_insert(part, UM_NODE_BODY, um_body_nrec(part), key, val, len);
		if (type->ref)
			err = type->ref(s->txn, key, val, len, +1);
	}
	return err ? err : um_embed_store(out, part);
}

int um_tree_slice(struct um_txn *txn, const struct um_tree *src, uint64_t first, uint64_t last,
	struct um_tree *out)
{
	struct slice s = {txn, src, first, last};
	struct um_ptr ptr;
	int err = um_tree_root_ok(src);

	tree_init(out, src);
	if (err || first > last || src->root.format == UM_ROOT_EMPTY)
		return err;
	if (src->root.format == UM_ROOT_EMBED)
		return embed_slice(&s, out);
	err = slice_node(&s, src->root.ptr, src->root.level, 0, UINT64_MAX, &ptr);
	if (err || !ptr.lba)
		return err;
	out->root = src->root;
	out->root.ptr = ptr;
	out->dirty = true;
	return um_tree_settle(txn, out);
}

/* ---- joining ------------------------------------------------------------------------------------------ */

/* Makes a new root over the present one and, if there is one, what comes after it. */
static int root_over(
	struct um_txn *txn, struct um_tree *tree, uint64_t key, const struct um_ptr *right)
{
	unsigned level = tree->root.level + 1u;
	struct um_ptr ptr;
	void *block, *body;
	int err;

	if (level >= UM_TREE_LEVELS)
		return -EFBIG;
	err = um_txn_new(txn, tree->type->kind, (uint8_t)level, tree->root.ptr.lba, &ptr, &block);
	if (err)
		return err;
	body = um_node_body(block);
	um_body_init(body, UM_NODE_BODY);
	um_body_insert(body, UM_NODE_BODY, 0, 0, &tree->root.ptr, sizeof(struct um_ptr));
	if (right)
		um_body_insert(body, UM_NODE_BODY, 1, key, right, sizeof(*right));
	tree->root.ptr = ptr;
	tree->root.level = (uint8_t)level;
	tree->dirty = true;
	return 0;
}

/*
 * Merges a node right of the seam into its left neighbour. Everything on the path from the common
 * ancestor down to that node is at slot 0, so the ancestor's separator, if it stays, rises to what
 * is then the first key there.
 */
static int seam_merge(struct um_txn *txn, struct um_tree *tree, struct um_path *left,
	struct um_path *right, unsigned i)
{
	uint64_t key = um_path_lower(right, i), above = 0;
	unsigned nrec, up = i - 1;
	bool stays = false;
	void *body;
	int err = um_path_edit(txn, tree, left, i, &body);

	if (err)
		return err;
	nrec = um_body_nrec(body);
	um_body_append(body, UM_NODE_BODY, um_node_body(right->step[i].block), 0);
	if (um_node_level(right->step[i].block))
		um_body_set_key(body, nrec, key);
	err = um_node_free(txn, right->step[i].ptr);
	while (!err && right->step[up].ptr.lba != left->step[up].ptr.lba) {
		struct um_ptr child;

		if (!stays && um_body_nrec(um_node_body(right->step[up].block)) > 1) {
			stays = true;
			err = um_node_child(
				um_txn_src(txn), tree, &right->step[up], 1, &above, &child);
		}
		if (!up)
			return um_node_bad(tree, right->step[0].ptr, "paths do not meet");
		up--;
	}
	if (!err && stays) {
		err = um_path_edit(txn, tree, right, up, &body);
		if (!err)
			um_body_set_key(body, right->step[up].slot, above);
	}
	if (!err)
		err = um_path_edit(txn, tree, right, i - 1, &body);
	if (err)
		return err;
	um_body_delete(body, UM_NODE_BODY, right->step[i - 1].slot);
	right->n = i;
	return um_path_shrink(txn, tree, right, false);
}

/* The highest pair of neighbours at the seam that fit into one node; *out_i 0: none. */
static int seam_find(struct um_txn *txn, const struct um_tree *tree, const struct um_path *left,
	const struct um_path *right, unsigned *out_i)
{
	struct um_src src = um_txn_src(txn);

	*out_i = 0;
	for (unsigned i = 0; i < right->n; i++) {
		const struct um_step *a = &left->step[i], *b = &right->step[i];
		uint32_t na, nb;
		int err = um_node_count(src, tree, a->ptr, &na);

		if (!err)
			err = um_node_count(src, tree, b->ptr, &nb);
		if (err || na > 1 || nb > 1)
			return err;
		if (a->ptr.lba == b->ptr.lba)
			continue;
		if (um_body_safe(um_node_body(a->block), UM_NODE_BODY) ||
			um_body_safe(um_node_body(b->block), UM_NODE_BODY))
			return um_node_bad(tree, b->ptr, "invalid slots");
		if (um_body_used(um_node_body(a->block), UM_NODE_BODY) +
				um_body_used(um_node_body(b->block), UM_NODE_BODY) <=
			UM_NODE_BODY + sizeof(struct um_body_head)) {
			*out_i = i;
			return 0;
		}
	}
	return 0;
}

/* Merges the nodes on both sides of key, from the top down, as far as they fit. */
static int seam_close(struct um_txn *txn, struct um_tree *tree, uint64_t key)
{
	struct um_src src = um_txn_src(txn);

	/* Each iteration removes one node at the seam. */
	for (unsigned n = 0; n <= 2 * UM_TREE_LEVELS; n++) {
		struct um_path left, right;
		unsigned i;
		bool exact;
		int err;

		if (tree->root.format != UM_ROOT_NODE || !tree->root.level)
			return 0;
		err = um_path_find(src, tree, key, &right, &exact);
		left = right;
		if (!err)
			err = um_path_next(src, tree, &left, -1);
		if (err)
			return err == -ENOENT ? 0 : err;
		err = seam_find(txn, tree, &left, &right, &i);
		if (!err && i)
			err = seam_merge(txn, tree, &left, &right, i);
		if (err || !i)
			return err;
	}
	return 0;
}

/* Moves a few records, whose old tree no longer refers to anything. */
static int join_records(struct um_txn *txn, struct um_tree *left, const struct um_tree *right)
{
	uint8_t body[UM_NODE_BODY] __attribute__((aligned(8)));
	int err = um_embed_load(right, body);

	for (unsigned i = 0; !err && i < um_body_nrec(body); i++) {
		uint64_t key;
		const void *val;
		uint16_t len;

		um_body_slot(body, i, &key, &val, &len);
		err = um_tree_insert(txn, left, key, val, len);
	}
	return err;
}

static int join_nodes(struct um_txn *txn, struct um_tree *left, struct um_tree *right, uint64_t key)
{
	int err = um_tree_to_node(txn, left);

	while (!err && left->root.level < right->root.level)
		err = root_over(txn, left, 0, NULL);
	while (!err && right->root.level < left->root.level)
		err = root_over(txn, right, 0, NULL);
	if (!err)
		err = root_over(txn, left, key, &right->root.ptr);
	if (!err)
		err = seam_close(txn, left, key);
	return err;
}

int um_tree_join(struct um_txn *txn, struct um_tree *left, struct um_tree *right, uint64_t key)
{
	uint32_t parents = 1;
	int err = um_tree_root_ok(left);

	if (!err)
		err = um_tree_root_ok(right);
	if (err || right->root.format == UM_ROOT_EMPTY)
		return err;
	left->dirty = true;
	if (left->root.format == UM_ROOT_EMPTY) {
		left->root = right->root;
		memcpy(left->embed, right->embed, sizeof(left->embed));
	} else if (right->root.format == UM_ROOT_EMBED) {
		/* Not into a leaf that would have to be copied for this. */
		err = um_tree_parents(um_txn_src(txn), left, key, &parents);
		if (!err && parents > 1)
			err = um_tree_to_node(txn, right);
		if (!err)
			err = parents > 1 ? join_nodes(txn, left, right, key)
					  : join_records(txn, left, right);
	} else {
		err = join_nodes(txn, left, right, key);
	}
	if (!err)
		um_tree_set_empty(right);
	return err;
}
