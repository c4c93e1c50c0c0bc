/* SPDX-License-Identifier: BSD-3-Clause */
/* File data: write, read, resize, fallocate, seek, map. */
#include "datakit.h"
#include "pool/backend.h"

#include <sys/wait.h>

static void each_mode(void (*test)(struct kit *k))
{
	struct kit file;

	for (int mode = UMBRA_DATA_ATOMIC; mode <= UMBRA_DATA_INPLACE; mode++) {
		struct kit k;

		kit_open(&k, 64, (enum umbra_data_mode)mode);
		test(&k);
		kit_close(&k);
	}
	kit_open_file(&file, "test_data.pool", 64);
	test(&file);
	kit_close(&file);
}

static void small_file(struct kit *k)
{
	struct file f;
	struct map_sum sum;

	file_make(k, &f, "f", 1 << 20);
	file_verify(k, &f);
	file_write(k, &f, 0, 100, 1);
	file_write(k, &f, 50, 200, 2);
	file_write(k, &f, 400, 80, 3);
	file_verify(k, &f);
	sum = file_map(k, &f);
	assert_int_equal(sum.inline_bytes, 480);
	assert_int_equal(sum.blocks, 0);
	file_truncate(k, &f, 77);
	file_truncate(k, &f, 300);
	file_verify(k, &f);
	file_truncate(k, &f, 200000);
	file_verify(k, &f);
	file_write(k, &f, 100000, 10, 4);
	file_verify(k, &f);
	assert_int_equal(file_map(k, &f).blocks, 2);
	kit_remount(k);
	file_verify(k, &f);
	file_free(&f);
}

static void small_content_lives_in_the_inode(void **state)
{
	(void)state;
	each_mode(small_file);
}

static void growing(struct kit *k)
{
	struct file f;

	file_make(k, &f, "f", 4 << 20);
	for (uint64_t off = 0, i = 0; off < 300000; off += 777, i++)
		file_write(k, &f, off, 777, i);
	file_verify(k, &f);
	/* Where a block moves with each piece that it gets, each may end somewhere else. */
	assert_true(file_map(k, &f).extents <= (um_data_moves(k->fs->pool) ? 74 : 3));
	assert_int_equal(file_blocks(k, &f), um_blocks_of(f.size));
	file_write(k, &f, 3000000, 1000000, 99);
	file_verify(k, &f);
	kit_crash(k);
	file_verify(k, &f);
	file_free(&f);
}

static void appends_stay_in_one_piece(void **state)
{
	(void)state;
	each_mode(growing);
}

static void files_that_grow_together_keep_apart(void **state)
{
	struct kit k;
	struct file f[4];
	static const char *const names[] = {"a", "b", "c", "d"};

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	for (int i = 0; i < 4; i++)
		file_make(&k, &f[i], names[i], 4 << 20);
	for (uint64_t off = 0; off < 4 << 20; off += B)
		for (int i = 0; i < 4; i++)
			file_write(&k, &f[i], off, B, off + (uint64_t)i);
	for (int i = 0; i < 4; i++) {
		assert_true(file_map(&k, &f[i]).extents < 64); /* of 1024 blocks */
		file_verify(&k, &f[i]);
		file_free(&f[i]);
	}
	kit_close(&k);
}

static void overwriting(struct kit *k)
{
	struct file f;
	struct map_sum before, after;

	file_make(k, &f, "f", 3 << 20);
	file_write(k, &f, 0, 3 << 20, 1);
	before = file_map(k, &f);
	for (int i = 0; i < 200; i++)
		file_write(k, &f, (uint64_t)i * 13331, 100 + (size_t)i * 31, (uint64_t)i);
	file_write(k, &f, 5000, 2 << 20, 7);
	after = file_map(k, &f);
	file_verify(k, &f);
	if (!um_data_moves(k->fs->pool))
		assert_int_equal(before.extents, after.extents);
	assert_int_equal(before.blocks, after.blocks);
	kit_crash(k);
	file_verify(k, &f);
	file_free(&f);
}

static void overwrites_keep_the_layout(void **state)
{
	(void)state;
	each_mode(overwriting);
}

