/* SPDX-License-Identifier: BSD-3-Clause */
/* Clones that make a file longer wait here, between the ioctl that asks for them and the fallocate
 * that they are carried out in (src/fuse/ioctl.h, UM_CLONE_ARMED). */
#ifndef UM_FUSE_ARMED_H
#define UM_FUSE_ARMED_H

#include "fuse/ioctl.h"
#include "fuse/session.h"

struct um_armed; /* the table */

struct um_armed_clone {
	uint64_t src; /* with a lookup reference */
	uint64_t dst, fh;
	uint32_t tid;
	uint64_t end; /* where the clone ends in dst, which it makes longer */
	struct um_ioc_clone want;
};

int um_armed_new(struct um_mount *m, struct um_armed **out);
/* No request is running any more. NULL is allowed. */
void um_armed_free(struct um_armed *armed);

/* Takes over the reference to the source, or fails: -EBUSY, -ENOMEM. */
int um_armed_keep(struct um_armed *armed, const struct um_armed_clone *clone);
/* The clone that this task armed on this handle, with this end, if there is one. The reference is
 * the caller's. */
bool um_armed_take(struct um_armed *armed, uint64_t dst, uint64_t fh, uint32_t tid, uint64_t end,
	struct um_armed_clone *out);
/* Drops what was armed on the handle, with that token unless NULL. */
void um_armed_drop(struct um_armed *armed, uint64_t dst, uint64_t fh, const uint8_t *token);
/* Drops those whose tasks have ended, so that they do not hold unlinked sources. */
void um_armed_sweep(struct um_armed *armed);

#endif
