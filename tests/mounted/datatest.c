/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * datatest DIR SEED OPERATIONS [HOOK]: random operations on the bytes of a few files, each file mirrored
 * in memory. Reads by every way there is must give what the mirror says. HOOK is called with
 * `pool_remount` or `pool_kill_check_mount` now and then.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/clone.h"

#define FILES 5
#define MAX (3u << 20)
#define BLOCK 4096u
#define HISTORY 60

static struct {
	int fd, direct;
	size_t size;
	unsigned char *model;
} files[FILES];
static const char *dir, *hook;
static uint64_t state;
static unsigned long op, seed;
static char history[HISTORY][120];
static unsigned char *buf; /* aligned, MAX long */

static unsigned pick(unsigned n)
{
	uint64_t z = state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (unsigned)((z ^ (z >> 31)) % n);
}

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(history[op % HISTORY], sizeof(history[0]), fmt, ap);
	va_end(ap);
}

__attribute__((noreturn, format(printf, 1, 2))) static void wrong(const char *fmt, ...)
{
	va_list ap;

	printf("the last operations:\n");
	for (unsigned i = 1; i <= HISTORY; i++)
		if (history[(op + i) % HISTORY][0])
			printf("  %s\n", history[(op + i) % HISTORY]);
	printf("FAIL: operation %lu of seed %lu: ", op, seed);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(1);
}

static void path_of(unsigned f, char path[4096])
{
	snprintf(path, 4096, "%s/file%u", dir, f);
}

static void open_file(unsigned f)
{
	char path[4096];

	path_of(f, path);
	files[f].fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (files[f].fd < 0)
		wrong("open %s: %s", path, strerror(errno));
	files[f].direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
}

static void close_file(unsigned f)
{
	if (close(files[f].fd))
		wrong("close: %s", strerror(errno));
	if (files[f].direct >= 0)
		close(files[f].direct);
}

static void compare(unsigned f, size_t off, size_t len, const unsigned char *got, const char *how)
{
	if (!memcmp(got, files[f].model + off, len))
		return;
	for (size_t i = 0; i < len; i++)
		if (got[i] != files[f].model[off + i])
			wrong("file %u, %s at 0x%zx+0x%zx: byte 0x%zx (block %zu) is 0x%02x, must "
			      "be "
			      "0x%02x (size 0x%zx)",
				f, how, off, len, off + i, (off + i) / BLOCK, got[i],
				files[f].model[off + i], files[f].size);
}

static void check_size(unsigned f)
{
	struct stat st;

	if (fstat(files[f].fd, &st))
		wrong("fstat: %s", strerror(errno));
	if ((size_t)st.st_size != files[f].size)
		wrong("file %u: size 0x%llx, must be 0x%zx", f, (long long)st.st_size,
			files[f].size);
}

static void check_all(unsigned f)
{
	ssize_t n = pread(files[f].fd, buf, MAX, 0);

	check_size(f);
	if (n != (ssize_t)files[f].size)
		wrong("file %u: read %zd, must be %zu (%s)", f, n, files[f].size, strerror(errno));
	compare(f, 0, (size_t)n, buf, "whole file");
}

static void grow(unsigned f, size_t end)
{
	if (files[f].size < end)
		files[f].size = end;
}

static void random_range(bool aligned, size_t *off, size_t *len)
{
	*off = pick(4) ? pick(MAX / 8) : pick(MAX);
	*len = pick(4) ? 1 + pick(30000) : 1 + pick(600000);
	if (pick(3) == 0) {
		*off &= ~(size_t)(BLOCK - 1);
		*len = (*len + BLOCK) & ~(size_t)(BLOCK - 1);
	}
	if (aligned) {
		*off &= ~(size_t)(BLOCK - 1);
		*len = (*len + BLOCK - 1) & ~(size_t)(BLOCK - 1);
	}
	if (*len > MAX - *off)
		*len = MAX - *off;
}

