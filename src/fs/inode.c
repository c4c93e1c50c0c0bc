/* SPDX-License-Identifier: BSD-3-Clause */
/* Inode records: loading with every check, storing, creating, removing. */
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <xxhash.h>

#include "fs/fs.h"

/* ---- soundness ---------------------------------------------------------------------------------- */

static const char *fork_fault(
	const struct um_pool *pool, const struct um_root *root, bool may_inline)
{
	switch (root->format) {
	case UM_ROOT_EMPTY:
		return root->len ? "empty fork with a length" : NULL;
	case UM_ROOT_INLINE:
		if (!may_inline)
			return "inline fork where there can be none";
		return root->len > UM_INLINE_MAX ? "inline fork too long" : NULL;
	case UM_ROOT_EMBED:
		return root->len > UM_INLINE_MAX ? "embedded fork too long" : NULL;
	case UM_ROOT_NODE:
		if (root->len || root->level >= UM_TREE_LEVELS)
			return "fork root out of range";
		return um_lba_ok(pool, root->ptr.lba, 1) ? NULL : "fork root outside the pool";
	default:
		return "unknown fork format";
	}
}

static const char *core_fault(const struct um_pool *pool, const struct um_inode_core *core)
{
	uint8_t format = core->data.format;
	const char *why;

	why = fork_fault(pool, &core->data, S_ISREG(core->mode) || S_ISLNK(core->mode));
	if (!why)
		why = fork_fault(pool, &core->xattr, false);
	if (why)
		return why;
	switch (core->mode & S_IFMT) {
	case S_IFREG:
		if (core->size > UMBRA_SIZE_MAX)
			return "file size out of range";
		return format == UM_ROOT_INLINE && core->data.len > core->size
			       ? "inline data behind the end of the file"
			       : NULL;
	case S_IFDIR:
		return core->parent ? NULL : "directory without a parent";
	case S_IFLNK:
		if (!core->size || core->size > UMBRA_SYMLINK_MAX)
			return "symlink length out of range";
		if (format == UM_ROOT_INLINE)
			return core->data.len == core->size ? NULL : "symlink length wrong";
		return format == UM_ROOT_EMPTY ? NULL : "symlink with a tree of data";
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return format == UM_ROOT_EMPTY ? NULL : "special file with data";
	default:
		return "unknown file type";
	}
}

/* The value is unaligned in its leaf, so the core is copied out before it is checked. Bodies of
 * embedded trees are not: the tree's own functions do not trust them. */
static const char *record_fault(
	const struct um_pool *pool, const void *val, uint16_t len, struct um_inode_core *core)
{
	const char *why;

	if (len < sizeof(*core))
		return "record too short";
	memmove(core, val, sizeof(*core));
	why = core_fault(pool, core);
	if (why)
		return why;
	if (len != sizeof(*core) + core->data.len + core->xattr.len)
		return "record length wrong";
	return NULL;
}

static int inode_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	struct um_inode_core core;

	return key && !record_fault(pool, val, len, &core) ? 0 : -EUCLEAN;
}

const struct um_tree_type um_inodes_type = {
	.kind = UM_KIND_INODES,
	.embed_max = 0,
	.check = inode_check,
};

/* ---- records ------------------------------------------------------------------------------------- */

int um_inode_load(struct um_src src, um_ino_t ino, struct um_inode *out)
{
	static_assert(offsetof(struct um_inode, data) ==
				      offsetof(struct um_inode, core) + sizeof(out->core) &&
			      offsetof(struct um_inode, xattr) ==
				      offsetof(struct um_inode, data) + sizeof(out->data),
		"a record is read in one piece");
	struct um_inode_core *core = &out->core;
	const char *why;
	struct um_tree tree;
	uint64_t key;
	uint16_t len;
	int ret = um_root_tree(src, UM_ROOT_INODES, &tree);

	if (ret)
		return ret;
	out->ino = ino;
	ret = um_tree_find(src, &tree, ino, UM_SEEK_EQ, &key,
		(uint8_t *)out + offsetof(struct um_inode, core),
		sizeof(*out) - offsetof(struct um_inode, core), &len);
	if (ret)
		return ret == -ENOENT ? -ESTALE : ret;
	why = record_fault(src.pool, core, len, core);
	if (why) {
		um_err("inode %llu: %s", (unsigned long long)ino, why);
		return -EUCLEAN;
	}
	memmove(out->xattr, out->data + core->data.len, core->xattr.len);
	return 0;
}

