/* SPDX-License-Identifier: BSD-3-Clause */
/* File data: read and write, append, direct, sparse, allocation, truncation, copying. */
#include "t.h"

#include <linux/falloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#define BLOCK 4096
#define MIB (1024 * 1024)

static void writes_of_every_shape(void)
{
	static const off_t offs[] = {0, 1, 511, 4095, 4096, 4097, 8190, 65535, 131071, 2 * MIB - 1};
	static const size_t lens[] = {1, 2, 511, 4095, 4096, 4097, 12288, 65537, 300000};
	static char model[4 * MIB], got[4 * MIB], buf[300000];
	size_t size = 0;
	int fd = t_file("f", 0, 0), round = 1;

	for (size_t i = 0; i < sizeof(offs) / sizeof(offs[0]); i++) {
		for (size_t k = 0; k < sizeof(lens) / sizeof(lens[0]); k++) {
			for (size_t n = 0; n < lens[k]; n++)
				buf[n] = (char)(round + (int)(n * 7));
			round++;
			eq(pwrite(fd, buf, lens[k], offs[i]), lens[k]);
			memcpy(model + offs[i], buf, lens[k]);
			if (size < offs[i] + lens[k])
				size = offs[i] + lens[k];
			eq(t_fstat(fd).st_size, size);
			eq(pread(fd, got, sizeof(got), 0), size);
			eq(memcmp(got, model, size), 0);
		}
	}
	int direct = open("f", O_RDONLY | O_DIRECT);
	if (direct >= 0) {
		void *p;

		is_true(!posix_memalign(&p, BLOCK, sizeof(got)));
		eq(pread(direct, p, sizeof(got), 0), size);
		eq(memcmp(p, model, size), 0);
	}
}

static void reads_end_at_the_end(void)
{
	char buf[100];
	int fd = t_file("f", 50, 'x');

	eq(pread(fd, buf, 100, 0), 50);
	eq(pread(fd, buf, 100, 49), 1);
	eq(pread(fd, buf, 100, 50), 0);
	eq(pread(fd, buf, 100, 1000000), 0);
	fails(EINVAL, pread(fd, buf, 1, -1));
	eq(write(fd, buf, 0), 0);
	int ro = ok(open("f", O_RDONLY));
	fails(EBADF, write(ro, "x", 1));
	int wo = ok(open("f", O_WRONLY));
	fails(EBADF, read(wo, buf, 1));
	fails(EINVAL, ftruncate(ro, 0));
	fails(EFAULT, syscall(SYS_write, fd, 8L, 10L));
	struct iovec v[3] = {{(char *)"ab", 2}, {(char *)"", 0}, {(char *)"cde", 3}};
	eq(pwritev(fd, v, 3, 48), 5);
	eq(t_fstat(fd).st_size, 53);
	t_range(fd, 48, 1, 'a');
	t_range(fd, 52, 1, 'e');
}

static void appends_do_not_overwrite(void)
{
	enum { PROCS = 4, RECORDS = 400, LEN = 100 };
	char rec[LEN], got[LEN];
	int counts[PROCS] = {0}, status;
	int fd = t_file("f", 10, 'x');

	for (int p = 0; p < PROCS; p++) {
		if (!fork()) {
			int a = open("f", O_WRONLY | O_APPEND);

			memset(rec, 'A' + p, LEN);
			for (int i = 0; i < RECORDS; i++)
				if (write(a, rec, LEN) != LEN)
					_exit(1);
			_exit(0);
		}
	}
	for (int p = 0; p < PROCS; p++) {
		ok(wait(&status));
		eq(status, 0);
	}
	eq(t_fstat(fd).st_size, 10 + PROCS * RECORDS * LEN);
	for (int i = 0; i < PROCS * RECORDS; i++) {
		eq(pread(fd, got, LEN, 10 + i * LEN), LEN);
		memset(rec, got[0], LEN);
		is_true(got[0] >= 'A' && got[0] < 'A' + PROCS);
		eq(memcmp(rec, got, LEN), 0);
		counts[got[0] - 'A']++;
	}
	for (int p = 0; p < PROCS; p++)
		eq(counts[p], RECORDS);
	int a = ok(open("f", O_RDWR | O_APPEND));
	eq(pwrite(a, "end", 3, 0), 3); /* Linux: appends all the same */
	t_range(fd, 0, 10, 'x');
}

