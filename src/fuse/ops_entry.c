/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests that name directory entries, and forget. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/mount.h>

#include "fuse/seam.h"
#include "fuse/session.h"
#include "fuse/view.h"

struct um_caller um_caller_of(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct um_caller){
		.uid = ctx->uid, .gid = ctx->gid, .pid = ctx->pid, .umask = ctx->umask};
}

struct umbra_cred um_cred(const struct um_caller *caller)
{
	return (struct umbra_cred){.uid = caller->uid,
		.gid = caller->gid,
		.umask = caller->umask,
		.cap_fsetid = caller->uid == 0};
}

void um_fill_entry(const struct umbra_attr *attr, struct fuse_entry_param *out)
{
	*out = (struct fuse_entry_param){
		.ino = attr->st.st_ino,
		.generation = attr->generation,
		.attr = attr->st,
		.attr_timeout = UM_FOREVER_SEC,
		.entry_timeout = UM_FOREVER_SEC,
	};
}

int um_dir_changed(const struct um_mount *m, uint64_t dir)
{
	if (!atomic_load_explicit(&m->sync, memory_order_relaxed) && !umbra_wants_sync(m->fs, dir))
		return 0;
	return umbra_fsync(m->fs, dir, false);
}

/* Replies with an entry whose lookup reference the kernel takes over, if it accepts the reply. */
static void reply_entry(fuse_req_t req, const struct umbra_attr *attr)
{
	struct um_mount *m = um_of(req);
	struct fuse_entry_param entry;

	um_fill_entry(attr, &entry);
	if (fuse_reply_entry(req, &entry))
		umbra_forget(m->fs, attr->st.st_ino, 1);
}

/* The same after a change in parent. */
static void reply_new(fuse_req_t req, uint64_t parent, int err, const struct umbra_attr *attr)
{
	struct um_mount *m = um_of(req);

	if (!err) {
		err = um_dir_changed(m, parent);
		if (err)
			umbra_forget(m->fs, attr->st.st_ino, 1);
	}
	if (err)
		fuse_reply_err(req, -err);
	else
		reply_entry(req, attr);
}

/*
 * A lookup of "." through an NFS server's handle, for any inode, including files. The kernel asks
 * only if it does not know the inode, so one without links is held by nobody: its forget is still
 * in flight.
 */
static int lookup_self(struct um_mount *m, uint64_t ino, struct umbra_attr *out)
{
	int err = umbra_ref(m->fs, ino);

	if (err)
		return err;
	err = umbra_getattr(m->fs, ino, out);
	if (!err && out->st.st_nlink == 0)
		err = -ESTALE;
	if (err)
		umbra_forget(m->fs, ino, 1);
	return err;
}

void um_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	static const struct fuse_entry_param none = {.entry_timeout = UM_FOREVER_SEC};
	struct um_mount *m = um_of(req);
	struct umbra_attr attr;
	int err;

	if (strcmp(name, ".") == 0)
		err = lookup_self(m, parent, &attr);
	else
		err = umbra_lookup(m->fs, parent, name, &attr);
	if (err == -ENOENT)
		fuse_reply_entry(req, &none);
	else if (err)
		fuse_reply_err(req, -err);
	else
		reply_entry(req, &attr);
}

void um_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	struct um_mount *m = um_of(req);

	atomic_fetch_add(&m->forgetting, 1);
	umbra_forget(m->fs, ino, n);
	um_views_stir(m->views, false);
	atomic_fetch_sub(&m->forgetting, 1);
	fuse_reply_none(req);
}

void um_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct um_mount *m = um_of(req);

	atomic_fetch_add(&m->forgetting, 1);
	for (size_t i = 0; i < count; i++)
		umbra_forget(m->fs, forgets[i].ino, forgets[i].nlookup);
	um_views_stir(m->views, false);
	atomic_fetch_sub(&m->forgetting, 1);
	fuse_reply_none(req);
}

