/* SPDX-License-Identifier: BSD-3-Clause */
/* Sharing: clone, range clone, copy_file_range, dedupe, and what happens to sharers afterwards. */
#include "datakit.h"

#define CAP (4u << 20)

static void want_copy(
	struct file *dst, uint64_t dst_off, const struct file *src, uint64_t src_off, uint64_t len)
{
	want_bytes(dst, dst_off, src->want + src_off, len);
}

static void clone_file(struct kit *k, const struct file *src, struct file *dst)
{
	ok(umbra_clone(k->fs, src->ino, dst->ino));
	want_copy(dst, 0, src, 0, src->size);
}

static void remove_file(struct kit *k, struct file *f, const char *name)
{
	ok(umbra_unlink(k->fs, UM_ROOT_INO, name));
	umbra_forget(k->fs, f->ino, 1);
	file_free(f);
}

/* Every second block, so that each is an extent of its own. */
static void fragment(struct kit *k, struct file *f, unsigned n, uint64_t seed)
{
	for (unsigned i = 0; i < n; i++)
		file_write(k, f, (uint64_t)i * 2 * B, B, seed + i);
}

static void pair(struct kit *k, struct file *a, struct file *b)
{
	kit_open(k, 64, UMBRA_DATA_ATOMIC);
	file_make(k, a, "a", CAP);
	file_make(k, b, "b", CAP);
}

static void unpair(struct kit *k, struct file *a, struct file *b)
{
	file_verify(k, a);
	file_verify(k, b);
	kit_remount(k);
	file_verify(k, a);
	file_verify(k, b);
	file_free(a);
	file_free(b);
	kit_close(k);
}

static void clone_then_write_leaves_source_unchanged(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t used;

	(void)state;
	pair(&k, &a, &b);
	fragment(&k, &a, 400, 1);
	used = kit_free(&k);
	clone_file(&k, &a, &b);
	assert_true(used - kit_free(&k) <= 4);
	assert_int_equal(file_map(&k, &b).shared, 400);
	assert_int_equal(file_map(&k, &a).shared, 400);
	file_verify(&k, &b);
	file_write(&k, &b, 100000, 10, 2);
	file_write(&k, &a, 300000, 5000, 3);
	file_write(&k, &b, 500000, 100000, 4);
	file_truncate(&k, &a, 700001);
	ok(umbra_fallocate(k.fs, b.ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 200000, 50000));
	want_bytes(&b, 200000, NULL, 50000);
	ok(umbra_fallocate(k.fs, b.ino, FALLOC_FL_ZERO_RANGE, 20000, 50001));
	want_bytes(&b, 20000, NULL, 50001);
	assert_int_equal(file_blocks(&k, &b), file_map(&k, &b).blocks);
	kit_crash(&k);
	unpair(&k, &a, &b);
}

/* Whatever the order of the writes: windows of 32 blocks, each in one piece. */
static void copies_lie_as_in_the_file(void **state)
{
	struct kit k;
	struct file a, b;
	struct map_sum sum;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 256 * B, 1);
	clone_file(&k, &a, &b);
	for (unsigned i = 0; i < 256; i++)
		file_write(&k, &b, (uint64_t)(i * 37 % 256) * B, B, 2 + i);
	sum = file_map(&k, &b);
	assert_int_equal(sum.shared, 0);
	assert_int_equal(sum.blocks, 256);
	assert_true(sum.extents <= 8);
	unpair(&k, &a, &b);
}

static void every_kind_of_small_file_clones(void **state)
{
	static const uint64_t sizes[] = {0, 1, 480, 481, 4096, 5000, 40000, 65535, 65536, 200000};
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		file_truncate(&k, &a, 0);
		file_truncate(&k, &b, 0);
		if (sizes[i])
			file_write(&k, &a, 0, sizes[i], i);
		clone_file(&k, &a, &b);
		file_verify(&k, &b);
		file_write(&k, &b, sizes[i] / 2, 1, i);
		file_write(&k, &a, sizes[i], 10, i);
		file_verify(&k, &a);
		file_verify(&k, &b);
		clone_file(&k, &a, &b); /* over content */
		file_verify(&k, &b);
	}
	unpair(&k, &a, &b);
}

