/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tests only (-Dpoison=true): makes a block of a pool in use fail, or flips one of its bits. For
 * this process the failure is real: a page of memory with UFFDIO_POISON (Linux 6.6) atomically
 * replaces the block's page in the mapping. Concurrent loads get the block's bytes, or the failure.
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

static int uffd = -1;
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

static int poison_page(void *at)
{
	void *page = mmap(
		NULL, UM_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_range range = {(uintptr_t)page, UM_BLOCK_SIZE};
	struct uffdio_register reg = {.range = range, .mode = UFFDIO_REGISTER_MODE_MISSING};
	struct uffdio_poison poison = {.range = range};
	int err = 0;

	if (page == MAP_FAILED)
		return -ENOMEM;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg) || ioctl(uffd, UFFDIO_POISON, &poison) ||
		mremap(page, UM_BLOCK_SIZE, UM_BLOCK_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, at) ==
			MAP_FAILED) {
		err = -errno;
		munmap(page, UM_BLOCK_SIZE);
	}
	return err;
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
		ret = poison_page(at);
	pthread_mutex_unlock(&lock);
	return ret;
}
