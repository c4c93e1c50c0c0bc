/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FUSE over io_uring: see uring.h.
 *
 * Each thread has a ring of its own with one entry, so that no request is behind another one that
 * takes long. An entry is in use until its request has been answered; if others answer it, its
 * thread waits for that. Requests may wait for each other (a direct write for the pages of a
 * mapping, say), so there is no limit to what is in flight other than ENTRIES_MAX: whoever takes the
 * last free entry of a queue adds one. The kernel uses the entry that was freed last, so those that
 * a burst has added are rarely touched afterwards.
 *
 * What a caller sleeps for is best carried out on its processor. Large requests and many at once are
 * rather sent ahead: while one part of a stream is copied to the reader, the next can be read
 * elsewhere. So threads are pinned to their queue's processor while it gets small and few ones.
 */
#include "fuse/uring.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/buffer.h"
#include "fuse/message.h"
#include "fuse/proto.h"
#include "fuse/worker.h"
#include "pool/clock.h"
#include "pool/guard.h"

#define SWITCH "/sys/module/fuse/parameters/enable_uring"
#define POSSIBLE "/sys/devices/system/cpu/possible"
#define ENTRIES_MAX 1024u
#define PIN_AFTER 32u /* requests that are small, and fewer at once than: */
#define CROWD 8u
#define HUGE_MAX 16u       /* entries that get huge pages */
#define KICKS (1ull << 62) /* unique numbers that the kernel's requests will not reach */
#define KICK_NS 20000000   /* a request waits for at most about so long for a free entry */

/* Of a processor. */
struct queue {
	unsigned number;
	atomic_uint idle;  /* entries that wait for a request, or will soon */
	atomic_uint busy;  /* entries in use */
	atomic_uint quiet; /* requests since one that was large or in a crowd, up to PIN_AFTER */
	_Atomic uint64_t kicked; /* when, in ns */
	atomic_bool usable;      /* threads may be pinned to it */
};

struct entry {
	struct um_uring *u;
	struct queue *queue;
	unsigned number;
	struct io_uring ring;
	pthread_t thread;
	bool started, registered, closed;
	char *buffer; /* headers at its beginning; payload at UM_BUFFER_DATA */
	bool huge;
	bool pinned;
	uint64_t node; /* that the request is about */
	bool answered;
	/* For an answer by another thread. */
	pthread_mutex_t lock;
	pthread_cond_t cond;
};

struct um_uring {
	struct um_mount *m;
	cpu_set_t cpus; /* that we may run on */
	struct queue *queues;
	unsigned nqueues;
	pthread_mutex_t lock;     /* of adding entries */
	bool ended, full;         /* no more are added; it has been reported that one cannot be */
	_Atomic uint64_t regular; /* some regular file's node */
	atomic_uint n;
	struct entry *entries[ENTRIES_MAX];
	/* Unique numbers of the requests in the entries. 0: none, or answered. */
	_Atomic uint64_t unique[ENTRIES_MAX];
};

/* The entry whose request this thread carries out. */
static _Thread_local struct entry *present;

/* ---- replies ----------------------------------------------------------------------------------------- */

static struct um_uring_headers *headers_of(const struct entry *e)
{
	return (struct um_uring_headers *)e->buffer;
}

static struct entry *entry_of(struct um_uring *u, uint64_t unique)
{
	unsigned n = atomic_load(&u->n);

	if (present && present->u == u && atomic_load(&u->unique[present->number]) == unique)
		return present;
	for (unsigned i = 0; i < n; i++)
		if (atomic_load(&u->unique[i]) == unique)
			return u->entries[i];
	return NULL;
}

/* Puts the pieces of a reply together. Those that are in the payload already (um_uring_memory) lie
 * at their places or behind them. The length, or -EIO: memory of the pool has failed. */
static ssize_t gather(char *payload, const struct iovec *iov, int count)
{
	size_t len = 0;

	um_guard_check(); /* a mark left by an earlier load is not about these */
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len > UM_MAX_IO - len)
			return -EIO;
		if (iov[i].iov_len && payload + len != iov[i].iov_base)
			memmove(payload + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	return um_guard_check() ? -EIO : (ssize_t)len;
}

