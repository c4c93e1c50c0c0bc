/* SPDX-License-Identifier: BSD-3-Clause */
/* In what order things become durable. What the crash machine (tests/crash) found is here as well, by itself. */
#include <time.h>

#include "datakit.h"
#include "fs/orphan.h"
#include "pool/backend.h"
#include "txn/internal.h"

/* ---- direct pools: data before the record that refers to it ---------------------------------------------- */

static struct um_pool_ops watched_ops;
static const struct um_pool_ops *real_ops;
static struct {
	uint64_t journal, journal_end, mirror; /* bytes */
	bool data;                             /* some was stored since the last drain */
	unsigned bad, records;
} watch;

static bool in_journal(uint64_t off)
{
	uint64_t len = watch.journal_end - watch.journal;

	return (off >= watch.journal && off < watch.journal_end) ||
	       (off >= watch.mirror && off < watch.mirror + len);
}

static int watched_write(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	if (in_journal(off) && len > sizeof(uint64_t)) {
		watch.records++;
		watch.bad += watch.data;
	} else if (!in_journal(off)) {
		watch.data = true;
	}
	return real_ops->write(pool, off, src, len);
}

static void watched_drain(struct um_pool *pool)
{
	watch.data = false;
	real_ops->drain(pool);
}

static void watch_hook(struct um_pool *pool)
{
	real_ops = pool->ops;
	watched_ops = *real_ops;
	watched_ops.write = watched_write;
	watched_ops.drain = watched_drain;
	pool->ops = &watched_ops;
}

static void watch_mount(struct kit *k)
{
	const struct um_super *super = (const struct um_super *)k->base;

	memset(&watch, 0, sizeof(watch));
	watch.journal = super->journal_lba * B;
	watch.journal_end = watch.journal + super->journal_blocks * B;
	watch.mirror = super->journal_mirror * B;
	ok(umbra_close(k->fs));
	um_image_hook = watch_hook;
	kit_mount(k);
	um_image_hook = NULL;
}

