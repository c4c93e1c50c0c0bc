/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The reaper: frees inodes that nobody can reach any more, and does the periodic work. Its queue
 * holds candidates only: whether an inode may go is decided inside the transaction that frees it,
 * by its orphan record, its link count and um_mem_idle(). So an inode may be queued twice, or too
 * early, without harm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/fs.h"
#include "fs/orphan.h"
#include "fs/shadows.h"
#include "pool/clock.h"

#define BATCH 16u               /* inodes in one transaction */
#define BATCH_BYTES (32u << 10) /* and the record size it should not exceed */
#define BACKLOG_HELP 10000u     /* from this backlog on, callers that unlink also free */
#define NOTES 4096u             /* recently unlinked inodes that are still held */
#define LEAVING_NSEC 100000000u /* unlinked earlier than this and still held: held on purpose */
#define GRACE_NSEC 20000000u    /* time allowed for the forget of one */
#define FAILED_LOG 20u
#define TICK_NSEC 1000000000u
#define SCAN 256u /* records read at a time after mount */

bool um_reaper_manual;

struct note {
	um_ino_t ino;
	uint64_t nsec;
};

struct um_reaper {
	pthread_t thread;
	bool manual;          /* no thread: um_reaper_run() */
	pthread_mutex_t lock; /* everything below; only a bucket of the mem table is taken inside */
	pthread_cond_t wake;  /* of the reaper */
	pthread_cond_t freed; /* for threads that wait */
	um_ino_t *queue;      /* ring */
	size_t head, n, cap;  /* cap: power of 2, or 0 */
	unsigned busy;        /* batches being worked on */
	atomic_uint nfailed;  /* inodes that could not be freed; the first few are logged */
	bool stop, dead;      /* dead: the log accepts no more transactions */
	bool scan;            /* records of the tree from scan_pos on have to be examined */
	uint64_t scan_pos;
	struct note note[NOTES]; /* ring of the latest */
	uint64_t nnotes;
	bool retry; /* no memory or space to free something: scan at the next tick */
	uint64_t next_tick, next_commit;
};

static void wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t nsec)
{
	struct timespec ts = {
		.tv_sec = (time_t)(nsec / 1000000000u), .tv_nsec = (long)(nsec % 1000000000u)};

	pthread_cond_timedwait(cond, lock, &ts);
}

/* ---- queue; under reaper->lock ----------------------------------------------------------------------- */

static bool queue_grow(struct um_reaper *r)
{
	size_t cap = r->cap ? 2 * r->cap : 1024, i;
	um_ino_t *queue = malloc(cap * sizeof(*queue));

	if (!queue)
		return false;
	for (i = 0; i < r->n; i++)
		queue[i] = r->queue[(r->head + i) & (r->cap - 1)];
	free(r->queue);
	r->queue = queue;
	r->cap = cap;
	r->head = 0;
	return true;
}

static void push(struct um_reaper *r, um_ino_t ino)
{
	if (r->dead)
		return;
	if (r->n == r->cap && !queue_grow(r)) {
		/* It is in the orphan tree too: that is scanned again when there is room. */
		r->scan = true;
		r->scan_pos = 0;
		return;
	}
	r->queue[(r->head + r->n++) & (r->cap - 1)] = ino;
}

static unsigned pop(struct um_reaper *r, um_ino_t *ino, unsigned max)
{
	unsigned n = 0;

	while (n < max && r->n) {
		ino[n++] = r->queue[r->head];
		r->head = (r->head + 1) & (r->cap - 1);
		r->n--;
	}
	return n;
}

/* ---- freeing ------------------------------------------------------------------------------------------- */

/* Removes a record that does not fit its inode; the inode itself is left to fsck. */
static int drop_strange(struct um_txn *txn, um_ino_t ino, const char *why)
{
	um_warn("orphan record of inode %llu dropped: %s", (unsigned long long)ino, why);
	return um_orphan_drop(txn, ino);
}

