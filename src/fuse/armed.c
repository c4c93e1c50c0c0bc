/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Armed clones: one at most per handle, from the ioctl to its fallocate, or to the release of the
 * handle.
 *
 * Whose fallocate is it? A handle is an open file, which processes and threads may share. It fires
 * the clone only if it comes from the task that armed it and is of the one byte before the clone's
 * end; all others are what they seem to be. So what must not happen does not: that a clone reported
 * as made was a mere fallocate. For that, nothing armed is ever dropped while its task may still
 * come: another task is told -EBUSY, and there is no time limit. (Only if the task has ended and
 * another one has its number by now, or if both are outside of the daemon's pid namespace, where all
 * tasks have number 0, a fallocate of exactly that byte could fire a stranger's clone. It is one
 * that somebody with the same open file asked for, and has not given up.) The numbers are those of
 * the namespace of whoever mounted, which is the daemon itself, or fusermount3 beside it.
 */
#include "fuse/armed.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024u

struct armed {
	struct armed *next;
	struct um_armed_clone clone;
};

struct um_armed {
	struct um_mount *m;
	pthread_mutex_t lock; /* of the table; a leaf */
	struct armed *bucket[BUCKETS];
	atomic_uint n; /* as a rule 0: requests look no further */
};

int um_armed_new(struct um_mount *m, struct um_armed **out)
{
	struct um_armed *armed = calloc(1, sizeof(*armed));

	*out = armed;
	if (!armed)
		return -ENOMEM;
	armed->m = m;
	pthread_mutex_init(&armed->lock, NULL);
	return 0;
}

/* What holds the handle's clone, or the end of its chain. Under the lock. */
static struct armed **find(struct um_armed *armed, uint64_t dst, uint64_t fh)
{
	uint64_t hash = (dst ^ fh * 0x100000001b3ull) * 0x9e3779b97f4a7c15ull;
	struct armed **at = &armed->bucket[(hash >> 32) % BUCKETS];

	while (*at && ((*at)->clone.dst != dst || (*at)->clone.fh != fh))
		at = &(*at)->next;
	return at;
}

static struct armed *unlink_at(struct um_armed *armed, struct armed **at)
{
	struct armed *a = *at;

	*at = a->next;
	a->next = NULL;
	atomic_fetch_sub(&armed->n, 1);
	return a;
}

/* Without the lock. */
static void drop_list(const struct um_armed *armed, struct armed *list)
{
	struct armed *a;

	while ((a = list)) {
		list = a->next;
		umbra_forget(armed->m->fs, a->clone.src, 1);
		free(a);
	}
}

static bool has_ended(uint32_t tid)
{
	return tid && kill((pid_t)tid, 0) && errno == ESRCH;
}

int um_armed_keep(struct um_armed *armed, const struct um_armed_clone *clone)
{
	struct armed *fresh = malloc(sizeof(*fresh)), *old = NULL, **at;
	bool busy = false;

	if (!fresh)
		return -ENOMEM;
	fresh->clone = *clone;
	pthread_mutex_lock(&armed->lock);
	at = find(armed, clone->dst, clone->fh);
	if (*at) {
		uint32_t tid = (*at)->clone.tid;

		busy = !(tid && tid == clone->tid) && !has_ended(tid);
		if (!busy)
			old = unlink_at(armed, at);
	}
	if (!busy) {
		fresh->next = *at;
		*at = fresh;
		atomic_fetch_add(&armed->n, 1);
	}
	pthread_mutex_unlock(&armed->lock);
	drop_list(armed, old);
	if (busy)
		free(fresh);
	return busy ? -EBUSY : 0;
}

bool um_armed_take(struct um_armed *armed, uint64_t dst, uint64_t fh, uint32_t tid, uint64_t end,
	struct um_armed_clone *out)
{
	struct armed *found = NULL, **at;

	if (!atomic_load(&armed->n))
		return false;
	pthread_mutex_lock(&armed->lock);
	at = find(armed, dst, fh);
	if (*at && (*at)->clone.tid == tid && (*at)->clone.end == end)
		found = unlink_at(armed, at);
	pthread_mutex_unlock(&armed->lock);
	if (!found)
		return false;
	*out = found->clone;
	free(found);
	return true;
}

void um_armed_drop(struct um_armed *armed, uint64_t dst, uint64_t fh, const uint8_t *token)
{
	struct armed *found = NULL, **at;

	if (!atomic_load(&armed->n))
		return;
	pthread_mutex_lock(&armed->lock);
	at = find(armed, dst, fh);
	if (*at && (!token || !memcmp(token, (*at)->clone.want.token,
				      sizeof((*at)->clone.want.token))))
		found = unlink_at(armed, at);
	pthread_mutex_unlock(&armed->lock);
	drop_list(armed, found);
}

/* All, or those whose tasks have ended. */
static void drop_all(struct um_armed *armed, bool ended)
{
	struct armed *list = NULL, *a, **at;

	pthread_mutex_lock(&armed->lock);
	for (unsigned i = 0; i < BUCKETS && atomic_load(&armed->n); i++) {
		for (at = &armed->bucket[i]; *at;) {
			if (ended && !has_ended((*at)->clone.tid)) {
				at = &(*at)->next;
				continue;
			}
			a = unlink_at(armed, at);
			a->next = list;
			list = a;
		}
	}
	pthread_mutex_unlock(&armed->lock);
	drop_list(armed, list);
}

void um_armed_sweep(struct um_armed *armed)
{
	if (atomic_load(&armed->n))
		drop_all(armed, true);
}

void um_armed_free(struct um_armed *armed)
{
	if (!armed)
		return;
	drop_all(armed, false);
	pthread_mutex_destroy(&armed->lock);
	free(armed);
}
