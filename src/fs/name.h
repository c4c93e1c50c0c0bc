/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside the namespace: directories (dir.c), what the operations on names share (name.c), symlinks. */
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
/* The existing entry at key, of that name, now leads to child. */
int um_dir_point(struct um_txn *txn, struct um_inode *dir, uint64_t key, const char *name,
	size_t len, const struct um_inode *child);
/* 0 or -ENOTEMPTY */
int um_dir_empty(struct um_src src, const struct um_inode *dir);

/* ---- what operations on names share (name.c) ----------------------------------------------------------- */

/* Length of a name that can be in a directory; -ENOENT empty, -ENAMETOOLONG, -EINVAL with '/'. */
int um_name_check(const char *name, size_t *out_len);
bool um_name_is_dots(const char *name); /* "." or ".." */
/* A directory that can still be used; -ENOTDIR; -ENOENT when removed. */
int um_name_load_dir(struct um_src src, um_ino_t ino, struct um_inode *out);
/* What an entry of dir leads to; -EUCLEAN when that is nowhere. */
int um_name_load_child(struct um_src src, const struct um_inode *dir, const struct um_dent *dent,
	struct um_inode *out);
/* By the flags of the directory, and of what is removed from it: -EPERM. */
int um_name_may_create(const struct um_inode *dir);
int um_name_may_delete(const struct um_inode *dir, const struct um_inode *child);
/* Flags that a new inode takes over from its directory. */
#define UM_FLAGS_INHERITED (FS_SYNC_FL | FS_NODUMP_FL | FS_NOATIME_FL)
/* A directory in which a name can be made now; -EEXIST, -EPERM by its flags. */
int um_name_load_free(
	struct um_src src, um_ino_t parent, const char *name, size_t len, struct um_inode *out_dir);
/* Gives a new inode its first name; stores both. */
int um_name_give(struct um_txn *txn, struct um_inode *dir, const char *name, size_t len,
	struct um_inode *inode);
/* One link less, in the transaction; a directory goes with its last name. */
struct um_unlinked {
	struct umbra_fs *fs;
	um_ino_t ino;
};
/* `hook` must live until the transaction ended. Stores the child. */
int um_name_drop_link(
	struct um_txn *txn, struct umbra_fs *fs, struct um_inode *child, struct um_unlinked *hook);
/* A character device 0/0 of one link, stored, for an entry to lead to. */
int um_name_make_whiteout(struct um_txn *txn, const struct umbra_cred *cred, struct um_inode *out);

/* ---- symlinks (symlink.c) ------------------------------------------------------------------------------------ */

/* Puts the target into a new symlink's record and forks. -ENAMETOOLONG, -ENOENT (empty). */
int um_symlink_write(struct um_txn *txn, struct um_inode *inode, const char *target);

#endif
