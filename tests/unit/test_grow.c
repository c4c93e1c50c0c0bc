/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool that grows while it is in use: what was there stays, what is new can be used, cuts leave one or the other. */
#include "recorder.h"

#include "datakit.h"
#include "txn/internal.h"
#include "skip.h"

#define MIB (1ull << 20)

static const struct umbra_mkfs_options plain = {.copies = 2};
static const struct umbra_mkfs_options single = {.copies = 1};
static const struct umbra_mkfs_options all = {.copies = 2, .parity = true, .data_csum = true};

static uint64_t had;

static uint64_t grown(struct kit *k, uint64_t mib)
{
	uint64_t was = k->fs->pool->size, size;

	ok(umbra_grow(k->fs, mib * MIB, true, &had, &size));
	assert_int_equal(had, was);
	return size;
}

static uint64_t blocks(struct kit *k)
{
	struct statvfs st;

	ok(umbra_statfs(k->fs, &st));
	return st.f_blocks;
}

/* Until nothing is free for data; all of it is read again. Some of it lies behind `from`. */
static void fill_up(struct kit *k, const char *name, uint64_t cap, um_lba_t from)
{
	uint8_t *buf = malloc(64 << 10);
	struct file f;
	ssize_t n;

	file_make(k, &f, name, cap);
	for (uint64_t off = 0;; off += (uint64_t)n) {
		pattern(buf, 64 << 10, off);
		n = umbra_write(k->fs, f.ino, buf, 64 << 10, off, 0, NULL);
		if (n < 0)
			break;
		want_bytes(&f, off, buf, (uint64_t)n);
	}
	assert_int_equal(n, -ENOSPC);
	free(buf);
	file_verify(k, &f);
	if (from) {
		struct um_space_stat st;
		uint32_t count = 0, run;

		um_space_stat(k->fs->space, &st);
		um_log_read_lock(k->fs->log);
		for (um_lba_t lba = from; lba < k->fs->pool->nblocks && !count; lba++)
			if (um_chunk_usable(&k->fs->pool->super, um_chunk_of(lba)))
				ok(um_ref_count(um_fs_src(k->fs), lba, 1, &count, &run));
		um_log_read_unlock(k->fs->log);
		assert_int_equal(count, 1);
	}
	file_free(&f);
}

/* ---- in use --------------------------------------------------------------------------------------- */

static void grow_and_use(struct kit *k)
{
	um_lba_t end = k->fs->pool->nblocks;
	uint64_t was = blocks(k), size;
	struct file f;

	file_make(k, &f, "kept", 3 * MIB);
	file_write(k, &f, 0, 3 * MIB - 1234, 7);
	assert_int_equal(umbra_grow(k->fs, 16 * MIB, true, &had, &size), -EINVAL);
	assert_int_equal(size, 20 * MIB);
	assert_int_equal(grown(k, 20), 20 * MIB);
	assert_int_equal(grown(k, 26), 20 * MIB); /* three chunks make no group */
	assert_int_equal(blocks(k), was);
	fill_up(k, "before", 64 * MIB, 0);
	assert_int_equal(grown(k, 41), 40 * MIB);
	assert_true(blocks(k) > was + 4 * UM_CHUNK_BLOCKS);
	file_verify(k, &f);
	fill_up(k, "after", 64 * MIB, end);
	kit_remount(k);
	file_verify(k, &f);
	assert_int_equal(k->fs->pool->size, 40 * MIB);
	was = blocks(k);
	/* Once more, and without an orderly end. */
	assert_int_equal(grown(k, 64), 64 * MIB);
	assert_int_equal(k->fs->pool->super.nseams, 2);
	assert_true(blocks(k) > was);
	fill_up(k, "last", 64 * MIB, 40 * MIB / B);
	kit_crash(k);
	file_verify(k, &f);
	assert_int_equal(k->fs->pool->nags, 3);
	kit_close(k);
	file_free(&f);
}

static void file_grows(struct umbra_mkfs_options mkfs)
{
	struct kit k;

	mkfs.size = 20 * MIB;
	mkfs.force = mkfs.sparse = true;
	k = (struct kit){.path = fixture_path, .size = mkfs.size};
	ok(umbra_mkfs(fixture_path, &mkfs, NULL));
	kit_mount(&k);
	grow_and_use(&k);
}

static void a_file_grows(void **state)
{
	(void)state;
	file_grows(plain);
	file_grows(single);
	file_grows(all);
}

