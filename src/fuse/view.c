/* SPDX-License-Identifier: BSD-3-Clause */
/* Views: the tables, creating them, and giving them up. */
#include "fuse/view_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse/message.h"
#include "fuse/remount.h"
#include "pool/clock.h"

#define TICK_SEC 1

/* ---- tables; under the lock ----------------------------------------------------------------------- */

static unsigned content_bucket(const struct umbra_content *content)
{
	uint64_t hash = content->size * 0x9e3779b97f4a7c15ull + content->root;

	for (unsigned i = 0; i < content->len; i++)
		hash = (hash ^ content->body[i]) * 0x100000001b3ull;
	hash *= 0x9e3779b97f4a7c15ull;
	return (unsigned)(hash >> 32) % UM_VIEW_BUCKETS;
}

struct um_view *um_view_by_id(struct um_views *v, uint64_t id)
{
	struct um_view *view = v->by_id[id % UM_VIEW_BUCKETS];

	while (view && view->id != id)
		view = view->next_id;
	return view;
}

struct um_view *um_view_by_content(struct um_views *v, const struct umbra_content *content)
{
	struct um_view *view = v->by_content[content_bucket(content)];

	while (view && !umbra_content_same(&view->content, content))
		view = view->next_content;
	return view;
}

static void list_remove(struct um_view *view, struct um_view **first, struct um_view **last)
{
	if (view->prev)
		view->prev->next = view->next;
	else
		*first = view->next;
	if (view->next)
		view->next->prev = view->prev;
	else
		*last = view->prev;
	view->prev = view->next = NULL;
}

void um_view_set_idle(struct um_views *v, struct um_view *view, bool idle)
{
	if (view->idle == idle)
		return;
	view->idle = idle;
	if (!idle) {
		v->nidle--;
		list_remove(view, &v->idle_first, &v->idle_last);
		return;
	}
	v->nidle++;
	view->prev = v->idle_last;
	if (v->idle_last)
		v->idle_last->next = view;
	else
		v->idle_first = view;
	v->idle_last = view;
	if (v->nidle > UM_VIEW_IDLE_MAX)
		um_view_bury(v, v->idle_first);
}

struct um_view *um_view_add(struct um_views *v, const struct umbra_content *content)
{
	struct um_view *view;
	unsigned b;

	if (v->nviews >= UM_VIEW_MAX && v->idle_first)
		um_view_bury(v, v->idle_first);
	if (v->nviews >= UM_VIEW_MAX + UM_VIEW_IDLE_MAX)
		return NULL;
	view = calloc(1, sizeof(*view));
	if (!view)
		return NULL;
	view->id = v->next_id++;
	view->fd = -1;
	view->content = *content;
	b = (unsigned)(view->id % UM_VIEW_BUCKETS);
	view->next_id = v->by_id[b];
	v->by_id[b] = view;
	b = content_bucket(content);
	view->next_content = v->by_content[b];
	v->by_content[b] = view;
	view->listed = true;
	v->nviews++;
	return view;
}

void um_view_unlist(struct um_views *v, struct um_view *view)
{
	struct um_view **at = &v->by_content[content_bucket(&view->content)];

	if (!view->listed)
		return;
	while (*at != view)
		at = &(*at)->next_content;
	*at = view->next_content;
	view->listed = false;
}

void um_view_bury(struct um_views *v, struct um_view *view)
{
	um_view_set_idle(v, view, false);
	um_view_unlist(v, view);
	view->state = UM_VIEW_DEAD;
	view->next = v->dead;
	v->dead = view;
	pthread_cond_signal(&v->work);
}

void um_view_free_if_done(struct um_views *v, struct um_view *view)
{
	struct um_view **at = &v->by_id[view->id % UM_VIEW_BUCKETS];
	struct um_pending *p;

	if (view->state != UM_VIEW_DEAD || view->handles || view->users || view->backing ||
		view->fd >= 0 || view->hidden_ino || view->reading)
		return;
	while (*at != view)
		at = &(*at)->next_id;
	*at = view->next_id;
	while ((p = view->pending)) {
		view->pending = p->next;
		free(p);
	}
	v->nviews--;
	free(view);
}

uint64_t um_view_take_hidden(struct um_view *view)
{
	uint64_t ino = view->hidden_ino;

	if (view->reading || (view->state != UM_VIEW_DEAD && !view->bound))
		return 0;
	view->hidden_ino = 0;
	return ino;
}

uint64_t um_view_unread(struct um_views *v, struct um_view *view)
{
	uint64_t clone;

	view->reading--;
	clone = um_view_take_hidden(view);
	um_view_free_if_done(v, view);
	return clone;
}

/* ---- making ---------------------------------------------------------------------------------------- */

/* The kernel asks the hidden mount to open the file on our own behalf: it must not count as a
 * user's open. */
