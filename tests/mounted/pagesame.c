/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Do files share pages of memory? Maps each file in its own process, all at once, and compares the
 * physical pages. Prints the number of pages of the first file, how many (file, page) pairs of the
 * others are the same physical page, and by how many KiB the page cache grew.
 *   pagesame FILE...
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

static long cached_kib(void)
{
	char line[128];
	long kib = -1;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Cached: %ld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

/* The frames of the file's pages, into frame[]; stays mapped until the pipe closes. */
static int look(const char *path, uint64_t *frame, size_t pages, int done, int until)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY), fd = open(path, O_RDONLY);
	volatile unsigned char sum = 0;
	unsigned char *p;
	char byte;

	if (fd < 0 || pagemap < 0) {
		perror(path);
		return 1;
	}
	p = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	for (size_t i = 0; i < pages; i++)
		sum = (unsigned char)(sum + p[i * PAGE]);
	if (pread(pagemap, frame, pages * 8, (off_t)((uintptr_t)p / PAGE * 8)) !=
		(ssize_t)(pages * 8))
		return 1;
	if (write(done, "x", 1) != 1)
		return 1;
	return read(until, &byte, 1) < 0;
}

int main(int argc, char **argv)
{
	const uint64_t pfn = (1ull << 55) - 1;
	size_t pages, same = 0;
	int done[2], until[2], status, bad = 0;
	uint64_t *frame;
	struct stat st;
	char byte;
	long before;

	if (argc < 3 || stat(argv[1], &st) || pipe(done) || pipe(until)) {
		fprintf(stderr, "usage: pagesame FILE FILE...\n");
		return 2;
	}
	pages = ((size_t)st.st_size + PAGE - 1) / PAGE;
	frame = mmap(NULL, pages * 8 * (size_t)(argc - 1), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (frame == MAP_FAILED)
		return 2;
	before = cached_kib();
	for (int i = 1; i < argc; i++) {
		if (fork() == 0) {
			close(until[1]);
			_exit(look(argv[i], frame + pages * (size_t)(i - 1), pages, done[1],
				until[0]));
		}
	}
	close(done[1]);
	for (int i = 1; i < argc; i++)
		bad |= read(done[0], &byte, 1) != 1;
	printf("%zu pages, ", pages);
	for (int i = 1; i < argc - 1; i++)
		for (size_t p = 0; p < pages; p++)
			same += (frame[p] & pfn) &&
				(frame[p] & pfn) == (frame[pages * (size_t)i + p] & pfn);
	printf("%zu same, page cache +%ld KiB\n", same, cached_kib() - before);
	close(until[1]);
	while (wait(&status) > 0)
		bad |= status;
	return bad ? 1 : 0;
}