static void fill(struct entry *e, const struct iovec *iov, int count)
{
	struct um_uring_headers *headers = headers_of(e);
	struct fuse_out_header *out = (void *)headers->in_out;
	ssize_t len = 0;

	memcpy(out, iov[0].iov_base, sizeof(*out));
	if (!out->error)
		len = gather(e->buffer + UM_BUFFER_DATA, iov + 1, count - 1);
	if (len < 0) {
		out->error = (int)len;
		len = 0;
	}
	headers->payload_size = (uint32_t)len;
	out->len = (uint32_t)(sizeof(*out) + (size_t)len);
}

bool um_uring_reply(struct um_uring *u, const struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct entry *e = u && out->unique ? entry_of(u, out->unique) : NULL;

	if (!e)
		return false;
	atomic_store(&u->unique[e->number], 0);
	fill(e, iov, count);
	pthread_mutex_lock(&e->lock);
	e->answered = true;
	if (e != present)
		pthread_cond_signal(&e->cond);
	pthread_mutex_unlock(&e->lock);
	return true;
}

void *um_uring_memory(void)
{
	return present ? present->buffer + UM_BUFFER_DATA : NULL;
}

/* ---- requests ---------------------------------------------------------------------------------------- */

/* Of the data that it is about. */
static size_t size_of(const struct um_uring_headers *headers)
{
	const struct fuse_in_header *in = (const void *)headers->in_out;
	const struct fuse_read_in *read = (const void *)headers->op_in;

	return in->opcode == FUSE_READ ? read->size : in->len;
}

static int pin_to(const struct queue *q)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(q->number, &one);
	return sched_setaffinity(0, sizeof(one), &one);
}

static void choose_cpu(struct entry *e, bool quiet)
{
	struct queue *q = e->queue;
	unsigned n = quiet ? atomic_load_explicit(&q->quiet, memory_order_relaxed) + 1 : 0;
	bool pin;

	if (n <= PIN_AFTER)
		atomic_store_explicit(&q->quiet, n, memory_order_relaxed);
	pin = n >= PIN_AFTER && atomic_load_explicit(&q->usable, memory_order_relaxed);
	if (pin == e->pinned)
		return;
	if (pin ? pin_to(q) : sched_setaffinity(0, sizeof(e->u->cpus), &e->u->cpus))
		atomic_store(&q->usable, false); /* taken from us meanwhile */
	else
		e->pinned = pin;
}

/* libfuse expects header, argument and payload in one piece, so the former two are copied to where
 * the latter begins. */
static int arrange(struct entry *e, struct fuse_buf *out)
{
	const struct um_uring_headers *headers = headers_of(e);
	const struct fuse_in_header *in = (const void *)headers->in_out;
	size_t payload = headers->payload_size, arg = in->len - sizeof(*in) - payload;
	char *data = e->buffer + UM_BUFFER_DATA;

	if (in->len < sizeof(*in) + payload || arg > sizeof(headers->op_in))
		return -EPROTO;
	memcpy(data - arg, headers->op_in, arg);
	memcpy(data - arg - sizeof(*in), in, sizeof(*in));
	*out = (struct fuse_buf){.mem = data - arg - sizeof(*in), .size = in->len};
	return 0;
}

static void answer(struct entry *e, int err)
{
	const struct fuse_in_header *in = (const void *)headers_of(e)->in_out;
	struct fuse_out_header out = {.len = sizeof(out), .error = err, .unique = in->unique};

	um_uring_reply(e->u, &(struct iovec){&out, sizeof(out)}, 1);
}

static void grow(struct um_uring *u, struct queue *q);

/* Has the kernel send a reply to a request for none of the content of node. */
static int notify(struct um_uring *u, uint64_t node)
{
	static atomic_uint_fast64_t number = 1;
	struct fuse_notify_retrieve_out what = {
		.notify_unique = KICKS | atomic_fetch_add(&number, 1) << 1, .nodeid = node};
	struct fuse_out_header out = {
		.len = sizeof(out) + sizeof(what), .error = FUSE_NOTIFY_RETRIEVE};
	struct iovec iov[2] = {{&out, sizeof(out)}, {&what, sizeof(what)}};

	return writev(u->m->dev, iov, 2) < 0 ? -errno : 0;
}

/*
 * The kernel hands out a request that waits in a queue when another one is answered there, but not
 * when an entry is added, nor always when it could (Linux 6.18: fuse_uring_do_register() and
 * fuse_uring_flush_bg()). If those in the entries wait for it, none ever is. So whoever has waited
 * for long has a request of no meaning put into its queue and answered: the reply to a notification,
 * which goes to the processor that this is sent from, and must be about a regular file that the
 * kernel knows; others do not wait for requests.
 */
