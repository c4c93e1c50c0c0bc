/* SPDX-License-Identifier: BSD-3-Clause */
/* rename(2) with RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT: one transaction. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/name.h"

#define ANCESTORS_MAX (1u << 20) /* a longer path up is a loop in a corrupt pool */

struct side {
	uint64_t parent;
	const char *name;
	size_t len;
	struct um_inode *dir;
	struct um_dent dent;
	struct um_inode child;
	bool exists;
};

struct rename {
	struct umbra_fs *fs;
	struct um_txn *txn;
	unsigned flags;
	const struct umbra_cred *whiteout; /* its creator; NULL: no whiteout */
	struct um_inode dir[2];
	struct side from, to; /* both ->dir are dir[0] within one directory */
	struct um_unlinked hook;
};

/* Is `ino` the directory `anc` or somewhere below it? 1, 0, or -errno. */
static int is_below(struct um_src src, um_ino_t ino, um_ino_t anc)
{
	struct um_inode dir;
	unsigned n;
	int ret;

	for (n = 0; n < ANCESTORS_MAX; n++) {
		if (ino == anc)
			return 1;
		if (ino == UM_ROOT_INO)
			return 0;
		ret = um_inode_load(src, ino, &dir);
		if (ret)
			return ret == -ESTALE ? -EUCLEAN : ret;
		if (!S_ISDIR(dir.core.mode))
			break;
		ino = dir.core.parent;
	}
	um_err("directory %llu: its parents lead nowhere", (unsigned long long)ino);
	return -EUCLEAN;
}

static int side_load(struct um_src src, struct side *side)
{
	int ret = um_dir_find(src, side->dir, side->name, side->len, &side->dent);

	side->exists = !ret;
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	return um_name_load_child(src, side->dir, &side->dent, &side->child);
}

static int load(struct rename *r)
{
	struct um_src src = um_txn_src(r->txn);
	int ret = um_name_load_dir(src, r->from.parent, &r->dir[0]);

	r->from.dir = r->to.dir = &r->dir[0];
	if (!ret && r->from.parent != r->to.parent) {
		r->to.dir = &r->dir[1];
		ret = um_name_load_dir(src, r->to.parent, &r->dir[1]);
	}
	if (!ret)
		ret = side_load(src, &r->from);
	if (!ret && !r->from.exists)
		ret = -ENOENT;
	return ret ? ret : side_load(src, &r->to);
}

/* A directory must not end up inside itself. */
static int check_ancestors(struct rename *r)
{
	struct um_src src = um_txn_src(r->txn);
	int ret = 0;

	if (r->from.parent == r->to.parent)
		return 0;
	if (S_ISDIR(r->from.child.core.mode))
		ret = is_below(src, r->to.parent, r->from.child.ino);
	if (!ret && r->to.exists && S_ISDIR(r->to.child.core.mode)) {
		ret = is_below(src, r->from.parent, r->to.child.ino);
		if (ret > 0 && !(r->flags & RENAME_EXCHANGE))
			return -ENOTEMPTY;
	}
	return ret > 0 ? -EINVAL : ret;
}

/* Checks whether the target may be replaced. */
static int check_target(struct rename *r)
{
	bool from_dir = S_ISDIR(r->from.child.core.mode), to_dir = S_ISDIR(r->to.child.core.mode);
	int ret = um_name_may_delete(r->to.dir, &r->to.child);

	if (ret || r->flags & RENAME_EXCHANGE)
		return ret;
	if (from_dir && !to_dir)
		return -ENOTDIR;
	if (!from_dir && to_dir)
		return -EISDIR;
	return to_dir ? um_dir_empty(um_txn_src(r->txn), &r->to.child) : 0;
}

/* If the directory `into` gains a subdirectory: has it room for the link? */
static int check_links(const struct um_inode *into, const struct um_inode *comes, bool dir_leaves)
{
	return S_ISDIR(comes->core.mode) && !dir_leaves && into->core.nlink >= UMBRA_LINK_MAX
		       ? -EMLINK
		       : 0;
}

static int check(struct rename *r)
{
	bool to_dir = r->to.exists && S_ISDIR(r->to.child.core.mode);
	int ret = check_ancestors(r);

	if (!ret)
		ret = um_name_may_delete(r->from.dir, &r->from.child);
	if (!ret)
		ret = r->to.exists ? check_target(r) : um_name_may_create(r->to.dir);
	if (ret || r->from.parent == r->to.parent)
		return ret;
	ret = check_links(r->to.dir, &r->from.child, to_dir);
	if (!ret && r->flags & RENAME_EXCHANGE)
		ret = check_links(r->from.dir, &r->to.child, S_ISDIR(r->from.child.core.mode));
	return ret;
}

