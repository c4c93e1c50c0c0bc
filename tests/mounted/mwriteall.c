/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Maps all copies of a file at once and stores to them, each in its own process; each must keep its
 * own contents.
 *   mwriteall FILE...      every file is mapped whole, every page of it stored to
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void die(const char *path, const char *what)
{
	fprintf(stderr, "mwriteall: %s: %s: %s\n", path, what, strerror(errno));
	_exit(1);
}

static uint64_t mark(int file, size_t page)
{
	return (uint64_t)(file + 1) << 32 | page;
}

/* What was there must be there still beside the mark. */
static bool page_ok(const unsigned char *at, const unsigned char *was, uint64_t want)
{
	return !memcmp(at, &want, sizeof(want)) &&
	       !memcmp(at + sizeof(want), was + sizeof(want), PAGE - sizeof(want));
}

static void check_read(const char *path, int file, const unsigned char *was, size_t size)
{
	unsigned char page[PAGE];
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		die(path, "open");
	for (size_t i = 0; i < size / PAGE; i++) {
		if (pread(fd, page, PAGE, (off_t)(i * PAGE)) != PAGE)
			die(path, "read");
		if (!page_ok(page, was + i * PAGE, mark(file, i)))
			die(path, "what was stored is not what is read");
	}
	close(fd);
}

static void child(const char *path, int file, pthread_barrier_t *barrier)
{
	unsigned char *at, *was;
	struct stat st;
	size_t size;
	int fd = open(path, O_RDWR);

	if (fd < 0 || fstat(fd, &st))
		die(path, "open");
	size = (size_t)st.st_size / PAGE * PAGE;
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	was = malloc(size);
	if (at == MAP_FAILED || !was)
		die(path, "mmap");
	close(fd);
	memcpy(was, at, size);
	pthread_barrier_wait(barrier);
	for (size_t i = 0; i < size / PAGE; i++) {
		uint64_t m = mark(file, i);

		memcpy(at + i * PAGE, &m, sizeof(m));
	}
	if (msync(at, size, MS_SYNC))
		die(path, "msync");
	pthread_barrier_wait(barrier);
	for (size_t i = 0; i < size / PAGE; i++)
		if (!page_ok(at + i * PAGE, was + i * PAGE, mark(file, i)))
			die(path, "a page has changed");
	check_read(path, file, was, size);
	_exit(0);
}

int main(int argc, char **argv)
{
	pthread_barrier_t *barrier = mmap(
		NULL, sizeof(*barrier), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_barrierattr_t attr;
	int status, bad = 0;

	if (argc < 2 || barrier == MAP_FAILED)
		return 2;
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(barrier, &attr, (unsigned)(argc - 1));
	alarm(120); /* one that failed keeps the others at the barrier */
	for (int i = 1; i < argc; i++) {
		if (fork() == 0) {
			alarm(110);
			child(argv[i], i, barrier);
		}
	}
	while (wait(&status) > 0)
		bad |= status;
	return bad ? 1 : 0;
}