static void data_is_durable_before_the_record_that_refers_to_it(void **state)
{
	struct file f, clone;
	struct kit k;

	(void)state;
	kit_open(&k, 32, UMBRA_DATA_ATOMIC);
	watch_mount(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_make(&k, &clone, "clone", 1 << 20);
	file_write(&k, &f, 0, 3 * B, 1);
	ok(umbra_clone(k.fs, f.ino, clone.ino));
	want_bytes(&clone, 0, f.want, f.size);
	watch.records = 0;
	file_write(&k, &f, B, B, 2); /* a new block, and no new node */
	file_write(&k, &f, 10 * B, B, 3);
	ok(umbra_fallocate(k.fs, f.ino, 0, 20 * B, 4 * B));
	want_size(&f, 24 * B);
	file_write(&k, &f, 21 * B, B, 4);  /* marked as written */
	file_truncate(&k, &clone, B + 10); /* a copy of the last block */
	assert_true(watch.records >= 5);
	assert_int_equal(watch.bad, 0);
	file_verify(&k, &f);
	file_verify(&k, &clone);
	file_free(&f);
	file_free(&clone);
	kit_close(&k);
}

/* ---- indirect pools: what a power cut may bring back --------------------------------------------------------- */

static void pool_file(struct kit *k)
{
	kit_open_file(k, "test_durability.pool", 32);
	/* No background commit meanwhile. */
	ok(umbra_close(k->fs));
	k->opt.commit_seconds = 3600;
	kit_mount(k);
	ok(umbra_sync(k->fs));
}

static void a_block_whose_other_owner_may_come_back_is_not_overwritten(void **state)
{
	struct file f, clone;
	struct kit k;
	uint64_t lba;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_make(&k, &clone, "clone", 1 << 20);
	file_write(&k, &f, 0, 2 * B, 1);
	ok(umbra_clone(k.fs, f.ino, clone.ino));
	want_bytes(&clone, 0, f.want, f.size);
	ok(umbra_sync(k.fs));
	lba = file_lba(&k, &f, 1);
	file_truncate(&k, &clone, 0);
	file_write(&k, &f, B, 100, 2);
	assert_int_not_equal(file_lba(&k, &f, 1), lba);
	/* The copy never had another owner. */
	lba = file_lba(&k, &f, 1);
	file_write(&k, &f, B, 100, 3);
	assert_int_equal(file_lba(&k, &f, 1), lba);
	/* And what is durable does not come back. */
	lba = file_lba(&k, &f, 0);
	ok(umbra_sync(k.fs));
	file_write(&k, &f, 0, 100, 4);
	assert_int_equal(file_lba(&k, &f, 0), lba);
	file_verify(&k, &f);
	file_free(&f);
	file_free(&clone);
	kit_close(&k);
}

/* Durable by a list of data only: should the medium lose that, the owner comes back. */
static void nor_when_that_rests_on_a_list_of_data(void **state)
{
	struct file f, clone, log;
	struct kit k;
	uint64_t lba;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_make(&k, &clone, "clone", 1 << 20);
	file_make(&k, &log, "log", 1 << 20);
	file_write(&k, &f, 0, 2 * B, 1);
	ok(umbra_clone(k.fs, f.ino, clone.ino));
	want_bytes(&clone, 0, f.want, f.size);
	ok(um_log_seal(k.fs->log));
	file_truncate(&k, &clone, 0);
	file_write(&k, &log, 0, 5000, 2);
	ok(umbra_sync(k.fs));
	assert_true(um_log_firm(k.fs->log) < um_log_committed(k.fs->log));
	lba = file_lba(&k, &f, 0);
	file_write(&k, &f, 0, 100, 3);
	assert_int_not_equal(file_lba(&k, &f, 0), lba);
	ok(um_log_seal(k.fs->log));
	lba = file_lba(&k, &f, 1);
	file_write(&k, &f, B, 100, 4);
	assert_int_equal(file_lba(&k, &f, 1), lba);
	file_verify(&k, &f);
	file_free(&f);
	file_free(&clone);
	file_free(&log);
	kit_close(&k);
}

/* The list of data, lost to the medium, would take the group with it: the file from before must have its bytes then. */
static void a_freed_block_waits_for_more_than_a_list_of_data(void **state)
{
	struct file f, log;
	struct kit k;
	uint64_t lba;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_make(&k, &log, "log", 1 << 20);
	file_write(&k, &f, 0, 4 * B, 1);
	ok(um_log_seal(k.fs->log));
	lba = file_lba(&k, &f, 3);
	file_truncate(&k, &f, 3 * B);
	file_write(&k, &log, 0, 5000, 2);
	ok(umbra_sync(k.fs));
	assert_true(um_log_firm(k.fs->log) < um_log_committed(k.fs->log));
	um_space_reap(k.fs->space);
	assert_int_equal(um_space_take_at(k.fs->space, lba), -EBUSY);
	ok(um_log_seal(k.fs->log));
	um_space_reap(k.fs->space);
	ok(um_space_take_at(k.fs->space, lba));
	um_space_give(k.fs->space, lba, 1);
	file_free(&f);
	file_free(&log);
	kit_close(&k);
}

static void nor_is_one_below_a_node_whose_other_owner_may(void **state)
{
	struct file f, clone;
	struct kit k;
	uint64_t lba, i;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_make(&k, &clone, "clone", 1 << 20);
	for (i = 0; i < 60; i++) /* holes between, so that the extents need a node */
		file_write(&k, &f, 2 * i * B, B, i);
	ok(umbra_clone(k.fs, f.ino, clone.ino));
	ok(umbra_sync(k.fs));
	lba = file_lba(&k, &f, 40);
	file_truncate(&k, &clone, 0);
	file_write(&k, &f, 40 * B, 100, 2);
	assert_int_not_equal(file_lba(&k, &f, 40), lba);
	lba = file_lba(&k, &f, 20);
	ok(um_log_seal(k.fs->log));
	file_write(&k, &f, 20 * B, 100, 3);
	assert_int_equal(file_lba(&k, &f, 20), lba);
	file_verify(&k, &f);
	file_free(&f);
	file_free(&clone);
	kit_close(&k);
}

/* Everything has reached the file, but only what a COMMIT covers counts. */
static void power_cut(struct kit *k)
{
	umbra_abandon(k->fs);
	kit_other_boot(true);
	kit_mount(k);
	ok(umbra_close(k->fs));
	kit_check(k);
	kit_mount(k);
	kit_other_boot(false);
}

/* Its range is zeroed, written again, and both are undone: it has the checksum of its old bytes. */
static void a_zeroed_block_may_come_back_as_well(void **state)
{
	const struct umbra_mkfs_options how[] = {
		{.copies = 2, .data_csum = true},
		{.copies = 2, .parity = true},
		{.copies = 2},
	};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		uint8_t block[B];
		struct file f;
		struct kit k;

		kit_open_file_as(&k, "test_durability.pool", 32, how[i]);
		ok(umbra_close(k.fs));
		k.opt.commit_seconds = 3600;
		kit_mount(&k);
		file_make(&k, &f, "f", 1 << 20);
		file_write(&k, &f, 0, 8 * B, 1);
		ok(um_log_seal(k.fs->log));
		ok(umbra_fallocate(k.fs, f.ino, FALLOC_FL_ZERO_RANGE, B, 4 * B));
		pattern(block, B, 2);
		assert_int_equal(umbra_write(k.fs, f.ino, block, 1000, 2 * B, 0, NULL), 1000);
		assert_int_equal(umbra_write(k.fs, f.ino, block, B, 3 * B, 0, NULL), B);
		power_cut(&k);
		if (i < 2)
			file_verify(&k, &f); /* without, data in place may be new */
		assert_int_equal(umbra_read(k.fs, f.ino, block, B, 2 * B), B);
		file_free(&f);
		kit_close(&k);
	}
}