static void fill(size_t len)
{
	uint32_t x = pick(1u << 31);
	unsigned kind = pick(10);

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525u + 1013904223u;
		buf[i] = kind ? (unsigned char)(x >> 24) : 0;
	}
}

static void do_write(unsigned f)
{
	size_t off, len, done = 0;
	bool direct = files[f].direct >= 0 && pick(3) == 0;
	int fd = direct ? files[f].direct : files[f].fd;

	random_range(direct, &off, &len);
	fill(len);
	note("write%s file %u 0x%zx+0x%zx", direct ? " direct" : "", f, off, len);
	while (done < len) {
		ssize_t n = pwrite(fd, buf + done, len - done, (off_t)(off + done));

		if (n <= 0)
			wrong("write gave %zd: %s", n, strerror(errno));
		done += (size_t)n;
	}
	memcpy(files[f].model + off, buf, len);
	grow(f, off + len);
}

static void do_append(unsigned f)
{
	char path[4096];
	size_t len = 1 + pick(20000);
	int fd;

	if (files[f].size + len > MAX)
		return;
	path_of(f, path);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	fill(len);
	note("append file %u 0x%zx+0x%zx", f, files[f].size, len);
	if (write(fd, buf, len) != (ssize_t)len)
		wrong("append: %s", strerror(errno));
	close(fd);
	memcpy(files[f].model + files[f].size, buf, len);
	grow(f, files[f].size + len);
}

static void do_read(unsigned f)
{
	size_t off, len, want;
	bool direct = files[f].direct >= 0 && pick(3) == 0;
	ssize_t n;

	random_range(direct, &off, &len);
	want = off >= files[f].size ? 0 : len > files[f].size - off ? files[f].size - off : len;
	note("read%s file %u 0x%zx+0x%zx", direct ? " direct" : "", f, off, len);
	n = pread(direct ? files[f].direct : files[f].fd, buf, len, (off_t)off);
	if (n != (ssize_t)want)
		wrong("file %u: read of 0x%zx at 0x%zx gave %zd, must be %zu (%s)", f, len, off, n,
			want, n < 0 ? strerror(errno) : "-");
	compare(f, off, want, buf, direct ? "direct read" : "read");
}

static void do_map(unsigned f, bool store)
{
	size_t off, len, size = files[f].size;
	unsigned char *p;

	if (!size)
		return;
	random_range(false, &off, &len);
	off %= size;
	if (len > size - off)
		len = size - off;
	note("map %s file %u 0x%zx+0x%zx", store ? "store" : "load", f, off, len);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, files[f].fd, 0);
	if (p == MAP_FAILED)
		wrong("mmap: %s", strerror(errno));
	compare(f, off, len, p + off, "map");
	if (store) {
		fill(len);
		memcpy(p + off, buf, len);
		memcpy(files[f].model + off, buf, len);
		if (pick(2) && msync(p, size, pick(2) ? MS_SYNC : MS_ASYNC))
			wrong("msync: %s", strerror(errno));
	}
	munmap(p, size);
}

static void do_truncate(unsigned f)
{
	size_t size = pick(3) ? pick(MAX / 4) : pick(MAX);
	char path[4096];
	int rc;

	if (pick(4) == 0)
		size &= ~(size_t)(BLOCK - 1);
	if (pick(12) == 0)
		size = 0;
	note("truncate file %u from 0x%zx to 0x%zx", f, files[f].size, size);
	path_of(f, path);
	rc = pick(2) ? ftruncate(files[f].fd, (off_t)size) : truncate(path, (off_t)size);
	if (rc)
		wrong("truncate: %s", strerror(errno));
	if (size < files[f].size)
		memset(files[f].model + size, 0, files[f].size - size);
	files[f].size = size;
}

