/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/buffer.h"

#include <assert.h>
#include <sys/mman.h>

#include "pool/aligned.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

static_assert(
	UM_BUFFER_DATA + UM_MAX_IO + 2 * 4096 <= UM_BUFFER_BYTES, "a buffer is one huge page");

char *um_buffer_new(void)
{
	return um_map_aligned(UM_BUFFER_BYTES, UM_BUFFER_BYTES, PROT_READ | PROT_WRITE);
}

void um_buffer_make_huge(char *buffer)
{
	(void)madvise(buffer, UM_BUFFER_BYTES, MADV_HUGEPAGE);
	(void)madvise(buffer, UM_BUFFER_BYTES, MADV_COLLAPSE);
}
