/* SPDX-License-Identifier: BSD-3-Clause */
/* Space: counts against a model, the index of free blocks, reserve, quarantine, epochs, threads. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "engine.h"

#define CHUNKS 16u

static struct um_space_stat stat_of(struct engine *e)
{
	struct um_space_stat st;

	um_space_stat(e->space, &st);
	return st;
}

static uint32_t count_of(struct engine *e, um_lba_t lba)
{
	uint32_t count, run;

	um_log_read_lock(e->log);
	ok(um_ref_count((struct um_src){e->pool, NULL}, lba, 1, &count, &run));
	um_log_read_unlock(e->log);
	return count;
}

static void take(struct engine *e, um_lba_t goal, uint32_t want, um_lba_t *lba, uint32_t *n)
{
	ok(um_space_take(e->space, goal, want, 0, lba, n));
	assert_in_range(*n, 1, want);
	assert_int_equal(*lba / UM_CHUNK_BLOCKS, (*lba + *n - 1) / UM_CHUNK_BLOCKS);
}

/* Takes and allocates a run in a transaction of its own. */
static void alloc_run(struct engine *e, um_lba_t goal, uint32_t want, um_lba_t *lba, uint32_t *n)
{
	struct um_txn *txn = engine_begin(e);

	take(e, goal, want, lba, n);
	ok(um_ref_alloc(txn, *lba, *n));
	ok(um_txn_commit(txn));
}

static void put_run(struct engine *e, um_lba_t lba, uint32_t n, uint32_t expect_freed)
{
	struct um_txn *txn = engine_begin(e);
	uint32_t freed;

	ok(um_ref_put(txn, lba, n, false, &freed));
	assert_int_equal(freed, expect_freed);
	ok(um_txn_commit(txn));
}

static void get_run(struct engine *e, um_lba_t lba, uint32_t n)
{
	struct um_txn *txn = engine_begin(e);

	ok(um_ref_get(txn, lba, n));
	ok(um_txn_commit(txn));
}

static void a_new_pool_has_all_but_tables_and_journal_free(void **state)
{
	struct engine e;
	struct um_space_stat st;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	st = stat_of(&e);
	assert_int_equal(st.total, (CHUNKS - 2) * UM_CHUNK_BLOCKS - 300);
	assert_int_equal(st.free, st.total);
	assert_int_equal(st.reserved, 0);
	assert_in_range(st.avail, st.total - 200, st.total - 16);
	assert_int_equal(count_of(&e, e.pool->super.journal_lba), 1);
	assert_int_equal(count_of(&e, e.pool->super.journal_lba + 299), 1);
	assert_int_equal(count_of(&e, e.pool->super.journal_lba + 300), 0);
	engine_close(&e);
}

static void taken_blocks_come_back_when_given_or_aborted(void **state)
{
	struct engine e;
	struct um_txn *txn;
	um_lba_t lba, other;
	uint32_t n, m;
	uint64_t free;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	free = stat_of(&e).free;
	take(&e, 0, 100, &lba, &n);
	take(&e, 0, 100, &other, &m);
	assert_true(other >= lba + n || lba >= other + m);
	assert_int_equal(stat_of(&e).reserved, n + m);
	assert_int_equal(stat_of(&e).free, free);
	um_space_give(e.space, other, m);
	txn = engine_begin(&e);
	ok(um_ref_alloc(txn, lba, n));
	um_txn_abort(txn);
	assert_int_equal(stat_of(&e).reserved, 0);
	assert_int_equal(stat_of(&e).free, free);
	assert_int_equal(count_of(&e, lba), 0);
	engine_close(&e);
}

static void counts_survive_a_remount(void **state)
{
	struct engine e;
	um_lba_t lba;
	uint32_t n, count, run;
	uint64_t free;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	alloc_run(&e, 0, 300, &lba, &n);
	get_run(&e, lba + 5, 10);
	free = stat_of(&e).free;
	engine_remount(&e);
	assert_int_equal(stat_of(&e).free, free);
	ok(um_ref_count((struct um_src){e.pool, NULL}, lba, n, &count, &run));
	assert_int_equal(count, 1);
	assert_int_equal(run, 5);
	ok(um_ref_count((struct um_src){e.pool, NULL}, lba + 5, n - 5, &count, &run));
	assert_int_equal(count, 2);
	assert_int_equal(run, 10);
	put_run(&e, lba, n, n - 10);
	put_run(&e, lba + 5, 10, 10);
	assert_int_equal(stat_of(&e).free, free + n);
	engine_close(&e);
}