/* Moves a directory from `from` to `to`: "..", and the link that it represents. */
static void move_dotdot(struct um_inode *child, struct um_inode *from, struct um_inode *to)
{
	if (!S_ISDIR(child->core.mode) || from == to)
		return;
	child->core.parent = to->ino;
	to->core.nlink++;
	if (from->core.nlink > 2)
		from->core.nlink--;
}

static int exchange(struct rename *r)
{
	struct side *a = &r->from, *b = &r->to;
	int ret = um_dir_point(r->txn, a->dir, a->dent.key, a->name, a->len, &b->child);

	if (!ret)
		ret = um_dir_point(r->txn, b->dir, b->dent.key, b->name, b->len, &a->child);
	if (ret)
		return ret;
	move_dotdot(&a->child, a->dir, b->dir);
	move_dotdot(&b->child, b->dir, a->dir);
	um_inode_touch(&b->child, UM_TOUCH_C);
	return um_inode_store(r->txn, &b->child);
}

/* What happens to the old name: it is removed, or becomes a whiteout. */
static int leave(struct rename *r)
{
	struct side *a = &r->from;
	struct um_inode white;
	int ret;

	if (!r->whiteout)
		return um_dir_remove(r->txn, a->dir, a->dent.key);
	ret = um_name_make_whiteout(r->txn, r->whiteout, &white);
	return ret ? ret : um_dir_point(r->txn, a->dir, a->dent.key, a->name, a->len, &white);
}

static int move(struct rename *r)
{
	struct side *a = &r->from, *b = &r->to;
	int ret;

	if (b->exists)
		ret = um_dir_point(r->txn, b->dir, b->dent.key, b->name, b->len, &a->child);
	else
		ret = um_dir_add(r->txn, b->dir, b->name, b->len, &a->child);
	if (!ret)
		ret = leave(r);
	if (ret)
		return ret;
	move_dotdot(&a->child, a->dir, b->dir);
	if (!b->exists)
		return 0;
	if (S_ISDIR(b->child.core.mode) && b->dir->core.nlink > 2)
		b->dir->core.nlink--;
	return um_name_drop_link(r->txn, r->fs, &b->child, &r->hook);
}

static int rename_in_txn(struct rename *r)
{
	int ret = load(r);

	if (ret)
		return ret;
	if (r->to.exists && r->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (!r->to.exists && r->flags & RENAME_EXCHANGE)
		return -ENOENT;
	/* Two names of one inode: POSIX requires that nothing happens. */
	if (r->to.exists && r->to.child.ino == r->from.child.ino)
		return 0;
	ret = check(r);
	if (ret)
		return ret;
	ret = r->flags & RENAME_EXCHANGE ? exchange(r) : move(r);
	if (ret)
		return ret;
	um_inode_touch(&r->from.child, UM_TOUCH_C);
	um_inode_touch(r->from.dir, UM_TOUCH_M | UM_TOUCH_C);
	if (r->to.dir != r->from.dir)
		um_inode_touch(r->to.dir, UM_TOUCH_M | UM_TOUCH_C);
	ret = um_inode_store(r->txn, &r->from.child);
	if (!ret)
		ret = um_inode_store(r->txn, r->from.dir);
	if (!ret && r->to.dir != r->from.dir)
		ret = um_inode_store(r->txn, r->to.dir);
	return ret;
}

static int do_rename(struct umbra_fs *fs, uint64_t parent, const char *name, uint64_t newparent,
	const char *newname, unsigned flags, const struct umbra_cred *whiteout)
{
	struct rename r = {.fs = fs,
		.flags = flags,
		.whiteout = whiteout,
		.from = {.parent = parent, .name = name},
		.to = {.parent = newparent, .name = newname}};
	int ret;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
		flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	ret = um_name_check(name, &r.from.len);
	if (!ret)
		ret = um_name_check(newname, &r.to.len);
	if (ret)
		return ret;
	if (um_name_is_dots(name))
		return -EBUSY;
	if (um_name_is_dots(newname))
		return flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	ret = um_fs_begin(fs, 0, &r.txn);
	if (ret)
		return ret;
	ret = um_txn_end(r.txn, rename_in_txn(&r));
	if (!ret)
		um_reaper_help(fs);
	return ret;
}

int umbra_rename(struct umbra_fs *fs, uint64_t parent, const char *name, uint64_t newparent,
	const char *newname, unsigned flags)
{
	return do_rename(fs, parent, name, newparent, newname, flags, NULL);
}

int umbra_rename_whiteout(struct umbra_fs *fs, uint64_t parent, const char *name,
	uint64_t newparent, const char *newname, unsigned flags, const struct umbra_cred *cred)
{
	static const struct umbra_cred nobody_in_particular;

	if (flags & RENAME_EXCHANGE)
		return -EINVAL;
	return do_rename(
		fs, parent, name, newparent, newname, flags, cred ? cred : &nobody_in_particular);
}
