/* SPDX-License-Identifier: BSD-3-Clause */
/* Clones of ranges large enough to be shared by whole nodes, and files with many sharers. */
#include "datakit.h"

#define EXTENTS 1500u
#define CAP ((uint64_t)EXTENTS * 2 * B + (1u << 20))

static void want_copy(
	struct file *dst, uint64_t dst_off, const struct file *src, uint64_t src_off, uint64_t len)
{
	want_bytes(dst, dst_off, src->want + src_off, len);
}

/* Extents of one to three blocks, with holes and unwritten blocks in between. */
static void fragment(struct kit *k, struct file *f, uint64_t end, uint64_t seed)
{
	uint8_t buf[3 * B];
	uint64_t at = 0;

	while (at + 4 * B <= end) {
		uint64_t n = 1 + (seed >> 33) % 3;

		pattern(buf, sizeof(buf), seed);
		if (seed >> 40 & 7) {
			assert_int_equal(
				umbra_write(k->fs, f->ino, buf, n * B, at, 0, NULL), n * B);
			want_bytes(f, at, buf, n * B);
		} else {
			ok(umbra_fallocate(k->fs, f->ino, 0, at, n * B));
			want_bytes(f, at, NULL, n * B);
		}
		at += (n + 1) * B;
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	}
}

static void pair(struct kit *k, struct file *a, struct file *b)
{
	um_reaper_manual = true; /* so that only what the test does commits */
	kit_open(k, 128, UMBRA_DATA_ATOMIC);
	file_make(k, a, "a", CAP);
	file_make(k, b, "b", CAP);
	fragment(k, a, CAP - (1u << 20), 12345);
}

static void both(struct kit *k, struct file *a, struct file *b)
{
	file_verify(k, a);
	file_verify(k, b);
	assert_int_equal(file_blocks(k, a), file_map(k, a).blocks);
	assert_int_equal(file_blocks(k, b), file_map(k, b).blocks);
}

static void unpair(struct kit *k, struct file *a, struct file *b)
{
	both(k, a, b);
	um_reaper_manual = false;
	kit_remount(k);
	both(k, a, b);
	file_free(a);
	file_free(b);
	kit_close(k);
}

static uint64_t commits(struct kit *k)
{
	struct um_log_stats stats;

	um_log_stats(k->fs->log, &stats);
	return stats.commits;
}

static void clone_same(struct kit *k, struct file *a, struct file *b, uint64_t off, uint64_t len)
{
	ok(umbra_clone_range(k->fs, a->ino, off, len, b->ino, off));
	want_copy(b, off, a, off, len);
}

static void a_prefix_is_one_transaction(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t n;

	(void)state;
	pair(&k, &a, &b);
	n = commits(&k);
	clone_same(&k, &a, &b, 0, 2 * EXTENTS / 2 * B);
	assert_int_equal(commits(&k) - n, 1);
	assert_true(file_map(&k, &b).shared > EXTENTS / 2);
	kit_crash(&k);
	both(&k, &a, &b);
	/* Each goes its own way. */
	file_write(&k, &b, 300 * B + 5, 100, 1);
	file_write(&k, &a, 200 * B + 5, 10000, 2);
	file_truncate(&k, &a, 900 * B + 1);
	unpair(&k, &a, &b);
}

static void all_but_a_ragged_tail_is_two_steps(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t n, whole;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, a.size + 3 * B, 5000, 3);
	whole = a.size & ~(uint64_t)(B - 1);
	n = commits(&k);
	clone_same(&k, &a, &b, 0, whole);
	assert_int_equal(commits(&k) - n, 1);
	both(&k, &a, &b);
	assert_int_equal(umbra_copy_range(k.fs, a.ino, 0, b.ino, 0, SIZE_MAX), a.size);
	want_copy(&b, 0, &a, 0, a.size);
	unpair(&k, &a, &b);
}