static void a_whole_chunk_is_one_word(void **state)
{
	struct engine e;
	um_lba_t lba;
	uint32_t n;
	const struct um_ag *ag;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	alloc_run(&e, 0, 512, &lba, &n);
	assert_int_equal(n, 512);
	ag = um_pool_ptr(e.pool, um_ag_ptr(e.pool, 0).lba);
	assert_int_equal(ag->word[um_chunk_of(lba)], UM_WORD(UM_CHUNK_UNIFORM, 0, 1));
	get_run(&e, lba + 7, 1);
	assert_int_equal(ag->word[um_chunk_of(lba)], UM_WORD(UM_CHUNK_MIXED, 0, 0));
	assert_int_equal(count_of(&e, lba + 6), 1);
	assert_int_equal(count_of(&e, lba + 7), 2);
	put_run(&e, lba + 7, 1, 0);
	assert_int_equal(ag->word[um_chunk_of(lba)], UM_WORD(UM_CHUNK_UNIFORM, 0, 1));
	put_run(&e, lba, 512, 512);
	assert_int_equal(ag->word[um_chunk_of(lba)], 0);
	engine_close(&e);
}

static void unsound_changes_are_refused(void **state)
{
	struct engine e;
	struct um_txn *txn;
	um_lba_t lba;
	uint32_t n;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	alloc_run(&e, 0, 8, &lba, &n);
	txn = engine_begin(&e);
	assert_int_equal(um_ref_alloc(txn, lba, 1), -EUCLEAN);
	assert_int_equal(um_ref_get(txn, lba + 100, 1), -EUCLEAN);
	assert_int_equal(um_ref_put(txn, lba + 100, 1, false, NULL), -EUCLEAN);
	assert_int_equal(um_ref_get(txn, 3, 1), -EUCLEAN); /* table chunk */
	assert_int_equal(um_ref_get(txn, e.pool->nblocks, 1), -EUCLEAN);
	assert_int_equal(um_ref_put(txn, e.pool->nblocks - 1, 7, false, NULL), -EUCLEAN);
	um_txn_abort(txn);
	engine_close(&e);
}

/* Writes a count into the pool behind everybody's back. */
static void force_count(struct engine *e, um_lba_t lba, uint32_t value)
{
	struct um_txn *txn = engine_begin(e);
	void *block;

	ok(um_txn_edit(txn, um_refs_ptr(e->pool, um_chunk_of(lba)), UM_KIND_REF, &block));
	((struct um_refs *)block)->count[lba % UM_CHUNK_BLOCKS] = value;
	ok(um_txn_commit(txn));
}

static void a_count_at_its_limit_refuses_and_changes_nothing(void **state)
{
	struct engine e;
	struct um_txn *txn;
	um_lba_t lba;
	uint32_t n;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	alloc_run(&e, 0, 100, &lba, &n);
	force_count(&e, lba + 50, UM_REF_MAX - 1);
	get_run(&e, lba + 50, 1);
	txn = engine_begin(&e);
	assert_int_equal(um_ref_get(txn, lba, 100), -EMLINK);
	ok(um_txn_commit(txn));
	assert_int_equal(count_of(&e, lba), 1);
	assert_int_equal(count_of(&e, lba + 50), UM_REF_MAX);
	put_run(&e, lba + 50, 1, 0);
	assert_int_equal(count_of(&e, lba + 50), UM_REF_MAX - 1);
	engine_close(&e);
}

static void data_continues_at_its_goal(void **state)
{
	struct engine e;
	um_lba_t lba, next;
	uint32_t n, m;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	alloc_run(&e, 0, 64, &lba, &n);
	alloc_run(&e, lba + n, 64, &next, &m);
	assert_int_equal(next, lba + n);
	/* A long want does not settle for a short gap: it gets a whole chunk. */
	alloc_run(&e, 0, 512, &next, &m);
	assert_int_equal(m, 512);
	assert_int_equal(next % UM_CHUNK_BLOCKS, 0);
	engine_close(&e);
}

