/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The checker against damage: every kind of block, one copy, both copies, with wrong and with right
 * checksums. Whatever the damage, a repair must end with a pool that a check calls clean and that
 * can be mounted. UM_TEST_ROUNDS and UM_TEST_SEED: more rounds of the random tests.
 */
#include "check_fixture.h"

/* ---- metadata blocks ------------------------------------------------------------------------------------- */

struct meta {
	um_lba_t lba, mirror;
	uint8_t kind, level;
};
static struct meta metas[8192];
static unsigned nmeta;

/* Every block that has a sound header, once; journal and superblocks left out. */
static void find_metas(void)
{
	um_lba_t lba;

	if (nmeta)
		return;
	for (lba = 1; lba < SIZE / UM_BLOCK_SIZE && nmeta < 8192; lba++) {
		const struct um_block_hdr *hdr =
			(const struct um_block_hdr *)(pristine + lba * UM_BLOCK_SIZE);

		if ((hdr->magic & 0xffffff) != UM_BLOCK_MAGIC || hdr->lba != lba ||
			hdr->kind == UM_KIND_JOURNAL || hdr->kind == UM_KIND_SUPER ||
			um_block_csum(hdr) != hdr->csum)
			continue;
		metas[nmeta++] = (struct meta){lba, hdr->mirror, hdr->kind, hdr->level};
	}
	assert_true(nmeta > 50);
}

static void flip(um_lba_t lba)
{
	image[lba * UM_BLOCK_SIZE + rnd() % UM_BLOCK_SIZE] ^= (uint8_t)(1u << rnd() % 8);
}

static void seal_copy(const struct meta *meta)
{
	um_block_seal(image + meta->lba * UM_BLOCK_SIZE);
	if (meta->mirror)
		memcpy(image + meta->mirror * UM_BLOCK_SIZE, image + meta->lba * UM_BLOCK_SIZE,
			UM_BLOCK_SIZE);
}

