/* SPDX-License-Identifier: BSD-3-Clause */
/* clonearm DIR: clones that make a file longer, between the ioctl and the fallocate that they are
 * carried out in. As root. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "views.h"

#define BLOCK 4096u
#define SIZE (40 * BLOCK + 100) /* of a source */
#define OLD (3 * BLOCK)         /* of a destination */
#define LARGE (16u << 20)

static unsigned char buf[SIZE + 4 * BLOCK];

static int file(const char *name, unsigned char byte, size_t size, int flags)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	memset(buf, byte, sizeof(buf));
	CHECK(fd >= 0);
	for (size_t at = 0; at < size; at += sizeof(buf)) {
		size_t n = size - at < sizeof(buf) ? size - at : sizeof(buf);

		CHECK(pwrite(fd, buf, n, (off_t)at) == (ssize_t)n);
	}
	if (flags != O_RDWR) {
		CHECK(!close(fd));
		fd = open(path, flags);
		CHECK(fd >= 0);
	}
	return fd;
}

/* The kernel and the daemon agree on the size; and the last byte. */
static void is(int fd, off_t size, unsigned char last, int line)
{
	struct statx has;
	struct stat st;
	unsigned char byte;

	CHECK(!statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &has));
	CHECK(!fstat(fd, &st));
	CHECK(pread(fd, &byte, 1, size - 1) == 1);
	if (st.st_size != size || (off_t)has.stx_size != size || byte != last)
		fail("line %d: size %ld, in the kernel %llu, must be %ld; last byte %02x, must be "
		     "%02x",
			line, (long)st.st_size, (unsigned long long)has.stx_size, (long)size, byte,
			last);
}
#define IS(fd, size, last) is(fd, size, last, __LINE__)

/* The ioctl alone. */
static int ask(int src, int dst, uint64_t len, struct um_ioc_clone *io)
{
	struct um_ioc_token token;

	*io = (struct um_ioc_clone){.len = len, .op = UM_CLONE_RANGE};
	CHECK(!ioctl(src, UM_IOC_TOKEN, &token));
	memcpy(io->token, token.token, sizeof(token.token));
	return ioctl(dst, UM_IOC_CLONE, io) ? -errno : 0;
}

static void arm(int src, int dst, uint64_t len)
{
	struct um_ioc_clone io;

	CHECK(!ask(src, dst, len, &io));
	CHECK(io.status == UM_CLONE_ARMED && io.done == (len ? len : SIZE));
}

static int fire(int dst)
{
	return fallocate(dst, 0, SIZE - 1, 1) ? -errno : 0;
}

static void begin(const char *what, int *src, int *dst)
{
	op = what;
	*src = file("src", 's', SIZE, O_RDWR);
	*dst = file("dst", 'd', OLD, O_RDWR);
}

static void end(int src, int dst)
{
	CHECK(!close(src) && !close(dst));
}

static void clones(void)
{
	struct um_ioc_clone io;
	unsigned char *map;
	int src, dst;

	begin("a clone that makes the file longer", &src, &dst);
	clone_into(src, dst, 0, 0);
	map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, dst, 0);
	CHECK(map != MAP_FAILED && map[SIZE - 1] == 's');
	IS(dst, SIZE, 's');
	op = "one that does not";
	CHECK(pwrite(dst, "ddd", 3, SIZE - 3) == 3);
	arm(src, dst, 0);
	IS(dst, SIZE, 'd');
	CHECK(!fire(dst));
	IS(dst, SIZE, 's');
	clone_into(src, dst, 0, 2 * BLOCK);
	IS(dst, SIZE, 's');
	op = "one of nothing";
	CHECK(!ftruncate(src, 0) && !ask(src, dst, 0, &io) && !io.status && !io.done);
	IS(dst, SIZE, 's');
	end(src, dst);
}

