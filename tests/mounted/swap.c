/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For unmodified programs (LD_PRELOAD): when the program queries a filesystem's state for the first
 * time, the names in UMBRA_SWAP, "a:b:c:d", are renamed, a to b and then c to d, as another process
 * might do at that moment.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

static void swap(void)
{
	char *list = getenv("UMBRA_SWAP"), *name[4] = {NULL}, *save = NULL;

	if (!list)
		return;
	list = strdup(list);
	unsetenv("UMBRA_SWAP");
	for (int i = 0; list && i < 4; i++)
		name[i] = strtok_r(i ? NULL : list, ":", &save);
	if (!name[3] || rename(name[0], name[1]) || rename(name[2], name[3]))
		perror("swap");
	free(list);
}

int statvfs(const char *path, struct statvfs *out)
{
	int (*real)(const char *, struct statvfs *) = dlsym(RTLD_NEXT, "statvfs");
	int ret = real(path, out);

	swap();
	return ret;
}

int fstatvfs(int fd, struct statvfs *out)
{
	int (*real)(int, struct statvfs *) = dlsym(RTLD_NEXT, "fstatvfs");
	int ret = real(fd, out);

	swap();
	return ret;
}

/* Where off_t is made to have 64 bits, which it has. */
int statvfs64(const char *path, struct statvfs64 *out)
{
	return statvfs(path, (struct statvfs *)out);
}

int fstatvfs64(int fd, struct statvfs64 *out)
{
	return fstatvfs(fd, (struct statvfs *)out);
}
