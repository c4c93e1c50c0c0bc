/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state of files: cached, view or bound, by their opens on either mount.
 *
 * A passed-through open counts twice: `front` from our reply to the RELEASE on the front mount,
 * `hidden` from the open that the kernel then makes on the hidden mount to the release there, which
 * comes last when a mapping outlives its descriptor. Only when both are gone has the file left the
 * view. The open on the hidden mount is matched with our reply by the task that makes it.
 */
#include "fuse/view_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse/message.h"
#include "pool/clock.h"

#define EXEC_FLAG 0x20      /* __FMODE_EXEC of the kernel: open for exec */
#define WAIT_NSEC 100000000 /* for the release of what was closed just now */
#define ANY_WRITE (S_IWUSR | S_IWGRP | S_IWOTH)

static struct um_share **share_slot(struct um_views *v, uint64_t ino)
{
	return &v->share[(ino * 0x9e3779b97f4a7c15ull >> 32) % UM_VIEW_BUCKETS];
}

struct um_share *um_share_find(struct um_views *v, uint64_t ino)
{
	struct um_share *s = *share_slot(v, ino);

	while (s && s->ino != ino)
		s = s->next;
	return s;
}

static struct um_share *share_get(struct um_views *v, uint64_t ino)
{
	struct um_share **slot = share_slot(v, ino);
	struct um_share *s = um_share_find(v, ino);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->ino = ino;
	s->next = *slot;
	*slot = s;
	return s;
}

/* ---- views and their members ----------------------------------------------------------------------- */

static void attach(struct um_views *v, struct um_share *s, struct um_view *view)
{
	um_view_set_idle(v, view, false);
	s->view = view;
	s->next_member = view->members;
	view->members = s;
	view->users++;
}

static void detach(struct um_views *v, struct um_share *s)
{
	struct um_view *view = s->view;
	struct um_share **at = &view->members;

	while (*at != s)
		at = &(*at)->next_member;
	*at = s->next_member;
	s->view = NULL;
	s->next_member = NULL;
	view->users--;
	pthread_cond_broadcast(&v->changed);
	if (view->users || view->state != UM_VIEW_READY)
		return;
	if (view->bound || !view->listed) {
		um_view_bury(v, view);
	} else {
		um_view_set_idle(v, view, true);
		v->stirred = v->removed = true;
	}
}

void um_share_settle(struct um_views *v, struct um_share *s)
{
	struct um_share **at = share_slot(v, s->ino);

	if (s->view && !s->front && !s->hidden && !s->view->unpaired && !s->busy)
		detach(v, s);
	if (s->view || s->cached || s->front || s->hidden || s->busy || s->stale)
		return;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	free(s);
}

/* ---- opens on the hidden mount ---------------------------------------------------------------------- */

/* Whose open is it? The latest reply to the same task. Tasks of a foreign pid namespace all have
 * number 0: if replies for several files are pending, it is unknown. */
static struct um_pending *take_pending(struct um_view *view, uint32_t tid)
{
	struct um_pending **found = NULL, *p;

	for (struct um_pending **at = &view->pending; *at; at = &(*at)->next) {
		if ((*at)->tid != tid)
			continue;
		if (!tid && found && (*found)->share != (*at)->share)
			return NULL;
		if (!found)
			found = at;
	}
	if (!found)
		return NULL;
	p = *found;
	*found = p->next;
	return p;
}

struct um_handle *um_handle_open(struct um_views *v, struct um_view *view, uint32_t tid)
{
	struct um_handle *h = calloc(1, sizeof(*h));
	struct um_pending *p;

	if (!h)
		return NULL;
	p = take_pending(view, tid);
	h->view = view;
	h->next = view->first_handle;
	h->at = &view->first_handle;
	if (h->next)
		h->next->at = &h->next;
	view->first_handle = h;
	view->handles++;
	if (!p) {
		h->unpaired = true;
		view->unpaired++;
		v->stat_unpaired++;
	} else if (p->share) {
		h->share = p->share;
		h->share->hidden++;
	}
	free(p);
	return h;
}

