/* SPDX-License-Identifier: BSD-3-Clause */
/* Checksums of file data: right after every way of writing, and what is wrong is never read. */
#include <pthread.h>

#include "datakit.h"
#include "skip.h"

static const struct umbra_mkfs_options with = {.copies = 2, .data_csum = true};

/* On a direct pool, and on a plain file. */
static void on_both(void (*body)(struct kit *k))
{
	struct kit k;

	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, with);
	body(&k);
	kit_close(&k);
	kit_open_file_as(&k, "test_csum.pool", 64, with);
	body(&k);
	kit_close(&k);
}

static ssize_t read_block(struct kit *k, const struct file *f, uint64_t block, uint8_t out[B])
{
	return umbra_read(k->fs, f->ino, out, B, block * B);
}

struct seen {
	unsigned data, csums, other;
};
static void see(void *arg, const char *code, bool repaired, const char *text)
{
	struct seen *seen = arg;

	(void)repaired;
	(void)text;
	seen->data += !strcmp(code, "data");
	seen->csums += !strcmp(code, "csums");
	seen->other += strcmp(code, "data") && strcmp(code, "csums");
}

static struct seen check(struct kit *k, enum umbra_check_mode mode)
{
	struct umbra_check_report report;
	struct seen seen = {0};

	if (k->path)
		ok(umbra_check(k->path, mode, see, &seen, &report));
	else
		ok(umbra_check_image(k->base, k->size, mode, see, &seen, &report));
	return seen;
}

/* ---- every way of writing ------------------------------------------------------------------------- */

static void every_way(struct kit *k)
{
	struct file f, copy;
	uint64_t fresh;

	file_make(k, &f, "f", 8 << 20);
	file_make(k, &copy, "copy", 8 << 20);
	file_write(k, &f, 0, 100, 1);        /* inline */
	file_write(k, &f, 50, 9000, 2);      /* into blocks */
	file_write(k, &f, 0, 40 * B, 3);     /* overwritten, grown */
	file_write(k, &f, 3 * B + 7, 11, 4); /* a part */
	file_write(k, &f, 5 * B - 1, 2 * B + 2, 5);
	file_write(k, &f, 40 * B, 70, 6); /* appended */
	file_write(k, &f, 40 * B + 70, 70, 7);
	ok(umbra_fallocate(k->fs, f.ino, 0, 60 * B, 40 * B)); /* unwritten */
	want_size(&f, 100 * B);
	file_write(k, &f, 61 * B, 3 * B, 8);
	file_write(k, &f, 70 * B + 5, 100, 9);
	file_write(k, &f, 300 * B + 1, 600 * B, 10); /* a hole, then more than a segment */
	file_verify(k, &f);
	kit_remount(k);
	file_verify(k, &f);
	ok(umbra_clone(k->fs, f.ino, copy.ino));
	want_bytes(&copy, 0, f.want, f.size);
	file_write(k, &copy, 2 * B, 5 * B, 11); /* shared: copied */
	file_write(k, &copy, 10 * B + 9, 9, 12);
	file_truncate(k, &copy, 12 * B + 77); /* a tail, shared */
	file_truncate(k, &f, 11 * B + 3);     /* a tail of its own, or not any more */
	file_truncate(k, &f, 11 * B + 1);
	file_truncate(k, &f, 20 * B);
	ok(umbra_fallocate(k->fs, f.ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, B + 5, 3 * B));
	want_bytes(&f, B + 5, NULL, 3 * B);
	ok(umbra_fallocate(
		k->fs, f.ino, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 6 * B + 5, 2 * B));
	want_bytes(&f, 6 * B + 5, NULL, 2 * B);
	fresh = file_ino(k, "inline");
	assert_int_equal(umbra_write(k->fs, fresh, "abc", 3, 0, 0, NULL), 3);
	ok(umbra_fallocate(k->fs, fresh, 0, 0, 2 * B)); /* out of the inode */
	file_verify(k, &f);
	file_verify(k, &copy);
	assert_int_equal(k->fs->pool->data_errors, 0);
	kit_crash(k);
	file_verify(k, &f);
	file_verify(k, &copy);
	file_free(&f);
	file_free(&copy);
}

static void every_way_of_writing_leaves_the_right_checksums(void **state)
{
	(void)state;
	on_both(every_way);
}

/* ---- what is wrong ----------------------------------------------------------------------------------- */

static int keep_event(void *arg, const struct umbra_event *event)
{
	*(struct umbra_event *)arg = *event;
	return 0;
}

