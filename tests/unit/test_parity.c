/* SPDX-License-Identifier: BSD-3-Clause */
/* Parity: every covered block can be rebuilt from the others, and what cannot is reported. */
#include "datakit.h"
#include "fs/failure.h"

static const struct umbra_mkfs_options with = {.copies = 2, .parity = true};
static const struct umbra_mkfs_options both = {.copies = 2, .parity = true, .data_csum = true};

/* Every covered block of the pool is what the others say; their number. */
static uint64_t rebuild_all(struct kit *k)
{
	const struct um_pool *pool = k->fs->pool;
	uint8_t block[B];
	uint64_t n = 0;

	um_log_read_lock(k->fs->log);
	for (um_lba_t lba = 1; lba < pool->nblocks; lba++) {
		int err = um_parity_rebuild(um_fs_src(k->fs), lba, block);

		if (err == -ENODATA)
			continue;
		ok(err);
		assert_memory_equal(block, um_pool_ptr(pool, lba), B);
		n++;
	}
	um_log_read_unlock(k->fs->log);
	return n;
}

static uint64_t used(struct kit *k)
{
	struct statvfs st;

	um_reaper_wait(k->fs, 5000);
	ok(umbra_statfs(k->fs, &st));
	return st.f_blocks - st.f_bfree;
}

static int problems(struct kit *k, enum umbra_check_mode mode)
{
	struct umbra_check_report report;
	int ret;

	if (k->path)
		ret = umbra_check(k->path, mode, kit_problem, NULL, &report);
	else
		ret = umbra_check_image(k->base, k->size, mode, kit_problem, NULL, &report);
	ok(ret);
	return (int)report.problems;
}

/* ---- every way of changing anything ------------------------------------------------------------------ */

static void every_way(struct kit *k)
{
	struct umbra_cred cred = {0};
	struct umbra_attr attr;
	struct file f, copy;
	char name[32];

	file_make(k, &f, "f", 8 << 20);
	file_make(k, &copy, "copy", 8 << 20);
	file_write(k, &f, 0, 100, 1);
	file_write(k, &f, 50, 9000, 2);
	rebuild_all(k);
	file_write(k, &f, 0, 300 * B, 3);
	file_write(k, &f, 3 * B + 7, 11, 4);
	file_write(k, &f, 300 * B, 70, 6);
	rebuild_all(k);
	ok(umbra_fallocate(k->fs, f.ino, 0, 310 * B, 100 * B));
	want_size(&f, 410 * B);
	file_write(k, &f, 320 * B + 5, 3 * B, 8);
	file_write(k, &f, 350 * B, 20 * B, 9);
	rebuild_all(k);
	ok(umbra_clone(k->fs, f.ino, copy.ino));
	want_bytes(&copy, 0, f.want, f.size);
	file_write(k, &copy, 2 * B, 5 * B, 11);
	file_truncate(k, &copy, 12 * B + 77);
	rebuild_all(k);
	ok(umbra_fallocate(k->fs, f.ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, B + 5, 3 * B));
	want_bytes(&f, B + 5, NULL, 3 * B);
	ok(umbra_fallocate(
		k->fs, f.ino, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 6 * B + 5, 20 * B));
	want_bytes(&f, 6 * B + 5, NULL, 20 * B);
	rebuild_all(k);
	file_write(k, &f, 8 * B, 4 * B, 12); /* unwritten again, and written */
	rebuild_all(k);
	for (unsigned i = 0; i < 300; i++) { /* nodes */
		snprintf(name, sizeof(name), "a longer name, number %u", i);
		ok(umbra_mknod(k->fs, UM_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &attr));
	}
	for (unsigned i = 0; i < 300; i += 2) {
		snprintf(name, sizeof(name), "a longer name, number %u", i);
		ok(umbra_unlink(k->fs, UM_ROOT_INO, name));
	}
	rebuild_all(k);
	file_verify(k, &f);
	file_verify(k, &copy);
	kit_crash(k);
	rebuild_all(k);
	file_truncate(k, &f, 0);
	file_truncate(k, &copy, 0);
	/* All in use but the journal. */
	assert_int_equal(rebuild_all(k), used(k));
	file_free(&f);
	file_free(&copy);
}