void um_handle_release(struct um_views *v, struct um_handle *h)
{
	struct um_view *view = h->view;

	*h->at = h->next;
	if (h->next)
		h->next->at = h->at;
	view->handles--;
	if (h->share) {
		h->share->hidden--;
		um_share_settle(v, h->share);
	} else if (h->unpaired && !--view->unpaired) {
		for (struct um_share *s = view->members, *next; s; s = next) {
			next = s->next_member;
			um_share_settle(v, s);
		}
	}
	free(h);
	um_view_free_if_done(v, view);
}

/* ---- policy -------------------------------------------------------------------------------------------- */

static int64_t now_sec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Readers of this file get no view for a while. */
static void be_wary(struct um_views *v, uint64_t ino)
{
	v->wary[v->next_wary].ino = ino;
	v->wary[v->next_wary].until = now_sec() + UM_VIEW_WARY_SEC;
	v->next_wary = (v->next_wary + 1) % UM_VIEW_WARY;
}

static bool is_wary(const struct um_views *v, uint64_t ino)
{
	for (unsigned i = 0; i < UM_VIEW_WARY; i++)
		if (v->wary[i].ino == ino && v->wary[i].until > now_sec())
			return true;
	return false;
}

static bool policy(
	const struct um_views *v, uint64_t ino, int flags, const struct umbra_content *content)
{
	if (content->kind == UMBRA_CONTENT_NONE || content->size < UM_VIEW_MIN_SIZE)
		return false;
	/* Writes that pass through a view do not tell how the file was opened: see may_write() in
	 * ops_file.c. */
	if ((content->flags & (FS_APPEND_FL | FS_IMMUTABLE_FL)) == FS_APPEND_FL)
		return false;
	switch (v->m->opt->share) {
	case UM_SHARE_OFF:
		break;
	case UM_SHARE_IMMUTABLE:
		return content->flags & FS_IMMUTABLE_FL;
	case UM_SHARE_ALL:
		return true;
	case UM_SHARE_AUTO:
		return (flags & EXEC_FLAG) || (content->flags & FS_IMMUTABLE_FL) ||
		       !(content->mode & ANY_WRITE) || !is_wary(v, ino);
	}
	return false;
}

/* ---- opens ------------------------------------------------------------------------------------------------ */

static int grant_view(struct um_views *v, struct um_share *s, uint32_t tid, struct um_grant *out)
{
	struct um_pending *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct um_pending){.share = s, .seq = um_fh_number(v->m), .tid = tid};
	p->next = s->view->pending;
	s->view->pending = p;
	s->front++;
	v->stat_view_opens++;
	out->backing = s->view->backing;
	out->seq = p->seq;
	out->fd = s->view->bound ? s->view->fd : -1;
	return 0;
}

static void grant_cached(struct um_views *v, struct um_share *s, struct um_grant *out)
{
	*out = UM_GRANT_NONE;
	out->stale = s->stale;
	s->stale = false;
	s->cached++;
	v->stat_cached_opens++;
}

/* The view of ino's content, created if there is none, or NULL. s is busy. Called and returns with
 * the lock held, which is released meanwhile. */
static struct um_view *view_for(struct um_views *v, uint64_t ino, int flags)
{
	struct umbra_content content;
	struct um_view *view;
	int err;

	pthread_mutex_unlock(&v->lock);
	err = umbra_content(v->m->fs, ino, &content);
	pthread_mutex_lock(&v->lock);
	if (err || !policy(v, ino, flags, &content))
		return NULL;
	while ((view = um_view_by_content(v, &content)) && view->state == UM_VIEW_MAKING)
		pthread_cond_wait(&v->changed, &v->lock);
	/* A read-only filesystem cannot make the clone that a view shows, and one that became
	 * read-only has no gate to ensure that none is missing when it is writable again. */
	if (view || content.owners < 2 || (v->m->readonly && !v->m->frozen))
		return view;
	view = um_view_add(v, &content);
	if (!view)
		return NULL;
	pthread_mutex_unlock(&v->lock);
	err = um_view_make(v, view, ino);
	pthread_mutex_lock(&v->lock);
	view->state = UM_VIEW_READY;
	pthread_cond_broadcast(&v->changed);
	if (!err)
		return view;
	um_view_bury(v, view);
	if (err == -EPERM || err == -EOPNOTSUPP || err == -ENOTTY || err == -ELOOP) {
		if (v->enabled)
			um_message(UMBRA_LOG_WARN,
				"clones no longer share page cache: backing files fail: %s",
				strerror(-err));
		v->enabled = false;
	}
	return NULL;
}

