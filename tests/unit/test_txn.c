/* SPDX-License-Identifier: BSD-3-Clause */
/* Transactions: all or nothing, now and after every kind of crash. */
#include "recorder.h"

#include "txn/internal.h"

#define CHUNKS 8u
#define JOURNAL 65u  /* a ring of 256 KiB: wraps often */
#define MIRROR 1024u /* of the journal, where there is one */
#define CELLS 6u     /* metadata blocks that every transaction changes together */
#define DATA 3000u   /* block of file data, in an allocated chunk */
#define DATA_LEN 5000u
#define SLOT(version) (2600u + (version) % 64) /* new data: written before its transaction */

/*
 * The state under test. Version n: each cell holds n and a pattern that depends on n; the first cell
 * points at a leaf made by transaction n; data in place holds n (direct pools).
 */
struct world {
	struct engine e;
	struct um_ptr cell[CELLS];
	struct um_ptr leaf;
	uint64_t version; /* of the last acknowledged commit */
	uint64_t pending; /* of the commit in flight, or 0 */
	uint64_t synced;  /* of the last sync that returned */
	unsigned states;  /* crash states looked at */
};

struct cell {
	struct um_block_hdr hdr;
	uint64_t version;
	struct um_ptr leaf;
	uint8_t pattern[UM_BLOCK_SIZE - 64 - 24];
};

/* Deterministic, with long runs and scattered bytes, and different lengths of change. */
static void draw(struct cell *cell, unsigned i, uint64_t n)
{
	uint64_t seed = n * CELLS + i + 1;
	uint32_t *words = (uint32_t *)(cell->pattern + 8);
	unsigned k, len = (unsigned)rnd_below(&seed, 900);

	cell->version = n;
	memset(cell->pattern, 0, sizeof(cell->pattern));
	for (k = 0; k < len; k++)
		words[k] = (uint32_t)n;
	for (k = 0; k < 10; k++)
		cell->pattern[rnd_below(&seed, sizeof(cell->pattern))] = (uint8_t)rnd(&seed);
}

static void must(int ret)
{
	/* Also in threads, where cmocka's assertions cannot be caught. */
	if (ret) {
		fprintf(stderr, "unexpected error %d\n", ret);
		abort();
	}
}

/* Transaction n + 1 on top of version n. */
static int step(struct world *w)
{
	struct um_txn *txn;
	struct um_ptr leaf = {0, 0};
	uint8_t data[DATA_LEN];
	uint64_t next = w->version + 1;
	void *block;
	unsigned i;
	int ret = um_pool_write(w->e.pool, SLOT(next), 800, &next, sizeof(next));

	um_pool_drain(w->e.pool);
	if (!ret)
		ret = um_txn_begin(w->e.log, 0, &txn);
	if (ret)
		return ret;
	w->pending = w->version + 1;
	ret = um_txn_new(txn, UM_KIND_DIR, 0, 0, &leaf, &block);
	if (!ret)
		((struct cell *)block)->version = w->pending;
	for (i = 0; i < CELLS && !ret; i++) {
		ret = um_txn_edit(txn, w->cell[i], UM_KIND_DIR, &block);
		if (ret)
			break;
		draw(block, i, w->pending);
		if (!i)
			((struct cell *)block)->leaf = leaf;
	}
	if (!ret && w->leaf.lba)
		ret = um_txn_drop(txn, w->leaf, NULL);
	memset(data, (int)w->pending, sizeof(data));
	if (!ret)
		ret = um_txn_data(txn, DATA, 100, data, sizeof(data));
	ret = um_txn_end(txn, ret);
	w->pending = 0;
	if (!ret) {
		w->version++;
		w->leaf = leaf;
	}
	return ret;
}

