/* SPDX-License-Identifier: BSD-3-Clause */
/* Changing the pool's space from a mount: requests that take long, each in a separate thread. */
#ifndef UM_FUSE_ROOM_H
#define UM_FUSE_ROOM_H

#include <linux/fs.h>

#include "fuse/ioctl.h"
#include "fuse/session.h"

/* Each replies to req. */
void um_room_grow(struct um_mount *m, fuse_req_t req, const struct um_ioc_grow *want);
void um_room_trim(struct um_mount *m, fuse_req_t req, const struct fstrim_range *range);

#endif
