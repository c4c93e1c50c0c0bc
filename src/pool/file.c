/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Plain files and block devices. The mapping is private: metadata stores stay in this process until
 * a checkpoint writes their images home. Data and journal are written with pwrite(2), into the page
 * cache that the untouched pages of the mapping show, so loads see them at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/backend.h"
#include "pool/log.h"

#define ZERO_FALLOCATE_MIN (1u << 20) /* from this size on the filesystem below zeroes a range */

static int file_map_part(struct um_pool *pool, uint64_t from, uint64_t to)
{
	/* NORESERVE: private pages are bounded by the journal, not by the size of the pool. */
	void *map = mmap(pool->base + from, to - from, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, pool->fd, (off_t)from);

	return map == MAP_FAILED ? -errno : 0;
}

static int write_all(int fd, const void *src, size_t len, uint64_t off)
{
	const uint8_t *at = src;

	while (len) {
		ssize_t n = pwrite(fd, at, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		at += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_zeros(int fd, size_t len, uint64_t off)
{
	static const uint8_t zeros[64 << 10];
	int ret = 0;

	if (len >= ZERO_FALLOCATE_MIN &&
		!fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len))
		return 0;
	while (len && !ret) {
		size_t n = len < sizeof(zeros) ? len : sizeof(zeros);

		ret = write_all(fd, zeros, n, off);
		off += n;
		len -= n;
	}
	return ret;
}

static int file_write(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	return src ? write_all(pool->fd, src, len, off) : write_zeros(pool->fd, len, off);
}

static int file_apply(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	memcpy(pool->base + off, src, len);
	return 0;
}

static void file_drain(struct um_pool *pool)
{
	(void)pool; /* pwrite has passed it to the kernel */
}

static int file_barrier(struct um_pool *pool)
{
	while (fdatasync(pool->fd))
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int file_badblocks(struct um_pool *pool, um_bad_fn *fn, void *arg)
{
	struct stat st;
	int ret;

	if (pool->kind != UMBRA_POOL_BLOCK)
		return um_fsdax_badblocks(pool, fn, arg);
	if (!pool->badlist) {
		if (fstat(pool->fd, &st))
			return -errno;
		ret = um_badlist_disk(st.st_rdev, &pool->badlist);
		if (ret)
			return ret;
	}
	return um_badlist_each(pool->badlist, fn, arg);
}

static int file_writeback(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n)
{
	return write_all(
		pool->fd, images, (size_t)n << UM_BLOCK_SHIFT, (uint64_t)lba << UM_BLOCK_SHIFT);
}

static void file_giveback(struct um_pool *pool, um_lba_t lba, uint32_t n)
{
	/* Failure only costs memory: the private page has the same bytes as the file. */
	if (madvise(pool->base + (lba << UM_BLOCK_SHIFT), (size_t)n << UM_BLOCK_SHIFT,
		    MADV_DONTNEED))
		um_warn("%s: cannot give private pages back: %s", pool->path, strerror(errno));
}

/*
 * Devices remap an unreadable sector when it is written. By a descriptor of its own: an error of any
 * other write is told to each once, and is for the next barrier. Directly, where that is possible: then
 * an error of this write is nobody else's.
 */
static int file_rewrite(struct um_pool *pool, const void *content, uint64_t off)
{
	_Alignas(UM_BLOCK_SIZE) uint8_t copy[UM_BLOCK_SIZE];
	const int how = O_RDWR | O_DSYNC | O_CLOEXEC;
	char path[32];
	int fd, ret;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", pool->fd);
	memcpy(copy, content, sizeof(copy));
	fd = open(path, how | O_DIRECT);
	ret = fd < 0 ? -EINVAL : write_all(fd, copy, sizeof(copy), off);
	if (ret == -EINVAL) {
		if (fd >= 0)
			close(fd);
		fd = open(path, how);
		ret = fd < 0 ? -errno : write_all(fd, copy, sizeof(copy), off);
	}
	if (fd >= 0)
		close(fd);
	return ret;
}

static int file_heal(struct um_pool *pool, um_lba_t lba, const void *content)
{
	off_t off = (off_t)(lba << UM_BLOCK_SHIFT);

	if (file_rewrite(pool, content, (uint64_t)off) ||
		mmap(pool->base + off, UM_BLOCK_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, pool->fd, off) == MAP_FAILED)
		return -EIO;
	return 0;
}

const struct um_pool_ops um_ops_file = {
	.name = "file",
	.map = um_room_map,
	.unmap = um_room_give,
	.map_part = file_map_part,
	.punch = um_host_punch,
	.badblocks = file_badblocks,
	.write = file_write,
	.apply = file_apply,
	.drain = file_drain,
	.barrier = file_barrier,
	.writeback = file_writeback,
	.giveback = file_giveback,
	.heal = file_heal,
};
