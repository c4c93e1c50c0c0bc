/* SPDX-License-Identifier: BSD-3-Clause */
/* The data that the records of a group depend on: see rests.h. */
#include "pool/rests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pool/seeded.h"

#define ONE_MAX (64u << 10)  /* bytes of one write that is listed */
#define ALL_MAX (512u << 10) /* bytes of all: beyond that a barrier costs less */

struct um_rests {
	pthread_mutex_t lock;
	struct um_rest_list open;  /* gathered for the next group */
	struct um_rest_list taken; /* of the group commit under way */
	struct um_rest_list last;  /* of the last durable COMMIT */
	_Atomic(uint32_t) nlisted; /* in all three */
	int (*seal)(void *arg);
	void *arg;
};

int um_rests_open(struct um_pool *pool, int (*seal)(void *arg), void *arg)
{
	struct um_rests *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	pthread_mutex_init(&r->lock, NULL);
	r->seal = seal;
	r->arg = arg;
	r->open.open_end = true; /* what an earlier daemon wrote is on no list */
	pool->rests = r;
	return 0;
}

void um_rests_close(struct um_pool *pool)
{
	if (pool->rests)
		pthread_mutex_destroy(&pool->rests->lock);
	free(pool->rests);
	pool->rests = NULL;
}

uint64_t um_rest_csum(const struct um_pool *pool, const void *bytes, size_t len)
{
	uint64_t seed;

	memcpy(&seed, pool->super.hdr.uuid, sizeof(seed));
	return XXH3_64bits_withSeed(bytes, len, seed);
}

static void count(struct um_rests *r)
{
	atomic_store(&r->nlisted, r->open.n + r->taken.n + r->last.n);
}

static void clear(struct um_rest_list *list)
{
	list->n = 0;
	list->bytes = 0;
	list->open_end = false;
}

static void make_void(struct um_rest_list *list)
{
	clear(list);
	list->open_end = true;
}

static bool meets(const struct um_rest_list *list, uint64_t off, size_t len)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (list->at[i].off < off + len && off < list->at[i].off + list->at[i].len)
			return true;
	return false;
}

/* Lists have places: the bytes of a block may have been moved, which replay does not know yet when it
 * reads a list. Returns how many of the bytes at `off` lie together, at *out. */
static size_t place_of(const struct um_pool *pool, uint64_t off, size_t len, uint64_t *out)
{
	uint64_t in = off & (UM_BLOCK_SIZE - 1), n;
	um_lba_t lba = off >> UM_BLOCK_SHIFT;

	n = um_pool_span(pool, lba, (in + len + UM_BLOCK_SIZE - 1) >> UM_BLOCK_SHIFT);
	n = (n << UM_BLOCK_SHIFT) - in;
	*out = (um_pool_home(pool, lba) << UM_BLOCK_SHIFT) + in;
	return n < len ? (size_t)n : len;
}

/* Costs one more barrier for a block that is written twice, so a list is not given up before it has
 * to be. */
static int before_at(struct um_rests *r, uint64_t off, size_t len)
{
	bool seal;
	int err = 0;

	do {
		pthread_mutex_lock(&r->lock);
		if (meets(&r->open, off, len))
			make_void(&r->open);
		seal = meets(&r->taken, off, len) || meets(&r->last, off, len);
		count(r);
		pthread_mutex_unlock(&r->lock);
		if (seal)
			err = r->seal(r->arg);
	} while (seal && !err);
	return err;
}

int um_rests_before(struct um_pool *pool, uint64_t off, size_t len)
{
	struct um_rests *r = pool->rests;
	uint64_t at;
	size_t n;
	int err = 0;

	if (!r || !atomic_load(&r->nlisted) || um_seeded_bug(31))
		return 0;
	for (; len && !err; off += n, len -= n) {
		n = place_of(pool, off, len, &at);
		err = before_at(r, at, n);
	}
	return err;
}

static void after_at(
	const struct um_pool *pool, struct um_rests *r, uint64_t off, const void *src, size_t len)
{
	struct um_rest_list *list;
	uint64_t csum = 0;

	if (src && len <= ONE_MAX)
		csum = um_rest_csum(pool, src, len);
	pthread_mutex_lock(&r->lock);
	list = &r->open;
	if (!src || len > ONE_MAX || list->bytes + len > ALL_MAX || list->n == UM_RESTS_MAX)
		make_void(list);
	if (!list->open_end) {
		list->at[list->n++] = (struct um_rest){off, csum, (uint32_t)len};
		list->bytes += len;
	}
	count(r);
	pthread_mutex_unlock(&r->lock);
}

void um_rests_after(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	const uint8_t *from = src;
	uint64_t at;
	size_t n;

	if (!pool->rests || um_seeded_bug(32))
		return;
	for (; len; off += n, len -= n, from += from ? n : 0) {
		n = place_of(pool, off, len, &at);
		after_at(pool, pool->rests, at, from, n);
	}
}

void um_rests_take(struct um_pool *pool, struct um_rest_list *out)
{
	struct um_rests *r = pool->rests;

	pthread_mutex_lock(&r->lock);
	r->taken = r->open;
	clear(&r->open);
	*out = r->taken;
	count(r);
	pthread_mutex_unlock(&r->lock);
}

void um_rests_done(struct um_pool *pool, enum um_rests_end end)
{
	struct um_rests *r = pool->rests;

	pthread_mutex_lock(&r->lock);
	if (end == UM_RESTS_SEALED)
		clear(&r->last);
	else if (end == UM_RESTS_LISTED)
		r->last = r->taken;
	else if (end == UM_RESTS_FAILED)
		make_void(&r->open); /* what was taken is no longer guaranteed */
	clear(&r->taken);
	count(r);
	pthread_mutex_unlock(&r->lock);
}
