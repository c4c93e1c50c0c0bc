/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool that is mounted already is mounted once more, as mount(8) does with a block device. */
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
 * The filesystem that serves the pool also appears at the target, with the flags of this mount's own (ro, nosuid, nodev, noexec). What goes
 * for the filesystem as a whole must not be asked for differently. Root only. Errors are logged in a sentence.
 */
int um_second_mount(const struct um_second *want);

#endif
