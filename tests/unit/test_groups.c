/* SPDX-License-Identifier: BSD-3-Clause */
/* Group commit of plain files: barriers that fail, recovery that is cut short. */
#include "recorder.h"

#include <semaphore.h>

#include "txn/internal.h"

#define CHUNKS 8u
#define JOURNAL 65u
#define DATA 2600u /* in a chunk that nothing else uses */

/* Version n: a metadata block says n, and points at data that says n. */
struct world {
	struct engine e;
	struct um_ptr cell;
	uint64_t version;
};
struct cell {
	struct um_block_hdr hdr;
	uint64_t version;
};

static void world_open(struct world *w)
{
	struct um_txn *txn;
	um_lba_t lba;
	uint32_t n;
	void *block;

	memset(w, 0, sizeof(*w));
	fixture_make(CHUNKS, 2, JOURNAL);
	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w->e.pool));
	engine_mount(&w->e);
	txn = engine_begin(&w->e);
	ok(um_txn_new(txn, UM_KIND_DIR, 0, 0, &w->cell, &block));
	ok(um_txn_commit(txn));
	do {
		ok(um_space_take(w->e.space, DATA & ~511u, 512, 0, &lba, &n));
		txn = engine_begin(&w->e);
		ok(um_ref_alloc(txn, lba, n));
		ok(um_txn_commit(txn));
	} while (lba + n <= DATA);
}

static void step(struct world *w)
{
	uint64_t next = w->version + 1;
	struct um_txn *txn;
	void *block;

	ok(um_pool_write(w->e.pool, DATA + next, 800, &next, sizeof(next)));
	txn = engine_begin(&w->e);
	ok(um_txn_edit(txn, w->cell, UM_KIND_DIR, &block));
	((struct cell *)block)->version = next;
	ok(um_txn_commit(txn));
	w->version = next;
}

static uint64_t inspect(const struct world *w)
{
	const struct um_src src = {w->e.pool, NULL};
	const void *block;
	uint64_t version, data;

	ok(um_src_get(src, w->cell, UM_KIND_DIR, &block));
	version = ((const struct cell *)block)->version;
	memcpy(&data, (const uint8_t *)um_pool_ptr(w->e.pool, DATA + version) + 800, sizeof(data));
	assert_int_equal(data, version);
	return version;
}

/* The daemon dies: nothing more is written, private pages are gone. */
static void die(struct engine *e)
{
	um_space_close(e->space);
	um_log_abandon(e->log);
	um_pool_close(e->pool);
}

/* The kernel tells of a failure once; and it takes its time, so that others come meanwhile. */
static struct um_pool_ops once_ops;
static sem_t once_began;
static int once_with;

static int fails_once(struct um_pool *pool)
{
	int ret = once_with;

	once_with = 0;
	if (!ret)
		return recorder.real->barrier(pool);
	sem_post(&once_began);
	usleep(100000);
	return ret;
}

static void *sync_once(void *arg)
{
	return (void *)(intptr_t)um_log_sync(arg);
}

static void a_barrier_that_failed_is_nobodys_success(void **state)
{
	static const int with[] = {-EIO, -ENOSPC};
	struct um_txn *txn;
	pthread_t thread;
	struct world w;
	void *result;

	(void)state;
	sem_init(&once_began, 0, 0);
	for (unsigned i = 0; i < 4; i++) {
		world_open(&w);
		step(&w);
		recorder.real = w.e.pool->ops;
		once_ops = *recorder.real;
		once_ops.barrier = fails_once;
		once_with = with[i % 2];
		w.e.pool->ops = &once_ops;
		ok(pthread_create(&thread, NULL, sync_once, w.e.log));
		sem_wait(&once_began);
		/* By who waits for the next group commit, and by who is in a checkpoint already. */
		if (i < 2)
			assert_int_equal(um_log_sync(w.e.log), -EIO);
		else
			assert_int_equal(um_pool_barrier(w.e.pool), with[i % 2]);
		ok(pthread_join(thread, &result));
		assert_int_equal((intptr_t)result, -EIO);
		assert_int_equal(um_log_sync(w.e.log), -EIO);
		assert_int_equal(um_txn_begin(w.e.log, 0, &txn), -EIO);
		w.e.pool->ops = recorder.real;
		die(&w.e);
	}
	sem_destroy(&once_began);
}

/* As if another boot read the pool: the file of the kernel that died was not all on the medium. */
static void other_boot(uint8_t *base, um_lba_t journal)
{
	struct um_journal *head = (void *)(base + journal * UM_BLOCK_SIZE);

	/* A torn header would be one sector; sectors do not tear. */
	memset(head->boot_id, 0x11, sizeof(head->boot_id));
	head->hdr.csum = um_journal_csum(head);
}

static int no_writeback(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n)
{
	(void)pool, (void)lba, (void)images, (void)n;
	return -EIO;
}

/*
 * What counts because of a list is committed anew by recovery. A transaction behind it, whose record is whole and whose
 * data is not there, must not come to count by that when a second cut ends the recovery.
 */
static void recovery_does_not_commit_what_it_drops(void **state)
{
	struct um_pool_ops ops;
	struct um_log *log;
	struct world w;
	uint8_t *base;

	(void)state;
	world_open(&w);
	step(&w);
	ok(um_log_checkpoint(w.e.log));
	recorder_attach(w.e.pool);
	step(&w);
	ok(um_log_sync(w.e.log));
	step(&w);
	base = mmap(NULL, recorder.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, recorder.medium, 0);
	assert_true(base != MAP_FAILED);
	for (unsigned i = 0; i < recorder.n; i++)
		if (recorder.store[i].off / UM_BLOCK_SIZE != DATA + w.version)
			memcpy(base + recorder.store[i].off, recorder.store[i].bytes,
				recorder.store[i].len);
	other_boot(base, w.e.pool->super.journal_lba);
	recorder_detach(w.e.pool);
	die(&w.e);
	fixture_poke(0, base, recorder.size);
	munmap(base, recorder.size);

	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w.e.pool));
	ops = *w.e.pool->ops;
	ops.writeback = no_writeback;
	w.e.pool->ops = &ops;
	assert_int_equal(um_log_open(w.e.pool, &log), -EIO);
	um_pool_close(w.e.pool);

	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w.e.pool));
	engine_mount(&w.e);
	assert_int_equal(um_log_replayed(w.e.log), 1);
	assert_int_equal(inspect(&w), w.version - 1);
	engine_close(&w.e);
}

static const struct CMUnitTest groups[] = {
	cmocka_unit_test_setup_teardown(
		a_barrier_that_failed_is_nobodys_success, fixture_setup, fixture_teardown),
	cmocka_unit_test_setup_teardown(
		recovery_does_not_commit_what_it_drops, fixture_setup, fixture_teardown),
};

int main(int argc, char **argv)
{
	(void)argc;
	engine_without_pmem(argv);
	return cmocka_run_group_tests(groups, NULL, NULL);
}