static void metadata_keeps_away_from_data_and_from_its_mirror(void **state)
{
	struct engine e;
	struct um_ptr ptr, first;
	um_lba_t lba;
	uint32_t n;
	uint64_t distance;

	(void)state;
	engine_open(&e, 64, 2);
	take(&e, 0, 16, &lba, &n);
	ok(um_space_take_meta(e.space, 0, 0, &first));
	for (int i = 0; i < 100; i++) {
		ok(um_space_take_meta(e.space, first.lba, 0, &ptr));
		assert_int_equal(um_chunk_of(ptr.lba), um_chunk_of(first.lba));
		distance = um_chunk_of(ptr.lba) > um_chunk_of(ptr.mirror)
				   ? um_chunk_of(ptr.lba) - um_chunk_of(ptr.mirror)
				   : um_chunk_of(ptr.mirror) - um_chunk_of(ptr.lba);
		assert_true(distance >= 16);
		um_space_take(e.space, 0, 8, 0, &lba, &n);
		assert_int_not_equal(um_chunk_of(lba), um_chunk_of(ptr.lba));
		assert_int_not_equal(um_chunk_of(lba), um_chunk_of(ptr.mirror));
	}
	engine_close(&e);
}

static void the_reserve_is_kept_in_steps(void **state)
{
	struct engine e;
	um_lba_t lba;
	uint32_t n;
	struct um_ptr ptr;
	uint64_t keep, got = 0;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	keep = stat_of(&e).total - stat_of(&e).avail;
	while (!um_space_take(e.space, 0, 512, 0, &lba, &n))
		got += n;
	assert_int_equal(got, stat_of(&e).total - keep);
	assert_int_equal(stat_of(&e).avail, 0);
	for (got = 0; !um_space_take_meta(e.space, 0, 0, &ptr);)
		got += 2;
	assert_in_range(got, keep - keep / 4 - 2, keep - keep / 4);
	for (got = 0; !um_space_take_meta(e.space, 0, UM_SPACE_RESERVE, &ptr);)
		got += 2;
	assert_in_range(got, keep / 4 - 2, keep / 4 + 2);
	assert_true(stat_of(&e).free - stat_of(&e).reserved < 2);
	engine_close(&e);
}

static void freed_blocks_wait_for_whoever_may_point_at_them(void **state)
{
	struct engine e;
	um_lba_t lba;
	uint32_t n;
	struct um_space_stat st;
	uint64_t total;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	total = stat_of(&e).total;
	alloc_run(&e, 0, 100, &lba, &n);
	um_epoch_enter(e.space);
	um_epoch_enter(e.space);
	put_run(&e, lba, n, n);
	um_space_reap(e.space);
	um_epoch_leave(e.space);
	um_space_reap(e.space);
	st = stat_of(&e);
	assert_int_equal(st.quarantined, n);
	assert_int_equal(st.free, total);
	um_epoch_leave(e.space);
	um_space_reap(e.space);
	assert_int_equal(stat_of(&e).quarantined, 0);
	/* Who comes later holds nothing up. */
	alloc_run(&e, 0, 100, &lba, &n);
	put_run(&e, lba, n, n);
	um_space_reap(e.space);
	um_epoch_enter(e.space);
	um_space_reap(e.space);
	assert_int_equal(stat_of(&e).quarantined, 0);
	um_epoch_leave(e.space);
	engine_close(&e);
}

static void a_full_pool_waits_for_quarantine_before_it_says_so(void **state)
{
	struct engine e;
	um_lba_t first, lba;
	uint32_t m, n;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	alloc_run(&e, 0, 512, &first, &m);
	while (!um_space_take(e.space, 0, 512, 0, &lba, &n))
		;
	put_run(&e, first, m, m);
	assert_int_equal(stat_of(&e).quarantined, m);
	ok(um_space_take(e.space, 0, 512, 0, &lba, &n));
	assert_int_equal(n, 512);
	assert_int_equal(lba, first);
	assert_int_equal(um_space_take(e.space, 0, 1, 0, &lba, &n), -ENOSPC);
	engine_close(&e);
}

static void an_aborted_put_frees_nothing(void **state)
{
	struct engine e;
	struct um_txn *txn;
	um_lba_t lba;
	uint32_t n, freed;
	uint64_t free;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	alloc_run(&e, 0, 40, &lba, &n);
	engine_remount(&e);
	free = stat_of(&e).free;
	txn = engine_begin(&e);
	ok(um_ref_put(txn, lba, n, false, &freed));
	um_txn_abort(txn);
	um_space_reap(e.space);
	assert_int_equal(stat_of(&e).free, free);
	assert_int_equal(count_of(&e, lba), 1);
	put_run(&e, lba, n, n);
	assert_int_equal(stat_of(&e).free, free + n);
	engine_close(&e);
}

