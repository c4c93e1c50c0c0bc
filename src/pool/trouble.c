/* SPDX-License-Identifier: BSD-3-Clause */
/* Newly found bad blocks, queued until they are handled. Bounded: what finds no room is found
 * again. */
#include <errno.h>

#include "pool/pool.h"

void um_trouble_add(struct um_pool *pool, const struct um_trouble *trouble)
{
	uint32_t i, n;

	if (pool->readonly)
		return;
	pthread_mutex_lock(&pool->repair_lock);
	n = atomic_load_explicit(&pool->ntrouble, memory_order_relaxed);
	for (i = 0; i < n; i++)
		if (pool->trouble[i].lba == trouble->lba && pool->trouble[i].what == trouble->what)
			break;
	if (i == n && n < UM_TROUBLES_MAX) {
		pool->trouble[n] = *trouble;
		atomic_store_explicit(&pool->ntrouble, n + 1, memory_order_release);
	}
	pthread_mutex_unlock(&pool->repair_lock);
}

static bool take_listed(struct um_pool *pool, struct um_trouble *out)
{
	uint32_t i, n;

	if (!atomic_load_explicit(&pool->ntrouble, memory_order_acquire))
		return false;
	pthread_mutex_lock(&pool->repair_lock);
	n = pool->ntrouble;
	if (n) {
		*out = pool->trouble[0];
		for (i = 1; i < n; i++)
			pool->trouble[i - 1] = pool->trouble[i];
		pool->ntrouble = n - 1;
	}
	pthread_mutex_unlock(&pool->repair_lock);
	return n;
}

int um_trouble_take(struct um_pool *pool, struct um_trouble *out)
{
	uint64_t taken;

	/* Lists first: they have more information about the same block. */
	if (take_listed(pool, out))
		return 0;
	taken = atomic_load(&pool->ntaken);
	if (taken == atomic_load(&pool->nfailed))
		return -ENOENT;
	*out = (struct um_trouble){.what = UM_TROUBLE_FAILED};
	out->lba = atomic_exchange(&pool->failed[taken % UM_TROUBLES_MAX], ~(um_lba_t)0);
	atomic_store(&pool->ntaken, taken + 1);
	/* The handler that counted it has not stored it yet, or later ones have overwritten it. */
	if (out->lba == ~(um_lba_t)0 || atomic_load(&pool->nfailed) - taken > UM_TROUBLES_MAX) {
		out->what = UM_TROUBLE_MANY;
		out->lba = 0;
		atomic_store(&pool->ntaken, atomic_load(&pool->nfailed));
	}
	return 0;
}

bool um_trouble_any(const struct um_pool *pool)
{
	return atomic_load_explicit(&pool->ntrouble, memory_order_relaxed) ||
	       atomic_load_explicit(&pool->ntaken, memory_order_relaxed) !=
		       atomic_load_explicit(&pool->nfailed, memory_order_relaxed);
}
