/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool in use: stores, bitmaps of verified and lost blocks, life cycle of struct um_pool. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pool/backend.h"
#include "pool/log.h"
#include "pool/rests.h"

/* ---- bitmaps: one bit a block, zero pages until used ------------------------------------------- */

/* Whole pages, since each bitmap is made accessible separately. */
static size_t bitmap_bytes(uint64_t bytes)
{
	size_t len = ((size_t)(bytes / UM_BLOCK_SIZE + 63) / 64 + 1) * sizeof(uint64_t);

	return (len + UM_BLOCK_SIZE - 1) & ~(size_t)(UM_BLOCK_SIZE - 1);
}

int um_pool_extend_marks(struct um_pool *pool, uint64_t len)
{
	if (mprotect((void *)pool->verified, bitmap_bytes(len), PROT_READ | PROT_WRITE) ||
		mprotect((void *)pool->lost, bitmap_bytes(len), PROT_READ | PROT_WRITE))
		return -ENOMEM;
	return 0;
}

int um_pool_alloc_verified(struct um_pool *pool)
{
	void *map;

	if (pool->room < pool->map_len)
		pool->room = pool->map_len;
	/* For everything that may ever be mapped: the bitmaps do not move when the pool grows. */
	map = mmap(NULL, 2 * bitmap_bytes(pool->room), PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	pool->verified = map;
	pool->lost = (void *)((uint8_t *)map + bitmap_bytes(pool->room));
	/* For everything that is mapped, so that a pool can be read before its size is known. */
	return um_pool_extend_marks(pool, pool->map_len);
}

void um_pool_mark(struct um_pool *pool, um_lba_t lba, uint64_t n, bool verified)
{
	while (n) {
		_Atomic(uint64_t) *word = &pool->verified[lba / 64];
		unsigned bit = lba % 64, len = n < 64 - bit ? (unsigned)n : 64 - bit;
		uint64_t mask = (len == 64 ? ~0ull : (1ull << len) - 1) << bit;
		uint64_t now = atomic_load_explicit(word, memory_order_relaxed);

		/* Data passes here too: no locked instruction if nothing changes. */
		if (verified && (now & mask) != mask)
			atomic_fetch_or_explicit(word, mask, memory_order_release);
		else if (!verified && (now & mask))
			atomic_fetch_and_explicit(word, ~mask, memory_order_release);
		lba += len;
		n -= len;
	}
}

void um_pool_set_lost(struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	um_pool_mark(pool, lba, n, false);
	for (; n; lba++, n--) {
		uint64_t mask = 1ull << (lba % 64);

		if (atomic_fetch_or(&pool->lost[lba / 64], mask) & mask)
			continue;
		atomic_fetch_add(&pool->nlost, 1);
		atomic_store(
			&pool->failed[atomic_fetch_add(&pool->nfailed, 1) % UM_TROUBLES_MAX], lba);
	}
}

static bool place_bad(const struct um_pool *pool, um_lba_t lba)
{
	return atomic_load(&pool->lost[lba / 64]) >> (lba % 64) & 1;
}

bool um_pool_lost(const struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	if (!um_pool_any_bad(pool))
		return false;
	for (; n; lba++, n--)
		if (place_bad(pool, um_pool_home(pool, lba)))
			return true;
	return false;
}

bool um_pool_place_bad(const struct um_pool *pool, um_lba_t lba)
{
	return um_pool_any_bad(pool) && place_bad(pool, lba);
}

bool um_pool_next_bad(const struct um_pool *pool, um_lba_t *lba)
{
	if (!um_pool_any_bad(pool))
		return false;
	while (*lba < pool->nblocks) {
		uint64_t rest = atomic_load(&pool->lost[*lba / 64]) >> (*lba % 64);

		if (rest) {
			*lba += (unsigned)__builtin_ctzll(rest);
			return *lba < pool->nblocks;
		}
		*lba += 64 - *lba % 64;
	}
	return false;
}

void um_pool_set_bad(struct um_pool *pool, um_lba_t lba)
{
	uint64_t mask = 1ull << (lba % 64);

	um_pool_mark(pool, lba, 1, false);
	if (!(atomic_fetch_or(&pool->lost[lba / 64], mask) & mask))
		atomic_fetch_add(&pool->nlost, 1);
}

int um_pool_heal(struct um_pool *pool, um_lba_t lba, const void *content)
{
	uint64_t mask = 1ull << (lba % 64);
	um_lba_t mark = um_guard_bad;
	int ret;

	if (!pool->ops->heal || pool->readonly)
		return -EOPNOTSUPP;
	ret = pool->ops->heal(pool, lba, content);
	if (ret)
		return ret;
	um_guard_bad = 0;
	if (memcmp(pool->base + (lba << UM_BLOCK_SHIFT), content, UM_BLOCK_SIZE) || um_guard_bad)
		ret = -EIO;
	um_guard_bad = mark;
	if (!ret && atomic_fetch_and(&pool->lost[lba / 64], ~mask) & mask)
		atomic_fetch_sub(&pool->nlost, 1);
	return ret;
}

int um_pool_reread(struct um_pool *pool, um_lba_t lba, void *out)
{
	off_t off = (off_t)(um_pool_home(pool, lba) << UM_BLOCK_SHIFT);

	if (pool->direct || pool->fd < 0)
		return -EOPNOTSUPP;
	return pread(pool->fd, out, UM_BLOCK_SIZE, off) == UM_BLOCK_SIZE ? 0 : -EIO;
}

/* ---- stores --------------------------------------------------------------------------------------- */

/* Address of a store, checked: the layers above compute it from what the pool says. */
static int store_at(
	const struct um_pool *pool, um_lba_t lba, uint32_t off, size_t len, uint64_t *out_off)
{
	uint64_t at = (lba << UM_BLOCK_SHIFT) + off;

	if (lba > pool->map_len >> UM_BLOCK_SHIFT || at > pool->map_len ||
		len > pool->map_len - at) {
		um_err("%s: store of %zu bytes to block %llu: outside of the pool", pool->path, len,
			(unsigned long long)lba);
		return -EUCLEAN;
	}
	if (pool->readonly)
		return -EROFS;
	*out_off = at;
	return 0;
}

static uint64_t blocks_at(uint64_t at, size_t len)
{
	return len ? ((at + len - 1) >> UM_BLOCK_SHIFT) - (at >> UM_BLOCK_SHIFT) + 1 : 0;
}

static bool places_bad(const struct um_pool *pool, uint64_t at, size_t len)
{
	um_lba_t lba = at >> UM_BLOCK_SHIFT;
	uint64_t n = blocks_at(at, len);

	if (!um_pool_any_bad(pool))
		return false;
	for (; n; lba++, n--)
		if (place_bad(pool, lba))
			return true;
	return false;
}

typedef int store_fn(struct um_pool *pool, uint64_t off, const void *src, size_t len);

/*
 * Stores to contiguous blocks. Memory may fail under the store (the guard then lets it complete,
 * somewhere else), or the guard may have replaced the page because of another thread's load. A
 * failure is recorded before the page is replaced, so checking again afterwards detects it.
 */
static int store_guarded(
	struct um_pool *pool, store_fn *fn, uint64_t at, const void *src, size_t len)
{
	um_lba_t mark = um_guard_bad;
	int ret;

	if (places_bad(pool, at, len))
		return -EIO;
	um_guard_bad = 0;
	ret = fn(pool, at, src, len);
	if (__builtin_expect(um_guard_bad != 0, 0) || places_bad(pool, at, len))
		ret = -EIO;
	um_guard_bad = mark;
	return ret;
}

/* Where it lies: contiguous unless blocks of it were moved. */
static int store(struct um_pool *pool, store_fn *fn, uint64_t at, const uint8_t *src, size_t len)
{
	int ret = 0;

	if (__builtin_expect(!atomic_load_explicit(&pool->moved, memory_order_acquire), 1))
		return store_guarded(pool, fn, at, src, len);
	while (!ret && len) {
		um_lba_t lba = at >> UM_BLOCK_SHIFT;
		uint64_t off = at & (UM_BLOCK_SIZE - 1);
		uint64_t span = um_pool_span(pool, lba, blocks_at(at, len));
		size_t n = (size_t)(span << UM_BLOCK_SHIFT) - off;

		if (n > len)
			n = len;
		ret = store_guarded(
			pool, fn, (um_pool_home(pool, lba) << UM_BLOCK_SHIFT) + off, src, n);
		at += n;
		src += src ? n : 0;
		len -= n;
	}
	return ret;
}

_Thread_local bool um_pool_undrained;

int um_pool_write_journal(
	struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len)
{
	uint64_t at;
	int ret = store_at(pool, lba, off, len, &at);

	if (ret || !len)
		return ret;
	um_pool_mark(pool, at >> UM_BLOCK_SHIFT, blocks_at(at, len), false);
	ret = store(pool, pool->ops->write, at, src, len);
	/* After the store: a back end under test may drain another pool within it. */
	um_pool_undrained = true;
	return ret;
}

int um_pool_overwrite(struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len)
{
	int ret = um_rests_before(pool, (lba << UM_BLOCK_SHIFT) + off, len);

	if (!ret)
		ret = um_pool_write_journal(pool, lba, off, src, len);
	if (!ret && len && pool->behind)
		um_behind_wrote(pool, (lba << UM_BLOCK_SHIFT) + off, len);
	return ret;
}

int um_pool_write_front(
	struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len, size_t rests)
{
	int ret = um_pool_overwrite(pool, lba, off, src, len);

	if (!ret && rests)
		um_rests_after(pool, (lba << UM_BLOCK_SHIFT) + off, src, rests);
	return ret;
}

void um_pool_vouch(struct um_pool *pool, um_lba_t lba, uint32_t off, size_t len)
{
	const uint8_t *at = um_pool_ptr(pool, lba);

	um_rests_after(pool, (lba << UM_BLOCK_SHIFT) + off, at + off, len);
}

int um_pool_write(struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len)
{
	return um_pool_write_front(pool, lba, off, src, len, len);
}

int um_pool_zero(struct um_pool *pool, um_lba_t lba, uint32_t off, size_t len)
{
	return um_pool_write(pool, lba, off, NULL, len);
}

int um_pool_retry(struct um_pool *pool, um_lba_t lba, const void *content)
{
	int ret = um_pool_heal(pool, lba, content);

	if (ret != -EOPNOTSUPP || pool->readonly)
		return ret;
	if (atomic_fetch_and(&pool->lost[lba / 64], ~(1ull << (lba % 64))) >> (lba % 64) & 1)
		atomic_fetch_sub(&pool->nlost, 1);
	ret = um_pool_write(pool, lba, 0, content, UM_BLOCK_SIZE);
	um_pool_drain(pool);
	um_guard_check();
	if (!ret && memcmp(pool->base + (lba << UM_BLOCK_SHIFT), content, UM_BLOCK_SIZE))
		ret = -EIO;
	if (um_guard_check() || ret)
		um_pool_set_bad(pool, lba);
	return um_pool_lost(pool, lba, 1) ? -EIO : 0;
}

int um_pool_mend(struct um_pool *pool, um_lba_t lba, const void *content)
{
	int ret = um_pool_write(pool, lba, 0, content, UM_BLOCK_SIZE);

	/* The mapping of an indirect pool shows the file where it has no private page. */
	if (!ret && !pool->direct && pool->ops->giveback)
		um_pool_giveback(pool, lba, 1);
	um_pool_drain(pool);
	return ret;
}

int um_pool_apply(struct um_pool *pool, um_lba_t lba, uint32_t off, const void *src, size_t len)
{
	uint64_t at;
	int ret = store_at(pool, lba, off, len, &at);

	if (ret || !len)
		return ret;
	ret = store(pool, pool->ops->apply, at, src, len);
	/* Storing part of an unverified block leaves it unverified. */
	if (!ret && len == UM_BLOCK_SIZE && !(at & (UM_BLOCK_SIZE - 1)))
		um_pool_mark(pool, at >> UM_BLOCK_SHIFT, 1, true);
	return ret;
}

void um_pool_drain(struct um_pool *pool)
{
	pool->ops->drain(pool);
	um_pool_undrained = false;
}

int um_pool_writeback(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n)
{
	const uint8_t *image = images;
	int ret = 0;

	while (!ret && n) {
		uint32_t span = (uint32_t)um_pool_span(pool, lba, n);

		ret = pool->ops->writeback(pool, um_pool_home(pool, lba), image, span);
		image += (size_t)span << UM_BLOCK_SHIFT;
		lba += span;
		n -= span;
	}
	return ret;
}

void um_pool_giveback(struct um_pool *pool, um_lba_t lba, uint32_t n)
{
	while (n) {
		uint32_t span = (uint32_t)um_pool_span(pool, lba, n);

		pool->ops->giveback(pool, um_pool_home(pool, lba), span);
		lba += span;
		n -= span;
	}
}

/* The kernel reports a failure once, to whoever asks first, and marks the pages clean: so one
 * barrier at a time, and after a failure all fail. */
int um_pool_barrier(struct um_pool *pool)
{
	int ret;

	pthread_mutex_lock(&pool->barrier_lock);
	if (!pool->barrier_failed)
		pool->barrier_failed = pool->ops->barrier(pool);
	ret = pool->barrier_failed;
	pthread_mutex_unlock(&pool->barrier_lock);
	if (!ret && pool->behind)
		um_behind_clean(pool);
	return ret;
}

bool um_pool_barrier_failed(struct um_pool *pool)
{
	bool failed;

	pthread_mutex_lock(&pool->barrier_lock);
	failed = pool->barrier_failed;
	pthread_mutex_unlock(&pool->barrier_lock);
	return failed;
}

int um_pool_reserve(struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	int ret;

	if ((pool->kind != UMBRA_POOL_FILE && pool->kind != UMBRA_POOL_FSDAX) || pool->fd < 0)
		return 0;
	do
		ret = fallocate(pool->fd, FALLOC_FL_KEEP_SIZE, (off_t)(lba << UM_BLOCK_SHIFT),
			      (off_t)(n << UM_BLOCK_SHIFT))
			      ? -errno
			      : 0;
	while (ret == -EINTR);
	/* A filesystem that cannot allocate ahead does it when it is written to. */
	return ret == -EOPNOTSUPP || ret == -ENOSYS ? 0 : ret;
}

void um_pool_forget_cached(const struct um_pool *pool)
{
	if (pool->fd < 0)
		return;
	/* Pages that are mapped would stay. Nothing has been stored to ours yet. */
	if (pool->base)
		(void)madvise(pool->base, atomic_load(&pool->map_len), MADV_DONTNEED);
	(void)posix_fadvise(pool->fd, 0, 0, POSIX_FADV_DONTNEED);
}

int um_barrier_none(struct um_pool *pool)
{
	(void)pool;
	return 0;
}

/* ---- life -------------------------------------------------------------------------------------------- */

int um_pool_new(const char *name, const struct um_pool_ops *ops, struct um_pool **out)
{
	struct um_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->path = strdup(name);
	if (!pool->path) {
		free(pool);
		return -ENOMEM;
	}
	pool->ops = ops;
	pool->fd = -1;
	pool->read_fd = -1;
	pool->guard_unit = UM_BLOCK_SIZE;
	pthread_mutex_init(&pool->repair_lock, NULL);
	pthread_mutex_init(&pool->barrier_lock, NULL);
	*out = pool;
	return 0;
}

int um_pool_set_size(struct um_pool *pool, uint64_t size)
{
	pool->size = size;
	pool->nblocks = size >> UM_BLOCK_SHIFT;
	pool->nchunks = size / UM_CHUNK_SIZE;
	/* Before there is a superblock: as mkfs would have it. */
	pool->nags = pool->super.nchunks ? um_super_groups(&pool->super)
					 : um_pool_groups(pool->nchunks, NULL);
	return 0;
}

void um_pool_free(struct um_pool *pool)
{
	um_pool_async_end(pool);
	um_guard_unregister(pool);
	if (pool->base)
		pool->ops->unmap(pool);
	if (pool->verified)
		munmap((void *)pool->verified, 2 * bitmap_bytes(pool->room));
	um_moved_free(pool);
	um_host_close(pool);
	free(pool->next);
	if (pool->fd >= 0)
		close(pool->fd);
	um_badlist_close(pool->badlist);
	pthread_mutex_destroy(&pool->barrier_lock);
	pthread_mutex_destroy(&pool->repair_lock);
	free(pool->path);
	free(pool);
}

void um_pool_close(struct um_pool *pool)
{
	if (pool)
		um_pool_free(pool);
}

int um_pool_load_super(struct um_pool *pool)
{
	return um_super_load(pool);
}
