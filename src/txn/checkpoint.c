/* SPDX-License-Identifier: BSD-3-Clause */
/* Checkpoint of an indirect pool: the metadata described by the records is written home; then the
 * records' space in the ring is free, and the private pages are dropped. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/log.h"
#include "pool/rests.h"
#include "pool/seeded.h"
#include "txn/internal.h"

/* A block of the dirty set, and where in the set. */
struct place {
	um_lba_t lba;
	uint32_t at;
};

struct run {
	struct um_log *log;
	struct place *place;               /* `count` of them, ascending; NULL: as in the set */
	uint32_t next, count;              /* blocks of the dirty set taken so far; to take */
	um_lba_t lba[UM_CHECKPOINT_BATCH]; /* of the images of this batch, ascending */
	uint32_t n;
	void *super; /* image of the superblock, which goes home after everything else */
};

/* For both structs above, which begin with the LBA. */
static int by_lba(const void *a, const void *b)
{
	um_lba_t x = *(const um_lba_t *)a, y = *(const um_lba_t *)b;

	return x < y ? -1 : x > y;
}

/* Adjacent blocks are written, and their pages dropped, together. They are sorted outside the lock;
 * without memory for that they go in the order in which they came. */
static void note_places(struct run *run)
{
	const struct um_dirty *dirty = &run->log->dirty;
	uint32_t i;

	run->count = dirty->n;
	run->place = malloc((size_t)run->count * sizeof(*run->place));
	for (i = 0; run->place && i < run->count; i++)
		run->place[i] = (struct place){dirty->at[i].lba, i};
}

static struct um_dirty_block *block_at(const struct run *run, uint32_t i)
{
	return &run->log->dirty.at[run->place ? run->place[i].at : i];
}

/*
 * Copies the next blocks out. The ring's lock excludes commits, and the changes of a running
 * transaction are not in the mapping; so an image is the state after the last commit, whose number
 * is returned. Only a checkpoint removes entries from the set, so positions in it are stable.
 */
static uint64_t take_images(struct run *run)
{
	struct um_log *log = run->log;
	uint64_t upto;
	uint32_t i;

	pthread_mutex_lock(&log->ring_lock);
	upto = atomic_load(&log->committed);
	for (run->n = 0; run->n < UM_CHECKPOINT_BATCH && run->next < run->count; run->next++) {
		struct um_dirty_block *block = block_at(run, run->next);

		block->image = block->seq;
		run->lba[run->n++] = block->lba;
	}
	qsort(run->lba, run->n, sizeof(run->lba[0]), by_lba);
	for (i = 0; i < run->n; i++)
		memcpy(log->images + (size_t)i * UM_BLOCK_SIZE, um_pool_ptr(log->pool, run->lba[i]),
			UM_BLOCK_SIZE);
	pthread_mutex_unlock(&log->ring_lock);
	return upto;
}

static int write_images(struct run *run)
{
	struct um_pool *pool = run->log->pool;
	uint32_t i, n;
	int ret = 0;

	for (i = 0; i < run->n && !ret; i += n) {
		for (n = 1; i + n < run->n && run->lba[i + n] == run->lba[i] + n; n++)
			;
		/* A block that a failed transaction gave back may be listed as data. */
		ret = um_rests_before(
			pool, run->lba[i] << UM_BLOCK_SHIFT, (size_t)n << UM_BLOCK_SHIFT);
		if (!ret)
			ret = um_pool_writeback(
				pool, run->lba[i], run->log->images + (size_t)i * UM_BLOCK_SIZE, n);
	}
	if (ret)
		um_err("%s: cannot write metadata home: %s", pool->path, strerror(-ret));
	return ret;
}

/* If the first copy is torn by a power cut, the second one is needed, and must be on the medium.
 * Block 0 is the first of its batch. */
