/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The threads that serve requests.
 *
 * Most requests come from programs that do one thing after the other: the next one follows a few
 * microseconds after the reply. Waking a thread on an idle processor costs more than most requests
 * take to carry out, above all in a virtual machine. So a worker that has replied polls for a while
 * before it sleeps. Only one polls at a time, and only as long as polling has paid recently (struct
 * um_workers, poll_ns).
 *
 * While polling pays, only one or two workers wait for requests, including the polling one; the
 * others are parked. The kernel wakes a sleeping reader for each request, even if a polling one is
 * about to take it: if all of them read, each request would needlessly wake another thread, and of
 * several it wakes the one that has slept longest.
 *
 * While requests come one at a time, one worker waits: the one that has just replied. A request may
 * still take long, or wait for another one. So before one that is known for that, the worker calls
 * a parked one; and one of the parked is the deputy: every millisecond it checks whether the same
 * request has been carried out all the time while nobody waited, and then waits itself. While
 * requests come side by side (um_workers.crowd), or other threads owe answers, two wait, and a
 * worker that takes a request and leaves nobody waiting calls a parked one each time.
 */
#include "fuse/worker.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fuse/buffer.h"
#include "fuse/message.h"
#include "fuse/proto.h"
#include "fuse/remount.h"
#include "fuse/seam.h"
#include "pool/clock.h"
#include "pool/polled.h"

#define POLL_MIN_NS 4000
#define CROWD 8          /* of w->crowd: from here on requests come side by side; */
#define CROWD_MAX 64     /* then it is set to this, so that it takes a while to end */
#define CHECK_NS 1000000 /* how often the deputy does */
#define CHECKS_IDLE 5u   /* after so many that saw no request it sleeps until the next one */

struct um_workers {
	struct um_mount *m;
	pthread_t *threads;
	atomic_uint n;        /* requests ask for it while more are being started */
	uint64_t poll_max_ns; /* 0: never */
	/* How long to poll: doubled if a request came, halved if none did. */
	_Atomic uint64_t poll_ns;
	atomic_bool polling; /* a worker is polling */
	/* How often workers that had just replied found the next request there already, less how
	 * often they did not. */
	_Atomic int crowd;
	atomic_uint waiting;        /* workers that poll or read */
	atomic_uint parked;         /* workers that sleep until they are called, and the deputy */
	_Atomic uint64_t taken;     /* requests, and waits that ended without any */
	_Atomic uint64_t takeovers; /* of the deputy, as nobody waited */
	atomic_bool deputy_sleeps;  /* until a request leaves nobody waiting */
	pthread_mutex_t lock;       /* protects what follows */
	pthread_cond_t called, deputy_called;
	unsigned calls; /* parked workers that may go */
	/* While the lock is free and somebody is parked, this is true, or a sleeper has been signalled
	 * who will find a call or become deputy. */
	bool has_deputy;
	bool ended;
};

/* ---- one request ----------------------------------------------------------------------------------- */

/* A write request has 80 bytes of headers and then data, which is to begin on a page. */
#define WRITE_HEADERS (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

static char *buffer_new(struct fuse_buf *out)
{
	char *map = um_buffer_new();

	if (map)
		*out = (struct fuse_buf){.mem = map + UM_BUFFER_DATA - WRITE_HEADERS};
	return map;
}

/* 1: a request is in buf; 0: there will be none; -EAGAIN: none this time. */
static int receive(struct um_mount *m, struct fuse_buf *buf)
{
	int n = fuse_session_receive_buf(m->se, buf);

	if (n == -EINTR || n == -EAGAIN)
		return -EAGAIN;
	if (n < 0)
		um_message(UMBRA_LOG_ERROR, "reading /dev/fuse failed: %s", strerror(-n));
	return n > 0;
}

void um_carry_out(struct um_mount *m, struct fuse_buf *buf)
{
	bool entered;

	atomic_fetch_add_explicit(&m->requests, 1, memory_order_relaxed);
	entered = um_gate_enter(m, &m->gate);
	if (!um_seam_request(m, buf->mem, buf->size))
		fuse_session_process_buf(m->se, buf);
	um_gate_leave(&m->gate, entered);
}

