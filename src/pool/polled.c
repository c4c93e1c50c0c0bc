/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads by the thread that needs the data: see polled.h. */
#include "pool/polled.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "pool/clock.h"

#define TRY_EVERY 512u /* reads: then the slower way is tried */
#define TRIES 8u       /* for so many, as the first ones bear the traces of the other way */
#define OUTLIER 4u
#define WEIGHT_SHIFT 3u /* a new time counts for an eighth */

_Thread_local bool um_slept;

struct um_polled {
	pthread_mutex_t lock;
	struct io_uring uring;
	uint64_t max_ns;
	/* Average times of one read. Written without a lock: a lost update does no harm. */
	_Atomic uint64_t poll_ns, sleep_ns;
	atomic_uint reads;
	bool broken; /* a submission has failed, and is in the ring for good: never enter it again */
};

bool um_may_poll(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) || CPU_COUNT(&set) > 1;
}

struct um_polled *um_polled_open(uint64_t max_ns)
{
	struct um_polled *p = max_ns && um_may_poll() ? calloc(1, sizeof(*p)) : NULL;

	if (!p)
		return NULL;
	/* Results arrive when the thread enters the kernel, instead of interrupting it. */
	if (io_uring_queue_init(1, &p->uring, IORING_SETUP_COOP_TASKRUN)) {
		free(p);
		return NULL;
	}
	p->max_ns = max_ns;
	atomic_init(&p->reads, TRY_EVERY - 2 * TRIES); /* both ways soon */
	pthread_mutex_init(&p->lock, NULL);
	return p;
}

void um_polled_close(struct um_polled *p)
{
	if (!p)
		return;
	io_uring_queue_exit(&p->uring);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static bool poll_now(struct um_polled *p)
{
	uint64_t poll_ns = atomic_load_explicit(&p->poll_ns, memory_order_relaxed);
	uint64_t sleep_ns = atomic_load_explicit(&p->sleep_ns, memory_order_relaxed);
	unsigned n = atomic_fetch_add_explicit(&p->reads, 1, memory_order_relaxed) % TRY_EVERY;
	bool faster = poll_ns <= sleep_ns || !sleep_ns;

	return n < TRY_EVERY - TRIES ? faster : !faster;
}

static void learn(_Atomic uint64_t *average, uint64_t start)
{
	uint64_t ns = um_now_ns() - start;
	uint64_t was = atomic_load_explicit(average, memory_order_relaxed);

	if (was && ns > OUTLIER * was)
		ns = OUTLIER * was; /* the thread was not running */
	if (was)
		ns = was - (was >> WEIGHT_SHIFT) + (ns >> WEIGHT_SHIFT);
	atomic_store_explicit(average, ns, memory_order_relaxed);
}

/* Waits for the one result. */
static int result_of(struct um_polled *p, uint64_t start)
{
	struct io_uring_cqe *cqe = NULL;
	int ret;

	sched_yield(); /* to the kernel's thread for this device, if it waits for this processor */
	while (io_uring_peek_cqe(&p->uring, &cqe) && um_now_ns() - start < p->max_ns)
		(void)io_uring_get_events(&p->uring);
	while (!cqe) {
		um_slept = true;
		(void)io_uring_wait_cqe(&p->uring, &cqe); /* a signal ends it early */
	}
	ret = cqe->res;
	io_uring_cqe_seen(&p->uring, cqe);
	return ret;
}

/* Under the lock. False: not submitted. */
static bool read_polling(
	struct um_polled *p, int fd, void *buf, size_t len, off_t off, ssize_t *out_ret)
{
	struct io_uring_sqe *sqe = p->broken ? NULL : io_uring_get_sqe(&p->uring);
	uint64_t start = um_now_ns();
	int n;

	if (!sqe)
		return false;
	io_uring_prep_read(sqe, fd, buf, (unsigned)len, (uint64_t)off);
	do
		n = io_uring_submit(&p->uring);
	while (n == -EINTR);
	if (n < 1) {
		p->broken = true;
		return false;
	}
	*out_ret = result_of(p, start);
	learn(&p->poll_ns, start);
	return true;
}

ssize_t um_polled_read(struct um_polled *p, int fd, void *buf, size_t len, off_t off)
{
	bool done = false;
	uint64_t start;
	ssize_t ret;

	if (p && poll_now(p) && !pthread_mutex_trylock(&p->lock)) {
		done = read_polling(p, fd, buf, len, off, &ret);
		pthread_mutex_unlock(&p->lock);
	}
	if (done)
		return ret;
	um_slept = true;
	start = p ? um_now_ns() : 0;
	ret = pread(fd, buf, len, off);
	if (ret < 0)
		ret = -errno;
	if (p)
		learn(&p->sleep_ns, start);
	return ret;
}
