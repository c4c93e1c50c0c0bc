/* SPDX-License-Identifier: BSD-3-Clause */
/* The beginning of every operation on file data: is it permitted, and which locks does it need. */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "fs/data.h"

int um_data_may_change(const struct umbra_fs *fs)
{
	int stopped = atomic_load(&fs->stopped);

	if (stopped)
		return -abs(stopped);
	return fs->readonly ? -EROFS : um_log_stopped(fs->log);
}

int um_data_regular(const struct um_inode *inode)
{
	if (S_ISREG(inode->core.mode))
		return 0;
	return S_ISDIR(inode->core.mode) ? -EISDIR : -EINVAL;
}

int um_data_may_remap(const struct um_inode *inode)
{
	int err = um_data_regular(inode);

	if (err)
		return err;
	return inode->core.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL) ? -EPERM : 0;
}

int um_data_lock_two(
	struct umbra_fs *fs, um_ino_t a, um_ino_t b, struct um_mem **out_a, struct um_mem **out_b)
{
	int err = um_mem_get(fs, a, out_a);

	if (err)
		return err;
	err = um_mem_get(fs, b, out_b);
	if (err) {
		um_mem_put(fs, *out_a);
		return err;
	}
	pthread_rwlock_wrlock(a < b ? &(*out_a)->lock : &(*out_b)->lock);
	if (a != b)
		pthread_rwlock_wrlock(a < b ? &(*out_b)->lock : &(*out_a)->lock);
	return 0;
}

void um_data_unlock_two(struct umbra_fs *fs, struct um_mem *a, struct um_mem *b)
{
	if (a != b)
		pthread_rwlock_unlock(&b->lock);
	pthread_rwlock_unlock(&a->lock);
	um_mem_put(fs, b);
	um_mem_put(fs, a);
}

/* One iovec can represent a large part of a hole; the kernel backs all of it by its zero page. */
static const void *zeros;
static uint8_t zeros_fallback[UM_CHUNK_SIZE];

static void zeros_make(void)
{
	void *p = mmap(NULL, UM_CHUNK_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	zeros = p == MAP_FAILED ? zeros_fallback : p;
}

const void *um_data_zeros(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, zeros_make);
	return zeros;
}