/* Reads the version that a recovered pool is in and checks that all of it is of that version. */
static uint64_t inspect(const struct world *w, struct engine *e, bool with_data)
{
	_Alignas(64) struct cell want;
	struct um_src src = {e->pool, NULL};
	const uint8_t *data = um_pool_ptr(e->pool, DATA), *slot;
	const void *block;
	const struct cell *cell;
	uint64_t version = 0;
	uint32_t count, run;
	unsigned i;

	um_log_read_lock(e->log);
	for (i = 0; i < CELLS; i++) {
		must(um_src_get(src, w->cell[i], UM_KIND_DIR, &block));
		cell = block;
		if (!i)
			version = cell->version;
		if (cell->version == version && !version)
			continue;
		want = *cell;
		draw(&want, i, version);
		must(memcmp(&want, cell, sizeof(want)));
		/* Both copies are the same. */
		must(memcmp(cell, um_pool_ptr(e->pool, w->cell[i].mirror), sizeof(*cell)));
		if (i)
			continue;
		must(um_src_get(src, cell->leaf, UM_KIND_DIR, &block));
		must(((const struct cell *)block)->version != version);
		must(um_ref_count(src, cell->leaf.lba, 1, &count, &run));
		must(count != 1);
	}
	slot = um_pool_ptr(e->pool, SLOT(version));
	must(version && memcmp(slot + 800, &version, sizeof(version)));
	for (i = 100; with_data && version && i < 100 + DATA_LEN; i++)
		must(data[i] != (uint8_t)version);
	um_log_read_unlock(e->log);
	return version;
}

/* The cells, and a chunk for the data that nothing else will use. */
static void world_fill(struct world *w)
{
	struct um_txn *txn;
	um_lba_t lba;
	uint32_t n;
	void *block;
	unsigned i;

	ok(um_txn_begin(w->e.log, 0, &txn));
	for (i = 0; i < CELLS; i++)
		ok(um_txn_new(txn, UM_KIND_DIR, 0, 0, &w->cell[i], &block));
	ok(um_txn_commit(txn));
	do {
		ok(um_space_take(w->e.space, DATA & ~511u, 512, 0, &lba, &n));
		ok(um_txn_begin(w->e.log, 0, &txn));
		ok(um_ref_alloc(txn, lba, n));
		ok(um_txn_commit(txn));
	} while (lba + n <= DATA);
}

static void world_open_mirrored(struct world *w, um_lba_t journal_mirror)
{
	memset(w, 0, sizeof(*w));
	ok(um_pool_open_memory(CHUNKS * UM_CHUNK_SIZE, &w->e.pool));
	fixture_format(w->e.pool, 2, JOURNAL, journal_mirror);
	engine_mount(&w->e);
	world_fill(w);
}

static void world_open(struct world *w)
{
	world_open_mirrored(w, 0);
}

static void world_open_file(struct world *w, um_lba_t journal_mirror)
{
	memset(w, 0, sizeof(*w));
	fixture_make_mirrored(CHUNKS, 2, JOURNAL, journal_mirror);
	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w->e.pool));
	engine_mount(&w->e);
	world_fill(w);
}

/* The daemon dies: nothing more is written, private pages are gone. */
static void die(struct engine *e)
{
	um_space_close(e->space);
	um_log_abandon(e->log);
	um_pool_close(e->pool);
}

static void world_close(struct world *w)
{
	engine_close(&w->e);
}

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

/* ---- crashes ------------------------------------------------------------------------------------------ */

/* Recovers one crash state and checks it; now and then recovery itself is cut short first. */
static void recover_and_check(
	struct world *w, uint8_t *base, uint64_t low, uint64_t high, bool with_data)
{
	struct recorder saved = recorder;
	struct engine e;
	uint64_t version;

	if (rnd_below(&recorder.seed, 4) == 0) {
		/* Half of what recovery stores gets lost. */
		ok(um_pool_open_image(base, recorder.size, UM_POOL_EXCL, &e.pool));
		saved = recorder;
		recorder.real = e.pool->ops;
		recorder.drop = true;
		recorder.n = 0;
		e.pool->ops = &recorder.ops;
		ok(um_log_open(e.pool, &e.log));
		um_log_abandon(e.log);
		e.pool->ops = recorder.real;
		um_pool_close(e.pool);
		recorder = saved;
	}
	ok(um_pool_open_image(base, recorder.size, UM_POOL_EXCL, &e.pool));
	engine_mount(&e);
	version = inspect(w, &e, with_data);
	if (version < low || version > high) {
		fprintf(stderr, "version %llu after a crash, should be %llu to %llu\n",
			(unsigned long long)version, (unsigned long long)low,
			(unsigned long long)high);
		abort();
	}
	engine_close(&e);
	w->states++;
}

static void cut_direct(void *arg)
{
	struct world *w = arg;
	uint8_t *base = recorder_state();

	recover_and_check(w, base, w->version, w->pending ? w->pending : w->version, true);
	munmap(base, recorder.size);
}

