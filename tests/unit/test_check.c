/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The checker: a pool with something of everything in it, damaged in every way there is. Whatever was
 * done to it, a repair ends with a pool that a check calls clean and that can be mounted.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/name.h"
#include "umbra/check.h"

#define ROOT UM_ROOT_INO
#define SIZE (16ull << 20)
#define MANY 1200u /* files in one directory: two levels of inodes above the leaves */

static uint8_t *pristine, *image; /* SIZE bytes each */
static uint64_t pristine_inodes;
static uint64_t seed = 0x243f6a8885a308d3ull;

static uint64_t rnd(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 2685821657736338717ull;
}

/* ---- the pool -------------------------------------------------------------------------------------- */

static uint64_t make(struct umbra_fs *fs, uint64_t dir, const char *name, mode_t mode)
{
	struct umbra_attr attr;

	assert_int_equal(umbra_mknod(fs, dir, name, mode, makedev(1, 3), NULL, &attr), 0);
	return attr.st.st_ino;
}

static void put(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, int byte)
{
	char *buf = malloc(len);

	memset(buf, byte, len);
	assert_int_equal(umbra_write(fs, ino, buf, len, off, 0, NULL), len);
	free(buf);
}

static void fill_files(struct umbra_fs *fs)
{
	uint64_t dir = make(fs, ROOT, "files", S_IFDIR | 0755), ino, copy;
	char name[32];
	unsigned i;

	ino = make(fs, dir, "small", S_IFREG | 0644);
	put(fs, ino, 0, 100, 's');
	ino = make(fs, dir, "plain", S_IFREG | 0644);
	put(fs, ino, 0, 300000, 'p');
	ino = make(fs, dir, "holes", S_IFREG | 0644);
	for (i = 0; i < 400; i++)
		put(fs, ino, (uint64_t)i * 8192, 4096, 'h');
	for (i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "clone%u", i);
		copy = make(fs, dir, name, S_IFREG | 0644);
		assert_int_equal(umbra_clone(fs, ino, copy), 0);
		put(fs, copy, 8192 * 200, 4096, 'c');
	}
	assert_int_equal(umbra_link(fs, ino, ROOT, "second name of holes", NULL), 0);
}

static void fill_others(struct umbra_fs *fs)
{
	uint64_t dir = make(fs, ROOT, "others", S_IFDIR | 0755), ino;
	char value[20000], target[1500];

	make(fs, dir, "fifo", S_IFIFO | 0600);
	make(fs, dir, "null", S_IFCHR | 0600);
	make(fs, dir, "socket", S_IFSOCK | 0600);
	assert_int_equal(umbra_symlink(fs, dir, "short", "plain", NULL, NULL), 0);
	memset(target, 't', sizeof(target));
	target[sizeof(target) - 1] = 0;
	assert_int_equal(umbra_symlink(fs, dir, "long", target, NULL, NULL), 0);
	ino = make(fs, dir, "attributes", S_IFREG | 0600);
	memset(value, 'v', sizeof(value));
	assert_int_equal(umbra_setxattr(fs, ino, "user.small", "x", 1, 0, false), 0);
	assert_int_equal(umbra_setxattr(fs, ino, "user.large", value, sizeof(value), 0, false), 0);
	ino = make(fs, dir, "a", S_IFDIR | 0700);
	ino = make(fs, ino, "b", S_IFDIR | 0700);
	make(fs, ino, "c", S_IFDIR | 0700);
}

static void fill_many(struct umbra_fs *fs)
{
	uint64_t dir = make(fs, ROOT, "many", S_IFDIR | 0755), ino;
	char name[64];
	unsigned i;

	for (i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "a file with a name that takes some room %u", i);
		ino = make(fs, dir, name, S_IFREG | 0644);
		if (i % 3 == 0)
			put(fs, ino, 0, 300, 'm');
	}
}

/* Leaves an orphan behind: made, open, then the daemon is gone. */
static void fill_orphan(struct umbra_fs *fs)
{
	struct umbra_attr attr;

	assert_int_equal(umbra_tmpfile(fs, ROOT, 0600, NULL, &attr), 0);
	put(fs, attr.st.st_ino, 0, 20000, 'o');
}

static uint8_t *new_image(uint64_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(map != MAP_FAILED);
	return map;
}