static void eof_stays_zero_behind(struct kit *k)
{
	struct file f;

	file_make(k, &f, "f", 1 << 20);
	file_write(k, &f, 0, 10000, 1);
	file_truncate(k, &f, 5001);
	file_truncate(k, &f, 20000);
	file_verify(k, &f);
	file_truncate(k, &f, 6000);
	file_write(k, &f, 9000, 10, 2);
	file_verify(k, &f);
	file_truncate(k, &f, 8192);
	file_truncate(k, &f, 8193);
	file_verify(k, &f);
	file_truncate(k, &f, 0);
	assert_int_equal(file_blocks(k, &f), 0);
	file_truncate(k, &f, 1000);
	file_verify(k, &f);
	file_free(&f);
}

static void bytes_behind_the_end_read_as_zero_when_it_moves(void **state)
{
	(void)state;
	each_mode(eof_stays_zero_behind);
}

static void huge_offsets_work_to_the_last_byte(void **state)
{
	struct kit k;
	struct file f;
	uint8_t c = 'x', got = 0;
	uint64_t pos;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 4096);
	assert_int_equal(umbra_write(k.fs, f.ino, &c, 1, INT64_MAX - 1, 0, NULL), 1);
	assert_int_equal(file_size(&k, &f), INT64_MAX);
	assert_int_equal(umbra_write(k.fs, f.ino, &c, 1, INT64_MAX, 0, NULL), -EFBIG);
	assert_int_equal(umbra_write(k.fs, f.ino, "yz", 2, INT64_MAX - 1, 0, NULL), 1);
	assert_int_equal(umbra_read(k.fs, f.ino, &got, 1, INT64_MAX - 1), 1);
	assert_int_equal(got, 'y');
	ok(umbra_lseek(k.fs, f.ino, 0, SEEK_DATA, &pos));
	assert_int_equal(pos, INT64_MAX & ~(uint64_t)(B - 1));
	ok(umbra_lseek(k.fs, f.ino, pos, SEEK_HOLE, &pos));
	assert_int_equal(pos, INT64_MAX);
	assert_int_equal(file_blocks(&k, &f), 1);
	ok(umbra_fallocate(k.fs, f.ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, INT64_MAX));
	assert_int_equal(umbra_lseek(k.fs, f.ino, 0, SEEK_DATA, &pos), -ENXIO);
	assert_int_equal(um_data_resize(k.fs, f.ino, (uint64_t)INT64_MAX + 1, false), -EFBIG);
	assert_int_equal(umbra_fallocate(k.fs, f.ino, 0, INT64_MAX, 1), -EFBIG);
	assert_int_equal(umbra_fallocate(k.fs, f.ino, 0, 0, 0), -EINVAL);
	assert_int_equal(umbra_fallocate(k.fs, f.ino, FALLOC_FL_COLLAPSE_RANGE, 0, B), -EOPNOTSUPP);
	ok(um_data_resize(k.fs, f.ino, 0, false));
	file_free(&f);
	kit_close(&k);
}

static void append_goes_to_the_end(void **state)
{
	struct kit k;
	struct file f;
	uint64_t at;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 5000, 1);
	assert_int_equal(umbra_write(k.fs, f.ino, "abc", 3, 17, UMBRA_WRITE_APPEND, &at), 3);
	assert_int_equal(at, 5000);
	want_bytes(&f, 5000, "abc", 3);
	assert_int_equal(umbra_write(k.fs, f.ino, "", 0, 1 << 19, 0, NULL), 0);
	file_verify(&k, &f);
	assert_int_equal(umbra_write(k.fs, UM_ROOT_INO, "abc", 3, 0, 0, NULL), -EISDIR);
	assert_int_equal(umbra_write(k.fs, 999999, "abc", 3, 0, 0, NULL), -ESTALE);
	ok(umbra_fsync(k.fs, f.ino, false));
	file_free(&f);
	kit_close(&k);
}