/* ---- a model ------------------------------------------------------------------------------------------- */

struct model {
	uint32_t *count, *saved; /* of each block; as of the last commit */
	uint64_t nblocks;
};

static void model_check(struct engine *e, const struct model *m)
{
	uint64_t used = 0;

	for (uint64_t c = 1; c + 1 < e->pool->nchunks; c++) {
		um_lba_t first = c * UM_CHUNK_BLOCKS;

		for (um_lba_t lba = first; lba < first + UM_CHUNK_BLOCKS; lba++) {
			uint32_t expect = m->count[lba];

			if (lba >= e->pool->super.journal_lba &&
				lba < e->pool->super.journal_lba + e->pool->super.journal_blocks)
				continue;
			assert_int_equal(count_of(e, lba), expect);
			used += expect > 0;
		}
	}
	assert_int_equal(stat_of(e).free, stat_of(e).total - used);
}

static void model_step(struct engine *e, struct um_txn *txn, struct model *m, uint64_t *seed)
{
	um_lba_t lba = rnd_below(seed, m->nblocks);
	uint32_t n = 1 + rnd_below(seed, rnd_below(seed, 8) ? 16 : 512), i, freed, expect = 0;

	switch (rnd_below(seed, 3)) {
	case 0:
		if (um_space_take(e->space, rnd_below(seed, 2) ? lba : 0, n, 0, &lba, &n))
			return;
		for (i = 0; i < n; i++)
			assert_int_equal(m->count[lba + i]++, 0);
		if (rnd_below(seed, 4)) {
			ok(um_ref_alloc(txn, lba, n));
			return;
		}
		for (i = 0; i < n; i++)
			m->count[lba + i] = 0;
		um_space_give(e->space, lba, n);
		return;
	case 1:
		for (i = 0; i < n && lba + i < m->nblocks && m->count[lba + i]; i++)
			m->count[lba + i]++;
		if (i)
			ok(um_ref_get(txn, lba, i));
		return;
	default:
		for (i = 0; i < n && lba + i < m->nblocks && m->count[lba + i]; i++)
			expect += !--m->count[lba + i];
		if (i) {
			ok(um_ref_put(txn, lba, i, rnd_below(seed, 2), &freed));
			assert_int_equal(freed, expect);
		}
		return;
	}
}

static void random_changes(struct engine *e, int rounds)
{
	uint64_t seed = engine_seed();
	struct model m;

	m.nblocks = e->pool->nblocks;
	m.count = calloc(m.nblocks, sizeof(*m.count));
	m.saved = calloc(m.nblocks, sizeof(*m.saved));
	for (int round = 0; round < rounds; round++) {
		struct um_txn *txn = engine_begin(e);

		for (uint64_t i = rnd_below(&seed, 12); i; i--)
			model_step(e, txn, &m, &seed);
		if (rnd_below(&seed, 4)) {
			ok(um_txn_commit(txn));
			memcpy(m.saved, m.count, m.nblocks * sizeof(*m.count));
		} else {
			um_txn_abort(txn);
			memcpy(m.count, m.saved, m.nblocks * sizeof(*m.count));
		}
		assert_int_equal(stat_of(e).reserved, 0);
		if (round % 100 == 0)
			model_check(e, &m);
		if (round % 500 == 499)
			engine_remount(e);
	}
	model_check(e, &m);
	free(m.count);
	free(m.saved);
}

static void random_changes_match_a_model(void **state)
{
	struct engine e;

	(void)state;
	engine_open(&e, 8, 2);
	random_changes(&e, 3000);
	engine_close(&e);
}

static void random_changes_match_a_model_in_a_plain_file(void **state)
{
	struct engine e;

	(void)state;
	engine_open_file(&e, 8, 2);
	random_changes(&e, 1000);
	engine_close(&e);
}

/* On an indirect pool a freed node may come back as data only when no journal record is about it. */
static void freed_metadata_waits_for_a_checkpoint(void **state)
{
	struct engine e;
	struct um_ptr ptr;
	struct um_txn *txn;
	void *block;
	bool last;

	(void)state;
	engine_open_file(&e, 8, 2);
	txn = engine_begin(&e);
	ok(um_txn_new(txn, UM_KIND_DIR, 0, 0, &ptr, &block));
	ok(um_txn_commit(txn));
	txn = engine_begin(&e);
	ok(um_txn_drop(txn, ptr, &last));
	assert_true(last);
	ok(um_txn_commit(txn));
	um_space_reap(e.space);
	assert_int_equal(stat_of(&e).quarantined, 2);
	ok(um_log_sync(e.log));
	um_space_reap(e.space);
	assert_int_equal(stat_of(&e).quarantined, 2);
	ok(um_log_checkpoint(e.log));
	um_space_reap(e.space);
	assert_int_equal(stat_of(&e).quarantined, 0);
	engine_close(&e);
}