static void kick(struct entry *e)
{
	uint64_t now = um_now_ns(), last = atomic_load(&e->queue->kicked);

	if (now - last < KICK_NS || !atomic_compare_exchange_strong(&e->queue->kicked, &last, now))
		return;
	if (pin_to(e->queue) ||
		(notify(e->u, e->node) && notify(e->u, atomic_load(&e->u->regular))))
		atomic_store(&e->queue->kicked, last); /* another one may succeed */
	if (!e->pinned)
		sched_setaffinity(0, sizeof(e->u->cpus), &e->u->cpus);
}

/* False: the session ended before. */
static bool await_answer(struct entry *e)
{
	struct fuse_session *se = e->u->m->se;
	struct timespec until;
	bool answered;

	pthread_mutex_lock(&e->lock);
	while (!e->answered && !fuse_session_exited(se)) {
		until = um_after_ns(KICK_NS);
		if (pthread_cond_timedwait(&e->cond, &e->lock, &until) != ETIMEDOUT)
			continue;
		pthread_mutex_unlock(&e->lock);
		kick(e);
		pthread_mutex_lock(&e->lock);
	}
	answered = e->answered;
	pthread_mutex_unlock(&e->lock);
	return answered;
}

/* Carries out the request in e. False: the session ended before it was answered. */
static bool serve(struct entry *e)
{
	const struct um_uring_headers *headers = headers_of(e);
	const struct fuse_in_header *in = (const void *)headers->in_out;
	struct um_uring *u = e->u;
	struct queue *q = e->queue;
	bool large = size_of(headers) >= UM_BUFFER_LARGE;
	struct fuse_buf buf;

	if (atomic_fetch_sub(&q->idle, 1) == 1)
		grow(u, q);
	choose_cpu(e, atomic_fetch_add(&q->busy, 1) < CROWD && !large);
	if (large && !e->huge && e->number < HUGE_MAX) {
		um_buffer_make_huge(e->buffer);
		e->huge = true;
	}
	e->answered = false;
	e->node = in->nodeid;
	if (in->opcode == FUSE_READ || in->opcode == FUSE_WRITE)
		atomic_store_explicit(&u->regular, in->nodeid, memory_order_relaxed);
	atomic_store(&u->unique[e->number], in->unique);
	present = e;
	if (in->opcode == FUSE_NOTIFY_REPLY)
		answer(e, 0); /* to kick() */
	else if (arrange(e, &buf))
		answer(e, -EIO);
	else
		um_carry_out(u->m, &buf);
	present = NULL;
	if (!await_answer(e))
		return false;
	atomic_fetch_sub(&q->busy, 1);
	atomic_fetch_add(&q->idle, 1);
	return true;
}

/* ---- the ring of an entry ---------------------------------------------------------------------------- */

/* Enabled by the thread that will use it, and usable by no other one. */
static int ring_init(struct io_uring *ring)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SQE128 | IORING_SETUP_R_DISABLED |
						  IORING_SETUP_SINGLE_ISSUER |
						  IORING_SETUP_DEFER_TASKRUN};

	return io_uring_queue_init_params(1, ring, &params);
}

/* liburing 2.3 declares a function for it and lacks it. */
static int ring_enable(const struct io_uring *ring)
{
	return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

/* -EBUSY: the kernel has not taken the command before, and there is room for one. */
static int prepare(struct entry *e, unsigned op, const struct iovec *iov, unsigned n)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring);
	struct um_uring_cmd cmd = {
		.qid = (uint16_t)e->queue->number, .commit_id = headers_of(e)->commit_id};

	if (!sqe)
		return -EBUSY;
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = e->u->m->dev;
	sqe->addr = (uintptr_t)iov;
	sqe->len = n;
	sqe->cmd_op = op;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	return 0;
}

/* Submits, and waits for the next request. -EINTR: not yet; other errors: there will be none. */
static int await(struct entry *e)
{
	struct io_uring_cqe *cqe;
	int ret = io_uring_submit_and_wait(&e->ring, 1);

	if (io_uring_peek_cqe(&e->ring, &cqe)) {
		if (ret == -EAGAIN || ret == -EBUSY)
			usleep(1000); /* no memory, for now */
		return ret < 0 && ret != -EAGAIN && ret != -EBUSY ? ret : -EINTR;
	}
	ret = cqe->res;
	io_uring_cqe_seen(&e->ring, cqe);
	return ret == -EINTR ? -EIO : ret;
}