int um_answer_init(struct um_mount *m)
{
	struct fuse_buf buf;
	char *map = buffer_new(&buf);
	int ret = 1;

	if (!map)
		return -ENOMEM;
	while (!m->inited && !fuse_session_exited(m->se) && ret) {
		ret = receive(m, &buf);
		if (ret > 0)
			um_carry_out(m, &buf);
	}
	munmap(map, UM_BUFFER_BYTES);
	return m->inited ? 0 : -EIO;
}

/* ---- who waits ------------------------------------------------------------------------------------- */

/* A caller waits for a reply that another thread will send: that one needs the processor more. */
static bool has_handed_over(const struct um_mount *m)
{
	return atomic_load_explicit(&m->fetching, memory_order_relaxed) ||
	       atomic_load_explicit(&m->late, memory_order_relaxed);
}

static bool comes_one_at_a_time(const struct um_workers *w)
{
	return atomic_load_explicit(&w->crowd, memory_order_relaxed) < CROWD &&
	       !has_handed_over(w->m);
}

/* May a request take long, or wait for another one? A wrong answer costs the time until the deputy
 * steps in, or a call in vain. (fsync is either quick or handed over.) */
static bool may_take_long(const struct fuse_buf *buf)
{
	switch (((const struct fuse_in_header *)buf->mem)->opcode) {
	case FUSE_FALLOCATE:
	case FUSE_IOCTL:
	case FUSE_COPY_FILE_RANGE:
	case UM_OP_COPY_FILE_RANGE_64:
	case UM_OP_SYNCFS:
	case FUSE_DESTROY:
		return true;
	default:
		return false;
	}
}

/* The time between two checks of the deputy. False: it was woken before. Under the lock, like the
 * other two for the deputy. */
static bool deputy_pause(struct um_workers *w)
{
	struct timespec until = um_after_ns(CHECK_NS);

	return pthread_cond_timedwait(&w->deputy_called, &w->lock, &until) == ETIMEDOUT;
}

/* Until a request leaves nobody waiting. Whoever takes one looks at deputy_sleeps afterwards. */
static void deputy_sleep(struct um_workers *w)
{
	atomic_store(&w->deputy_sleeps, true);
	while (atomic_load(&w->deputy_sleeps) && atomic_load(&w->waiting) && !w->ended && !w->calls)
		pthread_cond_wait(&w->deputy_called, &w->lock);
	atomic_store(&w->deputy_sleeps, false);
}

/* Returns when it is to wait for requests: called, or as nobody does. */
static void be_deputy(struct um_workers *w)
{
	unsigned idle = 0;
	bool needed = false;

	w->has_deputy = true;
	while (!w->ended && !w->calls && !needed) {
		uint64_t taken = atomic_load(&w->taken);

		if (idle < CHECKS_IDLE) {
			bool whole = deputy_pause(w), nobody = !atomic_load(&w->waiting);

			if (atomic_load(&w->taken) != taken)
				idle = 0;
			else if (!nobody)
				idle++;
			else
				needed = whole;
		} else {
			deputy_sleep(w);
			idle = 0;
		}
	}
	atomic_fetch_add(&w->takeovers, needed);
	w->has_deputy = false;
	if (atomic_load(&w->parked) > 1)
		pthread_cond_signal(&w->called); /* who is the next one */
}

/* Sleeps until called. Not if nobody waits: whoever took the last request may not have seen any
 * parked yet. (Only checked here: who has been parked must not go without another one having become
 * deputy.) */
static void park(struct um_workers *w)
{
	pthread_mutex_lock(&w->lock);
	atomic_fetch_add(&w->parked, 1);
	if (atomic_load(&w->waiting)) {
		while (!w->ended && !w->calls && w->has_deputy)
			pthread_cond_wait(&w->called, &w->lock);
		if (!w->ended && !w->calls)
			be_deputy(w);
	}
	if (w->calls)
		w->calls--;
	atomic_fetch_sub(&w->parked, 1);
	pthread_mutex_unlock(&w->lock);
}

/* True: at once, without having been parked. */
static bool begin_waiting(struct um_workers *w)
{
	unsigned n = atomic_load(&w->waiting);
	bool at_once = true;

	for (;;) {
		if (n >= (comes_one_at_a_time(w) ? 1u : 2u) &&
			atomic_load_explicit(&w->poll_ns, memory_order_relaxed) &&
			!fuse_session_exited(w->m->se)) {
			park(w);
			at_once = false;
			n = atomic_load(&w->waiting);
		} else if (atomic_compare_exchange_weak(&w->waiting, &n, n + 1)) {
			return at_once;
		}
	}
}

