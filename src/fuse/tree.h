/* SPDX-License-Identifier: BSD-3-Clause */
/* Cloning the contents of a directory into another one: UM_IOC_TREE. */
#ifndef UM_FUSE_TREE_H
#define UM_FUSE_TREE_H

#include "fuse/ioctl.h"
#include "fuse/session.h"

/* Clones a bounded number of entries. For the door's threads: it waits for whoever holds the lock
 * of directory dst in the kernel, and for dirty pages of bound files. */
int um_tree_run(struct um_mount *m, uint64_t dst, struct um_ioc_tree *io);

#endif
