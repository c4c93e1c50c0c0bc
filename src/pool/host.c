/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space on the host below. A pool file may be sparse, because it was created so or because free
 * space was punched out. A write to a hole can fail at a time when nobody can be told (metadata
 * that goes home at a checkpoint), or raise a signal instead of an error (a store through a
 * mapping). So space is allocated before blocks are handed out, one chunk at a time; memory holds,
 * for each chunk, whether it may lack space. When the host is full, blocks that come free in chunks
 * that have their space can still be used.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/backend.h"
#include "pool/log.h"
#include "pool/rests.h"

#define BITS_ROOM (UM_CHUNK_SIZE * 64)

/* A bit for each chunk that the room can hold: its table pages may lack space; its own blocks
 * may. */
struct um_host {
	pthread_mutex_t lock; /* serialises allocating and returning space */
	uint64_t words;
	_Atomic(uint64_t) *tables, *blocks;
};

static bool may_lack(const _Atomic(uint64_t) *bits, uint64_t chunk)
{
	return atomic_load_explicit(&bits[chunk / 64], memory_order_acquire) >> (chunk % 64) & 1;
}

static void set_lack(_Atomic(uint64_t) *bits, uint64_t chunk, bool lack)
{
	uint64_t bit = 1ull << (chunk % 64);

	if (lack)
		atomic_fetch_or(&bits[chunk / 64], bit);
	else
		atomic_fetch_and(&bits[chunk / 64], ~bit);
}

/* If a file has no holes and none are punched, there is nothing to record. */
static int remember(struct um_pool *pool)
{
	struct um_host *host = calloc(1, sizeof(*host));

	if (!host)
		return -ENOMEM;
	host->words = (pool->room + BITS_ROOM - 1) / BITS_ROOM;
	host->tables = calloc(2 * host->words, sizeof(*host->tables));
	if (!host->tables) {
		free(host);
		return -ENOMEM;
	}
	host->blocks = host->tables + host->words;
	pthread_mutex_init(&host->lock, NULL);
	pool->host = host;
	return 0;
}

void um_host_close(struct um_pool *pool)
{
	if (!pool->host)
		return;
	pthread_mutex_destroy(&pool->host->lock);
	free((void *)pool->host->tables);
	free(pool->host);
	pool->host = NULL;
}

static int allocate_both(struct um_pool *pool, struct um_ptr ptr)
{
	int ret = ptr.lba ? um_pool_reserve(pool, ptr.lba, 1) : 0;

	return ret || !ptr.mirror ? ret : um_pool_reserve(pool, ptr.mirror, 1);
}

/* Counts, checksums and parity of the chunk, which a checkpoint writes. */
static int allocate_tables(struct um_pool *pool, uint64_t chunk)
{
	int ret = allocate_both(pool, um_refs_ptr(pool, chunk));

	if (!ret && um_has_csum(pool))
		ret = allocate_both(pool, um_csums_ptr(pool, chunk));
	if (!ret && um_has_parity(pool))
		ret = um_pool_reserve(pool, um_parity_lba(pool, chunk * UM_CHUNK_BLOCKS),
			UM_CHUNK_BLOCKS / UM_PARITY_WIDTH);
	return ret;
}

void um_host_lacks(struct um_pool *pool, uint64_t from, uint64_t to)
{
	for (uint64_t at = from / UM_CHUNK_SIZE; pool->host && at * UM_CHUNK_SIZE < to; at++) {
		if (pool->kind == UMBRA_POOL_FILE)
			set_lack(pool->host->tables, at, true);
		set_lack(pool->host->blocks, at, true);
	}
}

static int allocate_journal(struct um_pool *pool)
{
	const struct um_super *super = &pool->super;
	int ret = um_pool_reserve(pool, super->journal_lba, super->journal_blocks);

	if (!ret && super->journal_mirror)
		ret = um_pool_reserve(pool, super->journal_mirror, super->journal_blocks);
	return ret;
}

