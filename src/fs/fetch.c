/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asynchronous reads of file data of pools whose mapping is not the medium: the blocks are found as
 * for any reader, then read past the mapping, and the caller is notified when they have arrived.
 * Meanwhile an epoch that belongs to no thread protects them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/fs.h"
#include "pool/aio.h"
#include "pool/aligned.h"
#include "pool/log.h"

#define PIECES ((1u << 20) / UM_BLOCK_SIZE + 2) /* of a read; a longer one is short */
#define SMALL (64u << 10)                       /* bytes; larger ones use memory that is kept */
#define LARGE (1u << 20)
#define SLABS_MAX 16u
#define SLABS_KEPT 4u /* while nobody uses them */
#define FEW 4u        /* pieces of a read that is small enough for memory of one kind */
#define FEW_SPARE 64u
#define IN_FLIGHT_MAX (64u << 20) /* bytes; beyond that readers wait, each in its own page fault */

struct fetch {
	struct umbra_fs *fs;
	uint64_t ino, off;
	size_t len;
	umbra_fetched_fn *fn;
	void *arg;
	struct fetch *next; /* to be read in the other way */
	void *hold;         /* an epoch */
	atomic_uint left;
	_Atomic(int) err;
	size_t room; /* bytes of buf */
	uint8_t *buf;
	uint8_t *mem;    /* the caller's */
	unsigned n, max; /* pieces, and how many there is room for: */
	struct iovec *iov;
	struct um_aio *io;
};

/* ---- memory ---------------------------------------------------------------------------------------------- */

/*
 * Large reads use halves of huge pages, where the kernel has any. As single pages, 1 MiB has more
 * segments than most devices take in one request (128 to 254): it is split, and since io_uring
 * cannot wait for that, passed on to one more thread of the kernel. Both copies also look up fewer
 * pages.
 */
struct slab {
	uint8_t *base;
	unsigned used; /* a bit for each half */
};

static struct {
	pthread_mutex_t lock;
	unsigned n;
	struct slab slab[SLABS_MAX];
} slabs = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define SLAB_BYTES (2u * LARGE)

static uint8_t *slab_map(void)
{
	uint8_t *map = um_map_aligned(SLAB_BYTES, SLAB_BYTES, PROT_READ | PROT_WRITE);

	if (map)
		(void)madvise(map, SLAB_BYTES, MADV_HUGEPAGE);
	return map;
}

/* NULL: all are in use, or there is no memory. */
static uint8_t *slab_get(void)
{
	uint8_t *buf = NULL;
	unsigned i = 0;

	pthread_mutex_lock(&slabs.lock);
	while (i < slabs.n && slabs.slab[i].used == 3)
		i++;
	if (i == slabs.n && i < SLABS_MAX) {
		slabs.slab[i] = (struct slab){.base = slab_map()};
		slabs.n += slabs.slab[i].base != NULL;
	}
	if (i < slabs.n) {
		struct slab *slab = &slabs.slab[i];
		unsigned half = slab->used & 1;

		slab->used |= 1u << half;
		buf = slab->base + half * (size_t)LARGE;
	}
	pthread_mutex_unlock(&slabs.lock);
	return buf;
}

/* False: not one of these. */
static bool slab_put(const uint8_t *buf)
{
	uint8_t *gone = NULL;
	unsigned i = 0;
	bool found;

	pthread_mutex_lock(&slabs.lock);
	while (i < slabs.n && (uintptr_t)buf - (uintptr_t)slabs.slab[i].base >= SLAB_BYTES)
		i++;
	found = i < slabs.n;
	if (found) {
		struct slab *slab = &slabs.slab[i];

		slab->used &= buf == slab->base ? ~1u : ~2u;
		if (!slab->used && slabs.n > SLABS_KEPT) {
			gone = slab->base;
			*slab = slabs.slab[--slabs.n];
		}
	}
	pthread_mutex_unlock(&slabs.lock);
	if (gone)
		munmap(gone, SLAB_BYTES);
	return found;
}

static uint8_t *buffer_get(size_t room)
{
	uint8_t *buf = room > SMALL && room <= LARGE ? slab_get() : NULL;

	return buf ? buf : aligned_alloc(UM_BLOCK_SIZE, room);
}

static void buffer_put(uint8_t *buf, size_t room)
{
	if (room <= SMALL || room > LARGE || !slab_put(buf))
		free(buf);
}

