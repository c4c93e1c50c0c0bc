/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Coherence of writes that bypass the page cache with reads through it. The kernel drops the pages
 * of the range before it sends such a write. A read that comes in between brings them back with
 * their old contents, and they stay: when an asynchronous write completes the kernel does not drop
 * them again (before about Linux 6.13: when any write does). So they are invalidated here before
 * the write is answered, if there may be any.
 *
 * The engine knows per inode whether there may be (umbra_cache_fills()). A read is counted before
 * it looks at data, a write checks after it has changed them: so a read that saw old data has been
 * counted by then. Writes through the cache count too, as they leave pages. An invalidation of the
 * whole file waits for pages in flight, so when it ends all pages counted before it began are gone,
 * and the file is clean until the next fill. But readers that find their pages in the cache send no
 * requests: so the whole file is invalidated only after so many writes since the last request that
 * they have cost as much as reading all pages again. Otherwise only the range is, and readers keep
 * the rest. A file that is used only past the cache costs one check of its counts.
 *
 * Only a few writes wait for an invalidation at a time: asynchronous writes count as background
 * requests, as do read-ahead and the write-back of mappings, whose pages may be waited for and
 * which the kernel does not send while there are too many. Further writes are answered first and
 * invalidated afterwards, so that a stale page may be seen for a moment longer, but does not stay.
 *
 * This is not done by a worker, since invalidating waits for pages that workers supply; and only
 * with a guardian, which aborts the connection if this thread waits for a page and the others were
 * killed. If clones do not share page cache there is no guardian: then it is started with the first
 * such write.
 */
#include "fuse/direct.h"

#include <errno.h>
#include <stdlib.h>

#include "fuse/back.h"
#include "fuse/guardian.h"
#include "fuse/view.h"

#define WAITING_MAX 32u /* of the 64 that op_init requests */

struct written {
	struct written *next;
	fuse_req_t req; /* NULL: it has been answered */
	uint64_t ino, fh, off, len;
	/* whole: not for one that has been answered, whose inode may be forgotten by then */
	struct umbra_cache_old old;
	bool sync;
};

struct um_direct {
	struct um_mount *m;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct written *first, **last, *tail;
	unsigned waiting;           /* those of them that have not been answered */
	atomic_uint_fast64_t drops; /* number of ranges and files invalidated */
	bool closing;
	struct um_guardian *guardian; /* owned by the thread; NULL: not needed so far */
	atomic_bool alone;            /* there is no guardian and cannot be one */
	pthread_t thread;
};

static void answer(const struct written *w)
{
	if (!w->req)
		return;
	if (w->sync)
		um_reply_synced(w->req, w->ino, w->fh, true, false, (ssize_t)w->len);
	else
		fuse_reply_write(w->req, (size_t)w->len);
}

static bool is_guarded(struct um_direct *d)
{
	if (um_views_watched(d->m->views) || um_back_guarded(d->m))
		return true;
	if (!atomic_load(&d->alone)) {
		if (!d->guardian && um_guardian_start(d->m, 0, &d->guardian))
			d->guardian = NULL;
		atomic_store(&d->alone, !d->guardian || !um_guardian_there(d->guardian));
	}
	return !atomic_load(&d->alone);
}

static void invalidate(struct um_direct *d, const struct written *w)
{
	if (!is_guarded(d))
		return;
	atomic_fetch_add(&d->drops, 1);
	if (w->old.whole) {
		um_inval_data(d->m, w->ino, 0, 0);
		umbra_cache_clean(d->m->fs, w->ino, w->old.fills);
	} else {
		um_inval_data(d->m, w->ino, w->off, w->len);
	}
}

static void *direct_main(void *arg)
{
	struct um_direct *d = arg;
	struct written *w;

	pthread_mutex_lock(&d->lock);
	while (!d->closing || d->first) {
		bool closing = d->closing;

		w = d->first;
		if (!w) {
			pthread_cond_wait(&d->more, &d->lock);
			continue;
		}
		d->first = w->next;
		if (!d->first)
			d->last = &d->first;
		pthread_mutex_unlock(&d->lock);
		if (!closing)
			invalidate(d, w);
		answer(w);
		pthread_mutex_lock(&d->lock);
		d->waiting -= w->req != NULL;
		free(w);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

/* Queues a write for the thread; under the lock. */
static void add(struct um_direct *d, struct written *w)
{
	*d->last = w;
	d->last = &w->next;
	d->tail = w;
	d->waiting += w->req != NULL;
	pthread_cond_signal(&d->more);
}

/* Adds the range of a write that nobody waits for to the latest in the queue. */
static bool merge(struct um_direct *d, const struct written *w)
{
	struct written *t = d->first ? d->tail : NULL;
	uint64_t end;

	if (!t || t->req || t->ino != w->ino)
		return false;
	end = t->off + t->len > w->off + w->len ? t->off + t->len : w->off + w->len;
	t->off = t->off < w->off ? t->off : w->off;
	t->len = end - t->off;
	return true;
}

bool um_direct_wrote(struct um_direct *d, fuse_req_t req, uint64_t ino, uint64_t fh, uint64_t off,
	size_t len, bool sync)
{
	struct written *w, is = {.ino = ino, .fh = fh, .off = off, .len = len, .sync = sync};
	bool later = false;

	if (!d || !len || !umbra_cache_is_old(d->m->fs, ino, &is.old) ||
		(atomic_load(&d->alone) && !um_views_watched(d->m->views)))
		return false;
	w = malloc(sizeof(*w));
	if (!w)
		return false;
	pthread_mutex_lock(&d->lock);
	if (d->waiting < WAITING_MAX)
		is.req = req;
	else
		is.old.whole = false;
	*w = is;
	if (d->closing || (!w->req && merge(d, w))) {
		free(w);
	} else {
		later = w->req;
		add(d, w);
	}
	pthread_mutex_unlock(&d->lock);
	return later;
}

void um_direct_stat(struct um_direct *d, umbra_stat_fn *fn, void *arg)
{
	fn(arg, "direct_drops", d ? atomic_load(&d->drops) : 0);
}

int um_direct_open(struct um_mount *m, struct um_direct **out)
{
	struct um_direct *d = calloc(1, sizeof(*d));
	int err;

	*out = NULL;
	if (!d)
		return -ENOMEM;
	d->m = m;
	d->last = &d->first;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->more, NULL);
	err = pthread_create(&d->thread, NULL, direct_main, d);
	if (err) {
		free(d);
		return -err;
	}
	pthread_setname_np(d->thread, "umbrafs-inval");
	*out = d;
	return 0;
}

void um_direct_stop(struct um_direct *d)
{
	bool first;

	if (!d)
		return;
	pthread_mutex_lock(&d->lock);
	first = !d->closing;
	d->closing = true;
	pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
	if (first)
		pthread_join(d->thread, NULL);
}

void um_direct_close(struct um_direct *d)
{
	if (!d)
		return;
	um_direct_stop(d);
	um_guardian_stop(d->guardian);
	pthread_cond_destroy(&d->more);
	pthread_mutex_destroy(&d->lock);
	free(d);
}
