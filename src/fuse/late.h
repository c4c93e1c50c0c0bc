/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests that have to wait for others do so in a separate thread, not in a worker. */
#ifndef UM_FUSE_LATE_H
#define UM_FUSE_LATE_H

#include "fuse/session.h"

/* Runs run(arg) in a new thread, with this thread's um_facts; in this one if no thread can be
 * started. */
void um_late(struct um_mount *m, void (*run)(void *arg), void *arg);
/* Waits until none is left and no read is in flight. */
void um_late_wait(struct um_mount *m);

#endif
