/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Views on a mount that began read-only.
 *
 * What a view shows must not change, so it is a clone of its own (view.h), which cannot be made on
 * a read-only filesystem. There a view borrows the file from which it was made, which nobody can
 * change either, until the filesystem becomes writable: then each view in use gets its clone,
 * before the first writer may come. The clone has the same content, so readers through the view and
 * mappings notice nothing.
 */
#include "fuse/view_int.h"

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

/* An unused view is dropped: the next reader makes another. Called and returns with the lock held,
 * which is released meanwhile. */
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

/* This view stays in place while the lock is released, and no others appear: their makers wait at
 * the mount's gate. */
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
