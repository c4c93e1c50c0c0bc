/* SPDX-License-Identifier: BSD-3-Clause */
/* Group commit of plain files: failing barriers, interrupted recovery. */
#include "recorder.h"

#include <semaphore.h>

#include "pool/rests.h"
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
		assert_int_equal(um_log_sync(w.e.log), -EROFS);
		assert_int_equal(um_txn_begin(w.e.log, 0, &txn), -EROFS);
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
 * What counts because of a list is committed anew by recovery. A transaction behind it, whose
 * record is whole and whose data is not there, must not come to count by that when a second cut
 * ends the recovery.
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

/* ---- a checkpoint rests on no list ------------------------------------------------------------------------- */

static uint8_t *cut; /* a state of the medium; NULL: none was taken */
static uint64_t rotten;

/* The first moment at which something was written home: that is there, and a listed block cannot be
 * read any more. */
static void cut_at_home(void *arg)
{
	const struct recorder_store *last = recorder.n ? &recorder.store[recorder.n - 1] : NULL;

	if (cut || !last || last->off != *(const uint64_t *)arg)
		return;
	cut = mmap(NULL, recorder.size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(cut != MAP_FAILED);
	assert_int_equal(pread(recorder.medium, cut, recorder.size, 0), recorder.size);
	memcpy(cut + last->off, last->bytes, last->len);
	memset(cut + rotten, 0xee, UM_BLOCK_SIZE);
}

/*
 * A group counts because of data that its COMMIT lists. When a checkpoint has begun to write it
 * home it must count whatever becomes of that data.
 */
static void what_goes_home_counts_without_listed_data(void **state)
{
	struct um_ptr second;
	struct um_txn *txn;
	struct world w;
	uint64_t home;
	void *block;

	(void)state;
	world_open(&w);
	do { /* not beside the first, so that they go home one after the other */
		txn = engine_begin(&w.e);
		ok(um_txn_new(txn, UM_KIND_DIR, 0, 0, &second, &block));
		ok(um_txn_commit(txn));
	} while (second.lba < w.cell.lba + 2);
	ok(um_log_checkpoint(w.e.log));
	recorder_attach(w.e.pool);
	w.version = 1;
	ok(um_pool_write(w.e.pool, DATA + 1, 0, &w.version, sizeof(w.version)));
	txn = engine_begin(&w.e);
	ok(um_txn_edit(txn, w.cell, UM_KIND_DIR, &block));
	((struct cell *)block)->version = 1;
	ok(um_txn_edit(txn, second, UM_KIND_DIR, &block));
	((struct cell *)block)->version = 1;
	ok(um_txn_commit(txn));
	ok(um_log_sync(w.e.log));
	rotten = (DATA + 1) * UM_BLOCK_SIZE;
	home = w.cell.lba * UM_BLOCK_SIZE;
	cut = NULL;
	recorder.moment = cut_at_home;
	recorder.arg = &home;
	ok(um_log_checkpoint(w.e.log));
	recorder.moment = NULL;
	assert_non_null(cut);
	other_boot(cut, w.e.pool->super.journal_lba);
	recorder_detach(w.e.pool);
	die(&w.e);
	fixture_poke(0, cut, recorder.size);
	munmap(cut, recorder.size);

	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w.e.pool));
	engine_mount(&w.e);
	for (unsigned i = 0; i < 2; i++) {
		const struct um_src src = {w.e.pool, NULL};
		const void *at;

		ok(um_src_get(src, i ? second : w.cell, UM_KIND_DIR, &at));
		assert_int_equal(((const struct cell *)at)->version, 1);
	}
	engine_close(&w.e);
}

/* ---- room in the ring ---------------------------------------------------------------------------------------- */

/* Changes of any size, with and without data, COMMITs of both sorts in between: a ring of 2 to 16
 * blocks has room. */
static int no_barrier(struct um_pool *pool)
{
	(void)pool;
	return 0;
}

static void a_small_ring_has_room_for_commits(void **state)
{
	static const uint64_t blocks[] = {3, 5, 9, 17};
	uint64_t seed = engine_seed(), word = 0;

	(void)state;
	for (unsigned b = 0; b < 4; b++) {
		struct engine e = {0};
		struct um_pool_ops ops;
		struct um_ptr cell[4];
		struct um_txn *txn;
		void *block;

		fixture_make(CHUNKS, 1, blocks[b]);
		ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &e.pool));
		ops = *e.pool->ops;
		ops.barrier = no_barrier;
		e.pool->ops = &ops;
		engine_mount(&e);
		for (unsigned i = 0; i < 4; i++) {
			txn = engine_begin(&e);
			ok(um_txn_new(txn, UM_KIND_DIR, 0, 0, &cell[i], &block));
			ok(um_txn_commit(txn));
		}
		for (unsigned i = 0; i < 3000; i++) {
			/* Half of the records as long as they may be. */
			uint64_t most = (blocks[b] - 1) * UM_BLOCK_SIZE / 4 / 8 - 32;
			unsigned words = (unsigned)rnd_below(&seed, 2 * most);
			unsigned ndata = (unsigned)rnd_below(&seed, 90);

			if (words > most)
				words = (unsigned)most;
			if (ndata > UM_RESTS_MAX)
				ndata = UM_RESTS_MAX;
			for (unsigned d = 0; d < ndata; d++, word++)
				ok(um_pool_write(e.pool, DATA + word / 512 % 8,
					(uint32_t)(8 * (word % 512)), &word, sizeof(word)));
			txn = engine_begin(&e);
			for (unsigned c = 0; c < 4 && words; c++) {
				unsigned n = words < 500 ? words : 500;

				ok(um_txn_edit(txn, cell[c], UM_KIND_DIR, &block));
				memset((uint8_t *)block + sizeof(struct um_block_hdr), (int)i + 1,
					8 * (size_t)n);
				words -= n;
			}
			/* Of the transaction before, while this one is under way. */
			if (rnd_below(&seed, 2))
				ok(um_log_sync(e.log));
			ok(um_txn_commit(txn));
			if (rnd_below(&seed, 2))
				ok(um_log_sync(e.log));
			/* Seals it, if it was listed. */
			if (!rnd_below(&seed, 2) && word)
				ok(um_pool_overwrite(e.pool, DATA + (word - 1) / 512 % 8,
					(uint32_t)(8 * ((word - 1) % 512)), &word, 8));
		}
		engine_close(&e);
	}
}

static const struct CMUnitTest groups[] = {
	cmocka_unit_test_setup_teardown(
		a_barrier_that_failed_is_nobodys_success, fixture_setup, fixture_teardown),
	cmocka_unit_test_setup_teardown(
		recovery_does_not_commit_what_it_drops, fixture_setup, fixture_teardown),
	cmocka_unit_test_setup_teardown(
		what_goes_home_counts_without_listed_data, fixture_setup, fixture_teardown),
	cmocka_unit_test_setup_teardown(
		a_small_ring_has_room_for_commits, fixture_setup, fixture_teardown),
};

int main(int argc, char **argv)
{
	(void)argc;
	engine_without_pmem(argv);
	return cmocka_run_group_tests(groups, NULL, NULL);
}