/* Pages that a cache kept back while the file was cut. */
static void late_pages_make_no_file_longer(void **state)
{
	uint8_t page[2 * B];
	struct kit k;
	struct file f;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 10 * B, 1);
	file_truncate(&k, &f, 3 * B + 100);
	pattern(page, sizeof(page), 2);
	assert_int_equal(umbra_write(k.fs, f.ino, page, B, 8 * B, UMBRA_WRITE_CACHED, NULL), B);
	file_verify(&k, &f);
	assert_int_equal(
		umbra_write(k.fs, f.ino, page, 2 * B, 2 * B, UMBRA_WRITE_CACHED, NULL), 2 * B);
	want_bytes(&f, 2 * B, page, B + 100);
	file_verify(&k, &f);
	assert_int_equal(file_size(&k, &f), 3 * B + 100);
	file_truncate(&k, &f, 0);
	assert_int_equal(umbra_write(k.fs, f.ino, page, B, 0, UMBRA_WRITE_CACHED, NULL), B);
	file_verify(&k, &f);
	assert_int_equal(file_blocks(&k, &f), 0);
	file_free(&f);
	kit_close(&k);
}

static void fallocating(struct kit *k)
{
	const int keep = FALLOC_FL_KEEP_SIZE;
	struct file f;
	struct map_sum sum;
	uint64_t pos;

	file_make(k, &f, "f", 8 << 20);
	ok(umbra_fallocate(k->fs, f.ino, keep, 0, 3 << 20));
	file_verify(k, &f);
	sum = file_map(k, &f);
	assert_int_equal(sum.unwritten, 768);
	assert_int_equal(file_blocks(k, &f), 768);
	file_write(k, &f, 5000, 100, 1);
	file_verify(k, &f);
	assert_int_equal(file_map(k, &f).unwritten, 767);
	ok(umbra_fallocate(k->fs, f.ino, 0, 0, 4 << 20));
	want_size(&f, 4 << 20);
	file_verify(k, &f);
	ok(umbra_lseek(k->fs, f.ino, 0, SEEK_DATA, &pos));
	assert_int_equal(pos, 4096);
	ok(umbra_lseek(k->fs, f.ino, pos, SEEK_HOLE, &pos));
	assert_int_equal(pos, 8192);
	file_write(k, &f, 0, 4 << 20, 2);
	assert_int_equal(file_map(k, &f).unwritten, 0);
	ok(umbra_fallocate(k->fs, f.ino, FALLOC_FL_PUNCH_HOLE | keep, 10000, 1000000));
	want_bytes(&f, 10000, NULL, 1000000);
	file_verify(k, &f);
	assert_int_equal(file_blocks(k, &f), 1024 - (1010000 / B - 3));
	ok(umbra_fallocate(k->fs, f.ino, FALLOC_FL_ZERO_RANGE, 2000001, 5000000));
	want_bytes(&f, 2000001, NULL, 5000000);
	file_verify(k, &f);
	ok(umbra_fallocate(k->fs, f.ino, FALLOC_FL_ZERO_RANGE | keep, 7000001, 1000));
	file_verify(k, &f);
	ok(umbra_fallocate(k->fs, f.ino, FALLOC_FL_PUNCH_HOLE | keep, 5, 100));
	want_bytes(&f, 5, NULL, 100);
	file_verify(k, &f);
	kit_crash(k);
	file_verify(k, &f);
	file_truncate(k, &f, 0);
	assert_int_equal(file_map(k, &f).blocks, 0);
	file_free(&f);
}

static void fallocate_prepares_punches_and_zeroes(void **state)
{
	(void)state;
	each_mode(fallocating);
}

/* Every second block, so that each is an extent of its own. */
static void fragment(struct kit *k, struct file *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		file_write(k, f, (uint64_t)i * 2 * B, B, i);
}