static void fill_up(struct kit *k)
{
	struct file f;
	uint8_t block[B];
	uint64_t at = 0;

	file_make(k, &f, "filler", B);
	pattern(block, B, 3);
	while (umbra_write(k->fs, f.ino, block, B, at, 0, NULL) == B)
		at += B;
	file_free(&f);
}

/* A full pool has no block for a copy; but none is needed once nothing can come back. */
static void nor_does_it_take_space_that_a_full_pool_lacks(void **state)
{
	struct file f;
	struct kit k;

	(void)state;
	kit_open_file_as(&k, "test_durability.pool", 16,
		(struct umbra_mkfs_options){.copies = 2, .data_csum = true});
	ok(umbra_close(k.fs));
	k.opt.commit_seconds = 3600;
	kit_mount(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 64 * B, 1);
	fill_up(&k);
	ok(umbra_fallocate(k.fs, f.ino, FALLOC_FL_ZERO_RANGE, 0, 64 * B));
	want_bytes(&f, 0, NULL, 64 * B);
	for (unsigned i = 0; i < 64; i++)
		file_write(&k, &f, i * B, B, i);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* A block whose page is lost is moved: its bytes lie elsewhere from then on. */
static void move(struct kit *k, struct file *f, uint64_t block)
{
	um_lba_t lba = file_lba(k, f, block);

	um_pool_set_lost(k->fs->pool, lba, 1);
	file_verify(k, f);
	assert_int_not_equal(um_pool_home(k->fs->pool, lba), lba);
}

static void what_is_appended_to_a_moved_block_is_durable(void **state)
{
	struct file f;
	struct kit k;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, B + 1000, 1);
	ok(um_log_seal(k.fs->log));
	move(&k, &f, 1);
	ok(um_log_seal(k.fs->log));
	file_write(&k, &f, f.size, 100, 2);
	ok(umbra_fsync(k.fs, f.ino, false));
	assert_true(um_log_firm(k.fs->log) < um_log_committed(k.fs->log));
	power_cut(&k);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

static void a_commit_does_not_rest_on_the_place_of_a_moved_block(void **state)
{
	struct file f, g;
	struct kit k;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 2 * B, 1);
	ok(um_log_seal(k.fs->log));
	move(&k, &f, 1);
	file_make(&k, &g, "g", 1 << 20);
	file_write(&k, &g, 0, 5000, 3);
	ok(umbra_fsync(k.fs, g.ino, false));
	assert_true(um_log_firm(k.fs->log) < um_log_committed(k.fs->log));
	file_write(&k, &f, B, B, 2); /* in place */
	power_cut(&k);
	file_verify(&k, &g);
	file_free(&f);
	file_free(&g);
	kit_close(&k);
}

