/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside mkfs: writing the pool (mkfs.c) and preparing what it is written to (mkfs_target.c). */
#ifndef UM_FS_MKFS_INT_H
#define UM_FS_MKFS_INT_H

#include "pool/pool.h"
#include "umbra/umbra.h"

/* Writes an empty filesystem to a pool opened with NOSUPER; its superblocks last. */
int um_mkfs_write(struct um_pool *pool, const struct umbra_mkfs_options *opt);
/* -EINVAL, -ENAMETOOLONG */
int um_mkfs_check_options(const struct umbra_mkfs_options *opt);
/* Length of the journal of a pool of `size` bytes. */
uint64_t um_mkfs_journal_bytes(uint64_t size);

#endif
