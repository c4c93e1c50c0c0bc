/* SPDX-License-Identifier: BSD-3-Clause */
/* Changing the attributes shown by stat(2), and inode flags. */
#include <errno.h>
#include <linux/fs.h>

#include "fs/fs.h"

#define FLAGS_SETTABLE                                                                             \
	(FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NOATIME_FL | FS_NODUMP_FL | FS_SYNC_FL | FS_DIRSYNC_FL)
#define SET_OWNER (UMBRA_SET_UID | UMBRA_SET_GID)
#define SET_NOW (UMBRA_SET_ATIME_NOW | UMBRA_SET_MTIME_NOW)
#define SET_TIMES (UMBRA_SET_ATIME | UMBRA_SET_MTIME)

/* Are both times set to now? With writeback the owner of the times gives the present one as the
 * change time. */
static bool is_touch(const struct umbra_attr *attr, unsigned mask)
{
	const struct timespec *m = &attr->st.st_mtim, *c = &attr->st.st_ctim;

	if ((mask & SET_NOW) == SET_NOW)
		return true;
	return mask & UMBRA_SET_ATIME_NOW && mask & UMBRA_SET_MTIME && mask & UMBRA_SET_CTIME &&
	       m->tv_sec == c->tv_sec && m->tv_nsec == c->tv_nsec;
}

/* As notify_change(): an append-only file may still be touched. (For such a time FUSE sets both the
 * "set" and the "now" flag.) */
static int check_flags(const struct um_inode *inode, const struct umbra_attr *attr, unsigned mask)
{
	uint32_t flags = inode->core.flags;

	if (mask & UMBRA_SET_OWED && !(mask & ~(SET_TIMES | UMBRA_SET_CTIME | UMBRA_SET_OWED)))
		return 0;
	if (flags & FS_IMMUTABLE_FL && mask & ~UMBRA_SET_CTIME)
		return -EPERM;
	if (flags & FS_APPEND_FL && mask & (UMBRA_SET_MODE | SET_OWNER | UMBRA_SET_SIZE))
		return -EPERM;
	if (flags & FS_APPEND_FL && mask & (SET_TIMES | SET_NOW) && !is_touch(attr, mask))
		return -EPERM;
	return 0;
}

static int time_in(const struct timespec *ts, struct um_time *out)
{
	if (ts->tv_nsec < 0 || ts->tv_nsec > 999999999)
		return -EINVAL;
	*out = (struct um_time){.sec = (um_le64_t)ts->tv_sec, .nsec = (um_le32_t)ts->tv_nsec};
	return 0;
}

static int set_times(struct um_inode *inode, const struct umbra_attr *attr, unsigned mask)
{
	struct um_inode_core *core = &inode->core;
	int ret = 0;

	um_inode_touch(inode, UM_TOUCH_C);
	if (mask & UMBRA_SET_ATIME_NOW)
		core->atime = core->ctime;
	else if (mask & UMBRA_SET_ATIME)
		ret = time_in(&attr->st.st_atim, &core->atime);
	if (mask & UMBRA_SET_MTIME_NOW)
		core->mtime = core->ctime;
	else if (!ret && mask & UMBRA_SET_MTIME)
		ret = time_in(&attr->st.st_mtim, &core->mtime);
	if (!ret && mask & UMBRA_SET_CTIME)
		ret = time_in(&attr->st.st_ctim, &core->ctime);
	return ret;
}

static int apply(
	struct um_txn *txn, struct um_inode *inode, const struct umbra_attr *attr, unsigned mask)
{
	struct um_inode_core *core = &inode->core;
	int ret = 0;

	if (mask & UMBRA_SET_UID)
		core->uid = attr->st.st_uid;
	if (mask & UMBRA_SET_GID)
		core->gid = attr->st.st_gid;
	if (mask & UMBRA_SET_KILLPRIV)
		ret = um_inode_killpriv(txn, inode);
	if (ret >= 0 && mask & UMBRA_SET_MODE) {
		core->mode = (core->mode & S_IFMT) | (attr->st.st_mode & 07777);
		ret = um_acl_chmod(txn, inode);
	}
	return ret < 0 ? ret : set_times(inode, attr, mask);
}

static int set_size(struct umbra_fs *fs, uint64_t ino, const struct umbra_attr *attr, unsigned mask)
{
	struct um_inode inode;
	int ret = um_inode_read(fs, ino, &inode);

	if (ret)
		return ret;
	if (!S_ISREG(inode.core.mode))
		return S_ISDIR(inode.core.mode) ? -EISDIR : -EINVAL;
	if (attr->st.st_size < 0)
		return -EINVAL;
	ret = check_flags(&inode, attr, mask);
	if (ret)
		return ret;
	return um_data_resize(fs, ino, (uint64_t)attr->st.st_size, mask & UMBRA_SET_KILLPRIV);
}

int umbra_setattr(struct umbra_fs *fs, uint64_t ino, const struct umbra_attr *attr, unsigned mask,
	struct umbra_attr *out)
{
	struct um_inode inode;
	struct um_txn *txn;
	int ret = um_fs_alive(fs);

	if (!ret && fs->readonly)
		ret = -EROFS;
	if (!ret && mask & UMBRA_SET_SIZE) {
		ret = set_size(fs, ino, attr, mask);
		mask &= ~(UMBRA_SET_SIZE | (mask & SET_OWNER ? 0 : UMBRA_SET_KILLPRIV));
	}
	if (ret)
		return ret;
	if (!mask) {
		ret = out ? umbra_getattr(fs, ino, out) : 0;
		return ret;
	}
	ret = um_fs_begin(fs, 0, &txn);
	if (ret)
		return ret;
	ret = um_inode_load(um_txn_src(txn), ino, &inode);
	if (!ret)
		ret = check_flags(&inode, attr, mask);
	if (!ret)
		ret = apply(txn, &inode, attr, mask);
	if (!ret)
		ret = um_inode_store(txn, &inode);
	ret = um_txn_end(txn, ret);
	if (!ret && out)
		um_inode_attr(&inode, out);
	return ret;
}

static int check_settable(const struct um_inode *inode, uint32_t flags)
{
	mode_t mode = inode->core.mode;

	if (!S_ISREG(mode) && !S_ISDIR(mode))
		return -EOPNOTSUPP;
	return flags & FS_DIRSYNC_FL && !S_ISDIR(mode) ? -EOPNOTSUPP : 0;
}

int umbra_set_flags(struct umbra_fs *fs, uint64_t ino, uint32_t flags)
{
	struct um_inode inode;
	struct um_txn *txn;
	int ret;

	if (flags & ~FLAGS_SETTABLE)
		return -EOPNOTSUPP;
	ret = um_fs_begin(fs, 0, &txn);
	if (ret)
		return ret;
	ret = um_inode_load(um_txn_src(txn), ino, &inode);
	if (!ret)
		ret = check_settable(&inode, flags);
	if (!ret && inode.core.flags != flags) {
		inode.core.flags = flags;
		um_inode_touch(&inode, UM_TOUCH_C);
		ret = um_inode_store(txn, &inode);
	}
	return um_txn_end(txn, ret);
}