/* A pool of persistent memory, without bytes beyond the ends of its files, is mounted as a plain file. */
static void what_a_lost_append_leaves_is_known_from_the_first_mount_on(void **state)
{
	struct umbra_options opt;
	struct file f;
	struct kit k;
	int fd;

	(void)state;
	kit_open(&k, 32, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, B + 1000, 1);
	ok(umbra_close(k.fs));
	fd = open("test_durability.pool", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, k.base, k.size), k.size);
	opt = k.opt;
	k.path = "test_durability.pool";
	k.opt.commit_seconds = 3600;
	kit_mount(&k);
	assert_int_equal(umbra_write(k.fs, f.ino, "lost", 4, f.size, 0, NULL), 4);
	umbra_abandon(k.fs);
	kit_other_boot(true);
	kit_check(&k);
	kit_other_boot(false);
	assert_int_equal(pread(fd, k.base, k.size, 0), k.size);
	close(fd);
	unlink(k.path);
	/* And back. */
	k.path = NULL;
	k.opt = opt;
	kit_other_boot(true);
	kit_mount(&k);
	kit_other_boot(false);
	file_verify(&k, &f);
	file_truncate(&k, &f, B + 3000);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* ---- reading only, and then not --------------------------------------------------------------------------- */

static uint64_t sum_of_file(const char *path)
{
	uint64_t sum = 0, word[512];
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	while (fread(word, sizeof(word), 1, f) == 1)
		for (unsigned i = 0; i < 512; i++)
			sum = sum * 31 + word[i];
	fclose(f);
	return sum;
}

static uint64_t orphans(struct kit *k)
{
	struct um_orphan_item item[8];
	uint64_t pos = 0;
	unsigned n;

	ok(um_orphan_list(k->fs, false, &pos, item, 8, &n));
	return n;
}

/* As after kill -9 with a removed file still open. */
static void leave_an_orphan(struct kit *k)
{
	struct umbra_attr attr;
	struct file gone;

	file_make(k, &gone, "gone", 1 << 20);
	file_write(k, &gone, 0, 2 * B, 5);
	ok(umbra_lookup(k->fs, UM_ROOT_INO, "gone", &attr));
	ok(umbra_unlink(k->fs, UM_ROOT_INO, "gone"));
	file_free(&gone);
	umbra_abandon(k->fs);
}

static void a_pool_opened_to_read_becomes_writable(void **state)
{
	struct umbra_attr attr;
	struct um_pool *other;
	struct umbra_info info;
	struct file f;
	struct kit k;
	uint64_t sum;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 3 * B, 1);
	ok(umbra_sync(k.fs));
	leave_an_orphan(&k);
	sum = sum_of_file(k.path);
	k.opt.readonly = true;
	kit_mount(&k);
	ok(umbra_lookup(k.fs, UM_ROOT_INO, "f", &attr));
	assert_int_equal(attr.st.st_ino, f.ino);
	file_verify(&k, &f);
	assert_int_equal(um_data_resize(k.fs, f.ino, B, false), -EROFS);
	assert_int_equal(orphans(&k), 1);
	assert_int_equal(sum_of_file(k.path), sum);

	/* Somebody else is looking at it. */
	ok(um_pool_open(k.path, UM_POOL_RDONLY, 0, &other));
	assert_int_equal(umbra_remount(k.fs, false), -EBUSY);
	um_pool_close(other);
	file_verify(&k, &f);
	assert_int_equal(sum_of_file(k.path), sum);

	ok(umbra_remount(k.fs, false));
	ok(umbra_info(k.fs, &info));
	assert_false(info.readonly);
	file_verify(&k, &f);
	file_write(&k, &f, B, 20, 2);
	um_reaper_wait(k.fs, 5000);
	assert_int_equal(orphans(&k), 0);
	/* The file was looked up before, and has no name now: it stays until it is forgotten. */
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "f"));
	um_reaper_wait(k.fs, 100);
	file_verify(&k, &f);
	umbra_forget(k.fs, f.ino, 1);
	file_free(&f);
	k.opt.readonly = false;
	kit_close(&k);
}

static void and_back_again(void **state)
{
	struct umbra_info info;
	struct file f;
	struct kit k;
	uint64_t sum;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 3 * B, 1);
	ok(umbra_remount(k.fs, true));
	ok(umbra_info(k.fs, &info));
	assert_true(info.readonly);
	assert_int_equal(um_data_resize(k.fs, f.ino, B, false), -EROFS);
	/* At home, so that nothing is left to be written. */
	assert_int_equal(um_log_checkpointed(k.fs->log), um_log_committed(k.fs->log));
	sum = sum_of_file(k.path);
	file_verify(&k, &f);
	ok(umbra_sync(k.fs));
	assert_int_equal(sum_of_file(k.path), sum);
	ok(umbra_remount(k.fs, false));
	file_write(&k, &f, B, 20, 2);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* ---- indirect pools: what a commit costs ------------------------------------------------------------------------ */

