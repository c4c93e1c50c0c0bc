// SPDX-License-Identifier: BSD-3-Clause
/*
 * The supervisor of umbractl exec: receives notifications and hands each to a thread of its own
 * pool, which grows as long as all threads are busy: one that waits for a slow mount never delays
 * another call.
 */
#include "exec.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pool/clock.h"

#if defined(__x86_64__)
#define UM_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define UM_AUDIT_ARCH AUDIT_ARCH_AARCH64
#else
#define UM_AUDIT_ARCH 0
#endif

#define IDLE_KEPT 4     /* threads that stay without work */
#define IDLE_SECONDS 10 /* after which others end */
#define LOOK_MSEC 20    /* how soon a call ends whose task was killed */

struct job {
	struct um_call call;
	pthread_t thread;  /* that serves it */
	struct job *next;  /* in the queue, then among the busy ones */
	struct job **self; /* the pointer to it there */
};

static struct {
	pthread_mutex_t lock; /* protects all of it */
	pthread_cond_t more;
	struct job *head, **tail, *busy;
	unsigned int queued, idle, threads;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .tail = &pool.head};

static struct seccomp_notif_sizes sizes; /* the kernel's, which may be larger than ours */

static void answer(const struct um_call *call, int64_t val)
{
	size_t len = sizeof(struct seccomp_notif_resp);
	struct seccomp_notif_resp *resp;

	if (sizes.seccomp_notif_resp > len)
		len = sizes.seccomp_notif_resp;
	resp = calloc(1, len);
	if (!resp)
		abort(); /* the tasks get ENOSYS instead of waiting */
	resp->id = call->id;
	if (call->pass) {
		resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	} else {
		resp->error = call->error;
		resp->val = call->error ? 0 : val;
	}
	/* Fails if the task was killed meanwhile: then nobody wants the answer. */
	(void)ioctl(call->listener, SECCOMP_IOCTL_NOTIF_SEND, resp);
	free(resp);
}

/* Every duplicated descriptor is closed before the answer, so that an umount immediately afterwards
 * is not busy. */
static void serve(struct um_call *call)
{
	int64_t val = 0;

	if (call->nr == SYS_ioctl && call->cmd == FICLONE && call->fd == -1 &&
		call->arg == UM_EXEC_PROBE) {
		val = UM_EXEC_ANSWER;
	} else if (!call->tid || um_task_open(call)) {
		call->pass = true; /* a process that is invisible to us, or gone */
	} else if (call->nr != SYS_ioctl) {
		um_do_statfs(call);
	} else {
		switch (call->cmd) {
		case FICLONE:
			um_do_clone(call);
			break;
		case FICLONERANGE:
			um_do_clone_range(call);
			break;
		case FIDEDUPERANGE:
			um_do_dedupe(call);
			break;
		case FS_IOC_FIEMAP:
			um_do_fiemap(call);
			break;
		default:
			call->pass = true;
		}
	}
	/* Without WAIT_KILLABLE a signal would make the task restart its call: answer first. */
	if (call->signal && call->killable)
		um_task_signal(call);
	answer(call, val);
	if (call->signal && !call->killable)
		um_task_signal(call);
	if (call->pidfd >= 0)
		close(call->pidfd);
}

static struct job *take_job(void)
{
	struct job *job = NULL;
	struct timespec until;

	pthread_mutex_lock(&pool.lock);
	pool.idle++;
	while (!pool.head) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += IDLE_SECONDS;
		if (pthread_cond_timedwait(&pool.more, &pool.lock, &until) == ETIMEDOUT &&
			!pool.head && pool.threads > IDLE_KEPT) {
			pool.threads--;
			break;
		}
	}
	job = pool.head;
	if (job) {
		pool.head = job->next;
		if (!pool.head)
			pool.tail = &pool.head;
		pool.queued--;
		job->thread = pthread_self();
		job->next = pool.busy;
		job->self = &pool.busy;
		if (job->next)
			job->next->self = &job->next;
		pool.busy = job;
	}
	pool.idle--;
	pthread_mutex_unlock(&pool.lock);
	return job;
}

