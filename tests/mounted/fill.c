/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fill DIR KIND: creates files of KIND (small, large, mixed, dirs) until there is no space left,
 * and prints how many bytes fitted. What was acknowledged is read back at the end. fill DIR empty:
 * removes them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK 65536
static char buf[CHUNK], got[CHUNK];

static void pattern(char *p, unsigned file, unsigned long off)
{
	for (unsigned i = 0; i < CHUNK / 8; i++)
		((uint64_t *)p)[i] = ((uint64_t)file << 40) + off + i * 8 + 1;
}

static unsigned long size_of(const char *kind, unsigned i)
{
	if (!strcmp(kind, "small"))
		return 1 + (i * 2654435761u >> 8) % 9000;
	if (!strcmp(kind, "large"))
		return ~0ul >> 1;
	return i % 7 ? 1 + (i * 2654435761u >> 8) % 40000 : 3000000;
}

/* Bytes written; short of `size` when space ran out. */
static long write_file(const char *name, unsigned i, unsigned long size)
{
	unsigned long done = 0;
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0644);

	if (fd < 0)
		return errno == ENOSPC ? 0 : -errno;
	while (done < size) {
		size_t len = size - done < CHUNK ? size - done : CHUNK;
		ssize_t n;

		pattern(buf, i, done - done % CHUNK);
		n = write(fd, buf + done % CHUNK,
			len < CHUNK - done % CHUNK ? len : CHUNK - done % CHUNK);
		if (n < 0 && errno == ENOSPC)
			break;
		if (n <= 0) {
			close(fd);
			return n ? -errno : -EIO;
		}
		done += (unsigned long)n;
	}
	if (close(fd))
		return -errno;
	return (long)done;
}

static int check_file(const char *name, unsigned i, unsigned long size)
{
	int fd = open(name, O_RDONLY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || (unsigned long)st.st_size < size)
		return 1;
	for (unsigned long off = 0; off < size; off += CHUNK) {
		size_t len = size - off < CHUNK ? size - off : CHUNK;

		pattern(buf, i, off);
		if (pread(fd, got, len, (off_t)off) != (ssize_t)len || memcmp(got, buf, len)) {
			printf("FAIL: %s: content at %lu\n", name, off);
			return 1;
		}
	}
	close(fd);
	return 0;
}

static int empty(void)
{
	char name[32];

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		if (unlink(name) && errno != ENOENT) {
			printf("FAIL: cannot remove %s from the full pool: %s\n", name,
				strerror(errno));
			return 1;
		} else if (errno == ENOENT && access(name, F_OK)) {
			break;
		}
		errno = 0;
	}
	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		if (rmdir(name)) {
			if (errno == ENOENT)
				return 0;
			printf("FAIL: rmdir %s: %s\n", name, strerror(errno));
			return 1;
		}
	}
}

static int fill_dirs(void)
{
	char name[32];
	unsigned i;

	for (i = 0;; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		if (mkdir(name, 0755)) {
			if (errno == ENOSPC)
				break;
			printf("FAIL: mkdir %s: %s\n", name, strerror(errno));
			return 1;
		}
	}
	printf("%u\n", i);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long total = 0, last = 0;
	unsigned i;
	char name[32];

	if (argc != 3 || chdir(argv[1])) {
		fprintf(stderr, "usage: fill DIR small|large|mixed|dirs|empty\n");
		return 2;
	}
	if (!strcmp(argv[2], "empty"))
		return empty();
	if (!strcmp(argv[2], "dirs"))
		return fill_dirs();
	for (i = 0;; i++) {
		unsigned long size = size_of(argv[2], i);
		long n;

		snprintf(name, sizeof(name), "f%u", i);
		n = write_file(name, i, size);
		if (n < 0) {
			printf("FAIL: %s: %s\n", name, strerror((int)-n));
			return 1;
		}
		total += (unsigned long)n;
		last = (unsigned long)n;
		if ((unsigned long)n < size)
			break;
	}
	for (unsigned k = 0; k <= i; k++) {
		snprintf(name, sizeof(name), "f%u", k);
		if (access(name, F_OK) && k == i)
			break;
		if (check_file(name, k, k == i ? last : size_of(argv[2], k))) {
			printf("FAIL: %s is not what was written\n", name);
			return 1;
		}
	}
	printf("%lu\n", total);
	return 0;
}
