/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes past the page cache, beside reads through it. The kernel drops the pages of the range before it sends such a write. A
 * read that comes in between brings them back as they were before, where they stay: of asynchronous writes the kernel does not
 * think again when they end, before Linux 6.13 or so of none. So here they are invalidated before the write is answered, if
 * there may be any.
 *
 * The engine knows whether there may be, by inode (umbra_cache_fills()). A read counts before it looks at data, a write asks after
 * it has changed them: a read that saw old data is counted by then. Writes through the cache count too, as they leave pages. All
 * pages of what was counted up to a moment are gone when an invalidation of the whole file, begun after it, has ended, as that
 * waits for those that are on their way; then the file is clean until the next. But who finds his pages in the cache sends no
 * requests: so all go only when so many writes have come since the last one that they have cost as much as it takes to bring all
 * pages again; else the range is invalidated, so that readers keep the rest. A file that is only used past the cache costs one
 * look at its counts.
 *
 * No more than a few wait for it at a time: asynchronous writes count as background requests, as do reads ahead and the write-back of
 * mappings, whose pages are waited for and which the kernel does not send as long as there are too many. The others are
 * answered first and then invalidated, so that an old page may be seen for a moment more, and does not stay.
 *
 * Not by a worker, since invalidating waits for pages that workers bring; and only with a guardian, which ends the connection if
 * this thread waits for a page and the others were killed. Where clones do not share page cache there is none: then it is started
 * with the first such write.
 */
#include "fuse/direct.h"

#include <errno.h>
#include <stdlib.h>

#include "fuse/back.h"
#include "fuse/guardian.h"
#include "fuse/view.h"

#define WAITING_MAX 32u /* of 64, which is what op_init asks for */

struct written {
	struct written *next;
	fuse_req_t req; /* NULL: it is answered */
	uint64_t ino, fh, off, len;
	/* whole: not of one that is answered, whose inode may be forgotten by then */
	struct umbra_cache_old old;
	bool sync;
};

struct um_direct {
	struct um_mount *m;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct written *first, **last, *tail;
	unsigned waiting;           /* of them, those that are not answered */
	atomic_uint_fast64_t drops; /* ranges and files invalidated */
	bool closing;
	struct um_guardian *guardian; /* ours, the thread's; NULL: there was no need */
	atomic_bool alone;            /* there is no guardian and can be none */
	pthread_t thread;
};

static void answer(const struct written *w)
{
	if (!w->req)
		return;
	if (w->sync)
		um_reply_synced(w->req, w->ino, w->fh, true, (ssize_t)w->len);
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

/* One more for the thread; under the lock. */
static void add(struct um_direct *d, struct written *w)
{
	*d->last = w;
	d->last = &w->next;
	d->tail = w;
	d->waiting += w->req != NULL;
	pthread_cond_signal(&d->more);
}

/* The latest in the queue takes over the range of one that nobody waits for. */
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