static void what_lies_in_a_larger_file_grows_into_it(void **state)
{
	struct umbra_mkfs_options mkfs = {.size = 20 * MIB, .force = true, .sparse = true};
	struct kit k = {.path = fixture_path, .size = 20 * MIB};
	struct umbra_fs *reader;
	uint64_t size;

	(void)state;
	ok(truncate(fixture_path, 64 * MIB + 4711));
	ok(umbra_mkfs(fixture_path, &mkfs, NULL));
	kit_mount(&k);
	ok(umbra_grow(k.fs, UMBRA_GROW_ALL, false, &had, &size));
	assert_int_equal(size, 64 * MIB);
	fill_up(&k, "full", 128 * MIB, 20 * MIB / B);
	ok(umbra_close(k.fs));
	kit_check(&k);
	ok(umbra_open(fixture_path, &(struct umbra_options){.readonly = true}, &reader));
	assert_int_equal(umbra_grow(reader, 128 * MIB, true, &had, &size), -EROFS);
	ok(umbra_close(reader));
	kit_mount(&k);
	kit_close(&k);
}

/* A pool of 20 MiB that has grown to 40, so that it has a seam. */
static void make_grown(struct kit *k)
{
	struct umbra_mkfs_options mkfs = {.size = 20 * MIB, .force = true, .sparse = true};

	ok(umbra_mkfs(fixture_path, &mkfs, NULL));
	kit_mount(k);
	assert_int_equal(grown(k, 40), 40 * MIB);
}

/* Both superblocks of a pool that grew are lost: a backup is found where the seams have it. */
static void a_backup_behind_a_seam_is_found(void **state)
{
	struct kit k = {.path = fixture_path, .size = 20 * MIB};
	struct umbra_check_report report;
	uint8_t zeros[B] = {0};
	um_lba_t second;

	(void)state;
	make_grown(&k);
	second = um_super_second(&k.fs->pool->super);
	assert_int_equal(second, 9 * UM_CHUNK_BLOCKS);
	ok(umbra_close(k.fs));
	fixture_poke(0, zeros, B);
	fixture_poke(second * B, zeros, B);
	umbra_check(fixture_path, UMBRA_CHECK_REPAIR, kit_problem, NULL, &report);
	kit_check(&k);
	kit_mount(&k);
	assert_int_equal(k.fs->pool->size, 40 * MIB);
	kit_close(&k);
}

static void peek(uint64_t off, void *out)
{
	int fd = open(fixture_path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, out, B, (off_t)off), B);
	ok(close(fd));
}

static void lose_both_supers(um_lba_t second)
{
	uint8_t zeros[B] = {0};

	fixture_poke(0, zeros, B);
	fixture_poke(second * B, zeros, B);
}

/*
 * A daemon that died behind the growth's transaction has left a backup of the size before. That is no fault; it is not
 * taken when there is one that says more; and what comes by brings it up to date.
 */
static void a_backup_of_the_size_before_is_no_fault(void **state)
{
	struct kit k = {.path = fixture_path, .size = 20 * MIB};
	struct umbra_check_report report;
	uint8_t old[B], now[B];
	uint64_t at = 10 * UM_CHUNK_SIZE;

	(void)state;
	make_grown(&k);
	ok(umbra_close(k.fs));
	peek(at, old);
	kit_mount(&k);
	assert_int_equal(grown(&k, 64), 64 * MIB);
	ok(umbra_close(k.fs));
	peek(at, now);
	assert_memory_not_equal(old, now, B);

	fixture_poke(at, old, B);
	kit_check(&k);
	lose_both_supers(9 * UM_CHUNK_BLOCKS);
	umbra_check(fixture_path, UMBRA_CHECK_REPAIR, kit_problem, NULL, &report);
	assert_int_equal(report.unrepaired, 0);
	peek(at, old);
	assert_memory_equal(old, now, B);

	fixture_poke(at + offsetof(struct um_super, nchunks), "\x14", 1);
	umbra_check(fixture_path, UMBRA_CHECK_ONLY, kit_problem, NULL, &report);
	assert_int_equal(report.problems, 1); /* not sound */
	ok(umbra_check(fixture_path, UMBRA_CHECK_PREEN, kit_problem, NULL, &report));
	peek(at, old);
	assert_memory_equal(old, now, B);
	kit_mount(&k);
	assert_int_equal(k.fs->pool->size, 64 * MIB);
	kit_close(&k);
}

static void the_next_growth_and_the_scrub_bring_backups_up_to_date(void **state)
{
	struct kit k = {.path = fixture_path, .size = 20 * MIB};
	uint64_t at = 10 * UM_CHUNK_SIZE;
	uint8_t old[B], now[B];

	(void)state;
	make_grown(&k);
	ok(umbra_close(k.fs));
	peek(at, old);
	kit_mount(&k);
	assert_int_equal(grown(&k, 64), 64 * MIB);
	for (unsigned i = 0; i < 2; i++) {
		ok(umbra_close(k.fs));
		fixture_poke(at, old, B);
		kit_mount(&k);
		if (i)
			um_backups_refresh(k.fs); /* as the scrub does */
		else
			assert_int_equal(grown(&k, 64), 64 * MIB);
		ok(umbra_sync(k.fs));
		ok(umbra_close(k.fs));
		peek(0, now);
		assert_memory_equal(&((struct um_super *)now)->nchunks, &(uint64_t){32}, 8);
		peek(at, now);
		assert_memory_not_equal(old, now, B);
		kit_mount(&k);
	}
	kit_close(&k);
}

