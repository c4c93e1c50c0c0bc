/* SPDX-License-Identifier: BSD-3-Clause */
/* A filesystem in memory for the tests of fs/: created, mounted, remounted, checked. */
#ifndef FS_FIXTURE_H
#define FS_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "pool_features.h"
#include "umbra/check.h"
#include "umbra/umbra.h"

#define FIXTURE_SIZE (64ull << 20)
#define ROOT 1ull

struct fixture {
	void *image;
	uint64_t size;
	struct umbra_options opt;
	struct umbra_fs *fs;
};

static inline void fixture_mount(struct fixture *f)
{
	assert_int_equal(umbra_open_image(f->image, f->size, &f->opt, &f->fs), 0);
}

static inline struct fixture *fixture_new(uint64_t size)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct umbra_mkfs_options mkfs = test_features((struct umbra_mkfs_options){0});

	assert_non_null(f);
	f->size = size;
	f->image = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(f->image, MAP_FAILED);
	assert_int_equal(umbra_mkfs_image(f->image, size, &mkfs), 0);
	fixture_mount(f);
	return f;
}

static inline void fixture_problem(void *arg, const char *code, bool repaired, const char *text)
{
	(void)arg;
	(void)repaired;
	print_error("check: %s: %s\n", code, text);
}

/* The pool as it is now must be sound in the eyes of fsck. */
static inline void fixture_check(struct fixture *f)
{
	struct umbra_check_report report;

	assert_int_equal(umbra_check_image(f->image, f->size, UMBRA_CHECK_ONLY, fixture_problem,
				 NULL, &report),
		0);
	assert_int_equal(report.problems, 0);
}

static inline void fixture_remount(struct fixture *f)
{
	assert_int_equal(umbra_close(f->fs), 0);
	fixture_check(f);
	fixture_mount(f);
}

static inline void fixture_crash(struct fixture *f)
{
	umbra_abandon(f->fs);
	fixture_check(f);
	fixture_mount(f);
}

static inline void fixture_free(struct fixture *f)
{
	assert_int_equal(umbra_close(f->fs), 0);
	fixture_check(f);
	munmap(f->image, f->size);
	free(f);
}

static inline int fixture_setup(void **state)
{
	*state = fixture_new(FIXTURE_SIZE);
	return 0;
}

static inline int fixture_teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

/* ---- short forms; the references that the calls hand out are given back at once -------------------- */

static inline int try_make(
	struct fixture *f, uint64_t dir, const char *name, mode_t mode, uint64_t *ino)
{
	struct umbra_cred cred = {.umask = 022};
	struct umbra_attr attr;
	int ret = umbra_mknod(f->fs, dir, name, mode, 0, &cred, &attr);

	if (!ret) {
		umbra_forget(f->fs, attr.st.st_ino, 1);
		if (ino)
			*ino = attr.st.st_ino;
	}
	return ret;
}

static inline uint64_t make(struct fixture *f, uint64_t dir, const char *name, mode_t mode)
{
	uint64_t ino = 0;

	assert_int_equal(try_make(f, dir, name, mode, &ino), 0);
	return ino;
}

static inline uint64_t make_dir(struct fixture *f, uint64_t dir, const char *name)
{
	return make(f, dir, name, S_IFDIR | 0777);
}

static inline uint64_t make_file(struct fixture *f, uint64_t dir, const char *name)
{
	return make(f, dir, name, S_IFREG | 0666);
}

static inline int try_find(
	struct fixture *f, uint64_t dir, const char *name, struct umbra_attr *attr)
{
	int ret = umbra_lookup(f->fs, dir, name, attr);

	if (!ret)
		umbra_forget(f->fs, attr->st.st_ino, 1);
	return ret;
}

/* Inode number of a name, 0 when there is none. */
static inline uint64_t find(struct fixture *f, uint64_t dir, const char *name)
{
	struct umbra_attr attr;
	int ret = try_find(f, dir, name, &attr);

	assert_true(!ret || ret == -ENOENT);
	return ret ? 0 : attr.st.st_ino;
}

static inline struct umbra_attr attr_of(struct fixture *f, uint64_t ino)
{
	struct umbra_attr attr;

	assert_int_equal(umbra_getattr(f->fs, ino, &attr), 0);
	return attr;
}

static inline unsigned long nlink_of(struct fixture *f, uint64_t ino)
{
	return attr_of(f, ino).st.st_nlink;
}

/* Free blocks, when everything removed has gone. */
static inline uint64_t free_blocks(struct fixture *f)
{
	struct statvfs st;

	assert_int_equal(umbra_statfs(f->fs, &st), 0);
	return st.f_bfree;
}

static inline uint64_t inodes(struct fixture *f)
{
	struct umbra_info info;
	struct statvfs st;

	assert_int_equal(umbra_statfs(f->fs, &st), 0);
	assert_int_equal(umbra_info(f->fs, &info), 0);
	return info.inodes;
}

#endif
