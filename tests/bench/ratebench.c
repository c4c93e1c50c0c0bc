/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Compares the rate of reading or writing file A with that of file B. Rounds of both alternate, so
 * other load on the machine affects both alike; the result is the ratio within a round.
 *   ratebench [-b BYTES] [-w] [-d] [-s] [-c] [-p PID,PID] [-n ROUNDS] [-t MSEC] A B
 *
 * -w writes, -d O_DIRECT, -s sequential instead of random, -c counts this thread's processor time,
 * -p also that of A's and B's servers: these are hardly affected by other load. Prints operations
 * per second of either and time(A) / time(B): the median and the 95 % interval of the median.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROUNDS = 200, CHECK_EVERY = 8 };

struct file {
	const char *path;
	int fd;
	uint64_t blocks, at;
	double best;      /* ns an operation */
	clockid_t server; /* its processor time, or 0 */
};

static size_t size = 4096;
static bool writes, direct, sequential, cpu_time;
static double round_ns = 100e6;
static uint64_t random_state = 88172645463325252ull;
static void *buf;

static void die(const char *path)
{
	fprintf(stderr, "ratebench: %s: %s\n", path, strerror(errno));
	exit(1);
}

static double clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double now(const struct file *f)
{
	if (!cpu_time)
		return clock_ns(CLOCK_MONOTONIC);
	return clock_ns(CLOCK_THREAD_CPUTIME_ID) + (f->server ? clock_ns(f->server) : 0);
}

static uint64_t next(struct file *f)
{
	if (sequential)
		return f->at++ % f->blocks;
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % f->blocks;
}

/* Nanoseconds an operation. */
static double run(struct file *f)
{
	double start = now(f), end = start;
	unsigned n = 0;

	while (end - start < round_ns) {
		for (unsigned i = 0; i < CHECK_EVERY; i++, n++) {
			off_t off = (off_t)(next(f) * size);
			ssize_t got = writes ? pwrite(f->fd, buf, size, off)
					     : pread(f->fd, buf, size, off);

			if (got != (ssize_t)size)
				die(f->path);
		}
		end = now(f);
	}
	end = (end - start) / n;
	if (!f->best || end < f->best)
		f->best = end;
	return end;
}

static void open_file(struct file *f)
{
	struct stat st;

	f->fd = open(f->path, (writes ? O_RDWR : O_RDONLY) | (direct ? O_DIRECT : 0));
	if (f->fd < 0 || fstat(f->fd, &st))
		die(f->path);
	f->blocks = (uint64_t)st.st_size / size;
	if (!f->blocks) {
		errno = EINVAL;
		die(f->path);
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct file a = {0}, b = {0};
	double ratio[MAX_ROUNDS];
	unsigned n = 20;
	int opt, low, pid[2];

	while ((opt = getopt(argc, argv, "b:wdscp:n:t:")) != -1) {
		switch (opt) {
		case 'b':
			size = strtoul(optarg, NULL, 10);
			break;
		case 'w':
			writes = true;
			break;
		case 'd':
			direct = true;
			break;
		case 's':
			sequential = true;
			break;
		case 'c':
			cpu_time = true;
			break;
		case 'p':
			if (sscanf(optarg, "%d,%d", &pid[0], &pid[1]) != 2)
				return 2;
			if (clock_getcpuclockid(pid[0], &a.server) ||
				clock_getcpuclockid(pid[1], &b.server))
				return 1;
			cpu_time = true;
			break;
		case 'n':
			n = (unsigned)atoi(optarg);
			break;
		case 't':
			round_ns = atof(optarg) * 1e6;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2 || !size || !n || n > MAX_ROUNDS)
		return 2;
	a.path = argv[optind];
	b.path = argv[optind + 1];
	open_file(&a);
	open_file(&b);
	if (posix_memalign(&buf, 4096, size))
		return 1;
	memset(buf, 0x5a, size);
	run(&a);
	run(&b);
	for (unsigned i = 0; i < n; i++) {
		/* In changing order: whatever comes after the other may gain or lose by it. */
		double first = run(i % 2 ? &b : &a), second = run(i % 2 ? &a : &b);

		ratio[i] = i % 2 ? second / first : first / second;
	}
	qsort(ratio, n, sizeof(ratio[0]), by_size);
	/* Order statistics n/2 -+ 0.98 sqrt(n) enclose the median with 95 %. */
	for (low = 0; (low + 1) * (low + 1) <= (int)n; low++)
		;
	low = (int)n / 2 - low;
	if (low < 0)
		low = 0;
	printf("%.0f %.0f %.3f %.3f %.3f\n", 1e9 / a.best, 1e9 / b.best,
		(ratio[n / 2] + ratio[(n - 1) / 2]) / 2, ratio[low], ratio[(int)n - 1 - low]);
	return 0;
}
