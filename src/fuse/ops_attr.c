/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests about attributes and the filesystem, and what tells the kernel that its copies are old. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fuse/message.h"
#include "fuse/session.h"

static_assert(FUSE_SET_ATTR_MODE == UMBRA_SET_MODE && FUSE_SET_ATTR_UID == UMBRA_SET_UID &&
		      FUSE_SET_ATTR_GID == UMBRA_SET_GID && FUSE_SET_ATTR_SIZE == UMBRA_SET_SIZE &&
		      FUSE_SET_ATTR_ATIME == UMBRA_SET_ATIME &&
		      FUSE_SET_ATTR_MTIME == UMBRA_SET_MTIME &&
		      FUSE_SET_ATTR_ATIME_NOW == UMBRA_SET_ATIME_NOW &&
		      FUSE_SET_ATTR_MTIME_NOW == UMBRA_SET_MTIME_NOW,
	"the two sets of bits agree where they are taken over as they are");
#define SAME_BITS                                                                                  \
	(UMBRA_SET_MODE | UMBRA_SET_UID | UMBRA_SET_GID | UMBRA_SET_SIZE | UMBRA_SET_ATIME |       \
		UMBRA_SET_MTIME | UMBRA_SET_ATIME_NOW | UMBRA_SET_MTIME_NOW)
/* FATTR_KILL_SUIDGID: libfuse has another name for the bit, and hands it on. */
#define KILL_SETID FUSE_SET_ATTR_KILL_SUID

void um_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct umbra_attr attr;
	int err = umbra_getattr(um_of(req)->fs, ino, &attr);

	(void)fi;
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_attr(req, &attr.st, UM_FOREVER_SEC);
}

void um_op_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct umbra_attr in = {.st = *st}, out;
	unsigned mask = (unsigned)to_set & SAME_BITS;
	int err;

	(void)fi;
	if (to_set & FUSE_SET_ATTR_CTIME)
		mask |= UMBRA_SET_CTIME;
	/* chown(path, -1, -1) comes with nothing to set, and drops set-id bits like any chown. */
	if (to_set & KILL_SETID || !mask)
		mask |= UMBRA_SET_KILLPRIV;
	err = umbra_setattr(um_of(req)->fs, ino, &in, mask, &out);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_attr(req, &out.st, UM_FOREVER_SEC);
}

/*
 * What was removed before this request is to count as free: another worker may still be at the
 * forget that frees it.
 */
static void await_forgets(const struct um_mount *m)
{
	static const struct timespec step = {.tv_nsec = 200000};

	for (int i = 0; i < 500 && atomic_load(&m->forgetting); i++)
		nanosleep(&step, NULL);
}

void um_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct um_mount *m = um_of(req);
	struct statvfs out;
	int err;

	(void)ino;
	await_forgets(m);
	err = umbra_statfs(m->fs, &out);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_statfs(req, &out);
}

/* ---- the kernel's copies -------------------------------------------------------------------------- */

static void inval(const struct um_mount *m, uint64_t ino, int64_t off, int64_t len)
{
	int err = fuse_lowlevel_notify_inval_inode(m->se, ino, off, len);

	/* -ENOENT: the kernel has no such inode, so nothing old either. */
	if (err && err != -ENOENT && !fuse_session_exited(m->se))
		um_message(UMBRA_LOG_WARN, "inode %llu could not be invalidated: %s",
			(unsigned long long)ino, strerror(-err));
}

void um_inval_attr(const struct um_mount *m, uint64_t ino)
{
	inval(m, ino, -1, 0);
}

void um_inval_data(const struct um_mount *m, uint64_t ino, uint64_t off, uint64_t len)
{
	if (off > INT64_MAX)
		off = INT64_MAX;
	if (len > INT64_MAX - off)
		len = 0;
	inval(m, ino, (int64_t)off, (int64_t)len);
}

bool um_has_setid(const struct um_mount *m, uint64_t ino)
{
	struct umbra_attr attr;
	mode_t mode;

	if (umbra_getattr(m->fs, ino, &attr))
		return false;
	mode = attr.st.st_mode;
	return S_ISREG(mode) &&
	       ((mode & S_ISUID) || (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP));
}

int um_killpriv(const struct um_mount *m, uint64_t ino, uid_t uid)
{
	struct umbra_attr in = {0}, out;
	int err;

	if (uid == 0 || !um_has_setid(m, ino))
		return 0;
	err = umbra_setattr(m->fs, ino, &in, UMBRA_SET_KILLPRIV, &out);
	um_inval_attr(m, ino);
	return err;
}