static void direct_and_cached_agree(void)
{
	char *p;
	int fd = t_file("f", 64 * BLOCK, 'c');
	int d = open("f", O_RDWR | O_DIRECT);

	if (d < 0)
		t_skip("no O_DIRECT here");
	is_true(!posix_memalign((void **)&p, BLOCK, 16 * BLOCK));
	memset(p, 'd', 16 * BLOCK);
	t_range(fd, 0, 64 * BLOCK, 'c'); /* now cached */
	eq(pwrite(d, p, 16 * BLOCK, 8 * BLOCK), 16 * BLOCK);
	t_range(fd, 0, 8 * BLOCK, 'c');
	t_range(fd, 8 * BLOCK, 16 * BLOCK, 'd');
	t_range(fd, 24 * BLOCK, 40 * BLOCK, 'c');
	memset(p, 'w', BLOCK);
	eq(pwrite(fd, p, BLOCK, 9 * BLOCK), BLOCK);
	eq(pread(d, p, 3 * BLOCK, 8 * BLOCK), 3 * BLOCK);
	eq(p[0], 'd');
	eq(p[BLOCK], 'w');
	eq(p[2 * BLOCK], 'd');
	eq(pwrite(d, p, BLOCK, 70 * BLOCK), BLOCK);
	eq(t_fstat(fd).st_size, 71 * BLOCK);
	t_range(fd, 64 * BLOCK, 6 * BLOCK, 0);
}

static void sync_calls_succeed(void)
{
	int fd = ok(open("f", O_RDWR | O_CREAT | O_SYNC, 0644));

	eq(write(fd, "abc", 3), 3);
	ok(fsync(fd));
	ok(fdatasync(fd));
	ok(syncfs(fd));
	int dsync = ok(open("f", O_WRONLY | O_DSYNC));
	eq(write(dsync, "xyz", 3), 3);
	ok(sync_file_range(fd, 0, 3, SYNC_FILE_RANGE_WRITE));
	int dir = ok(open(".", O_RDONLY | O_DIRECTORY));
	ok(fsync(dir));
	t_range(fd, 0, 1, 'x');
}

static void sizes_up_to_the_largest(void)
{
	const off_t last = INT64_MAX - 1;
	int fd = t_file("f", 0, 0);

	eq(pwrite(fd, "z", 1, last), 1);
	eq(t_fstat(fd).st_size, INT64_MAX);
	t_range(fd, last, 1, 'z');
	t_range(fd, last - 10000, 10000, 0);
	t_range(fd, (off_t)1 << 40, 10000, 0);
	is_true(t_fstat(fd).st_blocks <= 16);
	eq(pwrite(fd, "m", 1, (off_t)1 << 50), 1);
	t_range(fd, (off_t)1 << 50, 1, 'm');
	errno = 0;
	is_true(pwrite(fd, "z", 1, INT64_MAX) < 0 && (errno == EFBIG || errno == EINVAL));
	is_true(pwrite(fd, "zz", 2, last) <= 1);
	ok(ftruncate(fd, INT64_MAX));
	ok(ftruncate(fd, 1));
	t_range(fd, 0, 1, 0);
	eq(t_fstat(fd).st_blocks <= 8, 1);
}

static void size_limit_of_the_process(void)
{
	struct rlimit rl = {10000, 10000};
	int fd = t_file("f", 0, 0);

	signal(SIGXFSZ, SIG_IGN);
	ok(setrlimit(RLIMIT_FSIZE, &rl));
	eq(pwrite(fd, "x", 1, 9999), 1);
	eq(pwrite(fd, "xyz", 3, 9998), 2);
	fails(EFBIG, pwrite(fd, "x", 1, 10000));
	fails(EFBIG, ftruncate(fd, 10001));
	fails(EFBIG, fallocate(fd, 0, 0, 10001));
}