static void every_change_keeps_parity(void **state)
{
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, with);
	every_way(&k);
	kit_close(&k);
	kit_open_file_as(&k, "test_parity.pool", 64, both);
	every_way(&k);
	kit_close(&k);
}

/* With one copy of metadata, in the smallest pool, and over the border of a group. */
static void parity_has_a_place_in_pools_of_all_sizes(void **state)
{
	static const uint64_t mib[] = {16, 18, 64, 1008, 1018, 1200};
	struct umbra_mkfs_options opt = both;
	struct umbra_info info;
	struct um_group group;
	struct file f;
	struct kit k;

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		k = (struct kit){.path = "test_parity.pool"};
		opt.copies = 1 + i % 2;
		opt.data_csum = i % 3;
		opt.size = mib[i / 2] << 20;
		opt.force = opt.sparse = true;
		ok(umbra_mkfs(k.path, &opt, &info));
		assert_true(info.parity);
		kit_mount(&k);
		for (uint32_t ag = 0; ag < k.fs->pool->nags; ag++) {
			um_group_layout(&k.fs->pool->super, ag, &group);
			assert_true(group.nparity * UM_PARITY_WIDTH >= group.data);
			assert_true(group.chunks < 8 || group.nparity * 100 <= group.chunks * 13);
		}
		file_make(&k, &f, "f", 1 << 20);
		file_write(&k, &f, 0, 1 << 20, i);
		file_verify(&k, &f);
		assert_true(rebuild_all(&k) > 256);
		file_free(&f);
		kit_close(&k);
	}
}

/* ---- what is lost ---------------------------------------------------------------------------------------- */

static void one_lost_block_can_be_told_two_cannot(void **state)
{
	uint8_t block[B];
	struct file f;
	struct kit k;
	um_lba_t lba;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, with);
	file_make(&k, &f, "f", 64 * B);
	file_write(&k, &f, 0, 64 * B, 1);
	lba = file_lba(&k, &f, 16) & ~7ull;
	um_pool_set_lost(k.fs->pool, lba, 1);
	um_log_read_lock(k.fs->log);
	ok(um_parity_rebuild(um_fs_src(k.fs), lba, block));
	assert_memory_equal(block, um_pool_ptr(k.fs->pool, lba), B);
	um_pool_set_lost(k.fs->pool, lba + 5, 1);
	assert_int_equal(um_parity_rebuild(um_fs_src(k.fs), lba, block), -EIO);
	assert_int_equal(um_parity_rebuild(um_fs_src(k.fs), lba + 5, block), -EIO);
	/* Nor without the parity itself; and what is not covered has none. */
	ok(um_parity_rebuild(um_fs_src(k.fs), lba + 8, block));
	um_pool_set_lost(k.fs->pool, um_parity_lba(k.fs->pool, lba + 8), 1);
	assert_int_equal(um_parity_rebuild(um_fs_src(k.fs), lba + 8, block), -EIO);
	assert_int_equal(um_parity_rebuild(um_fs_src(k.fs), 1, block), -ENODATA);
	assert_int_equal(
		um_parity_rebuild(um_fs_src(k.fs), k.fs->pool->super.journal_lba, block), -ENODATA);
	um_log_read_unlock(k.fs->log);
	file_free(&f);
	kit_close(&k);
}

