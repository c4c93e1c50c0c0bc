/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The format does not change by accident: a pool made by the first version, kept in golden/pool.xz,
 * is read and checked by every later one, and what mkfs writes at fixed places is pinned byte by
 * byte. `test_golden --make FILE` makes a new one (then: xz -9e), which only a new format version may
 * call for.
 */
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "fs/fs.h"
#include "umbra/check.h"
#include "skip.h"

#define SIZE (16ull << 20)
#define ROOT UM_ROOT_INO

static const uint8_t golden_uuid[16] = {0x67, 0x6f, 0x6c, 0x64, 0x65, 0x6e, 0x40, 0x00, 0x80, 0x00,
	0x75, 0x6d, 0x62, 0x72, 0x61, 0x01};
static const struct umbra_mkfs_options golden_mkfs = {.label = "golden",
	.uuid = golden_uuid,
	.hash_seed = 0x0123456789abcdefull,
	.made_sec = 1500000000};

static uint8_t *new_image(void)
{
	void *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(map != MAP_FAILED);
	return map;
}

/* ---- making ----------------------------------------------------------------------------------------- */

static uint64_t make(struct umbra_fs *fs, uint64_t dir, const char *name, mode_t mode)
{
	struct umbra_cred cred = {.uid = 1000, .gid = 100};
	struct umbra_attr attr = {0};

	if (umbra_mknod(fs, dir, name, mode, 0x0103, &cred, &attr))
		abort();
	return attr.st.st_ino;
}

static void put(struct umbra_fs *fs, uint64_t ino, const void *data, size_t len, uint64_t off)
{
	if (umbra_write(fs, ino, data, len, off, 0, NULL) != (ssize_t)len)
		abort();
}

static void fill(struct umbra_fs *fs)
{
	static char page[4096], value[5000], target[1000];
	uint64_t dir = make(fs, ROOT, "dir", S_IFDIR | 0750), ino, copy;
	char name[64];
	unsigned i;

	memset(page, 'A', sizeof(page));
	memset(value, 'v', sizeof(value));
	memset(target, 't', sizeof(target) - 1);
	put(fs, make(fs, ROOT, "inline", S_IFREG | 0644), "hello, golden\n", 14, 0);
	ino = make(fs, ROOT, "extents", S_IFREG | 0600);
	for (i = 0; i < 200; i++)
		put(fs, ino, page, sizeof(page), i * 8192);
	copy = make(fs, ROOT, "clone", S_IFREG | 0600);
	if (umbra_clone(fs, ino, copy) || umbra_fallocate(fs, ino, 0, 4ull << 20, 8192) ||
		umbra_setxattr(fs, ino, "user.small", "1", 1, 0, false) ||
		umbra_setxattr(fs, ino, "user.large", value, sizeof(value), 0, false) ||
		umbra_symlink(fs, ROOT, "short", "inline", NULL, NULL) ||
		umbra_symlink(fs, ROOT, "long", target, NULL, NULL) ||
		umbra_link(fs, ino, dir, "hard", NULL))
		abort();
	make(fs, dir, "fifo", S_IFIFO | 0600);
	make(fs, dir, "device", S_IFCHR | 0600);
	for (i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "entry number %u of the golden directory", i);
		make(fs, dir, name, S_IFREG | 0644);
	}
}