static void do_allocate(unsigned f)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	int mode = modes[pick(5)];
	size_t off, len;

	random_range(false, &off, &len);
	note("fallocate %d file %u 0x%zx+0x%zx", mode, f, off, len);
	if (fallocate(files[f].fd, mode, (off_t)off, (off_t)len)) {
		if (errno == EOPNOTSUPP && (mode & FALLOC_FL_ZERO_RANGE))
			return;
		wrong("fallocate: %s", strerror(errno));
	}
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		size_t end = off + len;

		if (end > files[f].size && (mode & FALLOC_FL_KEEP_SIZE))
			end = files[f].size;
		if (end > off)
			memset(files[f].model + off, 0, end - off);
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		grow(f, off + len);
}

static void copy_range(unsigned f, size_t off, size_t len, unsigned t, size_t to)
{
	for (size_t done = 0; done < len;) {
		loff_t a = (loff_t)(off + done), b = (loff_t)(to + done);
		ssize_t n = copy_file_range(files[f].fd, &a, files[t].fd, &b, len - done, 0);

		if (n <= 0)
			wrong("copy_file_range gave %zd: %s", n, strerror(errno));
		done += (size_t)n;
	}
}

/* Shares what aligns; source and target may be one file if the ranges do not meet. */
static void do_copy(unsigned f)
{
	unsigned t = pick(FILES);
	size_t off, len, to, unused;
	bool aligned = pick(3);

	random_range(aligned, &off, &len);
	random_range(aligned, &to, &unused);
	if (pick(3) == 0) {
		off = to = 0;
		len = MAX;
	}
	if (off >= files[f].size)
		return;
	if (len > files[f].size - off)
		len = files[f].size - off;
	if (len > MAX - to)
		len = MAX - to;
	if (f == t && off < to + len && to < off + len)
		return;
	note("copy file %u 0x%zx+0x%zx to file %u 0x%zx", f, off, len, t, to);
	copy_range(f, off, len, t, to);
	memmove(files[t].model + to, files[f].model + off, len);
	grow(t, to + len);
}

static void sync_maps(unsigned f)
{
	if (sync_file_range(files[f].fd, 0, 0,
		    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			    SYNC_FILE_RANGE_WAIT_AFTER))
		wrong("sync_file_range: %s", strerror(errno));
}

/* Shares by the door. */
static void clone_range(unsigned src, size_t off, size_t len, unsigned dst, size_t to)
{
	uint64_t done;
	int err;

	sync_maps(src);
	sync_maps(dst);
	err = um_ioc_clone(files[src].fd, off, len, files[dst].fd, to, &done);
	if (err == -EOPNOTSUPP)
		copy_range(src, off, len, dst, to); /* a mount with -o writeback */
	else if (err)
		wrong("clone: %s", strerror(-err));
	else if (done != len)
		wrong("clone: 0x%zx bytes, must be 0x%zx", (size_t)done, len);
}

/* The operation's status. */
static int dedupe_range(unsigned src, size_t off, size_t len, unsigned dst, size_t to)
{
	struct um_ioc_clone c = {.src_off = off, .len = len, .dst_off = to, .op = UM_CLONE_DEDUPE};
	struct um_ioc_token token;

	sync_maps(src);
	sync_maps(dst);
	if (ioctl(files[src].fd, UM_IOC_TOKEN, &token))
		wrong("token: %s", strerror(errno));
	memcpy(c.token, token.token, sizeof(c.token));
	if (ioctl(files[dst].fd, UM_IOC_CLONE, &c))
		wrong("dedupe: %s", strerror(errno));
	return c.status;
}

/* Aligned ranges, shared by the ioctl; to the end of the source if it lies within them. */
static void do_clone(unsigned f)
{
	size_t off, len, to, unused;
	unsigned t = pick(FILES);

	random_range(true, &off, &len);
	random_range(true, &to, &unused);
	if (pick(2))
		to = off;
	if (off >= files[f].size || f == t)
		return;
	if (len >= files[f].size - off) {
		len = files[f].size - off;
		/* A ragged end must not come to lie within the destination. */
		if (len % BLOCK && to + len < files[t].size)
			len -= len % BLOCK;
	}
	if (to + len > MAX || !len)
		return;
	note("clone file %u 0x%zx+0x%zx to file %u 0x%zx", f, off, len, t, to);
	clone_range(f, off, len, t, to);
	memcpy(files[t].model + to, files[f].model + off, len);
	grow(t, to + len);
}