/* Returns how it ended. */
static int serve_all(struct entry *e)
{
	const struct iovec iov[2] = {{e->buffer, sizeof(struct um_uring_headers)},
		{e->buffer + UM_BUFFER_DATA, UM_MAX_IO}};
	int ret = ring_enable(&e->ring);

	if (!ret)
		ret = prepare(e, UM_URING_REGISTER, iov, 2);
	while ((ret >= 0 || ret == -EINTR) && !fuse_session_exited(e->u->m->se)) {
		ret = await(e);
		if (ret < 0)
			continue;
		e->registered = true;
		if (!serve(e))
			return -ENOTCONN;
		ret = prepare(e, UM_URING_COMMIT_AND_FETCH, NULL, 0);
	}
	return ret;
}

static bool is_end(int err)
{
	return err == -ENOTCONN || err == -ECONNABORTED || err == -ENODEV || err == -ECANCELED;
}

static void complain_once(struct um_uring *u, int err)
{
	if (!u->full)
		um_message(UMBRA_LOG_WARN, "no more requests in flight over io_uring than %u: %s",
			u->n, strerror(-err));
	u->full = true;
}

static void *entry_main(void *arg)
{
	struct entry *e = arg;
	struct um_uring *u = e->u;
	int ret = serve_all(e);

	if (!e->registered && !is_end(ret) && !fuse_session_exited(u->m->se)) {
		/* The others go on, or if it was one of the first, the kernel uses /dev/fuse. */
		atomic_fetch_sub(&e->queue->idle, 1);
		pthread_mutex_lock(&u->lock);
		complain_once(u, ret);
		pthread_mutex_unlock(&u->lock);
		return NULL;
	}
	if (ret < 0 && !is_end(ret) && !fuse_session_exited(u->m->se))
		um_message(UMBRA_LOG_ERROR, "FUSE over io_uring failed: %s", strerror(-ret));
	fuse_session_exit(u->m->se);
	eventfd_write(u->m->ended, 1);
	return NULL;
}

/* ---- entries ----------------------------------------------------------------------------------------- */

/* Until then the kernel may put requests into it. */
static void entry_close(struct entry *e)
{
	if (!e->closed)
		io_uring_queue_exit(&e->ring);
	e->closed = true;
}

static void entry_free(struct entry *e)
{
	entry_close(e);
	pthread_cond_destroy(&e->cond);
	pthread_mutex_destroy(&e->lock);
	munmap(e->buffer, UM_BUFFER_BYTES);
	free(e);
}

static struct entry *entry_new(struct um_uring *u, struct queue *q, int *out_err)
{
	struct entry *e = calloc(1, sizeof(*e));
	pthread_condattr_t clock;

	*out_err = -ENOMEM;
	if (!e)
		return NULL;
	*e = (struct entry){.u = u, .queue = q, .buffer = um_buffer_new()};
	if (e->buffer)
		*out_err = ring_init(&e->ring);
	if (!*out_err) {
		pthread_condattr_init(&clock);
		pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
		pthread_cond_init(&e->cond, &clock);
		pthread_condattr_destroy(&clock);
		pthread_mutex_init(&e->lock, NULL);
		return e;
	}
	if (e->buffer)
		munmap(e->buffer, UM_BUFFER_BYTES);
	free(e);
	return NULL;
}

/* Adds an entry, of which the caller has checked that there is room for it. lock is held, or nobody
 * else there yet. */
static int add(struct um_uring *u, struct queue *q)
{
	unsigned n = atomic_load(&u->n);
	int err;
	struct entry *e = entry_new(u, q, &err);

	if (!e)
		return err;
	e->number = n;
	atomic_fetch_add(&q->idle, 1);
	u->entries[n] = e;
	atomic_store(&u->n, n + 1);
	return 0;
}

/* The last one, which was not started: nobody has looked at it, as it has no request. */
static void take_back(struct um_uring *u, struct queue *q)
{
	unsigned n = atomic_load(&u->n) - 1;

	atomic_store(&u->n, n);
	atomic_fetch_sub(&q->idle, 1);
	entry_free(u->entries[n]);
	u->entries[n] = NULL;
}

static int start(struct entry *e)
{
	int err = pthread_create(&e->thread, NULL, entry_main, e);

	e->started = !err;
	if (!err)
		pthread_setname_np(e->thread, "umbrafs-ring");
	return -err;
}

