/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tokens, and the clone threads: several, as cloning a range may take long.
 *
 * A clone changes a file's content behind the kernel's back, so its pages must go. Invalidating
 * waits for reads in flight and writes dirty pages of mappings, both of which need a worker: so a
 * worker must never do it. Order: invalidate (older stores through mappings reach us), clone,
 * invalidate again (pages read in between). A store through a mapping of the destination that races
 * with the clone may take effect after it, page by page; such a race has no better outcome on any
 * filesystem. A write must not: its page may be dropped, and read back, while the data is on its way.
 * So the kernel has the inode locked meanwhile: src/DESIGN.md, section 7.
 */
#include "fuse/door.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "fuse/armed.h"
#include "fuse/seam.h"
#include "fuse/tree.h"
#include "fuse/view.h"

#define TOKENS 512 /* at once; the oldest is dropped if there are more */
#define TOKEN_SEC 60
#define THREADS 4 /* clones at a time */
#define EARLY 16  /* interrupts remembered for which no job was found */

struct token {
	uint8_t bytes[16];
	uint64_t ino; /* 0: free */
	time_t made;  /* CLOCK_MONOTONIC */
};

/* A clone has to be carried out in a fallocate: src/DESIGN.md, section 7. */
enum stage {
	ASKED, /* by the ioctl, and seems to clone nothing: carried out unless it makes dst longer */
	TO_ARM, /* nothing was done, and it is kept for a fallocate */
	FIRED,  /* in that fallocate, which is the request */
};

struct job {
	struct job *next;
	fuse_req_t req;
	uint64_t unique; /* the request's number */
	atomic_bool stop;
	uint64_t src, dst, fh;
	uint32_t tid;
	enum stage stage;
	uint64_t must_end; /* FIRED: where in dst the clone was armed to end; else 0 */
	uint64_t end;      /* where it ends, or would if TO_ARM; 0: not known */
	struct um_ioc_clone want;
	struct um_ioc_tree *tree;       /* or this */
	void (*fn)(void *arg, int err); /* or this */
	void *arg;
};

struct um_door {
	struct um_mount *m;
	struct um_armed *armed;
	pthread_mutex_t lock; /* protects everything below; a leaf */
	pthread_cond_t more;
	struct token tokens[TOKENS];
	struct job *first, **last, *running;
	uint64_t early
		[EARLY]; /* numbers of requests that were interrupted before they arrived here */
	unsigned nearly;
	bool closing;
	pthread_t threads[THREADS];
	unsigned nthreads;
};

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* ---- tokens ----------------------------------------------------------------------------------------- */

/* Frees the slot; returns the reference that it held, to be dropped outside the lock. */
static uint64_t token_take(struct token *token)
{
	uint64_t ino = token->ino;

	memset(token, 0, sizeof(*token));
	return ino;
}

/* An unlinked source must not be kept because nobody redeemed its token. */
void um_door_sweep(struct um_door *door)
{
	uint64_t gone[TOKENS];
	size_t n = 0;

	pthread_mutex_lock(&door->lock);
	for (size_t i = 0; i < TOKENS; i++)
		if (door->tokens[i].ino && now() - door->tokens[i].made > TOKEN_SEC)
			gone[n++] = token_take(&door->tokens[i]);
	pthread_mutex_unlock(&door->lock);
	while (n)
		umbra_forget(door->m->fs, gone[--n], 1);
	um_armed_sweep(door->armed);
}

int um_door_token(struct um_door *door, uint64_t ino, struct um_ioc_token *out)
{
	struct token *slot = &door->tokens[0];
	struct token fresh = {.ino = ino, .made = now()};
	uint64_t gone;
	int err;

	if (getrandom(fresh.bytes, sizeof(fresh.bytes), 0) != sizeof(fresh.bytes))
		return -EIO;
	err = umbra_ref(door->m->fs, ino);
	if (err)
		return err;
	um_door_sweep(door);
	pthread_mutex_lock(&door->lock);
	for (size_t i = 0; i < TOKENS; i++) {
		if (!door->tokens[i].ino || door->tokens[i].made < slot->made)
			slot = &door->tokens[i];
		if (!slot->ino)
			break;
	}
	gone = token_take(slot);
	*slot = fresh;
	pthread_mutex_unlock(&door->lock);
	if (gone)
		umbra_forget(door->m->fs, gone, 1);
	memcpy(out->token, fresh.bytes, sizeof(out->token));
	return 0;
}

