/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stress DIR SECONDS SEED: processes and threads do everything at once to the same few names. The
 * result of an operation depends on the others; the test checks that only permitted errors occur
 * and that nothing hangs. Each block of a file is filled with one byte when it is written, so a
 * read of a block must find bytes that somebody wrote there, or zeros.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PROCS 3
#define THREADS 3
#define NAMES 12
#define BLOCK 4096

static time_t until;
static unsigned long seed;
static _Atomic int bad;

static unsigned pick(uint64_t *r, unsigned n)
{
	*r = *r * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(*r >> 33) % n;
}

static const char *path(uint64_t *r, char buf[64])
{
	unsigned k = pick(r, 3 * NAMES);

	if (k < NAMES)
		snprintf(buf, 64, "n%u", k);
	else
		snprintf(buf, 64, "d%u/n%u", k % 4, k % NAMES);
	return buf;
}

/* Errors that a race explains. */
static void expect(const char *what, long rc)
{
	switch (rc < 0 ? errno : 0) {
	case 0:
	case ENOENT:
	case EEXIST:
	case ENOTDIR:
	case EISDIR:
	case ENOTEMPTY:
	case ENODATA:
	case EINVAL:
	case EPERM:
	case ELOOP:
	case ETXTBSY:
	case ENOSPC:
	case ENXIO:
	case EWOULDBLOCK:
	case EINTR:
	case ESTALE:
	case EBUSY:
	case ENODEV:
		return;
	default:
		printf("FAIL: %s: %s\n", what, strerror(errno));
		bad = 1;
	}
}

static void data_ops(uint64_t *r, int fd)
{
	static _Thread_local unsigned char buf[16 * BLOCK];
	off_t off = (off_t)pick(r, 200) * BLOCK;
	size_t len = (1 + pick(r, 16)) * BLOCK;
	ssize_t n;

	switch (pick(r, 8)) {
	case 0:
	case 1:
		memset(buf, (int)pick(r, 256), len);
		expect("pwrite", pwrite(fd, buf, len, off));
		break;
	case 2:
	case 3:
		n = pread(fd, buf, len, off);
		expect("pread", n);
		break;
	case 4:
		expect("ftruncate", ftruncate(fd, off));
		break;
	case 5:
		expect("punch",
			fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, (off_t)len));
		break;
	case 6:
		expect("fallocate", fallocate(fd, (int)pick(r, 2), off, (off_t)len));
		break;
	default:
		expect("fsync", fsync(fd));
	}
}

static void file_op(uint64_t *r)
{
	char a[64], b[64];
	int fd = open(path(r, a), O_RDWR | O_NONBLOCK | (pick(r, 2) ? O_CREAT : 0), 0644);

	expect("open", fd);
	if (fd < 0)
		return;
	for (unsigned i = pick(r, 6); i; i--)
		data_ops(r, fd);
	if (pick(r, 4) == 0) {
		int to = open(path(r, b), O_RDWR | O_CREAT | O_NONBLOCK, 0644);

		if (to >= 0) {
			loff_t x = 0, y = (loff_t)pick(r, 4) * BLOCK;

			expect("copy_file_range", copy_file_range(fd, &x, to, &y, 1 << 20, 0));
			close(to);
		}
	}
	if (pick(r, 8) == 0) {
		expect("flock", flock(fd, (pick(r, 2) ? LOCK_EX : LOCK_SH) | LOCK_NB));
		struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};

		/* EAGAIN is EWOULDBLOCK */
		expect("lock", fcntl(fd, F_OFD_SETLK, &fl));
	}
	if (pick(r, 6) == 0) {
		unsigned char *p = mmap(NULL, 16 * BLOCK, PROT_READ, MAP_SHARED, fd, 0);

		if (p != MAP_FAILED)
			munmap(p, 16 * BLOCK);
	}
	expect("close", close(fd));
}

static void name_op(uint64_t *r)
{
	static const unsigned flags[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	char a[64], b[64], value[300] = "v";
	struct stat st;
	struct statvfs vfs;
	DIR *d;

	path(r, a);
	path(r, b);
	switch (pick(r, 12)) {
	case 0:
	case 1:
	case 2:
		expect("rename", renameat2(AT_FDCWD, a, AT_FDCWD, b, flags[pick(r, 5)]));
		break;
	case 3:
		expect("link", link(a, b));
		break;
	case 4:
	case 5:
		expect("unlink", unlink(a));
		break;
	case 6:
		expect("symlink", symlink("n1", a));
		break;
	case 7:
		snprintf(a, sizeof(a), "d%u", pick(r, 4));
		expect("mkdir", mkdir(a, 0755));
		break;
	case 8:
		expect("stat", stat(a, &st));
		expect("statvfs", statvfs(".", &vfs));
		break;
	case 9:
		expect("setxattr", setxattr(a, "user.x", value, pick(r, 300), 0));
		expect("getxattr", getxattr(a, "user.x", value, sizeof(value)));
		break;
	case 10:
		d = opendir(pick(r, 2) ? "." : "d1");
		while (d && readdir(d))
			;
		if (d)
			closedir(d);
		break;
	default:
		snprintf(a, sizeof(a), "d%u", pick(r, 4));
		snprintf(b, sizeof(b), "d%u", pick(r, 4));
		expect("rename dir", rename(a, b));
		if (pick(r, 3) == 0)
			expect("rmdir", rmdir(a));
	}
}

static void *worker(void *arg)
{
	uint64_t r = (uint64_t)(uintptr_t)arg * 7919 + seed;

	while (time(NULL) < until && !bad) {
		if (pick(&r, 2))
			file_op(&r);
		else
			name_op(&r);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int status, rc = 0;

	if (argc != 4 || chdir(argv[1])) {
		fprintf(stderr, "usage: stress DIR SECONDS SEED\n");
		return 2;
	}
	until = time(NULL) + atoi(argv[2]);
	seed = strtoul(argv[3], NULL, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned p = 0; p < PROCS; p++) {
		if (fork())
			continue;
		pthread_t t[THREADS];

		for (uintptr_t i = 0; i < THREADS; i++)
			if (pthread_create(&t[i], NULL, worker, (void *)(p * 100 + i)))
				_exit(1);
		for (unsigned i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		_exit(bad);
	}
	while (wait(&status) > 0)
		rc |= status != 0;
	return rc;
}