static int drop_forks(struct um_txn *txn, struct um_inode *inode, bool *done)
{
	int ret = 0;

	*done = true;
	if (S_ISREG(inode->core.mode) && inode->core.data.format >= UM_ROOT_EMBED)
		ret = um_data_drop_step(txn, inode, 0, done);
	else if (S_ISDIR(inode->core.mode) && inode->core.data.format == UM_ROOT_NODE)
		ret = um_fork_drop_step(txn, inode, UM_FORK_DATA, done);
	if (!ret && *done && inode->core.xattr.format == UM_ROOT_NODE)
		ret = um_fork_drop_step(txn, inode, UM_FORK_XATTR, done);
	return ret;
}

/* One bounded step of freeing ino; *done if nothing is left to do for it, *freed if it is gone. */
static int reap_step(struct umbra_fs *fs, struct um_txn *txn, um_ino_t ino, bool *done, bool *freed)
{
	struct um_src src = um_txn_src(txn);
	struct um_inode inode;
	struct um_orphan rec;
	int ret;

	*done = true;
	ret = um_orphan_get(src, ino, &rec);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	if (rec.what == UM_ORPHAN_TRUNCATE || !um_mem_idle(fs, ino))
		return 0;
	ret = um_inode_load(src, ino, &inode);
	if (ret == -ESTALE)
		return drop_strange(txn, ino, "no such inode");
	if (ret)
		return ret;
	if (inode.core.nlink)
		return drop_strange(txn, ino, "the inode has links");
	ret = drop_forks(txn, &inode, done);
	if (ret)
		return ret;
	if (!*done) /* a tmpfile that lost blocks must not be linked any more */
		return rec.what == UM_ORPHAN_TMPFILE
			       ? um_orphan_add(txn, ino, UM_ORPHAN_UNLINKED, 0)
			       : 0;
	*freed = true;
	ret = um_inode_remove(txn, ino);
	return ret ? ret : um_orphan_drop(txn, ino);
}

struct batch {
	um_ino_t ino[BATCH];
	unsigned n, pos;
	bool single; /* after an error: one inode per transaction, to find the one that fails */
	bool retry;  /* one of them may be freed later */
};

/* One transaction of a batch. Errors of begin are returned: the log is stopped, or full. */
static int reap_txn(struct umbra_fs *fs, struct batch *b)
{
	unsigned start = b->pos, nfreed = 0;
	struct um_txn *txn;
	bool done = true;
	int ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	if (ret)
		return ret;
	while (b->pos < b->n && done && !ret) {
		bool freed = false;

		ret = reap_step(fs, txn, b->ino[b->pos], &done, &freed);
		nfreed += freed;
		b->pos += done && !ret;
		if (b->single || um_txn_bytes(txn) > BATCH_BYTES)
			break;
	}
	ret = um_txn_end(txn, ret);
	if (!ret) {
		atomic_fetch_add(&fs->stat_orphans_freed, nfreed);
		/* Inodes read while nobody held them. */
		for (unsigned i = start; i < b->pos; i++)
			um_shadow_toss(fs->page, b->ino[i], 0, UINT64_MAX, NULL, NULL);
		if (nfreed)
			um_shadows_sweep(fs);
		return 0;
	}
	b->pos = start;
	if (!b->single && b->n - start > 1) {
		b->single = true;
		return 0;
	}
	if (ret == -ENOSPC || ret == -ENOMEM)
		b->retry = true;
	else if (!atomic_load(&fs->stopped) && fs->reaper->nfailed++ < FAILED_LOG)
		um_err("inode %llu: cannot be freed: %s", (unsigned long long)b->ino[start],
			strerror(-ret));
	b->pos++;
	return 0;
}

