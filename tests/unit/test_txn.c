/* SPDX-License-Identifier: BSD-3-Clause */
/* Transactions: all or nothing, for who makes them and for who reads meanwhile; what a crash leaves is in test_recovery.c. */
#include "txn_world.h"

/* ---- one transaction ----------------------------------------------------------------------------- */

static void commit_changes_and_abort_does_not(void **state)
{
	struct world w;
	struct um_txn *txn;
	struct um_log_stats stats;
	const void *seen;
	void *block, *again;

	(void)state;
	world_open(&w);
	txn = engine_begin(&w.e);
	ok(um_txn_edit(txn, w.cell[0], UM_KIND_DIR, &block));
	((struct cell *)block)->version = 42;
	ok(um_txn_edit(txn, w.cell[0], UM_KIND_DIR, &again));
	assert_ptr_equal(block, again);
	ok(um_src_get(um_txn_src(txn), w.cell[0], UM_KIND_DIR, &seen));
	assert_ptr_equal(seen, block);
	ok(um_src_get((struct um_src){w.e.pool, NULL}, w.cell[0], UM_KIND_DIR, &seen));
	assert_int_equal(((const struct cell *)seen)->version, 0);
	um_txn_abort(txn);
	assert_int_equal(((const struct cell *)seen)->version, 0);
	assert_int_equal(um_txn_end(engine_begin(&w.e), -ENOSPC), -ENOSPC);
	ok(step(&w));
	ok(step(&w));
	assert_int_equal(inspect(&w, &w.e, true), 2);
	/* Nothing changed: nothing is written. */
	um_log_stats(w.e.log, &stats);
	txn = engine_begin(&w.e);
	ok(um_txn_edit(txn, w.cell[0], UM_KIND_DIR, &block));
	ok(um_txn_commit(txn));
	assert_int_equal(stats.record_bytes, (um_log_stats(w.e.log, &stats), stats.record_bytes));
	world_close(&w);
}

static void wrong_pointers_in_a_transaction_are_errors(void **state)
{
	struct world w;
	struct um_txn *txn;
	const void *seen;
	struct um_ptr other;
	void *block;

	(void)state;
	world_open(&w);
	other = (struct um_ptr){w.cell[0].lba, w.cell[1].mirror};
	txn = engine_begin(&w.e);
	assert_int_equal(um_txn_edit(txn, other, UM_KIND_DIR, &block), -EUCLEAN);
	ok(um_txn_edit(txn, w.cell[0], UM_KIND_DIR, &block));
	assert_int_equal(um_txn_edit(txn, other, UM_KIND_DIR, &block), -EUCLEAN);
	assert_int_equal(um_txn_edit(txn, w.cell[0], UM_KIND_XATTR, &block), -EUCLEAN);
	assert_int_equal(um_src_get(um_txn_src(txn), w.cell[0], UM_KIND_XATTR, &seen), -EUCLEAN);
	assert_int_equal(um_txn_data(txn, CHUNKS * 512 - 1, 0, &w, 4097), -EUCLEAN);
	um_txn_abort(txn);
	world_close(&w);
}

static void blocks_come_and_go_in_one_transaction(void **state)
{
	struct world w;
	struct um_space_stat before, after;
	struct um_txn *txn;
	struct um_ptr ptr;
	const void *seen;
	void *block;
	bool last;

	(void)state;
	world_open(&w);
	ok(step(&w));
	um_space_reap(w.e.space);
	um_space_stat(w.e.space, &before);
	txn = engine_begin(&w.e);
	ok(um_txn_new(txn, UM_KIND_XATTR, 0, 0, &ptr, &block));
	ok(um_txn_drop(txn, ptr, &last));
	assert_true(last);
	ok(um_src_get(um_txn_src(txn), ptr, UM_KIND_XATTR, &seen));
	ok(um_txn_commit(txn));
	um_space_reap(w.e.space);
	um_space_stat(w.e.space, &after);
	assert_int_equal(before.free, after.free);

	/* Dropped, still readable, and what is written to it then is lost with it. */
	txn = engine_begin(&w.e);
	ok(um_txn_drop(txn, w.leaf, &last));
	assert_true(last);
	ok(um_src_get(um_txn_src(txn), w.leaf, UM_KIND_DIR, &seen));
	assert_int_equal(((const struct cell *)seen)->version, 1);
	ok(um_txn_edit(txn, w.leaf, UM_KIND_DIR, &block));
	assert_int_equal(((struct cell *)block)->version, 1);
	((struct cell *)block)->version = 77;
	ok(um_txn_commit(txn));
	assert_int_equal(((const struct cell *)um_pool_ptr(w.e.pool, w.leaf.lba))->version, 1);
	um_space_stat(w.e.space, &after);
	assert_int_equal(before.free + 2, after.free);
	world_close(&w);
}

