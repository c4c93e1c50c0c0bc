/* SPDX-License-Identifier: BSD-3-Clause */
/* Complete clones of inodes, for cloning trees. One transaction each, so that a name never leads to
 * a half-made file. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/data.h"
#include "fs/name.h"

/* A value of 64 KiB has 65 pieces; setting it takes as many in one transaction. */
#define XATTR_PIECES 66u

/* ---- extended attributes ------------------------------------------------------------------------------ */

struct copying {
	struct um_txn *txn;
	struct um_tree *to;
	unsigned n;
};

static int copy_piece(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct copying *copying = arg;
	uint8_t piece[UM_VALUE_MAX];

	if (copying->n++ == XATTR_PIECES)
		return -EOPNOTSUPP;
	if (len > sizeof(piece))
		return -EUCLEAN;
	memcpy(piece, val, len);
	return um_tree_insert(copying->txn, copying->to, key, piece, len);
}

/* dst has none. The target of a long symlink is among them. */
static int copy_xattrs(struct um_txn *txn, const struct um_inode *src, struct um_inode *dst)
{
	struct um_tree from, to;
	struct copying copying = {.txn = txn, .to = &to};
	int ret;

	if (src->core.xattr.format == UM_ROOT_EMPTY)
		return 0;
	um_inode_tree(src, UM_FORK_XATTR, &from);
	um_inode_tree(dst, UM_FORK_XATTR, &to);
	ret = um_tree_walk(um_txn_src(txn), &from, 0, UINT64_MAX, copy_piece, &copying);
	if (!ret)
		um_inode_set_tree(dst, UM_FORK_XATTR, &to);
	return ret;
}

/* ---- what both have in common ----------------------------------------------------------------------------- */

/* Copies owner, mode, access and modification times, extended attributes. */
static int copy_meta(struct um_txn *txn, const struct um_inode *src, struct um_inode *dst)
{
	dst->core.mode = src->core.mode;
	dst->core.uid = src->core.uid;
	dst->core.gid = src->core.gid;
	dst->core.atime = src->core.atime;
	dst->core.mtime = src->core.mtime;
	return copy_xattrs(txn, src, dst);
}

static int load_source(struct um_src src, um_ino_t ino, struct um_inode *out)
{
	int ret = um_inode_load(src, ino, out);

	return ret || out->core.nlink ? ret : -ESTALE;
}

/* ---- a new inode --------------------------------------------------------------------------------------------- */

static int clone_inode(struct um_txn *txn, const struct um_inode *src, const struct um_inode *dir,
	struct um_inode *out)
{
	int ret = um_inode_new(txn, src->core.mode, out);

	if (!ret)
		ret = copy_meta(txn, src, out);
	if (ret)
		return ret;
	out->core.rdev = src->core.rdev;
	out->core.size = src->core.size;
	if (S_ISREG(src->core.mode))
		out->core.flags = dir->core.flags & UM_FLAGS_INHERITED;
	/* An empty file may have preallocated blocks; a clone of it has none. */
	if (!src->core.size)
		return 0;
	return um_data_share_fork(txn, src, out);
}

static int clone_at_txn(
	struct um_txn *txn, um_ino_t src_ino, um_ino_t parent, const char *name, size_t len)
{
	struct um_inode src, dir, inode;
	int ret = load_source(um_txn_src(txn), src_ino, &src);

	if (!ret && S_ISDIR(src.core.mode))
		ret = -EISDIR;
	if (!ret)
		ret = um_name_load_free(um_txn_src(txn), parent, name, len, &dir);
	if (!ret)
		ret = clone_inode(txn, &src, &dir, &inode);
	return ret ? ret : um_name_give(txn, &dir, name, len, &inode);
}

int umbra_clone_at(struct umbra_fs *fs, uint64_t src, uint64_t parent, const char *name)
{
	struct um_txn *txn;
	struct um_mem *mem;
	size_t len;
	int ret = um_name_check(name, &len);

	if (!ret && um_name_is_dots(name))
		ret = -EEXIST;
	if (!ret)
		ret = um_data_may_change(fs);
	if (!ret)
		ret = um_mem_get(fs, src, &mem);
	if (ret)
		return ret;
	/* Its blocks become shared: nobody may be about to overwrite them. */
	pthread_rwlock_wrlock(&mem->lock);
	ret = um_data_settle(fs, src);
	if (ret >= 0)
		ret = um_fs_begin(fs, 0, &txn);
	if (!ret)
		ret = um_txn_end(txn, clone_at_txn(txn, src, parent, name, len));
	pthread_rwlock_unlock(&mem->lock);
	um_mem_put(fs, mem);
	if (!ret)
		atomic_fetch_add_explicit(&fs->stat_clones, 1, memory_order_relaxed);
	return ret;
}

/* ---- a directory that is there --------------------------------------------------------------------------------- */

static int dir_meta_txn(struct um_txn *txn, um_ino_t src_ino, um_ino_t dst_ino)
{
	struct um_inode src, dst;
	int ret = um_name_load_dir(um_txn_src(txn), src_ino, &src);

	if (!ret)
		ret = um_name_load_dir(um_txn_src(txn), dst_ino, &dst);
	if (!ret && dst.core.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))
		ret = -EPERM;
	if (!ret && dst.core.xattr.format != UM_ROOT_EMPTY)
		ret = -EEXIST;
	if (!ret)
		ret = copy_meta(txn, &src, &dst);
	if (ret)
		return ret;
	um_inode_touch(&dst, UM_TOUCH_C);
	return um_inode_store(txn, &dst);
}

int umbra_clone_dir_meta(struct umbra_fs *fs, uint64_t src, uint64_t dst)
{
	struct um_txn *txn;
	int ret = um_fs_begin(fs, 0, &txn);

	return ret ? ret : um_txn_end(txn, dir_meta_txn(txn, src, dst));
}