/* Called and returns with the lock held; false if there was nothing to do. */
static bool work(struct umbra_fs *fs, struct um_reaper *r)
{
	struct batch b = {.n = pop(r, b.ino, BATCH)};
	int ret = 0;

	if (!b.n)
		return false;
	r->busy++;
	pthread_mutex_unlock(&r->lock);
	while (b.pos < b.n && !ret)
		ret = reap_txn(fs, &b);
	pthread_mutex_lock(&r->lock);
	r->busy--;
	r->retry |= b.retry;
	if (ret) {
		/* No room in the journal because the file below cannot grow, or no memory: all are
		 * in the orphan tree. */
		if (ret == -ENOSPC || ret == -ENOMEM)
			r->retry = true;
		else
			r->dead = true;
		r->n = 0;
	}
	pthread_cond_broadcast(&r->freed);
	return true;
}

/* ---- thread --------------------------------------------------------------------------------------------- */

/* Queues what earlier mounts left. Called and returns with the lock held. */
static void scan(struct umbra_fs *fs, struct um_reaper *r)
{
	struct um_orphan_item item[SCAN];
	uint64_t pos = r->scan_pos;
	unsigned n, i;
	int ret;

	r->scan = false; /* set again while we read: by push() */
	r->busy++;
	pthread_mutex_unlock(&r->lock);
	ret = um_orphan_list(fs, false, &pos, item, SCAN, &n);
	pthread_mutex_lock(&r->lock);
	r->busy--;
	for (i = 0; i < n; i++)
		push(r, item[i].ino);
	if (!ret && n == SCAN && !r->scan) {
		r->scan = true;
		r->scan_pos = pos;
	}
	pthread_cond_broadcast(&r->freed);
}

/* The periodic work. Called and returns with the lock held. */
static void tick(struct umbra_fs *fs, struct um_reaper *r, uint64_t now)
{
	unsigned seconds = fs->opt.commit_seconds ? fs->opt.commit_seconds : 5;
	bool commit = now >= r->next_commit && !fs->pool->direct && !r->dead;

	r->next_tick = now + TICK_NSEC;
	if (r->retry && !r->scan) {
		r->scan = true;
		r->scan_pos = 0;
	}
	r->retry = false;
	if (commit)
		r->next_commit = now + seconds * 1000000000ull;
	pthread_mutex_unlock(&r->lock);
	/* Also what is durable by a list of data only: freed blocks wait for that. */
	if (commit && um_log_firm(fs->log) < um_log_committed(fs->log)) {
		int ret = um_log_seal(fs->log);

		if (ret && !um_log_stopped(fs->log))
			um_err("background commit: %s", strerror(-ret));
	}
	um_space_reap(fs->space);
	um_discard_tick(fs);
	um_pool_scan_bad(fs->pool);
	pthread_mutex_lock(&r->lock);
}

static void *reaper_main(void *arg)
{
	struct umbra_fs *fs = arg;
	struct um_reaper *r = fs->reaper;
	uint64_t now;

	pthread_mutex_lock(&r->lock);
	while (!r->stop) {
		now = um_now_ns();
		if (now >= r->next_tick)
			tick(fs, r, now);
		else if (r->scan && !r->dead && r->n < BACKLOG_HELP)
			scan(fs, r);
		else if (!work(fs, r))
			wait_until(&r->wake, &r->lock, r->next_tick);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static void reaper_free(struct um_reaper *r)
{
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->wake);
	pthread_cond_destroy(&r->freed);
	free(r->queue);
	free(r);
}

/*
 * Truncations interrupted by a crash are completed before anybody may extend those files: a file
 * that grew over blocks still to be dropped would expose them. There are at most as many as there
 * were threads.
 */
static int resume_truncates(struct umbra_fs *fs)
{
	struct um_orphan_item item[SCAN];
	uint64_t pos = 0;
	unsigned n, i;
	int ret;

	do {
		ret = um_orphan_list(fs, true, &pos, item, SCAN, &n);
		for (i = 0; i < n; i++) {
			int err = um_data_resume_truncate(fs, item[i].ino, item[i].arg);

			if (err)
				um_err("inode %llu: truncation not resumed: %s",
					(unsigned long long)item[i].ino, strerror(-err));
		}
	} while (!ret && n == SCAN);
	return ret;
}

int um_reaper_start(struct umbra_fs *fs)
{
	struct um_reaper *r;
	uint64_t now = um_now_ns();
	int ret = resume_truncates(fs);

	if (ret)
		um_err("orphan tree unreadable: space of removed files is not freed");
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	pthread_mutex_init(&r->lock, NULL);
	um_cond_init(&r->wake);
	um_cond_init(&r->freed);
	r->scan = !ret;
	r->next_tick = now + TICK_NSEC;
	r->next_commit = now + TICK_NSEC;
	fs->reaper = r;
	r->manual = um_reaper_manual;
	ret = r->manual ? 0 : pthread_create(&r->thread, NULL, reaper_main, fs);
	if (ret) {
		fs->reaper = NULL;
		reaper_free(r);
	}
	return -ret;
}

void um_reaper_run(struct umbra_fs *fs)
{
	struct um_reaper *r = fs->reaper;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	if (r->retry) {
		r->scan = true;
		r->scan_pos = 0;
		r->retry = false;
	}
	do {
		if (r->scan && !r->dead)
			scan(fs, r);
	} while (work(fs, r) || (r->scan && !r->dead));
	pthread_mutex_unlock(&r->lock);
	um_space_reap(fs->space);
}

void um_reaper_stop(struct umbra_fs *fs)
{
	struct um_reaper *r = fs->reaper;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&r->lock);
	if (!r->manual)
		pthread_join(r->thread, NULL);
	fs->reaper = NULL;
	reaper_free(r);
}

