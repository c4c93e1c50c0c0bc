/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages that a request in flight is about, while somebody else is busy with other pages of the same file: a
 * page that is dropped from the page cache at that moment
 *   into   is the buffer (a mapping) of a direct read: what was read is lost;
 *   write  is being written, through the cache, and the daemon does not have the data yet: whoever reads it
 *          brings the old content back, which stays.
 *
 *   pinned DIR SECONDS into|write open|direct|clone: opens it with O_DIRECT, writes past the cache, clones
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "views.h"

enum { PAGE = 4096, PAGES = 64 };

static unsigned char *page;
static char target[300], source[300];

static void make(const char *path, int first)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	CHECK(fd >= 0);
	for (int i = 0; i < PAGES; i++) {
		memset(page, first + i, PAGE);
		CHECK(pwrite(fd, page, PAGE, (off_t)i * PAGE) == PAGE);
	}
	close(fd);
}

/* The last page is ours. */
__attribute__((noreturn)) static void disturb(const char *how)
{
	int direct = open(target, O_RDWR | O_DIRECT), in = open(source, O_RDONLY), fd;

	CHECK(direct >= 0 && in >= 0);
	for (nops = 0;; nops++) {
		if (!strcmp(how, "open")) {
			fd = open(target, O_RDONLY | O_DIRECT);
			CHECK(fd >= 0);
			close(fd);
		} else if (!strcmp(how, "direct")) {
			CHECK(pwrite(direct, page, PAGE, (off_t)(PAGES - 1) * PAGE) == PAGE);
		} else {
			clone_into(in, direct, (PAGES - 1) * PAGE, PAGE);
		}
	}
}

__attribute__((noreturn)) static void read_always(void)
{
	static unsigned char mine[PAGE];
	int fd = open(target, O_RDONLY);

	CHECK(fd >= 0);
	for (;;)
		CHECK(pread(fd, mine, PAGE, (off_t)rnd(PAGES) * PAGE) == PAGE);
}

static bool filled(const unsigned char *at, unsigned char with)
{
	for (unsigned k = 0; k < PAGE; k++)
		if (at[k] != with)
			return false;
	return true;
}

static bool read_into(unsigned char *map, int from)
{
	unsigned i = rnd(PAGES - 1), j = rnd(PAGES);
	unsigned char *at = map + (size_t)i * PAGE;

	memset(at, 0, PAGE);
	CHECK(pread(from, at, PAGE, (off_t)j * PAGE) == PAGE);
	return filled(at, (unsigned char)(0x40 + j));
}

static bool write_one(int fd)
{
	off_t at = (off_t)rnd(PAGES - 1) * PAGE;

	memset(page, (int)nops, PAGE);
	CHECK(pwrite(fd, page, PAGE, at) == PAGE);
	CHECK(pread(fd, page, PAGE, at) == PAGE);
	return filled(page, (unsigned char)nops);
}

/* The file, opened for writing; with clones through a view that is bound then. */
static int open_target(bool clones)
{
	int fd = open(target, O_RDWR), shared;

	CHECK(fd >= 0);
	if (!clones)
		return fd;
	shared = open(source, O_RDONLY);
	CHECK(shared >= 0);
	clone_into(shared, fd, 0, 0);
	close(fd);
	close(shared);
	CHECK(open(target, O_RDONLY) >= 0);
	fd = open(target, O_RDWR);
	CHECK(fd >= 0);
	return fd;
}

static unsigned work(int fd, bool into, time_t until)
{
	unsigned char *map;
	unsigned lost = 0;
	int from = open(source, O_RDONLY | O_DIRECT);

	map = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED && from >= 0);
	op = into ? "direct read into a mapping" : "write";
	for (; time(NULL) < until; nops++)
		lost += !(into ? read_into(map, from) : write_one(fd));
	return lost;
}

int main(int argc, char **argv)
{
	pid_t busy, reader;
	unsigned lost;
	int fd, status;

	if (argc != 5)
		return 2;
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	rnd_state = 88172645463325252ull;
	page = aligned_alloc(PAGE, PAGE);
	snprintf(target, sizeof(target), "%s/target", dir);
	snprintf(source, sizeof(source), "%s/source", dir);
	make(source, 0x40);
	make(target, 0x40);
	fd = open_target(!strcmp(argv[4], "clone"));
	busy = fork();
	if (!busy)
		disturb(argv[4]);
	reader = fork();
	if (!reader)
		read_always();
	lost = work(fd, !strcmp(argv[3], "into"), time(NULL) + atoi(argv[2]));
	if (waitpid(-1, &status, WNOHANG))
		fail("another process has ended");
	kill(busy, SIGKILL);
	kill(reader, SIGKILL);
	while (wait(NULL) > 0)
		;
	if (lost)
		fail("%u of %lu are lost, beside %s", lost, nops, argv[4]);
	printf("ok: %lu times %s, beside %s\n", nops, op, argv[4]);
	return 0;
}