static void call_parked(struct um_workers *w)
{
	unsigned parked;

	pthread_mutex_lock(&w->lock);
	parked = atomic_load(&w->parked);
	if (w->calls < parked) {
		w->calls++;
		pthread_cond_signal(w->has_deputy && parked == 1 ? &w->deputy_called : &w->called);
	}
	pthread_mutex_unlock(&w->lock);
}

static void wake_deputy(struct um_workers *w)
{
	pthread_mutex_lock(&w->lock);
	atomic_store(&w->deputy_sleeps, false);
	pthread_mutex_unlock(&w->lock);
	pthread_cond_signal(&w->deputy_called);
}

/* ret: of receive(). */
static void end_waiting(struct um_workers *w, const struct fuse_buf *buf, int ret)
{
	bool polling_pays = atomic_load_explicit(&w->poll_ns, memory_order_relaxed);

	atomic_fetch_add(&w->taken, 1);
	if (atomic_fetch_sub(&w->waiting, 1) > 1 || !atomic_load(&w->parked) || ret == -EAGAIN)
		return;
	if (ret <= 0 || !polling_pays || !comes_one_at_a_time(w) || may_take_long(buf))
		call_parked(w);
	else if (atomic_load(&w->deputy_sleeps))
		wake_deputy(w);
}

/* ---- polling --------------------------------------------------------------------------------------- */

/* Asked by one that waits itself. */
static bool others_are_busy(const struct um_workers *w)
{
	return atomic_load(&w->waiting) + atomic_load(&w->parked) < atomic_load(&w->n);
}

static void set_poll(struct um_workers *w, uint64_t ns)
{
	if (ns > w->poll_max_ns)
		ns = w->poll_max_ns;
	atomic_store_explicit(&w->poll_ns, ns < POLL_MIN_NS ? 0 : ns, memory_order_relaxed);
}

static bool is_there(const struct um_workers *w)
{
	struct pollfd dev = {.fd = w->m->dev, .events = POLLIN};

	return poll(&dev, 1, 0) > 0;
}

/* A worker has just replied: was the next request there already? */
static void note_crowd(struct um_workers *w, bool there)
{
	int was = atomic_load_explicit(&w->crowd, memory_order_relaxed);
	int is = was + (there ? 2 : -1);

	if (there && was < CROWD && is >= CROWD)
		is = CROWD_MAX;
	if (is >= 0 && is <= CROWD_MAX)
		atomic_store_explicit(&w->crowd, is, memory_order_relaxed);
}

/* False: none has come in that time. */
static bool poll_for(struct um_workers *w, uint64_t limit)
{
	uint64_t start = um_now_ns();
	bool came;

	do
		came = is_there(w);
	while (!came && um_now_ns() - start < limit && !has_handed_over(w->m));
	return came;
}

/*
 * True: the time is up, and no request has come. A worker that has slept yields before it polls: it
 * may have come to the processor of its caller, who would have to wait for the end of the polling.
 * (To yield each time would be wrong: the scheduler holds it against the thread.)
 */
static bool poll_in_vain(struct um_workers *w, bool has_just_replied)
{
	uint64_t limit = atomic_load_explicit(&w->poll_ns, memory_order_relaxed);
	bool came, slept = um_slept;

	um_slept = false;
	if (!limit || has_handed_over(w->m))
		return false;
	came = is_there(w);
	if (has_just_replied)
		note_crowd(w, came);
	if (!came) {
		if (others_are_busy(w)) {
			/* Requests come side by side: whoever carries one out needs the processor
			 * more. */
			set_poll(w, limit / 2);
			return false;
		}
		if (slept)
			sched_yield();
		if (atomic_exchange(&w->polling, true))
			return false;
		came = poll_for(w, limit);
		atomic_store(&w->polling, false);
	}
	set_poll(w, came ? 2 * limit : limit / 2);
	return !came;
}

