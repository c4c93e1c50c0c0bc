/* SPDX-License-Identifier: BSD-3-Clause */
/* Orphan records: what has to be freed after a crash. */
#include <errno.h>
#include <string.h>

#include "fs/fs.h"
#include "fs/orphan.h"

static int orphan_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	struct um_orphan orphan;

	(void)pool;
	if (!key || len != sizeof(orphan))
		return -EUCLEAN;
	memcpy(&orphan, val, sizeof(orphan));
	return orphan.what >= UM_ORPHAN_UNLINKED && orphan.what <= UM_ORPHAN_TMPFILE ? 0 : -EUCLEAN;
}

const struct um_tree_type um_orphans_type = {
	.kind = UM_KIND_ORPHANS,
	.embed_max = 0,
	.check = orphan_check,
};

static int find(struct um_src src, const struct um_tree *tree, um_ino_t ino, struct um_orphan *out)
{
	uint64_t key;
	uint16_t len;
	int ret = um_tree_find(src, tree, ino, UM_SEEK_EQ, &key, out, sizeof(*out), &len);

	if (ret)
		return ret;
	if (len == sizeof(*out) && out->what >= UM_ORPHAN_UNLINKED &&
		out->what <= UM_ORPHAN_TMPFILE)
		return 0;
	um_err("orphan record of inode %llu: invalid", (unsigned long long)ino);
	return -EUCLEAN;
}

int um_orphan_get(struct um_src src, um_ino_t ino, struct um_orphan *out)
{
	struct um_tree tree;
	int ret = um_root_tree(src, UM_ROOT_ORPHANS, &tree);

	return ret ? ret : find(src, &tree, ino, out);
}

static int put(
	struct um_txn *txn, struct um_tree *tree, um_ino_t ino, struct um_orphan rec, bool have)
{
	int ret = have ? um_tree_replace(txn, tree, ino, &rec, sizeof(rec))
		       : um_tree_insert(txn, tree, ino, &rec, sizeof(rec));

	return ret ? ret : um_root_store(txn, UM_ROOT_ORPHANS, tree);
}

int um_orphan_add(struct um_txn *txn, um_ino_t ino, uint32_t what, uint64_t arg)
{
	struct um_orphan rec = {.what = what, .arg = arg}, old;
	struct um_tree tree;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_ORPHANS, &tree);

	if (ret)
		return ret;
	ret = find(um_txn_src(txn), &tree, ino, &old);
	if (ret && ret != -ENOENT)
		return ret;
	if (!ret && what == UM_ORPHAN_TRUNCATE) {
		if (old.what == UM_ORPHAN_UNLINKED)
			return 0;
		if (old.what == UM_ORPHAN_TMPFILE) {
			rec.what = UM_ORPHAN_TMPFILE;
			rec.arg = arg + 1;
		}
	}
	return put(txn, &tree, ino, rec, !ret);
}

int um_orphan_drop(struct um_txn *txn, um_ino_t ino)
{
	struct um_tree tree;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_ORPHANS, &tree);

	if (!ret)
		ret = um_tree_delete(txn, &tree, ino);
	return ret ? ret : um_root_store(txn, UM_ROOT_ORPHANS, &tree);
}

int um_orphan_del(struct um_txn *txn, um_ino_t ino)
{
	struct um_orphan rec;
	struct um_tree tree;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_ORPHANS, &tree);

	if (ret)
		return ret;
	ret = find(um_txn_src(txn), &tree, ino, &rec);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	if (rec.what == UM_ORPHAN_TRUNCATE)
		return um_orphan_drop(txn, ino);
	if (rec.what == UM_ORPHAN_UNLINKED || !rec.arg)
		return 0;
	rec.arg = 0;
	return put(txn, &tree, ino, rec, true);
}

int um_orphan_relink(struct um_txn *txn, um_ino_t ino)
{
	struct um_orphan rec;
	struct um_tree tree;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_ORPHANS, &tree);

	if (ret)
		return ret;
	ret = find(um_txn_src(txn), &tree, ino, &rec);
	if (ret)
		return ret;
	if (rec.what != UM_ORPHAN_TMPFILE)
		return -ENOENT;
	if (!rec.arg)
		return um_orphan_drop(txn, ino);
	rec.what = UM_ORPHAN_TRUNCATE; /* one is in progress: its record outlives the tmpfile's */
	rec.arg--;
	return put(txn, &tree, ino, rec, true);
}

/* ---- listing --------------------------------------------------------------------------------------- */

struct list {
	bool truncate; /* which kind is wanted */
	struct um_orphan_item *item;
	unsigned max, n;
	uint64_t next; /* key to continue from */
};

static int list_visit(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct list *list = arg;
	struct um_orphan rec;

	if (list->n == list->max)
		return 1;
	list->next = key + 1;
	if (len != sizeof(rec))
		return 0; /* find() reports it when its turn comes */
	memcpy(&rec, val, sizeof(rec));
	if ((rec.what == UM_ORPHAN_TRUNCATE) != list->truncate)
		return 0;
	list->item[list->n].ino = key;
	list->item[list->n++].arg = rec.arg;
	return 0;
}

int um_orphan_list(struct umbra_fs *fs, bool truncate, uint64_t *pos, struct um_orphan_item *item,
	unsigned max, unsigned *out_n)
{
	struct list list = {.truncate = truncate, .item = item, .max = max, .next = *pos};
	struct um_tree tree;
	int ret;

	um_log_read_lock(fs->log);
	ret = um_root_tree(um_fs_src(fs), UM_ROOT_ORPHANS, &tree);
	if (!ret)
		ret = um_tree_walk(um_fs_src(fs), &tree, *pos, UINT64_MAX, list_visit, &list);
	um_log_read_unlock(fs->log);
	*out_n = list.n;
	*pos = list.next;
	return ret < 0 ? ret : 0;
}
