/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guardian: a second, small process that ends the server's two FUSE connections when the server dies.
 *
 * A thread of the server may wait in the kernel for a page of the hidden mount, which other threads of the
 * server were to bring. After kill -9 nobody brings it: the thread cannot die, /dev/fuse stays open, and
 * every user of the mount hangs. Ending the connections from outside frees them all.
 */
#ifndef UM_FUSE_GUARDIAN_H
#define UM_FUSE_GUARDIAN_H

#include "fuse/session.h"

#define UM_GUARDIAN_NAME "umbrafs-guard"

struct um_guardian;

/* hidden_minor 0: there is no hidden mount. */
int um_guardian_start(struct um_mount *m, unsigned hidden_minor, struct um_guardian **out);
/* Is it there still? Somebody may have killed it. */
bool um_guardian_there(struct um_guardian *g);
/* The server ends in order: so does the guardian. NULL is nothing. */
void um_guardian_stop(struct um_guardian *g);
/* The guardian's own main(), for a program that was started under UM_GUARDIAN_NAME. */
int um_guardian_main(int argc, char **argv);

#endif