static void grow(struct um_uring *u, struct queue *q)
{
	int err = 0;

	pthread_mutex_lock(&u->lock);
	if (!atomic_load(&q->idle) && !u->ended) {
		err = u->n < ENTRIES_MAX ? add(u, q) : -ENOSPC;
		if (!err) {
			err = start(u->entries[u->n - 1]);
			if (err)
				take_back(u, q);
		}
	}
	if (err)
		complain_once(u, err);
	pthread_mutex_unlock(&u->lock);
}

/* ---- the whole -------------------------------------------------------------------------------------- */

void um_uring_switch_on(const struct um_mount *m)
{
	FILE *f = m->opt->uring ? fopen(SWITCH, "we") : NULL;

	if (f) {
		fputs("Y\n", f);
		fclose(f);
	}
}

/* The kernel has a queue for each processor that may ever be there. 0: they are not numbered from 0
 * without gaps. */
static unsigned possible_cpus(void)
{
	char text[64] = "", end = 0;
	FILE *f = fopen(POSSIBLE, "re");
	unsigned last = 0;

	if (f) {
		if (!fgets(text, sizeof(text), f))
			text[0] = 0;
		fclose(f);
	}
	if (!strcmp(text, "0\n"))
		return 1;
	return sscanf(text, "0-%u%c", &last, &end) == 2 && end == '\n' ? last + 1 : 0;
}

static int uring_new(struct um_mount *m, struct um_uring **out)
{
	struct um_uring *u = calloc(1, sizeof(*u));
	int err = 0;

	*out = u;
	if (!u)
		return -ENOMEM;
	u->m = m;
	pthread_mutex_init(&u->lock, NULL);
	u->nqueues = possible_cpus();
	u->queues = calloc(u->nqueues ? u->nqueues : 1, sizeof(*u->queues));
	if (!u->queues)
		return -ENOMEM;
	if (!u->nqueues || u->nqueues > ENTRIES_MAX / 2)
		return -ENOSYS;
	/* Each queue must be reachable: see kick(). */
	if (sched_getaffinity(0, sizeof(u->cpus), &u->cpus) ||
		CPU_COUNT(&u->cpus) < sysconf(_SC_NPROCESSORS_ONLN))
		return -EXDEV;
	for (unsigned i = 0; !err && i < u->nqueues; i++) {
		u->queues[i].number = i;
		u->queues[i].usable = i < CPU_SETSIZE && CPU_ISSET(i, &u->cpus);
		err = add(u, &u->queues[i]);
	}
	return err;
}

void um_uring_offer(struct um_mount *m)
{
	int err;

	if (!m->opt->uring)
		return;
	err = m->offered & UM_INIT_OVER_IO_URING ? uring_new(m, &m->uring) : -EOPNOTSUPP;
	if (!err)
		return;
	um_message(UMBRA_LOG_WARN,
		"no FUSE over io_uring here (%s): requests come through /dev/fuse",
		err == -EXDEV ? "umbrafs may not run on all processors" : strerror(-err));
	um_uring_free(m->uring);
	m->uring = NULL;
}

/* Threads that a pinned one starts, for whatever purpose, are not to be pinned with it. */
static void set_default_cpus(const cpu_set_t *cpus)
{
	pthread_attr_t attr;

	if (pthread_getattr_default_np(&attr))
		return;
	if (!pthread_attr_setaffinity_np(&attr, sizeof(*cpus), cpus))
		pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
}

int um_uring_start(struct um_uring *u)
{
	int err = 0;

	if (!u)
		return 0;
	set_default_cpus(&u->cpus);
	pthread_mutex_lock(&u->lock);
	for (unsigned i = 0; !err && i < u->n; i++)
		err = start(u->entries[i]);
	pthread_mutex_unlock(&u->lock);
	return err;
}

void um_uring_stop(struct um_uring *u)
{
	if (!u)
		return;
	fuse_session_exit(u->m->se);
	pthread_mutex_lock(&u->lock);
	u->ended = true;
	pthread_mutex_unlock(&u->lock);
	for (unsigned i = 0; i < u->n; i++) {
		if (u->entries[i]->started)
			um_threads_end(&u->entries[i]->thread, 1);
		entry_close(u->entries[i]);
	}
}

void um_uring_free(struct um_uring *u)
{
	if (!u)
		return;
	for (unsigned i = 0; i < u->n; i++)
		entry_free(u->entries[i]);
	pthread_mutex_destroy(&u->lock);
	free(u->queues);
	free(u);
}

unsigned um_uring_threads(const struct um_uring *u)
{
	return u ? atomic_load(&u->n) : 0;
}