/* Constant time, so that it reveals nothing. */
static bool token_equals(const struct token *token, const uint8_t bytes[16])
{
	unsigned diff = 0;

	for (size_t i = 0; i < 16; i++)
		diff |= token->bytes[i] ^ bytes[i];
	return token->ino && !diff;
}

int um_door_redeem(struct um_door *door, const uint8_t bytes[16], uint64_t *out_ino)
{
	uint64_t ino = 0;
	bool fresh = false;

	pthread_mutex_lock(&door->lock);
	for (size_t i = 0; i < TOKENS; i++) {
		struct token *token = &door->tokens[i];

		if (!token_equals(token, bytes))
			continue;
		fresh = now() - token->made <= TOKEN_SEC;
		ino = token_take(token);
		break;
	}
	pthread_mutex_unlock(&door->lock);
	if (ino && !fresh)
		umbra_forget(door->m->fs, ino, 1);
	*out_ino = ino;
	return fresh ? 0 : -EACCES;
}

static void tokens_drop(struct um_door *door)
{
	for (size_t i = 0; i < TOKENS; i++)
		if (door->tokens[i].ino)
			umbra_forget(door->m->fs, token_take(&door->tokens[i]), 1);
}

/* ---- clones ------------------------------------------------------------------------------------------- */

static bool job_stops(void *arg)
{
	struct job *job = arg;

	return atomic_load_explicit(&job->stop, memory_order_relaxed);
}

/* In its fallocate nobody else changes the size. */
static bool grows(const struct um_mount *m, const struct job *job)
{
	struct umbra_attr to;

	return job->stage == FIRED && !umbra_getattr(m->fs, job->dst, &to) &&
	       job->must_end > (uint64_t)to.st.st_size;
}

/* Carries out the clone, or finds that it is TO_ARM. */
static int run(struct um_mount *m, struct job *job)
{
	const struct um_ioc_clone *want = &job->want;
	struct umbra_clone_bounds bounds = {job_stops, job, job->must_end};
	bool grown;
	int fd, err;

	if (job_stops(job))
		return -EINTR;
	um_views_flush(m->views, job->src);
	um_views_flush(m->views, job->dst);
	err = um_views_change_begin(m->views, job->dst, true, &fd);
	if (err)
		return err;
	grown = grows(m, job);
	if (grown)
		um_views_grow_begin(m->views, job->dst, fd);
	um_inval_data(m, job->dst, want->dst_off, want->len);
	err = umbra_clone_range_until(
		m->fs, job->src, want->src_off, want->len, job->dst, want->dst_off, &bounds);
	job->end = bounds.end;
	if (err == -EAGAIN && job->stage == ASKED && job->end) {
		job->stage = TO_ARM;
		err = 0;
	}
	/* Part of it may be done in spite of an error. */
	um_views_refresh(m->views, job->dst, fd, want->dst_off, want->len);
	um_inval_data(m, job->dst, want->dst_off, want->len);
	if (grown)
		um_views_grow_end(m->views, job->dst, fd);
	um_views_change_end(m->views, job->dst, fd);
	return err;
}

/* Keeps the clone for a fallocate; takes over the reference to its source in any case. */
static int job_arm(const struct um_mount *m, const struct job *job)
{
	int err = um_armed_keep(m->door->armed, &(struct um_armed_clone){
							.src = job->src,
							.dst = job->dst,
							.fh = job->fh,
							.tid = job->tid,
							.end = job->end,
							.want = job->want,
						});

	if (err)
		umbra_forget(m->fs, job->src, 1);
	return err;
}

static void clone_end(struct um_mount *m, struct job *job, int err)
{
	struct um_ioc_clone out = job->want;

	out.done = job->end ? job->end - out.dst_off : 0;
	if (job->stage == TO_ARM) {
		err = job_arm(m, job);
		out.status = UM_CLONE_ARMED;
	} else {
		umbra_forget(m->fs, job->src, 1);
	}
	if (err || job->stage == FIRED)
		fuse_reply_err(job->req, -err);
	else
		fuse_reply_ioctl(job->req, 0, &out, sizeof(out));
	free(job);
}