static void do_job(struct job *job)
{
	serve(&job->call);
	pthread_mutex_lock(&pool.lock);
	*job->self = job->next;
	if (job->next)
		job->next->self = job->self;
	pthread_mutex_unlock(&pool.lock);
	free(job);
}

static void *worker(void *arg)
{
	struct job *job;

	(void)arg;
	while ((job = take_job()))
		do_job(job);
	return NULL;
}

/* Interrupts work for tasks that were killed: otherwise a clone of many extents would continue and
 * hold the task's files open. Returns whether to check again soon. */
static bool look_after(bool killable)
{
	bool any;

	pthread_mutex_lock(&pool.lock);
	any = pool.busy || pool.queued;
	/* Otherwise a call that is no longer valid may only have been interrupted by a signal. */
	for (struct job *job = pool.busy; job && killable; job = job->next)
		if (!um_task_waits(&job->call))
			pthread_kill(job->thread, SIGUSR1);
	pthread_mutex_unlock(&pool.lock);
	return any;
}

static void nothing(int sig)
{
	(void)sig;
}

static bool start_thread(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	if (pthread_attr_init(&attr))
		return false;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	err = pthread_create(&thread, &attr, worker, NULL);
	pthread_attr_destroy(&attr);
	return !err;
}

/* Queues the job; another thread is started unless one is free for it. */
static void dispatch(struct job *job)
{
	bool grow, alone;

	pthread_mutex_lock(&pool.lock);
	job->next = NULL;
	*pool.tail = job;
	pool.tail = &job->next;
	pool.queued++;
	grow = pool.queued > pool.idle;
	if (grow)
		pool.threads++;
	pthread_cond_signal(&pool.more);
	pthread_mutex_unlock(&pool.lock);
	if (!grow || start_thread())
		return;
	/* No thread can be started: a busy one will get to it. */
	pthread_mutex_lock(&pool.lock);
	pool.threads--;
	alone = !pool.threads;
	pthread_mutex_unlock(&pool.lock);
	if (alone && (job = take_job()))
		do_job(job);
}

/* The filter notifies ioctl under any of the machine's tables, everything else under its own
 * only. */
static int native_nr(const struct seccomp_data *data)
{
	if (data->nr == SYS_statfs || data->nr == SYS_fstatfs)
		return data->arch == UM_AUDIT_ARCH ? data->nr : SYS_ioctl;
	return SYS_ioctl;
}

static struct job *receive(int listener, bool killable)
{
	size_t len = sizeof(struct seccomp_notif);
	struct seccomp_notif *req;
	struct job *job = NULL;

	if (sizes.seccomp_notif > len)
		len = sizes.seccomp_notif;
	req = calloc(1, len);
	if (!req)
		abort();
	/* ENOENT: the task was killed between poll and here. */
	if (!ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, req)) {
		job = calloc(1, sizeof(*job));
		if (!job)
			abort();
		job->call = (struct um_call){.listener = listener,
			.killable = killable,
			.id = req->id,
			.tid = (pid_t)req->pid,
			.pidfd = -1,
			.nr = native_nr(&req->data),
			.arg0 = req->data.args[0],
			.arg1 = req->data.args[1],
			.cmd = (unsigned int)req->data.args[1],
			.fd = (int)(uint32_t)req->data.args[0],
			.arg = req->data.args[2]};
	}
	free(req);
	return job;
}

void um_supervise(int listener, bool killable)
{
	struct sigaction interrupt = {.sa_handler = nothing};

	sigaction(SIGUSR1, &interrupt, NULL);
	um_cond_init(&pool.more);
	if (syscall(__NR_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
		_exit(1);
	for (;;) {
		struct pollfd pfd = {.fd = listener, .events = POLLIN};
		struct job *job;

		if (poll(&pfd, 1, look_after(killable) ? LOOK_MSEC : -1) < 0) {
			if (errno == EINTR || errno == ENOMEM || errno == EAGAIN)
				continue;
			_exit(1);
		}
		if (pfd.revents & POLLIN) {
			job = receive(listener, killable);
			if (job)
				dispatch(job);
		} else if (pfd.revents) {
			return; /* POLLHUP: no task has the filter any more */
		}
	}
}
