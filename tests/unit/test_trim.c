/* SPDX-License-Identifier: BSD-3-Clause */
/* Free space goes back to the host, nothing else does; and a host that has none left is no end of the pool. */
#include "recorder.h"

#include <sys/syscall.h>

#include "datakit.h"
#include "pool/backend.h"
#include "txn/internal.h"

#define MIB (1ull << 20)

static const struct umbra_mkfs_options all = {.copies = 2, .parity = true, .data_csum = true};

static uint64_t trim_all(struct kit *k)
{
	struct umbra_trim trim = {.len = UINT64_MAX};

	while (!trim.done)
		ok(umbra_trim(k->fs, &trim));
	return trim.bytes;
}

/* Bytes that the pool's file has on its host. */
static uint64_t on_host(void)
{
	struct stat st;

	ok(stat(fixture_path, &st));
	return (uint64_t)st.st_blocks * 512;
}

static void open_kit(struct kit *k, uint64_t mib, struct umbra_mkfs_options mkfs)
{
	mkfs.size = mib * MIB;
	mkfs.force = true;
	unlink(fixture_path);
	*k = (struct kit){.path = fixture_path, .size = mkfs.size};
	ok(umbra_mkfs(fixture_path, &mkfs, NULL));
	kit_mount(k);
}

static void remove_file(struct kit *k, const char *name, struct file *f)
{
	ok(umbra_unlink(k->fs, UM_ROOT_INO, name));
	umbra_forget(k->fs, f->ino, 1);
	file_free(f);
}

static void trim_and_use(struct umbra_mkfs_options mkfs)
{
	struct file kept, gone, more;
	uint64_t avail, before;
	struct kit k;

	open_kit(&k, 64, mkfs);
	assert_true(on_host() >= 64 * MIB);
	file_make(&k, &kept, "kept", 9 * MIB);
	file_write(&k, &kept, 0, 9 * MIB - 777, 1);
	file_make(&k, &gone, "gone", 20 * MIB);
	file_write(&k, &gone, 0, 20 * MIB, 2);
	assert_true(trim_all(&k) >= 10 * MIB);
	before = on_host();
	assert_true(before >= 29 * MIB && before <= 56 * MIB);
	remove_file(&k, "gone", &gone);
	avail = kit_free(&k);
	assert_true(trim_all(&k) >= 28 * MIB);
	assert_true(on_host() + 16 * MIB <= before);
	assert_int_equal(kit_free(&k), avail);
	file_verify(&k, &kept);
	kit_remount(&k);
	file_verify(&k, &kept);
	/* Holes are as good as any free space. */
	file_make(&k, &more, "more", 24 * MIB);
	file_write(&k, &more, 0, 24 * MIB, 3);
	kit_crash(&k);
	file_verify(&k, &kept);
	file_verify(&k, &more);
	file_free(&more);
	file_free(&kept);
	kit_close(&k);
}

static void free_space_becomes_a_hole(void **state)
{
	(void)state;
	trim_and_use((struct umbra_mkfs_options){.copies = 2});
	trim_and_use(all);
}

static void what_is_removed_goes_back_by_itself(void **state)
{
	struct file gone;
	struct kit k;
	unsigned i;

	(void)state;
	open_kit(&k, 64, (struct umbra_mkfs_options){.copies = 2});
	ok(umbra_close(k.fs));
	k.opt.discard = true;
	k.opt.commit_seconds = 1;
	kit_mount(&k);
	file_make(&k, &gone, "gone", 30 * MIB);
	file_write(&k, &gone, 0, 30 * MIB, 2);
	ok(umbra_sync(k.fs));
	assert_true(on_host() >= 60 * MIB);
	remove_file(&k, "gone", &gone);
	for (i = 0; i < 200 && on_host() > 40 * MIB; i++)
		usleep(100000);
	assert_true(on_host() <= 40 * MIB);
	kit_close(&k);
}

static void only_a_part_is_looked_at_and_short_runs_stay(void **state)
{
	struct umbra_trim trim = {.start = 8 * MIB, .len = 16 * MIB};
	struct kit k;

	(void)state;
	open_kit(&k, 64, (struct umbra_mkfs_options){.copies = 1});
	while (!trim.done)
		ok(umbra_trim(k.fs, &trim));
	assert_int_equal(trim.bytes, 16 * MIB);
	trim = (struct umbra_trim){.len = UINT64_MAX, .min = 4 * MIB};
	while (!trim.done)
		ok(umbra_trim(k.fs, &trim));
	assert_true(trim.bytes && trim.bytes % (2 * MIB) == 0);
	trim = (struct umbra_trim){.start = 65 * MIB, .len = MIB};
	assert_int_equal(umbra_trim(k.fs, &trim), -EINVAL);
	kit_close(&k);
}

/* ---- cuts ------------------------------------------------------------------------------------------------ */

