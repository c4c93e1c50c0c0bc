/* SPDX-License-Identifier: BSD-3-Clause */
/* Failing writes: who is told, what continues, and what the next mount finds. */
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "datakit.h"
#include "pool/backend.h"
#include "txn/txn.h"

#define PATH "test_errors.pool"

static const struct umbra_cred cred = {.umask = 022};

/* ---- a medium that refuses ---------------------------------------------------------------------------------- */

static const struct um_pool_ops *real_ops;
static struct um_pool_ops bad_ops;
static struct {
	int data, journal, barrier; /* what such writes return; 0: they go well */
	unsigned data_left;         /* writes of data that go well before, and 1 */
	unsigned one;               /* 1: of writes to the journal the second only */
	uint64_t from, to, mirror;  /* the journal */
} bad;

static bool in_journal(uint64_t off)
{
	return (off >= bad.from && off < bad.to) ||
	       (bad.mirror && off >= bad.mirror && off < bad.mirror + bad.to - bad.from);
}

static int bad_write(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	int err = in_journal(off) ? bad.journal : bad.data;

	if (!in_journal(off) && bad.data_left > 1) {
		bad.data_left--;
		err = 0;
	}

	/* One that fails in the second of two copies can be taken back. */
	if (err && in_journal(off) && bad.one && bad.one++ != 2)
		err = 0;
	return err ? err : real_ops->write(pool, off, src, len);
}

static int bad_barrier(struct um_pool *pool)
{
	return bad.barrier ? bad.barrier : real_ops->barrier(pool);
}

static void go_bad(struct kit *k)
{
	const struct um_super *super = &k->fs->pool->super;

	memset(&bad, 0, sizeof(bad));
	bad.from = super->journal_lba * B;
	bad.to = bad.from + super->journal_blocks * B;
	bad.mirror = super->journal_mirror * B;
	real_ops = k->fs->pool->ops;
	bad_ops = *real_ops;
	bad_ops.write = bad_write;
	bad_ops.barrier = bad_barrier;
	k->fs->pool->ops = &bad_ops;
}

static void open_kit(struct kit *k, enum umbra_errors errors)
{
	kit_open_file(k, PATH, 32);
	ok(umbra_close(k->fs));
	k->opt.commit_seconds = 3600;
	k->opt.errors = errors;
	kit_mount(k);
	ok(umbra_sync(k->fs));
	go_bad(k);
}

static uint64_t file(struct kit *k, const char *name)
{
	struct umbra_attr attr;

	ok(umbra_mknod(k->fs, 1, name, S_IFREG | 0644, 0, &cred, &attr));
	ok(umbra_file_open(k->fs, attr.st.st_ino, O_RDWR, false));
	return attr.st.st_ino;
}

static int there(struct kit *k, const char *name)
{
	struct umbra_attr attr;
	int ret = umbra_lookup(k->fs, 1, name, &attr);

	if (!ret)
		umbra_forget(k->fs, attr.st.st_ino, 1);
	return ret;
}

static int put(struct kit *k, uint64_t ino, uint64_t off, unsigned flags)
{
	static const uint8_t bytes[9000] = {1, 2, 3};
	ssize_t n = umbra_write(k->fs, ino, bytes, sizeof(bytes), off, flags, NULL);

	return n < 0 ? (int)n : 0;
}

/* What the kernel could not write in the background it tells once to each open file, whoever asks. */
static atomic_int late;

static int tell_late(void)
{
	int err = atomic_exchange(&late, 0);

	if (!err)
		return 0;
	errno = err;
	return -1;
}

int fdatasync(int fd)
{
	return tell_late() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return tell_late() ? -1 : (int)syscall(SYS_fsync, fd);
}

/* ---- who is told ----------------------------------------------------------------------------------------------- */

