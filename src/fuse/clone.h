/* SPDX-License-Identifier: BSD-3-Clause */
/* The caller's side of UM_IOC_CLONE with UM_CLONE_RANGE (fuse/ioctl.h). */
#ifndef UM_FUSE_CLONE_H
#define UM_FUSE_CLONE_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fuse/ioctl.h"

/* One attempt. -EAGAIN: the source has another size by now; -EBUSY: another thread is about to
 * clone into the same open file. */
static inline int um_ioc_clone_once(int src, int dst, struct um_ioc_clone *io)
{
	struct um_ioc_token token;
	int err;

	if (ioctl(src, UM_IOC_TOKEN, &token) < 0)
		return -errno;
	memcpy(io->token, token.token, sizeof(io->token));
	if (ioctl(dst, UM_IOC_CLONE, io) < 0)
		return -errno;
	if (io->status != UM_CLONE_ARMED ||
		!fallocate(dst, 0, (off_t)(io->dst_off + io->done - 1), 1))
		return 0;
	err = -errno;
	/* Most errors are the clone's, but it may not have come to it (EFBIG, EINTR). */
	io->op = UM_CLONE_DISARM;
	ioctl(dst, UM_IOC_CLONE, io);
	return err;
}

/*
 * Makes dst, which is writable, share src's blocks, as FICLONERANGE; len 0: to the end. Stores
 * through mappings of src must have been written. *done: bytes. 0 or -errno, -EOPNOTSUPP before
 * anything else on a mount with the option writeback. Like every change of a size by the kernel it
 * minds RLIMIT_FSIZE (EFBIG and SIGXFSZ).
 */
#define UM_CLONE_TRIES 1000
static inline int um_ioc_clone(
	int src, uint64_t src_off, uint64_t len, int dst, uint64_t dst_off, uint64_t *done)
{
	int err = -EAGAIN;

	for (int tries = 0; tries < UM_CLONE_TRIES && (err == -EAGAIN || err == -EBUSY); tries++) {
		struct um_ioc_clone io = {
			.src_off = src_off, .len = len, .dst_off = dst_off, .op = UM_CLONE_RANGE};

		if (err == -EBUSY)
			usleep(2000);
		err = um_ioc_clone_once(src, dst, &io);
		*done = err ? 0 : io.done;
	}
	return err;
}

#endif
