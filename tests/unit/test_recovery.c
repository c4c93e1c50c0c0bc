/* SPDX-License-Identifier: BSD-3-Clause */
/* What every kind of crash leaves of transactions: all of one or nothing, and what was durable. */
#include "txn_world.h"

/* ---- direct pools ------------------------------------------------------------------------------------------ */

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

#define file_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

static const struct CMUnitTest direct[] = {
	cmocka_unit_test(a_power_cut_leaves_whole_transactions),
	cmocka_unit_test(so_it_does_with_two_journals),
	cmocka_unit_test(replay_for_reading_leaves_the_medium_alone),
	cmocka_unit_test(a_record_that_changes_the_journal_is_refused),
};
static const struct CMUnitTest indirect[] = {
	file_test(the_daemons_death_loses_nothing),
	file_test(a_power_cut_keeps_what_was_synced),
	file_test(so_it_does_with_two_journals_in_a_file),
	file_test(a_direct_pools_journal_is_replayed_from_a_file),
};

fixture_main(direct, indirect)