static void wrong_block(struct kit *k)
{
	struct umbra_health health;
	struct umbra_event event = {0};
	struct file f, copy;
	uint8_t block[B];
	um_lba_t lba;

	file_make(k, &f, "f", 64 * B);
	file_make(k, &copy, "copy", 64 * B);
	file_write(k, &f, 0, 10 * B, 1);
	ok(umbra_clone(k->fs, f.ino, copy.ino));
	lba = file_lba(k, &f, 4);
	kit_flip(k, lba, 4095);
	assert_int_equal(read_block(k, &f, 4, block), -EIO);
	assert_int_equal(read_block(k, &copy, 4, block), -EIO);
	assert_int_equal(read_block(k, &f, 3, block), B);
	assert_int_equal(read_block(k, &f, 5, block), B);
	assert_true(k->fs->pool->data_errors >= 1);
	/* A part of it cannot be written; the whole can, and heals it, where it is written. */
	assert_int_equal(umbra_write(k->fs, f.ino, "x", 1, 4 * B + 9, 0, NULL), -EIO);
	file_write(k, &f, 4 * B, B, 2);
	assert_int_equal(read_block(k, &f, 4, block), B);
	assert_int_equal(read_block(k, &copy, 4, block), -EIO);
	/* It is on record as lost, so for whoever does not hold it against its checksum, too; and said once. */
	umbra_failures_settle(k->fs);
	ok(umbra_health(k->fs, &health, keep_event, &event));
	assert_true(health.lost == 1 && event.done == UMBRA_DONE_LOST);
	assert_true(event.cause == UMBRA_CAUSE_CHECKSUM && event.lba == lba);
	ok(umbra_close(k->fs));
	assert_int_equal(check(k, UMBRA_CHECK_ONLY).data, 0);
	k->opt.data_csum = UMBRA_CSUM_SCRUB;
	kit_mount(k);
	assert_int_equal(read_block(k, &copy, 4, block), -EIO);
	ok(umbra_close(k->fs));
	k->opt.data_csum = UMBRA_CSUM_READ;
	kit_mount(k);
	/* Cut off within the block it stays bad; cut off before it, it is gone. */
	ok(um_data_resize(k->fs, copy.ino, 4 * B + 100, false));
	assert_int_equal(read_block(k, &copy, 4, block), -EIO);
	ok(um_data_resize(k->fs, copy.ino, 4 * B, false));
	assert_int_equal(umbra_read(k->fs, copy.ino, copy.want, 64 * B, 0), 4 * B);
	file_free(&f);
	file_free(&copy);
}

static void a_wrong_block_is_an_error_and_nothing_else_is(void **state)
{
	(void)state;
	on_both(wrong_block);
}

/* An overwrite in place must not launder what is wrong, on a direct pool where it goes through the journal. */
static void a_tail_that_is_wrong_stays_so_when_it_is_zeroed(void **state)
{
	struct file f;
	uint8_t block[B];
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, with);
	file_make(&k, &f, "f", 64 * B);
	file_write(&k, &f, 0, 3 * B, 1);
	kit_flip(&k, file_lba(&k, &f, 1), 5);
	file_truncate(&k, &f, B + 50);
	assert_int_equal(read_block(&k, &f, 1, block), -EIO);
	file_truncate(&k, &f, B);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* ---- the tables ---------------------------------------------------------------------------------------- */

static void spoil(struct kit *k, um_lba_t lba)
{
	memset(k->base + lba * B + 100, 0x11, 200);
}

static void lost_tables_are_made_again(void **state)
{
	struct um_ptr ag, page;
	struct file f;
	struct seen seen;
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_ATOMIC, with);
	file_make(&k, &f, "f", 64 * B);
	file_write(&k, &f, 0, 64 * B, 1);
	ag = um_csum_ag_ptr(k.fs->pool, 0);
	page = um_csums_ptr(k.fs->pool, um_chunk_of(file_lba(&k, &f, 0)));
	ok(umbra_close(k.fs));
	/* One copy: mended. */
	spoil(&k, page.lba);
	spoil(&k, ag.mirror);
	kit_mount(&k);
	file_verify(&k, &f);
	ok(umbra_close(k.fs));
	assert_int_equal(check(&k, UMBRA_CHECK_PREEN).csums, 0);
	kit_check(&k);
	/* The table of the group: the pages know. */
	spoil(&k, ag.lba);
	spoil(&k, ag.mirror);
	seen = check(&k, UMBRA_CHECK_REPAIR);
	assert_true(seen.csums == 1 && !seen.data && !seen.other);
	kit_check(&k);
	/* A page: from the data. */
	spoil(&k, page.lba);
	spoil(&k, page.mirror);
	assert_int_equal(check(&k, UMBRA_CHECK_ONLY).csums, 1);
	seen = check(&k, UMBRA_CHECK_REPAIR);
	assert_true(seen.csums == 1 && !seen.data && !seen.other);
	kit_mount(&k);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* ---- races ------------------------------------------------------------------------------------------------ */

