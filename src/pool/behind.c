/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data that was written to a plain file or block device is not to pile up: the kernel is told to begin writing it when
 * there are a few MiB of it, and to drop the pages, which it does with those that are clean by then: when there are
 * as many again, three times, and when a barrier has passed. So data is dirty for a short while and in memory once, in
 * FUSE's page cache. Whole chunks are named, as few and as large as can be; pages that are mapped, metadata
 * that is in use, stay, and so does what was written last, to which the next write may add.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "pool/backend.h"

#define BATCH_BYTES (8u << 20)
#define BATCH_CHUNKS 256u
#define BEGUN 3u

struct batch {
	unsigned n;
	uint64_t bytes;
	uint64_t chunk[BATCH_CHUNKS];
};

struct um_behind {
	pthread_mutex_t lock;
	struct batch written;      /* and nothing done about it */
	struct batch begun[BEGUN]; /* being written, the latest first */
};

int um_behind_open(struct um_pool *pool)
{
	struct um_behind *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	pthread_mutex_init(&b->lock, NULL);
	pool->behind = b;
	return 0;
}

void um_behind_close(struct um_pool *pool)
{
	if (pool->behind)
		pthread_mutex_destroy(&pool->behind->lock);
	free(pool->behind);
	pool->behind = NULL;
}

static bool has(const struct batch *batch, uint64_t chunk)
{
	for (unsigned i = batch->n; i; i--)
		if (batch->chunk[i - 1] == chunk)
			return true;
	return false;
}

/* Where that fails pages stay longer, no worse. What fails to be written is reported by the next barrier. */
static void begin(int fd, const struct batch *batch)
{
	for (unsigned i = 0; i < batch->n; i++)
		(void)sync_file_range(fd, (off64_t)(batch->chunk[i] * UM_CHUNK_SIZE), UM_CHUNK_SIZE,
			SYNC_FILE_RANGE_WRITE);
}

static void drop(int fd, const struct batch *batch)
{
	for (unsigned i = 0; i < batch->n; i++)
		(void)posix_fadvise(fd, (off_t)(batch->chunk[i] * UM_CHUNK_SIZE), UM_CHUNK_SIZE,
			POSIX_FADV_DONTNEED);
}

void um_behind_wrote(struct um_pool *pool, uint64_t off, size_t len)
{
	struct um_behind *b = pool->behind;
	uint64_t chunk = off / UM_CHUNK_SIZE, last = (off + len - 1) / UM_CHUNK_SIZE;
	bool full;

	pthread_mutex_lock(&b->lock);
	b->written.bytes += len;
	for (; chunk <= last && b->written.n < BATCH_CHUNKS; chunk++)
		if (!has(&b->written, chunk))
			b->written.chunk[b->written.n++] = chunk;
	full = b->written.bytes >= BATCH_BYTES || b->written.n == BATCH_CHUNKS;
	if (full) {
		/* Others wait meanwhile: so nobody writes faster than the medium takes it, for long. */
		begin(pool->fd, &b->written);
		for (unsigned i = 0; i < BEGUN; i++)
			drop(pool->fd, &b->begun[i]);
		memmove(&b->begun[1], &b->begun[0], (BEGUN - 1) * sizeof(b->begun[0]));
		b->begun[0] = b->written;
		b->written.n = 0;
		b->written.bytes = 0;
	}
	pthread_mutex_unlock(&b->lock);
}

void um_behind_clean(struct um_pool *pool)
{
	struct um_behind *b = pool->behind;

	pthread_mutex_lock(&b->lock);
	for (unsigned i = 0; i < BEGUN; i++) {
		drop(pool->fd, &b->begun[i]);
		b->begun[i].n = 0;
	}
	pthread_mutex_unlock(&b->lock);
}