static void too_much_for_the_journal_is_refused(void **state)
{
	static uint8_t data[64 << 10];
	struct world w;
	struct um_txn *txn;

	(void)state;
	world_open(&w);
	ok(step(&w));
	txn = engine_begin(&w.e);
	assert_int_equal(um_txn_data(txn, DATA, 0, data, sizeof(data)), -E2BIG);
	ok(um_txn_data(txn, DATA, 0, data, sizeof(data) / 2));
	assert_int_equal(um_txn_data(txn, DATA, 0, data, sizeof(data) / 2), -E2BIG);
	um_txn_abort(txn);
	assert_int_equal(inspect(&w, &w.e, true), 1);
	world_close(&w);
}

static int hooks_run;
static void count_hook(void *arg)
{
	hooks_run += *(int *)arg;
}

static void hooks_run_after_a_commit_only(void **state)
{
	struct world w;
	struct um_txn *txn;
	int one = 1;

	(void)state;
	world_open(&w);
	txn = engine_begin(&w.e);
	ok(um_txn_on_commit(txn, count_hook, &one));
	um_txn_abort(txn);
	assert_int_equal(hooks_run, 0);
	txn = engine_begin(&w.e);
	ok(um_txn_on_commit(txn, count_hook, &one));
	ok(um_txn_on_commit(txn, count_hook, &one));
	ok(um_txn_commit(txn));
	assert_int_equal(hooks_run, 2);
	world_close(&w);
}

static void a_stopped_log_refuses(void **state)
{
	struct world w;
	struct um_txn *txn;

	(void)state;
	world_open(&w);
	ok(step(&w));
	um_log_stop(w.e.log, -EIO, true);
	assert_int_equal(um_txn_begin(w.e.log, 0, &txn), -EIO);
	assert_int_equal(um_log_sync(w.e.log), -EIO);
	assert_int_equal(inspect(&w, &w.e, true), 1);
	die(&w.e);
}

static void a_bad_copy_is_rewritten_by_the_next_commit(void **state)
{
	struct world w;
	const void *seen;

	(void)state;
	world_open(&w);
	ok(step(&w));
	/* One that every transaction edits, one that it only reads. */
	ok(um_pool_write(w.e.pool, w.cell[2].lba, 1000, "damage", 6));
	ok(um_pool_write(w.e.pool, w.leaf.lba, 1000, "damage", 6));
	um_log_read_lock(w.e.log);
	ok(um_src_get((struct um_src){w.e.pool, NULL}, w.leaf, UM_KIND_DIR, &seen));
	assert_ptr_equal(seen, um_pool_ptr(w.e.pool, w.leaf.mirror));
	um_log_read_unlock(w.e.log);
	w.leaf.lba = 0; /* keep it */
	ok(step(&w));
	assert_int_equal(inspect(&w, &w.e, true), 2);
	assert_memory_equal(seen,
		(const uint8_t *)um_pool_ptr(w.e.pool, ((const struct um_block_hdr *)seen)->lba),
		UM_BLOCK_SIZE);
	world_close(&w);
}

/* ---- the journal ------------------------------------------------------------------------------------ */

static void the_journal_wraps(void **state)
{
	struct world w;
	unsigned i;

	(void)state;
	world_open(&w);
	for (i = 0; i < 300; i++)
		ok(step(&w));
	engine_remount(&w.e);
	assert_int_equal(um_log_replayed(w.e.log), 0);
	assert_int_equal(inspect(&w, &w.e, true), 300);
	for (i = 0; i < 100; i++)
		ok(step(&w));
	assert_int_equal(inspect(&w, &w.e, true), 400);
	world_close(&w);
}

static void one_bad_journal_header_is_survived_two_are_not(void **state)
{
	struct um_pool *pool;
	struct um_log *log;

	(void)state;
	ok(um_pool_open_memory(CHUNKS * UM_CHUNK_SIZE, &pool));
	fixture_format(pool, 2, JOURNAL, 1024);
	ok(um_log_open(pool, &log));
	ok(um_log_close(log));
	ok(um_pool_zero(pool, 512, 0, UM_BLOCK_SIZE));
	ok(um_log_open(pool, &log));
	ok(um_log_close(log));
	ok(um_pool_write(pool, 1024, 70, "x", 1));
	ok(um_log_open(pool, &log)); /* the first was repaired from the second, now the other way */
	ok(um_log_close(log));
	ok(um_pool_write(pool, 512, 70, "x", 1));
	ok(um_pool_write(pool, 1024, 70, "x", 1));
	assert_int_equal(um_log_open(pool, &log), -EUCLEAN);
	um_pool_close(pool);
}