static void cut_everywhere(um_lba_t journal_mirror)
{
	struct world w;
	unsigned i;

	world_open_mirrored(&w, journal_mirror);
	ok(step(&w));
	recorder_attach(w.e.pool);
	recorder.moment = cut_direct;
	recorder.arg = &w;
	for (i = 0; i < 60; i++)
		ok(step(&w));
	print_message("%u crash states\n", w.states);
	assert_true(w.states > 500);
	recorder_detach(w.e.pool);
	world_close(&w);
}

static void a_power_cut_leaves_whole_transactions(void **state)
{
	(void)state;
	cut_everywhere(0);
}

static void so_it_does_with_two_journals(void **state)
{
	(void)state;
	cut_everywhere(MIRROR);
}

static void replay_for_reading_leaves_the_medium_alone(void **state)
{
	uint8_t *base, *copy;
	struct world w;
	struct engine e;

	(void)state;
	world_open(&w);
	ok(step(&w));
	recorder_attach(w.e.pool);
	/* The record is on the medium, nothing behind it is: as if the cut came before the stores. */
	recorder.moment = NULL;
	ok(step(&w));
	base = mmap(NULL, recorder.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, recorder.medium, 0);
	{
		/* Put the journal's header back to before the transaction. */
		struct um_journal *head = (void *)(base + 512 * UM_BLOCK_SIZE);
		struct um_ring *ring = &w.e.log->ring;
		uint64_t len = ring->head;

		len -= ((struct um_record *)w.e.log->txn.record.at)->len;
		head->tail = len / 64 << 32 | (uint32_t)ring->seq;
	}
	copy = malloc(recorder.size);
	memcpy(copy, base, recorder.size);
	ok(um_pool_open_image(base, recorder.size, UM_POOL_RDONLY, &e.pool));
	ok(um_log_open(e.pool, &e.log));
	assert_int_equal(um_log_replayed(e.log), 1);
	assert_int_equal(um_txn_begin(e.log, 0, &(struct um_txn *){NULL}), -EROFS);
	ok(um_log_close(e.log));
	um_pool_close(e.pool);
	assert_memory_equal(base, copy, recorder.size);
	free(copy);
	munmap(base, recorder.size);
	recorder_detach(w.e.pool);
	world_close(&w);
}

/* Sound when it is looked at, but its first entry makes its second one longer than a block. */
static void a_record_that_changes_the_journal_is_refused(void **state)
{
	const uint32_t too_long = 1u << 20;
	struct {
		struct um_record head;
		struct um_entry bytes;
		uint8_t src[8];
		struct um_entry fill;
		uint8_t pad[120];
	} record = {.head = {.type = UM_RECORD_TXN, .nentry = 2}};
	struct um_ring *ring;
	struct world w;
	uint64_t at;

	(void)state;
	static_assert(sizeof(record) % 64 == 0, "length of a record");
	world_open(&w);
	ring = &w.e.log->ring;
	at = ring->lba * UM_BLOCK_SIZE + ring->head +
	     ((uint8_t *)&record.fill.len - (uint8_t *)&record);
	record.bytes = (struct um_entry){
		.lba = at / UM_BLOCK_SIZE,
		.off = at % UM_BLOCK_SIZE,
		.type = UM_ENTRY_BYTES,
		.len = sizeof(too_long),
	};
	memcpy(record.src, &too_long, sizeof(too_long));
	record.fill = (struct um_entry){.lba = DATA, .type = UM_ENTRY_FILL, .len = 64};
	ok(um_ring_append(ring, &record.head, sizeof(record), ring->seq + 1));
	um_space_close(w.e.space);
	um_log_abandon(w.e.log);
	assert_int_equal(um_log_open(w.e.pool, &w.e.log), -EUCLEAN);
	um_pool_close(w.e.pool);
}

/* ---- indirect pools ---------------------------------------------------------------------------------------- */

static void the_daemons_death_loses_nothing(void **state)
{
	struct world w;
	unsigned round, i;

	(void)state;
	world_open_file(&w, 0);
	for (round = 1; round < 12; round++) {
		for (i = 0; i < round * 7; i++)
			ok(step(&w));
		if (round % 3 == 0)
			ok(um_log_sync(w.e.log));
		if (round % 4 == 0)
			ok(um_log_checkpoint(w.e.log));
		die(&w.e);
		ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w.e.pool));
		assert_false(w.e.pool->direct);
		engine_mount(&w.e);
		assert_int_equal(inspect(&w, &w.e, true), w.version);
	}
	engine_remount(&w.e);
	assert_int_equal(um_log_replayed(w.e.log), 0);
	assert_int_equal(inspect(&w, &w.e, true), w.version);
	world_close(&w);
}