struct race {
	struct kit *k;
	struct file *f;
	atomic_bool stop;
};

static void *overwrite(void *arg)
{
	struct race *race = arg;
	uint8_t buf[3 * B];

	for (unsigned i = 0; !race->stop; i++) {
		memset(buf, (int)i, sizeof(buf));
		if (umbra_write(race->k->fs, race->f->ino, buf, sizeof(buf) - i % 3 * 1000,
			    i % 5 * B / 2, 0, NULL) < 0)
			abort();
	}
	return NULL;
}

static void reader_and_writer(struct kit *k)
{
	struct file f;
	struct race race = {.k = k, .f = &f};
	pthread_t thread[2];
	uint8_t *buf = malloc(16 * B);

	file_make(k, &f, "f", 16 * B);
	file_write(k, &f, 0, 16 * B, 1);
	for (unsigned i = 0; i < 2; i++)
		ok(pthread_create(&thread[i], NULL, overwrite, &race));
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(umbra_read(k->fs, f.ino, buf, 8 * B, 0), 8 * B);
	race.stop = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(k->fs->pool->data_errors, 0);
	free(buf);
	file_free(&f);
}

static void a_reader_beside_a_writer_sees_no_error(void **state)
{
	(void)state;
#ifdef __SANITIZE_THREAD__
	/* Bytes of a file that are read while they are written: races by contract, which is what is tried here. */
	skip_because("file data is read and written at once, on purpose");
#endif
	on_both(reader_and_writer);
}

/* ---- a full pool -------------------------------------------------------------------------------------------- */

static void full(struct kit *k)
{
	struct file f;
	uint8_t *buf = malloc(1 << 20);
	ssize_t done;

	file_make(k, &f, "f", 64 << 20);
	memset(buf, 7, 1 << 20);
	do {
		done = umbra_write(k->fs, f.ino, buf, 1 << 20, f.size, 0, NULL);
		f.size += done > 0 ? (uint64_t)done : 0;
	} while (done > 0);
	assert_int_equal(done, -ENOSPC);
	/* What the file has can be overwritten and cut, new blocks or not. */
	memset(buf, 8, 1 << 20);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(
			umbra_write(k->fs, f.ino, buf, 64 * B, i * 100 * B, 0, NULL), 64 * B);
	ok(um_data_resize(k->fs, f.ino, 5 * B + 5, false));
	assert_int_equal(umbra_read(k->fs, f.ino, buf, 1 << 20, 0), 5 * B + 5);
	assert_int_equal(buf[5 * B + 4], 8);
	free(buf);
	file_free(&f);
}

static void a_full_pool_can_be_overwritten(void **state)
{
	(void)state;
	on_both(full);
}

static void in_place_is_not_for_pools_with_checksums(void **state)
{
	struct file f;
	struct kit k;

	(void)state;
	kit_open_as(&k, 64, UMBRA_DATA_INPLACE, with);
	assert_int_equal(k.fs->opt.data, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 64 * B);
	file_write(&k, &f, 0, 10 * B, 1);
	file_write(&k, &f, 5, 5 * B, 2);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* With one copy of metadata, in pools of several groups, of every small size. */
static void the_layout_fits_pools_of_all_sizes(void **state)
{
	static const uint64_t mib[] = {16, 18, 24, 1008, 1018, 1040};
	struct umbra_mkfs_options opt = with;
	struct umbra_info info;
	struct kit k;

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		k = (struct kit){.path = "test_csum.pool"};
		opt.copies = 1 + i % 2;
		opt.size = mib[i / 2] << 20;
		opt.force = opt.sparse = true;
		ok(umbra_mkfs(k.path, &opt, &info));
		assert_true(info.data_csum);
		kit_mount(&k);
		kit_close(&k);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_way_of_writing_leaves_the_right_checksums),
		cmocka_unit_test(a_wrong_block_is_an_error_and_nothing_else_is),
		cmocka_unit_test(a_tail_that_is_wrong_stays_so_when_it_is_zeroed),
		cmocka_unit_test(lost_tables_are_made_again),
		cmocka_unit_test(a_reader_beside_a_writer_sees_no_error),
		cmocka_unit_test(a_full_pool_can_be_overwritten),
		cmocka_unit_test(in_place_is_not_for_pools_with_checksums),
		cmocka_unit_test(the_layout_fits_pools_of_all_sizes),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
