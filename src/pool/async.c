/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Served indirect pools: their data is read past the mapping, so that no thread waits in a page
 * fault, and the page cache of the file or device below keeps no second copy of what the page cache
 * of the FUSE mount has.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "pool/aio.h"
#include "pool/backend.h"
#include "pool/log.h"

#define CACHED_MAX (64u << 10) /* bytes; more takes longer to copy than to read again */

/* Files in memory: their pages are the medium, so there is no second copy. */
static bool in_memory(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Can one of our blocks be the unit of direct I/O? Not on filesystems with larger blocks. */
static bool direct_fits(int fd)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) || !(st.stx_mask & STATX_DIOALIGN))
		return true; /* not reported (Linux 6.1): the first read shows */
	return st.stx_dio_offset_align && st.stx_dio_offset_align <= UM_BLOCK_SIZE &&
	       st.stx_dio_mem_align <= UM_BLOCK_SIZE;
}

static int open_again(const struct um_pool *pool, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", pool->fd);
	return open(path, O_RDONLY | O_CLOEXEC | flags);
}

/* Tries one direct read: a filesystem may accept the flag and refuse the reads. */
static bool direct_works(int fd)
{
	static _Alignas(UM_BLOCK_SIZE) char block[UM_BLOCK_SIZE];

	return pread(fd, block, sizeof(block), 0) == (ssize_t)sizeof(block);
}

int um_pool_async(struct um_pool *pool, uint64_t poll_ns)
{
	int err;

	if (pool->ops != &um_ops_file || pool->aio)
		return -EOPNOTSUPP;
	err = um_aio_open(pool->path, &pool->aio);
	if (err)
		return err;
	if (pool->kind == UMBRA_POOL_FILE && in_memory(pool->fd))
		return 0;
	um_aio_poll(pool->aio, poll_ns);
	pool->read_fd = direct_fits(pool->fd) ? open_again(pool, O_DIRECT) : -1;
	pool->read_direct = pool->read_fd >= 0 && direct_works(pool->read_fd);
	if (!pool->read_direct) {
		if (pool->read_fd >= 0)
			close(pool->read_fd);
		pool->read_fd = open_again(pool, 0);
		um_info("%s: no direct I/O here: data goes through the page cache", pool->path);
	}
	return um_behind_open(pool);
}

void um_pool_async_end(struct um_pool *pool)
{
	um_aio_close(pool->aio);
	pool->aio = NULL;
	um_behind_close(pool);
	if (pool->read_fd >= 0)
		close(pool->read_fd);
	pool->read_fd = -1;
}

/* What was written a moment ago is in the page cache of the file still. A direct read would make the
 * kernel write it first, and wait for that. */
static bool read_cached(const struct um_pool *pool, struct um_aio *io)
{
	const struct iovec iov = {io->buf, io->len};

	return io->len <= CACHED_MAX && um_behind_recent(pool, io->off) &&
	       preadv2(pool->fd, &iov, 1, (off_t)io->off, RWF_NOWAIT) == (ssize_t)io->len;
}

/* Returns the rest of the list. */
static struct um_aio *read_all_cached(const struct um_pool *pool, struct um_aio *list)
{
	struct um_aio *rest = NULL, **last = &rest, *next;

	for (; list; list = next) {
		next = list->next;
		if (read_cached(pool, list)) {
			list->err = 0;
			list->done(list);
			continue;
		}
		list->next = NULL;
		*last = list;
		last = &list->next;
	}
	return rest;
}

void um_pool_read_async(struct um_pool *pool, struct um_aio *list, bool here, bool alone)
{
	struct um_aio *io;

	list = read_all_cached(pool, list);
	if (!list)
		return;
	for (io = list; io; io = io->next) {
		io->op = UM_AIO_READ;
		io->fd = pool->read_fd;
		io->align = pool->read_direct ? UM_BLOCK_SIZE : 0;
	}
	if (here && !list->next)
		um_aio_here(pool->aio, list, alone);
	else
		um_aio_submit(pool->aio, list);
}