static void unwritten_blocks_are_shared_and_never_converted(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	ok(umbra_fallocate(k.fs, a.ino, 0, 0, 1 << 20));
	want_size(&a, 1 << 20);
	file_write(&k, &a, 5000, 1000, 1);
	clone_file(&k, &a, &b);
	file_write(&k, &b, 100000, 10000, 2);
	file_write(&k, &a, 104000, 10000, 3);
	file_verify(&k, &a);
	file_verify(&k, &b);
	file_write(&k, &a, 0, 1 << 20, 4);
	unpair(&k, &a, &b);
}

static void one_root_with_two_sizes(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 300001, 1);
	clone_file(&k, &a, &b);
	file_truncate(&k, &b, 1000000);
	file_verify(&k, &b);
	file_write(&k, &a, 300001, 50, 2);
	file_verify(&k, &a);
	file_verify(&k, &b);
	file_truncate(&k, &b, 299999);
	file_truncate(&k, &b, 300005);
	clone_file(&k, &a, &b);
	file_truncate(&k, &b, 0);
	file_verify(&k, &a);
	unpair(&k, &a, &b);
}

static uint64_t commits(struct kit *k)
{
	struct um_log_stats stats;

	um_log_stats(k->fs->log, &stats);
	return stats.commits;
}

static void removing_a_clone_costs_nothing_and_frees_nothing_shared(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t before, n;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	before = kit_free(&k);
	file_make(&k, &a, "a", 16 << 20);
	file_make(&k, &b, "b", 16 << 20);
	fragment(&k, &a, 2000, 1);
	n = commits(&k);
	clone_file(&k, &a, &b);
	assert_int_equal(commits(&k) - n, 1);
	file_truncate(&k, &b, 0);
	assert_int_equal(commits(&k) - n, 2);
	clone_file(&k, &a, &b);
	file_verify(&k, &b);
	remove_file(&k, &b, "b");
	kit_free(&k);
	file_verify(&k, &a);
	assert_int_equal(file_map(&k, &a).shared, 0);
	remove_file(&k, &a, "a");
	assert_true(kit_free(&k) + 4 >= before);
	kit_close(&k);
}

static void a_removed_open_file_can_be_cloned(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 200000, 1);
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "a"));
	clone_file(&k, &a, &b);
	umbra_forget(k.fs, a.ino, 1);
	um_reaper_wait(k.fs, 1000);
	file_verify(&k, &b);
	assert_int_equal(file_map(&k, &b).shared, 0);
	kit_remount(&k);
	file_verify(&k, &b);
	file_free(&a);
	file_free(&b);
	kit_close(&k);
}

static void clone_range(
	struct kit *k, struct file *a, uint64_t off, uint64_t len, struct file *b, uint64_t to)
{
	ok(umbra_clone_range(k->fs, a->ino, off, len, b->ino, to));
	want_copy(b, to, a, off, len ? len : a->size - off);
}

static void ranges_share_blocks(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	fragment(&k, &a, 200, 1);
	file_write(&k, &a, 1 << 20, 100001, 7);
	file_write(&k, &b, 0, 3 << 20, 2);
	clone_range(&k, &a, 8 * B, 100 * B, &b, 3 * B);
	file_verify(&k, &b);
	assert_true(file_map(&k, &b).shared >= 50);
	clone_range(&k, &a, 1 << 20, 0, &b, 3 << 20);
	file_verify(&k, &b);
	clone_range(&k, &a, 0, 64 * B, &a, 100 * B);
	file_verify(&k, &a);
	assert_int_equal(file_blocks(&k, &a), file_map(&k, &a).blocks);
	assert_int_equal(file_blocks(&k, &b), file_map(&k, &b).blocks);
	file_write(&k, &a, 10 * B + 5, 30 * B, 3);
	kit_crash(&k);
	unpair(&k, &a, &b);
}

static bool after_two_steps(void *arg)
{
	return ++*(unsigned *)arg > 2;
}

/* The end of the last block with data. */
static uint64_t data_end(struct kit *k, const struct file *f)
{
	uint64_t at = 0, end = 0;

	while (!umbra_lseek(k->fs, f->ino, at, SEEK_DATA, &at))
		end = at += B;
	return end;
}