/* Two files get the same bytes, each its own copy, or nearly the same; then they are to share. */
static void do_dedupe(unsigned f)
{
	unsigned t = (f + 1 + pick(FILES - 1)) % FILES;
	size_t off, len, to, unused;
	bool same;
	int status;

	random_range(true, &off, &len);
	random_range(true, &to, &unused);
	if (pick(2))
		to = off;
	if (off + len > files[f].size || to + len > MAX || !len)
		return;
	note("dedupe file %u 0x%zx+0x%zx with file %u 0x%zx", f, off, len, t, to);
	memcpy(buf, files[f].model + off, len);
	if (pick(4) == 0)
		buf[pick((unsigned)len)] ^= 1;
	if (pwrite(files[t].fd, buf, len, (off_t)to) != (ssize_t)len)
		wrong("pwrite: %s", strerror(errno));
	memcpy(files[t].model + to, buf, len);
	grow(t, to + len);
	same = !memcmp(files[t].model + to, files[f].model + off, len);
	status = dedupe_range(f, off, len, t, to);
	if (status != (same ? FILE_DEDUPE_RANGE_SAME : FILE_DEDUPE_RANGE_DIFFERS))
		wrong("dedupe says %d of %s bytes", status, same ? "equal" : "different");
}

/* One piece is shared by all files; each is written through a mapping of its own, all at once. */
static void do_map_all(unsigned f)
{
	size_t off, len, size;
	unsigned char *p[FILES];

	random_range(true, &off, &len);
	if (off + len > files[f].size || !len)
		return;
	note("map and store all, 0x%zx+0x%zx of file %u", off, len, f);
	for (unsigned t = 0; t < FILES; t++) {
		if (t != f)
			clone_range(f, off, len, t, off);
		memcpy(files[t].model + off, files[f].model + off, len);
		grow(t, off + len);
	}
	size = off + len;
	for (unsigned t = 0; t < FILES; t++) {
		p[t] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, files[t].fd, 0);
		if (p[t] == MAP_FAILED)
			wrong("mmap: %s", strerror(errno));
		if (pick(2))
			compare(t, off, len, p[t] + off, "map");
	}
	for (unsigned n = 0; n < 3 * FILES; n++) {
		unsigned t = pick(FILES);
		size_t at = off + pick((unsigned)len), some = pick(3 * BLOCK) + 1;

		if (some > size - at)
			some = size - at;
		fill(some);
		memcpy(p[t] + at, buf, some);
		memcpy(files[t].model + at, buf, some);
	}
	for (unsigned t = 0; t < FILES; t++) {
		compare(t, off, len, p[t] + off, "map");
		if (pick(2) && msync(p[t], size, MS_SYNC))
			wrong("msync: %s", strerror(errno));
		munmap(p[t], size);
	}
}

/* What is said to be a hole holds zeros; what holds something else is said to be data. */
static void do_seek(unsigned f)
{
	off_t at = 0, size = (off_t)files[f].size;

	note("seek file %u", f);
	while (at < size) {
		off_t data = lseek(files[f].fd, at, SEEK_DATA), end;

		if (data < 0 && errno != ENXIO)
			wrong("SEEK_DATA at 0x%llx: %s", (long long)at, strerror(errno));
		end = data < 0 ? size : data;
		for (off_t i = at; i < end; i++)
			if (files[f].model[i])
				wrong("file %u: 0x%llx is not a hole (SEEK_DATA from 0x%llx gave "
				      "0x%llx)",
					f, (long long)i, (long long)at, (long long)data);
		if (data < 0)
			break;
		at = lseek(files[f].fd, data, SEEK_HOLE);
		if (at <= data || at > size)
			wrong("SEEK_HOLE at 0x%llx gave 0x%llx (size 0x%llx)", (long long)data,
				(long long)at, (long long)size);
	}
}