static int expect_own(struct um_views *v, struct um_view *view)
{
	struct um_pending *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct um_pending){.tid = (uint32_t)gettid()};
	pthread_mutex_lock(&v->lock);
	p->next = view->pending;
	view->pending = p;
	pthread_mutex_unlock(&v->lock);
	return 0;
}

/* An open that failed was not seen by the hidden mount. */
static void expect_own_end(struct um_views *v, struct um_view *view)
{
	struct um_pending **at = &view->pending;

	pthread_mutex_lock(&v->lock);
	for (; *at; at = &(*at)->next) {
		struct um_pending *p = *at;

		if (p->share || p->tid != (uint32_t)gettid())
			continue;
		*at = p->next;
		free(p);
		break;
	}
	pthread_mutex_unlock(&v->lock);
}

int um_view_open_own(struct um_views *v, struct um_view *view, int flags, int *out_fd)
{
	char name[24];
	int err = expect_own(v, view);

	if (err)
		return err;
	snprintf(name, sizeof(name), "%llx", (unsigned long long)view->id);
	*out_fd = openat(v->hidden.root, name, flags | O_CLOEXEC | O_NOFOLLOW);
	if (*out_fd >= 0)
		return 0;
	err = -errno;
	expect_own_end(v, view);
	return err;
}

int um_view_clone(struct um_views *v, uint64_t ino, const struct umbra_content *want, uint64_t *out)
{
	static const struct umbra_cred nobody = {.umask = 0777, .cap_fsetid = false};
	struct umbra_content have;
	struct umbra_attr attr;
	int err;

	err = umbra_tmpfile(v->m->fs, UM_ROOT_NODE, S_IFREG, &nobody, &attr);
	if (err)
		return err;
	*out = attr.st.st_ino;
	err = umbra_clone(v->m->fs, ino, *out);
	if (!err)
		err = umbra_content(v->m->fs, *out, &have);
	if (!err && !umbra_content_same(&have, want))
		err = -EBUSY;
	if (err)
		umbra_forget(v->m->fs, *out, 1);
	return err;
}

int um_view_make(struct um_views *v, struct um_view *view, uint64_t ino)
{
	const bool borrowed = v->m->frozen; /* and stays it: the caller is inside the gate */
	uint64_t shown = ino;
	int fd = -1, backing = 0;
	int err =
		borrowed ? umbra_ref(v->m->fs, ino) : um_view_clone(v, ino, &view->content, &shown);

	if (err)
		return err;
	pthread_mutex_lock(&v->lock);
	view->hidden_ino = shown;
	view->borrowed = borrowed;
	pthread_mutex_unlock(&v->lock);
	err = um_view_open_own(v, view, O_RDONLY, &fd);
	if (err)
		return err;
	backing = um_backing_open(v->m, fd);
	close(fd); /* the id holds the file */
	if (backing < 0)
		return backing;
	pthread_mutex_lock(&v->lock);
	view->backing = backing;
	v->nbacking++;
	v->stat_made++;
	pthread_mutex_unlock(&v->lock);
	return 0;
}

/* ---- giving up ---------------------------------------------------------------------------------------- */

/* Called and returns with the lock held, which is released meanwhile. */
static void forget(struct um_views *v, uint64_t clone)
{
	bool entered;

	if (!clone)
		return;
	pthread_mutex_unlock(&v->lock);
	entered = um_gate_enter(v->m, &v->gate);
	umbra_forget(v->m->fs, clone, 1);
	um_gate_leave(&v->gate, entered);
	pthread_mutex_lock(&v->lock);
}

/* Takes one off the list of the dead. Called and returns with the lock held, which is released
 * meanwhile. */
static void inter(struct um_views *v)
{
	struct um_view *view = v->dead;
	int32_t backing = view->backing;
	int fd = view->fd;

	v->dead = view->next;
	view->next = NULL;
	view->reading++; /* keeps the struct */
	pthread_mutex_unlock(&v->lock);
	if (backing)
		um_backing_close(v->m, backing);
	if (fd >= 0)
		close(fd);
	pthread_mutex_lock(&v->lock);
	v->nbacking -= !!backing;
	view->backing = 0;
	view->fd = -1;
	forget(v, um_view_unread(v, view));
}

/* How many clones of views are among a block's owners; counts at most to `enough`. */
static unsigned owned_by_views(const struct um_views *v, uint64_t lba, unsigned enough)
{
	unsigned n = 0;

	for (unsigned b = 0; b < UM_VIEW_BUCKETS && n < enough; b++)
		for (const struct um_view *view = v->by_id[b]; view; view = view->next_id)
			if (view->hidden_ino && !view->borrowed && lba &&
				umbra_content_has(&view->content, lba))
				n++;
	return n;
}

