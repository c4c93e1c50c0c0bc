/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading file data of pools whose mapping is not the medium: the blocks are found as for any reader, then read past
 * the mapping, and whoever asked is told when they are there. Meanwhile an epoch that belongs to no thread keeps
 * them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"
#include "pool/aio.h"
#include "pool/log.h"

#define PIECES ((1u << 20) / UM_BLOCK_SIZE + 2) /* of a read; a longer one comes short */
#define SMALL (64u << 10)                       /* bytes; larger ones have memory that is kept */
#define LARGE ((1u << 20) + 4 * UM_BLOCK_SIZE)
#define SPARE 16u
#define IN_FLIGHT_MAX (64u << 20) /* bytes; beyond that readers wait, each in its own page fault */

struct fetch {
	struct umbra_fs *fs;
	umbra_fetched_fn *fn;
	void *arg;
	void *hold; /* an epoch */
	atomic_uint left;
	_Atomic(int) err;
	size_t room; /* bytes of buf */
	uint8_t *buf;
	unsigned n;
	struct iovec iov[PIECES];
	struct um_aio io[PIECES];
};

/* ---- memory ---------------------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	unsigned n;
	uint8_t *buf[SPARE];
} spare = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint8_t *buffer_get(size_t room)
{
	uint8_t *buf = NULL;

	if (room <= SMALL)
		return aligned_alloc(UM_BLOCK_SIZE, room);
	pthread_mutex_lock(&spare.lock);
	if (spare.n)
		buf = spare.buf[--spare.n];
	pthread_mutex_unlock(&spare.lock);
	return buf ? buf : aligned_alloc(UM_BLOCK_SIZE, LARGE);
}

static void buffer_put(uint8_t *buf, size_t room)
{
	if (room > SMALL) {
		pthread_mutex_lock(&spare.lock);
		if (spare.n < SPARE) {
			spare.buf[spare.n++] = buf;
			buf = NULL;
		}
		pthread_mutex_unlock(&spare.lock);
	}
	free(buf);
}

/* ---- one read ---------------------------------------------------------------------------------------------- */

static void end(struct fetch *f)
{
	struct umbra_fs *fs = f->fs;
	int err = atomic_load(&f->err);

	f->fn(f->arg, err, f->iov, err ? 0 : f->n);
	um_epoch_let_go(fs->space, f->hold);
	atomic_fetch_sub(&fs->fetching, f->room);
	if (f->buf)
		buffer_put(f->buf, f->room);
	free(f);
}

static void piece_done(struct um_aio *io)
{
	struct fetch *f = io->arg;

	if (io->err) {
		um_err("%s: reading block %llu: %s", f->fs->pool->path,
			(unsigned long long)(io->off >> UM_BLOCK_SHIFT), strerror(-io->err));
		atomic_store(&f->err, -EIO);
	}
	if (atomic_fetch_sub(&f->left, 1) == 1)
		end(f);
}

/* The whole blocks of the pool that an iovec lies in; false: it is no pool memory. */
static bool blocks_of(
	const struct um_pool *pool, const struct iovec *iov, uint64_t *out_off, size_t *out_len)
{
	const uint8_t *at = iov->iov_base;
	uint64_t first, stop;

	if (at < pool->base || at >= pool->base + pool->map_len)
		return false;
	first = (uint64_t)(at - pool->base);
	stop = (first + iov->iov_len + UM_BLOCK_SIZE - 1) & ~(uint64_t)(UM_BLOCK_SIZE - 1);
	first &= ~(uint64_t)(UM_BLOCK_SIZE - 1);
	*out_off = first;
	*out_len = stop - first;
	return true;
}

/* Directs the pool's pieces into a buffer. Their list, or NULL. */
static struct um_aio *aim(struct fetch *f)
{
	struct um_aio *first = NULL, **last = &first;
	const struct um_pool *pool = f->fs->pool;
	uint8_t *at = f->buf;
	unsigned n = 0;

	for (unsigned i = 0; i < f->n; i++) {
		struct um_aio *io = &f->io[n];
		uint64_t off, from;
		size_t len;

		if (!blocks_of(pool, &f->iov[i], &off, &len))
			continue;
		from = (uint64_t)((uint8_t *)f->iov[i].iov_base - pool->base);
		io->buf = at;
		io->len = len;
		io->off = off;
		io->done = piece_done;
		io->arg = f;
		io->next = NULL;
		*last = io;
		last = &io->next;
		f->iov[i].iov_base = at + (from - off);
		at += len;
		n++;
	}
	atomic_store(&f->left, n);
	return first;
}

static int start(struct fetch *f)
{
	const struct um_pool *pool = f->fs->pool;
	size_t len, room = 0;
	uint64_t off;

	for (unsigned i = 0; i < f->n; i++)
		if (blocks_of(pool, &f->iov[i], &off, &len))
			room += len;
	if (room) {
		if (atomic_fetch_add(&f->fs->fetching, room) + room > IN_FLIGHT_MAX) {
			atomic_fetch_sub(&f->fs->fetching, room);
			return -EAGAIN;
		}
		f->room = room;
		f->buf = buffer_get(room);
		if (!f->buf) {
			atomic_fetch_sub(&f->fs->fetching, room);
			return -ENOMEM;
		}
	}
	return 0;
}

int umbra_fetch(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, umbra_fetched_fn *fn,
	void *arg)
{
	struct um_aio *list;
	struct fetch *f;
	size_t got;
	int err;

	/* Checksums of data are held against the mapping. */
	if (fs->pool->read_fd < 0 ||
		(um_has_csum(fs->pool) && fs->opt.data_csum == UMBRA_CSUM_READ))
		return -EOPNOTSUPP;
	/* What is not used of it is not touched. */
	f = malloc(sizeof(*f));
	if (!f)
		return -EAGAIN;
	f->fs = fs;
	f->fn = fn;
	f->arg = arg;
	f->buf = NULL;
	f->room = 0;
	atomic_init(&f->err, 0);
	f->hold = um_epoch_hold(fs->space);
	if (len > LARGE - 2 * UM_BLOCK_SIZE)
		len = LARGE - 2 * UM_BLOCK_SIZE;
	err = um_read_iov(fs, ino, off, len, false, f->iov, PIECES, &f->n, &got);
	if (!err)
		err = start(f);
	if (err) {
		um_epoch_let_go(fs->space, f->hold);
		free(f);
		return err == -ENOMEM ? -EAGAIN : err;
	}
	list = f->room ? aim(f) : NULL;
	/* A small read that is the only one: this worker reads it, the others are there for what comes. */
	if (list)
		um_pool_read_async(
			fs->pool, list, f->room <= SMALL && atomic_load(&fs->fetching) == f->room);
	else
		end(f);
	return 0;
}
