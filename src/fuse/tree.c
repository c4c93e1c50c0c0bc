/* SPDX-License-Identifier: BSD-3-Clause */
/* Clones the entries of a directory, many per request. The kernel takes no part in it: no inode of
 * either side enters its memory. At most it has negative dentries for the new names. */
#include "fuse/tree.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "fuse/message.h"
#include "fuse/view.h"

#define BATCH 256u /* entries per request: some 10 ms, so that the caller can be interrupted */

struct batch {
	struct um_mount *m;
	uint64_t dst;
	struct um_ioc_tree *io;
	int err;
	bool full;
};

/* Leaves the name to the caller; false: there is no room for it. */
static bool leave(struct um_ioc_tree *io, const char *name)
{
	size_t n = strlen(name) + 1;

	if (n > sizeof(io->names) - io->len)
		return false;
	memcpy(io->names + io->len, name, n);
	io->len += (uint32_t)n;
	io->count++;
	return true;
}

/* The kernel may cache a negative dentry for this name without a time limit. */
static void name_exists(const struct um_mount *m, uint64_t dir, const char *name)
{
	int err = fuse_lowlevel_notify_inval_entry(m->se, dir, name, strlen(name));

	if (err && err != -ENOENT && !fuse_session_exited(m->se))
		um_message(UMBRA_LOG_WARN, "a name in directory %llu could not be invalidated: %s",
			(unsigned long long)dir, strerror(-err));
}

/* 1: left to the caller. */
static int clone_one(const struct batch *b, const char *name, uint64_t ino, struct umbra_attr *attr)
{
	int err = umbra_getattr(b->m->fs, ino, attr);

	if (err)
		return err == -ESTALE ? 1 : err;
	if (S_ISDIR(attr->st.st_mode) || attr->st.st_nlink != 1)
		return 1;
	if (S_ISREG(attr->st.st_mode)) {
		/* Stores through a mapping may be in the kernel only, until its file is closed. */
		if (umbra_file_writers(b->m->fs, ino))
			return 1;
		um_views_flush(b->m->views, ino);
	}
	err = umbra_clone_at(b->m->fs, ino, b->dst, name);
	return err == -ESTALE || err == -EOPNOTSUPP || err == -EMLINK ? 1 : err;
}

static int entry(void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	struct batch *b = arg;
	struct um_ioc_tree *io = b->io;
	struct umbra_attr attr;
	int ret = 1;

	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	b->full = io->entries == BATCH;
	if (!b->full && type != DT_DIR)
		ret = clone_one(b, name, ino, &attr);
	if (ret < 0) {
		b->err = ret;
		return 1;
	}
	if (!b->full && ret)
		b->full = !leave(io, name);
	if (b->full)
		return 1;
	io->cookie = cookie;
	if (ret)
		return 0;
	name_exists(b->m, b->dst, name);
	io->entries++;
	if (S_ISREG(attr.st.st_mode)) {
		io->files++;
		io->bytes += (uint64_t)attr.st.st_size;
	}
	return 0;
}

static int entries(struct um_mount *m, uint64_t dst, struct um_ioc_tree *io)
{
	struct batch b = {.m = m, .dst = dst, .io = io};
	int err;

	io->bytes = 0;
	io->entries = io->files = io->count = io->len = 0;
	memset(io->names, 0, sizeof(io->names));
	err = umbra_readdir(m->fs, io->src, io->cookie, entry, &b);
	if (err < 0)
		b.err = err;
	io->end = !b.full;
	um_inval_attr(m, io->src); /* its access time */
	return b.err;
}

int um_tree_run(struct um_mount *m, uint64_t dst, struct um_ioc_tree *io)
{
	int err, sync;

	if (io->op == UM_TREE_ENTRIES)
		err = entries(m, dst, io);
	else if (io->op == UM_TREE_META)
		err = umbra_clone_dir_meta(m->fs, io->src, dst);
	else
		return -EINVAL;
	um_inval_attr(m, dst);
	sync = um_dir_changed(m, dst);
	return err ? err : sync;
}