/* Freed blocks keep their headers: is this one in use? */
static bool live(const struct meta *meta)
{
	struct umbra_check_report report;

	reset();
	image[meta->lba * UM_BLOCK_SIZE + 2000] ^= 1;
	report = check(UMBRA_CHECK_ONLY);
	return report.problems;
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static void a_sound_pool_is_clean(void **state)
{
	struct umbra_check_report report;

	(void)state;
	reset();
	report = check(UMBRA_CHECK_ONLY);
	assert_int_equal(report.problems, 0);
	assert_true(report.inodes > MANY);
	assert_true(report.extents > 1000);
	assert_memory_equal(image, pristine, SIZE);
}

static void a_bad_first_or_second_copy_is_mended_by_preen(void **state)
{
	struct umbra_check_report report;
	unsigned i, copy, tried = 0;
	char what[64];

	(void)state;
	find_metas();
	for (i = 0; i < nmeta; i += 1 + (unsigned)(rnd() % 4))
		for (copy = 0; copy < 2; copy++) {
			const struct meta *meta = &metas[i];

			reset();
			flip(copy ? meta->mirror : meta->lba);
			snprintf(what, sizeof(what), "copy %u of block %" PRIu64 " kind %u", copy,
				meta->lba, meta->kind);
			report = check(UMBRA_CHECK_PREEN);
			if (!report.problems)
				break; /* a freed block */
			assert_true(saw("mirror"));
			assert_int_equal(report.unrepaired, 0);
			assert_memory_equal(image + meta->lba * UM_BLOCK_SIZE,
				pristine + meta->lba * UM_BLOCK_SIZE, UM_BLOCK_SIZE);
			assert_memory_equal(image + meta->mirror * UM_BLOCK_SIZE,
				pristine + meta->mirror * UM_BLOCK_SIZE, UM_BLOCK_SIZE);
			assert_clean(what);
			tried++;
		}
	assert_true(tried > 20);
}

static void a_check_never_writes(void **state)
{
	unsigned i;

	(void)state;
	find_metas();
	for (i = 0; i < nmeta; i += 17) {
		uint8_t *before = malloc(SIZE);

		reset();
		flip(metas[i].lba);
		flip(metas[i].mirror);
		memcpy(before, image, SIZE);
		check(UMBRA_CHECK_ONLY);
		assert_memory_equal(image, before, SIZE);
		free(before);
	}
}

static void with_both_copies_lost_the_rest_is_saved(void **state)
{
	struct umbra_check_report report;
	unsigned i, tried = 0;
	char what[64];

	(void)state;
	find_metas();
	for (i = 0; i < nmeta; i += 1 + (unsigned)(rnd() % 3)) {
		const struct meta *meta = &metas[i];

		reset();
		flip(meta->lba);
		flip(meta->mirror);
		snprintf(what, sizeof(what), "both copies of block %" PRIu64 " kind %u level %u",
			meta->lba, meta->kind, meta->level);
		report = check(UMBRA_CHECK_REPAIR);
		if (!report.problems)
			continue;
		tried++;
		if (report.unrepaired)
			fail_msg("%s: %" PRIu64 " unrepaired", what, report.unrepaired);
		/* A leaf holds some twenty inodes; nothing else takes inodes along. */
		if (report.inodes + 30 < pristine_inodes)
			fail_msg("%s: %" PRIu64 " of %" PRIu64 " inodes left", what, report.inodes,
				pristine_inodes);
		/* But for a symlink, whose long target is with the xattrs. */
		if (meta->kind != UM_KIND_INODES &&
			report.inodes + (meta->kind == UM_KIND_XATTR) < pristine_inodes)
			fail_msg("%s: inodes lost", what);
		assert_clean(what);
		if (tried % 8 == 0)
			assert_usable(what);
	}
	assert_true(tried > 20);
}

static void an_interior_node_is_made_again_from_its_children(void **state)
{
	struct umbra_check_report report;
	unsigned i, tried = 0;

	(void)state;
	find_metas();
	for (i = 0; i < nmeta; i++) {
		if (metas[i].kind != UM_KIND_INODES || !metas[i].level || !live(&metas[i]))
			continue;
		reset();
		flip(metas[i].lba);
		flip(metas[i].mirror);
		report = check(UMBRA_CHECK_REPAIR);
		assert_int_equal(report.unrepaired, 0);
		assert_int_equal(report.inodes, pristine_inodes);
		assert_false(saw("unreachable"));
		assert_clean("interior node");
		tried++;
	}
	assert_true(tried > 0);
}

static void a_lost_pool_root_is_found_again(void **state)
{
	const struct um_super *super = (const struct um_super *)pristine;
	struct umbra_check_report report;

	(void)state;
	reset();
	flip(super->root.lba);
	flip(super->root.mirror);
	report = check(UMBRA_CHECK_REPAIR);
	assert_true(saw("root"));
	assert_int_equal(report.unrepaired, 0);
	assert_int_equal(report.inodes, pristine_inodes);
	assert_usable("pool root");
}

/* Both copies say the same wrong thing, with a right checksum: what a bug, or malice, would
 * leave. */
static void mutate(const struct meta *meta)
{
	uint8_t *block = image + meta->lba * UM_BLOCK_SIZE;
	unsigned n = 1 + (unsigned)(rnd() % 4);

	while (n--) {
		unsigned at = 64 + (unsigned)(rnd() % (UM_BLOCK_SIZE - 64));

		/* Most of what matters is near the start. */
		if (rnd() % 2)
			at = 64 + (unsigned)(rnd() % 200);
		switch (rnd() % 4) {
		case 0:
			block[at] ^= (uint8_t)(1u << rnd() % 8);
			break;
		case 1:
			block[at] = (uint8_t)rnd();
			break;
		case 2:
			block[at] = rnd() % 2 ? 0 : 0xff;
			break;
		default: /* another block's bytes */
			memcpy(block + (at & ~7u), image + (rnd() % (SIZE / 8)) * 8, 8);
			break;
		}
	}
	seal_copy(meta);
}

static unsigned rounds(void)
{
	const char *text = getenv("UM_TEST_ROUNDS");

	return text ? (unsigned)atoi(text) : 120;
}

static uint64_t first_seed(void)
{
	const char *text = getenv("UM_TEST_SEED");

	return text ? strtoull(text, NULL, 0) : 0x13198a2e03707344ull;
}

static void a_forged_block_ends_in_a_clean_pool(void **state)
{
	struct umbra_check_report report;
	uint64_t start = first_seed();
	unsigned i, k;
	char what[96];

	(void)state;
	find_metas();
	for (i = 0; i < rounds(); i++) {
		const struct meta *meta;
		unsigned n;

		seed = (start + i) * 0x9e3779b97f4a7c15ull | 1;
		n = rnd() % 8 ? 1 : 3;
		reset();
		snprintf(what, sizeof(what), "seed %#" PRIx64, start + i);
		for (k = 0; k < n; k++) {
			meta = &metas[rnd() % nmeta];
			mutate(meta);
			snprintf(what + strlen(what), sizeof(what) - strlen(what),
				" block %" PRIu64 " kind %u", meta->lba, meta->kind);
		}
		check(UMBRA_CHECK_ONLY);
		report = check(UMBRA_CHECK_REPAIR);
		if (report.unrepaired)
			fail_msg("%s: %" PRIu64 " unrepaired", what, report.unrepaired);
		assert_clean(what);
		assert_usable(what);
	}
}

static void a_pool_in_use_is_refused_and_a_missing_one_too(void **state)
{
	(void)state;
	assert_int_equal(
		umbra_check("/nonexistent/pool", UMBRA_CHECK_ONLY, NULL, NULL, NULL), -ENOENT);
}

/* A pool of two groups, in a sparse file. */
static void both_superblocks_bad_a_backup_takes_over(void **state)
{
	struct umbra_mkfs_options mkfs = {.size = 1200ull << 20, .sparse = true, .label = "two"};
	struct umbra_check_report report;
	char path[] = "/tmp/umbra-check-XXXXXX", zeros[4096] = {0};
	int fd = mkstemp(path);
	struct umbra_info info;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(umbra_mkfs(path, &mkfs, &info), 0);
	assert_int_equal(umbra_check(path, UMBRA_CHECK_ONLY, NULL, NULL, &report), 0);
	assert_int_equal(report.problems, 0);
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	assert_int_equal(umbra_check(path, UMBRA_CHECK_ONLY, NULL, NULL, &report), 0);
	assert_int_equal(report.problems, 1);
	assert_int_equal(
		pwrite(fd, zeros, sizeof(zeros),
			(off_t)(um_super_mirror(info.size / UM_CHUNK_SIZE) * UM_BLOCK_SIZE)),
		sizeof(zeros));
	assert_true(umbra_check(path, UMBRA_CHECK_ONLY, NULL, NULL, &report) < 0);
	assert_int_equal(umbra_check(path, UMBRA_CHECK_REPAIR, NULL, NULL, &report), 0);
	assert_int_equal(report.unrepaired, 0);
	assert_int_equal(umbra_check(path, UMBRA_CHECK_ONLY, NULL, NULL, &report), 0);
	assert_int_equal(report.problems, 0);
	close(fd);
	unlink(path);
}

/* Superblocks that contradict the pool, with right checksums. */
static void a_forged_superblock_is_refused_or_ends_in_a_clean_pool(void **state)
{
	um_lba_t second = um_super_mirror(SIZE / UM_CHUNK_SIZE);
	struct umbra_check_report report;
	unsigned i, k, ended = 0;

	(void)state;
	for (i = 0; i < rounds() / 2; i++) {
		seed = (first_seed() + i) * 0x9e3779b97f4a7c15ull | 1;
		reset();
		for (k = 0; k <= i % 3; k++)
			image[72 + rnd() % 104] ^= (uint8_t)(1u << rnd() % 8);
		um_block_seal(image);
		memcpy(image + second * UM_BLOCK_SIZE, image, UM_BLOCK_SIZE);
		umbra_check_image(image, SIZE, UMBRA_CHECK_ONLY, NULL, NULL, &report);
		if (umbra_check_image(image, SIZE, UMBRA_CHECK_REPAIR, note, NULL, &report))
			continue;
		ended++;
		if (report.unrepaired)
			fail_msg("round %u: %" PRIu64 " unrepaired", i, report.unrepaired);
		assert_clean("forged superblock");
	}
	assert_true(ended > 0);
}

static void any_bytes_at_all_end_the_check(void **state)
{
	struct umbra_check_report report;
	unsigned i, k;

	(void)state;
	for (i = 0; i < rounds() / 3; i++) {
		seed = (first_seed() + i) * 0x9e3779b97f4a7c15ull | 1;
		reset();
		for (k = 0; k < 1u << (i % 12); k++)
			memset(image + rnd() % (SIZE - 4096), (int)rnd(), 1 + rnd() % 4096);
		umbra_check_image(image, SIZE, UMBRA_CHECK_ONLY, NULL, NULL, &report);
		if (umbra_check_image(image, SIZE, UMBRA_CHECK_REPAIR, NULL, NULL, &report))
			continue; /* both superblocks */
		if (report.unrepaired)
			fail_msg("round %u: %" PRIu64 " unrepaired", i, report.unrepaired);
		assert_clean("random bytes");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_pool_is_clean),
		cmocka_unit_test(a_check_never_writes),
		cmocka_unit_test(a_bad_first_or_second_copy_is_mended_by_preen),
		cmocka_unit_test(with_both_copies_lost_the_rest_is_saved),
		cmocka_unit_test(an_interior_node_is_made_again_from_its_children),
		cmocka_unit_test(a_lost_pool_root_is_found_again),
		cmocka_unit_test(a_pool_in_use_is_refused_and_a_missing_one_too),
		cmocka_unit_test(both_superblocks_bad_a_backup_takes_over),
		cmocka_unit_test(a_forged_block_ends_in_a_clean_pool),
		cmocka_unit_test(a_forged_superblock_is_refused_or_ends_in_a_clean_pool),
		cmocka_unit_test(any_bytes_at_all_end_the_check),
	};

	return cmocka_run_group_tests(tests, build, drop);
}
