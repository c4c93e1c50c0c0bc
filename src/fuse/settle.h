/* SPDX-License-Identifier: BSD-3-Clause */
/* After an ioctl that changed a file's size: makes sure that the kernel knows it. */
#ifndef UM_FUSE_SETTLE_H
#define UM_FUSE_SETTLE_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * fstat(2) alone does not suffice: if the daemon notifies the kernel of another change of the file
 * (a time) between the kernel's request and its use of the reply, the caller gets the new size, but
 * the kernel keeps the old one, beyond which mappings get SIGBUS. So this repeats it until the
 * cached and the returned size agree. 0 or -errno; -EAGAIN: they have not for two seconds, as
 * others keep changing the file or its times.
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
