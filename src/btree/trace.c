/* SPDX-License-Identifier: BSD-3-Clause */
/* The nodes on the path to a key, with their ranges and numbers of parents; all nodes of a tree. */
#include "btree/node.h"

int um_tree_trace(struct um_src src, const struct um_tree *tree, uint64_t key,
	struct um_tree_level out[UM_TREE_LEVELS], unsigned *out_n)
{
	struct um_path path;
	uint64_t end = UINT64_MAX;
	bool exact;
	int err = um_tree_root_ok(tree);

	*out_n = 0;
	if (err || tree->root.format != UM_ROOT_NODE)
		return err;
	err = um_path_find(src, tree, key, &path, &exact);
	for (unsigned i = 0; !err && i < path.n; i++) {
		struct um_step *step = &path.step[i];

		out[i].lba = step->ptr.lba;
		out[i].end = end;
		err = um_node_count(src, tree, step->ptr, &out[i].parents);
		if (!err && i + 1 < path.n &&
			step->slot + 1 < um_body_nrec(um_node_body(step->block))) {
			struct um_ptr next;
			uint64_t first;

			err = um_node_child(src, tree, step, step->slot + 1, &first, &next);
			if (!err && first <= key)
				err = um_node_bad(tree, step->ptr, "keys out of order");
			if (!err && first < end)
				end = first;
		}
	}
	if (!err)
		*out_n = path.n;
	return err;
}

struct nodes {
	struct um_src src;
	const struct um_tree *tree;
	um_tree_node_fn *fn;
	void *arg;
};

static int visit_nodes(struct nodes *n, struct um_ptr ptr, unsigned level)
{
	int ret = n->fn(n->arg, ptr, level);
	struct um_step step = {.ptr = ptr};
	unsigned nrec;

	if (ret || !level || !um_lba_ok(n->src.pool, ptr.lba, 1))
		return ret == UM_NODES_SKIP ? 0 : ret;
	if (um_node_get(n->src, n->tree, ptr, level, false, &step.block))
		return 0;
	nrec = um_body_nrec(um_node_body(step.block));
	for (unsigned i = 0; !ret && i < nrec; i++) {
		struct um_ptr child;
		uint64_t key;

		if (!um_node_child(n->src, n->tree, &step, i, &key, &child))
			ret = visit_nodes(n, child, level - 1);
	}
	return ret;
}

int um_tree_nodes(struct um_src src, const struct um_tree *tree, um_tree_node_fn *fn, void *arg)
{
	struct nodes n = {src, tree, fn, arg};
	int err = um_tree_root_ok(tree);

	if (err || tree->root.format != UM_ROOT_NODE)
		return err;
	return visit_nodes(&n, tree->root.ptr, tree->root.level);
}
