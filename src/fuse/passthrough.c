/* SPDX-License-Identifier: BSD-3-Clause */
/* Backing ids: the kernel's identifiers of files to which opens are passed through. */
#include <errno.h>
#include <sys/ioctl.h>

#include "fuse/proto.h"
#include "fuse/view_int.h"

int um_backing_open(const struct um_mount *m, int fd)
{
	struct um_backing_map map = {.fd = fd};
	int id = ioctl(m->dev, UM_DEV_BACKING_OPEN, &map);

	if (id < 0)
		return -errno;
	return id ? id : -EIO;
}

void um_backing_close(const struct um_mount *m, int32_t id)
{
	uint32_t arg = (uint32_t)id;

	ioctl(m->dev, UM_DEV_BACKING_CLOSE, &arg);
}
