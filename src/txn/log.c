/* SPDX-License-Identifier: BSD-3-Clause */
/* The log: open, close, the writer lock, stopping. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/log.h"
#include "pool/rests.h"
#include "pool/seeded.h"
#include "txn/internal.h"

/* ---- open and close ------------------------------------------------------------------------------- */

static int init_locks(struct um_log *log)
{
	pthread_rwlockattr_t attr;
	int ret;

	pthread_mutex_init(&log->writer, NULL);
	pthread_mutex_init(&log->ring_lock, NULL);
	pthread_mutex_init(&log->sync_lock, NULL);
	pthread_mutex_init(&log->checkpoint_lock, NULL);
	pthread_cond_init(&log->sync_cond, NULL);
	pthread_cond_init(&log->committer.cond, NULL);
	log->committer.last = &log->committer.first;
	pthread_rwlockattr_init(&attr);
	/* A stream of readers must not starve a commit. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	ret = pthread_rwlock_init(&log->apply, &attr);
	pthread_rwlockattr_destroy(&attr);
	return -ret;
}

void um_log_set_seq(struct um_log *log, uint64_t seq)
{
	atomic_store(&log->committed, seq);
	atomic_store(&log->durable, seq);
	atomic_store(&log->covered, seq);
	atomic_store(&log->covered_firm, seq);
	atomic_store(&log->firm, seq);
	atomic_store(&log->checkpointed, seq);
}

/* Begins a new run of records after those found. Numbers jump by more than the ring can hold, so no
 * record left in it, torn or dropped, can be taken for a new one. */
static int start_ring(struct um_log *log, const struct um_ring_state *state)
{
	uint32_t mode = log->direct ? UM_JOURNAL_DIRECT : UM_JOURNAL_GROUPS;
	struct um_ring *ring = &log->ring;
	static const uint8_t none[16];
	int ret;

	ring->tail = ring->head;
	ring->used = 0;
	ring->seq += ring->size / 64 + 2;
	um_log_set_seq(log, ring->seq);
	if (log->direct) {
		ret = um_ring_move_tail(ring, ring->tail, ring->seq + 1);
		um_pool_drain(log->pool);
		if (!ret && (state->mode != mode || state->repair))
			ret = um_ring_store(ring, none, mode);
		return ret;
	}
	ret = um_ring_store(ring, log->boot_id, mode);
	return ret ? ret : um_pool_barrier(log->pool);
}

/* Writes what was found home; then the journal is empty and belongs to this boot. */
static int recover(struct um_log *log)
{
	static const uint8_t nobody[16];
	struct um_ring_state state;
	int ret = um_ring_load(log->pool, &log->ring, &state);

	if (!ret && (!log->direct || state.mode != UM_JOURNAL_DIRECT)) {
		ret = um_boot_id(log->pool, log->boot_id);
		if (ret)
			um_err("%s: cannot determine the boot id of the system: %s",
				log->pool->path, strerror(-ret));
	}
	/* The page cache may have what the medium refused: see um_ring_disown(). */
	if (!ret && !log->direct && !memcmp(state.boot_id, nobody, sizeof(nobody)))
		um_pool_forget_cached(log->pool);
	if (!ret)
		ret = um_log_replay(log, &state);
	if (ret || log->pool->readonly)
		return ret;
	ret = um_log_checkpoint(log);
	return ret ? ret : start_ring(log, &state);
}

static int seal(void *arg)
{
	return um_log_seal(arg);
}

int um_log_open(struct um_pool *pool, struct um_log **out)
{
	struct um_log *log = calloc(1, sizeof(*log));
	int ret;

	if (!log)
		return -ENOMEM;
	log->pool = pool;
	log->direct = pool->direct;
	log->txn.log = log;
	ret = init_locks(log);
	if (!ret && !log->direct) {
		log->images = aligned_alloc(UM_BLOCK_SIZE, UM_CHECKPOINT_BATCH * UM_BLOCK_SIZE);
		if (!log->images)
			ret = -ENOMEM;
	}
	if (!ret && !log->direct)
		ret = um_unshared_open(log);
	if (!ret && !log->direct)
		ret = um_rests_open(pool, seal, log);
	if (!ret)
		ret = recover(log);
	if (ret)
		um_log_abandon(log);
	else
		*out = log;
	return ret;
}

void um_log_abandon(struct um_log *log)
{
	if (!log)
		return;
	um_log_serve_end(log);
	um_txn_free(&log->txn);
	um_dirty_free(&log->dirty);
	um_unshared_close(log->pool);
	um_rests_close(log->pool);
	while (log->nspare)
		free(log->spare[--log->nspare]);
	free(log->spare);
	free(log->images);
	pthread_rwlock_destroy(&log->apply);
	pthread_cond_destroy(&log->committer.cond);
	pthread_cond_destroy(&log->sync_cond);
	pthread_mutex_destroy(&log->checkpoint_lock);
	pthread_mutex_destroy(&log->sync_lock);
	pthread_mutex_destroy(&log->ring_lock);
	pthread_mutex_destroy(&log->writer);
	free(log);
}

int um_log_close(struct um_log *log)
{
	/* A log that was stopped is left as it is; the next mount replays it. */
	int ret = um_log_checkpoint(log);

	um_log_abandon(log);
	return ret;
}

/* ---- writer ------------------------------------------------------------------------------------------ */

uintptr_t um_log_self(void)
{
	static _Thread_local char here;

	return (uintptr_t)&here;
}

void um_log_lock_writer(struct um_log *log)
{
	pthread_mutex_lock(&log->writer);
	atomic_store_explicit(&log->owner, um_log_self(), memory_order_relaxed);
}

void um_log_unlock_writer(struct um_log *log)
{
	atomic_store_explicit(&log->owner, 0, memory_order_relaxed);
	pthread_mutex_unlock(&log->writer);
}

uint64_t um_log_record_max(const struct um_log *log)
{
	/*
	 * Direct: the ring is empty at every commit, so half of it always fits somewhere. Indirect:
	 * at most half is in use when a transaction begins (less UM_RING_RESERVE), and skipping the
	 * end of the ring may cost as much as the record.
	 */
	return log->ring.size / (log->direct ? 2 : 4);
}

static uint64_t ring_used(struct um_log *log)
{
	uint64_t used;

	pthread_mutex_lock(&log->ring_lock);
	used = log->ring.used;
	pthread_mutex_unlock(&log->ring_lock);
	return used;
}

int um_log_lock_for_txn(struct um_log *log)
{
	uint64_t half = log->ring.size / 2,
		 hard = half > UM_RING_RESERVE ? half - UM_RING_RESERVE : 0;
	uint64_t soft = hard * 3 / 4, used;
	int ret;

	if (log->pool->readonly)
		return -EROFS;
	for (;;) {
		bool full;

		um_log_lock_writer(log);
		ret = atomic_load(&log->stopped);
		if (ret) {
			um_log_unlock_writer(log);
			return ret;
		}
		used = log->direct ? 0 : ring_used(log);
		if (used <= soft)
			return 0;
		full = used > hard;
		/* Filling up: one thread empties it, the others continue while there is room. */
		if (!full && pthread_mutex_trylock(&log->checkpoint_lock))
			return 0;
		if (!full)
			pthread_mutex_unlock(&log->checkpoint_lock);
		um_log_unlock_writer(log);
		ret = um_log_checkpoint(log);
		if (ret && full)
			return ret;
		if (ret) {
			um_log_lock_writer(log);
			if (!atomic_load(&log->stopped) && ring_used(log) <= hard)
				return 0;
			um_log_unlock_writer(log);
			return ret;
		}
	}
}

uint8_t *um_log_get_buffer(struct um_log *log)
{
	if (log->nspare)
		return log->spare[--log->nspare];
	return aligned_alloc(64, UM_BLOCK_SIZE);
}

void um_log_put_buffer(struct um_log *log, uint8_t *buffer)
{
	uint32_t cap = log->cap_spare ? 2 * log->cap_spare : 64;
	uint8_t **spare;

	if (!buffer)
		return;
	if (log->nspare == log->cap_spare) {
		spare = cap > 4096 ? NULL : realloc(log->spare, cap * sizeof(*spare));
		if (!spare) {
			free(buffer);
			return;
		}
		log->spare = spare;
		log->cap_spare = cap;
	}
	log->spare[log->nspare++] = buffer;
}

/* ---- durability ------------------------------------------------------------------------------------------ */

void um_log_fail(struct um_log *log, int err, const char *what)
{
	int none = 0;

	/* What was passed to the kernel may not have reached the medium, and the kernel will not
	 * report it again. */
	if (!log->direct && um_pool_barrier_failed(log->pool) &&
		!atomic_exchange(&log->disowned, true)) {
		um_ring_disown(&log->ring);
		um_err("%s: changes since the last commit (fsync, or the timer) were not made "
		       "durable and will be gone at the next mount",
			log->pool->path);
	}
	if (!atomic_compare_exchange_strong(&log->failed, &none, err))
		return;
	atomic_store(&log->failed_what, what);
	none = 0;
	atomic_compare_exchange_strong(&log->stopped, &none, -EROFS);
	um_err("%s: %s failed: %s; no more changes are made to this pool until it is mounted again",
		log->pool->path, what, strerror(-err));
	if (log->on_failed)
		log->on_failed(log->on_failed_arg);
}

void um_log_on_error(struct um_log *log, bool go_on, void (*failed)(void *arg), void *arg)
{
	log->go_on = go_on;
	log->on_failed = failed;
	log->on_failed_arg = arg;
}

int um_log_failed(const struct um_log *log, const char **out_what)
{
	int err = atomic_load(&log->failed);

	if (out_what)
		*out_what = err ? atomic_load(&log->failed_what) : NULL;
	return err;
}

int um_log_stopped(const struct um_log *log)
{
	return atomic_load(&log->stopped);
}

void um_log_stop(struct um_log *log, int err, bool flush)
{
	bool mine = um_log_is_writer(log);
	int none = 0;

	if (flush)
		um_log_sync(log);
	/* When this returns, nothing is being written any more. */
	if (!mine)
		um_log_lock_writer(log);
	pthread_mutex_lock(&log->checkpoint_lock);
	atomic_compare_exchange_strong(&log->stopped, &none, err > 0 ? -err : err);
	pthread_mutex_unlock(&log->checkpoint_lock);
	if (!mine)
		um_log_unlock_writer(log);
}

/* ---- small things ------------------------------------------------------------------------------------------ */

void um_log_publish(struct um_log *log)
{
	bool mine = um_log_is_writer(log);

	if (!mine)
		um_log_lock_writer(log);
	pthread_rwlock_wrlock(&log->apply);
	um_pool_publish(log->pool);
	pthread_rwlock_unlock(&log->apply);
	if (!mine)
		um_log_unlock_writer(log);
}

void um_log_read_lock(struct um_log *log)
{
	pthread_rwlock_rdlock(&log->apply);
}

void um_log_read_unlock(struct um_log *log)
{
	pthread_rwlock_unlock(&log->apply);
}

uint64_t um_log_replayed(const struct um_log *log)
{
	return log->replayed;
}

struct um_pool *um_log_pool(struct um_log *log)
{
	return log->pool;
}

void um_log_set_space(struct um_log *log, struct um_space *space)
{
	log->space = space;
}

uint64_t um_log_committed(const struct um_log *log)
{
	return atomic_load(&log->committed);
}

uint64_t um_log_durable(const struct um_log *log)
{
	return atomic_load(log->direct ? &log->committed : &log->durable);
}

uint64_t um_log_firm(const struct um_log *log)
{
	return atomic_load(log->direct ? &log->committed : &log->firm);
}

uint64_t um_log_checkpointed(const struct um_log *log)
{
	return atomic_load(log->direct ? &log->committed : &log->checkpointed);
}

void um_log_stats(struct um_log *log, struct um_log_stats *out)
{
	out->commits = atomic_load(&log->n_commits);
	out->aborts = atomic_load(&log->n_aborts);
	out->record_bytes = atomic_load(&log->n_record_bytes);
	out->syncs = atomic_load(&log->n_syncs);
	out->checkpoints = atomic_load(&log->n_checkpoints);
	out->edits = atomic_load(&log->n_edits);
}