static void each_descriptor_is_told_once(void **state)
{
	uint64_t ino, other, a, b, c, d, e;
	struct kit k;

	(void)state;
	open_kit(&k, UMBRA_ERRORS_RO);
	ino = file(&k, "f");
	other = file(&k, "other");
	a = umbra_open_number(k.fs);
	b = umbra_open_number(k.fs);
	ok(put(&k, ino, 0, 0));
	ok(umbra_open_error(k.fs, ino, a));
	bad.data = -EIO;
	assert_int_equal(put(&k, ino, 0, 0), -EIO);
	bad.data = 0;
	c = umbra_open_number(k.fs); /* nobody has been told yet */
	assert_int_equal(umbra_open_error(k.fs, ino, a), -EIO);
	d = umbra_open_number(k.fs);
	e = umbra_open_number(k.fs);
	ok(umbra_open_error(k.fs, ino, d));
	ok(umbra_open_error(k.fs, ino, a));
	assert_int_equal(umbra_open_error(k.fs, ino, b), -EIO);
	assert_int_equal(umbra_open_error(k.fs, ino, c), -EIO);
	ok(umbra_open_error(k.fs, ino, b));
	ok(umbra_open_error(k.fs, ino, c));
	ok(umbra_open_error(k.fs, other, a));
	/* The file is well. */
	ok(put(&k, ino, 0, 0));
	ok(umbra_fsync(k.fs, ino, false));
	/* The next error is a new one. */
	bad.data = -EIO;
	assert_int_equal(put(&k, ino, 100, 0), -EIO);
	bad.data = 0;
	assert_int_equal(umbra_open_error(k.fs, ino, e), -EIO);
	assert_int_equal(umbra_open_error(k.fs, ino, a), -EIO);
	ok(umbra_open_error(k.fs, ino, a));
	kit_close(&k);
}

static void pages_that_are_written_late_have_nobody_else_to_tell(void **state)
{
	struct kit k;
	uint64_t ino, a;

	(void)state;
	open_kit(&k, UMBRA_ERRORS_RO);
	ino = file(&k, "f");
	a = umbra_open_number(k.fs);
	bad.data = -ENOSPC;
	assert_int_equal(put(&k, ino, 0, 0), -ENOSPC);
	ok(umbra_open_error(k.fs, ino, a));
	assert_int_equal(put(&k, ino, 0, UMBRA_WRITE_LATE), -ENOSPC);
	assert_int_equal(umbra_open_error(k.fs, ino, a), -ENOSPC);
	bad.data = -EIO;
	assert_int_equal(put(&k, ino, 0, UMBRA_WRITE_QUIET), -EIO);
	ok(umbra_open_error(k.fs, ino, a));
	bad.data = 0;
	kit_close(&k);
}

/* ---- what goes on -------------------------------------------------------------------------------------------- */

static void count_lines(void *arg, enum umbra_log_level level, const char *line)
{
	unsigned *n = arg;

	*n += level == UMBRA_LOG_ERROR && strstr(line, "no more changes are made") != NULL;
}

/* Changes fail, reading goes on, and what is wrong can be asked for. */
static void expect_readonly(struct kit *k, uint64_t ino)
{
	struct umbra_health health;
	struct umbra_attr attr;
	uint8_t buf[3];

	assert_int_equal(umbra_mknod(k->fs, 1, "no", S_IFREG | 0644, 0, &cred, &attr), -EROFS);
	assert_int_equal(put(k, ino, 0, 0), -EROFS);
	assert_int_equal(umbra_fsync(k->fs, ino, false), -EROFS);
	assert_int_equal(umbra_file_open(k->fs, ino, O_WRONLY, false), -EROFS);
	ok(umbra_file_open(k->fs, ino, O_RDONLY, false));
	umbra_file_release(k->fs, ino, O_RDONLY);
	assert_int_equal(umbra_read(k->fs, ino, buf, 3, 0), 3);
	assert_memory_equal(buf, "\1\2\3", 3);
	ok(umbra_health(k->fs, &health, NULL, NULL));
	assert_int_equal(health.stopped, -EIO);
	assert_non_null(health.stopped_by);
}

/* After a barrier that failed nobody knows what the medium has of what it was given since the
 * last. */
static void a_failed_barrier_stops_changes_and_the_last_commit_is_what_counts(void **state)
{
	uint64_t ino, a, b;
	unsigned lines = 0;
	struct kit k;

	(void)state;
	open_kit(&k, UMBRA_ERRORS_RO);
	ino = file(&k, "durable");
	a = umbra_open_number(k.fs);
	b = umbra_open_number(k.fs);
	ok(put(&k, ino, 0, 0));
	ok(umbra_fsync(k.fs, ino, false));
	file(&k, "lost");
	for (unsigned i = 0; i < 100; i++) /* more than a COMMIT lists */
		ok(put(&k, ino, (1 << 20) + 9000 * i, 0));
	bad.barrier = -EIO;
	umbra_log_to(count_lines, &lines);
	assert_int_equal(umbra_fsync(k.fs, ino, false), -EIO);
	bad.barrier = 0;
	expect_readonly(&k, ino);
	umbra_log_to(NULL, NULL);
	assert_int_equal(lines, 1);
	assert_int_equal(umbra_open_error(k.fs, ino, a), -EIO);
	ok(umbra_open_error(k.fs, ino, a));
	assert_int_equal(umbra_open_error(k.fs, ino, b), -EIO);
	ok(umbra_open_error(k.fs, ino, umbra_open_number(k.fs)));
	ok(there(&k, "lost"));
	assert_int_equal(umbra_close(k.fs), -EROFS);
	kit_check(&k);
	kit_mount(&k);
	ok(there(&k, "durable"));
	assert_int_equal(there(&k, "lost"), -ENOENT);
	kit_close(&k);
}