static void copied_in_pieces_a_file_is_shared(void **state)
{
	static const uint64_t pieces[] = {100 * B, 512 * B, 1000 * B, 777 * B + 5};
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	for (unsigned i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		uint64_t all, used;

		file_truncate(&k, &b, 0);
		all = kit_free(&k);
		for (uint64_t off = 0; off < a.size;) {
			ssize_t got =
				umbra_copy_range(k.fs, a.ino, off, b.ino, off, (size_t)pieces[i]);

			assert_true(got > 0);
			want_copy(&b, off, &a, off, (uint64_t)got);
			off += (uint64_t)got;
		}
		both(&k, &a, &b);
		assert_true(file_map(&k, &b).shared + 32 > file_map(&k, &a).blocks);
		used = all - kit_free(&k);
		/* At most the nodes that the source has, twice, and blocks that pieces cut. */
		assert_true(used <= 2 * (EXTENTS / 100 + 4) + 8);
	}
	unpair(&k, &a, &b);
}

static void what_was_there_before_goes(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t all, n;

	(void)state;
	pair(&k, &a, &b);
	all = kit_free(&k);
	fragment(&k, &b, 3000 * B, 777);
	file_write(&k, &b, 0, 40 * B, 5);
	file_write(&k, &b, 2500 * B, 90 * B + 7, 6);
	n = commits(&k);
	clone_same(&k, &a, &b, 13 * B, 2520 * B);
	assert_int_equal(commits(&k) - n, 1);
	both(&k, &a, &b);
	kit_crash(&k);
	both(&k, &a, &b);
	/* Once more over the same, and over a clone. */
	clone_same(&k, &a, &b, 13 * B, 2520 * B);
	clone_same(&k, &a, &b, 500 * B, 100 * B);
	file_write(&k, &b, 700 * B, 10 * B, 7);
	clone_same(&k, &a, &b, 100 * B, 1000 * B);
	clone_same(&k, &b, &a, 0, 600 * B);
	both(&k, &a, &b);
	file_truncate(&k, &b, 0);
	assert_true(kit_free(&k) + 60 >= all); /* a got blocks and nodes of its own, from b */
	assert_int_equal(file_map(&k, &a).shared, 0);
	unpair(&k, &a, &b);
}

static void a_hole_takes_the_place_of_many_extents(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t n;

	(void)state;
	pair(&k, &a, &b);
	file_truncate(&k, &b, CAP & ~(uint64_t)(B - 1));
	n = commits(&k);
	clone_same(&k, &b, &a, 10 * B, 2000 * B);
	assert_int_equal(commits(&k) - n, 1);
	unpair(&k, &a, &b);
}

static void unlinked_files_give_and_take_ranges(void **state)
{
	struct kit k;
	struct file a, b, c;

	(void)state;
	pair(&k, &a, &b);
	file_make(&k, &c, "c", CAP);
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "a"));
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "c"));
	clone_same(&k, &a, &b, 7 * B, 2000 * B);
	clone_same(&k, &b, &c, 100 * B, 1500 * B);
	both(&k, &a, &b);
	file_verify(&k, &c);
	umbra_forget(k.fs, a.ino, 1);
	umbra_forget(k.fs, c.ino, 1);
	um_reaper_wait(k.fs, 5000);
	file_verify(&k, &b);
	assert_int_equal(file_map(&k, &b).shared, 0);
	um_reaper_manual = false;
	kit_remount(&k);
	file_verify(&k, &b);
	file_free(&a);
	file_free(&b);
	file_free(&c);
	kit_close(&k);
}

static void hard_links_see_one_clone(void **state)
{
	struct umbra_attr attr;
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	ok(umbra_link(k.fs, b.ino, UM_ROOT_INO, "b2", &attr));
	clone_same(&k, &a, &b, 0, 1000 * B);
	assert_int_equal(attr.st.st_ino, b.ino);
	ok(umbra_unlink(k.fs, UM_ROOT_INO, "b"));
	both(&k, &a, &b);
	ok(umbra_getattr(k.fs, b.ino, &attr));
	assert_int_equal(attr.st.st_nlink, 1);
	umbra_forget(k.fs, b.ino, 1); /* the link's */
	unpair(&k, &a, &b);
}

/* ---- dedupe -------------------------------------------------------------------------------------------- */