static void many_extents_are_truncated_in_steps(void **state)
{
	struct kit k;
	struct file f;
	uint64_t free_blocks;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	free_blocks = kit_free(&k);
	file_make(&k, &f, "f", 40 << 20);
	fragment(&k, &f, 4000);
	assert_int_equal(file_map(&k, &f).extents, 4000);
	file_verify(&k, &f);
	file_truncate(&k, &f, 1234567);
	file_verify(&k, &f);
	assert_int_equal(file_blocks(&k, &f), file_map(&k, &f).blocks);
	kit_crash(&k);
	file_verify(&k, &f);
	fragment(&k, &f, 3000);
	file_truncate(&k, &f, 0);
	assert_int_equal(file_map(&k, &f).blocks, 0);
	file_verify(&k, &f);
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "f"));
	umbra_forget(k.fs, f.ino, 1);
	assert_true(kit_free(&k) + 4 >= free_blocks);
	file_free(&f);
	kit_close(&k);
}

static void a_full_pool_says_so_and_recovers(void **state)
{
	struct kit k;
	struct file f;
	uint64_t free_blocks, off = 0;
	uint8_t *buf = calloc(1, 1 << 20);
	ssize_t n;

	(void)state;
	kit_open(&k, 32, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 1 << 20);
	free_blocks = kit_free(&k);
	for (int round = 0; round < 3; round++) {
		off = 0;
		while ((n = umbra_write(k.fs, f.ino, buf, 1 << 20, off, 0, NULL)) > 0)
			off += (uint64_t)n;
		assert_int_equal(n, -ENOSPC);
		assert_true(off > 16 << 20);
		assert_int_equal(file_size(&k, &f), off);
		assert_int_equal(umbra_fallocate(k.fs, f.ino, 0, off, 16 << 20), -ENOSPC);
		assert_int_equal(file_size(&k, &f), off);
		ok(um_data_resize(k.fs, f.ino, round == 1 ? 100 : 0, false));
		assert_true(kit_free(&k) + 1 >= free_blocks);
	}
	kit_remount(&k);
	file_free(&f);
	free(buf);
	kit_close(&k);
}

static void reads_give_pool_memory(void **state)
{
	struct kit k;
	struct file f;
	struct iovec iov[16];
	unsigned n;
	size_t len, sum = 0;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 8 << 20);
	file_write(&k, &f, 0, 10000, 1);
	file_truncate(&k, &f, 5 << 20);
	file_write(&k, &f, 4 << 20, 10000, 1);
	umbra_read_begin(k.fs);
	ok(umbra_read_iov(k.fs, f.ino, 100, 8 << 20, iov, 16, &n, &len));
	assert_int_equal(len, (5 << 20) - 100);
	assert_true(n <= 6);
	assert_true((uint8_t *)iov[0].iov_base > k.base);
	assert_true((uint8_t *)iov[0].iov_base < k.base + k.size);
	for (unsigned i = 0; i < n; i++) {
		assert_memory_equal(iov[i].iov_base, f.want + 100 + sum, iov[i].iov_len);
		sum += iov[i].iov_len;
	}
	assert_int_equal(sum, len);
	ok(umbra_read_iov(k.fs, f.ino, 100, 8 << 20, iov, 1, &n, &len));
	assert_int_equal(n, 1);
	assert_int_equal(len, iov[0].iov_len);
	ok(umbra_read_iov(k.fs, f.ino, 5 << 20, 1, iov, 1, &n, &len));
	assert_int_equal(n, 0);
	umbra_read_end(k.fs);
	file_free(&f);
	kit_close(&k);
}

/* The first transaction of a truncation was made, then the power failed. */
static void a_truncation_cut_short_goes_on_at_mount(void **state)
{
	struct kit k;
	struct file f;
	struct um_inode inode;
	struct um_txn *txn;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", 20 << 20);
	fragment(&k, &f, 1000);
	ok(um_txn_begin(k.fs->log, UM_TXN_RESERVE, &txn));
	ok(um_inode_load(um_txn_src(txn), f.ino, &inode));
	inode.core.size = 101 * B;
	inode.core.blocks = 51;
	ok(um_inode_store(txn, &inode));
	ok(um_orphan_add(txn, f.ino, UM_ORPHAN_TRUNCATE, 101));
	ok(um_txn_commit(txn));
	want_size(&f, 101 * B);
	kit_crash(&k);
	assert_int_equal(file_map(&k, &f).blocks, 51);
	file_truncate(&k, &f, 20 << 20);
	file_verify(&k, &f);
	assert_int_equal(file_blocks(&k, &f), 51);
	file_free(&f);
	kit_close(&k);
}

