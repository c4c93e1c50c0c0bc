/* SPDX-License-Identifier: BSD-3-Clause */
/* Queries about shared blocks: the ioctls for shadows, owners and paths. */
#ifndef UM_FUSE_ASK_H
#define UM_FUSE_ASK_H

#include <stdbool.h>
#include <stdint.h>

struct umbra_fs;

/* Carries out one of UM_IOC_SHADOWS, UM_IOC_LBA_OWNERS, UM_IOC_PATHS on its argument in place; ino
 * is that of the open file. root: the caller is root. */
int um_ask(struct umbra_fs *fs, uint64_t ino, unsigned cmd, bool root, void *arg);

#endif