/* Beside a lost block others come and go; it can still be told. */
static void a_stripe_with_a_lost_block_is_kept_up(void **state)
{
	uint8_t block[B], want[B];
	struct file f, g;
	struct kit k;
	um_lba_t lba;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, with);
	file_make(&k, &f, "f", 64 * B);
	file_make(&k, &g, "g", 64 * B);
	for (unsigned i = 0; i < 64; i += 2) { /* a block of each in turn */
		file_write(&k, &f, i * B, 2 * B, i);
		file_write(&k, &g, i * B, 2 * B, i + 100);
	}
	lba = file_lba(&k, &f, 16);
	memcpy(want, um_pool_ptr(k.fs->pool, lba), B);
	um_pool_set_lost(k.fs->pool, lba, 1);
	memset(k.base + lba * B, 0, B); /* as the guard leaves it */
	file_write(&k, &g, 0, 64 * B, 7);
	file_write(&k, &g, 3, 100, 8);
	file_truncate(&k, &g, 17 * B);
	um_log_read_lock(k.fs->log);
	ok(um_parity_rebuild(um_fs_src(k.fs), lba, block));
	um_log_read_unlock(k.fs->log);
	assert_memory_equal(block, want, B);
	memcpy(k.base + lba * B, want, B);
	file_free(&f);
	file_free(&g);
	kit_close(&k);
}

/* ---- fsck ------------------------------------------------------------------------------------------------- */

static void fsck_mends_parity_and_mends_data_by_it(void **state)
{
	um_lba_t lba, parity;
	struct um_ptr cover;
	struct file f;
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, both);
	file_make(&k, &f, "f", 64 * B);
	file_write(&k, &f, 0, 64 * B, 1);
	lba = file_lba(&k, &f, 20);
	parity = um_parity_lba(k.fs->pool, lba);
	cover = um_cover_ptr(k.fs->pool, um_chunk_of(lba));
	ok(umbra_close(k.fs));
	k.base[parity * B + 77] ^= 1;
	assert_int_equal(problems(&k, UMBRA_CHECK_ONLY), 1);
	assert_int_equal(problems(&k, UMBRA_CHECK_REPAIR), 1);
	kit_check(&k);
	/* Data: the checksum says what is wrong, parity what it was. */
	k.base[lba * B + 99] ^= 0x80;
	assert_int_equal(problems(&k, UMBRA_CHECK_ONLY), 2); /* and the stripe's sum */
	assert_int_equal(problems(&k, UMBRA_CHECK_REPAIR), 1);
	kit_mount(&k);
	file_verify(&k, &f);
	ok(umbra_close(k.fs));
	kit_check(&k);
	/* What is covered: one copy lost, both. */
	memset(k.base + cover.lba * B + 64, 0x33, 100);
	assert_int_equal(problems(&k, UMBRA_CHECK_PREEN), 1);
	kit_check(&k);
	memset(k.base + cover.lba * B + 64, 0x33, 100);
	memset(k.base + cover.mirror * B + 64, 0x33, 100);
	assert_int_equal(problems(&k, UMBRA_CHECK_REPAIR), 1);
	kit_check(&k);
	kit_mount(&k);
	file_verify(&k, &f);
	rebuild_all(&k);
	file_free(&f);
	kit_close(&k);
}

/* ---- bits that change under a mount -------------------------------------------------------------------- */

static uint64_t scrub(struct kit *k)
{
	struct umbra_scrub s;

	ok(umbra_scrub(k->fs, UMBRA_SCRUB_START, 0, &s));
	for (unsigned i = 0; s.state == UMBRA_SCRUB_RUNNING && i < 3000; i++) {
		usleep(10000);
		ok(umbra_scrub(k->fs, UMBRA_SCRUB_STATUS, 0, &s));
	}
	assert_int_equal(s.state, UMBRA_SCRUB_DONE);
	umbra_failures_settle(k->fs);
	return s.bad;
}

#define FLIPS_MAX 8
struct flips {
	um_lba_t lba[FLIPS_MAX];
	unsigned n, told;
};

static int count_event(void *arg, const struct umbra_event *event)
{
	struct flips *flips = arg;

	for (unsigned i = 0; i < flips->n; i++)
		if (event->lba == flips->lba[i] && event->done == UMBRA_DONE_REWRITTEN &&
			event->cause == UMBRA_CAUSE_CHECKSUM)
			flips->told++;
	return 0;
}

