/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing a pool in use. Pointers into the mapping are held everywhere, so it cannot move: at open,
 * address space is reserved that the mapping does not fill yet. This costs only address space.
 * Where there is none (RLIMIT_AS, a sanitizer's shadow) a mount works without it, and has to end
 * before the pool can grow.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/aligned.h"
#include "pool/backend.h"
#include "pool/log.h"

#define ROOM_MIN (4ull << 40) /* of the 128 TiB that a process has */
#define ROOM_TIMES 4u         /* times the present size, if that is more */
#define HUGE_ALIGN (1ull << 30)

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

static int room_take(struct um_pool *pool)
{
	uint64_t len = round_up(pool->map_len, UM_BLOCK_SIZE);
	uint64_t align = len >= HUGE_ALIGN ? HUGE_ALIGN : UM_CHUNK_SIZE;
	uint64_t room = len > ROOM_MIN / ROOM_TIMES ? ROOM_TIMES * len : ROOM_MIN;

	pool->base = NULL;
	for (; !pool->base && room > len; room /= 2)
		pool->base = um_map_aligned(
			pool->room = round_up(room, UM_BLOCK_SIZE), align, PROT_NONE);
	if (!pool->base)
		pool->base = um_map_aligned(pool->room = len, align, PROT_NONE);
	return pool->base ? 0 : -ENOMEM;
}

void um_room_give(struct um_pool *pool)
{
	munmap(pool->base, pool->room);
	pool->base = NULL;
}

int um_room_map(struct um_pool *pool)
{
	int ret = room_take(pool);

	if (!ret)
		ret = pool->ops->map_part(pool, 0, pool->map_len);
	if (ret && pool->base)
		um_room_give(pool);
	return ret;
}

/* ---- the medium ------------------------------------------------------------------------------------ */

int um_pool_medium(const struct um_pool *pool, uint64_t *out_size)
{
	struct stat st;

	*out_size = pool->map_len;
	if (pool->fd < 0 || pool->kind == UMBRA_POOL_DEVDAX)
		return 0;
	if (pool->kind == UMBRA_POOL_BLOCK)
		return ioctl(pool->fd, BLKGETSIZE64, out_size) ? -errno : 0;
	if (fstat(pool->fd, &st))
		return -errno;
	*out_size = (uint64_t)st.st_size;
	return 0;
}

/* Extends the file, allocating the space unless it is to be sparse; on errors it is as before. */
static int lengthen(struct um_pool *pool, uint64_t have, uint64_t size, bool sparse)
{
	int ret = 0;

	if (sparse && pool->kind != UMBRA_POOL_FSDAX)
		return ftruncate(pool->fd, (off_t)size) ? -errno : 0;
	if (!fallocate(pool->fd, 0, (off_t)have, (off_t)(size - have)))
		return 0;
	ret = -errno;
	if (ret == -EOPNOTSUPP) {
		um_warn("%s: the filesystem below cannot allocate ahead: the new part is sparse",
			pool->path);
		return ftruncate(pool->fd, (off_t)size) ? -errno : 0;
	}
	/* Release what was allocated before space ran out. */
	if (ftruncate(pool->fd, (off_t)have))
		um_warn("%s: stays longer than the pool: %s", pool->path, strerror(errno));
	return ret;
}

static int extend_medium(struct um_pool *pool, uint64_t size, bool sparse)
{
	uint64_t have;
	int ret = um_pool_medium(pool, &have);

	if (ret || have >= size)
		return ret;
	if (pool->kind != UMBRA_POOL_FILE && pool->kind != UMBRA_POOL_FSDAX)
		return -ENOSPC;
	ret = lengthen(pool, have, size, sparse);
	if (ret)
		return ret;
	/* The superblock must not claim more than the file has if a power cut undoes its new
	 * length. What the kernel has to tell of earlier writes concerns the next commit. */
	if (!pool->direct)
		return um_pool_barrier(pool);
	return fsync(pool->fd) ? -errno : 0;
}

/* What can be known before the medium is touched. */
static int may_map(const struct um_pool *pool, uint64_t size)
{
	if (size <= pool->map_len)
		return 0;
	if (!pool->ops->map_part)
		return -EOPNOTSUPP;
	return size > pool->room ? -ENOMEM : 0;
}

static int map_more(struct um_pool *pool, uint64_t size)
{
	int ret = um_pool_extend_marks(pool, size);

	if (!ret)
		ret = pool->ops->map_part(pool, pool->map_len, size);
	if (ret)
		return ret;
	pool->map_len = size;
	um_guard_extend(pool);
	return 0;
}

int um_pool_extend(struct um_pool *pool, uint64_t size, bool sparse)
{
	int ret = may_map(pool, size);

	if (!ret)
		ret = extend_medium(pool, size, sparse);
	if (!ret && size > pool->map_len)
		ret = map_more(pool, size);
	if (ret)
		return ret;
	/* Includes the old tail of a file that was longer than its pool. */
	um_host_lacks(pool, pool->size, size);
	return pool->kind == UMBRA_POOL_FSDAX ? um_host_fill(pool, pool->size, size) : 0;
}

void um_pool_publish(struct um_pool *pool)
{
	struct um_super *mine = &pool->super, *super = pool->next;
	uint32_t n = mine->nseams;

	/* See seams_of(): geometry is read without a lock. */
	if (super->nseams > n)
		mine->seam[n] = super->seam[n];
	__atomic_store_n(&mine->nseams, super->nseams, __ATOMIC_RELEASE);
	__atomic_store_n(&mine->incompat, super->incompat, __ATOMIC_RELAXED);
	__atomic_store_n(&mine->nchunks, super->nchunks, __ATOMIC_RELEASE);
	mine->hdr.csum = super->hdr.csum;
	um_pool_set_size(pool, super->nchunks * UM_CHUNK_SIZE);
	pool->next = NULL;
	free(super);
}