/* The kernel has all that came before: nothing that was acknowledged is lost. */
static void a_failed_journal_write_stops_changes(void **state)
{
	struct umbra_attr attr;
	struct kit k;
	uint64_t ino;

	(void)state;
	open_kit(&k, UMBRA_ERRORS_RO);
	ino = file(&k, "f");
	ok(put(&k, ino, 0, 0));
	bad.journal = -EIO;
	assert_int_equal(umbra_mknod(k.fs, 1, "no", S_IFREG | 0644, 0, &cred, &attr), -EIO);
	bad.journal = 0;
	expect_readonly(&k, ino);
	assert_int_equal(umbra_close(k.fs), -EROFS);
	kit_check(&k);
	kit_mount(&k);
	ok(there(&k, "f"));
	assert_int_equal(there(&k, "no"), -ENOENT);
	kit_close(&k);
}

static void errors_continue_lets_the_next_one_try(void **state)
{
	struct umbra_attr attr;
	struct kit k;

	(void)state;
	open_kit(&k, UMBRA_ERRORS_CONTINUE);
	bad.journal = -EIO;
	bad.one = 1;
	assert_int_equal(umbra_mknod(k.fs, 1, "no", S_IFREG | 0644, 0, &cred, &attr), -EIO);
	bad.journal = 0;
	file(&k, "yes");
	ok(umbra_sync(k.fs));
	/* But not where nothing that follows could be made durable. */
	bad.barrier = -EIO;
	assert_int_equal(umbra_sync(k.fs), -EIO);
	bad.barrier = 0;
	assert_int_equal(umbra_mknod(k.fs, 1, "no", S_IFREG | 0644, 0, &cred, &attr), -EROFS);
	assert_int_equal(umbra_close(k.fs), -EROFS);
	kit_mount(&k);
	ok(there(&k, "yes"));
	assert_int_equal(there(&k, "no"), -ENOENT);
	kit_close(&k);
}

static void errors_shutdown_ends_reading_too(void **state)
{
	struct kit k;
	uint64_t ino;

	(void)state;
	open_kit(&k, UMBRA_ERRORS_SHUTDOWN);
	ino = file(&k, "f");
	ok(put(&k, ino, 0, 0));
	ok(umbra_sync(k.fs));
	bad.barrier = -EIO;
	assert_int_equal(umbra_sync(k.fs), -EIO);
	bad.barrier = 0;
	assert_int_equal(there(&k, "f"), -EIO);
	assert_int_equal(put(&k, ino, 0, 0), -EIO);
	assert_int_equal(umbra_file_open(k.fs, ino, O_RDONLY, false), -EIO);
	umbra_close(k.fs);
	kit_mount(&k);
	ok(there(&k, "f"));
	kit_close(&k);
}

/* ---- no room in the file below --------------------------------------------------------------------------------- */

static void a_full_host_is_enospc_and_nothing_more(void **state)
{
	static const int full[] = {-ENOSPC, -EDQUOT};
	struct umbra_attr attr;
	struct kit k;
	uint64_t ino, a;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		open_kit(&k, UMBRA_ERRORS_RO);
		ino = file(&k, "f");
		a = umbra_open_number(k.fs);
		ok(put(&k, ino, 0, 0));
		bad.data = bad.journal = full[i];
		assert_int_equal(put(&k, ino, 1 << 20, 0), full[i]);
		assert_int_equal(
			umbra_mknod(k.fs, 1, "no", S_IFREG | 0644, 0, &cred, &attr), full[i]);
		assert_int_equal(umbra_unlink(k.fs, 1, "f"), full[i]);
		assert_int_equal(umbra_fsync(k.fs, ino, false), full[i]);
		ok(umbra_open_error(k.fs, ino, a));
		bad.data = bad.journal = 0;
		ok(umbra_fsync(k.fs, ino, false));
		ok(put(&k, ino, 1 << 20, 0));
		file(&k, "yes");
		kit_crash(&k);
		ok(there(&k, "yes"));
		kit_close(&k);
	}
}

