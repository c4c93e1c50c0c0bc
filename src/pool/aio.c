/* SPDX-License-Identifier: BSD-3-Clause */
/* Asynchronous I/O: see aio.h. First rings, then threads. */
#include "pool/aio.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool/log.h"

#define RINGS 2u /* each with a thread that takes results and calls done(), which copies */
#define ENTRIES 128u
#define THREADS 8u    /* without io_uring */
#define TRIES_MAX 16u /* for one place, before EAGAIN is returned */

int (*um_aio_fault)(const struct um_aio *io, int result);
bool um_aio_refuse_ring;

struct ring {
	struct um_aio_engine *engine;
	struct io_uring uring;
	pthread_mutex_t lock; /* protects the submission side */
	pthread_t thread;
};

struct um_aio_engine {
	unsigned nrings, nthreads;
	atomic_uint turn;
	struct ring ring[RINGS];
	pthread_t thread[THREADS];
	/* Requests submitted and not done; the queue is for threads only. */
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	struct um_aio *first, **last;
	unsigned under_way;
	bool stop;
};

/* ---- results ---------------------------------------------------------------------------------------- */

static void account(struct um_aio_engine *engine, int change)
{
	pthread_mutex_lock(&engine->lock);
	engine->under_way += (unsigned)change;
	if (!engine->under_way)
		pthread_cond_broadcast(&engine->idle);
	pthread_mutex_unlock(&engine->lock);
}

/* Takes the kernel's result; true: the request is done, else it has to be resumed. */
static bool take_result(struct um_aio *io, int result)
{
	size_t before = io->at;

	if (um_aio_fault)
		result = um_aio_fault(io, result);
	if (result == -EINTR || (result == -EAGAIN && io->tries++ < TRIES_MAX))
		return false;
	if (result < 0) {
		io->err = result;
		return true;
	}
	if (io->op == UM_AIO_SYNC)
		return true;
	if (!result) { /* end of file where there should be more, or no progress */
		io->err = io->at < io->len ? -EIO : 0;
		return true;
	}
	io->at += (size_t)result;
	if (io->at >= io->len)
		return true;
	if (io->align)
		io->at &= ~(io->align - 1);
	if (io->at > before)
		io->tries = 0;
	else if (io->tries++ >= TRIES_MAX)
		io->err = -EIO;
	return io->err;
}

static void finish(struct um_aio_engine *engine, struct um_aio *io)
{
	io->done(io);
	account(engine, -1);
}

/* ---- by system calls ---------------------------------------------------------------------------------- */

static int call(const struct um_aio *io)
{
	char *buf = (char *)io->buf + io->at;
	off_t off = (off_t)(io->off + io->at);
	size_t len = io->len - io->at;
	ssize_t n = 0;

	switch (io->op) {
	case UM_AIO_READ:
		n = pread(io->fd, buf, len, off);
		break;
	case UM_AIO_WRITE:
		n = pwrite(io->fd, buf, len, off);
		break;
	case UM_AIO_SYNC:
		n = fdatasync(io->fd);
		break;
	}
	return n < 0 ? -errno : (int)n;
}

static void carry_out(struct um_aio_engine *engine, struct um_aio *io)
{
	while (!take_result(io, call(io)))
		if (io->tries)
			usleep(1000);
	finish(engine, io);
}

/* ---- rings ---------------------------------------------------------------------------------------------- */