/* What was done until then stays, in whole steps, and the counts are right. */
static void range_clones_can_be_stopped(void **state)
{
	unsigned asked = 0;
	struct umbra_clone_bounds bounds = {after_two_steps, &asked, 0};
	struct kit k;
	struct file a, b;
	uint64_t done;

	(void)state;
	pair(&k, &a, &b);
	fragment(&k, &a, 500, 1);
	file_truncate(&k, &b, 900 * B);
	assert_int_equal(
		umbra_clone_range_until(k.fs, a.ino, 8 * B, 900 * B, b.ino, 0, &bounds), -EINTR);
	assert_int_equal(asked, 3);
	done = data_end(&k, &b);
	assert_true(done > 0 && done < 900 * B);
	want_copy(&b, 0, &a, 8 * B, done);
	file_verify(&k, &b);
	assert_true(file_map(&k, &b).shared > 0);
	/* But it is not longer than it was. */
	file_truncate(&k, &b, 10 * B + 1);
	asked = 0;
	bounds.end = 900 * B;
	assert_int_equal(
		umbra_clone_range_until(k.fs, a.ino, 8 * B, 900 * B, b.ino, 0, &bounds), -EINTR);
	assert_int_equal(asked, 3);
	want_copy(&b, 0, &a, 8 * B, 10 * B + 1);
	file_verify(&k, &b);
	file_truncate(&k, &b, 20 * B);
	clone_range(&k, &a, 8 * B, 900 * B, &b, 0);
	file_verify(&k, &b);
	unpair(&k, &a, &b);
}

static int clone_to(struct kit *k, const struct file *a, uint64_t off, uint64_t len,
	const struct file *b, uint64_t to, uint64_t *end)
{
	struct umbra_clone_bounds bounds = {NULL, NULL, *end};
	int err = umbra_clone_range_until(k->fs, a->ino, off, len, b->ino, to, &bounds);

	*end = bounds.end;
	return err;
}

static void clones_end_where_they_are_expected_to(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t end = 0;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 20 * B + 5, 1);
	file_write(&k, &b, 0, 10 * B, 2);
	/* Not longer: nothing is done, and the answer is where it would end. */
	assert_int_equal(clone_to(&k, &a, 0, 0, &b, 0, &end), -EAGAIN);
	assert_int_equal(end, 20 * B + 5);
	file_verify(&k, &b);
	end = 0;
	assert_int_equal(clone_to(&k, &a, B, 2 * B, &b, 9 * B, &end), -EAGAIN);
	assert_int_equal(end, 11 * B);
	file_verify(&k, &b);
	end = 0;
	ok(clone_to(&k, &a, B, 2 * B, &b, 8 * B, &end));
	want_copy(&b, 8 * B, &a, B, 2 * B);
	file_verify(&k, &b);
	/* Exactly there, though the source has another size by now. */
	end = 20 * B;
	assert_int_equal(clone_to(&k, &a, 0, 0, &b, 0, &end), -EAGAIN);
	assert_int_equal(end, 20 * B + 5);
	file_truncate(&k, &a, 8 * B);
	assert_int_equal(clone_to(&k, &a, 0, 0, &b, 0, &end), -EAGAIN);
	assert_int_equal(end, 8 * B);
	file_verify(&k, &b);
	end = 12 * B;
	ok(clone_to(&k, &a, 0, 0, &b, 4 * B, &end));
	want_copy(&b, 4 * B, &a, 0, 8 * B);
	file_verify(&k, &b);
	unpair(&k, &a, &b);
}

static void inline_sources_go_into_ranges(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 333, 1);
	file_write(&k, &b, 0, 100000, 2);
	assert_int_equal(umbra_clone_range(k.fs, a.ino, 0, 0, b.ino, 4 * B), -EINVAL);
	clone_range(&k, &a, 0, 0, &b, 30 * B);
	file_verify(&k, &b);
	file_truncate(&k, &a, 10 * B);
	clone_range(&k, &a, 0, 5 * B, &b, 2 * B);
	file_verify(&k, &b);
	file_truncate(&k, &b, 0);
	file_write(&k, &b, 0, 100, 3);
	file_write(&k, &a, 4 * B, 2 * B, 4);
	clone_range(&k, &a, 4 * B, 2 * B, &b, 4 * B);
	unpair(&k, &a, &b);
}