/* Small reads come by the hundred thousand, and end in another thread than they began in, which
 * malloc does not like. Their blocks lie in front, so that they are aligned. */
static struct {
	pthread_mutex_t lock;
	unsigned n;
	struct fetch *f[FEW_SPARE];
} few = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define FEW_BYTES (FEW * UM_BLOCK_SIZE)
static_assert(sizeof(struct fetch) + FEW * (sizeof(struct um_aio) + sizeof(struct iovec)) <=
		      UM_BLOCK_SIZE,
	"behind the blocks");

static struct fetch *few_new(void)
{
	struct fetch *f = NULL;
	uint8_t *blocks;

	pthread_mutex_lock(&few.lock);
	if (few.n)
		f = few.f[--few.n];
	pthread_mutex_unlock(&few.lock);
	if (f)
		return f;
	blocks = aligned_alloc(UM_BLOCK_SIZE, FEW_BYTES + UM_BLOCK_SIZE);
	return blocks ? (struct fetch *)(void *)(blocks + FEW_BYTES) : NULL;
}

static void few_free(struct fetch *f)
{
	pthread_mutex_lock(&few.lock);
	if (few.n < FEW_SPARE) {
		few.f[few.n++] = f;
		f = NULL;
	}
	pthread_mutex_unlock(&few.lock);
	if (f)
		free((uint8_t *)f - FEW_BYTES);
}

/* Room for all the pieces that a read can have: each is a block at least. */
static struct fetch *fetch_new(size_t len)
{
	unsigned max = (unsigned)(len / UM_BLOCK_SIZE) + 2;
	struct fetch *f;

	max = max > PIECES ? PIECES : max <= FEW ? FEW : max;
	f = max == FEW ? few_new()
		       : malloc(sizeof(*f) + max * (sizeof(struct um_aio) + sizeof(struct iovec)));
	if (!f)
		return NULL;
	*f = (struct fetch){.len = len, .max = max, .io = (struct um_aio *)(f + 1)};
	f->iov = (struct iovec *)(f->io + max);
	return f;
}

static void fetch_free(struct fetch *f)
{
	if (f->max == FEW) {
		few_free(f);
		return;
	}
	if (f->buf && f->buf != f->mem)
		buffer_put(f->buf, f->room);
	free(f);
}

/* ---- reads that failed ------------------------------------------------------------------------------------ */

/* What the medium refuses to a direct read is read through the mapping, by a thread that may wait:
 * there bad blocks are noticed and rebuilt from parity. Started on the first such read. */
struct um_again {
	struct umbra_fs *fs;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t thread;
	bool runs, stop;
	struct fetch *first, **last;
};

static void end(struct fetch *f);

static void read_again(struct fetch *f)
{
	struct umbra_fs *fs = f->fs;
	size_t got;

	/* Whoever moves a block may have to wait for what this protected. */
	um_epoch_let_go(fs->space, f->hold);
	f->hold = NULL;
	umbra_read_begin(fs);
	atomic_store(&f->err,
		um_read_iov(fs, f->ino, f->off, f->len, true, f->iov, f->max, &f->n, &got));
	end(f);
	umbra_read_end(fs);
}

static void *again_main(void *arg)
{
	struct um_again *again = arg;

	pthread_mutex_lock(&again->lock);
	while (again->first || !again->stop) {
		struct fetch *f = again->first;

		if (!f) {
			pthread_cond_wait(&again->cond, &again->lock);
			continue;
		}
		again->first = f->next;
		if (!again->first)
			again->last = &again->first;
		pthread_mutex_unlock(&again->lock);
		read_again(f);
		pthread_mutex_lock(&again->lock);
	}
	pthread_mutex_unlock(&again->lock);
	return NULL;
}

/* False: there is no thread for it. */
static bool hand_over(struct fetch *f)
{
	struct um_again *again = f->fs->again;
	bool runs;

	pthread_mutex_lock(&again->lock);
	if (!again->runs) {
		again->runs = !pthread_create(&again->thread, NULL, again_main, again);
		if (again->runs)
			pthread_setname_np(again->thread, "umbrafs-again");
	}
	runs = again->runs;
	if (runs) {
		f->next = NULL;
		*again->last = f;
		again->last = &f->next;
		pthread_cond_signal(&again->cond);
	}
	pthread_mutex_unlock(&again->lock);
	return runs;
}