static void prepare(struct io_uring_sqe *sqe, struct um_aio *io)
{
	char *buf = (char *)io->buf + io->at;
	unsigned len = (unsigned)(io->len - io->at);

	switch (io->op) {
	case UM_AIO_READ:
		io_uring_prep_read(sqe, io->fd, buf, len, io->off + io->at);
		break;
	case UM_AIO_WRITE:
		io_uring_prep_write(sqe, io->fd, buf, len, io->off + io->at);
		break;
	case UM_AIO_SYNC:
		io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
	atomic_store_explicit(&io->handed, 1, memory_order_release);
}

/*
 * Submits a list. If the kernel accepts none for now (no memory, or results not taken yet) this
 * thread retries until all are accepted; the thread that takes results never comes here, so waiting
 * for it is safe.
 */
static void put(struct ring *r, struct um_aio *list)
{
	pthread_mutex_lock(&r->lock);
	while (list || io_uring_sq_ready(&r->uring)) {
		struct io_uring_sqe *sqe = list ? io_uring_get_sqe(&r->uring) : NULL;
		int n;

		if (sqe) {
			struct um_aio *next = list->next;

			prepare(sqe, list);
			list = next;
			continue;
		}
		n = io_uring_submit(&r->uring);
		if (n < 0 && n != -EINTR)
			usleep(1000);
	}
	pthread_mutex_unlock(&r->lock);
}

static void *ring_main(void *arg)
{
	struct ring *r = arg;
	struct io_uring_cqe *cqe;

	for (;;) {
		struct um_aio *io;
		int result, err = io_uring_wait_cqe(&r->uring, &cqe);

		if (err)
			continue; /* EINTR */
		io = io_uring_cqe_get_data(cqe);
		result = cqe->res;
		io_uring_cqe_seen(&r->uring, cqe);
		if (!io)
			return NULL;
		(void)atomic_load_explicit(&io->handed, memory_order_acquire);
		if (take_result(io, result))
			finish(r->engine, io);
		else
			carry_out(r->engine, io); /* rare: the rest by system calls */
	}
}

static int ring_open(struct um_aio_engine *engine, struct ring *r)
{
	int err = um_aio_refuse_ring ? -EPERM : io_uring_queue_init(ENTRIES, &r->uring, 0);

	if (err)
		return err;
	r->engine = engine;
	pthread_mutex_init(&r->lock, NULL);
	err = -pthread_create(&r->thread, NULL, ring_main, r);
	if (!err) {
		pthread_setname_np(r->thread, "umbrafs-ring");
		return 0;
	}
	pthread_mutex_destroy(&r->lock);
	io_uring_queue_exit(&r->uring);
	return err;
}

static void ring_close(struct ring *r)
{
	struct io_uring_sqe *sqe;

	pthread_mutex_lock(&r->lock);
	sqe = io_uring_get_sqe(&r->uring); /* nothing is in flight: there is room */
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data(sqe, NULL);
	while (io_uring_submit(&r->uring) < 0)
		usleep(1000);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	pthread_mutex_destroy(&r->lock);
	io_uring_queue_exit(&r->uring);
}

/* ---- threads -------------------------------------------------------------------------------------------- */

static void *thread_main(void *arg)
{
	struct um_aio_engine *engine = arg;

	pthread_mutex_lock(&engine->lock);
	for (;;) {
		struct um_aio *io = engine->first;

		if (!io && engine->stop)
			break;
		if (!io) {
			pthread_cond_wait(&engine->work, &engine->lock);
			continue;
		}
		engine->first = io->next;
		if (!engine->first)
			engine->last = &engine->first;
		pthread_mutex_unlock(&engine->lock);
		carry_out(engine, io);
		pthread_mutex_lock(&engine->lock);
	}
	pthread_mutex_unlock(&engine->lock);
	return NULL;
}

static void enqueue(struct um_aio_engine *engine, struct um_aio *list)
{
	pthread_mutex_lock(&engine->lock);
	*engine->last = list;
	while (*engine->last)
		engine->last = &(*engine->last)->next;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
}

static int threads_open(struct um_aio_engine *engine)
{
	int err = 0;

	while (!err && engine->nthreads < THREADS) {
		err = -pthread_create(&engine->thread[engine->nthreads], NULL, thread_main, engine);
		if (!err)
			pthread_setname_np(engine->thread[engine->nthreads++], "umbrafs-io");
	}
	return engine->nthreads ? 0 : err;
}

/* ---- for all ---------------------------------------------------------------------------------------------- */

int um_aio_open(const char *name, struct um_aio_engine **out)
{
	struct um_aio_engine *engine = calloc(1, sizeof(*engine));
	int err = 0;

	if (!engine)
		return -ENOMEM;
	pthread_mutex_init(&engine->lock, NULL);
	pthread_cond_init(&engine->work, NULL);
	pthread_cond_init(&engine->idle, NULL);
	engine->last = &engine->first;
	while (!err && engine->nrings < RINGS) {
		err = ring_open(engine, &engine->ring[engine->nrings]);
		if (!err)
			engine->nrings++;
	}
	if (engine->nrings)
		err = 0;
	else
		um_info("%s: no io_uring here (%s): threads do its work", name, strerror(-err));
	if (!engine->nrings)
		err = threads_open(engine);
	if (err) {
		um_aio_close(engine);
		return err;
	}
	*out = engine;
	return 0;
}

void um_aio_close(struct um_aio_engine *engine)
{
	if (!engine)
		return;
	pthread_mutex_lock(&engine->lock);
	while (engine->under_way)
		pthread_cond_wait(&engine->idle, &engine->lock);
	engine->stop = true;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
	while (engine->nrings)
		ring_close(&engine->ring[--engine->nrings]);
	while (engine->nthreads)
		pthread_join(engine->thread[--engine->nthreads], NULL);
	pthread_cond_destroy(&engine->idle);
	pthread_cond_destroy(&engine->work);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}

void um_aio_submit(struct um_aio_engine *engine, struct um_aio *list)
{
	struct um_aio *io;
	int n = 0;

	for (io = list; io; io = io->next, n++) {
		io->err = 0;
		io->at = 0;
		io->tries = 0;
	}
	if (!n)
		return;
	account(engine, n);
	if (!engine->nrings) {
		enqueue(engine, list);
		return;
	}
	put(&engine->ring[atomic_fetch_add(&engine->turn, 1) % engine->nrings], list);
}

void um_aio_here(struct um_aio_engine *engine, struct um_aio *io)
{
	io->err = 0;
	io->at = 0;
	io->tries = 0;
	account(engine, 1);
	carry_out(engine, io);
}