static void other_calls(void)
{
	int src, dst, again;
	char path[300];

	begin("other calls of fallocate", &src, &dst);
	arm(src, dst, 0);
	CHECK(!fallocate(dst, 0, SIZE - 2, 1));
	CHECK(!fallocate(dst, FALLOC_FL_KEEP_SIZE, SIZE - 1, 1));
	CHECK(!fallocate(dst, 0, SIZE - 2, 2));
	snprintf(path, sizeof(path), "%s/dst", dir);
	again = open(path, O_RDWR);
	CHECK(again >= 0 && !fire(again) && !close(again)); /* another open file */
	IS(dst, SIZE, 0);
	CHECK(!fire(dst));
	IS(dst, SIZE, 's');
	CHECK(!ftruncate(dst, OLD) && !fire(dst)); /* once only */
	IS(dst, SIZE, 0);
	end(src, dst);
}

static void closed(void)
{
	int src, dst, again;

	begin("the file is closed", &src, &dst);
	arm(src, dst, 0);
	CHECK(!close(dst));
	snprintf(dir + strlen(dir), 5, "/dst");
	again = open(dir, O_RDWR);
	*strrchr(dir, '/') = 0;
	CHECK(again >= 0 && !fire(again));
	IS(again, SIZE, 0);
	end(src, again);
}

static void twice(void)
{
	int src, other, dst;

	begin("armed twice", &src, &dst);
	other = file("other", 'o', SIZE, O_RDWR);
	arm(src, dst, 0);
	arm(other, dst, 0);
	CHECK(!fire(dst));
	IS(dst, SIZE, 'o');
	CHECK(!close(other));
	end(src, dst);
}

