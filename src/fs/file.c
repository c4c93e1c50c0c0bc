/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening and releasing, and the access time updates that go with it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <time.h>

#include "fs/fs.h"

#define DAY_SEC 86400

static int check_open(const struct um_inode *inode, int flags)
{
	uint32_t iflags = inode->core.flags;
	bool changes = um_open_writes(flags) || flags & O_TRUNC;

	if (!changes || !S_ISREG(inode->core.mode))
		return 0;
	if (iflags & FS_IMMUTABLE_FL)
		return -EPERM;
	if (iflags & FS_APPEND_FL && (flags & O_TRUNC || !(flags & O_APPEND)))
		return -EPERM;
	return 0;
}

static bool earlier(const struct um_time *a, const struct um_time *b)
{
	if ((int64_t)a->sec != (int64_t)b->sec)
		return (int64_t)a->sec < (int64_t)b->sec;
	return a->nsec < b->nsec;
}

/* As the kernel's relatime_need_update(): not later than the last change, or a day old. */
static bool atime_stale(const struct umbra_fs *fs, const struct um_inode *inode)
{
	const struct um_inode_core *core = &inode->core;

	if (fs->readonly || fs->opt.atime == UMBRA_NOATIME || core->flags & FS_NOATIME_FL)
		return false;
	if (fs->opt.atime == UMBRA_STRICTATIME)
		return true;
	return !earlier(&core->mtime, &core->atime) || !earlier(&core->ctime, &core->atime) ||
	       time(NULL) - (int64_t)core->atime.sec >= DAY_SEC;
}

static void set_atime(struct umbra_fs *fs, um_ino_t ino)
{
	struct um_inode inode;
	struct um_txn *txn;
	int ret;

	if (um_fs_begin(fs, 0, &txn))
		return;
	ret = um_inode_load(um_txn_src(txn), ino, &inode);
	if (!ret) {
		um_inode_touch(&inode, UM_TOUCH_A);
		ret = um_inode_store(txn, &inode);
	}
	um_txn_end(txn, ret); /* a read does not fail because its time cannot be stored */
}

void um_atime_update(struct umbra_fs *fs, um_ino_t ino)
{
	struct um_inode inode;

	if (fs->readonly || fs->opt.atime == UMBRA_NOATIME)
		return;
	if (!um_inode_read(fs, ino, &inode) && atime_stale(fs, &inode))
		set_atime(fs, ino);
}

int umbra_file_open(struct umbra_fs *fs, uint64_t ino, int flags, bool killpriv)
{
	struct um_inode inode;
	int ret = um_fs_alive(fs);

	if (ret)
		return ret;
	if (um_open_writes(flags) || flags & O_TRUNC)
		ret = fs->readonly ? -EROFS : um_log_stopped(fs->log);
	if (ret)
		return ret;
	um_log_read_lock(fs->log);
	ret = um_inode_load(um_fs_src(fs), ino, &inode);
	if (!ret)
		ret = check_open(&inode, flags);
	if (!ret)
		ret = um_mem_opened(fs, &inode, flags);
	um_log_read_unlock(fs->log);
	if (ret)
		return ret;
	if (flags & O_TRUNC && S_ISREG(inode.core.mode)) {
		ret = um_data_resize(fs, ino, 0, killpriv);
		if (ret)
			umbra_file_release(fs, ino, flags);
		return ret;
	}
	if ((flags & O_ACCMODE) != O_WRONLY && !(flags & O_NOATIME) && atime_stale(fs, &inode))
		set_atime(fs, ino);
	return 0;
}

void umbra_file_release(struct umbra_fs *fs, uint64_t ino, int flags)
{
	um_mem_closed(fs, ino, flags);
}