static int make_golden(const char *path)
{
	uint8_t *image = new_image();
	FILE *out = fopen(path, "w");
	struct umbra_fs *fs;
	int ret = 1;

	if (out && !umbra_mkfs_image(image, SIZE, &golden_mkfs) &&
		!umbra_open_image(image, SIZE, NULL, &fs)) {
		fill(fs);
		ret = umbra_close(fs);
		/* Old records are of no use to anybody and do not compress. */
		memset(image + 513 * UM_BLOCK_SIZE, 0, 255 * UM_BLOCK_SIZE);
		memset(image + (7 * 512 - 255) * UM_BLOCK_SIZE, 0, 255 * UM_BLOCK_SIZE);
		ret = ret || fwrite(image, 1, SIZE, out) != SIZE;
	}
	if (out && fclose(out))
		ret = 1;
	munmap(image, SIZE);
	return ret;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

/* Beside this source, wherever the build was started from; NULL when there is no xz to unpack it. */
static uint8_t *load_golden(void)
{
	const char *dir = getenv("UM_GOLDEN_DIR");
	char source[] = __FILE__, command[4096];
	uint8_t *image = new_image();
	size_t got = 0;
	FILE *in;

	if (dir)
		snprintf(command, sizeof(command), "xz -dc '%s/pool.xz'", dir);
	else
		snprintf(command, sizeof(command), "xz -dc '%s/golden/pool.xz'", dirname(source));
	in = popen(command, "r");
	if (in) {
		got = fread(image, 1, SIZE, in);
		if (pclose(in) || got != SIZE)
			got = 0;
	}
	if (got)
		return image;
	munmap(image, SIZE);
	return NULL;
}

static int setup(void **state)
{
	*state = load_golden();
	return 0;
}

static int teardown(void **state)
{
	if (*state)
		munmap(*state, SIZE);
	return 0;
}

static uint64_t le(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | at[bytes];
	return value;
}

static uint8_t *golden(void **state)
{
	if (*state)
		return *state;
	if (system("xz --version > /dev/null 2>&1"))
		skip_because("there is no xz to unpack the golden pool with");
	fail_msg("golden/pool.xz cannot be unpacked");
	return NULL;
}

/* Every field, by its offset: FORMAT.md says the same in words. */
static void check_super(const uint8_t *super)
{
	assert_int_equal(le(super, 4), 0x01424d55);
	assert_int_equal(super[4], 1);
	assert_int_equal(super[5], 0);
	assert_int_equal(le(super + 16, 8), 0);
	assert_int_equal(le(super + 24, 8), 7 * 512);
	assert_memory_equal(super + 32, golden_uuid, 16);
	assert_int_equal(le(super + 48, 8), 0);
	assert_int_equal(le(super + 56, 8), 0);
	assert_memory_equal(super + 64, "umbrafs", 8);
	assert_int_equal(le(super + 72, 4), 1);
	assert_int_equal(le(super + 76, 4), 4096);
	assert_int_equal(le(super + 80, 8), 8);
	assert_int_equal(le(super + 88, 8), 0);
	assert_int_equal(le(super + 96, 8), 0);
	assert_int_equal(le(super + 104, 8), 0);
	assert_int_equal(le(super + 112, 8), 512);
	assert_int_equal(le(super + 120, 8), 256);
	assert_int_equal(le(super + 128, 8), 7 * 512 - 256);
	assert_int_equal(le(super + 136, 8), 0x0123456789abcdefull);
	assert_int_equal(le(super + 144, 8), 1500000000);
	assert_int_equal(le(super + 152, 8), 2);
	assert_int_equal(le(super + 160, 8), 7 * 512 + 2);
	assert_int_equal(super[168], 2);
	assert_string_equal((const char *)super + 176, "golden");
}

static void the_superblock_is_where_and_what_it_was(void **state)
{
	const uint8_t *image = golden(state);

	check_super(image);
	check_super(image + 7 * UM_CHUNK_SIZE);
	assert_memory_equal(image, image + 7 * UM_CHUNK_SIZE, UM_BLOCK_SIZE);
	assert_int_equal(le(image + 8, 8), um_block_csum(image));
}

static void todays_mkfs_writes_the_same_superblock(void **state)
{
	uint8_t *image = new_image(), zeros[UM_BLOCK_SIZE - 240] = {0};

	(void)state;
	assert_int_equal(umbra_mkfs_image(image, SIZE, &golden_mkfs), 0);
	check_super(image);
	assert_memory_equal(image + 240, zeros, sizeof(zeros));
	/* kind_made: memory. All other bytes are in the digest as well. */
	assert_int_equal(image[169], UMBRA_POOL_MEMORY);
	assert_int_equal(XXH3_64bits(image, UM_BLOCK_SIZE), 0xe7d9120f33b788c6ull);
	munmap(image, SIZE);
}

static void todays_mkfs_writes_the_same_tables(void **state)
{
	uint8_t *image = new_image();
	const uint8_t *ag = image + 4096, *refs = image + 9 * 4096, *root = image + 2 * 4096;
	const uint8_t *journal = image + 512 * 4096;

	(void)state;
	assert_int_equal(umbra_mkfs_image(image, SIZE, &golden_mkfs), 0);
	assert_int_equal(le(ag, 4), 0x02424d55);
	assert_memory_equal(ag, image + 7 * UM_CHUNK_SIZE + 4096, UM_BLOCK_SIZE);
	assert_int_equal(le(ag + 64, 8), UM_CHUNK_STATIC);
	assert_int_equal(le(ag + 64 + 8, 8) & 3, UM_CHUNK_MIXED);
	assert_int_equal(le(ag + 64 + 7 * 8, 8), UM_CHUNK_STATIC);
	assert_int_equal(le(ag + 64 + 8 * 8, 8), 0);
	assert_int_equal(le(refs, 4), 0x03424d55);
	assert_int_equal(le(refs + 56, 8), 1);
	assert_int_equal(le(refs + 64, 4), 1);
	assert_int_equal(le(refs + 64 + 4 * 255, 4), 1);
	assert_int_equal(le(root, 4), 0x04424d55);
	assert_int_equal(le(root + 64, 8), UM_FIRST_INO);
	assert_int_equal(le(root + 72, 8), 1);
	assert_int_equal(le(root + 96, 4), 1);
	assert_int_equal(root[104 + 16], UM_ROOT_NODE);
	assert_int_equal(le(journal, 4), 0x05424d55);
	munmap(image, SIZE);
}

/* Checksums in chunk 1 and 6, parity in 5. */
static void todays_mkfs_puts_features_where_they_were(void **state)
{
	static const unsigned fixed = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7;
	struct umbra_mkfs_options opt = golden_mkfs;
	uint8_t *image = new_image(), sum[4096] = {0};
	const uint8_t *ag = image + 4096, *cover = image + (8 + 5) * 4096;
	const uint8_t *csums = image + 513 * 4096;
	unsigned covered = 0;

	(void)state;
	opt.data_csum = opt.parity = true;
	assert_int_equal(umbra_mkfs_image(image, SIZE, &opt), 0);
	assert_int_equal(le(image + 104, 8), 3);
	assert_int_equal(le(image + 112, 8), 2 * 512);
	assert_int_equal(le(image + 128, 8), 5 * 512 - 256);
	assert_int_equal(XXH3_64bits(image, UM_BLOCK_SIZE), 0x24446dc04c0b48c2ull);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal((le(ag + 64 + 8ul * i, 8) & 3) == UM_CHUNK_STATIC, fixed >> i & 1);
	assert_int_equal(le(csums, 4), 0x0e424d55);
	assert_int_equal(le(csums + 64, 8), 0);
	assert_memory_equal(csums, image + (6 * 512 + 1) * 4096, 4096);
	assert_int_equal(le(cover, 4), 0x0f424d55);
	assert_memory_equal(cover, image + (7 * 512 + 8 + 5) * 4096, 4096);
	/* The node of inodes and its copy: each block covered is in the parity of its stripe. */
	for (unsigned i = 2 * 512; i < 5 * 512; i++) {
		const uint8_t *parity = image + (5ul * 512 + (i - 2 * 512) / 8) * 4096;

		if (!(cover[64 + i / 8] >> i % 8 & 1))
			continue;
		covered++;
		assert_int_equal(le(image + i * 4096ul, 4), 0x06424d55);
		assert_memory_equal(image + i * 4096ul, parity, 4096); /* alone there */
	}
	assert_int_equal(covered, 2);
	/* What a checksum is of. */
	assert_int_equal(um_data_csum(sum), 0x48c689bau);
	munmap(image, SIZE);
}

static void the_old_pool_is_clean(void **state)
{
	struct umbra_check_report report;

	assert_int_equal(
		umbra_check_image(golden(state), SIZE, UMBRA_CHECK_ONLY, NULL, NULL, &report), 0);
	assert_int_equal(report.problems, 0);
	assert_true(report.was_clean);
	assert_int_equal(report.inodes, 1 + 1 + 1 + 2 + 2 + 2 + 300);
}

static uint64_t lookup(struct umbra_fs *fs, uint64_t dir, const char *name, struct umbra_attr *attr)
{
	assert_int_equal(umbra_lookup(fs, dir, name, attr), 0);
	return attr->st.st_ino;
}

static void check_file(struct umbra_fs *fs, uint64_t ino)
{
	static uint8_t page[4096];
	unsigned i;

	for (i = 0; i < 399; i++) {
		assert_int_equal(umbra_read(fs, ino, page, sizeof(page), i * 4096), sizeof(page));
		assert_int_equal(page[i], i % 2 ? 0 : 'A');
	}
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

static void the_old_pool_holds_what_it_held(void **state)
{
	struct umbra_options opt = {.readonly = true};
	char buf[UMBRA_SYMLINK_MAX + 1], value[5000];
	struct umbra_attr attr;
	struct umbra_fs *fs;
	unsigned n = 0, i;
	uint64_t dir, ino;

	assert_int_equal(umbra_open_image(golden(state), SIZE, &opt, &fs), 0);
	ino = lookup(fs, ROOT, "inline", &attr);
	assert_int_equal(umbra_read(fs, ino, buf, sizeof(buf), 0), 14);
	assert_memory_equal(buf, "hello, golden\n", 14);
	ino = lookup(fs, ROOT, "extents", &attr);
	assert_int_equal(attr.st.st_nlink, 2);
	assert_int_equal(attr.st.st_uid, 1000);
	assert_int_equal(attr.st.st_size, (4 << 20) + 8192);
	assert_int_equal(umbra_getxattr(fs, ino, "user.large", value, sizeof(value)), 5000);
	for (i = 0; i < sizeof(value); i++)
		assert_int_equal(value[i], 'v');
	check_file(fs, ino);
	check_file(fs, lookup(fs, ROOT, "clone", &attr));
	assert_int_equal(attr.st.st_blocks, 200 * 8);
	assert_int_equal(umbra_readlink(fs, lookup(fs, ROOT, "short", &attr), buf), 0);
	assert_string_equal(buf, "inline");
	assert_int_equal(umbra_readlink(fs, lookup(fs, ROOT, "long", &attr), buf), 0);
	assert_int_equal(strlen(buf), 999);
	dir = lookup(fs, ROOT, "dir", &attr);
	assert_int_equal(attr.st.st_mode, S_IFDIR | 0750);
	lookup(fs, dir, "device", &attr);
	assert_int_equal(attr.st.st_rdev, 0x0103);
	assert_int_equal(lookup(fs, dir, "hard", &attr), lookup(fs, ROOT, "extents", &attr));
	assert_int_equal(umbra_readdir(fs, dir, 0, count_entry, &n), 0);
	assert_int_equal(n, 2 + 3 + 300);
	assert_int_equal(umbra_close(fs), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_superblock_is_where_and_what_it_was),
		cmocka_unit_test(todays_mkfs_writes_the_same_superblock),
		cmocka_unit_test(todays_mkfs_writes_the_same_tables),
		cmocka_unit_test(todays_mkfs_puts_features_where_they_were),
		cmocka_unit_test(the_old_pool_is_clean),
		cmocka_unit_test(the_old_pool_holds_what_it_held),
	};

	if (argc == 3 && !strcmp(argv[1], "--make"))
		return make_golden(argv[2]);
	return cmocka_run_group_tests(tests, setup, teardown);
}
