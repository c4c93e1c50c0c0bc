/* SPDX-License-Identifier: BSD-3-Clause */
/* Targets of symlinks: in the inode's record if short, else as raw pieces in its xattr tree, under
 * keys that no xattr has. */
#include <errno.h>
#include <string.h>

#include "fs/name.h"

#define TARGET_KEY (1u << 10) /* hash 0, n 1, piece 0 */
#define PIECES ((UMBRA_SYMLINK_MAX + UM_XATTR_PIECE - 1) / UM_XATTR_PIECE)

static int write_pieces(struct um_txn *txn, struct um_inode *inode, const char *target, size_t len)
{
	struct um_tree tree;
	size_t off;
	int ret = 0;

	um_inode_tree(inode, UM_FORK_XATTR, &tree);
	for (off = 0; off < len && !ret; off += UM_XATTR_PIECE) {
		size_t n = len - off < UM_XATTR_PIECE ? len - off : UM_XATTR_PIECE;

		ret = um_tree_insert(
			txn, &tree, TARGET_KEY + off / UM_XATTR_PIECE, target + off, (uint16_t)n);
	}
	if (!ret)
		um_inode_set_tree(inode, UM_FORK_XATTR, &tree);
	return ret;
}

int um_symlink_write(struct um_txn *txn, struct um_inode *inode, const char *target)
{
	size_t len = strnlen(target, UMBRA_SYMLINK_MAX + 1);

	if (!len)
		return -ENOENT;
	if (len > UMBRA_SYMLINK_MAX)
		return -ENAMETOOLONG;
	inode->core.size = len;
	if (len > UM_INLINE_MAX)
		return write_pieces(txn, inode, target, len);
	memcpy(inode->data, target, len);
	inode->core.data.format = UM_ROOT_INLINE;
	inode->core.data.len = (uint16_t)len;
	return 0;
}

struct gather {
	char *buf;
	size_t size, len; /* of the target; gathered so far */
};

static int gather_visit(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct gather *gather = arg;

	if (key != TARGET_KEY + gather->len / UM_XATTR_PIECE || gather->len % UM_XATTR_PIECE ||
		len > UM_XATTR_PIECE || len > gather->size - gather->len)
		return -EUCLEAN;
	memcpy(gather->buf + gather->len, val, len);
	gather->len += len;
	return 0;
}

static int read_target(struct um_src src, const struct um_inode *inode, char *buf)
{
	struct gather gather = {.buf = buf, .size = inode->core.size};
	struct um_tree tree;
	int ret = 0;

	if (inode->core.data.format == UM_ROOT_INLINE) {
		memcpy(buf, inode->data, inode->core.data.len);
		gather.len = inode->core.data.len;
	} else {
		um_inode_tree(inode, UM_FORK_XATTR, &tree);
		ret = um_tree_walk(
			src, &tree, TARGET_KEY, TARGET_KEY + PIECES - 1, gather_visit, &gather);
	}
	if (!ret && (gather.len != gather.size || memchr(buf, 0, gather.len)))
		ret = -EUCLEAN;
	if (ret == -EUCLEAN)
		um_err("symlink %llu: invalid target", (unsigned long long)inode->ino);
	buf[gather.len] = 0;
	return ret;
}

int umbra_readlink(struct umbra_fs *fs, uint64_t ino, char buf[UMBRA_SYMLINK_MAX + 1])
{
	struct um_inode inode;
	int ret = um_fs_alive(fs);

	if (ret)
		return ret;
	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, &inode);
	if (!ret && !S_ISLNK(inode.core.mode))
		ret = -EINVAL;
	if (!ret) /* the load checked that its size is within bounds */
		ret = read_target(um_fs_src(fs), &inode, buf);
	um_log_read_unlock(fs->log);
	if (ret >= 0)
		um_atime_update(fs, ino);
	return ret;
}
