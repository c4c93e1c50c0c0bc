/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seam between the kernel's FUSE interface and libfuse: everything that the oldest libfuse we
 * build on (3.14) does not know is added here and nowhere else. A request passes um_seam_request()
 * before libfuse sees it, a reply um_seam_io's writev before the kernel does.
 */
#ifndef UM_FUSE_SEAM_H
#define UM_FUSE_SEAM_H

#include "fuse/session.h"

/* Facts about the present request of this thread that libfuse does not pass on. */
struct um_facts {
	uint64_t unique;
	uint32_t opcode;
	uint32_t tid;        /* of the caller; 0: in a foreign pid namespace */
	bool kill_setid;     /* WRITE, OPEN: the kernel requests that set-id bits be dropped */
	uint32_t open_flags; /* OPEN, CREATE: FOPEN_* bits for the reply that libfuse lacks */
	int32_t backing;     /* OPEN: id of the file that the open is passed through to, or 0 */
};
extern _Thread_local struct um_facts um_facts;

/* Examines a raw request. True: it was carried out and answered, or needs no reply; else libfuse
 * processes it. */
bool um_seam_request(struct um_mount *m, void *buf, size_t len);

/* Reads and writes /dev/fuse for libfuse; given to fuse_session_custom_io(). */
extern const struct fuse_custom_io um_seam_io;

#endif
