/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-memory part of an inode: lookups, opens, and the lock of its data. A struct lives as long
 * as one of the three is in use.
 *
 * The table is split into shards, each a hash table that doubles as it fills, so that a million
 * inodes known to the kernel cost as little per operation as a thousand.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "fs/errors.h"
#include "fs/fs.h"
#include "page/page.h"
#include "pool/clock.h"

#define SHARD_BITS 8
#define SLOTS_FIRST 64u

struct shard {
	pthread_mutex_t lock; /* protects the chains, and the counts of the structs in them */
	struct um_mem **slot;
	uint32_t nslots; /* power of 2 */
	uint32_t count;
} __attribute__((aligned(64)));

struct um_mem_table {
	struct shard shard[1u << SHARD_BITS];
};

static uint64_t mix(um_ino_t ino)
{
	return ino * 0x9e3779b97f4a7c15ull;
}

static struct shard *shard_of(struct umbra_fs *fs, um_ino_t ino)
{
	return &fs->mems->shard[mix(ino) >> (64 - SHARD_BITS)];
}

static struct um_mem **slot_of(const struct shard *shard, um_ino_t ino)
{
	return &shard->slot[(mix(ino) >> 16) & (shard->nslots - 1)];
}

int um_mem_table_open(struct um_mem_table **out)
{
	struct um_mem_table *table = aligned_alloc(64, sizeof(*table));
	unsigned i;

	if (!table)
		return -ENOMEM;
	for (i = 0; i < 1u << SHARD_BITS; i++) {
		struct shard *shard = &table->shard[i];

		pthread_mutex_init(&shard->lock, NULL);
		shard->count = 0;
		shard->nslots = SLOTS_FIRST;
		shard->slot = calloc(SLOTS_FIRST, sizeof(struct um_mem *));
		if (!shard->slot)
			goto fail;
	}
	*out = table;
	return 0;
fail:
	do {
		free(table->shard[i].slot);
		pthread_mutex_destroy(&table->shard[i].lock);
	} while (i--);
	free(table);
	return -ENOMEM;
}

static void mem_free(struct um_mem *mem)
{
	pthread_rwlock_destroy(&mem->lock);
	um_told_free(mem->told);
	free(mem);
}

void um_mem_table_close(struct um_mem_table *table)
{
	unsigned i, s;

	if (!table)
		return;
	for (i = 0; i < 1u << SHARD_BITS; i++) {
		struct shard *shard = &table->shard[i];

		for (s = 0; s < shard->nslots; s++) {
			struct um_mem *mem = shard->slot[s], *next;

			for (; mem; mem = next) {
				next = mem->next;
				mem_free(mem);
			}
		}
		free(shard->slot);
		pthread_mutex_destroy(&shard->lock);
	}
	free(table);
}

/* Doubles the slots; without memory for that the chains only get longer. */
static void shard_grow(struct shard *shard)
{
	uint32_t old_n = shard->nslots, s;
	struct um_mem **old = shard->slot, **slot = calloc(2 * (size_t)old_n, sizeof(*slot));

	if (!slot)
		return;
	shard->slot = slot;
	shard->nslots = 2 * old_n;
	for (s = 0; s < old_n; s++) {
		struct um_mem *mem = old[s], *next;

		for (; mem; mem = next) {
			struct um_mem **to = slot_of(shard, mem->ino);

			next = mem->next;
			mem->next = *to;
			*to = mem;
		}
	}
	free(old);
}

static struct um_mem *find(const struct shard *shard, um_ino_t ino)
{
	struct um_mem *mem = *slot_of(shard, ino);

	while (mem && mem->ino != ino)
		mem = mem->next;
	return mem;
}

/* A waiting truncate must not starve behind a stream of overwrites. */
static int lock_init(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;
	int ret = pthread_rwlockattr_init(&attr);

	if (ret)
		return -ret;
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	ret = pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return -ret;
}

static struct um_mem *find_or_make(struct shard *shard, um_ino_t ino)
{
	struct um_mem *mem = find(shard, ino), **slot;

	if (mem)
		return mem;
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return NULL;
	if (lock_init(&mem->lock)) {
		free(mem);
		return NULL;
	}
	mem->ino = ino;
	if (shard->count >= shard->nslots)
		shard_grow(shard);
	slot = slot_of(shard, ino);
	mem->next = *slot;
	*slot = mem;
	shard->count++;
	return mem;
}

