/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Views of a mount that began read-only.
 *
 * What a view shows must not change, so it is a clone of its own (view.h); which a read-only filesystem cannot make. There a view
 * borrows the file that it was made of, which nobody can change either, until the filesystem becomes writable: then each view
 * that is in use gets its clone, before the first writer may come. Its content is the same, so that whoever reads through the view,
 * or has it mapped, notices nothing.
 */
#include "fuse/view_int.h"

bool um_views_gate_enter(struct um_views *v)
{
	if (!v->m->gated)
		return false;
	pthread_rwlock_rdlock(&v->gate);
	return true;
}

void um_views_gate_leave(struct um_views *v, bool entered)
{
	if (entered)
		pthread_rwlock_unlock(&v->gate);
}

void um_views_hold(struct um_views *v)
{
	if (v)
		pthread_rwlock_wrlock(&v->gate);
}

void um_views_let_go(struct um_views *v)
{
	if (v)
		pthread_rwlock_unlock(&v->gate);
}

/* One that nobody uses goes: the next reader makes another. Called and returns with the lock held, given up meanwhile. */
static int own(struct um_views *v, struct um_view *view)
{
	uint64_t file = view->hidden_ino, clone;
	int err;

	if (view->idle)
		um_view_bury(v, view);
	if (view->state != UM_VIEW_READY)
		return 0;
	pthread_mutex_unlock(&v->lock);
	err = um_view_clone(v, file, &view->content, &clone);
	pthread_mutex_lock(&v->lock);
	if (err)
		return err;
	view->hidden_ino = clone;
	view->borrowed = false;
	pthread_mutex_unlock(&v->lock);
	umbra_forget(v->m->fs, file, 1);
	pthread_mutex_lock(&v->lock);
	return 0;
}

/* The view at hand stays where it is while the lock is given up, and no others come: who makes them waits at the mount's gate. */
int um_views_own(struct um_views *v)
{
	int err = 0;

	if (!v)
		return 0;
	pthread_mutex_lock(&v->lock);
	for (unsigned b = 0; b < UM_VIEW_BUCKETS; b++)
		for (struct um_view *view = v->by_id[b]; view && !err; view = view->next_id)
			if (view->borrowed)
				err = own(v, view);
	pthread_mutex_unlock(&v->lock);
	return err;
}