static void bits(struct kit *k)
{
	struct flips flips = {.n = 7};
	struct umbra_health health;
	const struct um_pool *pool;
	struct file f;
	um_lba_t lba;

	file_make(k, &f, "f", 64 * B);
	file_write(k, &f, 0, 64 * B, 1);
	ok(umbra_sync(k->fs));
	kit_remount(k);
	pool = k->fs->pool;
	/* Of different stripes: data, parity, and tables. */
	lba = flips.lba[0] = file_lba(k, &f, 20);
	flips.lba[1] = file_lba(k, &f, 40);
	flips.lba[2] = um_parity_lba(pool, file_lba(k, &f, 0));
	flips.lba[3] = um_cover_ptr(pool, um_chunk_of(lba)).mirror;
	flips.lba[4] = um_csums_ptr(pool, um_chunk_of(lba)).mirror;
	flips.lba[5] = 0;
	flips.lba[6] = um_super_mirror(pool->nchunks);
	for (unsigned i = 1; i < flips.n; i++)
		kit_flip(k, flips.lba[i], 777);
	assert_int_equal(scrub(k), flips.n - 1);
	assert_int_equal(scrub(k), 0);
	/* A reader gets what parity has, and it is put back. */
	kit_flip(k, lba, 99);
	file_verify(k, &f);
	assert_int_equal(scrub(k), 0);
	ok(umbra_health(k->fs, &health, count_event, &flips));
	assert_int_equal(flips.told, flips.n);
	assert_true(!health.lost && !health.retired);
	file_verify(k, &f);
	kit_remount(k);
	file_verify(k, &f);
	file_free(&f);
}

static void flipped_bits_are_made_good_by_readers_and_the_scrub(void **state)
{
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, both);
	bits(&k);
	kit_close(&k);
	kit_open_file_as(&k, "test_parity.pool", 64, both);
	bits(&k);
	kit_close(&k);
}

/* ---- parity that nobody can keep up ------------------------------------------------------------------- */

static int nowhere(struct umbra_fs *fs, um_lba_t lba, void *out)
{
	(void)fs, (void)lba, (void)out;
	return -ENOENT;
}

static int rebuilt(struct kit *k, um_lba_t lba)
{
	uint8_t block[B];
	int ret;

	um_log_read_lock(k->fs->log);
	ret = um_parity_rebuild(um_fs_src(k->fs), lba, block);
	um_log_read_unlock(k->fs->log);
	return ret;
}

static struct umbra_health settled(struct kit *k)
{
	struct umbra_health health;

	for (unsigned i = 0; i < 8; i++) /* records are swept now and then */
		umbra_failures_settle(k->fs);
	ok(umbra_health(k->fs, &health, NULL, NULL));
	return health;
}

/* Two lost blocks, one of which goes: what the sum is now, nobody knows. After a mount no more than
 * before. */
static void given_up(struct kit *k)
{
	struct file f;
	um_lba_t lba;
	uint64_t first;

	um_failure_source = nowhere;
	file_make(k, &f, "f", 64 * B);
	file_write(k, &f, 0, 64 * B, 1);
	ok(umbra_sync(k->fs));
	for (first = 0; file_lba(k, &f, first) % 8; first++)
		;
	lba = file_lba(k, &f, first);
	um_pool_set_lost(k->fs->pool, lba, 2);
	assert_int_equal(settled(k).lost, 2);
	ok(umbra_fallocate(k->fs, f.ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * B, B));
	want_bytes(&f, first * B, NULL, B);
	assert_int_equal(settled(k).lost, 1);
	assert_int_equal(rebuilt(k, lba + 1), -EIO);
	kit_remount(k);
	assert_int_equal(rebuilt(k, lba + 1), -EIO);
	assert_int_equal(rebuilt(k, lba + 2), -EIO);
	assert_int_equal(settled(k).lost, 1);
	/* The other one goes, too: now it can be told again, where the block can be rewritten. */
	file_write(k, &f, (first + 1) * B, B, 5);
	ok(umbra_sync(k->fs));
	settled(k);
	assert_int_equal(rebuilt(k, lba + 2), k->path ? 0 : -EIO);
	kit_remount(k);
	assert_int_equal(rebuilt(k, lba + 2), k->path ? 0 : -EIO);
	file_verify(k, &f);
	um_failure_source = NULL;
	if (!k->path) {
		struct umbra_check_report report;

		ok(umbra_close(k->fs));
		ok(umbra_check_image(k->base, k->size, UMBRA_CHECK_REPAIR, NULL, NULL, &report));
		kit_mount(k);
		ok(rebuilt(k, lba + 2));
	}
	file_free(&f);
}

