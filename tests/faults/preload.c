/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For unmodified programs (LD_PRELOAD): the UMBRA_FAULT-th call of the program itself that may
 * fail, an allocation or a system call, does. Calls that libraries make for themselves do not
 * count. The number of calls, and which one failed, is appended to the file UMBRA_FAULT_LOG.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *at, size_t size);
void *__libc_memalign(size_t align, size_t size);

static uintptr_t from, to; /* the program's code; 0: not known yet */
static uint64_t fail_at;
static atomic_uint_fast64_t ncalls;

static void note(const char *text, uint64_t n, uintptr_t site)
{
	const char *path = getenv("UMBRA_FAULT_LOG");
	char line[128];
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path,
				O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)
		      : -1,
	    len = snprintf(line, sizeof(line), "%s %llu %lx\n", text, (unsigned long long)n,
		    (unsigned long)site);

	if (fd < 0)
		return;
	syscall(SYS_write, fd, line, (size_t)len);
	syscall(SYS_close, fd);
}

static int first_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	unsigned i;

	(void)size;
	(void)arg;
	for (i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X))
			continue;
		from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
		to = from + info->dlpi_phdr[i].p_memsz;
	}
	return 1;
}

__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("UMBRA_FAULT");

	fail_at = text ? strtoull(text, NULL, 10) : 0;
	dl_iterate_phdr(first_object, NULL);
	/* Not for the programs that it starts. */
	unsetenv("LD_PRELOAD");
}

__attribute__((destructor)) static void end(void)
{
	note("calls", ncalls, 0);
}

static bool fails(const char *what, const void *site, int error)
{
	uintptr_t at = (uintptr_t)site;
	uint64_t n;

	if (at < from || at >= to)
		return false;
	n = atomic_fetch_add(&ncalls, 1) + 1;
	if (n != fail_at)
		return false;
	note(what, n, at - from);
	errno = error;
	return true;
}

#define FAILS(what, error) fails(what, __builtin_return_address(0), error)

void *malloc(size_t size)
{
	return FAILS("malloc", ENOMEM) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return FAILS("calloc", ENOMEM) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *at, size_t size)
{
	return FAILS("realloc", ENOMEM) ? NULL : __libc_realloc(at, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	return FAILS("aligned_alloc", ENOMEM) ? NULL : __libc_memalign(align, size);
}

/* The C library's function of that name. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(type, name, params, args, error, failed)                                              \
	type name params                                                                           \
	{                                                                                          \
		static __typeof__(&name) next;                                                     \
                                                                                                   \
		if (FAILS(#name, error))                                                           \
			return failed;                                                             \
		if (!next)                                                                         \
			next = NEXT(name);                                                         \
		return next args;                                                                  \
	}

WRAP(char *, strdup, (const char *text), (text), ENOMEM, NULL)
WRAP(char *, realpath, (const char *path, char *out), (path, out), ENOMEM, NULL)
WRAP(void *, mmap64, (void *at, size_t len, int prot, int flags, int fd, off_t off),
	(at, len, prot, flags, fd, off), ENOMEM, MAP_FAILED)
WRAP(int, madvise, (void *at, size_t len, int how), (at, len, how), ENOMEM, -1)
WRAP(int, fallocate64, (int fd, int mode, off_t off, off_t len), (fd, mode, off, len), ENOSPC, -1)
WRAP(int, ftruncate64, (int fd, off_t len), (fd, len), ENOSPC, -1)
WRAP(ssize_t, pwrite64, (int fd, const void *buf, size_t len, off_t off), (fd, buf, len, off),
	ENOSPC, -1)
WRAP(int, fdatasync, (int fd), (fd), EIO, -1)
WRAP(int, fsync, (int fd), (fd), EIO, -1)
WRAP(int, flock, (int fd, int how), (fd, how), EWOULDBLOCK, -1)
WRAP(FILE *, fopen64, (const char *path, const char *mode), (path, mode), EMFILE, NULL)
WRAP(ssize_t, getrandom, (void *buf, size_t len, unsigned flags), (buf, len, flags), EIO, -1)
WRAP(int, eventfd, (unsigned value, int flags), (value, flags), EMFILE, -1)
WRAP(int, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags), EMFILE, -1)
WRAP(int, pipe2, (int fd[2], int flags), (fd, flags), EMFILE, -1)
WRAP(int, pthread_create,
	(pthread_t * thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg),
	(thread, attr, fn, arg), EAGAIN, EAGAIN)

int open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = va_arg(args, mode_t);
	va_end(args);
	if (FAILS("open64", EMFILE))
		return -1;
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int ioctl(int fd, unsigned long cmd, ...)
{
	va_list args;
	void *arg;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	/* A reply to a waiting system call: in reality it fails only if nobody waits any more. */
	if (cmd != SECCOMP_IOCTL_NOTIF_SEND && FAILS("ioctl", EIO))
		return -1;
	return (int)syscall(SYS_ioctl, fd, cmd, arg);
}
