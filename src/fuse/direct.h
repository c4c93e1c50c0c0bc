/* SPDX-License-Identifier: BSD-3-Clause */
/* Coherence of writes that bypass the page cache with reads through it. */
#ifndef UM_FUSE_DIRECT_H
#define UM_FUSE_DIRECT_H

#include "fuse/session.h"

struct um_direct;

int um_direct_open(struct um_mount *m, struct um_direct **out);
/* Afterwards no write waits any more, and new ones are answered at once. Requests are still
 * served. */
void um_direct_stop(struct um_direct *d);
void um_direct_close(struct um_direct *d);

/* A write that bypasses the cache was carried out. True: it is answered later, when no older page
 * is cached, by um_reply_synced() if it has to be durable. False: the caller answers. */
bool um_direct_wrote(struct um_direct *d, fuse_req_t req, uint64_t ino, uint64_t fh, uint64_t off,
	size_t len, bool sync);
void um_direct_stat(struct um_direct *d, umbra_stat_fn *fn, void *arg);

#endif
