/* SPDX-License-Identifier: BSD-3-Clause */
/* Mounts a pool that is already mounted a second time, as mount(8) does with a block device. */
#ifndef UM_FUSE_SECOND_H
#define UM_FUSE_SECOND_H

#include "fuse/options.h"

struct um_second {
	const char *pool;             /* absolute */
	const char *target;           /* the mount point, as it was given */
	const char *list;             /* the options as they were given */
	const struct um_options *opt; /* and parsed */
};
/*
 * The filesystem that serves the pool is also mounted at the target, with this mount's own flags
 * (ro, nosuid, nodev, noexec). Options of the filesystem as a whole must not differ. Root only.
 * Errors are logged as a message.
 */
int um_second_mount(const struct um_second *want);

#endif
