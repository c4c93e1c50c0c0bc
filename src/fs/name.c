/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations on names: each is one transaction, in which every check is made on which its success
 * depends. rename is in rename.c, reading in lookup.c. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/name.h"
#include "pool/seeded.h"

/* ---- checks that operations share ----------------------------------------------------------------------- */

int um_name_check(const char *name, size_t *out_len)
{
	size_t len = strnlen(name, UMBRA_NAME_MAX + 1);

	if (!len)
		return -ENOENT;
	if (len > UMBRA_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(name, '/', len))
		return -EINVAL;
	*out_len = len;
	return 0;
}

bool um_name_is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

int um_name_load_dir(struct um_src src, um_ino_t ino, struct um_inode *out)
{
	int ret = um_inode_load(src, ino, out);

	if (ret)
		return ret;
	if (!S_ISDIR(out->core.mode))
		return -ENOTDIR;
	return out->core.nlink ? 0 : -ENOENT;
}

int um_name_load_child(struct um_src src, const struct um_inode *dir, const struct um_dent *dent,
	struct um_inode *out)
{
	int ret = dent->ino == dir->ino ? -ESTALE : um_inode_load(src, dent->ino, out);

	if (!ret && !out->core.nlink)
		ret = -ESTALE;
	if (ret != -ESTALE)
		return ret;
	um_err("directory %llu: entry at %#llx leads to inode %llu, which is not there",
		(unsigned long long)dir->ino, (unsigned long long)dent->key,
		(unsigned long long)dent->ino);
	return -EUCLEAN;
}

int um_name_may_create(const struct um_inode *dir)
{
	return dir->core.flags & FS_IMMUTABLE_FL ? -EPERM : 0;
}

int um_name_may_delete(const struct um_inode *dir, const struct um_inode *child)
{
	return (dir->core.flags | child->core.flags) & (FS_IMMUTABLE_FL | FS_APPEND_FL) ? -EPERM
											: 0;
}

static void unlinked_hook(void *arg)
{
	const struct um_unlinked *hook = arg;

	um_mem_set_unlinked(hook->fs, hook->ino, true);
}

static void relinked_hook(void *arg)
{
	const struct um_unlinked *hook = arg;

	um_mem_set_unlinked(hook->fs, hook->ino, false);
}

int um_name_drop_link(
	struct um_txn *txn, struct umbra_fs *fs, struct um_inode *child, struct um_unlinked *hook)
{
	int ret = 0;

	if (S_ISDIR(child->core.mode))
		child->core.nlink = 0;
	else
		child->core.nlink--;
	um_inode_touch(child, UM_TOUCH_C);
	if (!child->core.nlink) {
		*hook = (struct um_unlinked){fs, child->ino};
		if (!um_seeded_bug(15))
			ret = um_orphan_add(txn, child->ino, UM_ORPHAN_UNLINKED, 0);
		if (!ret)
			ret = um_txn_on_commit(txn, unlinked_hook, hook);
	}
	return ret ? ret : um_inode_store(txn, child);
}

/* ---- making ------------------------------------------------------------------------------------------------ */

struct make {
	struct umbra_fs *fs;
	const struct umbra_cred *cred;
	mode_t mode;
	dev_t rdev;
	const char *target; /* symlinks */
	struct um_inode dir, inode;
};

/* Owner, group, mode, flags and ACLs of a new inode, from its creator and its directory. */
static int make_inode(struct um_txn *txn, struct make *make)
{
	static const struct umbra_cred nobody_in_particular;
	const struct umbra_cred *cred = make->cred ? make->cred : &nobody_in_particular;
	const struct um_inode_core *dir = &make->dir.core;
	struct um_inode_core *core = &make->inode.core;
	mode_t mode = make->mode & (S_IFMT | 07777);
	bool is_dir = S_ISDIR(mode);
	int ret;

	if (is_dir && dir->mode & S_ISGID)
		mode |= S_ISGID;
	ret = um_inode_new(txn, mode, &make->inode);
	if (ret)
		return ret;
	core->uid = cred->uid;
	core->gid = dir->mode & S_ISGID ? dir->gid : cred->gid;
	core->rdev = S_ISCHR(mode) || S_ISBLK(mode) ? make->rdev : 0;
	if (is_dir || S_ISREG(mode))
		core->flags = dir->flags & (UM_FLAGS_INHERITED | (is_dir ? FS_DIRSYNC_FL : 0));
	if (is_dir)
		core->parent = make->dir.ino;
	if (S_ISLNK(mode))
		return um_symlink_write(txn, &make->inode, make->target);
	return um_acl_inherit(txn, &make->dir, &make->inode, cred->umask);
}

int um_name_give(struct um_txn *txn, struct um_inode *dir, const char *name, size_t len,
	struct um_inode *inode)
{
	bool is_dir = S_ISDIR(inode->core.mode);
	int ret;