/* ---- for the rest of the room ----------------------------------------------------------------------------- */

void um_reaper_kick(struct umbra_fs *fs, um_ino_t ino)
{
	struct um_reaper *r = fs->reaper;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	push(r, ino);
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

void um_reaper_note(struct umbra_fs *fs, um_ino_t ino)
{
	struct um_reaper *r = fs->reaper;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->note[r->nnotes++ % NOTES] = (struct note){ino, um_now_ns()};
	pthread_mutex_unlock(&r->lock);
}

void um_reaper_help(struct umbra_fs *fs)
{
	struct um_reaper *r = fs->reaper;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	if (r->n > BACKLOG_HELP && !r->stop)
		work(fs, r);
	pthread_mutex_unlock(&r->lock);
}

uint64_t um_reaper_backlog(struct umbra_fs *fs)
{
	struct um_reaper *r = fs->reaper;
	uint64_t n;

	if (!r)
		return 0;
	pthread_mutex_lock(&r->lock);
	n = r->n + r->busy;
	pthread_mutex_unlock(&r->lock);
	return n;
}

/* Is the forget of any recently unlinked inode still to come? Under the lock. */
static bool any_leaving(struct umbra_fs *fs, const struct um_reaper *r, uint64_t now)
{
	uint64_t i = r->nnotes;

	/* Newest first: after the first that is too old there are only older ones. */
	while (i && r->nnotes - i < NOTES) {
		const struct note *note = &r->note[--i % NOTES];

		if (now > note->nsec && now - note->nsec > LEAVING_NSEC)
			return false;
		if (um_mem_leaving(fs, note->ino, LEAVING_NSEC))
			return true;
	}
	return false;
}

void um_reaper_wait(struct umbra_fs *fs, unsigned msec)
{
	struct um_reaper *r = fs->reaper;
	uint64_t now = um_now_ns(), end = now + msec * 1000000ull, grace = now + GRACE_NSEC;

	if (!r)
		return;
	if (r->manual) {
		um_reaper_run(fs);
		return;
	}
	pthread_mutex_lock(&r->lock);
	while (!r->dead && !r->stop && now < end) {
		if (r->n || r->busy || r->scan) {
			wait_until(&r->freed, &r->lock, end);
			/* This success shows that forgets do arrive. */
			grace = um_now_ns() + GRACE_NSEC;
		} else if (now < grace && any_leaving(fs, r, now)) {
			wait_until(&r->freed, &r->lock, now + 1000000);
		} else {
			break;
		}
		now = um_now_ns();
	}
	pthread_mutex_unlock(&r->lock);
}
