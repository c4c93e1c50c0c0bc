// SPDX-License-Identifier: BSD-3-Clause
/*
 * statfs and fstatfs under umbractl exec --as-xfs. Some programs (duperemove) share blocks only on
 * filesystems whose magic number they know; umbrafs answers their ioctls as XFS does, and with this
 * option it also returns XFS's number.
 */
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/ioctl.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/* Reads a path of the task, up to its NUL; the pages after it need not be readable. */
static int read_path(const struct um_call *call, uint64_t addr, char path[4096])
{
	size_t have = 0;

	while (have < 4096) {
		size_t page = 4096 - (addr + have) % 4096;
		size_t part = page < 4096 - have ? page : 4096 - have;
		int err = um_task_read(call, addr + have, path + have, part);

		if (err)
			return err;
		if (memchr(path + have, 0, part))
			return 0;
		have += part;
	}
	return -ENAMETOOLONG;
}

struct lookup {
	const char *path;
	int root, cwd; /* the task's */
	int fd;        /* what was found, O_PATH */
};

/* Resolves the path as the task would: below its root or its working directory. Run as the task. */
static int look_up(void *arg)
{
	struct lookup *l = arg;
	struct open_how how = {.flags = O_PATH | O_CLOEXEC};

	if (l->path[0] == '/')
		how.resolve = RESOLVE_IN_ROOT;
	l->fd = (int)syscall(
		SYS_openat2, l->path[0] == '/' ? l->root : l->cwd, l->path, &how, sizeof(how));
	return l->fd < 0 ? -errno : 0;
}

/* Directories and regular files of FUSE only: opening a device may have effects. */
static int reopen(int fd)
{
	struct statfs fs;
	struct stat st;
	char path[64];
	int file;

	if (fstatfs(fd, &fs) < 0 || fs.f_type != FUSE_SUPER_MAGIC || fstat(fd, &st) < 0 ||
		!(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return -EINVAL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return file < 0 ? -errno : file;
}

static int open_path(const struct um_call *call, const char *path)
{
	struct lookup l = {.path = path, .fd = -1};
	struct um_task_cred cred;
	char base[64];
	int fd = -ENOENT;

	snprintf(base, sizeof(base), "/proc/%d/root", (int)call->proc_tid);
	l.root = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(base, sizeof(base), "/proc/%d/cwd", (int)call->proc_tid);
	l.cwd = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* The task's identity is read last: if it still waits then, root and cwd were its own. */
	if (l.root >= 0 && l.cwd >= 0 && !um_task_cred(call, &cred)) {
		fd = um_task_as(&cred, look_up, &l);
		um_task_cred_free(&cred);
		if (!fd)
			fd = reopen(l.fd);
	}
	if (l.fd >= 0)
		close(l.fd);
	if (l.root >= 0)
		close(l.root);
	if (l.cwd >= 0)
		close(l.cwd);
	return fd;
}

void um_do_statfs(struct um_call *call)
{
	struct um_ioc_info info;
	struct statfs st;
	char path[4096];
	int fd;

	/* What cannot be examined from here, and what is not umbrafs, is left to the kernel. */
	call->pass = true;
	if (call->nr == SYS_fstatfs)
		fd = um_task_getfd(call, call->fd);
	else if (read_path(call, call->arg0, path))
		return;
	else
		fd = open_path(call, path);
	if (fd < 0)
		return;
	if (!ioctl(fd, UM_IOC_INFO, &info) && !fstatfs(fd, &st)) {
		st.f_type = XFS_SUPER_MAGIC;
		call->pass = false;
		call->error = um_task_write(call, call->arg1, &st, sizeof(st));
	}
	close(fd);
}