/* A file of the pool is another pool's image. */
static void an_image_in_the_pool_is_not_taken_for_it(void **state)
{
	struct umbra_mkfs_options mkfs = {.size = 16 * MIB, .force = true, .sparse = true};
	struct kit k = {.path = fixture_path, .size = 64 * MIB};
	struct umbra_check_report report;
	uint8_t backup[B], head[B], first[B], own[B], zeros[B] = {0};
	um_lba_t second;

	(void)state;
	ok(umbra_mkfs(fixture_path, &mkfs, NULL));
	kit_mount(&k);
	assert_int_equal(grown(&k, 32), 32 * MIB);
	ok(umbra_close(k.fs));
	peek(0, first);
	peek(8 * UM_CHUNK_SIZE, backup);
	peek(8 * UM_CHUNK_SIZE + B, head);

	mkfs.size = 64 * MIB;
	ok(umbra_mkfs(fixture_path, &mkfs, NULL));
	kit_mount(&k);
	assert_int_equal(grown(&k, 100), 100 * MIB);
	second = um_super_second(&k.fs->pool->super);
	ok(umbra_close(k.fs));
	peek(0, own);
	/* Where it has a backup, and where a search for the second copy comes by. */
	fixture_poke(8 * UM_CHUNK_SIZE, backup, B);
	fixture_poke(8 * UM_CHUNK_SIZE + B, head, B);
	fixture_poke(12 * UM_CHUNK_SIZE, first, B);
	fixture_poke(0, zeros, B);
	kit_mount(&k);
	assert_int_equal(k.fs->pool->size, 100 * MIB);
	ok(umbra_close(k.fs));
	peek(0, head);
	assert_memory_equal(head, own, B);

	lose_both_supers(second);
	umbra_check(fixture_path, UMBRA_CHECK_REPAIR, kit_problem, NULL, &report);
	peek(0, head);
	assert_memory_equal(head, own, B);
	kit_mount(&k);
	assert_int_equal(k.fs->pool->size, 100 * MIB);
	kit_close(&k);
}

/* As many groups, and backups, as no journal of a small pool could have in one record. */
static void a_small_pool_becomes_very_large_and_larger(void **state)
{
	struct umbra_mkfs_options mkfs = {.size = 64 * MIB, .force = true, .sparse = true};
	struct kit k = {.path = fixture_path, .size = 64 * MIB};
	uint64_t tib = 1ull << 40, size;
	uint8_t block[B];
	struct file f;
	struct stat st;

	(void)state;
	/* Some ten thousand blocks far apart: a disk takes a minute for that. */
	if (!access("/dev/shm", W_OK)) {
		unlink(fixture_path);
		strcpy(fixture_path, "/dev/shm/um-test-XXXXXX");
		ok(close(mkstemp(fixture_path)));
	}
	ok(umbra_mkfs(fixture_path, &mkfs, NULL));
	kit_mount(&k);
	if (k.fs->pool->room < 3 * tib) {
		kit_close(&k);
		skip_because("there is no address space for 3 TiB");
	}
	file_make(&k, &f, "kept", MIB);
	file_write(&k, &f, 0, MIB - 1234, 7);
	ok(umbra_grow(k.fs, 2 * tib, true, &had, &size));
	assert_true(size > 2 * tib - 4 * UM_CHUNK_SIZE);
	ok(umbra_grow(k.fs, 2 * tib + 1024 * MIB, true, &had, &size));
	assert_int_equal(k.fs->pool->super.nseams, 2);
	/* What cannot be mapped is known before the file is touched. */
	assert_int_equal(umbra_grow(k.fs, k.fs->pool->room + tib, true, &had, &size), -ENOMEM);
	ok(stat(fixture_path, &st));
	assert_true((uint64_t)st.st_size < 3 * tib);
	ok(umbra_sync(k.fs));
	memcpy(block, um_pool_ptr(k.fs->pool, 0), B);
	for (uint32_t ag = 1; ag < k.fs->pool->nags; ag++)
		assert_memory_equal(um_pool_ptr(k.fs->pool,
					    um_ag_first(&k.fs->pool->super, ag) * UM_CHUNK_BLOCKS),
			block, B);
	kit_remount(&k);
	file_verify(&k, &f);
	assert_int_equal(k.fs->pool->size, size);
	kit_close(&k);
	file_free(&f);
}