/* The thread that runs a transaction may be the one that needs quarantined blocks. */
static void a_transaction_in_a_full_pool_gets_freed_blocks(void **state)
{
	struct engine e;
	um_lba_t first, lba;
	uint32_t m, n;
	struct um_txn *txn;

	(void)state;
	engine_open_file(&e, 8, 2);
	alloc_run(&e, 0, 300, &first, &m);
	while (!um_space_take(e.space, 0, 512, 0, &lba, &n))
		;
	put_run(&e, first, m, m);
	txn = engine_begin(&e);
	ok(um_space_take(e.space, 0, 300, 0, &lba, &n));
	assert_int_equal(lba, first);
	ok(um_ref_alloc(txn, lba, n));
	ok(um_txn_commit(txn));
	engine_close(&e);
}

static struct um_pool_ops slow_ops;
static const struct um_pool_ops *quick_ops;
static sem_t in_barrier;

/* A medium that takes its time, longer than anybody waits for others' epochs. */
static int slow_barrier(struct um_pool *pool)
{
	const struct timespec time = {.tv_nsec = 200000000};

	sem_post(&in_barrier);
	nanosleep(&time, NULL);
	return quick_ops->barrier(pool);
}

static void *checkpoint_thread(void *arg)
{
	struct engine *e = arg;

	return (void *)(intptr_t)um_log_checkpoint(e->log);
}

static void a_transaction_that_needs_space_waits_for_the_checkpoint_of_another_thread(void **state)
{
	struct engine e;
	struct um_ptr ptr, again;
	struct um_txn *txn;
	pthread_t thread;
	void *block, *result;
	um_lba_t lba;
	uint32_t n;
	bool last;

	(void)state;
	engine_open_file(&e, 8, 2);
	txn = engine_begin(&e);
	ok(um_txn_new(txn, UM_KIND_DIR, 0, 0, &ptr, &block));
	ok(um_txn_commit(txn));
	while (!um_space_take(e.space, 0, 512, UM_SPACE_META, &lba, &n))
		;
	txn = engine_begin(&e);
	ok(um_txn_drop(txn, ptr, &last));
	ok(um_txn_commit(txn));

	sem_init(&in_barrier, 0, 0);
	quick_ops = e.pool->ops;
	slow_ops = *quick_ops;
	slow_ops.barrier = slow_barrier;
	e.pool->ops = &slow_ops;
	txn = engine_begin(&e);
	ok(pthread_create(&thread, NULL, checkpoint_thread, &e));
	sem_wait(&in_barrier);
	ok(um_space_take_meta(e.space, 0, 0, &again));
	um_txn_abort(txn);
	ok(pthread_join(thread, &result));
	assert_null(result);
	e.pool->ops = quick_ops;
	sem_destroy(&in_barrier);
	engine_close(&e);
}

/* ---- a large pool ------------------------------------------------------------------------------------------ */

static double msec_since(const struct timespec *from)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - from->tv_sec) * 1e3 + (now.tv_nsec - from->tv_nsec) / 1e6;
}

static void a_large_fragmented_pool_is_searched_quickly(void **state)
{
	struct engine e;
	um_lba_t lba;
	uint32_t n;
	struct timespec from;
	double msec;

	(void)state;
	engine_open(&e, 32768, 2); /* 64 GiB, of which little is touched */
	/* Every chunk but a few is full but for one block. */
	while (!um_space_take(e.space, 0, 511, 0, &lba, &n))
		;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < 2000; i++)
		(void)um_space_take(e.space, 0, 512, UM_SPACE_RESERVE, &lba, &n);
	msec = msec_since(&from);
	print_message("2000 searches in a full pool: %.1f ms\n", msec);
	assert_true(msec < 1000);
	engine_close(&e);
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS 400

/* cmocka's assertions are for the main thread. */
static void must_be(bool true_, const char *what)
{
	if (!true_) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}
#define must(expr) must_be(expr, #expr)

