/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data written to a plain file or block device must not pile up: when there are a few MiB of it the
 * kernel is told to start writing it and to drop the pages. It drops those that are clean by then,
 * so it is told again: three times, whenever there are as many again, and when a barrier has
 * passed. So data is dirty for a short time and in memory once, in the page cache of the FUSE
 * mount. Whole chunks are named, as few and as large as possible. Pages that are mapped, metadata
 * in use, stay, and so does what was written last, to which the next write may add. A separate
 * thread does this, since starting writeback blocks if the device's queue is full: writers wait for
 * it only if it is a whole batch behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool/backend.h"

#define BATCH_BYTES (8u << 20)
#define BATCH_CHUNKS 256u
#define BEGUN 3u
#define RECENT 4096u /* a power of two */

struct batch {
	unsigned n;
	uint64_t bytes;
	uint64_t chunk[BATCH_CHUNKS];
};

struct um_behind {
	int fd;
	pthread_mutex_t lock;
	pthread_cond_t work, taken;
	pthread_t thread;
	struct batch written; /* and not handled yet */
	struct batch due;     /* for the thread, unless it is empty */
	bool begun_any;       /* the thread has some */
	bool clean;           /* a barrier has passed since */
	bool stop;
	struct batch begun[BEGUN]; /* used by the thread only: being written, the latest first */
	/* By chunk modulo RECENT: are some of its pages probably there still? */
	atomic_bool recent[RECENT];
};

static bool has(const struct batch *batch, uint64_t chunk)
{
	for (unsigned i = batch->n; i; i--)
		if (batch->chunk[i - 1] == chunk)
			return true;
	return false;
}

/* On failure pages stay longer, nothing worse. Write errors are reported by the next barrier. */
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

static void forget(struct um_behind *b, struct batch *batch)
{
	for (unsigned i = 0; i < batch->n; i++)
		atomic_store_explicit(
			&b->recent[batch->chunk[i] % RECENT], false, memory_order_relaxed);
	batch->n = 0;
}

/* Starts writing one batch, unless it is empty, and drops clean pages of earlier ones. */
static void turn(struct um_behind *b, const struct batch *next, bool clean)
{
	if (next->n)
		begin(b->fd, next);
	for (unsigned i = 0; i < BEGUN; i++) {
		drop(b->fd, &b->begun[i]);
		if (clean)
			forget(b, &b->begun[i]);
	}
	if (!next->n)
		return;
	forget(b, &b->begun[BEGUN - 1]);
	memmove(&b->begun[1], &b->begun[0], (BEGUN - 1) * sizeof(b->begun[0]));
	b->begun[0] = *next;
}

static void *behind_main(void *arg)
{
	struct um_behind *b = arg;
	struct batch next;
	bool clean;

	pthread_mutex_lock(&b->lock);
	for (;;) {
		if (b->stop)
			break;
		if (!b->due.n && !b->clean) {
			pthread_cond_wait(&b->work, &b->lock);
			continue;
		}
		next = b->due;
		clean = b->clean;
		b->due.n = 0;
		b->clean = false;
		b->begun_any = next.n || !clean;
		pthread_cond_broadcast(&b->taken);
		pthread_mutex_unlock(&b->lock);
		turn(b, &next, clean);
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

int um_behind_open(struct um_pool *pool)
{
	struct um_behind *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return -ENOMEM;
	b->fd = pool->fd;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->taken, NULL);
	err = -pthread_create(&b->thread, NULL, behind_main, b);
	if (err) {
		free(b);
		return err;
	}
	pthread_setname_np(b->thread, "umbrafs-behind");
	pool->behind = b;
	return 0;
}

void um_behind_close(struct um_pool *pool)
{
	struct um_behind *b = pool->behind;

	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_signal(&b->work);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->thread, NULL);
	pthread_cond_destroy(&b->taken);
	pthread_cond_destroy(&b->work);
	pthread_mutex_destroy(&b->lock);
	free(b);
	pool->behind = NULL;
}

/* A write usually covers at most two chunks. */
static bool is_full(const struct batch *batch)
{
	return batch->bytes >= BATCH_BYTES || batch->n > BATCH_CHUNKS - 2;
}

static void hand_over(struct um_behind *b)
{
	b->due = b->written;
	b->written.n = 0;
	b->written.bytes = 0;
	pthread_cond_signal(&b->work);
}

void um_behind_wrote(struct um_pool *pool, uint64_t off, size_t len)
{
	struct um_behind *b = pool->behind;
	uint64_t chunk = off / UM_CHUNK_SIZE, last = (off + len - 1) / UM_CHUNK_SIZE;

	pthread_mutex_lock(&b->lock);
	/* So nobody writes faster than the medium for long. */
	while (is_full(&b->written) && b->due.n)
		pthread_cond_wait(&b->taken, &b->lock);
	if (is_full(&b->written))
		hand_over(b);
	b->written.bytes += len;
	for (; chunk <= last && b->written.n < BATCH_CHUNKS; chunk++) {
		atomic_store_explicit(&b->recent[chunk % RECENT], true, memory_order_relaxed);
		if (!has(&b->written, chunk))
			b->written.chunk[b->written.n++] = chunk;
	}
	if (is_full(&b->written) && !b->due.n)
		hand_over(b);
	pthread_mutex_unlock(&b->lock);
}

void um_behind_clean(struct um_pool *pool)
{
	struct um_behind *b = pool->behind;

	pthread_mutex_lock(&b->lock);
	if (b->begun_any) {
		b->clean = true;
		pthread_cond_signal(&b->work);
	}
	pthread_mutex_unlock(&b->lock);
}

bool um_behind_recent(const struct um_pool *pool, uint64_t off)
{
	return pool->behind &&
	       atomic_load_explicit(
		       &pool->behind->recent[off / UM_CHUNK_SIZE % RECENT], memory_order_relaxed);
}