static void job_end(struct um_mount *m, struct job *job, int err)
{
	if (!job->fn && !job->tree) {
		clone_end(m, job, err);
		return;
	}
	if (job->fn)
		job->fn(job->arg, err);
	else if (err)
		fuse_reply_err(job->req, -err);
	else
		fuse_reply_ioctl(job->req, 0, job->tree, sizeof(*job->tree));
	free(job->tree);
	free(job);
}

static struct job *job_next(struct um_door *door)
{
	struct job *job;

	pthread_mutex_lock(&door->lock);
	while (!door->first && !door->closing)
		pthread_cond_wait(&door->more, &door->lock);
	job = door->closing ? NULL : door->first;
	if (job) {
		door->first = job->next;
		if (!door->first)
			door->last = &door->first;
		job->next = door->running;
		door->running = job;
	}
	pthread_mutex_unlock(&door->lock);
	return job;
}

static void job_remove(struct um_door *door, const struct job *job)
{
	pthread_mutex_lock(&door->lock);
	for (struct job **at = &door->running; *at; at = &(*at)->next) {
		if (*at == job) {
			*at = job->next;
			break;
		}
	}
	pthread_mutex_unlock(&door->lock);
}

static void *door_thread(void *arg)
{
	struct um_door *door = arg;
	struct job *job;
	int err;

	while ((job = job_next(door))) {
		err = 0;
		if (!job->fn)
			err = job->tree ? um_tree_run(door->m, job->dst, job->tree)
					: run(door->m, job);
		job_remove(door, job);
		job_end(door->m, job, err);
	}
	return NULL;
}

static bool jobs_stop(struct job *list, uint64_t unique)
{
	bool found = false;

	for (struct job *job = list; job; job = job->next) {
		if (!unique || job->unique == unique) {
			atomic_store_explicit(&job->stop, true, memory_order_relaxed);
			found = true;
		}
	}
	return found;
}

void um_door_interrupt(struct um_door *door, uint64_t unique)
{
	pthread_mutex_lock(&door->lock);
	if (!jobs_stop(door->running, unique) && !jobs_stop(door->first, unique))
		door->early[door->nearly++ % EARLY] = unique;
	pthread_mutex_unlock(&door->lock);
}

bool um_door_interrupted(struct um_door *door, uint64_t unique)
{
	bool is = false;

	pthread_mutex_lock(&door->lock);
	for (unsigned i = 0; i < EARLY; i++)
		is |= door->early[i] == unique;
	pthread_mutex_unlock(&door->lock);
	return is;
}

static void job_submit(struct um_door *door, struct job *job)
{
	bool closed;

	pthread_mutex_lock(&door->lock);
	for (unsigned i = 0; i < EARLY; i++)
		if (door->early[i] == job->unique)
			atomic_store_explicit(&job->stop, true, memory_order_relaxed);
	closed = door->closing;
	if (!closed) {
		*door->last = job;
		door->last = &job->next;
		pthread_cond_signal(&door->more);
	}
	pthread_mutex_unlock(&door->lock);
	if (closed)
		job_end(door->m, job, -EIO);
}

/*
 * Where the clone seems to end, or 0 if there seems to be nothing to clone.
 *
 * It is an estimate as sizes may change at any time, also while an armed clone waits, and because it
 * checks no more than it needs. Neither error does harm. One taken for nothing is refused by the
 * engine if it makes dst longer, and armed then. One that is armed and cannot be made at all meets
 * all checks in its fallocate: if it does not end there (the source has another size) the caller
 * begins again.
 */
static uint64_t seems_to_end_at(
	const struct um_mount *m, uint64_t src, const struct um_ioc_clone *want)
{
	struct umbra_attr from;
	uint64_t size, len;

	if (umbra_getattr(m->fs, src, &from))
		return 0;
	size = (uint64_t)from.st.st_size;
	if (want->src_off >= size || want->len > size - want->src_off)
		return 0;
	len = want->len ? want->len : size - want->src_off;
	if (want->dst_off > INT64_MAX - len)
		return 0;
	return want->dst_off + len;
}

