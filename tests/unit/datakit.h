/* SPDX-License-Identifier: BSD-3-Clause */
/* For tests of file data: a pool image in memory, files in it, and their expected contents. */
#ifndef TESTS_UNIT_DATAKIT_H
#define TESTS_UNIT_DATAKIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "pool_features.h"
#include "fs/data.h"
#include "txn/internal.h"
#include "umbra/check.h"
#include "umbra/umbra.h"

#define ok(expr) assert_int_equal(expr, 0)
#define B UM_BLOCK_SIZE

struct kit {
	const char *path; /* of a plain file, removed at the end; NULL: in memory */
	uint8_t *base;
	uint64_t size;
	struct umbra_options opt;
	struct umbra_fs *fs;
};

static inline void kit_mount(struct kit *k)
{
	if (k->path)
		ok(umbra_open(k->path, &k->opt, &k->fs));
	else
		ok(umbra_open_image(k->base, k->size, &k->opt, &k->fs));
}

static inline void kit_open_as(
	struct kit *k, uint64_t mib, enum umbra_data_mode data, struct umbra_mkfs_options mkfs)
{
	mkfs = test_features(mkfs);
	k->path = NULL;
	k->size = mib << 20;
	k->base = aligned_alloc(UM_CHUNK_SIZE, k->size);
	assert_non_null(k->base);
	memset(k->base, 0xe5, k->size); /* free blocks are not zero */
	k->opt = (struct umbra_options){.data = data};
	ok(umbra_mkfs_image(k->base, k->size, &mkfs));
	kit_mount(k);
}

static inline void kit_open(struct kit *k, uint64_t mib, enum umbra_data_mode data)
{
	kit_open_as(k, mib, data, (struct umbra_mkfs_options){.copies = 2});
}

/* On a plain file: transactions are gathered, data and metadata reach the file in other ways. */
static inline void kit_open_file_as(
	struct kit *k, const char *path, uint64_t mib, struct umbra_mkfs_options mkfs)
{
	struct umbra_info info;

	mkfs = test_features(mkfs);
	mkfs.size = mib << 20;
	mkfs.force = mkfs.sparse = true;
	unlink(path);
	*k = (struct kit){.path = path, .size = mib << 20};
	ok(umbra_mkfs(path, &mkfs, &info));
	kit_mount(k);
	assert_false(k->fs->pool->direct);
}

static inline void kit_open_file(struct kit *k, const char *path, uint64_t mib)
{
	kit_open_file_as(k, path, mib, (struct umbra_mkfs_options){.copies = 2});
}

/*
 * libpmem reads PMEM_IS_PMEM_FORCE when it is loaded, and would make direct pools of plain files:
 * the test program starts itself again without it.
 */
static inline void kit_without_pmem(char **argv)
{
	if (!getenv("PMEM_IS_PMEM_FORCE"))
		return;
	unsetenv("PMEM_IS_PMEM_FORCE");
	execv("/proc/self/exe", argv);
	abort();
}

static inline void kit_problem(void *arg, const char *code, bool repaired, const char *text)
{
	(void)arg;
	(void)repaired;
	print_message("fsck: %s: %s\n", code, text);
}

/* The pool, at rest, must be without fault. */
static inline void kit_check(struct kit *k)
{
	struct umbra_check_report report;

	if (k->path)
		ok(umbra_check(k->path, UMBRA_CHECK_ONLY, kit_problem, NULL, &report));
	else
		ok(umbra_check_image(
			k->base, k->size, UMBRA_CHECK_ONLY, kit_problem, NULL, &report));
	assert_int_equal(report.problems, 0);
}

static inline void kit_remount(struct kit *k)
{
	ok(umbra_close(k->fs));
	kit_check(k);
	kit_mount(k);
}

static inline void kit_crash(struct kit *k)
{
	umbra_abandon(k->fs);
	kit_check(k);
	kit_mount(k);
}

/* What replays a pool after this takes it for one that another boot has left: only what a COMMIT
 * covers counts. */
static inline void kit_other_boot(bool on)
{
	static const uint8_t other[16] = "another boot";

	um_boot_id_fake = on ? other : NULL;
}

static inline void kit_close(struct kit *k)
{
	ok(umbra_close(k->fs));
	kit_check(k);
	free(k->base);
	if (k->path)
		unlink(k->path);
}

/* A bit of the block is another one. */
static inline void kit_flip(struct kit *k, um_lba_t lba, unsigned at)
{
	uint8_t byte = (uint8_t)(((const uint8_t *)um_pool_ptr(k->fs->pool, lba))[at] ^ 4);

	ok(um_pool_write(k->fs->pool, lba, at, &byte, 1));
	um_pool_drain(k->fs->pool);
}