static int enter_reader(
	struct um_views *v, struct um_share *s, int flags, uint32_t tid, struct um_grant *out)
{
	struct um_view *view = NULL;

	if (!s->view && !s->cached && v->enabled && !(flags & O_DIRECT)) {
		s->busy = true;
		view = view_for(v, s->ino, flags);
		s->busy = false;
		if (view)
			attach(v, s, view);
		pthread_cond_broadcast(&v->changed);
	}
	if (s->view)
		return grant_view(v, s, tid, out);
	grant_cached(v, s, out);
	return 0;
}

/* A writer opened a file that is the only user of its view: the view becomes the file's. s is busy
 * meanwhile. Called and returns with the lock held. */
static int bind_view(struct um_views *v, struct um_share *s)
{
	struct um_view *view = s->view;
	uint64_t clone;
	int fd = -1, err;

	um_view_unlist(v, view);
	s->busy = true;
	pthread_mutex_unlock(&v->lock);
	err = um_view_open_own(v, view, O_RDWR, &fd);
	pthread_mutex_lock(&v->lock);
	s->busy = false;
	pthread_cond_broadcast(&v->changed);
	if (err) /* the view stays as it is, for those who have it */
		return err;
	view->fd = fd;
	view->bound = s->ino;
	s->stale = true;
	v->stat_binds++;
	clone = um_view_take_hidden(view);
	if (clone) {
		s->busy = true;
		pthread_mutex_unlock(&v->lock);
		umbra_forget(v->m->fs, clone, 1);
		pthread_mutex_lock(&v->lock);
		s->busy = false;
		pthread_cond_broadcast(&v->changed);
	}
	return 0;
}

/* Waits a while for the file to leave its view: the release of what was just closed may be in
 * flight. */
static void await_leave(struct um_views *v, uint64_t ino)
{
	struct timespec until = um_after_ns(WAIT_NSEC);
	struct um_share *s;

	while ((s = um_share_find(v, ino)) && s->view && !s->busy)
		if (pthread_cond_timedwait(&v->changed, &v->lock, &until))
			break;
}

/* The share of the file, not busy; NULL without memory. */
static struct um_share *share_calm(struct um_views *v, uint64_t ino)
{
	struct um_share *s;

	while ((s = share_get(v, ino)) && s->busy)
		pthread_cond_wait(&v->changed, &v->lock);
	return s;
}

/* Brings the file into a state in which it may change: cached, or bound. */
static int allow_change(struct um_views *v, uint64_t ino, bool wait, struct um_share **out)
{
	struct um_share *s = share_calm(v, ino);

	if (s && s->view && !s->view->bound) {
		bool shared = s->view->users > 1 || s->view->unpaired;

		be_wary(v, ino);
		*out = s;
		if (shared && !wait)
			return -EAGAIN;
		if (shared)
			await_leave(v, ino);
		s = share_calm(v, ino);
	}
	*out = s;
	if (!s)
		return -ENOMEM;
	if (!s->view || s->view->bound)
		return 0;
	if (s->view->users == 1 && !s->view->unpaired && !bind_view(v, s))
		return 0;
	v->stat_txtbsy++;
	return -ETXTBSY;
}

int um_views_enter(
	struct um_views *v, uint64_t ino, int flags, uint32_t tid, bool wait, struct um_grant *out)
{
	bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
	struct um_share *s;
	int err = 0;

