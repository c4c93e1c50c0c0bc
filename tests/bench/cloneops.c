/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Times single operations around clones, in one process so that no start-up time is counted. Each
 * command prints microseconds, one number per line. Driven by clone_bench.
 *   cloneops fragment FILE N            a file of N one-block extents (every other block is a hole)
 *   cloneops contiguous FILE BYTES
 *   cloneops clone SRC DST COUNT        COUNT clones DST.0, DST.1 ...: FICLONE, else copy_file_range
 *   cloneops firstwrite PREFIX COUNT    one 4 KiB write in the middle of each PREFIX.i, with fsync
 *   cloneops rewrite PREFIX COUNT       the same write again: the cost of an unshared write
 *   cloneops unlink PREFIX COUNT
 *   cloneops random FILE WRITES         4 KiB random overwrites; prints one mean
 *   cloneops touch FILE                 writes one byte in every 2 MiB: the first touch
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static void die(const char *what)
{
	fprintf(stderr, "cloneops: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);
	if (fd < 0)
		die(path);
	return fd;
}

static int open_nth(const char *prefix, long i, int flags)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s.%ld", prefix, i);
	return open_or_die(path, flags);
}

static void make_fragmented(const char *path, long n)
{
	static char block[BLOCK];
	int fd = open_or_die(path, O_RDWR | O_CREAT | O_TRUNC);
	for (long i = 0; i < n; i++) {
		memcpy(block, &i, sizeof(i));
		if (pwrite(fd, block, BLOCK, i * 2 * BLOCK) != BLOCK)
			die("pwrite");
	}
	if (fsync(fd))
		die("fsync");
	close(fd);
}

static void make_contiguous(const char *path, long bytes)
{
	static char piece[1 << 20];
	int fd = open_or_die(path, O_RDWR | O_CREAT | O_TRUNC);
	for (long off = 0; off < bytes; off += (long)sizeof(piece)) {
		memset(piece, (int)(off >> 20), sizeof(piece));
		if (pwrite(fd, piece, sizeof(piece), off) != (ssize_t)sizeof(piece))
			die("pwrite");
	}
	if (fsync(fd))
		die("fsync");
	close(fd);
}

static void clone_fd(int src, int dst)
{
	struct stat st;
	off_t from = 0, to = 0;
	if (ioctl(dst, FICLONE, src) == 0)
		return;
	if (errno != EOPNOTSUPP && errno != ENOTTY)
		die("FICLONE");
	if (fstat(src, &st))
		die("fstat");
	while (from < st.st_size) {
		ssize_t n = copy_file_range(src, &from, dst, &to, (size_t)(st.st_size - from), 0);
		if (n <= 0)
			die("copy_file_range");
	}
}

static void time_clones(const char *src_path, const char *prefix, long count)
{
	int src = open_or_die(src_path, O_RDONLY);
	for (long i = 0; i < count; i++) {
		int dst = open_nth(prefix, i, O_RDWR | O_CREAT | O_TRUNC);
		double start = now_us();
		clone_fd(src, dst);
		printf("%.1f\n", now_us() - start);
		close(dst);
	}
	close(src);
}

static void time_writes(const char *prefix, long count)
{
	static char block[BLOCK];
	struct stat st;
	memset(block, 0x5a, sizeof(block));
	for (long i = 0; i < count; i++) {
		int fd = open_nth(prefix, i, O_RDWR);
		if (fstat(fd, &st))
			die("fstat");
		off_t at = st.st_size / (4 * BLOCK) *
			   (2 * BLOCK); /* a written block near the middle */
		double start = now_us();
		if (pwrite(fd, block, BLOCK, at) != BLOCK || fdatasync(fd))
			die("pwrite");
		printf("%.1f\n", now_us() - start);
		close(fd);
	}
}

static void time_unlinks(const char *prefix, long count)
{
	char path[4096];
	for (long i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s.%ld", prefix, i);
		double start = now_us();
		if (unlink(path))
			die(path);
		printf("%.1f\n", now_us() - start);
	}
}

static void time_random(const char *path, long writes)
{
	static char block[BLOCK];
	struct stat st;
	uint64_t x = 88172645463325252ull;
	int fd = open_or_die(path, O_RDWR);
	if (fstat(fd, &st))
		die("fstat");
	uint64_t blocks = (uint64_t)st.st_size / BLOCK;
	double start = now_us();
	for (long i = 0; i < writes; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		if (pwrite(fd, block, BLOCK, (off_t)(x % blocks) * BLOCK) != BLOCK)
			die("pwrite");
	}
	if (fdatasync(fd))
		die("fdatasync");
	printf("%.2f\n", (now_us() - start) / (double)writes);
	close(fd);
}

static void touch_all(const char *path)
{
	struct stat st;
	int fd = open_or_die(path, O_RDWR);
	if (fstat(fd, &st))
		die("fstat");
	for (off_t at = 0; at < st.st_size; at += 2 << 20)
		if (pwrite(fd, "x", 1, at) != 1)
			die("pwrite");
	close(fd);
}

int main(int argc, char **argv)
{
	const char *op = argc > 1 ? argv[1] : "";
	long n = argc > 3 ? atol(argv[argc - 1]) : 0;
	if (!strcmp(op, "fragment") && argc == 4)
		make_fragmented(argv[2], n);
	else if (!strcmp(op, "contiguous") && argc == 4)
		make_contiguous(argv[2], n);
	else if (!strcmp(op, "clone") && argc == 5)
		time_clones(argv[2], argv[3], n);
	else if ((!strcmp(op, "firstwrite") || !strcmp(op, "rewrite")) && argc == 4)
		time_writes(argv[2], n);
	else if (!strcmp(op, "unlink") && argc == 4)
		time_unlinks(argv[2], n);
	else if (!strcmp(op, "random") && argc == 4)
		time_random(argv[2], n);
	else if (!strcmp(op, "touch") && argc == 3)
		touch_all(argv[2]);
	else {
		fprintf(stderr, "usage: see the head of cloneops.c\n");
		return 1;
	}
	return 0;
}
