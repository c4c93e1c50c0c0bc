/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * clonesize DIR SECONDS HOW: what is written behind the new end of a file right after a clone made it
 * longer must stay, though others ask for its attributes and fault its pages all the time. HOW:
 * "clone", the plain file; "bound", one that is bound to a view; "copy", copy_file_range; "direct", a
 * direct write, which is not safe (README.md, limits).
 *
 * The kernel zeroes the rest of the last page some time after a reply has told it a size that it did
 * not set itself (src/DESIGN.md, "Sizes the kernel must know").
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "views.h"

#define KIB 1024u
#define OLD (32 * KIB) /* sizes before and after */
#define NEW (61 * KIB)
#define MAPPED (128 * KIB)
#define ADDED (3 * KIB) /* written behind the end, in the last page */
#define ASKERS 6
#define FAULTERS 6
#define LOOKS 200

static char path[300];
static int fd, direct;
static unsigned char *map;
static atomic_bool stop;
static __thread sigjmp_buf beyond;
static __thread volatile sig_atomic_t armed;

static void on_bus(int sig)
{
	(void)sig;
	if (!armed)
		_exit(9);
	siglongjmp(beyond, 1);
}

static void rest(unsigned *seed)
{
	usleep((useconds_t)rand_r(seed) % 400);
}

/* Half of them by fstat, half by reads beyond the end, for which the kernel asks. */
static void *ask(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	int own = open(path, O_RDONLY);
	bool reads = seed % 2;
	char some[4096];
	struct stat st;

	CHECK(own >= 0);
	while (!stop) {
		rest(&seed);
		if (reads)
			CHECK(pread(own, some, sizeof(some), 200 * KIB) == 0);
		else
			CHECK(!fstat(own, &st));
	}
	return NULL;
}

/* Pages around the new end; half of the threads drop them, so that the next fault asks the daemon. */
static void *fault(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	unsigned char *own = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, fd, 0);
	bool drops = seed;

	CHECK(own != MAP_FAILED);
	while (!stop) {
		rest(&seed);
		armed = 1;
		if (!sigsetjmp(beyond, 1)) {
			(void)*(volatile unsigned char *)(own + NEW);
			(void)*(volatile unsigned char *)(own + NEW - 4 * KIB);
			if (drops)
				madvise(own, MAPPED, MADV_DONTNEED);
		}
		armed = 0;
	}
	return NULL;
}

static void grow(const char *how, int src)
{
	static void *zeros;
	off_t from = OLD, to = OLD;

	switch (*how) {
	case 'd':
		if (!zeros)
			CHECK(!posix_memalign(&zeros, 4096, NEW - OLD));
		CHECK(pwrite(direct, zeros, NEW - OLD, OLD) == NEW - OLD);
		break;
	case 'c':
		if (how[1] == 'o') {
			CHECK(copy_file_range(src, &from, fd, &to, NEW - OLD, 0) == NEW - OLD);
			break;
		}
		/* fall through */
	default:
		clone_into(src, fd, 0, 0);
	}
}

/* Also: the kernel knows the size at once. */
static bool round_ok(const char *how, int src, uint64_t stamp)
{
	const volatile uint64_t *seen = (const void *)(map + NEW);
	static uint64_t data[ADDED / 8];
	struct statx has;

	for (size_t i = 0; i < ADDED / 8; i++)
		data[i] = stamp;
	CHECK(!ftruncate(fd, OLD));
	grow(how, src);
	CHECK(!statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &has));
	if (has.stx_size != NEW)
		fail("the kernel has the size %llu", (unsigned long long)has.stx_size);
	CHECK(pwrite(fd, data, ADDED, NEW) == ADDED);
	for (unsigned i = 0; i < LOOKS; i++) {
		if (seen[0] != stamp || seen[ADDED / 8 - 1] != stamp)
			return false;
		if (i > LOOKS / 2)
			sched_yield();
	}
	return true;
}

static int make_source(void)
{
	static unsigned char data[NEW];
	int src;

	snprintf(path, sizeof(path), "%s/s", dir);
	src = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	CHECK(src >= 0);
	memset(data, 0x11, sizeof(data));
	CHECK(pwrite(src, data, sizeof(data), 0) == sizeof(data) && !fsync(src));
	snprintf(path, sizeof(path), "%s/f", dir);
	return src;
}

/* A writer who opens a clone that somebody reads: the view becomes the file's. */
static void make_bound(int src)
{
	int made = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	CHECK(made >= 0);
	clone_into(src, made, 0, 0);
	CHECK(!close(made));
	usleep(100000); /* its release */
	CHECK(open(path, O_RDONLY) >= 0);
}

int main(int argc, char **argv)
{
	unsigned long rounds = 0, bad = 0;
	struct timespec now, end;
	pthread_t thread;
	const char *how;
	int src;

	CHECK(argc == 4);
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	how = op = argv[3];
	signal(SIGBUS, on_bus);
	src = make_source();
	if (*how == 'b')
		make_bound(src);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	direct = *how == 'd' ? open(path, O_RDWR | O_DIRECT) : -1;
	CHECK(fd >= 0);
	map = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED);
	for (uintptr_t i = 0; i < ASKERS; i++)
		CHECK(!pthread_create(&thread, NULL, ask, (void *)i));
	for (uintptr_t i = 0; i < FAULTERS; i++)
		CHECK(!pthread_create(&thread, NULL, fault, (void *)i));
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += atoi(argv[2]);
	do {
		if (!round_ok(how, src, 0x100000 + rounds++))
			bad++;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec);
	stop = true;
	printf("%s: %lu of %lu times what was written behind the new end was lost\n", how, bad,
		rounds);
	fflush(stdout);
	_exit(bad != 0);
}
