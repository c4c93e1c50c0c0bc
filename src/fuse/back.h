/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mount option writeback: the kernel keeps what is written through its page cache, and sends it
 * later (FUSE_WRITEBACK_CACHE). It then owns size, mtime and ctime of regular files: it ignores
 * these in our replies, and its SETATTRs tell us of them. Before it truncates, punches, copies or
 * reads attributes it sends its data; in the cases that it omits, it is made to do so here.
 */
#ifndef UM_FUSE_BACK_H
#define UM_FUSE_BACK_H

#include "fuse/session.h"

/* Starts the guardian, before the threads that will wait for pages. */
void um_back_start(struct um_mount *m);
/* No thread waits any more. */
void um_back_stop(struct um_mount *m);
bool um_back_guarded(struct um_mount *m);

/* May the kernel have data of this file that it has not sent? Never without writeback. */
bool um_back_owed(const struct um_mount *m, uint64_t ino);
/* Makes it send the data, and drop the file's pages. Waits for workers, so it is only for threads
 * of the door. */
void um_back_fetch(const struct um_mount *m, uint64_t ino);
/* The same for all files, before the connection ends. */
void um_back_fetch_all(const struct um_mount *m);

#endif
