/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes past the page cache, beside reads through it. The kernel drops the pages of the range before it sends such a write. A
 * read that comes in between brings them back as they were before, where they stay: of asynchronous writes the kernel does not
 * think again when they end. So here they are invalidated before the write is answered, if there may be any.
 *
 * Whether there may be is kept in a table. A read counts before it looks at data, a write asks after it has changed them: a read
 * that saw old data is counted by then. All pages of reads counted up to a moment are gone when an invalidation of the whole file,
 * begun after it, has ended, as that waits for those that are on their way; then the file is clean until the next read. That is
 * done when nobody reads any more, else only the range is invalidated, so that readers keep the rest. So a file that is only written
 * and read past the cache costs one look at the table.
 *
 * No more than a few wait for it at a time: asynchronous writes count as background requests, as do reads ahead and the write-back of
 * mappings, whose pages are waited for and which the kernel does not send as long as there are too many. The others are
 * answered first and then invalidated, so that an old page may be seen for a moment more, and does not stay.
 *
 * Not by a worker, since invalidating waits for pages that workers bring; and only with a guardian, which ends the connection if
 * this thread waits for a page and the others were killed. Pages that a mapping of an O_DIRECT descriptor brings are not counted.
 */
#include "fuse/direct.h"

#include <errno.h>
#include <stdlib.h>

#include "fuse/view.h"

#define SLOTS 1024u
#define WAITING_MAX 32u /* of 64, which is what op_init asks for */

struct slot {
	pthread_mutex_t lock;
	uint64_t ino;
	uint64_t
		reads; /* their count; begins elsewhere each time that the slot gets another file */
	uint64_t seen; /* it, at the last write */
	uint64_t clean; /* it, when the file was last without pages from before */
};

struct written {
	struct written *next;
	fuse_req_t req; /* NULL: it is answered */
	uint64_t ino, fh, off, len, reads;
	bool sync, whole;
};

struct um_direct {
	struct um_mount *m;
	struct slot slot[SLOTS];
	atomic_uint_fast64_t epoch; /* of slots */
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct written *first, **last, *tail;
	unsigned waiting; /* of them, those that are not answered */
	bool closing;
	pthread_t thread;
};

static struct slot *slot_lock(struct um_direct *d, uint64_t ino)
{
	struct slot *s = &d->slot[ino % SLOTS];

	pthread_mutex_lock(&s->lock);
	if (s->ino != ino) {
		/* What is not known of a file is that there were no reads. */
		s->ino = ino;
		s->reads = (atomic_fetch_add(&d->epoch, 1) + 1) << 32;
		s->seen = s->clean = 0;
	}
	return s;
}

void um_direct_read(struct um_direct *d, uint64_t ino)
{
	struct slot *s;

	if (!d)
		return;
	s = slot_lock(d, ino);
	s->reads++;
	pthread_mutex_unlock(&s->lock);
}

static void answer(const struct written *w)
{
	if (!w->req)
		return;
	if (w->sync)
		um_reply_synced(w->req, w->ino, w->fh, true, (ssize_t)w->len);
	else
		fuse_reply_write(w->req, (size_t)w->len);
}

static void invalidate(struct um_direct *d, const struct written *w)
{
	struct slot *s;

	um_inval_data(d->m, w->ino, w->whole ? 0 : w->off, w->whole ? 0 : w->len);
	if (!w->whole)
		return;
	s = slot_lock(d, w->ino);
	if (s->reads >= w->reads && s->reads >> 32 == w->reads >> 32)
		s->clean = w->reads;
	pthread_mutex_unlock(&s->lock);
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

/* Is there anything to do, and which part? */
static bool is_dirty(struct um_direct *d, uint64_t ino, uint64_t *out_reads, bool *out_whole)
{
	struct slot *s = slot_lock(d, ino);
	bool dirty = s->clean != s->reads;

	*out_reads = s->reads;
	*out_whole = s->seen == s->reads;
	s->seen = s->reads;
	pthread_mutex_unlock(&s->lock);
	return dirty;
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
	t->whole |= w->whole;
	t->reads = w->reads;
	return true;
}

bool um_direct_wrote(struct um_direct *d, fuse_req_t req, uint64_t ino, uint64_t fh, uint64_t off,
	size_t len, bool sync)
{
	struct written *w, is = {.ino = ino, .fh = fh, .off = off, .len = len, .sync = sync};
	bool later = false;

	if (!d || !len || !is_dirty(d, ino, &is.reads, &is.whole) || !um_views_watched(d->m->views))
		return false;
	w = malloc(sizeof(*w));
	if (!w)
		return false;
	pthread_mutex_lock(&d->lock);
	if (d->waiting < WAITING_MAX)
		is.req = req;
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
	for (unsigned i = 0; i < SLOTS; i++)
		pthread_mutex_init(&d->slot[i].lock, NULL);
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
	for (unsigned i = 0; i < SLOTS; i++)
		pthread_mutex_destroy(&d->slot[i].lock);
	pthread_cond_destroy(&d->more);
	pthread_mutex_destroy(&d->lock);
	free(d);
}
