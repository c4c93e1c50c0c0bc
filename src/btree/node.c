/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes and paths: reading with all checks, and copying shared nodes before a change. */
#include <errno.h>
#include <string.h>

#include "btree/node.h"
#include "pool/log.h"
#include "space/space.h"

int um_node_bad(const struct um_tree *tree, struct um_ptr ptr, const char *why)
{
	um_err("tree node at block %llu (kind %d, owner %llu): %s", (unsigned long long)ptr.lba,
		(int)tree->type->kind, (unsigned long long)tree->owner, why);
	return -EUCLEAN;
}

int um_tree_root_ok(const struct um_tree *tree)
{
	const struct um_root *root = &tree->root;

	switch (root->format) {
	case UM_ROOT_EMPTY:
		return 0;
	case UM_ROOT_EMBED:
		if (root->len >= sizeof(struct um_body_head) && root->len <= UM_INLINE_MAX)
			return 0;
		break;
	case UM_ROOT_NODE:
		if (root->level < UM_TREE_LEVELS)
			return 0;
		break;
	default:
		break;
	}
	return um_node_bad(tree, root->ptr, "impossible tree root");
}

int um_node_get(struct um_src src, const struct um_tree *tree, struct um_ptr ptr, unsigned level,
	bool root, void **out)
{
	const void *block;
	const struct um_body_head *h;
	int err;

	if (!um_lba_ok(src.pool, ptr.lba, 1) || (ptr.mirror && !um_lba_ok(src.pool, ptr.mirror, 1)))
		return um_node_bad(tree, ptr, "address outside the pool");
	err = um_src_get(src, ptr, tree->type->kind, &block);
	if (err)
		return err;
	h = um_body_head(um_node_body(block));
	if (um_node_level(block) != level)
		return um_node_bad(tree, ptr, "wrong level");
	if (h->heap > UM_NODE_BODY || sizeof(*h) + sizeof(struct um_slot) * h->nrec > h->heap)
		return um_node_bad(tree, ptr, "bad node head");
	if (!h->nrec && (level || !root))
		return um_node_bad(tree, ptr, "empty node");
	*out = (void *)block;
	return 0;
}

int um_node_child(const struct um_src src, const struct um_tree *tree, const struct um_step *step,
	unsigned i, uint64_t *out_key, struct um_ptr *out_ptr)
{
	const void *val;
	uint16_t len;

	(void)src;
	if (um_body_get(um_node_body(step->block), UM_NODE_BODY, i, out_key, &val, &len) ||
		len != sizeof(*out_ptr))
		return um_node_bad(tree, step->ptr, "bad slot");
	memcpy(out_ptr, val, sizeof(*out_ptr));
	return 0;
}

int um_node_record(const struct um_src src, const struct um_tree *tree, const struct um_step *step,
	unsigned i, uint64_t *out_key, const void **out_val, uint16_t *out_len)
{
	const struct um_tree_type *type = tree->type;

	if (um_body_get(um_node_body(step->block), UM_NODE_BODY, i, out_key, out_val, out_len))
		return um_node_bad(tree, step->ptr, "bad slot");
	if (type->check && type->check(src.pool, *out_key, *out_val, *out_len))
		return um_node_bad(tree, step->ptr, "bad record");
	return 0;
}

int um_node_count(struct um_src src, const struct um_tree *tree, struct um_ptr ptr, uint32_t *out)
{
	uint32_t run;
	int err = um_ref_count(src, ptr.lba, 1, out, &run);

	if (err)
		return err;
	return *out ? 0 : um_node_bad(tree, ptr, "reference count is 0");
}

int um_node_free(struct um_txn *txn, struct um_ptr ptr)
{
	bool last;

	return um_txn_drop(txn, ptr, &last);
}

/* ---- paths ------------------------------------------------------------------------------------ */

int um_path_root(struct um_src src, const struct um_tree *tree, struct um_path *path)
{
	path->n = 1;
	path->step[0].ptr = tree->root.ptr;
	path->step[0].slot = 0;
	return um_node_get(src, tree, tree->root.ptr, tree->root.level, true, &path->step[0].block);
}

int um_path_down(struct um_src src, const struct um_tree *tree, struct um_path *path)
{
	struct um_step *up = &path->step[path->n - 1], *step = up + 1;
	uint64_t key;
	int err = um_node_child(src, tree, up, up->slot, &key, &step->ptr);

	if (err)
		return err;
	step->slot = 0;
	err = um_node_get(src, tree, step->ptr, um_node_level(up->block) - 1, false, &step->block);
	if (!err)
		path->n++;
	return err;
}

int um_path_find(struct um_src src, const struct um_tree *tree, uint64_t key, struct um_path *path,
	bool *out_exact)
{
	int err = um_path_root(src, tree, path);

	while (!err) {
		struct um_step *step = &path->step[path->n - 1];

		if (um_body_search(
			    um_node_body(step->block), UM_NODE_BODY, key, &step->slot, out_exact))
			return um_node_bad(tree, step->ptr, "bad node head");
		if (!um_node_level(step->block))
			return 0;
		/* The child with the last key not above; slot 0 has no lower limit. */
		if (!*out_exact && step->slot)
			step->slot--;
		err = um_path_down(src, tree, path);
	}
	return err;
}

