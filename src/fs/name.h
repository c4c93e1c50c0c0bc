/* SPDX-License-Identifier: BSD-3-Clause */
/* Internal to the namespace: directories (dir.c), the common part of operations on names (name.c),
 * symlinks. */
#ifndef UM_FS_NAME_H
#define UM_FS_NAME_H

#include "fs/fs.h"

/* ---- directories as trees (dir.c); callers touch and store the directory's inode ------------------- */

struct um_dent {
	uint64_t key;
	um_ino_t ino;
	uint8_t type; /* DT_* */
};
/* -ENOENT */
int um_dir_find(struct um_src src, const struct um_inode *dir, const char *name, size_t len,
	struct um_dent *out);
/* -EEXIST */
int um_dir_add(struct um_txn *txn, struct um_inode *dir, const char *name, size_t len,
	const struct um_inode *child);
int um_dir_remove(struct um_txn *txn, struct um_inode *dir, uint64_t key);
/* Makes the existing entry at key, of that name, point to child. */
int um_dir_point(struct um_txn *txn, struct um_inode *dir, uint64_t key, const char *name,
	size_t len, const struct um_inode *child);
/* 0 or -ENOTEMPTY */
int um_dir_empty(struct um_src src, const struct um_inode *dir);

/* ---- what operations on names share (name.c) ----------------------------------------------------------- */

/* Length of a name that is allowed in a directory; -ENOENT empty, -ENAMETOOLONG, -EINVAL with
 * '/'. */
int um_name_check(const char *name, size_t *out_len);
bool um_name_is_dots(const char *name); /* "." or ".." */
/* Loads a directory that can still be used; -ENOTDIR; -ENOENT if removed. */
int um_name_load_dir(struct um_src src, um_ino_t ino, struct um_inode *out);
/* Loads the inode of an entry of dir; -EUCLEAN if it does not exist. */
int um_name_load_child(struct um_src src, const struct um_inode *dir, const struct um_dent *dent,
	struct um_inode *out);
/* Checks the flags of the directory, and of what is removed from it: -EPERM. */
int um_name_may_create(const struct um_inode *dir);
int um_name_may_delete(const struct um_inode *dir, const struct um_inode *child);
/* Flags that a new inode inherits from its directory. */
#define UM_FLAGS_INHERITED (FS_SYNC_FL | FS_NODUMP_FL | FS_NOATIME_FL)
/* Loads a directory in which the name can be created; -EEXIST, -EPERM because of its flags. */
int um_name_load_free(
	struct um_src src, um_ino_t parent, const char *name, size_t len, struct um_inode *out_dir);
/* Gives a new inode its first name; stores both. */
int um_name_give(struct um_txn *txn, struct um_inode *dir, const char *name, size_t len,
	struct um_inode *inode);
/* Drops a link, in the transaction; a directory goes with its only name. */
struct um_unlinked {
	struct umbra_fs *fs;
	um_ino_t ino;
};
/* `hook` must live until the transaction has ended. Stores the child. */
int um_name_drop_link(
	struct um_txn *txn, struct umbra_fs *fs, struct um_inode *child, struct um_unlinked *hook);
/* Creates and stores a character device 0/0 with one link, to be named by an entry. */
int um_name_make_whiteout(struct um_txn *txn, const struct umbra_cred *cred, struct um_inode *out);

/* ---- symlinks (symlink.c) ------------------------------------------------------------------------------------ */

/* Stores the target in a new symlink's record and forks. -ENAMETOOLONG, -ENOENT (empty). */
int um_symlink_write(struct um_txn *txn, struct um_inode *inode, const char *target);

#endif