static void do_misc(unsigned f)
{
	switch (pick(4)) {
	case 0:
		note("reopen file %u", f);
		close_file(f);
		open_file(f);
		break;
	case 1:
		note("fsync file %u", f);
		if (pick(2) ? fsync(files[f].fd) : fdatasync(files[f].fd))
			wrong("fsync: %s", strerror(errno));
		break;
	case 2:
		note("drop cache of file %u", f);
		if (fsync(files[f].fd) || posix_fadvise(files[f].fd, 0, 0, POSIX_FADV_DONTNEED))
			wrong("fadvise: %s", strerror(errno));
		break;
	default:
		note("check file %u", f);
		check_all(f);
	}
}

static void do_remove(unsigned f)
{
	char path[4096];

	note("remove file %u", f);
	path_of(f, path);
	check_all(f);
	if (unlink(path))
		wrong("unlink: %s", strerror(errno));
	check_all(f);
	close_file(f);
	memset(files[f].model, 0, MAX);
	files[f].size = 0;
	open_file(f);
}

static void step(void)
{
	unsigned f = pick(FILES), what = pick(100);

	if (what < 24)
		do_write(f);
	else if (what < 28)
		do_append(f);
	else if (what < 42)
		do_read(f);
	else if (what < 48)
		do_map(f, false);
	else if (what < 60)
		do_map(f, true);
	else if (what < 70)
		do_truncate(f);
	else if (what < 80)
		do_allocate(f);
	else if (what < 85)
		do_copy(f);
	else if (what < 88)
		do_clone(f);
	else if (what < 90)
		do_dedupe(f);
	else if (what < 92)
		do_map_all(f);
	else if (what < 94)
		do_seek(f);
	else if (what < 99)
		do_misc(f);
	else if (pick(4) == 0)
		do_remove(f);
	check_size(f);
}

static void run_hook(const char *what)
{
	char cmd[4200];

	note("%s", what);
	for (unsigned f = 0; f < FILES; f++) {
		/* A kill takes with it what was stored to a map and is not yet written back. */
		if (strcmp(what, "pool_remount") && fsync(files[f].fd))
			wrong("fsync: %s", strerror(errno));
		close_file(f);
	}
	snprintf(cmd, sizeof(cmd), "%s %s", hook, what);
	fflush(stdout);
	if (system(cmd))
		wrong("%s failed", what);
	for (unsigned f = 0; f < FILES; f++) {
		open_file(f);
		check_all(f);
	}
}

int main(int argc, char **argv)
{
	unsigned long ops, remount, hooks = 0;
	char path[4096];

	if (argc < 4) {
		fprintf(stderr, "usage: datatest DIR SEED OPERATIONS [HOOK]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	dir = argv[1];
	seed = strtoul(argv[2], NULL, 0);
	ops = strtoul(argv[3], NULL, 0);
	hook = argc > 4 ? argv[4] : NULL;
	state = seed * 7919 + 1;
	if (posix_memalign((void **)&buf, BLOCK, MAX))
		return 1;
	for (unsigned f = 0; f < FILES; f++) {
		files[f].model = calloc(1, MAX);
		if (!files[f].model)
			return 1;
		path_of(f, path);
		unlink(path);
		open_file(f);
	}
	remount = ops / 10 + 13;
	for (op = 1; op <= ops; op++) {
		step();
		if (hook && op % remount == 0)
			run_hook(hooks++ % 2 ? "pool_kill_check_mount" : "pool_remount");
	}
	for (unsigned f = 0; f < FILES; f++) {
		check_all(f);
		do_seek(f);
		close_file(f);
	}
	printf("%lu operations, seed %lu, %lu remounts and kills\n", ops, seed, hooks);
	return 0;
}
