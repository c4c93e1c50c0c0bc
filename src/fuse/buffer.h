/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a thread receives requests. */
#ifndef UM_FUSE_BUFFER_H
#define UM_FUSE_BUFFER_H

#include "fuse/session.h"

#define UM_BUFFER_BYTES (2u << 20)
#define UM_BUFFER_DATA 4096u         /* offset of the data of a write request: a page */
#define UM_BUFFER_LARGE (128u << 10) /* from that size on a request deserves a huge page */

/* NULL: no memory. Aligned to a huge page, and used up to UM_BUFFER_DATA + UM_MAX_IO and a little
 * more; given back with munmap. */
char *um_buffer_new(void);
/* Makes it one huge page: the kernel then looks up fewer pages for each copy. Threads that see no
 * large request use a page or two. Where there is no huge page, the buffer works as before. */
void um_buffer_make_huge(char *buffer);

#endif
