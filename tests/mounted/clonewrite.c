/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes through the page cache beside clones into the same range, and a reader. Which of the two is the
 * later one is open, page by page, but the page cache must agree with the pool when both have returned.
 *
 *   clonewrite DIR SECONDS cached|bound
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "views.h"

enum { PAGE = 4096, SIZE = 64 * PAGE };

static struct {
	atomic_uint asked, done;
} * turn;
static unsigned char *buf;
static char target[300], source[300];

static int make(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	memset(buf, 1, SIZE);
	CHECK(fd >= 0 && pwrite(fd, buf, SIZE, 0) == SIZE);
	return fd;
}

__attribute__((noreturn)) static void clones(int from)
{
	int fd = open(target, O_RDWR);

	CHECK(fd >= 0);
	for (;; nops++) {
		while (atomic_load(&turn->asked) == nops)
			sched_yield();
		clone_into(from, fd, 0, SIZE);
		atomic_store(&turn->done, (unsigned)nops + 1);
	}
}

__attribute__((noreturn)) static void reads(void)
{
	int fd = open(target, O_RDONLY);

	CHECK(fd >= 0);
	for (;;)
		CHECK(pread(fd, buf, SIZE, 0) == SIZE);
}

static unsigned writes(int fd, time_t until)
{
	int direct = open(target, O_RDONLY | O_DIRECT);
	unsigned char *pool = aligned_alloc(PAGE, SIZE);
	unsigned bad = 0;

	CHECK(direct >= 0 && pool);
	for (; time(NULL) < until; bad += memcmp(buf, pool, SIZE) != 0) {
		memset(buf, (int)(2 + nops % 200), SIZE);
		atomic_store(&turn->asked, (unsigned)++nops);
		for (volatile unsigned wait = rnd(40000); wait; wait--)
			;
		CHECK(pwrite(fd, buf, SIZE, 0) == SIZE);
		while (atomic_load(&turn->done) != nops)
			sched_yield();
		CHECK(pread(fd, buf, SIZE, 0) == SIZE);
		CHECK(pread(direct, pool, SIZE, 0) == SIZE);
	}
	return bad;
}

int main(int argc, char **argv)
{
	pid_t pid[2];
	unsigned bad;
	int from, fd, status;

	if (argc != 4)
		return 2;
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	snprintf(target, sizeof(target), "%s/target", dir);
	snprintf(source, sizeof(source), "%s/source", dir);
	rnd_state = 88172645463325252ull;
	buf = aligned_alloc(PAGE, SIZE);
	turn = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(buf && turn != MAP_FAILED);
	from = make(source);
	fd = make(target);
	if (!strcmp(argv[3], "bound")) {
		clone_into(from, fd, 0, 0);
		close(fd);
		CHECK(open(target, O_RDONLY) >= 0); /* through a view */
		fd = open(target, O_RDWR);
		CHECK(fd >= 0);
	}
	op = "write beside a clone";
	pid[0] = fork();
	if (!pid[0])
		clones(from);
	pid[1] = fork();
	if (!pid[1])
		reads();
	bad = writes(fd, time(NULL) + atoi(argv[2]));
	if (waitpid(-1, &status, WNOHANG))
		fail("another process has ended");
	kill(pid[0], SIGKILL);
	kill(pid[1], SIGKILL);
	if (bad)
		fail("%u of %lu times the page cache does not agree with the pool", bad, nops);
	printf("%s: %lu times the page cache agreed with the pool\n", argv[3], nops);
	return 0;
}