/* A write of several pieces, of which a later one finds no room: those before are written, and no
 * more. */
static void room_that_ends_within_a_write_makes_it_short(void **state)
{
	static uint8_t bytes[16 * B];
	uint8_t buf[B];
	struct kit k;
	uint64_t ino;
	ssize_t n;

	(void)state;
	for (unsigned left = 0; left < 10; left++) {
		open_kit(&k, UMBRA_ERRORS_RO);
		ino = file(&k, "f");
		memset(bytes, 1, sizeof(bytes));
		/* Every other block is there, and shared: each takes a new one. */
		for (unsigned i = 0; i < 16; i += 2)
			assert_int_equal(umbra_write(k.fs, ino, bytes, B, i * B, 0, NULL), B);
		ok(umbra_clone(k.fs, ino, file(&k, "clone")));
		memset(bytes, 2, sizeof(bytes));
		bad.data_left = left + 1;
		bad.data = -ENOSPC;
		n = umbra_write(k.fs, ino, bytes, sizeof(bytes), 0, 0, NULL);
		bad.data = 0;
		assert_int_equal(n, left ? (ssize_t)(left * B) : -ENOSPC);
		for (unsigned i = 0; i < 15; i++) {
			assert_int_equal(umbra_read(k.fs, ino, buf, B, i * B), B);
			assert_int_equal(buf[0], i < left ? 2 : i % 2 ? 0 : 1);
		}
		kit_close(&k);
	}
}

/* ---- errors of writes in the background, told to somebody else ------------------------------------------------ */

/* So that only what the test does commits: a thread that deals with failed memory would, too. */
static void open_quiet(struct kit *k)
{
	um_reaper_manual = true;
	open_kit(k, UMBRA_ERRORS_RO);
}

static void error_is_still_known(struct kit *k, uint64_t ino)
{
	assert_int_equal(umbra_fsync(k->fs, ino, false), -EIO);
	assert_int_equal(umbra_fsync(k->fs, ino, false), -EROFS);
	umbra_file_release(k->fs, ino, O_RDWR);
	atomic_store(&late, 0);
	umbra_abandon(k->fs);
	um_reaper_manual = false;
	unlink(PATH);
}

static void growing_does_not_swallow_an_error(void **state)
{
	uint64_t ino, was, is;
	struct kit k;

	(void)state;
	open_quiet(&k);
	ino = file(&k, "f");
	ok(put(&k, ino, 0, 0));
	atomic_store(&late, EIO);
	assert_int_equal(umbra_grow(k.fs, 64 << 20, true, &was, &is), -EIO);
	assert_int_equal(is, 32 << 20);
	error_is_still_known(&k, ino);
}

static void nor_does_rewriting_a_bad_block(void **state)
{
	_Alignas(64) uint8_t block[B];
	uint64_t ino, lba;
	struct kit k;

	(void)state;
	open_quiet(&k);
	ino = file(&k, "f");
	ok(put(&k, ino, 0, 0));
	lba = um_super_second(&k.fs->pool->super);
	memcpy(block, um_pool_ptr(k.fs->pool, lba), B);
	um_pool_set_lost(k.fs->pool, lba, 1);
	atomic_store(&late, EIO);
	ok(um_pool_heal(k.fs->pool, lba, block));
	error_is_still_known(&k, ino);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_descriptor_is_told_once),
		cmocka_unit_test(pages_that_are_written_late_have_nobody_else_to_tell),
		cmocka_unit_test(a_failed_barrier_stops_changes_and_the_last_commit_is_what_counts),
		cmocka_unit_test(a_failed_journal_write_stops_changes),
		cmocka_unit_test(errors_continue_lets_the_next_one_try),
		cmocka_unit_test(errors_shutdown_ends_reading_too),
		cmocka_unit_test(a_full_host_is_enospc_and_nothing_more),
		cmocka_unit_test(room_that_ends_within_a_write_makes_it_short),
		cmocka_unit_test(growing_does_not_swallow_an_error),
		cmocka_unit_test(nor_does_rewriting_a_bad_block),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests_name("errors", tests, NULL, NULL);
}