/* Gives up an idle view if its content belongs to at most one file besides clones of views: nothing
 * is left to share. Called and returns with the lock held, which is released meanwhile. */
static void sweep_view(struct um_views *v, struct um_view *view)
{
	uint64_t clone = view->hidden_ino;
	struct umbra_content now;
	bool alone, entered;

	view->reading++;
	pthread_mutex_unlock(&v->lock);
	entered = um_gate_enter(v->m, &v->gate);
	alone = umbra_content(v->m->fs, clone, &now) || now.owners <= 2;
	um_gate_leave(&v->gate, entered);
	pthread_mutex_lock(&v->lock);
	if (!alone && now.owners <= v->nviews + 1)
		alone = now.owners <= 1 + owned_by_views(v, now.lba, now.owners);
	if (alone && view->idle)
		um_view_bury(v, view);
	forget(v, um_view_unread(v, view));
}

static void sweep(struct um_views *v)
{
	struct um_view *view = v->idle_first;
	unsigned n = v->nidle;

	v->stirred = v->removed = false;
	while (view && n-- && !v->m->readonly) {
		uint64_t next = view->next ? view->next->id : 0;

		sweep_view(v, view);
		view = next ? um_view_by_id(v, next) : NULL;
		if (view && !view->idle)
			view = v->idle_first;
	}
	while (v->dead)
		inter(v);
}

void um_views_sweep(struct um_views *v)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	if (v->stirred || v->dead)
		sweep(v);
	pthread_mutex_unlock(&v->lock);
}

unsigned um_views_count(struct um_views *v, uint64_t lba)
{
	unsigned n;

	if (!v || !lba)
		return 0;
	pthread_mutex_lock(&v->lock);
	n = owned_by_views(v, lba, UINT_MAX);
	pthread_mutex_unlock(&v->lock);
	return n;
}

static void discount(struct um_views *v, uint64_t lba, uint32_t *refs)
{
	unsigned n = um_views_count(v, lba);

	*refs -= n < *refs ? n : *refs - !!*refs;
}

void um_views_discount_owners(struct um_views *v, struct umbra_owners *owners)
{
	for (unsigned i = 0; i < owners->nnode; i++)
		discount(v, owners->node[i].lba, &owners->node[i].parents);
	for (unsigned i = 0; i < owners->nrun; i++)
		discount(v, owners->run[i].lba, &owners->run[i].refs);
}

void um_views_stir(struct um_views *v, bool removed)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	v->stirred = true;
	v->removed |= removed;
	pthread_mutex_unlock(&v->lock);
}

/* ---- the keeper: does what hidden threads and requests must not ----------------------------------- */

/* Invalidates outdated attributes of front inodes in the kernel. Called and returns with the lock
 * held. */
static void tell_kernel(struct um_views *v)
{
	v->inval = false;
	for (unsigned b = 0; b < UM_VIEW_BUCKETS; b++) {
		for (struct um_share *s = v->share[b]; s;) {
			uint64_t ino = s->ino;

			if (!s->old_attr) {
				s = s->next;
				continue;
			}
			s->old_attr = false;
			pthread_mutex_unlock(&v->lock);
			um_inval_attr(v->m, ino);
			pthread_mutex_lock(&v->lock);
			s = v->share[b]; /* the chain may have changed */
		}
	}
}

bool um_views_watched(struct um_views *v)
{
	bool watched;

	if (!v)
		return false;
	pthread_mutex_lock(&v->lock);
	watched = v->enabled;
	pthread_mutex_unlock(&v->lock);
	return watched;
}

static void tick(struct um_views *v)
{
	if (v->enabled && !um_guardian_there(v->guardian)) {
		v->enabled = false;
		um_message(UMBRA_LOG_WARN,
			"the guardian was killed: clones no longer share page cache");
	}
	if (v->removed)
		sweep(v);
}

