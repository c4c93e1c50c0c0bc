/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For unmodified programs (LD_PRELOAD): while the file UMBRA_SLOWREAD exists, each pread takes half a
 * second longer, as from a medium that is in trouble.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static void delay(void)
{
	const char *path = getenv("UMBRA_SLOWREAD");

	if (path && !access(path, F_OK))
		usleep(500000);
}

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	ssize_t (*real)(int, void *, size_t, off_t) = dlsym(RTLD_NEXT, "pread");

	delay();
	return real(fd, buf, len, off);
}

/* The name it has for programs whose off_t always has 64 bits. */
ssize_t pread64(int fd, void *buf, size_t len, off_t off)
{
	return pread(fd, buf, len, off);
}