	inode->core.nlink = is_dir ? 2 : 1;
	ret = um_dir_add(txn, dir, name, len, inode);
	if (ret)
		return ret;
	dir->core.nlink += is_dir;
	um_inode_touch(dir, UM_TOUCH_M | UM_TOUCH_C);
	ret = um_inode_store(txn, dir);
	return ret ? ret : um_inode_store(txn, inode);
}

int um_name_make_whiteout(struct um_txn *txn, const struct umbra_cred *cred, struct um_inode *out)
{
	int ret = um_inode_new(txn, S_IFCHR, out);

	if (ret)
		return ret;
	out->core.uid = cred->uid;
	out->core.gid = cred->gid;
	out->core.rdev = 0;
	out->core.nlink = 1;
	return um_inode_store(txn, out);
}

int um_name_load_free(
	struct um_src src, um_ino_t parent, const char *name, size_t len, struct um_inode *out_dir)
{
	struct um_dent dent;
	int ret = um_name_load_dir(src, parent, out_dir);

	if (ret)
		return ret;
	ret = um_dir_find(src, out_dir, name, len, &dent);
	if (ret != -ENOENT)
		return ret ? ret : -EEXIST;
	return um_name_may_create(out_dir);
}

static int make_checks(
	struct um_src src, struct make *make, uint64_t parent, const char *name, size_t len)
{
	int ret = um_name_load_free(src, parent, name, len, &make->dir);

	if (!ret && S_ISDIR(make->mode) && make->dir.core.nlink >= UMBRA_LINK_MAX)
		ret = -EMLINK;
	return ret;
}

/* Ends the transaction of a function that returns a referenced inode. */
static int end_referenced(
	struct umbra_fs *fs, struct um_txn *txn, int ret, const struct um_inode *inode)
{
	bool referenced = false;

	if (!ret) {
		ret = um_mem_ref_new(fs, inode->ino);
		referenced = !ret;
	}
	ret = um_txn_end(txn, ret);
	if (ret && referenced)
		um_mem_unref(fs, inode->ino, 1);
	return ret;
}

static int make_named(struct make *make, uint64_t parent, const char *name, struct umbra_attr *out)
{
	struct um_txn *txn;
	size_t len;
	int ret = um_name_check(name, &len);

	if (ret)
		return ret;
	if (um_name_is_dots(name))
		return -EEXIST;
	ret = um_fs_begin(make->fs, 0, &txn);
	if (ret)
		return ret;
	ret = make_checks(um_txn_src(txn), make, parent, name, len);
	if (!ret)
		ret = make_inode(txn, make);
	if (!ret)
		ret = um_name_give(txn, &make->dir, name, len, &make->inode);
	ret = end_referenced(make->fs, txn, ret, &make->inode);
	if (!ret && out)
		um_inode_attr(&make->inode, out);
	return ret;
}

int umbra_mknod(struct umbra_fs *fs, uint64_t parent, const char *name, mode_t mode, dev_t rdev,
	const struct umbra_cred *cred, struct umbra_attr *out)
{
	struct make make = {.fs = fs, .cred = cred, .mode = mode, .rdev = rdev};

	if (!(mode & S_IFMT))
		make.mode |= S_IFREG;
	switch (make.mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return make_named(&make, parent, name, out);
	default:
		return -EINVAL;
	}
}

int umbra_symlink(struct umbra_fs *fs, uint64_t parent, const char *name, const char *target,
	const struct umbra_cred *cred, struct umbra_attr *out)
{
	struct make make = {.fs = fs, .cred = cred, .mode = S_IFLNK | 0777, .target = target};

	return make_named(&make, parent, name, out);
}

int umbra_tmpfile(struct umbra_fs *fs, uint64_t parent, mode_t mode, const struct umbra_cred *cred,
	struct umbra_attr *out)
{
	struct make make = {.fs = fs, .cred = cred, .mode = (mode & 07777) | S_IFREG};
	struct um_unlinked hook;
	struct um_txn *txn;
	int ret;

	if (mode & S_IFMT && !S_ISREG(mode))
		return -EINVAL;
	ret = um_fs_begin(fs, 0, &txn);
	if (ret)
		return ret;
	ret = um_name_load_dir(um_txn_src(txn), parent, &make.dir);
	if (!ret)
		ret = um_name_may_create(&make.dir);
	if (!ret)
		ret = make_inode(txn, &make);
	if (!ret)
		ret = um_inode_store(txn, &make.inode);
	if (!ret)
		ret = um_orphan_add(txn, make.inode.ino, UM_ORPHAN_TMPFILE, 0);
	if (!ret) {
		hook = (struct um_unlinked){fs, make.inode.ino};
		ret = um_txn_on_commit(txn, unlinked_hook, &hook);
	}
	ret = end_referenced(fs, txn, ret, &make.inode);
	if (!ret && out)
		um_inode_attr(&make.inode, out);
	return ret;
}

/* ---- linking --------------------------------------------------------------------------------------------------- */

