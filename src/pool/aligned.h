/* SPDX-License-Identifier: BSD-3-Clause */
/* Address space that begins where it should. */
#ifndef UM_POOL_ALIGNED_H
#define UM_POOL_ALIGNED_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

/* `len` bytes at a multiple of `align`, a power of two of pages; what is too much at both ends is released. NULL: none. */
static inline void *um_map_aligned(size_t len, size_t align, int prot)
{
	uint8_t *map =
		mmap(NULL, len + align, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t skip;

	if (map == MAP_FAILED)
		return NULL;
	skip = -(uintptr_t)map & (align - 1);
	if (skip)
		munmap(map, skip);
	munmap(map + skip + len, align - skip);
	return map + skip;
}

#endif
