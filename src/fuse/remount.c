/* SPDX-License-Identifier: BSD-3-Clause */
/* From read-only to writable and back, while it is mounted. */
#include "fuse/remount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "fuse/ioctl.h"
#include "fuse/message.h"
#include "fuse/options.h"
#include "fuse/view.h"

int um_gate_new(pthread_rwlock_t *out)
{
	pthread_rwlockattr_t attr;
	int err;

	pthread_rwlockattr_init(&attr);
	/* Else requests without end would keep it waiting. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	err = pthread_rwlock_init(out, &attr);
	pthread_rwlockattr_destroy(&attr);
	return -err;
}

bool um_gate_enter(const struct um_mount *m, pthread_rwlock_t *gate)
{
	if (!m->gated)
		return false;
	pthread_rwlock_rdlock(gate);
	return true;
}

void um_gate_leave(pthread_rwlock_t *gate, bool entered)
{
	if (entered)
		pthread_rwlock_unlock(gate);
}

struct job {
	struct um_mount *m;
	fuse_req_t req;
	bool readonly;
	uint32_t sync;
};

static void remount_sync(struct um_mount *m, uint32_t word)
{
	static const struct {
		uint32_t bit;
		unsigned long flag;
	} pairs[] = {{UM_REMOUNT_SYNC, MS_SYNCHRONOUS}, {UM_REMOUNT_DIRSYNC, MS_DIRSYNC}};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		if (!(word & UM_REMOUNT_NAMES(pairs[i].bit)))
			continue;
		if (word & pairs[i].bit)
			atomic_fetch_or(&m->sync, pairs[i].flag);
		else
			atomic_fetch_and(&m->sync, ~pairs[i].flag);
	}
}

static int remount(struct um_mount *m, bool readonly, uint32_t sync)
{
	static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER; /* at a time */
	const bool alone = m->gated && !readonly;               /* what is mapped is exchanged */
	int err;

	pthread_mutex_lock(&one);
	/* First the kernel's part, views and what they need; and last again. */
	if (readonly)
		m->readonly = true;
	if (alone) {
		pthread_rwlock_wrlock(&m->gate);
		um_views_hold(m->views);
	}
	err = umbra_remount(m->fs, readonly);
	if (!err && alone) {
		err = um_views_own(m->views);
		if (err)
			umbra_remount(m->fs, true);
	}
	if (!readonly)
		m->readonly = err != 0;
	if (m->gated && m->readonly && !alone) {
		/* A change that began before. */
		pthread_rwlock_wrlock(&m->gate);
		pthread_rwlock_unlock(&m->gate);
	}
	m->frozen = m->gated && m->readonly;
	if (!err)
		remount_sync(m, sync);
	if (alone) {
		um_views_let_go(m->views);
		pthread_rwlock_unlock(&m->gate);
	}
	pthread_mutex_unlock(&one);
	if (err)
		um_message(UMBRA_LOG_WARN, "%s could not become %s: %s", m->pool,
			readonly ? "read-only" : "writable", strerror(-err));
	else
		um_message(UMBRA_LOG_INFO, "%s is %s from now on", m->pool,
			readonly ? "read-only" : "writable");
	return err;
}

static void *job_main(void *arg)
{
	struct job job = *(struct job *)arg;
	int err;

	free(arg);
	err = remount(job.m, job.readonly, job.sync);
	if (err)
		fuse_reply_err(job.req, -err);
	else
		fuse_reply_ioctl(job.req, 0, NULL, 0);
	atomic_fetch_sub(&job.m->late, 1);
	return NULL;
}

/* In a separate thread: it waits for all other requests. */
int um_remount(struct um_mount *m, fuse_req_t req, bool readonly, uint32_t sync)
{
	struct job *job = malloc(sizeof(*job));
	pthread_t thread;
	int err;

	if (!job)
		return -ENOMEM;
	*job = (struct job){m, req, readonly, sync};
	atomic_fetch_add(&m->late, 1);
	err = pthread_create(&thread, NULL, job_main, job);
	if (err) {
		atomic_fetch_sub(&m->late, 1);
		free(job);
		return -err;
	}
	pthread_detach(thread);
	return 0;
}

void um_remount_options(const struct um_mount *m, char *out, size_t len)
{
	struct um_options now = *m->opt;

	now.ms_flags &= ~(unsigned long)(MS_SYNCHRONOUS | MS_DIRSYNC);
	now.ms_flags |= m->sync;
	um_options_text(&now, out, len);
}