static void *keeper(void *arg)
{
	struct um_views *v = arg;

	pthread_mutex_lock(&v->lock);
	while (!v->closing) {
		struct timespec until;

		if (v->dead) {
			inter(v);
		} else if (v->inval) {
			tell_kernel(v);
		} else {
			clock_gettime(CLOCK_MONOTONIC, &until);
			until.tv_sec += TICK_SEC;
			if (pthread_cond_timedwait(&v->work, &v->lock, &until) == ETIMEDOUT)
				tick(v);
		}
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

/* ---- start and end ---------------------------------------------------------------------------------- */

/* The reason why files cannot be shared here, or NULL. */
static const char *obstacle(const struct um_mount *m)
{
	if (m->opt->cache_none)
		return "with cache=none there is no page cache to share";
	if (m->writeback)
		return "the kernel does that or writeback, not both";
	if (!(m->offered & (1ull << 37)))
		return "this kernel has no FUSE passthrough (Linux 6.9 and later do)";
	return geteuid() ? "this needs root" : NULL;
}

int um_views_start(struct um_mount *m, struct um_views **out)
{
	const char *why = obstacle(m);
	struct um_views *v;
	int err;

	*out = NULL;
	if (m->opt->share == UM_SHARE_OFF)
		return 0;
	if (why) {
		um_message(UMBRA_LOG_INFO, "clones do not share page cache: %s", why);
		return 0;
	}
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->m = m;
	v->next_id = UM_VIEW_FIRST_ID;
	v->hidden = (struct um_hidden){.dev = -1, .root = -1};
	err = um_gate_new(&v->gate);
	if (err) {
		free(v);
		return err;
	}
	pthread_mutex_init(&v->lock, NULL);
	um_cond_init(&v->changed);
	um_cond_init(&v->work);
	err = um_hidden_start(v);
	if (!err) {
		err = -pthread_create(&v->keeper, NULL, keeper, v);
		if (err)
			um_hidden_stop(v);
	}
	if (err) {
		um_message(UMBRA_LOG_WARN,
			"clones do not share page cache: the hidden mount failed: %s",
			strerror(-err));
		free(v);
		return 0;
	}
	pthread_setname_np(v->keeper, "umbrafs-keep");
	*out = v;
	return 0;
}

void um_views_guarded(struct um_views *v)
{
	int err;

	if (!v)
		return;
	err = um_guardian_start(v->m, v->hidden.minor, &v->guardian);
	if (err) {
		um_message(UMBRA_LOG_WARN,
			"clones do not share page cache: no guardian could be started: %s",
			strerror(-err));
		return;
	}
	pthread_mutex_lock(&v->lock);
	v->enabled = true;
	pthread_mutex_unlock(&v->lock);
}

/* Frees what is left when the threads have ended. */
static void free_all(struct um_views *v)
{
	for (unsigned b = 0; b < UM_VIEW_BUCKETS; b++) {
		struct um_share *s;
		struct um_view *view;

		while ((s = v->share[b])) {
			v->share[b] = s->next;
			free(s);
		}
		while ((view = v->by_id[b])) {
			struct um_pending *p;

			v->by_id[b] = view->next_id;
			while ((p = view->pending)) {
				view->pending = p->next;
				free(p);
			}
			while (view->first_handle) {
				struct um_handle *h = view->first_handle;

				view->first_handle = h->next;
				free(h);
			}
			if (view->hidden_ino)
				umbra_forget(v->m->fs, view->hidden_ino, 1);
			free(view);
		}
	}
	pthread_cond_destroy(&v->changed);
	pthread_cond_destroy(&v->work);
	pthread_mutex_destroy(&v->lock);
	pthread_rwlock_destroy(&v->gate);
	free(v);
}

/* Stores through mappings that still exist are written before the files go. */
static void bury_all(struct um_views *v)
{
	pthread_mutex_lock(&v->lock);
	for (unsigned b = 0; b < UM_VIEW_BUCKETS; b++) {
		for (struct um_view *view = v->by_id[b]; view; view = view->next_id) {
			int fd = view->fd;

			if (view->state == UM_VIEW_DEAD)
				continue;
			um_view_bury(v, view);
			if (fd < 0)
				continue;
			pthread_mutex_unlock(&v->lock);
			sync_file_range(fd, 0, 0,
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					SYNC_FILE_RANGE_WAIT_AFTER);
			pthread_mutex_lock(&v->lock);
		}
	}
	while (v->dead)
		inter(v);
	pthread_mutex_unlock(&v->lock);
}

void um_views_stop(struct um_views *v)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	v->closing = true;
	v->enabled = false;
	pthread_cond_signal(&v->work);
	pthread_mutex_unlock(&v->lock);
	pthread_join(v->keeper, NULL);
	bury_all(v);
	um_hidden_stop(v);
	um_guardian_stop(v->guardian);
	free_all(v);
}

void um_views_stat(struct um_views *v, umbra_stat_fn *fn, void *arg)
{
	static const struct um_views none;
	const struct um_views *from = v ? v : &none;

	if (v)
		pthread_mutex_lock(&v->lock);
	fn(arg, "views", from->nviews);
	fn(arg, "views_idle", from->nidle);
	fn(arg, "views_made", from->stat_made);
	fn(arg, "view_opens", from->stat_view_opens);
	fn(arg, "view_binds", from->stat_binds);
	fn(arg, "view_opens_unpaired", from->stat_unpaired);
	fn(arg, "cached_opens", from->stat_cached_opens);
	fn(arg, "backing_ids", from->nbacking);
	fn(arg, "etxtbsy", from->stat_txtbsy);
	if (v)
		pthread_mutex_unlock(&v->lock);
}
