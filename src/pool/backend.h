/* SPDX-License-Identifier: BSD-3-Clause */
/* Internal to pool/: the back ends, and the parts of opening a pool. */
#ifndef UM_POOL_BACKEND_H
#define UM_POOL_BACKEND_H

#include "pool/pool.h"

extern const struct um_pool_ops um_ops_file;    /* plain file, block device */
extern const struct um_pool_ops um_ops_fsdax;   /* file on a DAX filesystem */
extern const struct um_pool_ops um_ops_devdax;  /* /dev/daxX.Y */
extern const struct um_pool_ops um_ops_memory;  /* anonymous memory of our own */
extern const struct um_pool_ops um_ops_image;   /* the caller's memory */
extern const struct um_pool_ops um_ops_private; /* any of them, stores to private pages only */

/* For tests: called when a pool image is opened, before anything is read from it. May replace the
 * image's operations by a recorder's, and clear pool->direct. */
extern void (*um_image_hook)(struct um_pool *pool);

/* Shared by fsdax and devdax: maps fd with libpmem. -EOPNOTSUPP: not persistent memory. */
int um_pmem_map(struct um_pool *pool);
void um_pmem_unmap(struct um_pool *pool);
int um_pmem_write(struct um_pool *pool, uint64_t off, const void *src, size_t len);
int um_pmem_apply(struct um_pool *pool, uint64_t off, const void *src, size_t len);
void um_pmem_drain(struct um_pool *pool);
int um_barrier_none(struct um_pool *pool);
/*
 * Makes the file own all its blocks, and records where it has holes. A store through the mapping to
 * a hole, or to a block shared with a reflink of the pool file, would make the filesystem below
 * allocate, and its lack of space would reach us as a signal. -ENOSPC.
 */
int um_fsdax_own_space(struct um_pool *pool);
/* Would a mapping of this open file be persistent memory? */
bool um_fsdax_detect(int fd);

/* ---- the kernel's lists of bad blocks (badblocks.c) ---- */

struct fiemap_extent;
typedef int um_extent_fn(void *arg, const struct fiemap_extent *extent);
/* Calls fn for each extent of an open file, until it returns non-zero. */
int um_file_extents(int fd, uint64_t size, um_extent_fn *fn, void *arg);

/* A bad block list in a sysfs file; [start, start + len) of its disk or region is of interest. */
int um_badlist_open(const char *path, uint64_t start, uint64_t len, struct um_badlist **out);
/* The list of a disk (rdev: the disk or a partition), or of the NVDIMM region of a DAX device;
 * -ENOENT: none. */
int um_badlist_disk(dev_t rdev, struct um_badlist **out);
int um_badlist_region(dev_t rdev, uint64_t size, struct um_badlist **out);
void um_badlist_close(struct um_badlist *list);
/* Calls fn for the bad ranges of the device, if the list has changed since the last call. */
int um_badlist_each(struct um_badlist *list, um_bad_fn *fn, void *arg);
/* The same for the device below an open file, translated to offsets in the file. */
int um_badlist_file(struct um_badlist *list, int fd, uint64_t size, um_bad_fn *fn, void *arg);
/* Operations of the back ends; um_fsdax_badblocks serves all files. */
int um_fsdax_badblocks(struct um_pool *pool, um_bad_fn *fn, void *arg);
int um_devdax_badblocks(struct um_pool *pool, um_bad_fn *fn, void *arg);
/* Reads a number about a device from sysfs. */
int um_sysfs_number(dev_t rdev, bool block, const char *attr, uint64_t *out);

/* Is the character device a DAX device? Also its size, and the unit at which its mapping can be
 * split. */
bool um_devdax_probe(dev_t rdev, uint64_t *out_size, uint64_t *out_align);

/* Allocates a struct um_pool without a mapping; um_pool_free also unmaps. */
int um_pool_new(const char *name, const struct um_pool_ops *ops, struct um_pool **out);
void um_pool_free(struct um_pool *pool);
/* For back ends with map_part: reserves address space (base, room) for a mapping of map_len bytes
 * that may grow, aligned for large pages, and maps the pool there; um_room_give releases all of it. */
int um_room_map(struct um_pool *pool);
void um_room_give(struct um_pool *pool);
/* Extends the per-block bitmaps to cover map_len. */
int um_pool_extend_marks(struct um_pool *pool, uint64_t len);
/* Sets the geometry of a pool of `size` bytes before there is a superblock, and allocates the
 * bitmap of verified blocks. */
int um_pool_set_size(struct um_pool *pool, uint64_t size);
int um_pool_alloc_verified(struct um_pool *pool);

/* Finds and checks the superblock in the mapping, see um_pool_open; rewrites a bad copy. */
int um_super_load(struct um_pool *pool);
int um_super_rewrite(struct um_pool *pool);

/* host.c: finds out, once the superblock is known, which space a file may lack. */
int um_host_open(struct um_pool *pool);
void um_host_close(struct um_pool *pool);
/* Bytes from..to, rounded to chunks, may be a hole. */
void um_host_lacks(struct um_pool *pool, uint64_t from, uint64_t to);
/* Fills them. -ENOSPC. */
int um_host_fill(struct um_pool *pool, uint64_t from, uint64_t to);
int um_host_punch(struct um_pool *pool, uint64_t off, uint64_t len);

/* Write-behind of the file back end (behind.c): data was written there. */
int um_behind_open(struct um_pool *pool);
void um_behind_close(struct um_pool *pool);
void um_behind_wrote(struct um_pool *pool, uint64_t off, size_t len);
void um_behind_clean(struct um_pool *pool); /* a barrier has passed */
/* Probably in the page cache of the file. */
bool um_behind_recent(const struct um_pool *pool, uint64_t off);

#endif
