/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests about attributes and the filesystem, and notifications that the kernel's copies are
 * outdated. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse/door.h"
#include "fuse/late.h"
#include "fuse/message.h"
#include "fuse/session.h"
#include "fuse/view.h"

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
/* FATTR_KILL_SUIDGID: libfuse has another name for the bit, and passes it on. */
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

/* The size of a bound file is that of its view. */
static int set_size(struct um_mount *m, uint64_t ino, const struct umbra_attr *attr, unsigned mask,
	bool wait, struct umbra_attr *out)
{
	int fd, err = um_views_change_begin(m->views, ino, wait, &fd);

	if (err)
		return err;
	if (fd >= 0) {
		err = ftruncate(fd, attr->st.st_size) ? -errno : 0;
		mask &= ~UMBRA_SET_SIZE;
	}
	if (!err && mask)
		err = umbra_setattr(m->fs, ino, attr, mask, out);
	else if (!err)
		err = umbra_getattr(m->fs, ino, out);
	um_views_change_end(m->views, ino, fd);
	if (!err)
		err = um_changed(m, ino, 0);
	/* It has another size all the same. */
	if (err)
		um_inval_attr(m, ino);
	return err;
}

/* A change of size that waits for a release. */
struct late_size {
	fuse_req_t req;
	uint64_t ino;
	unsigned mask;
	struct umbra_attr attr;
};

static void reply_attr(fuse_req_t req, int err, const struct umbra_attr *attr)
{
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_attr(req, &attr->st, UM_FOREVER_SEC);
}

static void late_size(void *arg)
{
	struct late_size *late = arg;
	struct umbra_attr out;
	int err = set_size(um_of(late->req), late->ino, &late->attr, late->mask, true, &out);

	reply_attr(late->req, err, &out);
	free(late);
}

/* ---- set-id bits ---------------------------------------------------------------------------------- */

/* Is the group among those of the caller's task? */
static bool has_group(const struct um_caller *caller, gid_t gid)
{
	char path[32], *line = NULL, *at, *end;
	bool found = caller->gid == gid;
	size_t room = 0;
	FILE *f;

	if (found)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)caller->pid);
	f = fopen(path, "re");
	while (f && !found && getline(&line, &room, f) > 0) {
		if (strncmp(line, "Groups:", 7) != 0)
			continue;
		for (at = line + 7; !found; at = end) {
			unsigned long group = strtoul(at, &end, 10);

			if (end == at)
				break;
			found = group == gid;
		}
		break;
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

/* Without the group's execute bit set-gid is kept for members of the group only, as in
 * setattr_should_drop_sgid() in the kernel. The engine's KILLPRIV keeps it. */
static bool drops_foreign(const struct stat *st, const struct um_caller *caller)
{
	return S_ISREG(st->st_mode) && (st->st_mode & (S_ISGID | S_IXGRP)) == S_ISGID &&
	       !has_group(caller, st->st_gid);
}

/* Do changes of content by an unprivileged caller, and chown(2), drop such bits of the file? */
static bool drops_setid(const struct stat *st, const struct um_caller *caller)
{
	mode_t mode = st->st_mode;

	return (S_ISREG(mode) &&
		       ((mode & S_ISUID) || (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))) ||
	       drops_foreign(st, caller);
}

bool um_drops_setid(const struct um_mount *m, uint64_t ino, const struct um_caller *caller)
{
	struct umbra_attr attr;

	return !umbra_getattr(m->fs, ino, &attr) && drops_setid(&attr.st, caller);
}

/* The set-id bits that the engine would keep and that this caller has to drop fall in the same
 * change. */
static void add_foreign(const struct um_mount *m, uint64_t ino, const struct um_caller *caller,
	struct umbra_attr *in, unsigned *mask)
{
	struct umbra_attr attr;

	if (!(*mask & UMBRA_SET_KILLPRIV) || *mask & UMBRA_SET_MODE || caller->uid == 0 ||
		umbra_getattr(m->fs, ino, &attr) || !drops_foreign(&attr.st, caller))
		return;
	in->st.st_mode = attr.st.st_mode & ~(mode_t)(S_ISUID | S_ISGID);
	*mask |= UMBRA_SET_MODE;
}

int um_killpriv(const struct um_mount *m, uint64_t ino, const struct um_caller *caller)
{
	unsigned mask = UMBRA_SET_KILLPRIV;
	struct umbra_attr in = {0}, out;
	int err;

	if (caller->uid == 0 || !um_drops_setid(m, ino, caller))
		return 0;
	add_foreign(m, ino, caller, &in, &mask);
	err = umbra_setattr(m->fs, ino, &in, mask, &out);
	um_inval_attr(m, ino);
	return err;
}

void um_setid_dropped(const struct um_mount *m, uint64_t ino, const struct um_caller *caller)
{
	(void)um_killpriv(m, ino, caller);
	um_inval_attr(m, ino);
}

/*
 * Nothing is to be set. That is what arrives of chown(path, -1, -1), which drops set-id bits like any
 * chown but without a check of the caller by the kernel; and of a write that has to drop them and that
 * passes through a view. Who has a file open for writing could drop them anyway: so everybody may
 * while somebody has, else only those who may change the owner.
 */
static int may_kill_only(
	const struct um_mount *m, uint64_t ino, const struct um_caller *caller, unsigned *mask)
{
	struct umbra_attr attr;
	int err = umbra_getattr(m->fs, ino, &attr);

	if (err)
		return err;
	if (caller->uid == 0 || caller->uid == attr.st.st_uid || umbra_file_writers(m->fs, ino)) {
		*mask |= UMBRA_SET_KILLPRIV;
		return 0;
	}
	return drops_setid(&attr.st, caller) ? -EPERM : 0;
}

void um_op_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct umbra_attr in = {.st = *st}, out;
	unsigned mask = (unsigned)to_set & SAME_BITS;
	struct um_caller caller = um_caller_of(req);
	struct um_mount *m = um_of(req);
	struct late_size *late;
	int err = 0;

	if (to_set & FUSE_SET_ATTR_CTIME)
		mask |= UMBRA_SET_CTIME;
	/* With writeback the kernel always sends the change time. It sends mtime and ctime of an
	 * open file alone for writes that it has carried out. */
	if (m->writeback && fi && mask == (UMBRA_SET_MTIME | UMBRA_SET_CTIME))
		mask |= UMBRA_SET_OWED;
	if (to_set & KILL_SETID)
		mask |= UMBRA_SET_KILLPRIV;
	else if (!(mask & ~UMBRA_SET_CTIME))
		err = may_kill_only(m, ino, &caller, &mask);
	add_foreign(m, ino, &caller, &in, &mask);
	if (!err && mask & UMBRA_SET_SIZE)
		err = set_size(m, ino, &in, mask, false, &out);
	else if (!err)
		err = umbra_setattr(m->fs, ino, &in, mask, &out);
	if (err == -EAGAIN && (late = malloc(sizeof(*late)))) {
		*late = (struct late_size){req, ino, mask, in};
		um_late(m, late_size, late);
		return;
	}
	reply_attr(req, err, &out);
}

/* What was removed before this request must count as free: another worker may still be processing
 * the forget that frees it. */
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
	um_views_sweep(m->views);
	um_door_sweep(m->door);
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

	/* -ENOENT: the kernel has no such inode, so nothing outdated either. */
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
	um_inval_range(&off, &len);
	inval(m, ino, (int64_t)off, (int64_t)len);
	umbra_cache_dropped(m->fs, ino, off, len);
}