static uint64_t root_of(struct kit *k, const struct file *f)
{
	struct um_inode inode;

	ok(um_inode_read(k->fs, f->ino, &inode));
	return inode.core.data.format == UM_ROOT_NODE ? inode.core.data.ptr.lba : 0;
}

static void dedupe(struct kit *k, struct file *a, uint64_t off, uint64_t len, struct file *b,
	bool want_same, uint64_t want_done)
{
	uint64_t done;
	bool same;

	ok(umbra_dedupe_range(k->fs, a->ino, off, len, b->ino, off, &same, &done));
	assert_int_equal(same, want_same);
	assert_int_equal(done, want_done);
}

static void equal_ranges_share_nodes(void **state)
{
	struct kit k;
	struct file a, b;
	uint64_t n, all;

	(void)state;
	pair(&k, &a, &b);
	fragment(&k, &b, CAP - (1u << 20), 12345);
	all = kit_free(&k);
	n = commits(&k);
	dedupe(&k, &a, 0, 2000 * B, &b, true, 2000 * B);
	assert_int_equal(commits(&k) - n, 1);
	assert_true(kit_free(&k) > all + 1000);
	both(&k, &a, &b);
	/* The rest in ragged pieces; then it is one file. */
	dedupe(&k, &a, 2000 * B, 500 * B, &b, true, 500 * B);
	dedupe(&k, &a, 2500 * B, a.size - 2500 * B, &b, true, a.size - 2500 * B);
	assert_true(root_of(&k, &a) && root_of(&k, &a) == root_of(&k, &b));
	unpair(&k, &a, &b);
}

static void dedupe_results_are_partial_as_the_kernels(void **state)
{
	struct kit k;
	struct file a, b;

	(void)state;
	pair(&k, &a, &b);
	file_write(&k, &a, a.size, B + 100, 1);
	file_write(&k, &b, 0, a.size + 20 * B, 2);
	assert_int_equal(umbra_write(k.fs, b.ino, a.want, a.size, 0, 0, NULL), a.size);
	want_copy(&b, 0, &a, 0, a.size);
	/* A ragged end counts only at both ends; else whole blocks do. */
	assert_true(a.size % B && b.size > a.size);
	dedupe(&k, &a, 2000 * B, a.size - 2000 * B, &b, true,
		(a.size & ~(uint64_t)(B - 1)) - 2000 * B);
	/* One byte differs: nothing is shared, and it is no error. */
	file_write(&k, &b, 1234 * B + 77, 1, 3);
	dedupe(&k, &a, 1000 * B, 500 * B, &b, false, 0);
	dedupe(&k, &a, 1300 * B, 500 * B, &b, true, 500 * B);
	dedupe(&k, &a, 0, 0, &b, true, 0);
	unpair(&k, &a, &b);
}

/* ---- every copy of a block ----------------------------------------------------------------------------- */

#define COPIES 12u

static void every_copy_of_a_block_becomes_its_own(void **state)
{
	struct kit k;
	struct file f[COPIES];
	uint64_t off = 640 * B;
	char name[8];

	(void)state;
	kit_open(&k, 128, UMBRA_DATA_ATOMIC);
	for (unsigned i = 0; i < COPIES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		file_make(&k, &f[i], name, CAP / 2);
	}
	fragment(&k, &f[0], CAP / 3, 99);
	file_write(&k, &f[0], off, 4 * B, 1);
	/* By root, by range, at other offsets, and within one file. */
	for (unsigned i = 1; i < COPIES; i++) {
		if (i % 2) {
			ok(umbra_clone(k.fs, f[i / 2].ino, f[i].ino));
			want_copy(&f[i], 0, &f[i / 2], 0, f[i / 2].size);
		} else {
			clone_same(&k, &f[0], &f[i], 100 * B, 800 * B);
		}
		ok(umbra_clone_range(k.fs, f[i].ino, off, 4 * B, f[i].ino, 20 * B));
		want_copy(&f[i], 20 * B, &f[i], off, 4 * B);
	}
	for (unsigned i = 0; i < COPIES; i++) {
		file_write(&k, &f[i], off + B + 100, 50, 10 + i);
		file_write(&k, &f[i], 20 * B + B + 200, 2 * B, 100 + i);
		if (i % 5 == 4)
			kit_crash(&k);
	}
	for (unsigned i = 0; i < COPIES; i++)
		file_verify(&k, &f[i]);
	kit_remount(&k);
	for (unsigned i = 0; i < COPIES; i++) {
		file_verify(&k, &f[i]);
		assert_int_equal(file_blocks(&k, &f[i]), file_map(&k, &f[i]).blocks);
		file_free(&f[i]);
	}
	kit_close(&k);
}

