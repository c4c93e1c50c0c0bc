/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a pool takes to open, clean and after a crash: a sparse pool at PATH of SIZE_GIB, every chunk of it
 * partly used, with many files and, after the crash, many removed ones that were open.
 *
 *   mount_bench PATH SIZE_GIB FILES ORPHANS
 *
 * The pool takes about 8 MiB of memory or disk for each GiB (two pages of counts a chunk). With
 * PMEM_IS_PMEM_FORCE=1 it counts as persistent memory, else as a plain file. Prints milliseconds from
 * umbra_open to the first answer (statfs and a lookup), five times each.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "umbra/umbra.h"

enum { ROUNDS = 5, CHUNK = 2 << 20, BLOCK = 4096 };

static void die(const char *what, int err)
{
	fprintf(stderr, "mount_bench: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static void must(const char *what, int err)
{
	if (err)
		die(what, err);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static uint64_t make(struct umbra_fs *fs, uint64_t dir, const char *name, mode_t mode)
{
	struct umbra_cred cred = {.umask = 022};
	struct umbra_attr attr;

	must(name, umbra_mknod(fs, dir, name, mode, 0, &cred, &attr));
	return attr.st.st_ino;
}

static void make_files(struct umbra_fs *fs, unsigned long n)
{
	uint64_t dir = 0;

	for (unsigned long i = 0; i < n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%lu", i);
		if (i % 1000 == 0)
			dir = make(fs, 1, name, S_IFDIR | 0755);
		umbra_forget(fs, make(fs, dir, name, S_IFREG | 0644), 1);
	}
}

/* A file over all of the free space; then a block of each of its chunks is given back. */
static void use_chunks(struct umbra_fs *fs)
{
	uint64_t ino = make(fs, 1, "all", S_IFREG | 0644), len, off;
	struct statvfs st;

	must("statfs", umbra_statfs(fs, &st));
	len = (uint64_t)st.f_bavail * BLOCK / 100 * 99;
	must("fallocate", umbra_fallocate(fs, ino, 0, 0, len));
	for (off = 0; off < len; off += CHUNK)
		must("punch", umbra_fallocate(fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      off + CHUNK / 2, BLOCK));
	umbra_forget(fs, ino, 1);
}

/* Open and removed, so that a crash leaves them behind. */
static void make_orphans(struct umbra_fs *fs, unsigned long n)
{
	struct umbra_cred cred = {.umask = 022};
	struct umbra_attr attr;

	for (unsigned long i = 0; i < n; i++)
		must("tmpfile", umbra_tmpfile(fs, 1, 0600, &cred, &attr));
}

static struct umbra_fs *open_timed(const char *path, double *out_ms)
{
	double start = now();
	struct umbra_attr attr;
	struct umbra_fs *fs;
	struct statvfs st;

	must(path, umbra_open(path, NULL, &fs));
	must("lookup", umbra_lookup(fs, 1, "0", &attr));
	*out_ms = now() - start;
	umbra_forget(fs, attr.st.st_ino, 1);
	must("statfs", umbra_statfs(fs, &st));
	return fs;
}

int main(int argc, char **argv)
{
	struct umbra_mkfs_options mkfs = {.sparse = true, .force = true};
	unsigned long files, orphans;
	struct umbra_fs *fs;
	double ms, start;

	if (argc != 5) {
		fprintf(stderr, "usage: mount_bench PATH SIZE_GIB FILES ORPHANS\n");
		return 1;
	}
	mkfs.size = strtoull(argv[2], NULL, 0) << 30;
	files = strtoul(argv[3], NULL, 0);
	orphans = strtoul(argv[4], NULL, 0);
	start = now();
	must(argv[1], umbra_mkfs(argv[1], &mkfs, NULL));
	printf("mkfs             %8.1f ms\n", now() - start);
	must(argv[1], umbra_open(argv[1], NULL, &fs));
	start = now();
	make_files(fs, files);
	printf("%lu files   %8.1f ms\n", files, now() - start);
	start = now();
	use_chunks(fs);
	printf("all chunks used  %8.1f ms\n", now() - start);
	must("close", umbra_close(fs));
	for (int i = 0; i < ROUNDS; i++) {
		fs = open_timed(argv[1], &ms);
		printf("clean mount      %8.1f ms\n", ms);
		must("close", umbra_close(fs));
	}
	for (int i = 0; i < ROUNDS; i++) {
		must(argv[1], umbra_open(argv[1], NULL, &fs));
		make_orphans(fs, orphans);
		umbra_abandon(fs);
		fs = open_timed(argv[1], &ms);
		printf("after a crash    %8.1f ms\n", ms);
		must("close", umbra_close(fs));
	}
	unlink(argv[1]);
	return 0;
}