/* What is in use must be allocated; space/ knows what can be allocated later. */
static int open_fsdax(struct um_pool *pool)
{
	int ret = um_fsdax_own_space(pool);

	if (!ret)
		ret = allocate_journal(pool);
	for (uint64_t chunk = 0; chunk < pool->nchunks && !ret; chunk++)
		if (may_lack(pool->host->blocks, chunk) && !um_chunk_usable(&pool->super, chunk))
			ret = um_pool_ready(pool, chunk);
	if (ret)
		um_err("%s: has holes that the filesystem below has no space for: %s", pool->path,
			strerror(-ret));
	return ret;
}

int um_host_open(struct um_pool *pool)
{
	struct stat st;
	int ret;

	/* Not for a pool that is opened read-only, in private pages. */
	if (pool->ops != &um_ops_file && pool->ops != &um_ops_fsdax)
		return 0;
	if (pool->kind == UMBRA_POOL_BLOCK)
		return 0;
	ret = remember(pool);
	if (ret || pool->ops == &um_ops_fsdax)
		return ret ? ret : open_fsdax(pool);
	/* All of the file: replay may find that the pool has grown into what now lies behind it. */
	if (fstat(pool->fd, &st) || (uint64_t)st.st_blocks * 512 >= pool->map_len)
		return 0;
	um_host_lacks(pool, 0, pool->map_len);
	/* A pool whose journal has no space could not even be emptied. */
	ret = allocate_journal(pool);
	if (ret)
		um_warn("%s: is sparse, and the filesystem below has no space for its journal: %s",
			pool->path, strerror(-ret));
	return 0;
}

int um_pool_ready(struct um_pool *pool, uint64_t chunk)
{
	struct um_host *host = pool->host;
	int ret = 0;

	if (!um_pool_lacks(pool, chunk))
		return 0;
	pthread_mutex_lock(&host->lock);
	if (may_lack(host->tables, chunk)) {
		ret = allocate_tables(pool, chunk);
		if (!ret)
			set_lack(host->tables, chunk, false);
	}
	if (!ret && may_lack(host->blocks, chunk)) {
		ret = um_pool_reserve(pool, chunk * UM_CHUNK_BLOCKS, UM_CHUNK_BLOCKS);
		if (!ret)
			set_lack(host->blocks, chunk, false);
	}
	pthread_mutex_unlock(&host->lock);
	return ret;
}

bool um_pool_lacks(const struct um_pool *pool, uint64_t chunk)
{
	const struct um_host *host = pool->host;

	return host && (may_lack(host->tables, chunk) || may_lack(host->blocks, chunk));
}

uint32_t um_pool_punch_unit(const struct um_pool *pool)
{
	if (!pool->ops->punch || pool->readonly)
		return 0;
	/* A store through the mapping to a hole raises a signal instead of an error: so whole
	 * chunks, which are filled before use. */
	return pool->kind == UMBRA_POOL_FSDAX ? UM_CHUNK_BLOCKS : 1;
}

int um_pool_punch(struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	struct um_host *host = pool->host;
	int ret = um_rests_before(pool, lba << UM_BLOCK_SHIFT, n << UM_BLOCK_SHIFT);

	if (ret)
		return ret;
	if (host)
		pthread_mutex_lock(&host->lock);
	um_pool_mark(pool, lba, n, false);
	ret = pool->ops->punch(pool, lba << UM_BLOCK_SHIFT, n << UM_BLOCK_SHIFT);
	/* Also after an error: part of it may be gone. */
	for (um_lba_t at = lba; host && at < lba + n; at = (um_chunk_of(at) + 1) * UM_CHUNK_BLOCKS)
		set_lack(host->blocks, um_chunk_of(at), true);
	if (host)
		pthread_mutex_unlock(&host->lock);
	return ret;
}

int um_host_fill(struct um_pool *pool, uint64_t from, uint64_t to)
{
	int ret = 0;

	for (uint64_t at = from / UM_CHUNK_SIZE; pool->host && !ret && at * UM_CHUNK_SIZE < to;
		at++)
		ret = um_pool_ready(pool, at);
	return ret;
}

int um_host_punch(struct um_pool *pool, uint64_t off, uint64_t len)
{
	uint64_t range[2] = {off, len};

	if (pool->kind == UMBRA_POOL_BLOCK)
		return ioctl(pool->fd, BLKDISCARD, range) ? -errno : 0;
	return fallocate(
		       pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len)
		       ? -errno
		       : 0;
}