static int hold_super(struct run *run)
{
	if (!run->n || run->lba[0])
		return 0;
	if (!run->super)
		run->super = malloc(UM_BLOCK_SIZE);
	if (!run->super)
		return -ENOMEM;
	memcpy(run->super, run->log->images, UM_BLOCK_SIZE);
	run->n--;
	memmove(run->lba, run->lba + 1, run->n * sizeof(run->lba[0]));
	memmove(run->log->images, run->log->images + UM_BLOCK_SIZE, (size_t)run->n * UM_BLOCK_SIZE);
	return 0;
}

/* Written home and not changed since: the private page equals the file. */
static bool is_home(const struct um_dirty_block *block, void *arg)
{
	(void)arg;
	return block->image == block->seq;
}

static void give_back(const struct run *run)
{
	struct um_pool *pool = run->log->pool;
	um_lba_t first = 0;
	uint32_t i, n = 0;

	for (i = 0; i < run->count; i++) {
		const struct um_dirty_block *block = block_at(run, i);

		if (!is_home(block, NULL))
			continue;
		if (n && block->lba == first + n) {
			n++;
			continue;
		}
		if (n)
			um_pool_giveback(pool, first, n);
		first = block->lba;
		n = 1;
	}
	if (n)
		um_pool_giveback(pool, first, n);
}

static int write_home(struct run *run)
{
	struct um_log *log = run->log;
	uint64_t upto;
	int ret = 0;

	for (;;) {
		upto = take_images(run);
		if (!run->n)
			return 0;
		/*
		 * After a power cut nothing may be home that replay does not know, nor anything
		 * that replay believes only if listed data is found, which the medium may have lost
		 * since.
		 */
		ret = um_seeded_bug(20) ? 0 : um_log_seal_to(log, upto);
		if (!ret)
			ret = hold_super(run);
		if (!ret)
			ret = write_images(run);
		if (ret)
			return ret;
	}
}

static int barrier(struct um_log *log)
{
	int ret = um_pool_barrier(log->pool);

	if (ret)
		um_log_fail(log, ret, "writing to the medium");
	return ret;
}

static int checkpoint(struct run *run)
{
	struct um_log *log = run->log;
	uint64_t end, used, seq, home;
	int ret = um_seeded_bug(20) ? 0 : um_log_sync(log);

	if (ret)
		return ret;
	pthread_mutex_lock(&log->ring_lock);
	end = log->ring.head;
	used = log->ring.used;
	seq = log->ring.seq;
	home = atomic_load(&log->committed);
	note_places(run);
	pthread_mutex_unlock(&log->ring_lock);
	if (!used && !run->count)
		return 0;
	if (run->place)
		qsort(run->place, run->count, sizeof(*run->place), by_lba);
	ret = write_home(run);
	if (!ret && !um_seeded_bug(21))
		ret = barrier(log);
	if (!ret && run->super) {
		ret = um_pool_writeback(log->pool, 0, run->super, 1);
		if (!ret)
			ret = barrier(log);
	}
	if (!ret)
		ret = um_ring_move_tail(&log->ring, end, seq + 1);
	/* The old records may be overwritten only once the tail on the medium is past them. */
	if (!ret)
		ret = barrier(log);
	if (ret)
		return ret;
	pthread_mutex_lock(&log->ring_lock);
	log->ring.tail = end;
	log->ring.used -= used;
	give_back(run);
	um_dirty_prune(&log->dirty, is_home, NULL);
	atomic_store(&log->checkpointed, home);
	pthread_mutex_unlock(&log->ring_lock);
	atomic_fetch_add_explicit(&log->n_checkpoints, 1, memory_order_relaxed);
	return 0;
}

int um_log_checkpoint(struct um_log *log)
{
	struct run run = {.log = log};
	int ret = atomic_load(&log->stopped);

	if (ret || log->direct || log->pool->readonly)
		return ret;
	pthread_mutex_lock(&log->checkpoint_lock);
	ret = checkpoint(&run);
	free(run.place);
	free(run.super);
	pthread_mutex_unlock(&log->checkpoint_lock);
	return ret;
}