/* ---- many ------------------------------------------------------------------------------------------------ */

static uint64_t rnd(uint64_t *seed, uint64_t n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return n ? (*seed >> 20) % n : 0;
}

#define CLONES 10000u

static void ten_thousand_clones_leave_nothing_behind(void **state)
{
	uint64_t *ino = malloc(CLONES * sizeof(*ino)), before, seed = 1;
	unsigned *order = malloc(CLONES * sizeof(*order));
	struct kit k;
	struct file a;
	char name[16];

	(void)state;
	kit_open(&k, 512, UMBRA_DATA_ATOMIC);
	file_make(&k, &a, "a", 2000 * B);
	fragment(&k, &a, 800 * B, 5);
	before = kit_free(&k);
	for (unsigned i = 0; i < CLONES; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		ino[i] = file_ino(&k, name);
		ok(umbra_clone(k.fs, a.ino, ino[i]));
		assert_int_equal(umbra_write(k.fs, ino[i], "x", 1, rnd(&seed, a.size), 0, NULL), 1);
		order[i] = i;
	}
	file_verify(&k, &a);
	kit_remount(&k);
	for (unsigned i = CLONES - 1; i; i--) {
		unsigned j = (unsigned)rnd(&seed, i + 1), c = order[i];

		order[i] = order[j];
		order[j] = c;
	}
	for (unsigned i = 0; i < CLONES; i++) {
		snprintf(name, sizeof(name), "c%u", order[i]);
		ok(umbra_unlink(k.fs, UM_ROOT_INO, name));
	}
	kit_remount(&k);
	assert_int_equal(kit_free(&k), before);
	assert_int_equal(file_map(&k, &a).shared, 0);
	file_verify(&k, &a);
	free(ino);
	free(order);
	file_free(&a);
	kit_close(&k);
}

#define GENERATIONS 100u

static void generations_cost_the_same(void **state)
{
	struct um_log_stats stats;
	uint64_t used[GENERATIONS], bytes[GENERATIONS], seed = 3;
	uint8_t level = 0;
	struct kit k;
	struct file f;
	char name[16];

	(void)state;
	kit_open(&k, 128, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "g", CAP);
	fragment(&k, &f, CAP - (1u << 20), 12345);
	for (unsigned i = 0; i < GENERATIONS; i++) {
		uint64_t free_before = kit_free(&k), ino;
		struct um_inode inode;

		um_log_stats(k.fs->log, &stats);
		bytes[i] = stats.record_bytes;
		snprintf(name, sizeof(name), "g%u", i);
		ino = file_ino(&k, name);
		ok(umbra_clone(k.fs, f.ino, ino));
		f.ino = ino;
		file_write(&k, &f, rnd(&seed, f.size - 10), 10, i);
		um_log_stats(k.fs->log, &stats);
		bytes[i] = stats.record_bytes - bytes[i];
		used[i] = free_before - kit_free(&k);
		ok(um_inode_read(k.fs, ino, &inode));
		assert_true(!i || inode.core.data.level == level);
		level = inode.core.data.level;
	}
	/* One data block, a node a level twice; now and then the inode tree or the directory
	 * grows. */
	for (unsigned i = 0; i < GENERATIONS; i++) {
		assert_true(used[i] <= 1 + 2 * (level + 1u) + 6);
		assert_true(bytes[i] < 64u << 10);
	}
	file_verify(&k, &f);
	kit_remount(&k);
	file_verify(&k, &f);
	file_free(&f);
	kit_close(&k);
}

