/* SPDX-License-Identifier: BSD-3-Clause */
/* The wrapper functions. */
#include "inject.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define NOTED_MAX 20000u

static struct {
	bool on, failed;
	uint64_t n, fail;
	int error;
	struct inject_call noted[NOTED_MAX];
} inject;

static const int no_memory[] = {ENOMEM, 0}, no_space[] = {ENOSPC, EIO, 0}, broken[] = {EIO, 0},
		 no_thread[] = {EAGAIN, 0}, no_file[] = {EMFILE, EACCES, 0},
		 no_lock[] = {EWOULDBLOCK, EIO, 0}, no_call[] = {EIO, ENOTTY, 0},
		 no_prealloc[] = {EOPNOTSUPP, ENOSPC, EIO, 0};

void inject_begin(uint64_t fail, int error)
{
	inject.n = 0;
	inject.fail = fail;
	inject.error = error;
	inject.failed = false;
	inject.on = true;
}

uint64_t inject_end(bool *out_failed)
{
	inject.on = false;
	*out_failed = inject.failed;
	return inject.n;
}

const struct inject_call *inject_noted(uint64_t n)
{
	return n && n <= inject.n && n <= NOTED_MAX ? &inject.noted[n - 1] : NULL;
}

static bool fails(const char *what, const int *errors, const void *site)
{
	uint64_t n;

	if (!inject.on)
		return false;
	n = ++inject.n;
	if (n <= NOTED_MAX)
		inject.noted[n - 1] = (struct inject_call){what, site, errors};
	if (n != inject.fail)
		return false;
	inject.failed = true;
	errno = inject.error;
	return true;
}

#define SITE __builtin_return_address(0)

/* The names are the linker's. */
#define WRAP(type, name, params, args, errors, failed)                                             \
	type __real_##name params;                                                                 \
	type __wrap_##name params;                                                                 \
	type __wrap_##name params                                                                  \
	{                                                                                          \
		if (fails(#name, errors, SITE))                                                    \
			return failed;                                                             \
		return __real_##name args;                                                         \
	}

WRAP(void *, malloc, (size_t size), (size), no_memory, NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), no_memory, NULL)
WRAP(void *, realloc, (void *at, size_t size), (at, size), no_memory, NULL)
WRAP(void *, aligned_alloc, (size_t align, size_t size), (align, size), no_memory, NULL)
WRAP(char *, realpath, (const char *path, char *out), (path, out), no_memory, NULL)
WRAP(void *, mmap64, (void *at, size_t len, int prot, int flags, int fd, off_t off),
	(at, len, prot, flags, fd, off), no_memory, MAP_FAILED)
WRAP(int, madvise, (void *at, size_t len, int how), (at, len, how), no_memory, -1)
WRAP(int, stat64, (const char *path, struct stat *st), (path, st), broken, -1)
WRAP(int, fstat64, (int fd, struct stat *st), (fd, st), broken, -1)
WRAP(int, open64, (const char *path, int flags, mode_t mode), (path, flags, mode), no_file, -1)
WRAP(FILE *, fopen64, (const char *path, const char *mode), (path, mode), no_file, NULL)
WRAP(int, flock, (int fd, int how), (fd, how), no_lock, -1)
WRAP(int, ioctl, (int fd, unsigned long cmd, void *arg), (fd, cmd, arg), no_call, -1)
WRAP(int, fallocate64, (int fd, int mode, off_t off, off_t len), (fd, mode, off, len), no_prealloc,
	-1)
WRAP(int, ftruncate64, (int fd, off_t len), (fd, len), no_space, -1)
WRAP(ssize_t, pwrite64, (int fd, const void *buf, size_t len, off_t off), (fd, buf, len, off),
	no_space, -1)
WRAP(int, fdatasync, (int fd), (fd), broken, -1)
WRAP(ssize_t, getrandom, (void *buf, size_t len, unsigned flags), (buf, len, flags), broken, -1)
WRAP(int, pthread_create,
	(pthread_t * thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg),
	(thread, attr, fn, arg), no_thread, inject.error)
WRAP(void *, pmem_map_file,
	(const char *path, size_t len, int flags, mode_t mode, size_t *out_len, int *is_pmem),
	(path, len, flags, mode, out_len, is_pmem), no_memory, NULL)