int um_path_next(struct um_src src, const struct um_tree *tree, struct um_path *path, int dir)
{
	unsigned i = path->n - 1;
	int err = 0;

	do {
		if (!i)
			return -ENOENT;
		i--;
	} while (dir < 0 ? !path->step[i].slot
			 : path->step[i].slot + 1 >=
				   um_body_nrec(um_node_body(path->step[i].block)));
	path->step[i].slot += dir;
	path->n = i + 1;
	while (!err && um_node_level(path->step[path->n - 1].block)) {
		err = um_path_down(src, tree, path);
		if (!err && dir < 0) {
			struct um_step *step = &path->step[path->n - 1];

			step->slot = um_body_nrec(um_node_body(step->block)) - 1;
		}
	}
	return err;
}

/* ---- copying ------------------------------------------------------------------------------------ */

static int node_copy(struct um_txn *txn, const struct um_tree *tree, const struct um_step *from,
	struct um_step *out);

/* A child of a copied interior node gains a parent. If its count is at the limit, the copy gets a
 * duplicate of its own instead. */
static int ref_child(
	struct um_txn *txn, const struct um_tree *tree, struct um_step *step, unsigned i)
{
	struct um_src src = um_txn_src(txn);
	struct um_step child, copy;
	uint64_t key;
	int err = um_node_child(src, tree, step, i, &key, &child.ptr);

	if (err)
		return err;
	if (!um_lba_ok(src.pool, child.ptr.lba, 1))
		return um_node_bad(tree, step->ptr, "child outside the pool");
	err = um_ref_get(txn, child.ptr.lba, 1);
	if (err != -EMLINK)
		return err;
	err = um_node_get(
		src, tree, child.ptr, um_node_level(step->block) - 1, false, &child.block);
	if (!err)
		err = node_copy(txn, tree, &child, &copy);
	if (!err)
		err = um_body_replace(
			um_node_body(step->block), UM_NODE_BODY, i, &copy.ptr, sizeof(copy.ptr));
	return err;
}

static int ref_record(
	struct um_txn *txn, const struct um_tree *tree, struct um_step *step, unsigned i)
{
	uint64_t key;
	const void *val;
	uint16_t len;
	int err = um_node_record(um_txn_src(txn), tree, step, i, &key, &val, &len);

	return err ? err : tree->type->ref(txn, key, val, len, +1);
}

/* Duplicates a shared node; what it refers to gains a reference each. */
static int node_copy(struct um_txn *txn, const struct um_tree *tree, const struct um_step *from,
	struct um_step *out)
{
	unsigned level = um_node_level(from->block);
	const void *body = um_node_body(from->block);
	int err;

	if (um_body_safe(body, UM_NODE_BODY))
		return um_node_bad(tree, from->ptr, "invalid slots");
	err = um_txn_new(txn, tree->type->kind, level, from->ptr.lba, &out->ptr, &out->block);
	if (err)
		return err;
	memcpy(um_node_body(out->block), body, UM_NODE_BODY);
	out->slot = from->slot;
	for (unsigned i = 0; !err && i < um_body_nrec(body); i++) {
		if (level)
			err = ref_child(txn, tree, out, i);
		else if (tree->type->ref)
			err = ref_record(txn, tree, out, i);
		else
			break;
	}
	return err;
}

/* Step i became another block: updates its parent, which is owned, or the root. */
static int path_relink(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i)
{
	void *body;
	int err;

	if (!i) {
		tree->root.ptr = path->step[0].ptr;
		tree->dirty = true;
		return 0;
	}
	err = um_path_edit(txn, tree, path, i - 1, &body);
	if (err)
		return err;
	return um_body_replace(body, UM_NODE_BODY, path->step[i - 1].slot, &path->step[i].ptr,
		sizeof(struct um_ptr));
}

static int path_copy_step(
	struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned i)
{
	struct um_step *step = &path->step[i], old = *step, *down = step + 1;
	struct um_ptr child;
	uint64_t key;
	int err = node_copy(txn, tree, &old, step);

	if (!err)
		err = um_node_free(txn, old.ptr);
	if (!err)
		err = path_relink(txn, tree, path, i);
	if (err || i + 1 == path->n)
		return err;
	/* The copy may have been given a duplicate of the next node. */
	err = um_node_child(um_txn_src(txn), tree, step, step->slot, &key, &child);
	if (err || child.lba == down->ptr.lba)
		return err;
	down->ptr = child;
	return um_node_get(
		um_txn_src(txn), tree, child, um_node_level(step->block) - 1, false, &down->block);
}

int um_path_own(struct um_txn *txn, struct um_tree *tree, struct um_path *path, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; !err && i < n; i++) {
		uint32_t count;

		err = um_node_count(um_txn_src(txn), tree, path->step[i].ptr, &count);
		if (!err && count > 1)
			err = path_copy_step(txn, tree, path, i);
	}
	return err;
}

int um_path_edit(struct um_txn *txn, const struct um_tree *tree, struct um_path *path, unsigned i,
	void **out_body)
{
	struct um_step *step = &path->step[i];
	int err = um_txn_edit(txn, step->ptr, tree->type->kind, &step->block);

	if (err)
		return err;
	*out_body = um_node_body(step->block);
	if (um_body_safe(*out_body, UM_NODE_BODY))
		return um_node_bad(tree, step->ptr, "invalid slots");
	return 0;
}
