/* SPDX-License-Identifier: BSD-3-Clause */
/* From read-only to writable and back, while it is mounted. */
#ifndef UM_FUSE_REMOUNT_H
#define UM_FUSE_REMOUNT_H

#include "fuse/session.h"

/*
 * Answers the request later, or returns an error and leaves the answer to the caller. sync: UM_REMOUNT_*, what is to be
 * durable before it returns from then on. (The kernel minds "sync" of a remount for writes only, and forgets "dirsync".)
 */
int um_remount(struct um_mount *m, fuse_req_t req, bool readonly, uint32_t sync);

/*
 * A pool that was opened read-only is reopened for writing while nobody uses it: every thread that
 * serves requests is inside a gate meanwhile, m->gate or that of the views (true: leave it again).
 * Mounts that began writable have none.
 */
int um_gate_new(pthread_rwlock_t *out);
bool um_gate_enter(const struct um_mount *m, pthread_rwlock_t *gate);
void um_gate_leave(pthread_rwlock_t *gate, bool entered);

/* um_options_text of what the filesystem has now. */
void um_remount_options(const struct um_mount *m, char *out, size_t len);

#endif