	*out = UM_GRANT_NONE;
	if (!v)
		return 0;
	pthread_mutex_lock(&v->lock);
	if (changes) {
		err = allow_change(v, ino, wait, &s);
		if (!err && s->view)
			err = grant_view(v, s, tid, out);
		else if (!err)
			grant_cached(v, s, out);
	} else {
		s = share_calm(v, ino);
		err = s ? enter_reader(v, s, flags, tid, out) : -ENOMEM;
	}
	if (err && s)
		um_share_settle(v, s);
	pthread_mutex_unlock(&v->lock);
	return err;
}

/* An open that the kernel abandoned before it reached the hidden mount. */
static void drop_pending(struct um_view *view, uint64_t seq)
{
	for (struct um_pending **at = &view->pending; *at; at = &(*at)->next) {
		struct um_pending *p = *at;

		if (p->seq != seq)
			continue;
		*at = p->next;
		free(p);
		return;
	}
}

void um_views_leave(struct um_views *v, uint64_t ino, uint64_t seq)
{
	struct um_share *s;

	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	s = um_share_find(v, ino);
	if (s && !seq && s->cached) {
		s->cached--;
		v->stirred = true;
	} else if (s && seq && s->front) {
		s->front--;
		drop_pending(s->view, seq);
	}
	if (s)
		um_share_settle(v, s);
	pthread_mutex_unlock(&v->lock);
}

/* ---- changes from elsewhere ---------------------------------------------------------------------------- */

int um_views_change_begin(struct um_views *v, uint64_t ino, bool wait, int *out_fd)
{
	struct um_share *s;
	int err;

	*out_fd = -1;
	if (!v)
		return 0;
	pthread_mutex_lock(&v->lock);
	err = allow_change(v, ino, wait, &s);
	if (err && s) {
		um_share_settle(v, s);
	} else if (!err && s->view) {
		s->front++;
		*out_fd = s->view->fd;
	} else if (!err) {
		s->cached++;
	}
	v->stirred = v->removed = true;
	pthread_mutex_unlock(&v->lock);
	return err;
}

void um_views_change_end(struct um_views *v, uint64_t ino, int fd)
{
	struct um_share *s;

	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	s = um_share_find(v, ino);
	if (s && fd >= 0)
		s->front--;
	else if (s)
		s->cached--;
	if (s)
		um_share_settle(v, s);
	pthread_mutex_unlock(&v->lock);
}

void um_views_flush(struct um_views *v, uint64_t ino)
{
	struct um_share *s;
	int fd = -1;

	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	s = um_share_find(v, ino);
	if (s && s->view && s->view->bound) {
		fd = s->view->fd;
		s->front++;
	}
	pthread_mutex_unlock(&v->lock);
	if (fd < 0)
		return;
	sync_file_range(fd, 0, 0,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	um_views_change_end(v, ino, fd);
}

void um_views_refresh(struct um_views *v, uint64_t ino, int fd, uint64_t off, uint64_t len)
{
	struct um_share *s;
	uint64_t id = 0;

	if (!v || fd < 0)
		return;
	pthread_mutex_lock(&v->lock);
	s = um_share_find(v, ino);
	if (s && s->view)
		id = s->view->id;
	pthread_mutex_unlock(&v->lock);
	if (id)
		um_hidden_drop(v, id, off, len);
}

static void set_growing(struct um_views *v, uint64_t ino, bool growing)
{
	struct um_share *s;

	pthread_mutex_lock(&v->lock);
	s = um_share_find(v, ino);
	if (s && s->view)
		s->view->growing = growing;
	pthread_mutex_unlock(&v->lock);
}

void um_views_grow_begin(struct um_views *v, uint64_t ino, int fd)
{
	if (v && fd >= 0)
		set_growing(v, ino, true);
}

void um_views_grow_end(struct um_views *v, uint64_t ino, int fd)
{
	struct umbra_attr attr;

	if (!v || fd < 0)
		return;
	if (!umbra_getattr(v->m->fs, ino, &attr) && ftruncate(fd, attr.st.st_size))
		um_message(UMBRA_LOG_WARN, "the size of inode %llu could not be told: %s",
			(unsigned long long)ino, strerror(errno));
	set_growing(v, ino, false);
}