static void holes_are_found(void)
{
	int fd = t_file("f", 0, 0);

	fails(ENXIO, lseek(fd, 0, SEEK_DATA));
	fails(ENXIO, lseek(fd, 0, SEEK_HOLE));
	ok(ftruncate(fd, 64 * MIB));
	fails(ENXIO, lseek(fd, 0, SEEK_DATA));
	eq(lseek(fd, 0, SEEK_HOLE), 0);
	eq(t_fstat(fd).st_blocks, 0);
	eq(pwrite(fd, "a", 1, 1 * MIB + 10), 1);
	eq(pwrite(fd, "b", 1, 40 * MIB + BLOCK), 1);
	eq(lseek(fd, 0, SEEK_DATA), 1 * MIB);
	eq(lseek(fd, 1 * MIB + 7, SEEK_DATA), 1 * MIB + 7);
	eq(lseek(fd, 1 * MIB, SEEK_HOLE), 1 * MIB + BLOCK);
	eq(lseek(fd, 1 * MIB + BLOCK, SEEK_DATA), 40 * MIB + BLOCK);
	eq(lseek(fd, 40 * MIB + BLOCK, SEEK_HOLE), 40 * MIB + 2 * BLOCK);
	fails(ENXIO, lseek(fd, 41 * MIB, SEEK_DATA));
	fails(ENXIO, lseek(fd, 64 * MIB, SEEK_HOLE));
	fails(ENXIO, lseek(fd, 65 * MIB, SEEK_DATA));
	fails(EINVAL, lseek(fd, 0, 99));
	fails(EINVAL, lseek(fd, -1, SEEK_SET));
	t_range(fd, 2 * MIB, MIB, 0);
	/* The end is a hole even when the last block is full of data. */
	int full = t_file("full", 2 * BLOCK, 'x');
	eq(lseek(full, 0, SEEK_HOLE), 2 * BLOCK);
	int small = t_file("small", 10, 'x');
	eq(lseek(small, 0, SEEK_DATA), 0);
	eq(lseek(small, 3, SEEK_HOLE), 10);
}

static void blocks_are_counted_truly(void)
{
	int fd = t_file("f", 0, 0);

	eq(t_fstat(fd).st_blocks, 0);
	eq(t_fstat(fd).st_blksize >= 512, 1);
	close(fd);
	fd = t_file("f", MIB, 'x');
	ok(fsync(fd));
	eq(t_fstat(fd).st_blocks, MIB / 512);
	ok(ftruncate(fd, 10 * MIB));
	eq(t_fstat(fd).st_blocks, MIB / 512);
	ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MIB / 2));
	eq(t_fstat(fd).st_blocks, MIB / 1024);
	ok(ftruncate(fd, 0));
	eq(t_fstat(fd).st_blocks, 0);
}

static void preallocation(void)
{
	int fd = t_file("f", 0, 0);

	if (fallocate(fd, 0, 0, 3 * MIB) && errno == EOPNOTSUPP)
		t_skip("no fallocate here");
	eq(t_fstat(fd).st_size, 3 * MIB);
	eq(t_fstat(fd).st_blocks, 3 * MIB / 512);
	t_range(fd, 0, 3 * MIB, 0);
	ok(fallocate(fd, FALLOC_FL_KEEP_SIZE, 3 * MIB, MIB));
	eq(t_fstat(fd).st_size, 3 * MIB);
	eq(t_fstat(fd).st_blocks, 4 * MIB / 512);
	eq(pwrite(fd, "x", 1, MIB), 1);
	t_range(fd, MIB + 1, MIB, 0);
	t_range(fd, MIB, 1, 'x');
	eq(t_fstat(fd).st_blocks, 4 * MIB / 512);
	/* What is there stays. */
	close(fd);
	fd = t_file("g", 10000, 'g');
	ok(fallocate(fd, 0, 0, MIB));
	t_range(fd, 0, 10000, 'g');
	t_range(fd, 10000, MIB - 10000, 0);
	fails(EINVAL, fallocate(fd, 0, 0, 0));
	fails(EINVAL, fallocate(fd, 0, -1, 10));
	fails(EFBIG, fallocate(fd, 0, INT64_MAX - 10, 100));
	int ro = ok(open("g", O_RDONLY));
	fails(EBADF, fallocate(ro, 0, 0, 10));
	eq(posix_fallocate(fd, 2 * MIB, 10), 0);
	eq(t_fstat(fd).st_size, 2 * MIB + 10);
}