int um_inode_read(struct umbra_fs *fs, um_ino_t ino, struct um_inode *out)
{
	int ret;

	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, out);
	um_log_read_unlock(fs->log);
	return ret;
}

int um_inode_store(struct um_txn *txn, const struct um_inode *inode)
{
	uint8_t val[sizeof(inode->core) + UM_INLINE_MAX + UM_XATTR_EMBED_MAX];
	const struct um_inode_core *core = &inode->core;
	uint16_t len = (uint16_t)(sizeof(*core) + core->data.len + core->xattr.len);
	struct um_tree tree;
	int ret;

	static_assert(sizeof(val) <= UM_VALUE_MAX, "inode record");
	memcpy(val, core, sizeof(*core));
	memcpy(val + sizeof(*core), inode->data, core->data.len);
	memcpy(val + sizeof(*core) + core->data.len, inode->xattr, core->xattr.len);
	ret = um_root_tree(um_txn_src(txn), UM_ROOT_INODES, &tree);
	if (ret)
		return ret;
	ret = um_tree_replace(txn, &tree, inode->ino, val, len);
	if (ret == -ENOENT)
		ret = um_tree_insert(txn, &tree, inode->ino, val, len);
	if (ret)
		return ret;
	return um_root_store(txn, UM_ROOT_INODES, &tree);
}

/* Numbers are never reused, so the generation only has to be hard to guess, for NFS handles. */
static uint32_t generation_of(const struct um_pool *pool, um_ino_t ino)
{
	uint32_t gen = (uint32_t)XXH3_64bits_withSeed(&ino, sizeof(ino), pool->super.hash_seed);

	return gen ? gen : 1;
}

int um_inode_new(struct um_txn *txn, mode_t mode, struct um_inode *out)
{
	struct um_pool_root *root;
	int ret = um_root_edit(txn, &root);

	if (ret)
		return ret;
	if (root->next_ino < UM_FIRST_INO || root->next_ino > INT64_MAX) {
		um_err("block %llu: pool root: inode counter out of range",
			(unsigned long long)um_txn_pool(txn)->super.root.lba);
		return -EUCLEAN;
	}
	memset(&out->core, 0, sizeof(out->core));
	out->ino = root->next_ino++;
	root->ninodes++;
	out->core.mode = mode;
	out->core.generation = generation_of(um_txn_pool(txn), out->ino);
	um_inode_touch(out, UM_TOUCH_A | UM_TOUCH_M | UM_TOUCH_C);
	out->core.btime = out->core.mtime;
	return 0;
}

int um_inode_remove(struct um_txn *txn, um_ino_t ino)
{
	struct um_pool_root *root;
	struct um_tree tree;
	int ret = um_root_tree(um_txn_src(txn), UM_ROOT_INODES, &tree);

	if (ret)
		return ret;
	ret = um_tree_delete(txn, &tree, ino);
	if (!ret)
		ret = um_root_store(txn, UM_ROOT_INODES, &tree);
	if (!ret)
		ret = um_root_edit(txn, &root);
	if (!ret && root->ninodes)
		root->ninodes--;
	return ret;
}

/* ---- forks ----------------------------------------------------------------------------------------- */

static const struct um_tree_type *fork_type(const struct um_inode *inode, enum um_fork fork)
{
	if (fork == UM_FORK_XATTR)
		return &um_xattr_type;
	return S_ISDIR(inode->core.mode) ? &um_dir_type : &um_extents_type;
}