/* May this inode get another name? Removes the orphan record of a tmpfile. */
static int add_link(
	struct um_txn *txn, struct umbra_fs *fs, struct um_inode *inode, struct um_unlinked *hook)
{
	int ret = 0;

	if (S_ISDIR(inode->core.mode) || inode->core.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))
		return -EPERM;
	if (inode->core.nlink >= UMBRA_LINK_MAX)
		return -EMLINK;
	if (!inode->core.nlink) {
		*hook = (struct um_unlinked){fs, inode->ino};
		ret = um_orphan_relink(txn, inode->ino);
		if (!ret)
			ret = um_txn_on_commit(txn, relinked_hook, hook);
	}
	inode->core.nlink++;
	um_inode_touch(inode, UM_TOUCH_C);
	return ret;
}

static int link_in_txn(struct um_txn *txn, struct make *make, uint64_t ino, uint64_t parent,
	const char *name, size_t len, struct um_unlinked *hook)
{
	struct um_src src = um_txn_src(txn);
	int ret = um_inode_load(src, ino, &make->inode);

	if (!ret)
		ret = make_checks(src, make, parent, name, len);
	if (!ret)
		ret = add_link(txn, make->fs, &make->inode, hook);
	if (!ret)
		ret = um_dir_add(txn, &make->dir, name, len, &make->inode);
	if (ret)
		return ret;
	um_inode_touch(&make->dir, UM_TOUCH_M | UM_TOUCH_C);
	ret = um_inode_store(txn, &make->dir);
	return ret ? ret : um_inode_store(txn, &make->inode);
}

int umbra_link(struct umbra_fs *fs, uint64_t ino, uint64_t parent, const char *name,
	struct umbra_attr *out)
{
	struct make make = {.fs = fs};
	struct um_unlinked hook;
	struct um_txn *txn;
	size_t len;
	int ret = um_name_check(name, &len);

	if (ret)
		return ret;
	if (um_name_is_dots(name))
		return -EEXIST;
	ret = um_fs_begin(fs, 0, &txn);
	if (ret)
		return ret;
	ret = link_in_txn(txn, &make, ino, parent, name, len, &hook);
	ret = end_referenced(fs, txn, ret, &make.inode);
	if (!ret && out)
		um_inode_attr(&make.inode, out);
	return ret;
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

static int remove_checks(
	struct um_src src, const struct um_inode *dir, const struct um_inode *child, bool is_dir)
{
	int ret = um_name_may_delete(dir, child);

	if (ret)
		return ret;
	if (!is_dir)
		return S_ISDIR(child->core.mode) ? -EISDIR : 0;
	if (!S_ISDIR(child->core.mode))
		return -ENOTDIR;
	return child->ino == UM_ROOT_INO ? -EBUSY : um_dir_empty(src, child);
}

static int remove_in_txn(struct um_txn *txn, struct umbra_fs *fs, uint64_t parent, const char *name,
	size_t len, bool is_dir, struct um_unlinked *hook)
{
	struct um_src src = um_txn_src(txn);
	struct um_inode dir, child;
	struct um_dent dent;
	int ret = um_name_load_dir(src, parent, &dir);

	if (!ret)
		ret = um_dir_find(src, &dir, name, len, &dent);
	if (!ret)
		ret = um_name_load_child(src, &dir, &dent, &child);
	if (!ret)
		ret = remove_checks(src, &dir, &child, is_dir);
	if (!ret)
		ret = um_dir_remove(txn, &dir, dent.key);
	if (ret)
		return ret;
	if (is_dir && dir.core.nlink > 2)
		dir.core.nlink--;
	um_inode_touch(&dir, UM_TOUCH_M | UM_TOUCH_C);
	ret = um_inode_store(txn, &dir);
	return ret ? ret : um_name_drop_link(txn, fs, &child, hook);
}

static int remove_named(struct umbra_fs *fs, uint64_t parent, const char *name, bool is_dir)
{
	struct um_unlinked hook;
	struct um_txn *txn;
	size_t len;
	int ret = um_name_check(name, &len);

	if (ret)
		return ret;
	/* A full pool must allow this, since it frees space in the end. */
	ret = um_fs_begin(fs, UM_TXN_RESERVE, &txn);
	if (ret)
		return ret;
	ret = um_txn_end(txn, remove_in_txn(txn, fs, parent, name, len, is_dir, &hook));
	if (!ret)
		um_reaper_help(fs);
	return ret;
}

int umbra_unlink(struct umbra_fs *fs, uint64_t parent, const char *name)
{
	return um_name_is_dots(name) ? -EISDIR : remove_named(fs, parent, name, false);
}

int umbra_rmdir(struct umbra_fs *fs, uint64_t parent, const char *name)
{
	if (um_name_is_dots(name))
		return name[1] ? -ENOTEMPTY : -EINVAL;
	return remove_named(fs, parent, name, true);
}
