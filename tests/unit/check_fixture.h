/* SPDX-License-Identifier: BSD-3-Clause */
/* For tests of the checker: a pool in memory with something of everything in it, and functions that
 * judge the result of checking a damaged copy. */
#ifndef TESTS_UNIT_CHECK_FIXTURE_H
#define TESTS_UNIT_CHECK_FIXTURE_H

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

static inline uint64_t rnd(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 2685821657736338717ull;
}

/* ---- the pool -------------------------------------------------------------------------------------- */

static inline uint64_t make(struct umbra_fs *fs, uint64_t dir, const char *name, mode_t mode)
{
	struct umbra_attr attr;

	assert_int_equal(umbra_mknod(fs, dir, name, mode, makedev(1, 3), NULL, &attr), 0);
	return attr.st.st_ino;
}

static inline void put(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, int byte)
{
	char *buf = malloc(len);

	memset(buf, byte, len);
	assert_int_equal(umbra_write(fs, ino, buf, len, off, 0, NULL), len);
	free(buf);
}

static inline void fill_files(struct umbra_fs *fs)
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

static inline void fill_others(struct umbra_fs *fs)
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

static inline void fill_many(struct umbra_fs *fs)
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
static inline void fill_orphan(struct umbra_fs *fs)
{
	struct umbra_attr attr;

	assert_int_equal(umbra_tmpfile(fs, ROOT, 0600, NULL, &attr), 0);
	put(fs, attr.st.st_ino, 0, 20000, 'o');
}

static inline uint8_t *new_image(uint64_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(map != MAP_FAILED);
	return map;
}

static inline void quiet(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (getenv("UM_TEST_VERBOSE"))
		fprintf(stderr, "%s\n", line);
}

static inline int build(void **state)
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

static inline int drop(void **state)
{
	(void)state;
	munmap(pristine, SIZE);
	munmap(image, SIZE);
	return 0;
}

static inline void reset(void)
{
	memcpy(image, pristine, SIZE);
}

/* ---- checking ------------------------------------------------------------------------------------------ */

static char seen_codes[4096]; /* of the last check, each followed by a space */

static inline void note(void *arg, const char *code, bool repaired, const char *text)
{
	char word[64];

	(void)arg;
	snprintf(word, sizeof(word), "%s ", code);
	if (!strstr(seen_codes, word) && strlen(seen_codes) + strlen(word) < sizeof(seen_codes))
		strcat(seen_codes, word);
	if (getenv("UM_TEST_VERBOSE"))
		fprintf(stderr, "  %s%s: %s\n", code, repaired ? "*" : "", text);
}

static inline bool saw(const char *code)
{
	char word[64];

	snprintf(word, sizeof(word), "%s ", code);
	return strstr(seen_codes, word) != NULL;
}

static inline struct umbra_check_report check(enum umbra_check_mode mode)
{
	struct umbra_check_report report;

	seen_codes[0] = 0;
	assert_int_equal(umbra_check_image(image, SIZE, mode, note, NULL, &report), 0);
	return report;
}

static inline void assert_clean(const char *what)
{
	struct umbra_check_report report = check(UMBRA_CHECK_ONLY);

	if (report.problems)
		fail_msg("%s: %" PRIu64 " problems left (%s)", what, report.problems, seen_codes);
}

static inline int count_entry(
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
static inline void assert_usable(const char *what)
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

#endif
