/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the programs of the mounted tests. A case is a function that runs in its own process
 * with an empty directory of the mount as working directory; it ends at the first failure. */
#ifndef TESTS_MOUNTED_T_H
#define TESTS_MOUNTED_T_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct t_case {
	const char *name;
	void (*fn)(void);
};
/* clang-format off */
#define T_CASE(fn) { #fn, fn }
/* clang-format on */

/* An id without any right. */
#define T_NOBODY 65534

__attribute__((noreturn, format(printf, 3, 4))) void t_fail(
	const char *file, int line, const char *fmt, ...);
__attribute__((noreturn, format(printf, 1, 2))) void t_skip(const char *fmt, ...);

long t_ok(const char *file, int line, const char *what, long result);
void t_fails(const char *file, int line, const char *what, int want, long result);
/* The call must succeed; its value. */
#define ok(call) t_ok(__FILE__, __LINE__, #call, (errno = 0, (long)(call)))
/* The call must fail with this errno. */
#define fails(want, call) t_fails(__FILE__, __LINE__, #call, want, (errno = 0, (long)(call)))
#define eq(a, b)                                                                                   \
	do {                                                                                       \
		long long t_a = (long long)(a), t_b = (long long)(b);                              \
		if (t_a != t_b)                                                                    \
			t_fail(__FILE__, __LINE__, "%s is %lld, must be %s = %lld", #a, t_a, #b,   \
				t_b);                                                              \
	} while (0)
#define is_true(cond)                                                                              \
	do {                                                                                       \
		if (!(cond))                                                                       \
			t_fail(__FILE__, __LINE__, "not so: %s", #cond);                           \
	} while (0)

/* A file of len bytes `fill`; open for reading and writing. */
int t_file(const char *name, size_t len, int fill);
void t_touch(const char *name);
struct stat t_stat(const char *name); /* of the name itself, not of where a link leads */
struct stat t_fstat(int fd);
/* Bytes [off, off+len) must all be `fill` (read by pread). */

#define t_range(fd, off, len, fill) t_range_at(__FILE__, __LINE__, fd, off, len, fill)
void t_range_at(const char *file, int line, int fd, off_t off, size_t len, int fill);
/* Runs fn in a child as uid, gid (no other groups, no capabilities unless uid is 0); it must
 * succeed. */
#define t_as(uid, gid, fn) t_as_at(__FILE__, __LINE__, uid, gid, fn)
void t_as_at(const char *file, int line, uid_t uid, gid_t gid, void (*fn)(void));
void t_sleep_ms(unsigned ms);
struct timespec t_now(void);
int t_after(struct timespec a, struct timespec b); /* a > b */
/* Blocks free in the filesystem of the working directory. */
uint64_t t_free_blocks(void);

extern const struct t_case t_names[], t_dirs[], t_data[], t_map[], t_attr[], t_access[], t_locks[],
	t_special[];

#endif