void um_inode_tree(const struct um_inode *inode, enum um_fork fork, struct um_tree *out)
{
	const struct um_root *root = fork == UM_FORK_DATA ? &inode->core.data : &inode->core.xattr;

	out->type = fork_type(inode, fork);
	out->root = *root;
	out->owner = inode->ino;
	out->goal = root->format == UM_ROOT_NODE ? root->ptr.lba : 0;
	out->dirty = false;
	if (root->format == UM_ROOT_INLINE)
		memset(&out->root, 0, sizeof(out->root)); /* data in the record is no tree */
	else if (root->format == UM_ROOT_EMBED)
		memcpy(out->embed, fork == UM_FORK_DATA ? inode->data : inode->xattr, root->len);
}

void um_inode_set_tree(struct um_inode *inode, enum um_fork fork, const struct um_tree *tree)
{
	struct um_root *root = fork == UM_FORK_DATA ? &inode->core.data : &inode->core.xattr;

	*root = tree->root;
	if (root->format == UM_ROOT_EMBED)
		memcpy(fork == UM_FORK_DATA ? inode->data : inode->xattr, tree->embed, root->len);
	else
		root->len = 0;
}

/* ---- attributes ---------------------------------------------------------------------------------------- */

static struct timespec time_out(const struct um_time *time)
{
	struct timespec out = {.tv_sec = (time_t)time->sec, .tv_nsec = time->nsec % 1000000000u};

	return out;
}

/* st_blocks is exact, with one deliberate exception: data inside the record counts as one sector,
 * since programs take a file without any for a hole (GNU tar --sparse). */
static uint64_t sectors_of(const struct um_inode_core *core)
{
	if (core->data.format == UM_ROOT_INLINE && S_ISREG(core->mode))
		return (core->data.len + 511) / 512;
	return core->blocks * (UM_BLOCK_SIZE / 512);
}

void um_inode_attr(const struct um_inode *inode, struct umbra_attr *out)
{
	const struct um_inode_core *core = &inode->core;

	memset(out, 0, sizeof(*out));
	out->st.st_ino = inode->ino;
	out->st.st_mode = core->mode;
	out->st.st_nlink = core->nlink;
	out->st.st_uid = core->uid;
	out->st.st_gid = core->gid;
	out->st.st_rdev = core->rdev;
	/* A directory's size in bytes is an estimate from the number of its entries, never 0. */
	out->st.st_size = S_ISDIR(core->mode) ? (off_t)(64 + (core->size & 0xffffffffffff) * 32)
					      : (off_t)core->size;
	out->st.st_blksize = UM_BLOCK_SIZE;
	out->st.st_blocks = (blkcnt_t)sectors_of(core);
	out->st.st_atim = time_out(&core->atime);
	out->st.st_mtim = time_out(&core->mtime);
	out->st.st_ctim = time_out(&core->ctime);
	out->btime = time_out(&core->btime);
	out->generation = core->generation;
	out->flags = core->flags;
}

void um_inode_touch(struct um_inode *inode, unsigned what)
{
	struct um_time now = {0};
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	now.sec = (um_le64_t)ts.tv_sec;
	now.nsec = (um_le32_t)ts.tv_nsec;
	if (what & UM_TOUCH_A)
		inode->core.atime = now;
	if (what & UM_TOUCH_M) {
		inode->core.mtime = now;
		inode->core.change++;
	}
	if (what & UM_TOUCH_C)
		inode->core.ctime = now;
}

int um_inode_killpriv(struct um_txn *txn, struct um_inode *inode)
{
	mode_t mode = inode->core.mode, drop = S_ISUID;
	int ret, changed = 0;

	if (S_ISDIR(mode))
		return 0;
	if (mode & S_IXGRP)
		drop |= S_ISGID;
	if (mode & drop) {
		inode->core.mode = mode & ~drop;
		changed = 1;
	}
	if (inode->core.xattr.format == UM_ROOT_EMPTY)
		return changed;
	ret = um_xattr_remove(txn, inode, "security.capability");
	if (ret && ret != -ENODATA)
		return ret;
	return changed;
}