/* A child with the same open file. Its exit status. */
static int child(int (*fn)(int src, int dst), int src, int dst)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid)
		_exit(fn(src, dst));
	CHECK(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int child_fires(int src, int dst)
{
	(void)src;
	return -fire(dst);
}

static int child_arms(int src, int dst)
{
	struct um_ioc_clone io;

	return -ask(src, dst, 0, &io);
}

static int child_arms_and_dies(int src, int dst)
{
	arm(src, dst, 0);
	kill(getpid(), SIGKILL);
	return 0;
}

static void shared(void)
{
	struct um_ioc_clone io;
	int src, dst;

	begin("another process with the same open file", &src, &dst);
	arm(src, dst, 0);
	CHECK(child(child_fires, src, dst) == 0);
	IS(dst, SIZE, 0);
	CHECK(!ftruncate(dst, OLD));
	CHECK(child(child_arms, src, dst) == EBUSY);
	CHECK(!fire(dst));
	IS(dst, SIZE, 's');
	op = "given up";
	CHECK(!ftruncate(dst, OLD) && !ask(src, dst, 0, &io) && io.status == UM_CLONE_ARMED);
	io.op = UM_CLONE_DISARM;
	io.token[3] ^= 1; /* another one's */
	CHECK(!ioctl(dst, UM_IOC_CLONE, &io));
	CHECK(child(child_arms, src, dst) == EBUSY);
	io.token[3] ^= 1;
	CHECK(!ioctl(dst, UM_IOC_CLONE, &io));
	CHECK(!fire(dst));
	IS(dst, SIZE, 0);
	end(src, dst);
}

static void killed(void)
{
	int src, dst;

	begin("the process is killed", &src, &dst);
	CHECK(child(child_arms_and_dies, src, dst) == 128 + SIGKILL);
	CHECK(!fire(dst));
	IS(dst, SIZE, 0);
	CHECK(!ftruncate(dst, OLD));
	arm(src, dst, 0);
	CHECK(!fire(dst));
	IS(dst, SIZE, 's');
	end(src, dst);
}

static void resized(void)
{
	int src, dst;

	begin("the source becomes shorter", &src, &dst);
	arm(src, dst, 0);
	CHECK(!ftruncate(src, 20 * BLOCK) && fire(dst) == -EAGAIN);
	IS(dst, OLD, 'd');
	CHECK(!ftruncate(src, SIZE));
	arm(src, dst, SIZE);
	CHECK(!ftruncate(src, 20 * BLOCK) && fire(dst) == -EINVAL);
	IS(dst, OLD, 'd');
	CHECK(!ftruncate(src, SIZE));
	arm(src, dst, 0);
	CHECK(!ftruncate(src, 0) && fire(dst) == -EAGAIN);
	IS(dst, OLD, 'd');
	end(src, dst);
	begin("the source becomes longer", &src, &dst);
	arm(src, dst, 0);
	CHECK(pwrite(src, "x", 1, SIZE) == 1 && fire(dst) == -EAGAIN);
	IS(dst, OLD, 'd');
	clone_into(src, dst, 0, 0);
	IS(dst, SIZE + 1, 'x');
	end(src, dst);
	begin("the destination becomes longer", &src, &dst);
	arm(src, dst, 0);
	CHECK(!ftruncate(dst, SIZE + 1) && fire(dst) == -EINVAL);
	IS(dst, SIZE + 1, 0);
	end(src, dst);
	begin("the destination becomes shorter", &src, &dst);
	arm(src, dst, 0);
	CHECK(!ftruncate(dst, 1) && !fire(dst));
	IS(dst, SIZE, 's');
	end(src, dst);
}

static void refused(void)
{
	struct rlimit old, low;
	struct um_ioc_clone io;
	uint64_t done;
	int src, dst, other;

	begin("descriptors of other kinds", &src, &dst);
	other = file("dst", 'd', OLD, O_RDONLY);
	CHECK(ask(src, other, 0, &io) == -EBADF && !close(other));
	other = file("dst", 'd', OLD, O_WRONLY | O_APPEND);
	CHECK(ask(src, other, 0, &io) == -EBADF && !close(other));
	op = "a limit of file sizes";
	signal(SIGXFSZ, SIG_IGN);
	CHECK(!getrlimit(RLIMIT_FSIZE, &old));
	low = old;
	low.rlim_cur = SIZE - 1;
	CHECK(!setrlimit(RLIMIT_FSIZE, &low));
	CHECK(um_ioc_clone(src, 0, 0, dst, 0, &done) == -EFBIG && !done);
	CHECK(!setrlimit(RLIMIT_FSIZE, &old));
	CHECK(!fire(dst)); /* nothing is armed any more */
	IS(dst, SIZE, 0);
	end(src, dst);
}

static int child_without_rights(int src, int dst)
{
	uint64_t done;

	CHECK(!setgid(65534) && !setuid(65534));
	return -um_ioc_clone(src, 0, 0, dst, 0, &done);
}

static void set_id(void)
{
	struct stat st;
	int src, dst;

	begin("set-id bits", &src, &dst);
	CHECK(!fchmod(dst, 06755));
	CHECK(child(child_without_rights, src, dst) == 0);
	IS(dst, SIZE, 's');
	CHECK(!fstat(dst, &st));
	if (st.st_mode & (S_ISUID | S_ISGID))
		fail("the mode is %o", st.st_mode);
	end(src, dst);
}

static fsblkcnt_t free_blocks(void)
{
	struct statvfs st;

	CHECK(!statvfs(dir, &st));
	return st.f_bfree;
}

/* Nothing armed holds a source that has no name any more, once nobody can fire it. */
static void space(void)
{
	fsblkcnt_t before, now = 0;
	char path[300];
	struct um_ioc_clone io;
	int src, dst;

	for (int dies = 0; dies < 2; dies++) {
		op = dies ? "space, after a kill" : "space, after a close";
		dst = file("dst", 'd', OLD, O_RDWR);
		before = free_blocks();
		src = file("large", 'l', LARGE, O_RDWR);
		snprintf(path, sizeof(path), "%s/large", dir);
		CHECK(!unlink(path));
		if (dies)
			CHECK(child(child_arms, src, dst) == 0);
		else
			CHECK(!ask(src, dst, 0, &io));
		CHECK(!close(src));
		if (!dies)
			CHECK(free_blocks() + LARGE / BLOCK / 2 < before && !close(dst));
		for (int i = 0; i < 200 && (now = free_blocks()) + 64 < before; i++)
			usleep(10000);
		if (now + 64 < before)
			fail("%lu blocks are missing", (unsigned long)(before - now));
		if (dies)
			CHECK(!close(dst));
	}
}

int main(int argc, char **argv)
{
	CHECK(argc == 2);
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	clones();
	other_calls();
	closed();
	twice();
	shared();
	killed();
	resized();
	refused();
	set_id();
	space();
	return 0;
}