static void punching_holes(void)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	int fd = t_file("f", 64 * BLOCK, 'x');

	ok(fallocate(fd, punch, 10 * BLOCK, 20 * BLOCK));
	t_range(fd, 0, 10 * BLOCK, 'x');
	t_range(fd, 10 * BLOCK, 20 * BLOCK, 0);
	t_range(fd, 30 * BLOCK, 34 * BLOCK, 'x');
	eq(lseek(fd, 0, SEEK_HOLE), 10 * BLOCK);
	eq(lseek(fd, 10 * BLOCK, SEEK_DATA), 30 * BLOCK);
	/* Parts of blocks are zeroed. */
	ok(fallocate(fd, punch, 100, 50));
	ok(fallocate(fd, punch, 2 * BLOCK + 5, 2 * BLOCK));
	t_range(fd, 0, 100, 'x');
	t_range(fd, 100, 50, 0);
	t_range(fd, 150, 2 * BLOCK + 5 - 150, 'x');
	t_range(fd, 2 * BLOCK + 5, 2 * BLOCK, 0);
	t_range(fd, 4 * BLOCK + 5, 100, 'x');
	/* Across and beyond the end: the size stays. */
	ok(fallocate(fd, punch, 60 * BLOCK, 100 * BLOCK));
	eq(t_fstat(fd).st_size, 64 * BLOCK);
	t_range(fd, 60 * BLOCK, 4 * BLOCK, 0);
	ok(fallocate(fd, punch, 200 * BLOCK, BLOCK));
	fails(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, BLOCK));
	ok(fallocate(fd, punch, 0, INT64_MAX));
	t_range(fd, 0, 64 * BLOCK, 0);
	eq(t_fstat(fd).st_blocks, 0);
}

static void zeroing_ranges(void)
{
	int fd = t_file("f", 64 * BLOCK, 'x');

	if (fallocate(fd, FALLOC_FL_ZERO_RANGE, BLOCK + 1, 5 * BLOCK) && errno == EOPNOTSUPP)
		t_skip("no FALLOC_FL_ZERO_RANGE here");
	t_range(fd, 0, BLOCK + 1, 'x');
	t_range(fd, BLOCK + 1, 5 * BLOCK, 0);
	t_range(fd, 6 * BLOCK + 1, 58 * BLOCK - 1, 'x');
	ok(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 63 * BLOCK, 10 * BLOCK));
	eq(t_fstat(fd).st_size, 64 * BLOCK);
	t_range(fd, 63 * BLOCK, BLOCK, 0);
	ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, 63 * BLOCK, 10 * BLOCK));
	eq(t_fstat(fd).st_size, 73 * BLOCK);
	t_range(fd, 62 * BLOCK, BLOCK, 'x');
	t_range(fd, 63 * BLOCK, 10 * BLOCK, 0);
	ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, 10, 20));
	t_range(fd, 0, 10, 'x');
	t_range(fd, 10, 20, 0);
	t_range(fd, 30, 100, 'x');
}

static void other_allocation_modes_are_refused(void)
{
	int fd = t_file("f", 64 * BLOCK, 'x');

	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, BLOCK) == 0)
		t_skip("this filesystem collapses ranges");
	eq(errno, EOPNOTSUPP);
	fails(EOPNOTSUPP, fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, BLOCK));
	eq(t_fstat(fd).st_size, 64 * BLOCK);
	t_range(fd, 0, 64 * BLOCK, 'x');
}

