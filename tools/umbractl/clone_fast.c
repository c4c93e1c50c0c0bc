// SPDX-License-Identifier: BSD-3-Clause
/* The part of a tree clone that the daemon does itself, for callers with all of root's
 * privileges. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clone.h"
#include "umbractl.h"

/* In place: \ooo of /proc/self/mountinfo becomes the byte. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		unsigned byte;

		if (*s == '\\' && sscanf(s + 1, "%3o", &byte) == 1 && strlen(s) >= 4) {
			*to++ = (char)byte;
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* 1 if something is mounted below the directory at path, 0 if not. */
static int mounts_below(const char *path)
{
	size_t n = strcmp(path, "/") ? strlen(path) : 0, room = 0;
	char *line = NULL, *point;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	int found = f ? 0 : -errno;

	while (!found && getline(&line, &room, f) > 0) {
		int begin = 0, end = 0;

		/* The fifth field: the mount point. */
		sscanf(line, "%*s %*s %*s %*s %n%*s%n", &begin, &end);
		if (!end) {
			found = -EPROTO;
			break;
		}
		line[end] = '\0';
		point = line + begin;
		unescape(point);
		found = !strncmp(point, path, n) && point[n] == '/' && point[n + 1];
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

/* The daemon sees only what is in the pool, not what is mounted over it. */
bool um_clone_fast_begin(int src)
{
	char link[32], path[4096];
	ssize_t n;

	if (geteuid())
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", src);
	n = readlink(link, path, sizeof(path));
	if (n <= 0 || (size_t)n == sizeof(path) || path[0] != '/')
		return false;
	path[n] = '\0';
	return mounts_below(path) == 0;
}

int um_clone_fast(int dst, ino_t src, uint32_t op, struct um_ioc_tree *io)
{
	io->src = src;
	io->op = op;
	if (!ioctl(dst, UM_IOC_TREE, io))
		return 0;
	if (errno == ENOTTY || (errno == EPERM && !io->cookie) ||
		(errno == EEXIST && op == UM_TREE_META))
		return -EOPNOTSUPP;
	return -errno;
}