static void errors_are_the_kernels(void **state)
{
	struct kit k;
	struct file a, b;
	struct umbra_fs *fs;
	bool same;
	uint64_t done;

	(void)state;
	pair(&k, &a, &b);
	fs = k.fs;
	file_write(&k, &a, 0, 10 * B + 5, 1);
	file_write(&k, &b, 0, 20 * B, 2);
	assert_int_equal(umbra_clone_range(fs, a.ino, 1, B, b.ino, 0), -EINVAL);
	assert_int_equal(umbra_clone_range(fs, a.ino, 0, B, b.ino, 1), -EINVAL);
	assert_int_equal(umbra_clone_range(fs, a.ino, 0, B + 1, b.ino, 0), -EINVAL);
	assert_int_equal(umbra_clone_range(fs, a.ino, 0, 100 * B, b.ino, 0), -EINVAL);
	assert_int_equal(umbra_clone_range(fs, a.ino, 20 * B, B, b.ino, 0), -EINVAL);
	assert_int_equal(umbra_clone_range(fs, a.ino, 0, 2 * B, a.ino, B), -EINVAL);
	assert_int_equal(umbra_clone(fs, a.ino, a.ino), -EINVAL);
	assert_int_equal(umbra_clone(fs, a.ino, b.ino), -EINVAL); /* ragged end inside of b */
	assert_int_equal(umbra_clone(fs, UM_ROOT_INO, b.ino), -EISDIR);
	assert_int_equal(umbra_clone(fs, a.ino, UM_ROOT_INO), -EISDIR);
	assert_int_equal(umbra_clone(fs, a.ino, 123456), -ESTALE);
	assert_int_equal(umbra_clone_range(
				 fs, b.ino, 0, 20 * B, a.ino, (INT64_MAX & ~(uint64_t)(B - 1)) - B),
		-EFBIG);
	assert_int_equal(umbra_copy_range(fs, a.ino, 0, a.ino, B, 2 * B), -EINVAL);
	assert_int_equal(umbra_copy_range(fs, a.ino, 100 * B, b.ino, 0, B), 0);
	assert_int_equal(umbra_dedupe_range(fs, a.ino, 0, 30 * B, b.ino, 0, &same, &done), -EINVAL);
	ok(umbra_set_flags(fs, b.ino, 0x10 /* immutable */));
	assert_int_equal(umbra_clone(fs, a.ino, b.ino), -EPERM);
	assert_int_equal(umbra_copy_range(fs, a.ino, 0, b.ino, 0, B), -EPERM);
	assert_int_equal(umbra_fallocate(fs, b.ino, 0, 0, B), -EPERM);
	ok(umbra_set_flags(fs, b.ino, 0));
	unpair(&k, &a, &b);
}

static void copy(
	struct kit *k, struct file *a, uint64_t off, struct file *b, uint64_t to, uint64_t len)
{
	uint64_t n = off >= a->size ? 0 : len < a->size - off ? len : a->size - off;

	assert_int_equal(umbra_copy_range(k->fs, a->ino, off, b->ino, to, len), n);
	if (n)
		want_copy(b, to, a, off, n);
}

static void copy_range_shares_what_aligns(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 1000001, 1);
	copy(&k, &a, 0, &b, 0, SIZE_MAX);
	file_verify(&k, &b);
	assert_int_equal(file_map(&k, &b).shared, 245);
	copy(&k, &a, 100, &b, 2 * B + 100, 500000);
	file_verify(&k, &b);
	assert_true(file_map(&k, &b).shared > 200);
	copy(&k, &a, 77, &b, 2000000, 300000);
	file_verify(&k, &b);
	file_truncate(&k, &a, 3000000);
	file_truncate(&k, &b, 0);
	copy(&k, &a, 99, &b, 0, 3000000);
	file_verify(&k, &b);
	assert_true(file_map(&k, &b).blocks < 300); /* the hole stayed one */
	unpair(&k, &a, &b);
}

