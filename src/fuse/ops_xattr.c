/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests about extended attributes, except setting one, which is in seam.c since libfuse loses a
 * flag of it. */
#include <errno.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/session.h"

static void reply_bytes(fuse_req_t req, size_t asked, const char *buf, ssize_t n)
{
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else if (asked == 0)
		fuse_reply_xattr(req, (size_t)n);
	else if ((size_t)n > asked)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

void um_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	size_t room = size > XATTR_SIZE_MAX ? XATTR_SIZE_MAX : size;
	char *buf = room ? malloc(room) : NULL;

	if (room && !buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reply_bytes(req, size, buf, umbra_getxattr(um_of(req)->fs, ino, name, buf, room));
	free(buf);
}

/* Removes names in the trusted namespace, which only root sees. In place; returns the new
 * length. */
static size_t hide_trusted(char *list, size_t len)
{
	size_t kept = 0;

	for (size_t at = 0; at < len;) {
		size_t n = strnlen(list + at, len - at) + 1;

		if (n > len - at)
			break;
		if (strncmp(list + at, "trusted.", 8) != 0) {
			memmove(list + kept, list + at, n);
			kept += n;
		}
		at += n;
	}
	return kept;
}

void um_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *buf = malloc(XATTR_LIST_MAX);
	ssize_t n;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	n = umbra_listxattr(um_of(req)->fs, ino, buf, XATTR_LIST_MAX);
	if (n == -ERANGE)
		n = -E2BIG; /* listxattr(2): more than a list can hold */
	if (n > 0 && fuse_req_ctx(req)->uid != 0)
		n = (ssize_t)hide_trusted(buf, (size_t)n);
	reply_bytes(req, size, buf, n);
	free(buf);
}

void um_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	fuse_reply_err(req, -umbra_removexattr(um_of(req)->fs, ino, name));
}
