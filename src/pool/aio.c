/* SPDX-License-Identifier: BSD-3-Clause */
/* Asynchronous I/O: see aio.h. First rings, then threads. */
#include "pool/aio.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pool/log.h"
#include "pool/polled.h"

#define RINGS 2u /* each with a thread that takes results and calls done(), which copies */
#define ENTRIES 128u
#define THREADS 8u    /* without io_uring */
#define TRIES_MAX 16u /* for one place, before EAGAIN is returned */

int (*um_aio_fault)(const struct um_aio *io, int result);
bool um_aio_refuse_ring;

/* Its thread performs all operations on the ring: results are then collected, in batches, where
 * they are waited for, instead of interrupting the submitting thread. */
struct ring {
	struct um_aio_engine *engine;
	struct io_uring uring;
	pthread_t thread;
	int wake; /* an eventfd, of which a read is always pending in the ring */
	uint64_t woken;
	atomic_uint under_way; /* requests */
	pthread_mutex_t lock;  /* protects what follows */
	pthread_cond_t opened;
	struct um_aio *first, **last;
	atomic_bool asleep; /* the thread waits for results, or is about to */
	bool stop, is_open;
	int err; /* of opening it */
};

struct um_aio_engine {
	unsigned nrings, nthreads;
	struct ring ring[RINGS];
	pthread_t thread[THREADS];
	/* Requests submitted and not done; the queue is for threads only. */
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	struct um_aio *first, **last;
	unsigned under_way;
	bool stop;
	struct um_polled *polled; /* for um_aio_here(); NULL: without */
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

static int call(const struct um_aio *io, struct um_polled *polled)
{
	char *buf = (char *)io->buf + io->at;
	off_t off = (off_t)(io->off + io->at);
	size_t len = io->len - io->at;
	ssize_t n = 0;

	switch (io->op) {
	case UM_AIO_READ:
		if (polled)
			return (int)um_polled_read(polled, io->fd, buf, len, off);
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

/* polled: for the calling thread itself; else NULL. */
static void carry_out(struct um_aio_engine *engine, struct um_aio *io, struct um_polled *polled)
{
	while (!take_result(io, call(io, polled)))
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
}

static void wake(struct ring *r)
{
	while (eventfd_write(r->wake, 1) && errno == EINTR)
		;
}

static void put(struct ring *r, struct um_aio *list, unsigned n)
{
	bool asleep;

	atomic_fetch_add(&r->under_way, n);
	pthread_mutex_lock(&r->lock);
	*r->last = list;
	while (*r->last)
		r->last = &(*r->last)->next;
	asleep = atomic_exchange(&r->asleep, false);
	pthread_mutex_unlock(&r->lock);
	if (asleep)
		wake(r);
}

/* What was submitted since; NULL: nothing, and the thread may wait. */
static struct um_aio *take(struct ring *r, bool *out_stop)
{
	struct um_aio *list;

	pthread_mutex_lock(&r->lock);
	list = r->first;
	r->first = NULL;
	r->last = &r->first;
	atomic_store(&r->asleep, !list);
	*out_stop = r->stop;
	pthread_mutex_unlock(&r->lock);
	return list;
}

/* Submits the read that a submitter completes to wake the thread. False: there is no room for it
 * now. */
static bool arm(struct ring *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	if (!sqe)
		return false;
	io_uring_prep_read(sqe, r->wake, &r->woken, sizeof(r->woken), 0);
	io_uring_sqe_set_data(sqe, NULL);
	return true;
}

/* Puts as many as fit into the submission queue. Returns the rest. */
static struct um_aio *prepare_all(struct ring *r, struct um_aio *list)
{
	struct io_uring_sqe *sqe;

	while (list && (sqe = io_uring_get_sqe(&r->uring))) {
		struct um_aio *next = list->next;

		prepare(sqe, list);
		list = next;
	}
	return list;
}

/* False: the read of the eventfd has ended. */
static bool take_results(struct ring *r)
{
	struct io_uring_cqe *cqe;
	bool armed = true;

	while (!io_uring_peek_cqe(&r->uring, &cqe)) {
		struct um_aio *io = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&r->uring, cqe);
		if (!io) {
			armed = false;
			continue;
		}
		atomic_fetch_sub(&r->under_way, 1);
		if (take_result(io, result))
			finish(r->engine, io);
		else
			carry_out(r->engine, io, NULL); /* rare: the rest by system calls */
	}
	return armed;
}

static void ring_serve(struct ring *r)
{
	struct um_aio *left = NULL;
	bool armed = false, stop = false;

	for (;;) {
		int n;

		if (!left)
			left = take(r, &stop);
		if (stop && !left)
			return; /* nothing is under way */
		if (!armed)
			armed = arm(r);
		if (left) {
			left = prepare_all(r, left);
			n = io_uring_submit_and_get_events(&r->uring);
		} else {
			n = io_uring_submit_and_wait(&r->uring, 1);
			atomic_store(&r->asleep, false);
		}
		/* The kernel accepts none for now: no memory, or results that were not taken
		 * yet. */
		if (n < 0 && n != -EINTR && !io_uring_cq_ready(&r->uring))
			usleep(1000);
		if (!take_results(r))
			armed = false;
	}
}

static int ring_init(struct ring *r)
{
	struct io_uring_params best = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
	struct io_uring_params plain = {0};
	int err = io_uring_queue_init_params(ENTRIES, &r->uring, &best);

	/* Before Linux 6.1. */
	return err == -EINVAL ? io_uring_queue_init_params(ENTRIES, &r->uring, &plain) : err;
}

static void *ring_main(void *arg)
{
	struct ring *r = arg;
	int err = ring_init(r);

	pthread_mutex_lock(&r->lock);
	r->err = err;
	r->is_open = true;
	pthread_cond_signal(&r->opened);
	pthread_mutex_unlock(&r->lock);
	if (!err) {
		ring_serve(r);
		io_uring_queue_exit(&r->uring);
	}
	return NULL;
}

static void ring_free(struct ring *r)
{
	close(r->wake);
	pthread_cond_destroy(&r->opened);
	pthread_mutex_destroy(&r->lock);
}

static int ring_open(struct um_aio_engine *engine, struct ring *r)
{
	int err;

	if (um_aio_refuse_ring)
		return -EPERM;
	r->wake = eventfd(0, EFD_CLOEXEC);
	if (r->wake < 0)
		return -errno;
	r->engine = engine;
	r->last = &r->first;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->opened, NULL);
	err = -pthread_create(&r->thread, NULL, ring_main, r);
	if (!err) {
		pthread_setname_np(r->thread, "umbrafs-ring");
		pthread_mutex_lock(&r->lock);
		while (!r->is_open)
			pthread_cond_wait(&r->opened, &r->lock);
		err = r->err;
		pthread_mutex_unlock(&r->lock);
		if (err)
			pthread_join(r->thread, NULL);
	}
	if (err)
		ring_free(r);
	return err;
}

/* Nothing is under way any more. */
static void ring_close(struct ring *r)
{
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_mutex_unlock(&r->lock);
	wake(r);
	pthread_join(r->thread, NULL);
	ring_free(r);
}

/* The one with less load; at low depth always the same, which is awake more often. */
static struct ring *ring_of(struct um_aio_engine *engine)
{
	struct ring *best = &engine->ring[0];

	for (unsigned i = 1; i < engine->nrings; i++)
		if (atomic_load(&engine->ring[i].under_way) < atomic_load(&best->under_way))
			best = &engine->ring[i];
	return best;
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
		carry_out(engine, io, NULL);
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
	um_polled_close(engine->polled);
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
	put(ring_of(engine), list, (unsigned)n);
}

void um_aio_here(struct um_aio_engine *engine, struct um_aio *io, bool may_poll)
{
	io->err = 0;
	io->at = 0;
	io->tries = 0;
	account(engine, 1);
	carry_out(engine, io, may_poll ? engine->polled : NULL);
}

void um_aio_poll(struct um_aio_engine *engine, uint64_t ns)
{
	if (engine->nrings) /* the kernel allows io_uring */
		engine->polled = um_polled_open(ns);
}
