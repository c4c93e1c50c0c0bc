/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads that clone by ioctl: test_exec_clone DIR THREADS ROUNDS. After each of its clones a
 * thread checks that it reads the contents of the source. Also built statically, since a wrapper
 * based on preloading would not work for that.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SIZE (64u << 10)

static const char *dir;
static int rounds, source;
static char want[SIZE];

static int clone_once(int dst)
{
	static __thread char got[SIZE];

	if (ioctl(dst, FICLONE, source) < 0) {
		printf("FICLONE: %s\n", strerror(errno));
		return 1;
	}
	if (pread(dst, got, SIZE, 0) != SIZE || memcmp(got, want, SIZE)) {
		printf("the clone reads differently\n");
		return 1;
	}
	/* Something else, for the next round. */
	if (pwrite(dst, "x", 1, 5000) != 1) {
		printf("pwrite: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}

static void *cloner(void *arg)
{
	char path[4096];
	int i, dst, bad = 0;

	snprintf(path, sizeof(path), "%s/clone.%ld", dir, (long)(intptr_t)arg);
	dst = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (dst < 0)
		return (void *)1;
	for (i = 0; i < rounds && !bad; i++)
		bad = clone_once(dst);
	close(dst);
	unlink(path);
	return (void *)(intptr_t)bad;
}

int main(int argc, char **argv)
{
	pthread_t thread[256];
	char path[4096];
	long n, i;
	int bad = 0;

	if (argc != 4)
		return 2;
	dir = argv[1];
	n = atol(argv[2]);
	rounds = atoi(argv[3]);
	if (n < 1 || n > 256)
		return 2;
	memset(want, 'w', SIZE);
	snprintf(path, sizeof(path), "%s/source", dir);
	source = open(path, O_RDWR | O_CREAT, 0600);
	if (source < 0 || pwrite(source, want, SIZE, 0) != SIZE)
		return 1;
	for (i = 0; i < n; i++)
		if (pthread_create(&thread[i], NULL, cloner, (void *)(intptr_t)i))
			return 1;
	for (i = 0; i < n; i++) {
		void *r;

		pthread_join(thread[i], &r);
		bad |= r != NULL;
	}
	return bad;
}