static void damage(struct kit *k, um_ino_t ino, struct um_extent e, uint64_t key)
{
	struct um_inode inode;
	struct um_tree tree;
	struct um_txn *txn;

	ok(um_txn_begin(k->fs->log, 0, &txn));
	ok(um_inode_load(um_txn_src(txn), ino, &inode));
	um_inode_tree(&inode, UM_FORK_DATA, &tree);
	ok(um_tree_insert(txn, &tree, key, &e, sizeof(e)));
	um_inode_set_tree(&inode, UM_FORK_DATA, &tree);
	ok(um_inode_store(txn, &inode));
	ok(um_txn_commit(txn));
}

static void impossible_extents_are_refused(void **state)
{
	static const struct um_extent bad[] = {
		{.addr = 0, .len = 1},
		{.addr = 2000, .len = 0},
		{.addr = 2000, .len = 513},
		{.addr = 2047, .len = 2},
		{.addr = 1ull << 40, .len = 1},
		{.addr = 2000 | 1ull << 55, .len = 1},
		{.addr = 2000, .len = 400, .pad = 1},
	};
	struct kit k;
	uint8_t buf[3 * B] = {0};
	uint64_t pos;
	char name[2] = "a";

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++, name[0]++) {
		uint64_t ino = file_ino(&k, name);

		ok(um_data_resize(k.fs, ino, 10 * B, false));
		damage(&k, ino, bad[i], 1);
		assert_int_equal(umbra_read(k.fs, ino, buf, sizeof(buf), 0), -EUCLEAN);
		assert_int_equal(umbra_write(k.fs, ino, buf, sizeof(buf), 0, 0, NULL), -EUCLEAN);
		assert_int_equal(umbra_lseek(k.fs, ino, 0, SEEK_DATA, &pos), -EUCLEAN);
		assert_int_equal(um_data_resize(k.fs, ino, B / 2, false), -EUCLEAN);
		assert_int_equal(umbra_fallocate(k.fs, ino, 0, 0, 10 * B), -EUCLEAN);
	}
	umbra_abandon(k.fs);
	free(k.base);
}

/* ---- at random --------------------------------------------------------------------------------------- */

#define RANDOM_SIZE (600u << 10)

static uint64_t rnd(uint64_t *seed, uint64_t n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return n ? (*seed >> 20) % n : 0;
}

static void random_op(struct kit *k, struct file *f, uint64_t *seed)
{
	uint64_t op = rnd(seed, 100), off = rnd(seed, RANDOM_SIZE);
	uint64_t len = 1 + rnd(seed, rnd(seed, 4) ? 9000 : RANDOM_SIZE);

	if (rnd(seed, 2))
		off &= ~(uint64_t)(B - 1);
	if (len > RANDOM_SIZE - off)
		len = RANDOM_SIZE - off;
	if (op < 45) {
		file_write(k, f, off, len, *seed);
	} else if (op < 60) {
		file_truncate(k, f, op < 50 ? off % 1000 : off);
	} else if (op < 75) {
		ok(umbra_fallocate(
			k->fs, f->ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len));
		if (off < f->size)
			memset(f->want + off, 0, off + len < f->size ? len : f->size - off);
	} else if (op < 85) {
		ok(umbra_fallocate(k->fs, f->ino, FALLOC_FL_ZERO_RANGE, off, len));
		want_bytes(f, off, NULL, len);
	} else if (op < 90) {
		ok(umbra_fallocate(
			k->fs, f->ino, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len));
		if (off < f->size)
			memset(f->want + off, 0, off + len < f->size ? len : f->size - off);
	} else {
		ok(umbra_fallocate(k->fs, f->ino, op < 95 ? FALLOC_FL_KEEP_SIZE : 0, off, len));
		if (op >= 95 && off + len > f->size)
			f->size = off + len;
	}
}

