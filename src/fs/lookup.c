/* SPDX-License-Identifier: BSD-3-Clause */
/* Looking up and holding inodes: readers only, no transaction. */
#include <errno.h>

#include "fs/name.h"

/* Under the read lock: what name in dir leads to. */
static int walk_one(
	struct um_src src, const struct um_inode *dir, const char *name, struct um_inode *out)
{
	struct um_dent dent;
	size_t len;
	int ret = um_name_check(name, &len);

	if (ret)
		return ret;
	if (um_name_is_dots(name)) {
		if (name[1])
			return um_inode_load(src, dir->core.parent, out);
		*out = *dir;
		return 0;
	}
	ret = um_dir_find(src, dir, name, len, &dent);
	return ret ? ret : um_name_load_child(src, dir, &dent, out);
}

int umbra_lookup(struct umbra_fs *fs, uint64_t parent, const char *name, struct umbra_attr *out)
{
	struct um_src src = um_fs_src(fs);
	struct um_inode dir, inode;
	int ret = um_fs_alive(fs);

	if (ret)
		return ret;
	um_log_read_lock(fs->log);
	ret = um_inode_load(src, parent, &dir);
	if (!ret && !S_ISDIR(dir.core.mode))
		ret = -ENOTDIR;
	if (!ret)
		ret = walk_one(src, &dir, name, &inode);
	if (!ret)
		ret = um_mem_ref(fs, &inode);
	um_log_read_unlock(fs->log);
	if (!ret && out)
		um_inode_attr(&inode, out);
	return ret;
}

int umbra_ref(struct umbra_fs *fs, uint64_t ino)
{
	struct um_inode inode;
	int ret = um_fs_alive(fs);

	if (ret)
		return ret;
	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, &inode);
	if (!ret)
		ret = um_mem_ref(fs, &inode);
	um_log_read_unlock(fs->log);
	return ret;
}

void umbra_forget(struct umbra_fs *fs, uint64_t ino, uint64_t n)
{
	um_mem_unref(fs, ino, n);
}

int umbra_getattr(struct umbra_fs *fs, uint64_t ino, struct umbra_attr *out)
{
	struct um_inode inode;
	int ret = um_fs_alive(fs);

	if (!ret)
		ret = um_inode_read(fs, ino, &inode);
	if (!ret)
		um_inode_attr(&inode, out);
	return ret;
}