static void truncation_leaves_no_old_bytes(void)
{
	int fd = t_file("f", 10000, 'x');

	ok(ftruncate(fd, 5000));
	eq(t_fstat(fd).st_size, 5000);
	ok(ftruncate(fd, 10000));
	t_range(fd, 0, 5000, 'x');
	t_range(fd, 5000, 5000, 0);
	ok(truncate("f", 4096));
	eq(pwrite(fd, "y", 1, 20000), 1);
	t_range(fd, 4096, 20000 - 4096, 0);
	ok(truncate("f", 100));
	eq(pwrite(fd, "y", 1, 200), 1);
	t_range(fd, 0, 100, 'x');
	t_range(fd, 100, 100, 0);
	close(ok(open("f", O_WRONLY | O_TRUNC)));
	eq(t_fstat(fd).st_size, 0);
	fails(EINVAL, ftruncate(fd, -1));
	fails(EISDIR, truncate(".", 0));
	fails(ENOENT, truncate("none", 0));
	/* A large one, down in one go. */
	close(fd);
	fd = t_file("big", 33 * MIB, 'b');
	ok(ftruncate(fd, 3 * MIB + 1));
	ok(ftruncate(fd, 33 * MIB));
	t_range(fd, 3 * MIB, 1, 'b');
	t_range(fd, 3 * MIB + 1, 30 * MIB - 1, 0);
}

static void copy_file_range_copies(void)
{
	static char want[6 * MIB], got[6 * MIB];
	int a = t_file("a", 3 * MIB + 777, 'a'), b = t_file("b", 2 * MIB, 'b');
	off_t from, to;

	for (size_t i = 0; i < 3 * MIB + 777; i++)
		want[i] = (char)(i * 31 >> 3);
	eq(pwrite(a, want, 3 * MIB + 777, 0), 3 * MIB + 777);
	/* Whole, then ragged at all ends. */
	from = to = 0;
	for (size_t left = 3 * MIB + 777; left;)
		left -= ok(copy_file_range(a, &from, b, &to, left, 0));
	eq(t_fstat(b).st_size, 3 * MIB + 777);
	eq(pread(b, got, sizeof(got), 0), 3 * MIB + 777);
	eq(memcmp(want, got, 3 * MIB + 777), 0);
	from = 12345;
	to = 5 * MIB + 11;
	eq(copy_file_range(a, &from, b, &to, 100000, 0), 100000);
	eq(t_fstat(b).st_size, 5 * MIB + 100011);
	eq(pread(b, got, 100000, 5 * MIB + 11), 100000);
	eq(memcmp(got, want + 12345, 100000), 0);
	t_range(b, 3 * MIB + 777, 2 * MIB - 777 + 11, 0);
	/* At and past the source's end: short, nothing. */
	from = 3 * MIB;
	to = 0;
	eq(copy_file_range(a, &from, b, &to, MIB, 0), 777);
	eq(copy_file_range(a, &from, b, &to, MIB, 0), 0);
	/* Within one file; overlapping is refused. */
	from = 0;
	to = 3 * MIB;
	eq(copy_file_range(a, &from, a, &to, MIB, 0), MIB);
	eq(pread(a, got, MIB, 3 * MIB), MIB);
	eq(memcmp(got, want, MIB), 0);
	from = 0;
	to = 4096;
	fails(EINVAL, copy_file_range(a, &from, a, &to, 8192, 0));
	int ro = ok(open("b", O_RDONLY));
	fails(EBADF, copy_file_range(a, NULL, ro, NULL, 10, 0));
	int dir = ok(open(".", O_RDONLY));
	fails(EISDIR, copy_file_range(dir, NULL, b, NULL, 10, 0));
}

