/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * States of a pool that a power cut could leave. Every store goes through a pool's operations, so
 * these are replaced by some that also record it. The medium is a file in memory that holds what
 * was drained (direct pools) or written before a barrier (indirect); a crash state is a private
 * mapping of it with some of the later stores on top.
 */
#ifndef TESTS_UNIT_RECORDER_H
#define TESTS_UNIT_RECORDER_H

#include "pool_fixture.h"

#include <sys/mman.h>

#define RECORDER_STORES 4096

struct recorder {
	struct um_pool_ops ops;
	const struct um_pool_ops *real;
	int medium; /* memfd */
	uint64_t size;
	struct recorder_store {
		uint64_t off;
		uint32_t len;
		uint8_t *bytes;
	} store[RECORDER_STORES];
	unsigned n;
	uint64_t seed;
	unsigned unit; /* what does not tear: 8 bytes of memory, 512 of a device */
	/* Called before each drain or barrier and after some stores: a good moment for a cut. */
	void (*moment)(void *arg);
	void *arg;
	unsigned in_moment;
	int fail_write;    /* the next writes fail so */
	int fail_barrier;  /* the next barrier fails so */
	bool drop;         /* stores are lost, as if the cut came before them */
	unsigned barriers; /* counted */
};

static struct recorder recorder;

static inline void recorder_note(uint64_t off, const void *src, size_t len)
{
	struct recorder_store *store = &recorder.store[recorder.n++];

	assert_true(recorder.n <= RECORDER_STORES);
	store->off = off;
	store->len = (uint32_t)len;
	store->bytes = calloc(1, len);
	if (src)
		memcpy(store->bytes, src, len);
}

static inline void recorder_moment(void)
{
	if (!recorder.moment || recorder.in_moment)
		return;
	recorder.in_moment = 1;
	recorder.moment(recorder.arg);
	recorder.in_moment = 0;
}

/* Everything noted is on the medium now. */
static inline void recorder_settle(void)
{
	unsigned i;

	for (i = 0; i < recorder.n; i++) {
		struct recorder_store *store = &recorder.store[i];

		assert_int_equal(
			pwrite(recorder.medium, store->bytes, store->len, (off_t)store->off),
			store->len);
		free(store->bytes);
	}
	recorder.n = 0;
}

static int recorder_write(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	if (recorder.fail_write)
		return recorder.fail_write;
	if (recorder.drop)
		return 0;
	recorder_note(off, src, len);
	if (rnd_below(&recorder.seed, 4) == 0)
		recorder_moment();
	return recorder.real->write(pool, off, src, len);
}

static int recorder_apply(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	if (recorder.drop)
		return 0;
	if (pool->direct) {
		recorder_note(off, src, len);
		if (rnd_below(&recorder.seed, 4) == 0)
			recorder_moment();
	}
	return recorder.real->apply(pool, off, src, len);
}

static void recorder_drain(struct um_pool *pool)
{
	if (pool->direct && !recorder.drop) {
		recorder_moment();
		recorder_settle();
	}
	recorder.real->drain(pool);
}

static int recorder_barrier(struct um_pool *pool)
{
	recorder.barriers++;
	if (recorder.fail_barrier)
		return recorder.fail_barrier;
	if (!pool->direct && !recorder.drop) {
		recorder_moment();
		recorder_settle();
	}
	return recorder.real->barrier(pool);
}

static int recorder_writeback(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n)
{
	if (recorder.drop)
		return 0;
	recorder_note(lba * UM_BLOCK_SIZE, images, (size_t)n * UM_BLOCK_SIZE);
	recorder_moment();
	return recorder.real->writeback(pool, lba, images, n);
}

/* What is given back reads as zeros at any time from now on. */
static int recorder_punch(struct um_pool *pool, uint64_t off, uint64_t len)
{
	if (recorder.drop)
		return 0;
	recorder_note(off, NULL, len);
	recorder_moment();
	return recorder.real->punch(pool, off, len);
}

/* From now on; what the pool holds at this moment is on the medium. */
static inline void recorder_attach(struct um_pool *pool)
{
	uint64_t off;

	memset(&recorder, 0, sizeof(recorder));
	recorder.real = pool->ops;
	recorder.ops = *pool->ops;
	recorder.ops.write = recorder_write;
	recorder.ops.apply = recorder_apply;
	recorder.ops.drain = recorder_drain;
	recorder.ops.barrier = recorder_barrier;
	if (pool->ops->writeback)
		recorder.ops.writeback = recorder_writeback;
	if (pool->ops->punch)
		recorder.ops.punch = recorder_punch;
	recorder.size = pool->size;
	recorder.seed = engine_seed();
	recorder.unit = pool->direct ? 8 : 512;
	recorder.medium = memfd_create("medium", MFD_CLOEXEC);
	ok(ftruncate(recorder.medium, (off_t)pool->size));
	for (off = 0; off < pool->size; off += UM_BLOCK_SIZE) {
		const uint8_t *block = pool->base + off;

		if (block[0] || memcmp(block, block + 1, UM_BLOCK_SIZE - 1))
			assert_int_equal(
				pwrite(recorder.medium, block, UM_BLOCK_SIZE, (off_t)off), 4096);
	}
	pool->ops = &recorder.ops;
}

static inline void recorder_detach(struct um_pool *pool)
{
	while (recorder.n)
		free(recorder.store[--recorder.n].bytes);
	pool->ops = recorder.real;
	close(recorder.medium);
}

/*
 * A possible state after a cut now: the medium and, of the stores since, all, none, all but one, or
 * of each any words (sectors). Free it with munmap.
 */
static inline uint8_t *recorder_state(void)
{
	uint8_t *base = mmap(NULL, recorder.size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_NORESERVE, recorder.medium, 0);
	unsigned mode = (unsigned)rnd_below(&recorder.seed, 5), i, at;
	unsigned odd = recorder.n ? (unsigned)rnd_below(&recorder.seed, recorder.n) : 0;

	assert_true(base != MAP_FAILED);
	for (i = 0; i < recorder.n; i++) {
		struct recorder_store *store = &recorder.store[i];
		/* 0: all of it, 1: nothing, 2: any of its words. */
		unsigned what = mode < 2 ? mode : (unsigned)rnd_below(&recorder.seed, 3);

		if (mode == 2)
			what = i == odd;

		for (at = 0; at < store->len;) {
			/* Pieces end where units of the medium do. */
			unsigned len =
				recorder.unit - (unsigned)((store->off + at) % recorder.unit);

			if (len > store->len - at)
				len = store->len - at;
			if (what == 0 || (what == 2 && rnd_below(&recorder.seed, 2)))
				memcpy(base + store->off + at, store->bytes + at, len);
			at += len;
		}
	}
	return base;
}

#endif