void um_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct um_caller caller = um_caller_of(req);
	struct umbra_cred cred = um_cred(&caller);
	struct umbra_attr attr;
	int err = umbra_mknod(um_of(req)->fs, parent, name, mode, rdev, &cred, &attr);

	reply_new(req, parent, err, &attr);
}

void um_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	um_op_mknod(req, parent, name, (mode & 07777) | S_IFDIR, 0);
}

void um_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct um_caller caller = um_caller_of(req);
	struct umbra_cred cred = um_cred(&caller);
	struct umbra_attr attr;
	int err = umbra_symlink(um_of(req)->fs, parent, name, target, &cred, &attr);

	reply_new(req, parent, err, &attr);
}

void um_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[UMBRA_SYMLINK_MAX + 1];
	int err = umbra_readlink(um_of(req)->fs, ino, target);

	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_readlink(req, target);
}

void um_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct umbra_attr attr;
	int err = umbra_link(um_of(req)->fs, ino, parent, name, &attr);

	reply_new(req, parent, err, &attr);
}

static void reply_removed(fuse_req_t req, uint64_t dir, int err)
{
	if (!err)
		err = um_dir_changed(um_of(req), dir);
	fuse_reply_err(req, -err);
}

void um_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	um_views_stir(um_of(req)->views, true);
	reply_removed(req, parent, umbra_unlink(um_of(req)->fs, parent, name));
}

void um_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_removed(req, parent, umbra_rmdir(um_of(req)->fs, parent, name));
}

void um_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	const char *newname, unsigned flags)
{
	struct um_mount *m = um_of(req);
	struct um_caller caller = um_caller_of(req);
	struct umbra_cred cred = um_cred(&caller);
	int err;

	if (flags & RENAME_WHITEOUT)
		err = umbra_rename_whiteout(m->fs, parent, name, newparent, newname,
			flags & ~(unsigned)RENAME_WHITEOUT, &cred);
	else
		err = umbra_rename(m->fs, parent, name, newparent, newname, flags);
	um_views_stir(m->views, true);
	if (!err && newparent != parent)
		err = um_dir_changed(m, newparent);
	reply_removed(req, parent, err);
}

/* ---- files that are opened as they are made ------------------------------------------------------- */

void um_op_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct um_mount *m = um_of(req);
	struct um_caller caller = um_caller_of(req);
	struct umbra_cred cred = um_cred(&caller);
	struct fuse_entry_param entry;
	struct umbra_attr attr;
	struct um_grant grant;
	int err = umbra_mknod(m->fs, parent, name, (mode & 07777) | S_IFREG, 0, &cred, &attr);

	if (!err) {
		err = um_dir_changed(m, parent);
		if (!err)
			err = umbra_file_open(m->fs, attr.st.st_ino, fi->flags & ~O_TRUNC, false);
		if (err)
			umbra_forget(m->fs, attr.st.st_ino, 1);
	}
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	um_fill_entry(&attr, &entry);
	um_views_enter(m->views, attr.st.st_ino, O_RDWR, um_facts.tid, true, &grant);
	um_open_answer(m, attr.st.st_ino, fi, &grant);
	if (fuse_reply_create(req, &entry, fi)) {
		um_views_leave(m->views, attr.st.st_ino, grant.seq);
		umbra_file_release(m->fs, attr.st.st_ino, fi->flags);
		umbra_forget(m->fs, attr.st.st_ino, 1);
	}
}

int um_tmpfile(struct um_mount *m, uint64_t parent, mode_t mode, int flags,
	const struct um_caller *caller, struct umbra_attr *out, uint64_t *out_fh)
{
	struct umbra_cred cred = um_cred(caller);
	int err = umbra_tmpfile(m->fs, parent, (mode & 07777) | S_IFREG, &cred, out);

	if (err)
		return err;
	*out_fh = (uint64_t)flags & UM_FH_FLAGS;
	err = umbra_file_open(m->fs, out->st.st_ino, flags & ~O_TRUNC, false);
	if (err)
		umbra_forget(m->fs, out->st.st_ino, 1);
	return err;
}
