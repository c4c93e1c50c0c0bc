/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads by the thread that needs the data: see polled.h. */
#include "pool/polled.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "pool/clock.h"

#define TRIES 8u       /* reads in the other way, at the end of each period */
#define PERIOD_MIN 16u /* reads; doubled as long as the same way stays the faster one */
#define PERIOD_MAX 8192u
#define SKIPPED 2u      /* the first reads in each way, which bear the costs of everything new */
#define OUTLIER 4u      /* what takes so many times the average counts as that: it did not run */
#define WEIGHT_SHIFT 3u /* a new time counts for an eighth */

_Thread_local bool um_slept;

/* How long reads take in one way. Written without a lock: a lost update does no harm. */
struct times {
	_Atomic uint64_t average_ns; /* 0: not known yet */
	atomic_uint skipped;
};

struct um_polled {
	pthread_mutex_t lock;
	struct io_uring uring;
	uint64_t max_ns;
	struct times poll, sleep;
	atomic_uint reads, period; /* reads: since the period began */
	atomic_bool polls;         /* polling is the faster way */
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
	atomic_init(&p->period, PERIOD_MIN);
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

/* Clearly faster, and not only as it has become sleeping in the end. */
static bool polling_pays(const struct um_polled *p)
{
	uint64_t poll_ns = atomic_load_explicit(&p->poll.average_ns, memory_order_relaxed);
	uint64_t sleep_ns = atomic_load_explicit(&p->sleep.average_ns, memory_order_relaxed);

	return poll_ns && poll_ns < p->max_ns && poll_ns < sleep_ns - sleep_ns / 8;
}

static bool poll_now(struct um_polled *p)
{
	bool polls = polling_pays(p);
	unsigned n = atomic_fetch_add(&p->reads, 1), period = atomic_load(&p->period);

	if (atomic_exchange(&p->polls, polls) != polls) {
		atomic_store(&p->reads, 1);
		atomic_store(&p->period, PERIOD_MIN);
		return polls;
	}
	if (n + 1 >= period) {
		atomic_store(&p->reads, 0);
		atomic_store(&p->period, period < PERIOD_MAX ? 2 * period : PERIOD_MAX);
	}
	return n < period - TRIES ? polls : !polls;
}

static void learn(struct times *times, uint64_t start)
{
	uint64_t ns = um_now_ns() - start;
	uint64_t was = atomic_load_explicit(&times->average_ns, memory_order_relaxed);

	if (atomic_load_explicit(&times->skipped, memory_order_relaxed) < SKIPPED) {
		atomic_fetch_add_explicit(&times->skipped, 1, memory_order_relaxed);
		return;
	}
	if (was && ns > OUTLIER * was)
		ns = OUTLIER * was;
	if (was)
		ns = was - (was >> WEIGHT_SHIFT) + (ns >> WEIGHT_SHIFT);
	atomic_store_explicit(&times->average_ns, ns, memory_order_relaxed);
}

/* Waits for the one result. */
static int result_of(struct um_polled *p, uint64_t start)
{
	struct io_uring_cqe *cqe = NULL;
	int ret;

	while (io_uring_peek_cqe(&p->uring, &cqe) && um_now_ns() - start < p->max_ns)
		(void)io_uring_get_events(&p->uring);
	while (!cqe) {
		um_slept = true;
		ret = io_uring_wait_cqe(&p->uring, &cqe);
		if (ret < 0 && ret != -EINTR)
			usleep(1000); /* it must come before buf may be used for anything else */
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
	learn(&p->poll, start);
	return true;
}

ssize_t um_polled_read(struct um_polled *p, int fd, void *buf, size_t len, off_t off)
{
	uint64_t start;
	ssize_t ret;
	bool done = false;

	if (poll_now(p) && !pthread_mutex_trylock(&p->lock)) {
		done = read_polling(p, fd, buf, len, off, &ret);
		pthread_mutex_unlock(&p->lock);
	}
	if (done)
		return ret;
	um_slept = true;
	start = um_now_ns();
	ret = pread(fd, buf, len, off);
	if (ret < 0)
		ret = -errno;
	learn(&p->sleep, start);
	return ret;
}
