/* SPDX-License-Identifier: BSD-3-Clause */
/* After an ioctl that changed a file's size: makes the kernel know it. */
#ifndef UM_FUSE_SETTLE_H
#define UM_FUSE_SETTLE_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * fstat(2) alone does not do: when the daemon tells the kernel of another change of the file (a time) between the kernel's
 * question and its use of the answer, the caller is told the new size, but the kernel goes on with the old one, behind which
 * mappings get SIGBUS. So: until what it has and what it says agree. 0 or -errno; -EAGAIN: they have not for two seconds,
 * as others change the file, or have its times change, all the time.
 */
#define UM_SETTLE_TRIES 1000 /* at once; then as many again, with pauses */
static inline int um_ioc_settle(int fd)
{
	struct statx has;
	struct stat says;

	for (int tries = 0; tries < 2 * UM_SETTLE_TRIES; tries++) {
		if (tries >= UM_SETTLE_TRIES)
			usleep(2000);
		if (fstat(fd, &says) < 0 ||
			statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &has) < 0)
			return -errno;
		if (has.stx_size == (uint64_t)says.st_size)
			return 0;
	}
	return -EAGAIN;
}

#endif
