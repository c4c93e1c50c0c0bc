/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside pool/: the back ends, and what opening is made of. */
#ifndef UM_POOL_BACKEND_H
#define UM_POOL_BACKEND_H

#include "pool/pool.h"

extern const struct um_pool_ops um_ops_file;    /* plain file, block device */
extern const struct um_pool_ops um_ops_fsdax;   /* file on a DAX filesystem */
extern const struct um_pool_ops um_ops_devdax;  /* /dev/daxX.Y */
extern const struct um_pool_ops um_ops_memory;  /* anonymous memory of our own */
extern const struct um_pool_ops um_ops_image;   /* the caller's memory */
extern const struct um_pool_ops um_ops_private; /* any of them, stores to private pages only */

/*
 * Tests: called when a pool image is opened, before anything is read from it. May put a recorder's
 * operations in place of the image's own, and clear pool->direct.
 */
extern void (*um_image_hook)(struct um_pool *pool);

/* Shared by fsdax and devdax: maps fd with libpmem. -EOPNOTSUPP: not persistent memory. */
int um_pmem_map(struct um_pool *pool);
void um_pmem_unmap(struct um_pool *pool);
int um_pmem_write(struct um_pool *pool, uint64_t off, const void *src, size_t len);
int um_pmem_apply(struct um_pool *pool, uint64_t off, const void *src, size_t len);
void um_pmem_drain(struct um_pool *pool);
int um_barrier_none(struct um_pool *pool);
/* Would a mapping of this open file be persistent memory? */
bool um_fsdax_detect(int fd);

/* Character device that is a DAX device; its size and the unit its mapping can be split at. */
bool um_devdax_probe(dev_t rdev, uint64_t *out_size, uint64_t *out_align);

/* New struct um_pool without a mapping; um_pool_free also unmaps. */
int um_pool_new(const char *name, const struct um_pool_ops *ops, struct um_pool **out);
void um_pool_free(struct um_pool *pool);
/* Geometry of a pool of `size` bytes, before there is a superblock; the bitmap of verified blocks. */
int um_pool_set_size(struct um_pool *pool, uint64_t size);
int um_pool_alloc_verified(struct um_pool *pool);

/* Finds and checks the superblock in the mapping, see um_pool_open; rewrites a bad copy. */
int um_super_load(struct um_pool *pool);
int um_super_rewrite(struct um_pool *pool);

/* Write-behind of the file back end (behind.c): data was written there. */
int um_behind_open(struct um_pool *pool);
void um_behind_close(struct um_pool *pool);
void um_behind_wrote(struct um_pool *pool, uint64_t off, size_t len);
void um_behind_clean(struct um_pool *pool); /* a barrier has passed */

#endif