static void at_random(struct kit *k)
{
	struct file f;
	uint64_t seed = 12345;

	file_make(k, &f, "f", RANDOM_SIZE);
	for (int i = 0; i < 3000; i++) {
		random_op(k, &f, &seed);
		file_verify(k, &f);
		assert_int_equal(file_blocks(k, &f) -
					 (file_map(k, &f).inline_bytes ? file_blocks(k, &f) : 0),
			file_map(k, &f).blocks);
		if (i % 500 == 250)
			kit_remount(k);
		if (i % 500 == 0)
			kit_crash(k);
	}
	file_free(&f);
}

static void random_operations_agree_with_a_plain_array(void **state)
{
	(void)state;
	each_mode(at_random);
}

/* ---- indirect pools: the daemon dies between what it stores and the record of it ------------------ */

static const struct um_pool_ops *file_ops;

static int die_at_the_journal(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	const struct um_super *super = &pool->super;
	um_lba_t lba = off >> UM_BLOCK_SHIFT;

	if (lba - super->journal_lba < super->journal_blocks ||
		lba - super->journal_mirror < super->journal_blocks)
		_exit(9);
	return file_ops->write(pool, off, src, len);
}

/* In a process of its own, which does not come to its end. */
static void killed(struct kit *k, void (*change)(struct kit *k, uint64_t ino), uint64_t ino)
{
	static struct um_pool_ops ops;
	int status;
	pid_t pid;

	ok(umbra_sync(k->fs));
	ok(umbra_close(k->fs));
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		kit_mount(k);
		file_ops = k->fs->pool->ops;
		ops = *file_ops;
		ops.write = die_at_the_journal;
		k->fs->pool->ops = &ops;
		change(k, ino);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 9);
	kit_check(k);
	kit_mount(k);
}

static void cut_inside_a_block(struct kit *k, uint64_t ino)
{
	struct umbra_attr attr = {.st.st_size = 4500};

	umbra_setattr(k->fs, ino, &attr, UMBRA_SET_SIZE, NULL);
}

static void append_inside_a_block(struct kit *k, uint64_t ino)
{
	umbra_write(k->fs, ino, "unacknowledged", 14, 5000, 0, NULL);
}

static void a_killed_daemon_leaves_no_half_of_a_truncate_or_append(void **state)
{
	struct file f;
	struct kit k;

	(void)state;
	kit_open_file(&k, "test_data.pool", 16);
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 5000, 1);
	killed(&k, cut_inside_a_block, f.ino);
	file_verify(&k, &f);
	killed(&k, append_inside_a_block, f.ino);
	file_verify(&k, &f);
	file_truncate(&k, &f, 6000);
	file_verify(&k, &f);
	file_truncate(&k, &f, 5000);
	killed(&k, append_inside_a_block, f.ino);
	file_write(&k, &f, 7000, 100, 2);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

static atomic_bool below_is_full;

static int write_home_if_room(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n)
{
	return atomic_load(&below_is_full) ? -ENOSPC : file_ops->writeback(pool, lba, images, n);
}

/* Until the journal is full and cannot be emptied. */
static void fill_journal(struct kit *k, unsigned *n)
{
	struct umbra_attr attr;
	char name[16];
	int err;

	do {
		snprintf(name, sizeof(name), "n%u", (*n)++);
		err = umbra_mknod(k->fs, UM_ROOT_INO, name, S_IFREG | 0644, 0, NULL, &attr);
		if (!err)
			umbra_forget(k->fs, attr.st.st_ino, 1);
	} while (!err);
	assert_int_equal(err, -ENOSPC);
}

static void removed_files_are_freed_after_the_file_below_was_full(void **state)
{
	struct statvfs before, after;
	struct um_pool_ops ops;
	struct file f;
	struct kit k;
	unsigned n = 0;

	(void)state;
	kit_open_file(&k, "test_data.pool", 16);
	file_ops = k.fs->pool->ops;
	ops = *file_ops;
	ops.writeback = write_home_if_room;
	k.fs->pool->ops = &ops;
	file_make(&k, &f, "f", 1 << 20);
	file_write(&k, &f, 0, 1 << 20, 1);
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "f"));
	atomic_store(&below_is_full, true);
	fill_journal(&k, &n);
	umbra_forget(k.fs, f.ino, 1);
	ok(umbra_statfs(k.fs, &before));
	usleep(100000);
	atomic_store(&below_is_full, false);
	for (unsigned i = 0; i < 50; i++) {
		usleep(100000);
		ok(umbra_statfs(k.fs, &after));
		if (after.f_bfree >= before.f_bfree + 256)
			break;
	}
	assert_true(after.f_bfree >= before.f_bfree + 256);
	k.fs->pool->ops = file_ops;
	file_free(&f);
	kit_close(&k);
}

