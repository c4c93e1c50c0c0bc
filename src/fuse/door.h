/* SPDX-License-Identifier: BSD-3-Clause */
/* The door for clones: tokens that prove a caller's right to read a source, and the threads that do
 * what a request must not do itself, namely make the kernel drop file pages. */
#ifndef UM_FUSE_DOOR_H
#define UM_FUSE_DOOR_H

#include "fuse/ioctl.h"
#include "fuse/session.h"

int um_door_open(struct um_mount *m, struct um_door **out);
/* Ends what is in progress, and answers what still waits, and what comes later, with -EIO. Its
 * threads wait for pages that workers supply: workers must exist until this returns. */
void um_door_stop(struct um_door *door);
/* No worker is left. NULL is allowed. */
void um_door_close(struct um_door *door);

/* Makes a token for ino's content, valid once, for 60 s. */
int um_door_token(struct um_door *door, uint64_t ino, struct um_ioc_token *out);
/* Drops tokens that were not redeemed in time, and armed clones that nobody can fire any more. */
void um_door_sweep(struct um_door *door);
/* Redeems a token. The inode it named comes with a lookup reference. -EACCES: not, or no longer,
 * valid. */
int um_door_redeem(struct um_door *door, const uint8_t token[16], uint64_t *out_ino);
/* Clones between inodes in a thread of the door, which answers req; what would make dst longer is
 * armed on its handle fh instead. Takes over the caller's lookup reference to src. */
void um_door_clone(struct um_door *door, fuse_req_t req, uint64_t src, uint64_t dst, uint64_t fh,
	const struct um_ioc_clone *want);
/* req is a fallocate of mode 0. If it is the one for which a clone was armed, that is made, and req
 * answered with its result. */
bool um_door_fire(struct um_door *door, fuse_req_t req, uint64_t dst, uint64_t fh, uint64_t off,
	uint64_t len);
/* Gives up what was armed on a handle; with that token, unless NULL. */
void um_door_drop(struct um_door *door, uint64_t dst, uint64_t fh, const uint8_t *token);
/* Clones the contents of a directory (tree.c) in the same way; takes over `want`, which is
 * malloc'ed. */
void um_door_tree(struct um_door *door, fuse_req_t req, uint64_t dst, struct um_ioc_tree *want);
/* Runs fn in a thread of the door, for work that makes the kernel send or drop pages. err: only
 * reply with it; then this may be the caller's thread. */
void um_door_run(struct um_door *door, void (*fn)(void *arg, int err), void *arg);
/* The kernel reports that nobody waits for request `unique` any more: a clone that it started ends
 * early. */
void um_door_interrupt(struct um_door *door, uint64_t unique);
/* Has it recently reported this for a request that is not a clone? */
bool um_door_interrupted(struct um_door *door, uint64_t unique);

#endif