static void *worker(void *arg)
{
	struct engine *e = arg;

	for (int i = 0; i < ROUNDS; i++) {
		um_lba_t lba;
		uint32_t n, count, run;
		struct um_txn *txn;

		must((um_space_take(e->space, 0, 1 + i % 64, 0, &lba, &n)) == 0);
		if (i % 3 == 0) {
			um_space_give(e->space, lba, n);
		} else {
			must((um_txn_begin(e->log, 0, &txn)) == 0);
			must((um_ref_alloc(txn, lba, n)) == 0);
			must((um_txn_commit(txn)) == 0);
			um_epoch_enter(e->space);
			um_log_read_lock(e->log);
			must(um_ref_count((struct um_src){e->pool, NULL}, lba, 1, &count, &run) ==
				0);
			um_log_read_unlock(e->log);
			must(count == 1);
			um_epoch_leave(e->space);
			must((um_txn_begin(e->log, 0, &txn)) == 0);
			must((um_ref_put(txn, lba, n, false, NULL)) == 0);
			must((um_txn_commit(txn)) == 0);
		}
		if (i % 16 == 0)
			um_space_reap(e->space);
	}
	return NULL;
}

static void threads_leave_all_space_behind(void **state)
{
	struct engine e;
	pthread_t thread[THREADS];
	uint64_t total;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	total = stat_of(&e).total;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < THREADS; i++)
			ok(pthread_create(&thread[i], NULL, worker, &e));
		for (int i = 0; i < THREADS; i++)
			ok(pthread_join(thread[i], NULL));
	}
	um_space_reap(e.space);
	assert_int_equal(stat_of(&e).free, total);
	assert_int_equal(stat_of(&e).reserved, 0);
	assert_int_equal(stat_of(&e).quarantined, 0);
	engine_close(&e);
}

/* More threads than one block of slots, over and over: slots are reused, none holds anything up. */
static void *enter_and_leave(void *arg)
{
	struct engine *e = arg;

	um_epoch_enter(e->space);
	um_epoch_enter(e->space);
	um_epoch_leave(e->space);
	um_epoch_leave(e->space);
	um_epoch_enter(e->space);
	sched_yield();
	/* Ends inside: the slot is given up all the same. */
	return NULL;
}

static void ended_threads_hold_no_epoch(void **state)
{
	struct engine e;
	pthread_t thread[100];
	um_lba_t lba;
	uint32_t n;

	(void)state;
	engine_open(&e, CHUNKS, 2);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 100; i++)
			ok(pthread_create(&thread[i], NULL, enter_and_leave, &e));
		for (int i = 0; i < 100; i++)
			ok(pthread_join(thread[i], NULL));
		alloc_run(&e, 0, 10, &lba, &n);
		put_run(&e, lba, n, n);
		um_space_reap(e.space);
		assert_int_equal(stat_of(&e).quarantined, 0);
	}
	engine_close(&e);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_pool_has_all_but_tables_and_journal_free),
		cmocka_unit_test(taken_blocks_come_back_when_given_or_aborted),
		cmocka_unit_test(counts_survive_a_remount),
		cmocka_unit_test(a_whole_chunk_is_one_word),
		cmocka_unit_test(unsound_changes_are_refused),
		cmocka_unit_test(a_count_at_its_limit_refuses_and_changes_nothing),
		cmocka_unit_test(data_continues_at_its_goal),
		cmocka_unit_test(metadata_keeps_away_from_data_and_from_its_mirror),
		cmocka_unit_test(the_reserve_is_kept_in_steps),
		cmocka_unit_test(freed_blocks_wait_for_whoever_may_point_at_them),
		cmocka_unit_test(a_full_pool_waits_for_quarantine_before_it_says_so),
		cmocka_unit_test(an_aborted_put_frees_nothing),
		cmocka_unit_test(random_changes_match_a_model),
		cmocka_unit_test(random_changes_match_a_model_in_a_plain_file),
		cmocka_unit_test(freed_metadata_waits_for_a_checkpoint),
		cmocka_unit_test(a_transaction_in_a_full_pool_gets_freed_blocks),
		cmocka_unit_test(
			a_transaction_that_needs_space_waits_for_the_checkpoint_of_another_thread),
		cmocka_unit_test(a_large_fragmented_pool_is_searched_quickly),
		cmocka_unit_test(threads_leave_all_space_behind),
		cmocka_unit_test(ended_threads_hold_no_epoch),
	};

	(void)argc;
	engine_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
