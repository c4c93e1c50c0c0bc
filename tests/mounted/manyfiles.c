/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * manyfiles DIR N: N files in one directory: created, listed, looked up in random order, removed in
 * random order. Fails if the cost of one grows with their number. The cost is processor time of the
 * daemon (UMBRA_DAEMON: its process id), which is hardly affected by other work on the machine;
 * without a daemon, elapsed time.
 */
#include <dirent.h>
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

#define PARTS 10
/* The last parts may cost this much more than the first: caches and levels of trees, not length. */
#define GROWTH 3.0

static unsigned n;
static uint32_t *order;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Processor time of the daemon's threads, in seconds. */
static double cost(void)
{
	const char *pid = getenv("UMBRA_DAEMON");
	char path[300];
	double sum = 0;
	DIR *d;

	if (!pid)
		return now();
	snprintf(path, sizeof(path), "/proc/%s/task", pid);
	d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		unsigned long long ns;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/task/%.20s/schedstat", pid, e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (f && fscanf(f, "%llu", &ns) == 1)
			sum += (double)ns / 1e9;
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return sum;
}

static void name_of(uint32_t i, char name[64])
{
	snprintf(name, 64, "file-number-%u-%x", i, i * 2654435761u);
}

static int fail(const char *what, uint32_t i)
{
	printf("FAIL: %s, file %u: %s\n", what, i, strerror(errno));
	return 1;
}

static void shuffle(void)
{
	uint64_t r = 12345;

	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t k, t;

		r = r * 6364136223846793005ull + 1442695040888963407ull;
		k = (uint32_t)((r >> 33) % (i + 1));
		t = order[i];
		order[i] = order[k];
		order[k] = t;
	}
}

/* Runs one operation on all names, timed in PARTS. */
static int phase(const char *what, int (*fn)(const char *name, uint32_t i))
{
	double part[PARTS], start = now(), first, last;
	char name[64];
	uint32_t i = 0;

	for (int p = 0; p < PARTS; p++) {
		double t = cost();

		for (; i < (uint64_t)n * (unsigned)(p + 1) / PARTS; i++) {
			name_of(order[i], name);
			if (fn(name, order[i]))
				return fail(what, order[i]);
		}
		part[p] = cost() - t;
	}
	first = part[0] < part[1] ? part[0] : part[1];
	first = first < part[2] ? first : part[2];
	last = part[7] < part[8] ? part[7] : part[8];
	last = last < part[9] ? last : part[9];
	printf("%-8s %8.2f s %8.1f us each; the daemon's part of it: first tenths %.1f us, "
	       "last %.1f us\n",
		what, now() - start, (now() - start) * 1e6 / n, first * 1e6 * PARTS / n,
		last * 1e6 * PARTS / n);
	if (last > first * GROWTH && last - first > 0.05) {
		printf("FAIL: %s: %.1f times dearer at the end than at the start\n", what,
			last / first);
		return 1;
	}
	return 0;
}

static int create(const char *name, uint32_t i)
{
	int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);

	(void)i;
	return fd < 0 || close(fd);
}

static int look(const char *name, uint32_t i)
{
	struct stat st;

	(void)i;
	return stat(name, &st) || !S_ISREG(st.st_mode);
}

static int list(void)
{
	double start = now();
	uint8_t *seen = calloc(n, 1);
	uint32_t count = 0;
	DIR *d = opendir(".");

	if (!d || !seen)
		return fail("opendir", 0);
	for (struct dirent *e; (errno = 0, e = readdir(d));) {
		uint32_t i;

		if (e->d_name[0] == '.')
			continue;
		i = (uint32_t)strtoul(e->d_name + strlen("file-number-"), NULL, 10);
		if (i >= n || seen[i]++) {
			printf("FAIL: %s listed twice or unknown\n", e->d_name);
			return 1;
		}
		count++;
	}
	if (errno)
		return fail("readdir", count);
	closedir(d);
	free(seen);
	if (count != n) {
		printf("FAIL: %u entries listed of %u\n", count, n);
		return 1;
	}
	printf("%-8s %8.2f s %8.1f us each\n", "list", now() - start, (now() - start) * 1e6 / n);
	return 0;
}

static int drop(const char *name, uint32_t i)
{
	(void)i;
	return unlink(name);
}

int main(int argc, char **argv)
{
	struct stat st;

	if (argc < 3) {
		fprintf(stderr, "usage: manyfiles DIR N [keep]\n");
		return 2;
	}
	n = (uint32_t)strtoul(argv[2], NULL, 0);
	order = malloc(n * sizeof(*order));
	if (!order || n < PARTS || chdir(argv[1]))
		return fail("start", 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	if (phase("create", create) || list())
		return 1;
	shuffle();
	if (phase("stat", look))
		return 1;
	if (argc > 3)
		return 0;
	shuffle();
	if (phase("remove", drop))
		return 1;
	if (stat(".", &st) || st.st_nlink != 2)
		return fail("directory", 0);
	n = 0;
	return 0;
}
