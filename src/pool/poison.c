/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tests only (-Dpoison=true): makes a block of a pool in use fail, or changes one of its bits. Failing is the real
 * thing, as far as this process goes: UFFDIO_POISON (Linux 6.6) on a mapping of a file on tmpfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pool/pool.h"

#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#define UFFD_FEATURE_POISON (1 << 14)
#endif

#define TRIES 1000

static int uffd = -1; /* stays open: with it goes what is registered */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int open_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_POISON};
	int fd;

	if (uffd >= 0)
		return 0;
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -EOPNOTSUPP;
	}
	uffd = fd;
	return 0;
}

/* Somebody may load from the page, and so map it, between the two calls. */
static int poison_page(uintptr_t at)
{
	struct uffdio_register reg = {
		.range = {at, UM_BLOCK_SIZE}, .mode = UFFDIO_REGISTER_MODE_MISSING};

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	for (int i = 0; i < TRIES; i++) {
		struct uffdio_poison poison = {.range = {at, UM_BLOCK_SIZE}};

		if (madvise((void *)at, UM_BLOCK_SIZE, MADV_DONTNEED))
			return -errno;
		if (!ioctl(uffd, UFFDIO_POISON, &poison))
			return 0;
		if (errno != EEXIST && errno != EAGAIN)
			return -errno;
	}
	return -EBUSY;
}

int um_pool_poison(struct um_pool *pool, um_lba_t lba, int bit)
{
	uint8_t *at = pool->base + (lba << UM_BLOCK_SHIFT);
	int ret;

	if (lba >= pool->nblocks || bit >= (int)UM_BLOCK_SIZE * 8)
		return -EINVAL;
	if (bit >= 0) {
		__atomic_fetch_xor(at + bit / 8, (uint8_t)(1u << bit % 8), __ATOMIC_RELAXED);
		um_pool_mark(pool, lba, 1, false);
		return um_guard_check();
	}
	pthread_mutex_lock(&lock);
	ret = open_uffd();
	if (!ret)
		ret = poison_page((uintptr_t)at);
	pthread_mutex_unlock(&lock);
	return ret;
}