static void a_failed_write_aborts_a_failed_barrier_stops(void **state)
{
	struct world w;
	struct um_txn *txn;
	unsigned i;

	(void)state;
	world_open_file(&w, 0);
	recorder_attach(w.e.pool);
	for (i = 0; i < 50; i++) {
		ok(step(&w));
		recorder.fail_write = i % 2 ? -ENOSPC : -EIO;
		assert_int_equal(step(&w), recorder.fail_write);
		recorder.fail_write = 0;
		recorder_settle();
	}
	assert_int_equal(inspect(&w, &w.e, false), 50);
	ok(um_log_sync(w.e.log));
	ok(step(&w));
	recorder.fail_barrier = -EIO;
	assert_int_equal(um_log_sync(w.e.log), -EIO);
	recorder.fail_barrier = 0;
	assert_int_equal(um_txn_begin(w.e.log, 0, &txn), -EROFS);
	assert_int_equal(um_log_sync(w.e.log), -EROFS);
	recorder_detach(w.e.pool);
	die(&w.e);
	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w.e.pool));
	engine_mount(&w.e);
	assert_int_equal(inspect(&w, &w.e, true), 51);
	world_close(&w);
}

/* A pool on persistent memory, cut with a record to replay, then copied to an ordinary disk. */
/* ---- threads -------------------------------------------------------------------------------------------------- */

#define READERS 3
static atomic_bool stop_threads;

static void *read_on(void *arg)
{
	struct world *w = arg;
	uint64_t last = 0, now;

	while (!atomic_load(&stop_threads)) {
		/* Data in place is not under the lock. */
		now = inspect(w, &w->e, false);
		must(now < last);
		last = now;
	}
	return NULL;
}

static void *sync_on(void *arg)
{
	struct world *w = arg;

	while (!atomic_load(&stop_threads)) {
		uint64_t before = um_log_committed(w->e.log);

		must(um_log_sync(w->e.log));
		must(um_log_durable(w->e.log) < before);
	}
	return NULL;
}

static void read_while_writing(struct world *w, unsigned steps)
{
	pthread_t reader[READERS], syncer[2];
	unsigned i;

	atomic_store(&stop_threads, false);
	for (i = 0; i < READERS; i++)
		ok(pthread_create(&reader[i], NULL, read_on, w));
	for (i = 0; i < 2; i++)
		ok(pthread_create(&syncer[i], NULL, sync_on, w));
	for (i = 0; i < steps; i++)
		ok(step(w));
	atomic_store(&stop_threads, true);
	for (i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	for (i = 0; i < 2; i++)
		pthread_join(syncer[i], NULL);
	assert_int_equal(inspect(w, &w->e, true), w->version);
}

static void readers_see_whole_transactions(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	ok(step(&w));
	read_while_writing(&w, 1500);
	world_close(&w);
}

static void readers_and_syncs_share_an_indirect_pool(void **state)
{
	struct um_log_stats stats;
	struct world w;

	(void)state;
	world_open_file(&w, 0);
	ok(step(&w));
	read_while_writing(&w, 600);
	um_log_stats(w.e.log, &stats);
	assert_true(stats.checkpoints > 0);
	die(&w.e);
	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w.e.pool));
	engine_mount(&w.e);
	assert_int_equal(inspect(&w, &w.e, true), w.version);
	world_close(&w);
}

#define file_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

static const struct CMUnitTest direct[] = {
	cmocka_unit_test(commit_changes_and_abort_does_not),
	cmocka_unit_test(wrong_pointers_in_a_transaction_are_errors),
	cmocka_unit_test(blocks_come_and_go_in_one_transaction),
	cmocka_unit_test(too_much_for_the_journal_is_refused),
	cmocka_unit_test(hooks_run_after_a_commit_only),
	cmocka_unit_test(a_stopped_log_refuses),
	cmocka_unit_test(a_bad_copy_is_rewritten_by_the_next_commit),
	cmocka_unit_test(the_journal_wraps),
	cmocka_unit_test(one_bad_journal_header_is_survived_two_are_not),
	cmocka_unit_test(readers_see_whole_transactions),
};
static const struct CMUnitTest indirect[] = {
	file_test(a_failed_write_aborts_a_failed_barrier_stops),
	file_test(readers_and_syncs_share_an_indirect_pool),
};

fixture_main(direct, indirect)