/* ---- cuts ------------------------------------------------------------------------------------------- */

#define WAS (16 * MIB)
#define WILL (26 * MIB)

static struct cut {
	struct kit *k;
	struct file *f;
	bool sealed; /* umbra_grow has returned */
	unsigned states, old;
} cut;

/* What the power cut left is what there was before, or what there is after; and it works. */
static void look_at_state(uint8_t *base)
{
	struct umbra_check_report report;
	struct umbra_fs *live = cut.k->fs;
	struct kit k = {.base = base, .size = WILL};
	uint64_t size;

	kit_mount(&k);
	size = k.fs->pool->size;
	assert_true(size == WILL || (size == WAS && !cut.sealed));
	cut.old += size == WAS;
	file_verify(&k, cut.f);
	/* It can be grown, again or at last. */
	if (cut.states % 4 == 0)
		ok(umbra_grow(k.fs, WILL, true, &had, &size));
	ok(umbra_close(k.fs));
	ok(umbra_check_image(base, WILL, UMBRA_CHECK_ONLY, kit_problem, NULL, &report));
	assert_int_equal(report.problems, 0);
	cut.k->fs = live;
	cut.states++;
}

static void on_moment(void *arg)
{
	unsigned n;

	(void)arg;
	for (n = 0; n < 3; n++) {
		uint8_t *base = recorder_state();

		kit_other_boot(true);
		look_at_state(base);
		kit_other_boot(false);
		munmap(base, recorder.size);
	}
}

static void grow_with_cuts(struct kit *k)
{
	struct file f;
	uint64_t size;

	file_make(k, &f, "kept", MIB);
	file_write(k, &f, 0, MIB - 1234, 7);
	ok(umbra_sync(k->fs));
	/* The log's own and the reaper's barriers are cut at as well. */
	recorder_attach(k->fs->pool);
	recorder.size = WILL;
	ok(ftruncate(recorder.medium, (off_t)WILL));
	cut = (struct cut){k, &f, false, 0, 0};
	recorder.moment = on_moment;
	ok(umbra_grow(k->fs, WILL, true, &had, &size));
	assert_int_equal(size, WILL);
	assert_true(cut.old && cut.old < cut.states);
	cut.sealed = true;
	on_moment(NULL);
	recorder_detach(k->fs->pool);
	print_message("%u states, %u of the old size\n", cut.states, cut.old);
	kit_close(k);
	file_free(&f);
}

static void a_cut_leaves_the_old_size_or_the_new(void **state)
{
	const struct umbra_mkfs_options mkfs[] = {plain, single, all};

	(void)state;
	um_reaper_manual = true;
	for (unsigned i = 0; i < 3; i++) {
		struct kit k = {.size = WILL, .base = aligned_alloc(UM_CHUNK_SIZE, WILL)};

		memset(k.base, 0xe5, WILL);
		ok(umbra_mkfs_image(k.base, WAS, &mkfs[i]));
		kit_mount(&k);
		grow_with_cuts(&k);
	}
	um_reaper_manual = false;
}

static void a_cut_of_a_plain_file_too(void **state)
{
	const struct umbra_mkfs_options mkfs[] = {plain, single, all};

	(void)state;
	um_reaper_manual = true;
	for (unsigned i = 0; i < 3; i++) {
		struct umbra_mkfs_options opt = mkfs[i];
		struct kit k = {.path = fixture_path, .size = WILL};

		opt.size = WAS;
		opt.force = opt.sparse = true;
		ok(close(open(fixture_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
		ok(truncate(fixture_path, (off_t)WILL));
		ok(umbra_mkfs(fixture_path, &opt, NULL));
		kit_mount(&k);
		grow_with_cuts(&k);
	}
	um_reaper_manual = false;
}

/* kit_close has removed it. */
static int gone(void **state)
{
	(void)state;
	unlink(fixture_path);
	return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fixture_setup, gone)
static const struct CMUnitTest direct[] = {
	CASE(a_file_grows),
	CASE(what_lies_in_a_larger_file_grows_into_it),
	CASE(a_cut_leaves_the_old_size_or_the_new),
};
static const struct CMUnitTest indirect[] = {
	CASE(a_file_grows),
	CASE(what_lies_in_a_larger_file_grows_into_it),
	CASE(a_backup_behind_a_seam_is_found),
	CASE(a_backup_of_the_size_before_is_no_fault),
	CASE(the_next_growth_and_the_scrub_bring_backups_up_to_date),
	CASE(an_image_in_the_pool_is_not_taken_for_it),
	CASE(a_small_pool_becomes_very_large_and_larger),
	CASE(a_cut_of_a_plain_file_too),
};
fixture_main(direct, indirect)