static int wait_for_request(struct um_workers *w, struct fuse_buf *buf, bool has_just_replied)
{
	bool vain = w->poll_max_ns && poll_in_vain(w, has_just_replied);
	uint64_t start = 0;
	int ret;

	/* A request that comes soon while nobody polls: polling would have paid. */
	if (!vain && w->poll_max_ns && !atomic_load_explicit(&w->poll_ns, memory_order_relaxed))
		start = um_now_ns();
	ret = receive(w->m, buf);
	if (start && um_now_ns() - start < w->poll_max_ns && !others_are_busy(w))
		set_poll(w, w->poll_max_ns / 2);
	return ret;
}

/* ---- the threads ----------------------------------------------------------------------------------- */

static void *worker(void *arg)
{
	struct um_workers *w = arg;
	struct um_mount *m = w->m;
	struct fuse_buf buf;
	char *map = buffer_new(&buf);
	bool huge = false, at_once;
	int ret = 1;

	if (!map)
		um_message(UMBRA_LOG_ERROR, "no memory for a worker's buffer");
	while (map && ret && !fuse_session_exited(m->se)) {
		at_once = begin_waiting(w);
		ret = wait_for_request(w, &buf, ret > 0 && at_once);
		end_waiting(w, &buf, ret);
		if (ret > 0)
			um_carry_out(m, &buf);
		if (ret > 0 && !huge && buf.size >= UM_BUFFER_LARGE) {
			um_buffer_make_huge(map);
			huge = true;
		}
	}
	if (map)
		munmap(map, UM_BUFFER_BYTES);
	fuse_session_exit(m->se);
	eventfd_write(m->ended, 1);
	return NULL;
}

int um_workers_start(struct um_mount *m, struct um_workers **out)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct um_workers *w = calloc(1, sizeof(*w));
	unsigned n = m->opt->threads;
	int err = 0;

	if (!n)
		n = cpus > 2 ? 2 * (unsigned)cpus : 4;
	if (w)
		w->threads = calloc(n, sizeof(*w->threads));
	if (!w || !w->threads) {
		free(w);
		return -ENOMEM;
	}
	w->m = m;
	w->poll_max_ns = um_may_poll() && !m->uring ? m->opt->fs.busy_poll * 1000ull : 0;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->called, NULL);
	um_cond_init(&w->deputy_called);
	*out = w;
	while (w->n < n && !err) {
		err = pthread_create(&w->threads[w->n], NULL, worker, w);
		if (!err)
			pthread_setname_np(w->threads[w->n++], "umbrafs-work");
	}
	if (err && w->n)
		um_message(UMBRA_LOG_WARN, "only %u of %u threads could be started: %s", w->n, n,
			strerror(err));
	return w->n ? 0 : -err;
}

static void no_action(int sig)
{
	(void)sig;
}

void um_threads_end(const pthread_t *threads, unsigned n)
{
	const struct sigaction sa = {.sa_handler = no_action};

	sigaction(SIGUSR1, &sa, NULL);
	for (unsigned i = 0; i < n; i++) {
		struct timespec until;

		do {
			pthread_kill(threads[i], SIGUSR1);
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_nsec += 20000000;
			if (until.tv_nsec >= 1000000000) {
				until.tv_nsec -= 1000000000;
				until.tv_sec++;
			}
		} while (pthread_timedjoin_np(threads[i], NULL, &until) == ETIMEDOUT);
	}
}

void um_workers_stop(struct um_workers *w)
{
	if (!w)
		return;
	fuse_session_exit(w->m->se);
	pthread_mutex_lock(&w->lock);
	w->ended = true;
	pthread_cond_broadcast(&w->called);
	pthread_cond_broadcast(&w->deputy_called);
	pthread_mutex_unlock(&w->lock);
	um_threads_end(w->threads, w->n);
	w->n = 0;
}

void um_workers_free(struct um_workers *w)
{
	if (!w)
		return;
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->called);
	pthread_cond_destroy(&w->deputy_called);
	free(w->threads);
	free(w);
}

unsigned um_workers_count(const struct um_workers *w)
{
	return w ? atomic_load(&w->n) : 0;
}

uint64_t um_workers_takeovers(const struct um_workers *w)
{
	return w ? atomic_load(&w->takeovers) : 0;
}

bool um_worker_may_wait(const struct um_mount *m)
{
	return m->uring || um_workers_count(m->workers) > 1;
}
