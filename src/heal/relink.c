/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Repairs that need space and are left to transactions after a pass: a root directory if there is
 * none, /lost+found, and names there for inodes that have none; and what lies beyond the ends of
 * files (tail.c). The counts are right by then.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/name.h"
#include "heal/check_int.h"

#define LOST_FOUND "lost+found"

struct relink {
	struct um_check *c;
	struct um_log *log;
	um_ino_t lost; /* the directory */
};

static int begin(struct relink *r, struct um_txn **out)
{
	/* Including the last reserve: a completely full pool has to be repairable too. */
	return um_txn_begin(r->log, UM_TXN_RESERVE, out);
}

static int make_root_dir(struct relink *r)
{
	struct um_inode inode = {.ino = UM_ROOT_INO};
	struct um_pool_root *root;
	struct um_txn *txn;
	int ret = begin(r, &txn);

	if (ret)
		return ret;
	inode.core.mode = S_IFDIR | 0755;
	inode.core.nlink = 2;
	inode.core.parent = UM_ROOT_INO;
	inode.core.generation = 1;
	um_inode_touch(&inode, UM_TOUCH_A | UM_TOUCH_M | UM_TOUCH_C);
	inode.core.btime = inode.core.mtime;
	ret = um_inode_store(txn, &inode);
	if (!ret)
		ret = um_root_edit(txn, &root);
	if (!ret)
		root->ninodes++;
	return um_txn_end(txn, ret);
}

static int make_lost_found(
	struct um_txn *txn, struct um_inode *root, const char *name, um_ino_t *out)
{
	struct um_inode dir;
	int ret = um_inode_new(txn, S_IFDIR | 0700, &dir);

	if (ret)
		return ret;
	dir.core.nlink = 2;
	dir.core.parent = UM_ROOT_INO;
	dir.core.uid = root->core.uid;
	dir.core.gid = root->core.gid;
	ret = um_dir_add(txn, root, name, strlen(name), &dir);
	if (ret)
		return ret;
	root->core.nlink++;
	um_inode_touch(root, UM_TOUCH_M | UM_TOUCH_C);
	ret = um_inode_store(txn, root);
	*out = dir.ino;
	return ret ? ret : um_inode_store(txn, &dir);
}

/* /lost+found, or /lost+found.1 and so on if something else has that name. */
static int find_lost_found(struct relink *r)
{
	char name[sizeof(LOST_FOUND) + 8] = LOST_FOUND;
	struct um_inode root;
	struct um_dent dent;
	struct um_txn *txn;
	unsigned i;
	int ret = begin(r, &txn);

	if (ret)
		return ret;
	ret = um_inode_load(um_txn_src(txn), UM_ROOT_INO, &root);
	for (i = 1; !ret && i < 1000; i++) {
		ret = um_dir_find(um_txn_src(txn), &root, name, strlen(name), &dent);
		if (ret == -ENOENT) {
			ret = make_lost_found(txn, &root, name, &r->lost);
			break;
		}
		if (!ret && dent.type == DT_DIR) {
			r->lost = dent.ino;
			break;
		}
		snprintf(name, sizeof(name), LOST_FOUND ".%u", i);
	}
	if (!ret && !r->lost)
		ret = -EEXIST;
	return um_txn_end(txn, ret);
}

static int link_in_txn(struct um_txn *txn, struct relink *r, const struct um_ino_info *info)
{
	bool is_dir = info->type == DT_DIR;
	struct um_inode dir, inode;
	char name[32];
	unsigned i;
	int ret = um_inode_load(um_txn_src(txn), info->ino, &inode);

	if (!ret)
		ret = um_inode_load(um_txn_src(txn), r->lost, &dir);
	if (ret)
		return ret;
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)info->ino);
	ret = um_dir_add(txn, &dir, name, strlen(name), &inode);
	for (i = 1; ret == -EEXIST && i < 1000; i++) {
		snprintf(name, sizeof(name), "#%llu.%u", (unsigned long long)info->ino, i);
		ret = um_dir_add(txn, &dir, name, strlen(name), &inode);
	}
	if (ret)
		return ret;
	inode.core.nlink = is_dir ? 2 + r->c->dir[info->dir].subdirs : 1;
	if (is_dir) {
		inode.core.parent = r->lost;
		dir.core.nlink++;
	}
	ret = um_inode_store(txn, &inode);
	return ret ? ret : um_inode_store(txn, &dir);
}

static int link_all(struct relink *r)
{
	struct um_check *c = r->c;
	struct um_txn *txn;
	size_t i;
	int ret = 0;

	for (i = 0; i < c->nino && !ret; i++) {
		if (!(c->ino[i].flags & UM_INFO_RELINK) || c->ino[i].ino == r->lost)
			continue;
		ret = begin(r, &txn);
		if (!ret)
			ret = um_txn_end(txn, link_in_txn(txn, r, &c->ino[i]));
	}
	return ret;
}

int um_relink(struct um_check *c)
{
	struct relink r = {.c = c};
	struct um_space *space = NULL;
	int ret = um_log_open(c->pool, &r.log), ret2;

	if (ret)
		return ret;
	ret = um_space_open(r.log, &space);
	if (!ret)
		um_log_set_space(r.log, space);
	if (!ret && c->need_root_dir)
		ret = make_root_dir(&r);
	if (!ret && c->nrelink)
		ret = find_lost_found(&r);
	if (!ret && c->nrelink)
		ret = link_all(&r);
	if (!ret && c->ntrim)
		ret = um_trim_all(c, r.log);
	ret2 = um_log_close(r.log);
	if (space)
		um_space_close(space);
	return ret ? ret : ret2;
}
