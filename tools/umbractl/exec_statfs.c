// SPDX-License-Identifier: BSD-3-Clause
/*
 * statfs and fstatfs under umbractl exec --as-xfs. Some programs (duperemove) share blocks only on the
 * filesystems they know by their magic number; umbrafs answers their ioctls as XFS does, and with this
 * option its files say so.
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

/* A path of the task's, up to its NUL; pages behind it need not be readable. */
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

/* Opens what the path means to the task: below its root or its working directory. */
static int open_path(const struct um_call *call, const char *path)
{
	struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC};
	char base[64];
	int dir, fd, err;

	snprintf(
		base, sizeof(base), "/proc/%d/%s", (int)call->tid, path[0] == '/' ? "root" : "cwd");
	dir = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (path[0] == '/')
		how.resolve = RESOLVE_IN_ROOT;
	fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
	err = errno;
	close(dir);
	return fd < 0 ? -err : fd;
}

void um_do_statfs(struct um_call *call)
{
	struct um_ioc_info info;
	struct statfs st;
	char path[4096];
	int fd;

	/* What cannot be looked at from here, and what is not umbrafs, is the kernel's to answer. */
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
