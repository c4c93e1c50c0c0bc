/* SPDX-License-Identifier: BSD-3-Clause */
/* Making a file durable, waiting for it or not. */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>

#include "fs/fs.h"

/* A direct pool has nothing to wait for; a plain file's commits cover all files at once. */
int umbra_fsync(struct umbra_fs *fs, uint64_t ino, bool datasync)
{
	int stopped = atomic_load(&fs->stopped);

	(void)ino;
	(void)datasync;
	if (stopped)
		return stopped < 0 ? stopped : -stopped;
	return um_log_sync(fs->log);
}

bool umbra_wants_sync(struct umbra_fs *fs, uint64_t ino)
{
	struct um_inode inode;

	return !fs->pool->direct && !um_inode_read(fs, ino, &inode) &&
	       inode.core.flags & (FS_SYNC_FL | FS_DIRSYNC_FL);
}

struct waiter {
	struct um_synced synced;
	umbra_synced_fn *fn;
	void *arg;
};

static void on_synced(struct um_synced *synced, int err)
{
	struct waiter *w = (struct waiter *)synced; /* its first member */

	w->fn(w->arg, err);
	free(w);
}

void umbra_fsync_start(struct umbra_fs *fs, uint64_t ino, bool datasync, bool may_wait,
	umbra_synced_fn *fn, void *arg)
{
	int stopped = atomic_load(&fs->stopped);
	struct waiter *w = fs->pool->direct || stopped ? NULL : malloc(sizeof(*w));

	if (!w) {
		fn(arg, umbra_fsync(fs, ino, datasync));
		return;
	}
	*w = (struct waiter){.synced.done = on_synced, .fn = fn, .arg = arg};
	um_log_sync_start(fs->log, may_wait, &w->synced);
}