static void dedupe_shares_equal_content_only(void **state)
{
	struct kit k;
	struct file a, b;
	bool same;
	uint64_t done;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 1000001, 1);
	file_write(&k, &b, 0, 1000001, 1);
	assert_int_equal(file_map(&k, &b).shared, 0);
	ok(umbra_dedupe_range(k.fs, a.ino, 0, 16 * B, b.ino, 0, &same, &done));
	assert_true(same);
	assert_int_equal(done, 16 * B);
	assert_int_equal(file_map(&k, &b).shared, 16);
	file_write(&k, &b, 500000, 1, 9);
	ok(umbra_dedupe_range(k.fs, a.ino, 0, 1000001, b.ino, 0, &same, &done));
	assert_false(same);
	assert_int_equal(done, 0);
	file_verify(&k, &b);
	ok(umbra_dedupe_range(k.fs, a.ino, 20 * B, 1000001 - 20 * B, b.ino, 20 * B, &same, &done));
	assert_false(same);
	file_write(&k, &a, 500000, 1, 9);
	ok(umbra_dedupe_range(k.fs, a.ino, 16 * B, 1000001 - 16 * B, b.ino, 16 * B, &same, &done));
	assert_true(same);
	assert_int_equal(done, 1000001 - 16 * B);
	file_verify(&k, &b);
	assert_int_equal(file_map(&k, &b).shared, 245);
	unpair(&k, &a, &b);
}

static uint64_t root_of(struct kit *k, const struct file *f)
{
	struct um_inode inode;

	ok(um_inode_read(k->fs, f->ino, &inode));
	return inode.core.data.format == UM_ROOT_NODE ? inode.core.data.ptr.lba : 0;
}

static void deduped_piece_by_piece_files_adopt_one_root(void **state)
{
	struct kit k;
	struct file a, b;
	bool same;
	uint64_t done;

	(void)state;
	pair(&k, &a, &b);
	fragment(&k, &a, 400, 1);
	fragment(&k, &b, 400, 1);
	assert_true(root_of(&k, &a) != root_of(&k, &b));
	for (uint64_t off = 0; off < a.size; off += 64 * B) {
		uint64_t len = a.size - off < 64 * B ? a.size - off : 64 * B;

		ok(umbra_dedupe_range(k.fs, a.ino, off, len, b.ino, off, &same, &done));
		assert_true(same);
	}
	assert_true(root_of(&k, &a) && root_of(&k, &a) == root_of(&k, &b));
	unpair(&k, &a, &b);
}

static void inline_files_dedupe_without_sharing(void **state)
{
	struct kit k;
	struct file a, b;
	bool same;
	uint64_t done;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, 0, 300, 1);
	file_write(&k, &b, 0, 300, 1);
	ok(umbra_dedupe_range(k.fs, a.ino, 0, 300, b.ino, 0, &same, &done));
	assert_true(same);
	assert_int_equal(done, 300);
	file_write(&k, &b, 299, 1, 9);
	ok(umbra_dedupe_range(k.fs, a.ino, 0, 300, b.ino, 0, &same, &done));
	assert_false(same);
	unpair(&k, &a, &b);
}

/* ---- counts at their limit ----------------------------------------------------------------------------- */

/* Of a block in a chunk that is in use in part. */
static void set_count(struct kit *k, um_lba_t lba, uint32_t count)
{
	struct um_txn *txn;
	uint32_t now, run;
	void *block;

	um_reaper_wait(k->fs, 5000); /* nothing that is still going may count */
	ok(um_txn_begin(k->fs->log, 0, &txn));
	ok(um_txn_edit(txn, um_refs_ptr(k->fs->pool, um_chunk_of(lba)), UM_KIND_REF, &block));
	((struct um_refs *)block)->count[lba % UM_CHUNK_BLOCKS] = count;
	ok(um_txn_commit(txn));
	um_log_read_lock(k->fs->log);
	ok(um_ref_count(um_fs_src(k->fs), lba, 1, &now, &run));
	um_log_read_unlock(k->fs->log);
	assert_int_equal(now, count);
}

static int first_lba(void *arg, const struct umbra_extent *e)
{
	*(uint64_t *)arg = e->lba;
	return 1;
}