static void parity_that_was_given_up_is_not_believed_after_a_mount(void **state)
{
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, with);
	given_up(&k);
	kit_close(&k);
	kit_open_file_as(&k, "test_parity.pool", 64, with);
	given_up(&k);
	kit_close(&k);
}

static void lost_then_fsck(struct kit *k)
{
	struct umbra_check_report report;
	struct file f;

	um_failure_source = nowhere;
	file_make(k, &f, "f", 64 * B);
	file_write(k, &f, 0, 64 * B, 1);
	ok(umbra_sync(k->fs));
	um_pool_set_lost(k->fs->pool, file_lba(k, &f, 20), 1);
	assert_int_equal(settled(k).lost, 1);
	kit_remount(k);
	assert_int_equal(settled(k).lost, 1);
	ok(umbra_close(k->fs));
	if (k->path)
		ok(umbra_check(k->path, UMBRA_CHECK_REPAIR, kit_problem, NULL, &report));
	else
		ok(umbra_check_image(
			k->base, k->size, UMBRA_CHECK_REPAIR, kit_problem, NULL, &report));
	assert_true(report.repaired >= 1); /* the record's node goes with it */
	assert_int_equal(report.unrepaired, 0);
	kit_mount(k);
	assert_int_equal(settled(k).lost, 0);
	file_verify(k, &f);
	um_failure_source = NULL;
	file_free(&f);
}

static void fsck_asks_parity_for_lost_pages(void **state)
{
	struct kit k;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, i ? both : with);
		lost_then_fsck(&k);
		kit_close(&k);
		kit_open_file_as(&k, "test_parity.pool", 64, i ? both : with);
		lost_then_fsck(&k);
		kit_close(&k);
	}
}

/* Bad, one way or another, in both copies. */
static void cover_lost(struct kit *k, bool memory)
{
	struct um_ptr at;
	struct file f, g;

	file_make(k, &f, "f", 64 * B);
	file_make(k, &g, "g", 64 * B);
	file_write(k, &f, 0, 64 * B, 1);
	ok(umbra_fallocate(k->fs, g.ino, 0, 0, 32 * B));
	want_size(&g, 32 * B);
	ok(umbra_clone(k->fs, f.ino, file_ino(k, "clone")));
	ok(umbra_sync(k->fs));
	at = um_cover_ptr(k->fs->pool, um_chunk_of(file_lba(k, &f, 0)));
	if (memory) {
		um_pool_set_lost(k->fs->pool, at.lba, 1);
		um_pool_set_lost(k->fs->pool, at.mirror, 1);
	} else {
		kit_flip(k, at.lba, 777);
		kit_flip(k, at.mirror, 777);
		um_pool_mark(k->fs->pool, at.lba, 1, false);
		um_pool_mark(k->fs->pool, at.mirror, 1, false);
		scrub(k);
	}
	settled(k);
	/* Where it can be stored again it is what it was; where not, there is no parity, and all
	 * else goes on. */
	assert_int_equal(rebuilt(k, file_lba(k, &f, 9)) == 0, !memory || k->path);
	file_write(k, &f, 5 * B, 3 * B, 4);
	file_write(k, &g, 0, 64 * B, 5);
	file_truncate(k, &f, 40 * B);
	file_verify(k, &f);
	file_verify(k, &g);
	if (memory && !k->path) {
		struct umbra_check_report report;

		ok(umbra_close(k->fs));
		ok(umbra_check_image(k->base, k->size, UMBRA_CHECK_REPAIR, NULL, NULL, &report));
		assert_int_equal(report.unrepaired, 0);
		kit_mount(k);
	} else {
		kit_remount(k);
	}
	ok(rebuilt(k, file_lba(k, &f, 9)));
	file_verify(k, &f);
	file_free(&f);
	file_free(&g);
}

