/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests that read directories. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/proto.h"
#include "fuse/session.h"
#include "fuse/worker.h"

/* A reply being filled. */
struct listing {
	fuse_req_t req;
	struct um_mount *m;
	char *buf;
	size_t size, used;
	bool plus;
	bool full; /* an entry did not fit */
};

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static int add_plain(struct listing *l, const char *name, const struct stat *st, uint64_t cookie)
{
	size_t left = l->size - l->used;
	size_t need = fuse_add_direntry(l->req, l->buf + l->used, left, name, st, (off_t)cookie);

	if (need > left)
		return 1;
	l->used += need;
	return 0;
}

/*
 * Adds an entry with attributes, and with a lookup reference that the kernel takes over. Without
 * either (node 0) for "." and "..", and for an inode that cannot be read, whose name is still
 * listed. The kernel holds the directory's lock while it is listed, so the name still belongs to
 * the inode when the kernel processes the entry.
 */
static int add_plus(struct listing *l, const char *name, const struct stat *st, uint64_t cookie)
{
	struct fuse_entry_param entry = {.attr = *st};
	size_t left = l->size - l->used;
	struct umbra_attr attr;

	if (fuse_add_direntry_plus(l->req, NULL, 0, name, &entry, (off_t)cookie) > left)
		return 1;
	if (!is_dots(name) && umbra_ref(l->m->fs, st->st_ino) == 0) {
		if (umbra_getattr(l->m->fs, st->st_ino, &attr) == 0)
			um_fill_entry(&attr, &entry);
		else
			umbra_forget(l->m->fs, st->st_ino, 1);
	}
	l->used +=
		fuse_add_direntry_plus(l->req, l->buf + l->used, left, name, &entry, (off_t)cookie);
	return 0;
}

static int add(void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	struct listing *l = arg;
	struct stat st = {.st_ino = ino, .st_mode = (mode_t)DTTOIF(type)};
	int full = l->plus ? add_plus(l, name, &st, cookie) : add_plain(l, name, &st, cookie);

	l->full = full;
	return full;
}

/* The kernel did not take the reply, so it has none of the references either. */
static void take_back(const struct listing *l)
{
	const struct fuse_direntplus *d;

	for (size_t at = 0; l->plus && at < l->used; at += FUSE_DIRENTPLUS_SIZE(d)) {
		d = (const void *)(l->buf + at);
		if (d->entry_out.nodeid)
			umbra_forget(l->m->fs, d->entry_out.nodeid, 1);
	}
}

static void list(fuse_req_t req, uint64_t dir, size_t size, off_t off, bool plus)
{
	struct listing l = {
		.req = req, .m = um_of(req), .size = size, .plus = plus, .buf = malloc(size)};
	int err;

	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	err = umbra_readdir(l.m->fs, dir, (uint64_t)off, add, &l);
	/* What was listed before an error is returned; the error occurs again in the next
	 * request. */
	if (err < 0 && !l.used)
		fuse_reply_err(req, -err);
	else if (!l.used && l.full)
		fuse_reply_err(req, EINVAL);
	else if (fuse_reply_buf(req, l.buf, l.used))
		take_back(&l);
	free(l.buf);
}

void um_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->fh = (uint64_t)fi->flags & UM_FH_FLAGS;
	fuse_reply_open(req, fi);
}

void um_op_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

void um_op_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

void um_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)fi;
	um_reply_synced(req, ino, 0, datasync, um_worker_may_wait(um_of(req)), -1);
}