static struct cut {
	struct file *file[2];
	unsigned states, removed;
} cut;

static void look_at_state(uint8_t *base, uint64_t size)
{
	struct umbra_check_report report;
	struct kit k = {.base = base, .size = size};
	struct umbra_attr attr;

	kit_mount(&k);
	file_verify(&k, cut.file[0]);
	if (umbra_lookup(k.fs, UM_ROOT_INO, "gone", &attr))
		cut.removed++;
	else
		file_verify(&k, cut.file[1]);
	ok(umbra_close(k.fs));
	ok(umbra_check_image(base, size, UMBRA_CHECK_ONLY, kit_problem, NULL, &report));
	assert_int_equal(report.problems, 0);
	cut.states++;
}

static void on_moment(void *arg)
{
	uint8_t *base = recorder_state();

	(void)arg;
	kit_other_boot(true);
	look_at_state(base, recorder.size);
	kit_other_boot(false);
	munmap(base, recorder.size);
}

/* Without the sync that umbra_trim begins with: nothing that a power cut may bring back is touched. */
static void trim_with_cuts(struct kit *k)
{
	struct file kept, gone;
	uint64_t blocks = 0;

	file_make(k, &kept, "kept", MIB);
	file_write(k, &kept, 0, MIB, 1);
	file_make(k, &gone, "gone", MIB);
	file_write(k, &gone, 0, MIB, 2);
	ok(umbra_sync(k->fs));
	cut = (struct cut){{&kept, &gone}, 0, 0};
	recorder_attach(k->fs->pool);
	ok(umbra_unlink(k->fs, UM_ROOT_INO, "gone"));
	umbra_forget(k->fs, gone.ino, 1);
	um_reaper_run(k->fs);
	recorder.moment = on_moment;
	for (unsigned round = 0; round < 2; round++) {
		for (uint64_t chunk = 0; chunk < k->fs->pool->nchunks;)
			ok(um_space_trim(k->fs->space, &chunk, UINT64_MAX, 1, &blocks));
		ok(um_log_seal(k->fs->log));
		on_moment(NULL);
	}
	recorder_detach(k->fs->pool);
	assert_true(blocks && cut.removed);
	assert_true(k->fs->pool->direct || cut.removed < cut.states);
	file_free(&gone);
	file_free(&kept);
	kit_close(k);
}

static void what_a_cut_brings_back_has_its_bytes(void **state)
{
	struct kit k;

	(void)state;
	um_reaper_manual = true;
	if (getenv("PMEM_IS_PMEM_FORCE"))
		kit_open(&k, 16, UMBRA_DATA_ATOMIC);
	else
		open_kit(&k, 16, (struct umbra_mkfs_options){.copies = 2});
	trim_with_cuts(&k);
	um_reaper_manual = false;
}

/* ---- a host that has none, or fails ---------------------------------------------------------------------- */

/* What the engine calls instead of the C library's. */
static struct {
	int err;        /* what is said to who asks for space; 0: the truth */
	unsigned times; /* so often; 0: always */
	unsigned asked;
} host;

