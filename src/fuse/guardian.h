/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guardian: a second, small process that aborts the server's two FUSE connections when the
 * server dies.
 *
 * A thread of the server may wait in the kernel for a page of the hidden mount, which other threads
 * of the server were to supply. After kill -9 nobody supplies it: the thread cannot die, /dev/fuse
 * stays open, and every user of the mount hangs. Aborting the connections from outside releases all
 * of them.
 */
#ifndef UM_FUSE_GUARDIAN_H
#define UM_FUSE_GUARDIAN_H

#include "fuse/session.h"

#define UM_GUARDIAN_NAME "umbrafs-guard"

struct um_guardian;

/* hidden_minor 0: there is no hidden mount. */
int um_guardian_start(struct um_mount *m, unsigned hidden_minor, struct um_guardian **out);
/* Does it still exist? Somebody may have killed it. */
bool um_guardian_there(struct um_guardian *g);
/* The server shuts down cleanly: so does the guardian. NULL is allowed. */
void um_guardian_stop(struct um_guardian *g);
/* The guardian's main(), for a program that was started under UM_GUARDIAN_NAME. */
int um_guardian_main(int argc, char **argv);

#endif