static void quiet(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (getenv("UM_TEST_VERBOSE"))
		fprintf(stderr, "%s\n", line);
}

static int build(void **state)
{
	struct umbra_mkfs_options mkfs = {.label = "check"};
	struct umbra_check_report report;
	struct umbra_fs *fs;

	(void)state;
	umbra_log_to(quiet, NULL);
	pristine = new_image(SIZE);
	image = new_image(SIZE);
	assert_int_equal(umbra_mkfs_image(pristine, SIZE, &mkfs), 0);
	assert_int_equal(umbra_open_image(pristine, SIZE, NULL, &fs), 0);
	fill_files(fs);
	fill_others(fs);
	fill_many(fs);
	fill_orphan(fs);
	assert_int_equal(umbra_sync(fs), 0);
	umbra_abandon(fs);
	assert_int_equal(
		umbra_check_image(pristine, SIZE, UMBRA_CHECK_REPAIR, NULL, NULL, &report), 0);
	assert_int_equal(report.problems, 0);
	pristine_inodes = report.inodes;
	return 0;
}

static int drop(void **state)
{
	(void)state;
	munmap(pristine, SIZE);
	munmap(image, SIZE);
	return 0;
}

static void reset(void)
{
	memcpy(image, pristine, SIZE);
}

/* ---- checking ------------------------------------------------------------------------------------------ */

static char seen_codes[4096]; /* of the last check, each followed by a space */

static void note(void *arg, const char *code, bool repaired, const char *text)
{
	char word[64];

	(void)arg;
	snprintf(word, sizeof(word), "%s ", code);
	if (!strstr(seen_codes, word) && strlen(seen_codes) + strlen(word) < sizeof(seen_codes))
		strcat(seen_codes, word);
	if (getenv("UM_TEST_VERBOSE"))
		fprintf(stderr, "  %s%s: %s\n", code, repaired ? "*" : "", text);
}

static bool saw(const char *code)
{
	char word[64];

	snprintf(word, sizeof(word), "%s ", code);
	return strstr(seen_codes, word) != NULL;
}

static struct umbra_check_report check(enum umbra_check_mode mode)
{
	struct umbra_check_report report;

	seen_codes[0] = 0;
	assert_int_equal(umbra_check_image(image, SIZE, mode, note, NULL, &report), 0);
	return report;
}

static void assert_clean(const char *what)
{
	struct umbra_check_report report = check(UMBRA_CHECK_ONLY);

	if (report.problems)
		fail_msg("%s: %" PRIu64 " problems left (%s)", what, report.problems, seen_codes);
}

static int count_entry(
	void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	(void)name;
	(void)ino;
	(void)type;
	(void)cookie;
	++*(unsigned *)arg;
	return 0;
}

/* Mounts what a repair left, looks around, writes. */
static void assert_usable(const char *what)
{
	struct umbra_attr attr;
	struct umbra_fs *fs;
	unsigned n = 0;
	int ret = umbra_open_image(image, SIZE, NULL, &fs);

	if (ret)
		fail_msg("%s: cannot be mounted: %d", what, ret);
	assert_int_equal(umbra_readdir(fs, ROOT, 0, count_entry, &n), 0);
	assert_true(n >= 2);
	assert_int_equal(
		umbra_mknod(fs, ROOT, "made after repair", S_IFREG | 0644, 0, NULL, &attr), 0);
	put(fs, attr.st.st_ino, 0, 10000, 'r');
	assert_int_equal(umbra_close(fs), 0);
	assert_clean(what);
}

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

/* Both copies say the same wrong thing, with a right checksum: what a bug, or malice, would leave. */
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