static void counts_at_their_limit_make_copies(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t lba = 0, root;

	(void)state;
	pair(&k, &a, &b);
	fragment(&k, &a, 300, 1);
	/* The root: its children are shared one by one. */
	clone_file(&k, &a, &b);
	file_truncate(&k, &b, 0);
	root = root_of(&k, &a);
	assert_true(root);
	set_count(&k, root, UM_REF_MAX);
	clone_file(&k, &a, &b);
	file_verify(&k, &b);
	assert_int_equal(file_map(&k, &b).shared, 300);
	file_truncate(&k, &b, 0);
	/* A block: it is copied. */
	assert_int_equal(umbra_map(k.fs, a.ino, 598 * B, B, first_lba, &lba), 1);
	set_count(&k, lba, UM_REF_MAX);
	clone_file(&k, &a, &b);
	file_verify(&k, &b);
	assert_true(file_map(&k, &b).shared < 300);
	file_truncate(&k, &b, 0);
	set_count(&k, root, 1);
	/* A block below a shared root: who writes gets a tree of its own with a copy of the block. */
	clone_file(&k, &a, &b);
	file_write(&k, &b, 596 * B, 10, 2);
	file_verify(&k, &b);
	clone_file(&k, &a, &b);
	file_truncate(&k, &a, 598 * B);
	file_verify(&k, &a);
	set_count(&k, lba, 1);
	unpair(&k, &a, &b);
}

/* On a plain file the removal is not durable yet, and blocks are still copied when they are written. */
static void maps_show_the_owners_there_are(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	kit_open_file(&k, "test_clone.pool", 64);
	file_make(&k, &a, "a", CAP);
	file_make(&k, &b, "b", CAP);
	fragment(&k, &a, 300, 1);
	clone_file(&k, &a, &b);
	assert_int_equal(file_map(&k, &a).shared, 300);
	file_truncate(&k, &b, 0);
	um_reaper_wait(k.fs, 5000);
	assert_int_equal(file_map(&k, &a).shared, 0);
	unpair(&k, &a, &b);
}

/* ---- many ---------------------------------------------------------------------------------------------- */

#define CLONES 300

static void many_clones_written_and_removed_give_everything_back(void **state)
{
	struct kit k;
	struct file a, c[CLONES];
	uint64_t before;
	char name[32];

	(void)state;
	kit_open(&k, 128, UMBRA_DATA_ATOMIC);
	file_make(&k, &a, "a", 1 << 20);
	fragment(&k, &a, 100, 1);
	before = kit_free(&k);
	for (int i = 0; i < CLONES; i++) {
		snprintf(name, sizeof(name), "c%04d", i);
		file_make(&k, &c[i], name, 1 << 20);
		clone_file(&k, i ? &c[i - 1] : &a, &c[i]);
		file_write(&k, &c[i], (uint64_t)i * 2711, 1, (uint64_t)i);
	}
	for (int i = 0; i < CLONES; i += 7)
		file_verify(&k, &c[i]);
	kit_remount(&k);
	for (int i = 0; i < CLONES; i++) {
		int j = i * 149 % CLONES;

		snprintf(name, sizeof(name), "c%04d", j);
		remove_file(&k, &c[j], name);
	}
	assert_true(kit_free(&k) + 40 >= before); /* what the inode tree and directory keep */
	file_verify(&k, &a);
	assert_int_equal(file_map(&k, &a).shared, 0);
	file_free(&a);
	kit_close(&k);
}

/* ---- at random ------------------------------------------------------------------------------------------ */

#define NFILES 4u
#define RANDOM_SIZE (400u << 10)

static uint64_t rnd(uint64_t *seed, uint64_t n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return n ? (*seed >> 20) % n : 0;
}

static void random_share(struct kit *k, struct file *a, struct file *b, uint64_t *seed)
{
	uint64_t off = rnd(seed, RANDOM_SIZE), to = rnd(seed, RANDOM_SIZE);
	uint64_t len = 1 + rnd(seed, RANDOM_SIZE), op = rnd(seed, 10), done;
	bool same;
	int err;

	if (op >= 5) {
		if (rnd(seed, 2))
			to = off;
		else if (rnd(seed, 2))
			to = off % B + rnd(seed, 50) * B;
		len = len < RANDOM_SIZE - to ? len : RANDOM_SIZE - to;
		if (a != b)
			copy(k, a, off, b, to, len);
		return;
	}
	off &= ~(uint64_t)(B - 1);
	to = op == 4 ? off : to & ~(uint64_t)(B - 1);
	if (op < 2) {
		if (umbra_clone(k->fs, a->ino, b->ino) == 0)
			want_copy(b, 0, a, 0, a->size);
	} else if (op < 4) {
		len = len & ~(uint64_t)(B - 1);
		if (len > RANDOM_SIZE - to)
			len = (RANDOM_SIZE - to) & ~(uint64_t)(B - 1);
		if (len && umbra_clone_range(k->fs, a->ino, off, len, b->ino, to) == 0)
			want_copy(b, to, a, off, len);
	} else {
		err = umbra_dedupe_range(k->fs, a->ino, off, len, b->ino, to, &same, &done);
		assert_true(!err || err == -EINVAL);
	}
}