static bool held(const struct um_mem *mem)
{
	return mem->nlookup || mem->nopen || mem->pins;
}

/* Takes a struct that nobody holds out of its chain and frees it; true if its inode is unlinked:
 * the caller calls left(), after releasing the shard's lock. */
static bool drop_unheld(struct shard *shard, struct um_mem *mem)
{
	struct um_mem **at = slot_of(shard, mem->ino);
	bool unlinked = atomic_load(&mem->unlinked);

	while (*at != mem)
		at = &(*at)->next;
	*at = mem->next;
	shard->count--;
	mem_free(mem);
	return unlinked;
}

/* Nobody holds the inode any more: the kernel has nothing of it in its caches. */
static void left(struct umbra_fs *fs, um_ino_t ino, bool unlinked)
{
	um_shadow_toss(fs->page, ino, 0, UINT64_MAX, NULL, NULL);
	if (unlinked)
		um_reaper_kick(fs, ino);
}

/* ---- holding ------------------------------------------------------------------------------------------ */

int um_mem_get(struct umbra_fs *fs, um_ino_t ino, struct um_mem **out)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;

	pthread_mutex_lock(&shard->lock);
	mem = find_or_make(shard, ino);
	if (mem)
		mem->pins++;
	pthread_mutex_unlock(&shard->lock);
	*out = mem;
	return mem ? 0 : -ENOMEM;
}

void um_mem_put(struct umbra_fs *fs, struct um_mem *mem)
{
	um_ino_t ino = mem->ino;
	struct shard *shard = shard_of(fs, ino);
	bool kick = false, gone = false;

	pthread_mutex_lock(&shard->lock);
	mem->pins--;
	gone = !held(mem);
	if (gone)
		kick = drop_unheld(shard, mem);
	pthread_mutex_unlock(&shard->lock);
	if (gone)
		left(fs, ino, kick);
}

static bool writes_cached(int flags)
{
	return um_open_writes(flags) && !(flags & O_DIRECT);
}

/* A lookup, or an open with these flags. */
static int hold(struct umbra_fs *fs, um_ino_t ino, bool unlinked, bool open, int flags)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;
	int ret = 0;

	pthread_mutex_lock(&shard->lock);
	if (unlinked) {
		/* The reaper may already be freeing an unlinked inode that nobody holds. */
		mem = find(shard, ino);
		if (!mem || !held(mem))
			ret = -ESTALE;
	} else {
		mem = find_or_make(shard, ino);
		if (!mem)
			ret = -ENOMEM;
	}
	if (!ret && open) {
		mem->nopen++;
		mem->nopen_write += um_open_writes(flags);
		mem->nopen_cached += writes_cached(flags);
	} else if (!ret) {
		mem->nlookup++;
	}
	pthread_mutex_unlock(&shard->lock);
	return ret;
}

int um_mem_ref(struct umbra_fs *fs, const struct um_inode *inode)
{
	return hold(fs, inode->ino, !inode->core.nlink, false, 0);
}

int um_mem_ref_new(struct umbra_fs *fs, um_ino_t ino)
{
	return hold(fs, ino, false, false, 0);
}

void um_mem_unref(struct umbra_fs *fs, um_ino_t ino, uint64_t n)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;
	bool kick = false, gone = false;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	if (mem) {
		mem->nlookup -= n < mem->nlookup ? n : mem->nlookup;
		gone = !held(mem);
		if (gone)
			kick = drop_unheld(shard, mem);
	}
	pthread_mutex_unlock(&shard->lock);
	if (gone)
		left(fs, ino, kick);
}

int um_mem_opened(struct umbra_fs *fs, const struct um_inode *inode, int flags)
{
	return hold(fs, inode->ino, !inode->core.nlink, true, flags);
}

void um_mem_closed(struct umbra_fs *fs, um_ino_t ino, int flags)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;
	bool kick = false, gone = false;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	if (mem && mem->nopen) {
		mem->nopen--;
		if (um_open_writes(flags) && mem->nopen_write)
			mem->nopen_write--;
		if (writes_cached(flags) && mem->nopen_cached)
			mem->nopen_cached--;
		gone = !held(mem);
		if (gone)
			kick = drop_unheld(shard, mem);
	}
	pthread_mutex_unlock(&shard->lock);
	if (gone)
		left(fs, ino, kick);
}