static void clone_submit(struct um_door *door, const struct job *clone)
{
	struct job *job = malloc(sizeof(*job));

	if (!job) {
		umbra_forget(door->m->fs, clone->src, 1);
		fuse_reply_err(clone->req, ENOMEM);
		return;
	}
	memcpy(job, clone, sizeof(*job));
	if (job->stage == TO_ARM)
		job_end(door->m, job, 0);
	else
		job_submit(door, job);
}

void um_door_clone(struct um_door *door, fuse_req_t req, uint64_t src, uint64_t dst, uint64_t fh,
	const struct um_ioc_clone *want)
{
	uint64_t end = seems_to_end_at(door->m, src, want);

	clone_submit(door, &(struct job){
				   .req = req,
				   .unique = um_facts.unique,
				   .src = src,
				   .dst = dst,
				   .fh = fh,
				   .tid = um_facts.tid,
				   .stage = end ? TO_ARM : ASKED,
				   .end = end,
				   .want = *want,
			   });
}

bool um_door_fire(
	struct um_door *door, fuse_req_t req, uint64_t dst, uint64_t fh, uint64_t off, uint64_t len)
{
	struct um_armed_clone clone;

	if (len != 1 || !um_armed_take(door->armed, dst, fh, um_facts.tid, off + 1, &clone))
		return false;
	clone_submit(door, &(struct job){
				   .req = req,
				   .unique = um_facts.unique,
				   .src = clone.src,
				   .dst = dst,
				   .stage = FIRED,
				   .must_end = clone.end,
				   .want = clone.want,
			   });
	return true;
}

void um_door_drop(struct um_door *door, uint64_t dst, uint64_t fh, const uint8_t *token)
{
	um_armed_drop(door->armed, dst, fh, token);
}

void um_door_tree(struct um_door *door, fuse_req_t req, uint64_t dst, struct um_ioc_tree *want)
{
	struct job *job = malloc(sizeof(*job));

	if (!job) {
		free(want);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*job = (struct job){.req = req, .unique = um_facts.unique, .dst = dst, .tree = want};
	job_submit(door, job);
}

void um_door_run(struct um_door *door, void (*fn)(void *arg, int err), void *arg)
{
	struct job *job = malloc(sizeof(*job));

	if (!job) {
		fn(arg, -ENOMEM);
		return;
	}
	*job = (struct job){.unique = um_facts.unique, .fn = fn, .arg = arg};
	job_submit(door, job);
}

int um_door_open(struct um_mount *m, struct um_door **out)
{
	struct um_door *door = calloc(1, sizeof(*door));
	int err;

	*out = NULL;
	if (!door)
		return -ENOMEM;
	door->m = m;
	door->last = &door->first;
	pthread_mutex_init(&door->lock, NULL);
	pthread_cond_init(&door->more, NULL);
	err = um_armed_new(m, &door->armed);
	if (err) {
		um_door_close(door);
		return err;
	}
	while (door->nthreads < THREADS) {
		err = pthread_create(&door->threads[door->nthreads], NULL, door_thread, door);
		if (err) {
			um_door_close(door);
			return -err;
		}
		pthread_setname_np(door->threads[door->nthreads++], "umbrafs-door");
	}
	*out = door;
	return 0;
}

void um_door_stop(struct um_door *door)
{
	struct job *job;

	pthread_mutex_lock(&door->lock);
	door->closing = true;
	jobs_stop(door->running, 0);
	pthread_cond_broadcast(&door->more);
	pthread_mutex_unlock(&door->lock);
	for (unsigned i = 0; i < door->nthreads; i++)
		pthread_join(door->threads[i], NULL);
	door->nthreads = 0;
	while ((job = door->first)) { /* nobody adds to it any more */
		door->first = job->next;
		job_end(door->m, job, -EIO);
	}
}

void um_door_close(struct um_door *door)
{
	if (!door)
		return;
	um_door_stop(door);
	tokens_drop(door);
	um_armed_free(door->armed);
	pthread_mutex_destroy(&door->lock);
	pthread_cond_destroy(&door->more);
	free(door);
}