/* ---- at random ------------------------------------------------------------------------------------------ */

#define NFILES 4u

static void random_change(struct kit *k, struct file *f, uint64_t *seed)
{
	uint64_t off = rnd(seed, f->cap), len = 1 + rnd(seed, 60000), op = rnd(seed, 10);

	if (len > f->cap - off)
		len = f->cap - off;
	if (op < 6) {
		file_write(k, f, off, len, *seed);
	} else if (op < 7) {
		file_truncate(k, f, off);
	} else if (op < 9) {
		ok(umbra_fallocate(
			k->fs, f->ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len));
		if (off < f->size)
			memset(f->want + off, 0, off + len < f->size ? len : f->size - off);
	} else {
		ok(umbra_fallocate(k->fs, f->ino, 0, off, len));
		if (off + len > f->size)
			want_size(f, off + len);
	}
}

static void random_share(struct kit *k, struct file *a, struct file *b, uint64_t *seed)
{
	uint64_t off = rnd(seed, a->cap) & ~(uint64_t)(B - 1);
	uint64_t len = B + (rnd(seed, a->cap) & ~(uint64_t)(B - 1)), done;
	bool same;
	int err;

	if (!rnd(seed, 4))
		off = 0;
	if (off + len > a->cap)
		len = (a->cap - off) & ~(uint64_t)(B - 1);
	if (!len || a == b)
		return;
	switch (rnd(seed, 4)) {
	case 0:
		if (!umbra_clone(k->fs, a->ino, b->ino))
			want_copy(b, 0, a, 0, a->size);
		break;
	case 1:
		err = umbra_dedupe_range(k->fs, a->ino, off, len, b->ino, off, &same, &done);
		assert_true(!err || err == -EINVAL);
		break;
	default:
		if (!umbra_clone_range(k->fs, a->ino, off, len, b->ino, off))
			want_copy(b, off, a, off, len);
	}
}

static void random_in(struct kit *k, uint64_t seed, unsigned rounds)
{
	static const char *const names[NFILES] = {"a", "b", "c", "d"};
	struct file f[NFILES];

	for (unsigned i = 0; i < NFILES; i++) {
		file_make(k, &f[i], names[i], 1000 * B);
		fragment(k, &f[i], 990 * B, i);
	}
	for (unsigned i = 0; i < rounds; i++) {
		struct file *a = &f[rnd(&seed, NFILES)], *b = &f[rnd(&seed, NFILES)];

		if (rnd(&seed, 2))
			random_share(k, a, b, &seed);
		else
			random_change(k, a, &seed);
		both(k, a, b);
		if (i % 100 == 50)
			kit_remount(k);
		if (i % 100 == 0)
			kit_crash(k);
	}
	for (unsigned i = 0; i < NFILES; i++) {
		file_verify(k, &f[i]);
		file_free(&f[i]);
	}
	kit_close(k);
}

static void random_ranges_agree_with_plain_arrays(void **state)
{
	struct kit k;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	random_in(&k, 4711, 350);
	kit_open_file(&k, "test_range.pool", 64);
	random_in(&k, 815, 150);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prefix_is_one_transaction),
		cmocka_unit_test(all_but_a_ragged_tail_is_two_steps),
		cmocka_unit_test(copied_in_pieces_a_file_is_shared),
		cmocka_unit_test(what_was_there_before_goes),
		cmocka_unit_test(a_hole_takes_the_place_of_many_extents),
		cmocka_unit_test(unlinked_files_give_and_take_ranges),
		cmocka_unit_test(hard_links_see_one_clone),
		cmocka_unit_test(equal_ranges_share_nodes),
		cmocka_unit_test(dedupe_results_are_partial_as_the_kernels),
		cmocka_unit_test(every_copy_of_a_block_becomes_its_own),
		cmocka_unit_test(ten_thousand_clones_leave_nothing_behind),
		cmocka_unit_test(generations_cost_the_same),
		cmocka_unit_test(random_ranges_agree_with_plain_arrays),
	};

	(void)argc;
	kit_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