bool umbra_file_writers(struct umbra_fs *fs, uint64_t ino)
{
	struct shard *shard = shard_of(fs, ino);
	const struct um_mem *mem;
	bool some;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	some = mem && mem->nopen_write;
	pthread_mutex_unlock(&shard->lock);
	return some;
}

size_t umbra_writers(struct umbra_fs *fs, uint64_t *out, size_t max)
{
	size_t n = 0;

	for (unsigned i = 0; i < 1u << SHARD_BITS; i++) {
		struct shard *shard = &fs->mems->shard[i];

		pthread_mutex_lock(&shard->lock);
		for (uint32_t s = 0; s < shard->nslots; s++)
			for (const struct um_mem *mem = shard->slot[s]; mem; mem = mem->next)
				if (mem->nopen_write && n++ < max)
					out[n - 1] = mem->ino;
		pthread_mutex_unlock(&shard->lock);
	}
	return n;
}

/* ---- the caller's cache ------------------------------------------------------------------------------ */

/*
 * Nothing is cached of a file that nobody holds, so counts begin at 0, which is clean. Reading
 * again what one fill brought costs about as much as this many invalidations of a range, so neither
 * method exceeds the cost of the better one by much.
 *
 * But a page that is dropped while a write through the cache is on its way here, with the data in
 * the page already, may come back from here as it was before, and stay; and what a direct read whose
 * buffer is a mapping is about to put there is lost. The range of a write is its writer's matter, the
 * rest of the file is not: while somebody may write through the cache only ranges are dropped.
 */
#define DROPS_PER_FILL 8u

void umbra_cache_fills(struct umbra_fs *fs, uint64_t ino)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	if (mem) {
		mem->fills++;
		mem->drops = 0;
	}
	pthread_mutex_unlock(&shard->lock);
}

bool umbra_cache_is_old(struct umbra_fs *fs, uint64_t ino, struct umbra_cache_old *out)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;
	bool old = false;

	*out = (struct umbra_cache_old){0};
	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	if (mem && mem->fills != mem->clean) {
		old = true;
		out->fills = mem->fills;
		out->whole = ++mem->drops / DROPS_PER_FILL >= mem->fills - mem->clean &&
			     !mem->nopen_cached;
	}
	pthread_mutex_unlock(&shard->lock);
	return old;
}

void umbra_cache_clean(struct umbra_fs *fs, uint64_t ino, uint32_t fills)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	if (mem && mem->fills - fills < mem->fills - mem->clean)
		mem->clean = fills;
	pthread_mutex_unlock(&shard->lock);
}

/* ---- unlinked inodes ------------------------------------------------------------------------------- */

void um_mem_set_unlinked(struct umbra_fs *fs, um_ino_t ino, bool unlinked)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	if (mem) {
		atomic_store(&mem->unlinked, unlinked);
		mem->unlinked_nsec = um_now_ns();
	}
	pthread_mutex_unlock(&shard->lock);
	if (!unlinked)
		return;
	if (mem)
		um_reaper_note(fs, ino);
	else
		um_reaper_kick(fs, ino);
}

bool um_mem_idle(struct umbra_fs *fs, um_ino_t ino)
{
	struct shard *shard = shard_of(fs, ino);
	struct um_mem *mem;
	bool idle;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	idle = !mem || !held(mem);
	pthread_mutex_unlock(&shard->lock);
	return idle;
}

bool um_mem_leaving(struct umbra_fs *fs, um_ino_t ino, uint64_t max_age_nsec)
{
	struct shard *shard = shard_of(fs, ino);
	const struct um_mem *mem;
	bool leaving;

	pthread_mutex_lock(&shard->lock);
	mem = find(shard, ino);
	leaving = mem && atomic_load(&mem->unlinked) && !mem->nopen &&
		  um_now_ns() - mem->unlinked_nsec < max_age_nsec;
	pthread_mutex_unlock(&shard->lock);
	return leaving;
}

uint64_t um_mem_count(struct umbra_fs *fs)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < 1u << SHARD_BITS; i++) {
		struct shard *shard = &fs->mems->shard[i];

		pthread_mutex_lock(&shard->lock);
		n += shard->count;
		pthread_mutex_unlock(&shard->lock);
	}
	return n;
}