static void a_forged_block_ends_in_a_clean_pool(void **state)
{
	const char *text = getenv("UM_TEST_ROUNDS");
	unsigned rounds = text ? (unsigned)atoi(text) : 150, i, k;
	struct umbra_check_report report;
	uint64_t start = seed;
	char what[96];

	(void)state;
	text = getenv("UM_TEST_SEED");
	if (text)
		start = strtoull(text, NULL, 0);
	find_metas();
	for (i = 0; i < rounds; i++) {
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

/* ---- inconsistencies made by the engine's own hands ------------------------------------------------------------- */

struct hands {
	struct um_pool *pool;
	struct um_log *log;
	struct um_space *space;
	struct um_txn *txn;
};

static struct hands hands_begin(void)
{
	struct hands h;

	reset();
	assert_int_equal(um_pool_open_image(image, SIZE, UM_POOL_EXCL, &h.pool), 0);
	assert_int_equal(um_log_open(h.pool, &h.log), 0);
	assert_int_equal(um_space_open(h.log, &h.space), 0);
	um_log_set_space(h.log, h.space);
	assert_int_equal(um_txn_begin(h.log, 0, &h.txn), 0);
	return h;
}

static void hands_end(struct hands *h)
{
	assert_int_equal(um_txn_commit(h->txn), 0);
	assert_int_equal(um_log_close(h->log), 0);
	um_space_close(h->space);
	um_pool_close(h->pool);
}

static struct um_inode load(struct hands *h, uint64_t ino)
{
	struct um_inode inode;

	assert_int_equal(um_inode_load(um_txn_src(h->txn), ino, &inode), 0);
	return inode;
}

static uint64_t find(struct hands *h, uint64_t dir, const char *name, uint64_t *out_key)
{
	struct um_inode inode = load(h, dir);
	struct um_dent dent;

	assert_int_equal(um_dir_find(um_txn_src(h->txn), &inode, name, strlen(name), &dent), 0);
	if (out_key)
		*out_key = dent.key;
	return dent.ino;
}

static void store(struct hands *h, const struct um_inode *inode)
{
	assert_int_equal(um_inode_store(h->txn, inode), 0);
}

/* The damage shows under this code, a repair mends it, and no inode is lost. */
static void assert_mended(const char *code, int64_t inodes_more)
{
	struct umbra_check_report report = check(UMBRA_CHECK_ONLY);

	if (!saw(code))
		fail_msg("not seen: %s; only %s", code, seen_codes);
	assert_true(report.unrepaired > 0);
	report = check(UMBRA_CHECK_REPAIR);
	if (report.unrepaired)
		fail_msg("%s: %" PRIu64 " unrepaired", code, report.unrepaired);
	assert_int_equal(report.inodes, pristine_inodes + (uint64_t)inodes_more);
	assert_clean(code);
	assert_usable(code);
}

static void a_wrong_link_count_is_corrected(void **state)
{
	struct hands h = hands_begin();
	struct um_inode inode = load(&h, find(&h, ROOT, "second name of holes", NULL));

	(void)state;
	inode.core.nlink = 7;
	store(&h, &inode);
	inode = load(&h, find(&h, ROOT, "others", NULL));
	inode.core.nlink = 1;
	store(&h, &inode);
	hands_end(&h);
	assert_mended("nlink", 0);
}

static void an_inode_without_a_name_goes_to_lost_found(void **state)
{
	struct hands h = hands_begin();
	uint64_t key, ino = find(&h, ROOT, "many", &key);
	struct um_inode root = load(&h, ROOT);
	struct umbra_attr attr;
	struct umbra_fs *fs;
	char name[32];

	(void)state;
	assert_int_equal(um_dir_remove(h.txn, &root, key), 0);
	store(&h, &root);
	hands_end(&h);
	assert_mended("unreachable", 1);
	assert_int_equal(umbra_open_image(image, SIZE, NULL, &fs), 0);
	assert_int_equal(umbra_lookup(fs, ROOT, "lost+found", &attr), 0);
	snprintf(name, sizeof(name), "#%" PRIu64, ino);
	assert_int_equal(umbra_lookup(fs, attr.st.st_ino, name, &attr), 0);
	assert_int_equal(attr.st.st_ino, ino);
	assert_int_equal(attr.st.st_nlink, 2);
	assert_int_equal(umbra_close(fs), 0);
}

static void an_entry_for_nothing_is_removed(void **state)
{
	struct hands h = hands_begin();
	struct um_inode dir = load(&h, find(&h, ROOT, "others", NULL));
	struct um_inode ghost = {.ino = 999999, .core.mode = S_IFREG};

	(void)state;
	assert_int_equal(um_dir_add(h.txn, &dir, "ghost", 5, &ghost), 0);
	store(&h, &dir);
	hands_end(&h);
	assert_mended("dirent", 0);
}

static void an_entry_of_the_wrong_type_is_corrected(void **state)
{
	struct hands h = hands_begin();
	struct um_inode dir = load(&h, find(&h, ROOT, "others", NULL)), child;
	uint64_t key;

	(void)state;
	child = load(&h, find(&h, dir.ino, "fifo", &key));
	child.core.mode = S_IFSOCK;
	assert_int_equal(um_dir_point(h.txn, &dir, key, "fifo", 4, &child), 0);
	store(&h, &dir);
	hands_end(&h);
	assert_mended("dirent", 0);
}

static void a_directory_with_two_names_keeps_its_own(void **state)
{
	struct hands h = hands_begin();
	uint64_t others = find(&h, ROOT, "others", NULL), a = find(&h, others, "a", NULL);
	struct um_inode root = load(&h, ROOT), inode = load(&h, a);
	struct umbra_attr attr;
	struct umbra_fs *fs;

	(void)state;
	assert_int_equal(um_dir_add(h.txn, &root, "another a", 9, &inode), 0);
	store(&h, &root);
	hands_end(&h);
	assert_mended("dirent", 0);
	assert_int_equal(umbra_open_image(image, SIZE, NULL, &fs), 0);
	assert_int_equal(umbra_lookup(fs, ROOT, "another a", &attr), -ENOENT);
	assert_int_equal(umbra_lookup(fs, others, "a", &attr), 0);
	assert_int_equal(umbra_close(fs), 0);
}

static void a_circle_of_directories_is_cut(void **state)
{
	struct hands h = hands_begin();
	uint64_t key, others = find(&h, ROOT, "others", NULL), a = find(&h, others, "a", &key);
	struct um_inode dir = load(&h, others), inode_a = load(&h, a), inode_c;
	uint64_t b = find(&h, a, "b", NULL);

	(void)state;
	inode_c = load(&h, find(&h, b, "c", NULL));
	assert_int_equal(um_dir_remove(h.txn, &dir, key), 0);
	store(&h, &dir);
	assert_int_equal(um_dir_add(h.txn, &inode_c, "a", 1, &inode_a), 0);
	store(&h, &inode_c);
	inode_a.core.parent = inode_c.ino;
	store(&h, &inode_a);
	hands_end(&h);
	assert_mended("loop", 1);
}

static void wrong_sizes_blocks_and_parents_are_corrected(void **state)
{
	struct hands h = hands_begin();
	struct um_inode inode = load(&h, find(&h, ROOT, "second name of holes", NULL));

	(void)state;
	inode.core.blocks++;
	store(&h, &inode);
	inode = load(&h, find(&h, ROOT, "many", NULL));
	inode.core.size = 3;
	inode.core.parent = 77;
	store(&h, &inode);
	hands_end(&h);
	check(UMBRA_CHECK_ONLY);
	assert_true(saw("blocks") && saw("size") && saw("parent"));
	assert_mended("parent", 0);
}

static void a_record_of_no_known_type_costs_that_inode_only(void **state)
{
	struct hands h = hands_begin();
	uint64_t others = find(&h, ROOT, "others", NULL);
	struct um_inode inode = load(&h, find(&h, others, "fifo", NULL));

	(void)state;
	inode.core.mode = 0600;
	store(&h, &inode);
	hands_end(&h);
	assert_mended("inode", -1);
}

static void leaked_blocks_are_freed_by_preen(void **state)
{
	struct hands h = hands_begin();
	struct umbra_check_report report, before;
	um_lba_t lba;
	uint32_t n;

	(void)state;
	assert_int_equal(um_space_take(h.space, 0, 20, 0, &lba, &n), 0);
	assert_int_equal(um_ref_alloc(h.txn, lba, n), 0);
	hands_end(&h);
	before = check(UMBRA_CHECK_ONLY);
	assert_true(saw("leak"));
	report = check(UMBRA_CHECK_PREEN);
	assert_int_equal(report.unrepaired, 0);
	assert_int_equal(report.blocks_used, before.blocks_used);
	assert_clean("leak");
}

static void counts_too_low_are_not_preened_but_repaired(void **state)
{
	struct hands h = hands_begin();
	struct umbra_check_report report;
	struct um_inode inode = load(&h, find(&h, ROOT, "second name of holes", NULL));

	(void)state;
	/* Shared with three clones: one reference less than there are. */
	assert_int_equal(inode.core.data.format, UM_ROOT_NODE);
	assert_int_equal(um_ref_put(h.txn, inode.core.data.ptr.lba, 1, true, NULL), 0);
	hands_end(&h);
	report = check(UMBRA_CHECK_PREEN);
	assert_true(report.unrepaired > 0);
	assert_mended("refcount", 0);
}

static void orphan_records_must_fit_their_inodes(void **state)
{
	struct hands h = hands_begin();
	uint64_t ino = find(&h, ROOT, "second name of holes", NULL);

	(void)state;
	assert_int_equal(um_orphan_add(h.txn, ino, UM_ORPHAN_UNLINKED, 0), 0);
	assert_int_equal(um_orphan_add(h.txn, 888888, UM_ORPHAN_TRUNCATE, 1), 0);
	hands_end(&h);
	assert_mended("orphan", 0);
}

static void a_second_owner_of_data_is_counted(void **state)
{
	struct hands h = hands_begin();
	uint64_t files = find(&h, ROOT, "files", NULL);
	struct um_inode plain = load(&h, find(&h, files, "plain", NULL));
	struct um_inode small = load(&h, find(&h, files, "small", NULL));

	(void)state;
	assert_int_equal(plain.core.data.format, UM_ROOT_EMBED);
	small.core.data = plain.core.data;
	small.core.blocks = plain.core.blocks;
	small.core.size = plain.core.size;
	memcpy(small.data, plain.data, sizeof(small.data));
	store(&h, &small);
	hands_end(&h);
	assert_mended("refcount", 0);
}

static void data_that_is_metadata_is_taken_from_the_file(void **state)
{
	struct hands h = hands_begin();
	uint64_t files = find(&h, ROOT, "files", NULL);
	struct um_inode small = load(&h, find(&h, files, "small", NULL));
	struct um_inode holes = load(&h, find(&h, files, "holes", NULL));
	struct um_extent extent = {.addr = holes.core.data.ptr.lba, .len = 1};
	struct um_tree tree;

	(void)state;
	memset(&small.core.data, 0, sizeof(small.core.data));
	um_inode_tree(&small, UM_FORK_DATA, &tree);
	assert_int_equal(um_tree_insert(h.txn, &tree, 0, &extent, sizeof(extent)), 0);
	um_inode_set_tree(&small, UM_FORK_DATA, &tree);
	small.core.blocks = 1;
	store(&h, &small);
	hands_end(&h);
	assert_mended("conflict", 0);
}

static void without_a_root_directory_everything_is_in_lost_found(void **state)
{
	struct hands h = hands_begin();

	(void)state;
	assert_int_equal(um_inode_remove(h.txn, UM_ROOT_INO), 0);
	hands_end(&h);
	assert_mended("root", 1);
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
	for (i = 0; i < 60; i++) {
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
	for (i = 0; i < 40; i++) {
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
		cmocka_unit_test(a_wrong_link_count_is_corrected),
		cmocka_unit_test(an_inode_without_a_name_goes_to_lost_found),
		cmocka_unit_test(an_entry_for_nothing_is_removed),
		cmocka_unit_test(an_entry_of_the_wrong_type_is_corrected),
		cmocka_unit_test(a_directory_with_two_names_keeps_its_own),
		cmocka_unit_test(a_circle_of_directories_is_cut),
		cmocka_unit_test(wrong_sizes_blocks_and_parents_are_corrected),
		cmocka_unit_test(a_record_of_no_known_type_costs_that_inode_only),
		cmocka_unit_test(leaked_blocks_are_freed_by_preen),
		cmocka_unit_test(counts_too_low_are_not_preened_but_repaired),
		cmocka_unit_test(orphan_records_must_fit_their_inodes),
		cmocka_unit_test(a_second_owner_of_data_is_counted),
		cmocka_unit_test(data_that_is_metadata_is_taken_from_the_file),
		cmocka_unit_test(without_a_root_directory_everything_is_in_lost_found),
		cmocka_unit_test(a_pool_in_use_is_refused_and_a_missing_one_too),
		cmocka_unit_test(both_superblocks_bad_a_backup_takes_over),
		cmocka_unit_test(a_forged_block_ends_in_a_clean_pool),
		cmocka_unit_test(a_forged_superblock_is_refused_or_ends_in_a_clean_pool),
		cmocka_unit_test(any_bytes_at_all_end_the_check),
	};

	return cmocka_run_group_tests(tests, build, drop);
}