static inline uint64_t kit_free(struct kit *k)
{
	struct statvfs st;

	um_reaper_wait(k->fs, 5000);
	ok(umbra_statfs(k->fs, &st));
	return st.f_bfree;
}

/* ---- files ------------------------------------------------------------------------------------------ */

struct file {
	uint64_t ino;
	uint8_t *want; /* what it must read as */
	uint64_t size, cap;
};

static inline uint64_t file_ino(struct kit *k, const char *name)
{
	struct umbra_cred cred = {.umask = 022};
	struct umbra_attr attr;

	ok(umbra_mknod(k->fs, UM_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &attr));
	return attr.st.st_ino;
}

static inline void file_make(struct kit *k, struct file *f, const char *name, uint64_t cap)
{
	*f = (struct file){.ino = file_ino(k, name), .want = calloc(1, cap), .cap = cap};
	assert_non_null(f->want);
}

static inline void file_free(struct file *f)
{
	free(f->want);
}

static inline uint64_t file_blocks(struct kit *k, const struct file *f)
{
	struct umbra_attr attr;

	ok(umbra_getattr(k->fs, f->ino, &attr));
	return (uint64_t)attr.st.st_blocks / 8;
}

static inline uint64_t file_size(struct kit *k, const struct file *f)
{
	struct umbra_attr attr;

	ok(umbra_getattr(k->fs, f->ino, &attr));
	return (uint64_t)attr.st.st_size;
}

static inline int file_lba_visit(void *arg, const struct umbra_extent *e)
{
	*(um_lba_t *)arg = e->lba;
	return 1;
}

/* Where a block of the file is. */
static inline um_lba_t file_lba(struct kit *k, const struct file *f, uint64_t block)
{
	um_lba_t lba = 0;

	umbra_map(k->fs, f->ino, block * B, B, file_lba_visit, &lba);
	return lba;
}

static inline void want_size(struct file *f, uint64_t size)
{
	if (size < f->size)
		memset(f->want + size, 0, f->size - size);
	f->size = size;
}

static inline void want_bytes(struct file *f, uint64_t off, const void *src, uint64_t len)
{
	assert_true(off + len <= f->cap);
	if (src)
		memmove(f->want + off, src, len);
	else
		memset(f->want + off, 0, len);
	if (off + len > f->size)
		f->size = off + len;
}

/* Bytes that differ from place to place and from write to write. */
static inline void pattern(uint8_t *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		buf[i] = (uint8_t)(seed >> 56);
	}
}

static inline void file_write(
	struct kit *k, struct file *f, uint64_t off, size_t len, uint64_t seed)
{
	uint8_t *buf = malloc(len + 1);

	pattern(buf, len, seed);
	assert_int_equal(umbra_write(k->fs, f->ino, buf, len, off, 0, NULL), len);
	want_bytes(f, off, buf, len);
	free(buf);
}

static inline void file_truncate(struct kit *k, struct file *f, uint64_t size)
{
	ok(um_data_resize(k->fs, f->ino, size, false));
	want_size(f, size);
}

static inline void file_verify(struct kit *k, const struct file *f)
{
	uint8_t *buf = malloc(f->cap + 1);

	assert_non_null(buf);
	assert_int_equal(file_size(k, f), f->size);
	assert_int_equal(umbra_read(k->fs, f->ino, buf, f->cap, 0), f->size);
	for (uint64_t i = 0; i < f->size; i++)
		if (buf[i] != f->want[i])
			fail_msg("inode %llu: byte %llu is %02x, not %02x",
				(unsigned long long)f->ino, (unsigned long long)i, buf[i],
				f->want[i]);
	free(buf);
}

struct map_sum {
	uint64_t extents, blocks, shared, unwritten, inline_bytes;
};
static inline int map_add(void *arg, const struct umbra_extent *e)
{
	struct map_sum *sum = arg;

	sum->extents++;
	if (e->inline_data) {
		sum->inline_bytes += e->len;
		return 0;
	}
	sum->blocks += e->len / B;
	sum->shared += e->shared ? e->len / B : 0;
	sum->unwritten += e->unwritten ? e->len / B : 0;
	return 0;
}
static inline struct map_sum file_map(struct kit *k, const struct file *f)
{
	struct map_sum sum = {0};

	ok(umbra_map(k->fs, f->ino, 0, UINT64_MAX, map_add, &sum));
	return sum;
}

#endif
