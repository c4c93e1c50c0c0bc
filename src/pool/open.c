/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening a pool by path: what it is, who else uses it, which back end maps it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pool/backend.h"
#include "pool/log.h"

#define SETTLE_MS 1500 /* see take_in_use() */
#define RETRY_MS 50

struct target {
	enum umbra_pool_kind kind;
	uint64_t size;
	uint64_t align; /* devdax */
};

static int probe_fd(int fd, struct target *out)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	out->align = UM_BLOCK_SIZE;
	if (S_ISREG(st.st_mode)) {
		out->size = (uint64_t)st.st_size;
		out->kind = um_fsdax_detect(fd) ? UMBRA_POOL_FSDAX : UMBRA_POOL_FILE;
		return 0;
	}
	if (S_ISBLK(st.st_mode)) {
		out->kind = UMBRA_POOL_BLOCK;
		return ioctl(fd, BLKGETSIZE64, &out->size) ? -errno : 0;
	}
	if (S_ISCHR(st.st_mode) && um_devdax_probe(st.st_rdev, &out->size, &out->align)) {
		out->kind = UMBRA_POOL_DEVDAX;
		return 0;
	}
	return S_ISDIR(st.st_mode) ? -EISDIR : -ENOTBLK;
}

int um_pool_probe(const char *path, uint64_t *out_size, enum umbra_pool_kind *out_kind)
{
	/* NONBLOCK: a FIFO in place of the pool must not block us. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), ret;
	struct target target;

	if (fd < 0)
		return -errno;
	ret = probe_fd(fd, &target);
	close(fd);
	if (ret)
		return ret;
	*out_size = target.size;
	*out_kind = target.kind;
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * One attempt. flock and not fcntl: it works on any descriptor, including that of a DAX device, and
 * belongs to the open file description, so it survives the fork of a daemon. O_EXCL on a block
 * device also detects mounts, swap and device mapper.
 */
static int try_open(const char *path, unsigned flags, int *out_fd)
{
	bool excl = flags & UM_POOL_EXCL;
	int mode = (excl ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	struct stat st;
	int fd, ret = 0;

	if (stat(path, &st))
		return -errno;
	if (excl && S_ISBLK(st.st_mode) && !(flags & UM_POOL_SHARED))
		mode |= O_EXCL;
	fd = open(path, mode);
	if (fd < 0)
		return -errno;
	/* io_uring would interpret NONBLOCK as a request for EAGAIN. */
	if (fcntl(fd, F_SETFL, 0))
		ret = -errno;
	if (!ret && !(flags & UM_POOL_NOLOCK) && flock(fd, (excl ? LOCK_EX : LOCK_SH) | LOCK_NB))
		ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (ret)
		close(fd);
	else
		*out_fd = fd;
	return ret;
}

/*
 * umount(8) returns before the daemon has released the pool, and udev probes a block device that a
 * writer has just closed, under a shared lock: for a moment both look like a user. So there is a
 * second attempt, except for callers that retry themselves.
 */
static int take_in_use(const char *path, const char *name, unsigned flags, int *out_fd)
{
	struct timespec pause = {0, RETRY_MS * 1000000L};
	int64_t start = now_ms();
	int ret;

	do {
		ret = try_open(path, flags, out_fd);
		if (ret != -EBUSY || flags & UM_POOL_TRY)
			break;
		nanosleep(&pause, NULL);
	} while (now_ms() - start < SETTLE_MS);
	if (ret == -EBUSY && !(flags & UM_POOL_TRY))
		um_err("%s: is in use by another process", name);
	else if (ret && ret != -EBUSY)
		um_err("%s: cannot open: %s", name, strerror(-ret));
	return ret;
}

static const struct um_pool_ops *choose_ops(enum umbra_pool_kind kind, unsigned flags)
{
	if (flags & UM_POOL_RDONLY)
		return &um_ops_private;
	switch (kind) {
	case UMBRA_POOL_FSDAX:
		return &um_ops_fsdax;
	case UMBRA_POOL_DEVDAX:
		return &um_ops_devdax;
	default:
		return &um_ops_file;
	}
}

static int map_pool(struct um_pool *pool, const struct target *target, unsigned flags)
{
	int ret;

	pool->kind = target->kind;
	pool->ops = choose_ops(target->kind, flags);
	pool->guard_unit = target->kind == UMBRA_POOL_DEVDAX ? target->align : UM_BLOCK_SIZE;
	ret = pool->ops->map(pool);
	if (ret == -EOPNOTSUPP && pool->ops == &um_ops_fsdax) {
		pool->kind = UMBRA_POOL_FILE;
		pool->ops = &um_ops_file;
		ret = pool->ops->map(pool);
	}
	if (ret) {
		um_err("%s: cannot map %llu bytes: %s", pool->path,
			(unsigned long long)pool->map_len, strerror(-ret));
		return ret;
	}
	pool->direct = pool->ops != &um_ops_file;
	pool->peek = flags & UM_POOL_NOLOCK;
	pool->readonly = (flags & UM_POOL_RDONLY) && !(flags & UM_POOL_PRIVATE);
	ret = um_pool_alloc_verified(pool);
	if (ret)
		return ret;
	if (um_guard_install())
		um_warn("%s: cannot install a handler for memory errors", pool->path);
	um_guard_register(pool);
	/* Before anything is read from it: places known to be bad are better not touched. */
	um_pool_scan_bad(pool);
	return um_pool_set_size(pool, pool->map_len & ~(UM_CHUNK_SIZE - 1));
}

static int set_map_len(struct um_pool *pool, const struct target *target, uint64_t size)
{
	if (size > target->size) {
		um_err("%s: has %llu bytes, %llu are needed", pool->path,
			(unsigned long long)target->size, (unsigned long long)size);
		return -ENODATA;
	}
	pool->map_len = (size ? size : target->size) & ~(uint64_t)(UM_BLOCK_SIZE - 1);
	if (pool->map_len)
		return 0;
	um_err("%s: is not an umbrafs pool (%s)", pool->path, target->size ? "too small" : "empty");
	return -EMEDIUMTYPE;
}

/* path: what to open; name: what to call it in messages. */
static int open_named(
	const char *path, const char *name, unsigned flags, uint64_t size, struct um_pool **out)
{
	struct um_pool *pool;
	struct target target;
	int ret, fd = -1;

	ret = take_in_use(path, name, flags, &fd);
	if (ret)
		return ret;
	ret = um_pool_new(name, &um_ops_file, &pool);
	if (ret) {
		close(fd);
		return ret;
	}
	pool->fd = fd;
	ret = probe_fd(fd, &target);
	if (ret)
		um_err("%s: is neither a file, a block device nor a DAX device", name);
	if (!ret)
		ret = set_map_len(pool, &target, size);
	if (!ret)
		ret = map_pool(pool, &target, flags);
	if (!ret && !(flags & UM_POOL_NOSUPER)) {
		ret = um_super_load(pool);
		/* Not before it is known to be ours to change. */
		if (!ret)
			ret = um_host_open(pool);
		if (!ret && !(flags & UM_POOL_RDONLY))
			um_super_rewrite(pool);
	}
	if (ret)
		um_pool_free(pool);
	else
		*out = pool;
	return ret;
}

int um_pool_open(const char *path, unsigned flags, uint64_t size, struct um_pool **out)
{
	return open_named(path, path, flags, size, out);
}

int um_pool_reopen(struct um_pool *seen, unsigned flags, struct um_pool **out)
{
	char path[32];

	if (seen->fd < 0)
		return -EOPNOTSUPP; /* memory of a test */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", seen->fd);
	/* The two locks would exclude each other. */
	if (flock(seen->fd, LOCK_UN))
		return -errno;
	return open_named(path, seen->path, flags, 0, out);
}

int um_pool_relock(const struct um_pool *seen)
{
	if (seen->fd < 0)
		return 0;
	if (flock(seen->fd, LOCK_SH | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return 0;
}
