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
 * While polling pays, at most WAITING_MAX workers wait for requests, including the polling one; the others are parked.
 * The kernel wakes a sleeping reader for each request, even if a polling one is about to take it:
 * if all of them read, each request would needlessly wake another thread. A worker that takes a
 * request and leaves nobody waiting first calls a parked worker, so a request that takes long, or
 * waits for another one, does not keep others from being served.
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

#define WAITING_MAX 2u
#define POLL_MIN_NS 4000

struct um_workers {
	struct um_mount *m;
	pthread_t *threads;
	atomic_uint n;        /* requests ask for it while more are being started */
	uint64_t poll_max_ns; /* 0: never */
	_Atomic uint64_t
		poll_ns;     /* how long to poll: doubled if a request came, halved if none did */
	atomic_bool polling; /* a worker is polling */
	atomic_uint waiting; /* workers that poll or read */
	atomic_uint parked;  /* workers that sleep until they are called */
	unsigned calls;      /* parked workers that may go; under lock, like ended */
	bool ended;
	pthread_mutex_t lock;
	pthread_cond_t called;
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

/* Sleeps until called. Checks for nobody waiting: whoever took the last request may not have seen
 * any parked yet. */
static void park(struct um_workers *w)
{
	pthread_mutex_lock(&w->lock);
	atomic_fetch_add(&w->parked, 1);
	while (!w->ended && !w->calls && atomic_load(&w->waiting))
		pthread_cond_wait(&w->called, &w->lock);
	if (w->calls)
		w->calls--;
	atomic_fetch_sub(&w->parked, 1);
	pthread_mutex_unlock(&w->lock);
}

static void begin_waiting(struct um_workers *w)
{
	unsigned n = atomic_load(&w->waiting);

	for (;;) {
		if (n >= WAITING_MAX && atomic_load_explicit(&w->poll_ns, memory_order_relaxed) &&
			!fuse_session_exited(w->m->se)) {
			park(w);
			n = atomic_load(&w->waiting);
		} else if (atomic_compare_exchange_weak(&w->waiting, &n, n + 1)) {
			return;
		}
	}
}

static void end_waiting(struct um_workers *w)
{
	if (atomic_fetch_sub(&w->waiting, 1) > 1 || !atomic_load(&w->parked))
		return;
	pthread_mutex_lock(&w->lock);
	if (w->calls < atomic_load(&w->parked)) {
		w->calls++;
		pthread_cond_signal(&w->called);
	}
	pthread_mutex_unlock(&w->lock);
}

/* ---- polling --------------------------------------------------------------------------------------- */

/* A caller waits for a reply that another thread will send: that one needs the processor more. */
static bool has_handed_over(const struct um_mount *m)
{
	return atomic_load_explicit(&m->fetching, memory_order_relaxed) ||
	       atomic_load_explicit(&m->late, memory_order_relaxed);
}

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

/* True: the time is up, and no request has come. */
static bool poll_in_vain(struct um_workers *w)
{
	struct pollfd dev = {.fd = w->m->dev, .events = POLLIN};
	uint64_t limit = atomic_load_explicit(&w->poll_ns, memory_order_relaxed), start;
	bool came;

	if (!limit || has_handed_over(w->m))
		return false;
	if (others_are_busy(w)) {
		/* Requests come side by side: whoever carries one out needs the processor more. */
		set_poll(w, limit / 2);
		return false;
	}
	if (atomic_exchange(&w->polling, true))
		return false;
	start = um_now_ns();
	do
		came = poll(&dev, 1, 0);
	while (!came && um_now_ns() - start < limit && !has_handed_over(w->m));
	atomic_store(&w->polling, false);
	set_poll(w, came ? 2 * limit : limit / 2);
	return !came;
}

static int wait_for_request(struct um_workers *w, struct fuse_buf *buf)
{
	bool vain = w->poll_max_ns && poll_in_vain(w);
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

/*
 * A worker that has slept yields before it polls: it may have come to the processor of its caller,
 * who would have to wait for the end of the polling. (To yield each time would be wrong: the
 * scheduler holds it against the thread.)
 */
static void *worker(void *arg)
{
	struct um_workers *w = arg;
	struct um_mount *m = w->m;
	struct fuse_buf buf;
	char *map = buffer_new(&buf);
	bool huge = false;
	int ret = 1;

	if (!map)
		um_message(UMBRA_LOG_ERROR, "no memory for a worker's buffer");
	while (map && ret && !fuse_session_exited(m->se)) {
		if (um_slept && w->poll_max_ns)
			sched_yield();
		um_slept = false;
		begin_waiting(w);
		ret = wait_for_request(w, &buf);
		end_waiting(w);
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
	free(w->threads);
	free(w);
}

unsigned um_workers_count(const struct um_workers *w)
{
	return w ? atomic_load(&w->n) : 0;
}

bool um_worker_may_wait(const struct um_mount *m)
{
	return m->uring || um_workers_count(m->workers) > 1;
}