int fallocate(int fd, int mode, off_t off, off_t len)
{
	if (mode == FALLOC_FL_KEEP_SIZE) {
		host.asked++;
		if (host.err && (!host.times || host.asked <= host.times)) {
			errno = host.err;
			return -1;
		}
	}
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

static void host_says(int err, unsigned times)
{
	host.err = err;
	host.times = times;
	host.asked = 0;
}

static void what_the_host_says_is_heard(void **state)
{
	uint8_t buf[B] = {1};
	struct file f;
	struct kit k;

	(void)state;
	open_kit(&k, 64, (struct umbra_mkfs_options){.copies = 2, .sparse = true});
	host_says(EINTR, 3);
	ok(um_pool_reserve(k.fs->pool, 40 * UM_CHUNK_BLOCKS / 2, 4));
	assert_int_equal(host.asked, 4);
	host_says(EOPNOTSUPP, 0);
	ok(um_pool_reserve(k.fs->pool, 40 * UM_CHUNK_BLOCKS / 2, 4));
	host_says(EDQUOT, 0);
	assert_int_equal(um_pool_reserve(k.fs->pool, 40 * UM_CHUNK_BLOCKS / 2, 4), -EDQUOT);
	file_make(&k, &f, "f", MIB);
	/* Not "no space": that would be looked for in vain. */
	host_says(EIO, 0);
	assert_int_equal(umbra_write(k.fs, f.ino, buf, B, 0, 0, NULL), -EIO);
	host_says(0, 0);
	file_write(&k, &f, 0, B, 1);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* Thousands of chunks lack space: they are neither asked for nor gone through each time. */
static void a_full_host_is_not_asked_again_and_again(void **state)
{
	struct statvfs before, after;
	uint8_t buf[B] = {1};
	struct file f, g;
	uint64_t off;
	struct kit k;

	(void)state;
	open_kit(&k, 1024, (struct umbra_mkfs_options){.copies = 2, .sparse = true});
	file_make(&k, &f, "f", 64 * MIB);
	file_make(&k, &g, "g", 64 * MIB);
	file_write(&k, &f, 0, 64 * MIB, 1);
	ok(um_log_seal(k.fs->log));
	host_says(ENOSPC, 0);
	file_truncate(&k, &f, MIB);
	um_reaper_wait(k.fs, 5000);
	ok(um_log_seal(k.fs->log));
	um_space_reap(k.fs->space);
	ok(umbra_statfs(k.fs, &before));
	for (off = 0; off < 200; off++)
		file_write(&k, &g, off * 16 * B, B, (unsigned)off);
	assert_true(host.asked < 30);
	ok(umbra_statfs(k.fs, &after));
	assert_true(before.f_bfree - after.f_bfree <
		    300); /* what is out of sight is free all the same */
	/* To the end; removing works; a fresh chunk is found as soon as there is one. */
	for (off = 200; off < 100000; off++)
		if (umbra_write(k.fs, g.ino, buf, B, off * 16 * B, 0, NULL) < 0)
			break;
	assert_true(off > 5000 && off < 20000);
	/* What is kept back for removing files is still there, and found without asking each time. */
	host.asked = 0;
	for (unsigned i = 0; i < 100; i++) {
		struct um_ptr ptr;

		ok(um_space_take_meta(k.fs->space, 0, 0, &ptr));
		um_space_give(k.fs->space, ptr.lba, 1);
		um_space_give(k.fs->space, ptr.mirror, 1);
	}
	assert_true(host.asked < 10);
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "g"));
	umbra_forget(k.fs, g.ino, 1);
	um_reaper_wait(k.fs, 5000);
	host_says(0, 0);
	file_write(&k, &f, MIB, 60 * MIB, 5);
	file_verify(&k, &f);
	file_free(&f);
	file_free(&g);
	kit_remount(&k);
	kit_close(&k);
}

/* The superblock says less than there is, as before replay finds that the pool has grown: holes behind it are known to be some. */
static void holes_behind_the_end_are_known(void **state)
{
	struct kit k;

	(void)state;
	open_kit(&k, 20, (struct umbra_mkfs_options){.copies = 2});
	ok(umbra_close(k.fs));
	ok(truncate(fixture_path, 64 * MIB));
	kit_mount(&k);
	assert_int_equal(k.fs->pool->size, 20 * MIB);
	assert_true(um_pool_lacks(k.fs->pool, 15));
	kit_close(&k);
}

/* ---- in the meantime ---------------------------------------------------------------------------------------- */

/* Others that need all there is wait for what is on its way to the host. */
static int slow_punch(struct um_pool *pool, uint64_t off, uint64_t len)
{
	(void)pool, (void)off, (void)len;
	usleep(2000);
	return 0;
}

static void *trimmer(void *arg)
{
	struct kit *k = arg;

	for (unsigned i = 0; i < 3; i++)
		trim_all(k);
	return NULL;
}

static void nobody_runs_out_of_space_because_of_it(void **state)
{
	struct um_pool_ops ops;
	pthread_t thread;
	struct file f;
	struct kit k;

	(void)state;
	open_kit(&k, 32, (struct umbra_mkfs_options){.copies = 2});
	ops = *k.fs->pool->ops;
	ops.punch = slow_punch;
	k.fs->pool->ops = &ops;
	file_make(&k, &f, "f", 20 * MIB);
	ok(pthread_create(&thread, NULL, trimmer, &k));
	for (unsigned i = 0; i < 12; i++) {
		file_write(&k, &f, 0, 20 * MIB, i);
		file_truncate(&k, &f, 0);
	}
	ok(pthread_join(thread, NULL));
	file_free(&f);
	kit_close(&k);
}

/* kit_close has removed it. */
static int gone_too(void **state)
{
	(void)state;
	unlink(fixture_path);
	return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fixture_setup, gone_too)
static const struct CMUnitTest direct[] = {
	CASE(free_space_becomes_a_hole),
	CASE(what_is_removed_goes_back_by_itself),
	CASE(what_a_cut_brings_back_has_its_bytes),
};
static const struct CMUnitTest indirect[] = {
	CASE(free_space_becomes_a_hole),
	CASE(what_is_removed_goes_back_by_itself),
	CASE(only_a_part_is_looked_at_and_short_runs_stay),
	CASE(what_a_cut_brings_back_has_its_bytes),
	CASE(nobody_runs_out_of_space_because_of_it),
	CASE(what_the_host_says_is_heard),
	CASE(a_full_host_is_not_asked_again_and_again),
	CASE(holes_behind_the_end_are_known),
};
fixture_main(direct, indirect)