/* As if another boot read the pool: the file of the kernel that died was not all on the medium. */
static void other_boot(uint8_t *base, um_lba_t journal)
{
	struct um_journal *head = (void *)(base + journal * UM_BLOCK_SIZE);

	/* A torn header would be one sector; sectors do not tear. */
	memset(head->boot_id, 0x11, sizeof(head->boot_id));
	head->hdr.csum = um_journal_csum(head);
}

static void cut_indirect(void *arg)
{
	struct world *w = arg;
	uint8_t *base;

	if (rnd_below(&recorder.seed, 2))
		return;
	base = recorder_state();
	other_boot(base, w->e.pool->super.journal_lba);
	if (w->e.pool->super.journal_mirror)
		other_boot(base, MIRROR);
	recover_and_check(w, base, w->synced, w->pending ? w->pending : w->version, false);
	munmap(base, recorder.size);
}

static void cut_groups(um_lba_t journal_mirror)
{
	struct world w;
	uint64_t version;
	unsigned i;

	world_open_file(&w, journal_mirror);
	ok(step(&w));
	ok(um_log_checkpoint(w.e.log));
	recorder_attach(w.e.pool);
	w.synced = w.version;
	recorder.moment = cut_indirect;
	recorder.arg = &w;
	for (i = 0; i < 400; i++) {
		ok(step(&w));
		version = w.version;
		if (i % 7 == 0) {
			ok(um_log_sync(w.e.log));
			w.synced = version;
		}
		if (i % 50 == 49)
			ok(um_log_checkpoint(w.e.log));
	}
	print_message("%u crash states\n", w.states);
	assert_true(w.states > 200);
	recorder_detach(w.e.pool);
	world_close(&w);
}

static void a_power_cut_keeps_what_was_synced(void **state)
{
	(void)state;
	cut_groups(0);
}

static void so_it_does_with_two_journals_in_a_file(void **state)
{
	(void)state;
	cut_groups(MIRROR);
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
static void a_direct_pools_journal_is_replayed_from_a_file(void **state)
{
	struct um_log *log;
	struct world w;
	uint64_t tail;

	(void)state;
	world_open(&w);
	ok(step(&w));
	tail = ((const struct um_journal *)um_pool_ptr(w.e.pool, 512))->tail;
	ok(step(&w));
	ok(um_pool_write(w.e.pool, 512, 128, &tail, sizeof(tail)));
	ok(truncate(fixture_path, (off_t)w.e.pool->size));
	fixture_poke(0, w.e.pool->base, w.e.pool->size);
	die(&w.e);
	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w.e.pool));
	assert_false(w.e.pool->direct);
	engine_mount(&w.e);
	assert_int_equal(um_log_replayed(w.e.log), 1);
	assert_int_equal(inspect(&w, &w.e, true), 2);
	ok(step(&w));
	die(&w.e);
	ok(um_pool_open(fixture_path, UM_POOL_RDONLY, 0, &w.e.pool));
	ok(um_log_open(w.e.pool, &log));
	assert_int_equal(um_log_replayed(log), 1);
	ok(um_log_close(log));
	um_pool_close(w.e.pool);
}

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
	cmocka_unit_test(a_power_cut_leaves_whole_transactions),
	cmocka_unit_test(so_it_does_with_two_journals),
	cmocka_unit_test(replay_for_reading_leaves_the_medium_alone),
	cmocka_unit_test(a_record_that_changes_the_journal_is_refused),
	cmocka_unit_test(readers_see_whole_transactions),
};
static const struct CMUnitTest indirect[] = {
	file_test(the_daemons_death_loses_nothing),
	file_test(a_power_cut_keeps_what_was_synced),
	file_test(so_it_does_with_two_journals_in_a_file),
	file_test(a_failed_write_aborts_a_failed_barrier_stops),
	file_test(a_direct_pools_journal_is_replayed_from_a_file),
	file_test(readers_and_syncs_share_an_indirect_pool),
};

fixture_main(direct, indirect)