/* ---- a truncation that fails after its first transaction -------------------------------------------- */

static const struct um_pool_ops *image_ops;
static int records_left; /* that the journal still takes */

static int fail_at_the_journal(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	const struct um_super *super = &pool->super;
	um_lba_t lba = off >> UM_BLOCK_SHIFT;
	bool first = lba - super->journal_lba < super->journal_blocks;
	bool second = lba - super->journal_mirror < super->journal_blocks;

	/* Records, not the tail nor what voids a record; a record goes to the second copy first. */
	if ((first || second) && len > sizeof(struct um_record)) {
		if (!records_left)
			return -EIO;
		records_left -= first;
	}
	return image_ops->write(pool, off, src, len);
}

static void a_truncation_that_failed_half_way_shows_nothing_old(void **state)
{
	const unsigned n = 6000;
	struct um_pool_ops ops;
	struct umbra_attr attr = {.st.st_size = B};
	uint8_t block[B];
	struct file f;
	struct kit k;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", B);
	memset(block, 1, B);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(
			umbra_write(k.fs, f.ino, block, B, (uint64_t)i * 2 * B, 0, NULL), B);
	um_log_on_error(k.fs->log, true, NULL, NULL); /* as errors=continue */
	image_ops = k.fs->pool->ops;
	ops = *image_ops;
	ops.write = fail_at_the_journal;
	records_left = 1;
	k.fs->pool->ops = &ops;
	assert_int_equal(umbra_setattr(k.fs, f.ino, &attr, UMBRA_SET_SIZE, NULL), -EIO);
	k.fs->pool->ops = image_ops;
	attr.st.st_size = (off_t)n * 2 * B;
	ok(umbra_setattr(k.fs, f.ino, &attr, UMBRA_SET_SIZE, NULL));
	for (unsigned i = 1; i < n; i++) {
		assert_int_equal(umbra_read(k.fs, f.ino, block, B, (uint64_t)i * 2 * B), B);
		assert_int_equal(block[0], 0);
	}
	attr.st.st_size = B;
	ok(umbra_setattr(k.fs, f.ino, &attr, UMBRA_SET_SIZE, &attr));
	assert_int_equal(attr.st.st_blocks, B / 512);
	file_free(&f);
	kit_close(&k);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_content_lives_in_the_inode),
		cmocka_unit_test(appends_stay_in_one_piece),
		cmocka_unit_test(files_that_grow_together_keep_apart),
		cmocka_unit_test(overwrites_keep_the_layout),
		cmocka_unit_test(bytes_behind_the_end_read_as_zero_when_it_moves),
		cmocka_unit_test(huge_offsets_work_to_the_last_byte),
		cmocka_unit_test(append_goes_to_the_end),
		cmocka_unit_test(late_pages_make_no_file_longer),
		cmocka_unit_test(fallocate_prepares_punches_and_zeroes),
		cmocka_unit_test(many_extents_are_truncated_in_steps),
		cmocka_unit_test(a_full_pool_says_so_and_recovers),
		cmocka_unit_test(reads_give_pool_memory),
		cmocka_unit_test(a_truncation_cut_short_goes_on_at_mount),
		cmocka_unit_test(a_killed_daemon_leaves_no_half_of_a_truncate_or_append),
		cmocka_unit_test(removed_files_are_freed_after_the_file_below_was_full),
		cmocka_unit_test(a_truncation_that_failed_half_way_shows_nothing_old),
		cmocka_unit_test(impossible_extents_are_refused),
		cmocka_unit_test(random_operations_agree_with_a_plain_array),
	};

	kit_without_pmem(argv);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
