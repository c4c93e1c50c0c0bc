/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files on a DAX filesystem: mapped by libpmem with MAP_SYNC, so that flushes from user space are
 * sufficient and the filesystem's own metadata is never behind ours. PMEM_IS_PMEM_FORCE=1 makes
 * libpmem treat a file on tmpfs in the same way: the emulation.
 */
#include <errno.h>
#include <fcntl.h>
#include <libpmem.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/backend.h"
#include "pool/log.h"
#include "pool/seeded.h"

int um_pmem_map(struct um_pool *pool)
{
	char name[32];
	size_t len = 0;
	int is_pmem = 0;
	void *map;

	/* By descriptor, so that what is mapped is what was locked; by name if /proc is missing. */
	snprintf(name, sizeof(name), "/proc/self/fd/%d", pool->fd);
	map = pmem_map_file(access(name, F_OK) ? pool->path : name, 0, 0, 0, &len, &is_pmem);
	if (!map)
		return errno ? -errno : -EIO;
	if (!is_pmem || len < pool->map_len) {
		pmem_unmap(map, len);
		return is_pmem ? -ENODATA : -EOPNOTSUPP;
	}
	/* All of it is mapped; only map_len bytes are used, and all are unmapped together. */
	pool->base = map;
	pool->priv = (void *)len;
	return 0;
}

void um_pmem_unmap(struct um_pool *pool)
{
	pmem_unmap(pool->base, (size_t)pool->priv);
}

/* An aligned word is stored at once, which libpmem's memcpy does not promise. Everything else: data
 * and records are not read back soon, so bypass the cache. */
int um_pmem_write(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	if (len == sizeof(uint64_t) && !(off & 7) && src) {
		volatile uint64_t *word = (volatile uint64_t *)(pool->base + off);

		*word = *(const uint64_t *)src;
		if (!um_seeded_bug(8))
			pmem_flush(pool->base + off, len);
	} else if (src && um_seeded_bug(7)) {
		pmem_memcpy(pool->base + off, src, len, PMEM_F_MEM_NOFLUSH | PMEM_F_MEM_TEMPORAL);
	} else if (src) {
		pmem_memcpy(
			pool->base + off, src, len, PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NONTEMPORAL);
	} else {
		pmem_memset(pool->base + off, 0, len, PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NONTEMPORAL);
	}
	return 0;
}

/* Metadata is read again soon: store through the cache, then flush. */
int um_pmem_apply(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	unsigned flush = um_seeded_bug(9) ? PMEM_F_MEM_NOFLUSH : PMEM_F_MEM_NODRAIN;

	pmem_memcpy(pool->base + off, src, len, flush | PMEM_F_MEM_TEMPORAL);
	return 0;
}

void um_pmem_drain(struct um_pool *pool)
{
	(void)pool;
	pmem_drain();
}

struct layout {
	struct um_pool *pool;
	uint64_t end; /* of the last extent */
	bool shared;
};

static int look_at_extent(void *arg, const struct fiemap_extent *extent)
{
	struct layout *layout = arg;

	um_host_lacks(layout->pool, layout->end, extent->fe_logical);
	layout->shared |= !!(extent->fe_flags & FIEMAP_EXTENT_SHARED);
	layout->end = extent->fe_logical + extent->fe_length;
	return 0;
}

static int unshare_file(struct um_pool *pool)
{
	int ret = 0;

	if (fallocate(pool->fd, FALLOC_FL_UNSHARE_RANGE, 0, (off_t)pool->map_len) &&
		errno != EOPNOTSUPP)
		ret = -errno;
	if (ret)
		um_err("%s: shares blocks with another file of the filesystem below, which has no "
		       "space to part them: %s",
			pool->path, strerror(-ret));
	return ret;
}

int um_fsdax_own_space(struct um_pool *pool)
{
	struct layout layout = {.pool = pool};
	int ret = um_file_extents(pool->fd, pool->map_len, look_at_extent, &layout);

	if (ret == -ENOMEM)
		return ret;
	/* A filesystem that does not report where its files lie: there may be holes everywhere. */
	um_host_lacks(pool, ret ? 0 : layout.end, pool->map_len);
	return layout.shared ? unshare_file(pool) : 0;
}

int um_fsdax_badblocks(struct um_pool *pool, um_bad_fn *fn, void *arg)
{
	struct stat st;
	int ret;

	if (!pool->badlist) {
		if (fstat(pool->fd, &st))
			return -errno;
		ret = um_badlist_disk(st.st_dev, &pool->badlist);
		if (ret)
			return ret;
	}
	return um_badlist_file(pool->badlist, pool->fd, pool->map_len, fn, arg);
}

bool um_fsdax_detect(int fd)
{
	/* MAP_SYNC is granted by DAX mappings only. */
	void *map = mmap(NULL, UM_BLOCK_SIZE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
	bool is_pmem;

	if (map != MAP_FAILED) {
		munmap(map, UM_BLOCK_SIZE);
		return true;
	}
	map = mmap(NULL, UM_BLOCK_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return false;
	is_pmem = pmem_is_pmem(map, UM_BLOCK_SIZE); /* PMEM_IS_PMEM_FORCE */
	munmap(map, UM_BLOCK_SIZE);
	return is_pmem;
}

/* Through the filesystem, which clears the device's record of the place or moves the block; then
 * mapped anew, as the guard may have put a page of zeros there. */
static int fsdax_heal(struct um_pool *pool, um_lba_t lba, const void *content)
{
	off_t off = (off_t)(lba << UM_BLOCK_SHIFT);
	uint8_t *at = pool->base + off;
	int prot = PROT_READ | PROT_WRITE;

	if (pwrite(pool->fd, content, UM_BLOCK_SIZE, off) != UM_BLOCK_SIZE || fdatasync(pool->fd))
		return -EIO;
	if (mmap(at, UM_BLOCK_SIZE, prot, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, pool->fd,
		    off) == MAP_FAILED &&
		mmap(at, UM_BLOCK_SIZE, prot, MAP_SHARED | MAP_FIXED, pool->fd, off) == MAP_FAILED)
		return -EIO;
	return 0;
}

/* With MAP_SYNC; without, if libpmem considers the memory persistent all the same: the
 * emulation. */
static int fsdax_map_part(struct um_pool *pool, uint64_t from, uint64_t to)
{
	uint8_t *at = pool->base + from;
	int prot = PROT_READ | PROT_WRITE;

	if (mmap(at, to - from, prot, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, pool->fd,
		    (off_t)from) != MAP_FAILED)
		return 0;
	if (mmap(at, to - from, prot, MAP_SHARED | MAP_FIXED, pool->fd, (off_t)from) == MAP_FAILED)
		return -errno;
	return pmem_is_pmem(at, to - from) ? 0 : -EOPNOTSUPP;
}

const struct um_pool_ops um_ops_fsdax = {
	.name = "fsdax",
	.map = um_room_map,
	.unmap = um_room_give,
	.map_part = fsdax_map_part,
	.punch = um_host_punch,
	.badblocks = um_fsdax_badblocks,
	.write = um_pmem_write,
	.apply = um_pmem_apply,
	.drain = um_pmem_drain,
	.barrier = um_barrier_none,
	.heal = fsdax_heal,
};
