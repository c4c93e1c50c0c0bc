/* SPDX-License-Identifier: BSD-3-Clause */
/* The records of bad blocks: a tree from a block's number to its fate. It is read as a whole when a
 * log is opened, into the pool's table of moved blocks and its bitmap of bad places. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/failure.h"

static int bad_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	struct um_bad bad;

	if (len != sizeof(bad) || !um_lba_ok(pool, key, 1))
		return -EUCLEAN;
	memcpy(&bad, val, sizeof(bad));
	if (!(bad.flags & UM_BAD_MOVED))
		return 0;
	return um_lba_ok(pool, bad.to, 1) && bad.to != key ? 0 : -EUCLEAN;
}

const struct um_tree_type um_bads_type = {
	.kind = UM_KIND_REMAP,
	.embed_max = 0,
	.check = bad_check,
};

static int find(
	struct um_src src, um_lba_t lba, enum um_seek seek, um_lba_t *out_lba, struct um_bad *out)
{
	struct um_tree tree;
	uint16_t len;
	int ret = um_root_tree(src, UM_ROOT_BADS, &tree);

	if (!ret)
		ret = um_tree_find(src, &tree, lba, seek, out_lba, out, sizeof(*out), &len);
	return ret;
}

int um_bad_get(struct um_src src, um_lba_t lba, struct um_bad *out)
{
	um_lba_t found;

	return find(src, lba, UM_SEEK_EQ, &found, out);
}

int um_bad_next(struct um_src src, um_lba_t *lba, struct um_bad *out)
{
	return find(src, *lba, UM_SEEK_GE, lba, out);
}

int um_bad_put(struct um_txn *txn, um_lba_t lba, const struct um_bad *bad)
{
	struct um_tree tree;
	struct um_bad old;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_BADS, &tree);

	if (ret)
		return ret;
	ret = um_bad_get(um_txn_src(txn), lba, &old);
	if (!ret)
		ret = um_tree_replace(txn, &tree, lba, bad, sizeof(*bad));
	else if (ret == -ENOENT)
		ret = um_tree_insert(txn, &tree, lba, bad, sizeof(*bad));
	return ret ? ret : um_root_store(txn, UM_ROOT_BADS, &tree);
}

int um_bad_del(struct um_txn *txn, um_lba_t lba)
{
	struct um_tree tree;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_BADS, &tree);

	if (!ret)
		ret = um_tree_delete(txn, &tree, lba);
	return ret ? ret : um_root_store(txn, UM_ROOT_BADS, &tree);
}

struct rebuild {
	struct um_txn *txn;
	struct um_tree tree;
};

static int rebuild_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct rebuild *r = arg;
	struct um_bad bad;

	memcpy(&bad, val, sizeof(bad));
	return um_tree_insert(r->txn, &r->tree, key, &bad, len);
}

int um_bad_rebuild(struct um_txn *txn)
{
	struct rebuild r = {.txn = txn};
	struct um_tree old;
	bool done = false;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_BADS, &old);

	if (ret)
		return ret;
	r.tree = old;
	memset(&r.tree.root, 0, sizeof(r.tree.root));
	ret = um_tree_walk(um_txn_src(txn), &old, 0, UINT64_MAX, rebuild_record, &r);
	while (!ret && !done)
		ret = um_tree_drop_step(txn, &old, 0, &done);
	r.tree.dirty = true;
	return ret ? ret : um_root_store(txn, UM_ROOT_BADS, &r.tree);
}

/* ---- what memory knows of it ------------------------------------------------------------------------ */

static int drop_node(void *arg, struct um_ptr ptr, unsigned level)
{
	bool last;

	(void)level;
	return um_txn_drop(arg, ptr, &last);
}

/* Reconstructs an unreadable record of a block whose place is known to be bad. -ENOENT: nothing
 * more is known. */
static int remembered(struct um_pool *pool, um_lba_t lba, struct um_bad *out)
{
	struct um_found found = {0};
	const struct um_block_hdr *hdr;

	*out = (struct um_bad){.to = um_pool_home(pool, lba), .sec = (um_le64_t)time(NULL)};
	if (out->to != lba) {
		hdr = um_pool_ptr(pool, lba);
		out->flags = UM_BAD_MOVED | UM_BAD_TOLD;
		out->kind =
			hdr->kind < UM_KIND_MAX && !um_block_verify(pool, hdr, lba, hdr->kind, NULL)
				? hdr->kind
				: 0;
		return um_guard_check();
	}
	if (!um_failure_fixed(pool, lba, &found) || found.kind != UM_KIND_PARITY)
		return -ENOENT;
	out->to = 0;
	out->flags = UM_BAD_LOST | UM_BAD_TOLD;
	out->kind = UM_KIND_PARITY;
	return 0;
}

int um_bad_salvage(struct um_txn *txn)
{
	struct um_pool *pool = um_txn_pool(txn);
	struct um_tree old, tree;
	um_lba_t lba = 0;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_BADS, &old);

	tree = old;
	memset(&tree.root, 0, sizeof(tree.root));
	for (; !ret && um_pool_next_bad(pool, &lba); lba++) {
		struct um_bad bad;

		ret = um_bad_get(um_txn_src(txn), lba, &bad);
		if (ret && ret != -ENOENT)
			ret = remembered(pool, lba, &bad);
		if (!ret)
			ret = um_tree_insert(txn, &tree, lba, &bad, sizeof(bad));
		else if (ret == -ENOENT)
			ret = 0;
	}
	if (!ret)
		ret = um_tree_nodes(um_txn_src(txn), &old, drop_node, txn);
	tree.dirty = true;
	return ret ? ret : um_root_store(txn, UM_ROOT_BADS, &tree);
}

/* ---- reading it ------------------------------------------------------------------------------------ */

struct loading {
	struct um_pool *pool;
	bool changed;
};

static int load_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct loading *l = arg;
	struct um_moved *moved;
	struct um_bad bad;
	int ret;

	(void)len;
	memcpy(&bad, val, sizeof(bad));
	um_pool_set_bad(l->pool, key);
	if (!(bad.flags & UM_BAD_MOVED) || um_pool_home(l->pool, key) == bad.to)
		return 0;
	ret = um_moved_make(l->pool, key, bad.to, &moved);
	if (!ret) {
		um_moved_install(l->pool, moved);
		l->changed = true;
	}
	return ret;
}

/* From either copy of the pool root, unverified: usually there are no records, and nothing more to
 * be read. */
static bool has_record(const struct um_pool *pool)
{
	const um_lba_t at[2] = {pool->super.root.lba, pool->super.root.mirror};
	bool has = false;

	um_guard_check();
	for (unsigned i = 0; i < 2; i++) {
		const struct um_pool_root *root = um_pool_ptr(pool, at[i]);

		if (at[i] && um_lba_ok(pool, at[i], 1) && root->remap.format != UM_ROOT_EMPTY)
			has = true;
		if (um_guard_check())
			has = true;
	}
	return has;
}

static int load(struct um_pool *pool, bool *changed)
{
	struct um_src src = {pool, NULL};
	struct loading l = {pool, false};
	struct um_tree tree;
	int ret;

	*changed = false;
	if (!has_record(pool))
		return 0;
	ret = um_root_tree(src, UM_ROOT_BADS, &tree);
	if (!ret)
		ret = um_tree_walk(src, &tree, 0, UINT64_MAX, load_record, &l);
	*changed = l.changed;
	if (ret)
		um_err("%s: the record of bad blocks cannot be read: %s", pool->path,
			strerror(-ret));
	return ret;
}

void um_bad_attach(struct um_pool *pool)
{
	pool->load_bad = load;
}