struct count {
	const char *name;
	uint64_t value;
};

static void take_count(void *arg, const char *name, uint64_t value)
{
	struct count *c = arg;

	if (!strcmp(name, c->name))
		c->value = value;
}

static uint64_t counted(struct kit *k, const char *name)
{
	struct count c = {.name = name};

	umbra_stat(k->fs, take_count, &c);
	return c.value;
}

/* A log: each entry ends in the middle of a block, in which the next one begins. */
static void appends_of_any_length_take_one_commit_each(void **state)
{
	struct kit k;
	struct file f;
	uint64_t before, at = 0;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "log", 1 << 20);
	file_write(&k, &f, 0, 2000, 1); /* no longer in the record */
	ok(umbra_sync(k.fs));
	at = 2000;
	before = counted(&k, "syncs");
	for (unsigned i = 0; i < 100; i++) {
		file_write(&k, &f, at, 24, i);
		file_write(&k, &f, at + 24, B, i + 1);
		at += 24 + B;
		ok(umbra_fsync(k.fs, f.ino, true));
	}
	/* The first may meet what the record's content was moved to. */
	assert_true(counted(&k, "syncs") - before <= 101);
	kit_crash(&k);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

static struct timespec mtime_of(struct kit *k, const struct file *f)
{
	struct umbra_attr attr;

	ok(umbra_getattr(k->fs, f->ino, &attr));
	return attr.st.st_mtim;
}

/* Times are told as finely as the kernel's clock ticks, so that many overwrites share a transaction. */
static void overwrites_within_a_tick_take_one_transaction(void **state)
{
	const struct timespec nap = {.tv_nsec = 50000000};
	struct timespec from, to, res, was, is;
	uint64_t before, ticks;
	struct file f;
	struct kit k;

	(void)state;
	pool_file(&k);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 16 * B, 1);
	ok(umbra_sync(k.fs));
	clock_getres(CLOCK_REALTIME_COARSE, &res);
	clock_gettime(CLOCK_MONOTONIC, &from);
	before = counted(&k, "commits");
	for (unsigned i = 0; i < 2000; i++)
		file_write(&k, &f, (i % 16) * B, B, i);
	clock_gettime(CLOCK_MONOTONIC, &to);
	ticks = (uint64_t)((to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec) /
		(uint64_t)res.tv_nsec;
	assert_true(counted(&k, "commits") - before <= ticks + 2);
	/* And not coarser. */
	was = mtime_of(&k, &f);
	nanosleep(&nap, NULL);
	file_write(&k, &f, 0, B, 7);
	is = mtime_of(&k, &f);
	assert_true(
		is.tv_sec > was.tv_sec || (is.tv_sec == was.tv_sec && is.tv_nsec > was.tv_nsec));
	/* Made durable without a transaction, too. */
	ok(umbra_fsync(k.fs, f.ino, false));
	kit_crash(&k);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_is_durable_before_the_record_that_refers_to_it),
		cmocka_unit_test(a_block_whose_other_owner_may_come_back_is_not_overwritten),
		cmocka_unit_test(nor_when_that_rests_on_a_list_of_data),
		cmocka_unit_test(a_freed_block_waits_for_more_than_a_list_of_data),
		cmocka_unit_test(nor_is_one_below_a_node_whose_other_owner_may),
		cmocka_unit_test(a_zeroed_block_may_come_back_as_well),
		cmocka_unit_test(nor_does_it_take_space_that_a_full_pool_lacks),
		cmocka_unit_test(what_is_appended_to_a_moved_block_is_durable),
		cmocka_unit_test(a_commit_does_not_rest_on_the_place_of_a_moved_block),
		cmocka_unit_test(what_a_lost_append_leaves_is_known_from_the_first_mount_on),
		cmocka_unit_test(appends_of_any_length_take_one_commit_each),
		cmocka_unit_test(overwrites_within_a_tick_take_one_transaction),
		cmocka_unit_test(a_pool_opened_to_read_becomes_writable),
		cmocka_unit_test(and_back_again),
	};

	(void)argc;
	/* libpmem would make a direct pool of the plain file. */
	if (getenv("PMEM_IS_PMEM_FORCE")) {
		unsetenv("PMEM_IS_PMEM_FORCE");
		execv("/proc/self/exe", argv);
		abort();
	}
	return cmocka_run_group_tests_name("durability", tests, NULL, NULL);
}