int um_fetch_open(struct umbra_fs *fs)
{
	struct um_again *again = calloc(1, sizeof(*again));

	if (!again)
		return -ENOMEM;
	pthread_mutex_init(&again->lock, NULL);
	pthread_cond_init(&again->cond, NULL);
	again->last = &again->first;
	fs->again = again;
	return 0;
}

void um_fetch_close(struct umbra_fs *fs)
{
	struct um_again *again = fs->again;

	if (!again)
		return;
	pthread_mutex_lock(&again->lock);
	again->stop = true;
	pthread_cond_signal(&again->cond);
	pthread_mutex_unlock(&again->lock);
	if (again->runs)
		pthread_join(again->thread, NULL);
	pthread_cond_destroy(&again->cond);
	pthread_mutex_destroy(&again->lock);
	free(again);
	fs->again = NULL;
}

/* ---- one read ---------------------------------------------------------------------------------------------- */

static void end(struct fetch *f)
{
	struct umbra_fs *fs = f->fs;
	int err = atomic_load(&f->err);

	f->fn(f->arg, err, f->iov, err ? 0 : f->n);
	if (f->hold)
		um_epoch_let_go(fs->space, f->hold);
	atomic_fetch_sub(&fs->fetching, f->room);
	fetch_free(f);
}

static void piece_done(struct um_aio *io)
{
	struct fetch *f = io->arg;

	if (io->err) {
		if (um_pool_report_once(f->fs->pool, io->off >> UM_BLOCK_SHIFT))
			um_err("%s: reading block %llu: %s", f->fs->pool->path,
				(unsigned long long)(io->off >> UM_BLOCK_SHIFT),
				strerror(-io->err));
		atomic_store(&f->err, -EIO);
	}
	if (atomic_fetch_sub(&f->left, 1) > 1)
		return;
	if (!atomic_load(&f->err) || !hand_over(f))
		end(f);
}

/* The whole blocks of the pool that contain an iovec; false: it is not pool memory. */
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

/* Directs the pool's pieces into a buffer. Returns their list, or NULL. */
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
		else
			f->mem = NULL; /* where what follows would lie before its place */
	if (room) {
		if (atomic_fetch_add(&f->fs->fetching, room) + room > IN_FLIGHT_MAX) {
			atomic_fetch_sub(&f->fs->fetching, room);
			return -EAGAIN;
		}
		f->room = room;
		f->buf = f->max == FEW             ? (uint8_t *)f - FEW_BYTES
			 : f->mem && room <= LARGE ? f->mem
						   : buffer_get(room);
		if (!f->buf) {
			atomic_fetch_sub(&f->fs->fetching, room);
			return -ENOMEM;
		}
	}
	return 0;
}

int umbra_fetch(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, void *mem,
	umbra_fetched_fn *fn, void *arg)
{
	struct um_aio *list;
	bool alone;
	struct fetch *f;
	size_t got;
	int err;

	/* Data checksums are verified against the mapping. And after the medium has refused
	 * something, the page cache has the right data. */
	if (fs->pool->read_fd < 0 || um_log_failed(fs->log, NULL) ||
		(um_has_csum(fs->pool) && fs->opt.data_csum == UMBRA_CSUM_READ))
		return -EOPNOTSUPP;
	if (len > (PIECES - 2) * UM_BLOCK_SIZE)
		len = (PIECES - 2) * UM_BLOCK_SIZE;
	f = fetch_new(len);
	if (!f)
		return -EAGAIN;
	f->fs = fs;
	f->ino = ino;
	f->off = off;
	f->mem = mem;
	f->fn = fn;
	f->arg = arg;
	f->hold = um_epoch_hold(fs->space);
	err = um_read_iov(fs, ino, off, len, false, f->iov, f->max, &f->n, &got);
	if (!err)
		err = start(f);
	if (err) {
		um_epoch_let_go(fs->space, f->hold);
		fetch_free(f);
		return err == -ENOMEM ? -EAGAIN : err;
	}
	list = f->room ? aim(f) : NULL;
	/* A small read that is the only one, or of a thread that has nothing else to do: this thread
	 * makes it. Others are there for further requests. */
	alone = atomic_load(&fs->fetching) == f->room;
	if (list)
		um_pool_read_async(fs->pool, list, f->room <= SMALL && (mem || alone), alone);
	else
		end(f);
	return 0;
}
