/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * directread FILE SECONDS PIECE: asynchronous O_DIRECT writes while others read the file through the page cache. When a write has
 * ended, what it wrote is what everybody reads. PIECE: bytes of a write, all of them under way at a time.
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
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SIZE (640u << 10)
#define PIECES 160u
#define STRICT 16u /* so many at a time are right when they end; of more, old pages do not stay */
#define READERS 3

static const char *path;
static size_t piece;
static atomic_bool stop;

static void die(const char *what)
{
	printf("FAIL: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *reader(void *arg)
{
	char *buf = malloc(SIZE);

	(void)arg;
	while (!atomic_load(&stop)) {
		int fd = open(path, O_RDONLY);

		if (fd < 0 || pread(fd, buf, SIZE, 0) != SIZE)
			die("reader");
		close(fd);
	}
	free(buf);
	return NULL;
}

static void write_all(aio_context_t ctx, int fd, char *buf)
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
static size_t first_wrong(const char *buf, char *have)
{
	int fd = open(path, O_RDONLY);
	size_t i = 0;

	if (fd < 0 || pread(fd, have, SIZE, 0) != SIZE)
		die("read");
	close(fd);
	while (i < SIZE && have[i] == buf[i])
		i++;
	return i;
}

int main(int argc, char **argv)
{
	pthread_t thread[READERS];
	aio_context_t ctx = 0;
	char *buf, *have = malloc(SIZE);
	unsigned long rounds = 0;
	time_t end;
	size_t at;
	int fd;

	if (argc != 4 || (piece = strtoul(argv[3], NULL, 10)) < SIZE / PIECES || SIZE % piece ||
		posix_memalign((void **)&buf, 4096, SIZE) || !have)
		return 2;
	path = argv[1];
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (fd < 0 || ftruncate(fd, SIZE) || syscall(SYS_io_setup, PIECES, &ctx))
		die(path);
	for (int i = 0; i < READERS; i++)
		if (pthread_create(&thread[i], NULL, reader, NULL))
			die("pthread_create");
	end = time(NULL) + atoi(argv[2]);
	while (time(NULL) < end) {
		memset(buf, (int)(++rounds & 0xff), SIZE);
		write_all(ctx, fd, buf);
		for (int i = 0; (at = first_wrong(buf, have)) < SIZE; i++) {
			if (SIZE / piece <= STRICT || i == 50) {
				printf("FAIL: round %lu: byte %zu is %02x, not %02x\n", rounds, at,
					(uint8_t)have[at], (uint8_t)buf[at]);
				return 1;
			}
			usleep(10000);
		}
	}
	atomic_store(&stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(thread[i], NULL);
	printf("%lu rounds\n", rounds);
	return 0;
}
