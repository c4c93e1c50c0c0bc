/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * directread FILE SECONDS PIECE HOW: asynchronous O_DIRECT writes while others use the file through
 * the page cache. When a write has completed, everybody must read what it wrote. PIECE: bytes per
 * write, all of them in flight at once. The others, by HOW:
 *   read    read it
 *   map     have it mapped, through the descriptor that is written to
 *   none    as map, but that descriptor was not opened with O_DIRECT (for cache=none)
 *   flip    read it, while O_DIRECT is set and cleared all the time on the descriptor that is
 *           written to
 *   write   write to it as well; the cache must then equal the file
 *   stay    nothing: what was cached and is not written stays in the cache (SECONDS is not used)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SIZE (640u << 10)
#define PIECES 160u
#define STRICT 16u /* so many at a time are right when they end; of more, old pages do not stay */
#define OTHERS 3
#define PAGE 4096u

static const char *path, *how;
static size_t piece;
static int fd;
static char *mapped; /* by map and none */
static pthread_rwlock_t writing =
	PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP; /* shared by the others, for write */
static atomic_bool stop;

static void die(const char *what)
{
	printf("FAIL: %s: %s\n", what, strerror(errno));
	exit(1);
}

static bool is(const char *what)
{
	return strcmp(how, what) == 0;
}

/* What the file shows through the page cache. */
static void look(char *buf)
{
	int in;

	if (mapped) {
		memcpy(buf, mapped, SIZE);
		return;
	}
	in = open(path, O_RDONLY);
	if (in < 0 || pread(in, buf, SIZE, 0) != SIZE)
		die("read");
	close(in);
}

static void overwrite(char *buf)
{
	static atomic_uint n;
	int out = open(path, O_WRONLY);

	memset(buf, (int)(atomic_fetch_add(&n, 1) & 0xff), SIZE);
	for (size_t at = 0; at < SIZE; at += piece) {
		pthread_rwlock_rdlock(&writing);
		if (out < 0 || pwrite(out, buf, piece, (off_t)at) != (ssize_t)piece)
			die("write");
		pthread_rwlock_unlock(&writing);
	}
	close(out);
}

/* One of the others: the way of a write is chosen anew each moment. */
static void flip(void)
{
	if (fcntl(fd, F_SETFL, 0) || fcntl(fd, F_SETFL, O_DIRECT))
		die("fcntl");
}

/* arg: not NULL for the first */
static void *other(void *arg)
{
	char *buf = malloc(SIZE);

	while (!atomic_load(&stop)) {
		if (is("write"))
			overwrite(buf);
		else if (is("flip") && arg)
			flip();
		else
			look(buf);
	}
	free(buf);
	return NULL;
}

static void write_all(aio_context_t ctx, char *buf)
{
	struct iocb cb[PIECES], *list[PIECES];
	struct io_event event[PIECES];
	long n = (long)(SIZE / piece), done = 0;

	memset(cb, 0, sizeof(cb));
	for (long i = 0; i < n; i++) {
		cb[i].aio_lio_opcode = IOCB_CMD_PWRITE;
		cb[i].aio_fildes = (uint32_t)fd;
		cb[i].aio_buf = (uintptr_t)(buf + (size_t)i * piece);
		cb[i].aio_nbytes = piece;
		cb[i].aio_offset = (int64_t)((size_t)i * piece);
		list[i] = &cb[i];
	}
	if (syscall(SYS_io_submit, ctx, n, list) != n)
		die("io_submit");
	while (done < n) {
		long got = syscall(SYS_io_getevents, ctx, 1, n - done, event, NULL);

		if (got < 0 && errno != EINTR)
			die("io_getevents");
		for (long i = 0; i < got; i++)
			if (event[i].res != (int64_t)piece)
				die("a write");
		done += got > 0 ? got : 0;
	}
}

/* What is read now, against what was written: where they differ. */
static size_t first_wrong(char *buf, char *have)
{
	size_t i = 0;

	if (is("write"))
		pthread_rwlock_wrlock(&writing);
	look(have);
	if (is("write")) {
		if (pread(fd, buf, SIZE, 0) != SIZE)
			die("direct read");
		pthread_rwlock_unlock(&writing);
	}
	while (i < SIZE && have[i] == buf[i])
		i++;
	return i;
}

/* A round of writes and what became of them. */
static void round_of(aio_context_t ctx, unsigned long n, char *buf, char *have)
{
	size_t at;

	memset(buf, (int)(n & 0xff), SIZE);
	write_all(ctx, buf);
	for (int i = 0; (at = first_wrong(buf, have)) < SIZE; i++) {
		if (SIZE / piece <= STRICT || i == 50) {
			printf("FAIL: %s: round %lu: byte %zu is %02x, not %02x\n", how, n, at,
				(uint8_t)have[at], (uint8_t)buf[at]);
			exit(1);
		}
		usleep(10000);
	}
}

static unsigned cached(void)
{
	unsigned char in[SIZE / PAGE];
	unsigned n = 0;

	if (mincore(mapped, SIZE, in))
		die("mincore");
	for (size_t i = 0; i < sizeof(in); i++)
		n += in[i] & 1;
	return n;
}

/* Who reads from the cache sends no requests: that there are none does not say that nobody
 * reads. */
static int stay(char *buf)
{
	unsigned n;

	memset(buf, 1, SIZE);
	if (pwrite(fd, buf, SIZE, 0) != SIZE)
		die("write");
	look(buf);
	for (int i = 0; i < 4; i++)
		if (pwrite(fd, buf, piece, 0) != (ssize_t)piece)
			die("write");
	n = cached();
	if (n < (SIZE - piece) / PAGE) {
		printf("FAIL: %u of %u pages are still cached\n", n, SIZE / PAGE);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t thread[OTHERS];
	aio_context_t ctx = 0;
	char *buf, *have = malloc(SIZE);
	unsigned long rounds = 0;
	time_t end;

	if (argc != 5 || (piece = strtoul(argv[3], NULL, 10)) < SIZE / PIECES || SIZE % piece ||
		posix_memalign((void **)&buf, PAGE, SIZE) || !have)
		return 2;
	path = argv[1];
	how = argv[4];
	fd = open(path, O_RDWR | O_CREAT | (is("none") || is("flip") ? 0 : O_DIRECT), 0600);
	if (fd < 0 || ftruncate(fd, SIZE) || syscall(SYS_io_setup, PIECES, &ctx))
		die(path);
	if (!is("read") && !is("write") && !is("flip")) {
		int map_fd = is("stay") ? open(path, O_RDONLY) : fd;

		mapped = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, map_fd, 0);
		if (mapped == MAP_FAILED)
			die("mmap");
	}
	if (is("stay"))
		return stay(buf);
	for (int i = 0; i < OTHERS; i++)
		if (pthread_create(&thread[i], NULL, other, i ? NULL : &thread[i]))
			die("pthread_create");
	end = time(NULL) + atoi(argv[2]);
	while (time(NULL) < end)
		round_of(ctx, ++rounds, buf, have);
	atomic_store(&stop, true);
	for (int i = 0; i < OTHERS; i++)
		pthread_join(thread[i], NULL);
	printf("%s: %lu rounds\n", how, rounds);
	return 0;
}