/* The copy and its source go separate ways. */
static void copies_are_independent(void)
{
	int a = t_file("a", 4 * MIB, 'a'), b = t_file("b", 0, 0), c = t_file("c", 0, 0);

	eq(copy_file_range(a, NULL, b, NULL, 4 * MIB, 0), 4 * MIB);
	lseek(a, 0, SEEK_SET);
	eq(copy_file_range(a, NULL, c, NULL, 4 * MIB, 0), 4 * MIB);
	eq(pwrite(b, "B", 1, MIB), 1);
	eq(pwrite(a, "A", 1, 2 * MIB), 1);
	ok(ftruncate(c, MIB + 5));
	ok(ftruncate(c, 4 * MIB));
	t_range(a, 0, 2 * MIB, 'a');
	t_range(a, 2 * MIB, 1, 'A');
	t_range(b, 0, MIB, 'a');
	t_range(b, MIB, 1, 'B');
	t_range(b, MIB + 1, 3 * MIB - 1, 'a');
	t_range(c, 0, MIB + 5, 'a');
	t_range(c, MIB + 5, 3 * MIB - 5, 0);
	ok(unlink("a"));
	close(a);
	t_range(b, 2 * MIB, MIB, 'a');
	char *p = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, b, 0);
	is_true(p != MAP_FAILED);
	p[3 * MIB] = 'M';
	ok(msync(p, 4 * MIB, MS_SYNC));
	t_range(b, 3 * MIB, 1, 'M');
	t_range(c, 0, MIB, 'a');
}

static void copies_share_space(void)
{
	int a = t_file("a", 16 * MIB, 'a'), b = t_file("b", 0, 0);
	uint64_t before;
	struct statvfs vfs;

	ok(fsync(a));
	ok(statvfs(".", &vfs));
	before = t_free_blocks();
	eq(copy_file_range(a, NULL, b, NULL, 16 * MIB, 0), 16 * MIB);
	ok(fsync(b));
	if (before - t_free_blocks() >= 16 * MIB / vfs.f_frsize)
		t_skip("copies do not share here");
	is_true(before - t_free_blocks() <= 64);
	eq(t_fstat(b).st_blocks, 16 * MIB / 512);
	t_range(b, 0, 16 * MIB, 'a');
}

static void splice_and_sendfile(void)
{
	int p[2];
	int a = t_file("a", 200000, 's'), b = t_file("b", 0, 0);
	off_t at = 0;

	for (size_t left = 200000; left;)
		left -= ok(sendfile(b, a, &at, left));
	t_range(b, 0, 200000, 's');
	ok(pipe(p));
	loff_t from = 1000, to = 300000;
	eq(splice(a, &from, p[1], NULL, 5000, 0), 5000);
	for (size_t left = 5000; left;)
		left -= ok(splice(p[0], NULL, b, &to, left, 0));
	t_range(b, 300000, 5000, 's');
	eq(t_fstat(b).st_size, 305000);
}

static void running_programs_are_not_written(void)
{
	int status, p[2];
	pid_t pid;

	is_true(system("cp /bin/sleep prog") == 0);
	is_true(system("cp /bin/true ok && ./ok") == 0);
	ok(pipe2(p, O_CLOEXEC));
	pid = fork();
	if (!pid) {
		execl("./prog", "prog", "30", NULL);
		_exit(1);
	}
	close(p[1]);
	char c;
	eq(read(p[0], &c, 1), 0); /* the exec has happened */
	fails(ETXTBSY, open("prog", O_WRONLY));
	fails(ETXTBSY, truncate("prog", 0));
	kill(pid, SIGKILL);
	ok(waitpid(pid, &status, 0));
	close(ok(open("prog", O_WRONLY)));
}

const struct t_case t_data[] = {
	T_CASE(writes_of_every_shape),
	T_CASE(reads_end_at_the_end),
	T_CASE(appends_do_not_overwrite),
	T_CASE(direct_and_cached_agree),
	T_CASE(sync_calls_succeed),
	T_CASE(sizes_up_to_the_largest),
	T_CASE(size_limit_of_the_process),
	T_CASE(holes_are_found),
	T_CASE(blocks_are_counted_truly),
	T_CASE(preallocation),
	T_CASE(punching_holes),
	T_CASE(zeroing_ranges),
	T_CASE(other_allocation_modes_are_refused),
	T_CASE(truncation_leaves_no_old_bytes),
	T_CASE(copy_file_range_copies),
	T_CASE(copies_are_independent),
	T_CASE(copies_share_space),
	T_CASE(splice_and_sendfile),
	T_CASE(running_programs_are_not_written),
	{NULL, NULL},
};