static void cover_without_a_good_copy_is_made_from_the_trees(void **state)
{
	struct kit k;

	(void)state;
	for (int memory = 0; memory < 2; memory++) {
		kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, both);
		cover_lost(&k, memory);
		kit_close(&k);
		kit_open_file_as(&k, "test_parity.pool", 64, both);
		cover_lost(&k, memory);
		kit_close(&k);
	}
}

static void wrong_under_writes(struct kit *k)
{
	struct file f;

	file_make(k, &f, "f", 64 * B);
	file_write(k, &f, 0, 64 * B, 1);
	ok(umbra_sync(k->fs));
	kit_flip(k, file_lba(k, &f, 20), 99);
	file_write(k, &f, 20 * B + 1000, 500, 2);
	kit_flip(k, file_lba(k, &f, 30), 99);
	kit_flip(k, file_lba(k, &f, 32), 99);
	file_write(k, &f, 30 * B + 1000, 2 * B, 3);
	file_verify(k, &f);
	kit_flip(k, file_lba(k, &f, 50), 99);
	file_truncate(k, &f, 50 * B + 777);
	file_verify(k, &f);
	kit_remount(k);
	file_verify(k, &f);
	file_free(&f);
}

static void a_part_of_a_wrong_block_is_written_over_what_parity_has(void **state)
{
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, both);
	wrong_under_writes(&k);
	kit_close(&k);
	kit_open_file_as(&k, "test_parity.pool", 64, both);
	wrong_under_writes(&k);
	kit_close(&k);
}

/* What it has is in the file; it is its pages in the mapping that failed. */
static void bad_pages_before_a_journal_in_a_file_stop_nothing(void **state)
{
	struct file f;
	struct kit k;
	um_lba_t lba;

	(void)state;
	kit_open_file_as(&k, "test_parity.pool", 64, both);
	file_make(&k, &f, "f", 64 * B);
	for (unsigned i = 0; i < 64; i++) {
		um_pool_set_bad(k.fs->pool, k.fs->pool->super.journal_lba + i);
		file_write(&k, &f, i * B, B, i);
		ok(umbra_sync(k.fs));
	}
	/* Of data, the file has it, too. */
	lba = file_lba(&k, &f, 7);
	um_pool_set_lost(k.fs->pool, lba, 1);
	file_verify(&k, &f);
	assert_int_equal(settled(&k).moved, 1);
	file_free(&f);
	kit_close(&k);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_change_keeps_parity),
		cmocka_unit_test(parity_has_a_place_in_pools_of_all_sizes),
		cmocka_unit_test(one_lost_block_can_be_told_two_cannot),
		cmocka_unit_test(a_stripe_with_a_lost_block_is_kept_up),
		cmocka_unit_test(fsck_mends_parity_and_mends_data_by_it),
		cmocka_unit_test(flipped_bits_are_made_good_by_readers_and_the_scrub),
		cmocka_unit_test(parity_that_was_given_up_is_not_believed_after_a_mount),
		cmocka_unit_test(fsck_asks_parity_for_lost_pages),
		cmocka_unit_test(cover_without_a_good_copy_is_made_from_the_trees),
		cmocka_unit_test(a_part_of_a_wrong_block_is_written_over_what_parity_has),
		cmocka_unit_test(bad_pages_before_a_journal_in_a_file_stop_nothing),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