static void random_change(struct kit *k, struct file *f, uint64_t *seed)
{
	uint64_t off = rnd(seed, RANDOM_SIZE), len = 1 + rnd(seed, 20000), op = rnd(seed, 10);

	if (len > RANDOM_SIZE - off)
		len = RANDOM_SIZE - off;
	if (op < 6) {
		file_write(k, f, off, len, *seed);
	} else if (op < 8) {
		file_truncate(k, f, op == 6 ? off % 1000 : off);
	} else if (op < 9) {
		ok(umbra_fallocate(
			k->fs, f->ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len));
		if (off < f->size)
			memset(f->want + off, 0, off + len < f->size ? len : f->size - off);
	} else {
		ok(umbra_fallocate(k->fs, f->ino, FALLOC_FL_ZERO_RANGE, off, len));
		want_bytes(f, off, NULL, len);
	}
}

static void random_rounds(struct kit *k, struct file *f, uint64_t seed)
{
	for (int i = 0; i < 3000; i++) {
		struct file *a = &f[rnd(&seed, NFILES)], *b = &f[rnd(&seed, NFILES)];

		if (rnd(&seed, 2))
			random_share(k, a, b, &seed);
		else
			random_change(k, a, &seed);
		file_verify(k, a);
		file_verify(k, b);
		if (!file_map(k, a).inline_bytes)
			assert_int_equal(file_blocks(k, a), file_map(k, a).blocks);
		if (i % 300 == 150)
			kit_remount(k);
		if (i % 300 == 0)
			kit_crash(k);
	}
}

static void random_in(struct kit *k)
{
	static const char *const names[NFILES] = {"a", "b", "c", "d"};
	struct file f[NFILES];

	for (unsigned i = 0; i < NFILES; i++)
		file_make(k, &f[i], names[i], RANDOM_SIZE);
	random_rounds(k, f, 4242);
	for (unsigned i = 0; i < NFILES; i++) {
		file_verify(k, &f[i]);
		file_free(&f[i]);
	}
	kit_close(k);
}

static void random_sharing_agrees_with_plain_arrays(void **state)
{
	struct kit k;

	(void)state;
	for (int mode = UMBRA_DATA_ATOMIC; mode <= UMBRA_DATA_INPLACE; mode++) {
		kit_open(&k, 64, (enum umbra_data_mode)mode);
		random_in(&k);
	}
	kit_open_file(&k, "test_clone.pool", 64);
	random_in(&k);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clone_then_write_leaves_source_unchanged),
		cmocka_unit_test(copies_lie_as_in_the_file),
		cmocka_unit_test(every_kind_of_small_file_clones),
		cmocka_unit_test(unwritten_blocks_are_shared_and_never_converted),
		cmocka_unit_test(one_root_with_two_sizes),
		cmocka_unit_test(removing_a_clone_costs_nothing_and_frees_nothing_shared),
		cmocka_unit_test(a_removed_open_file_can_be_cloned),
		cmocka_unit_test(ranges_share_blocks),
		cmocka_unit_test(range_clones_can_be_stopped),
		cmocka_unit_test(clones_end_where_they_are_expected_to),
		cmocka_unit_test(inline_sources_go_into_ranges),
		cmocka_unit_test(errors_are_the_kernels),
		cmocka_unit_test(copy_range_shares_what_aligns),
		cmocka_unit_test(dedupe_shares_equal_content_only),
		cmocka_unit_test(deduped_piece_by_piece_files_adopt_one_root),
		cmocka_unit_test(inline_files_dedupe_without_sharing),
		cmocka_unit_test(counts_at_their_limit_make_copies),
		cmocka_unit_test(maps_show_the_owners_there_are),
		cmocka_unit_test(many_clones_written_and_removed_give_everything_back),
		cmocka_unit_test(random_sharing_agrees_with_plain_arrays),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
