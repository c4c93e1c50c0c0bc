/* SPDX-License-Identifier: BSD-3-Clause */
/* Queries about shared blocks. Each call does a bounded part and returns where to continue. */
#include "fuse/ask.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fuse/ioctl.h"
#include "umbra/umbra.h"

#define FILE_STEP (4ull << 30) /* bytes of a file examined per call */
#define INODES_STEP 4096u
#define DIRS_STEP 256u
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- shadows -------------------------------------------------------------------------------------- */

struct shadows {
	struct um_ioc_shadows *out;
	uint64_t skip;
};

static int shadow_one(void *arg, const struct umbra_shadow *s)
{
	struct shadows *list = arg;
	struct um_ioc_shadows *out = list->out;

	if (list->skip) {
		list->skip--;
		return 0;
	}
	if (out->count == COUNT(out->shadow)) {
		out->next = s->off;
		return 1;
	}
	out->shadow[out->count++] = (struct um_ioc_shadow){
		.ino = s->ino,
		.off = s->off,
		.lba = s->lba,
		.len = s->len,
		.sharers = s->sharers,
	};
	return 0;
}

static int ask_shadows(struct umbra_fs *fs, uint64_t ino, bool root, struct um_ioc_shadows *io)
{
	struct shadows list = {.out = io};
	int err;

	io->count = 0;
	if (io->by_lba && !root)
		return -EPERM;
	if (io->by_lba) {
		list.skip = io->len;
		err = umbra_lba_shadows(fs, io->at, shadow_one, &list);
		return err < 0 ? err : 0;
	}
	if (io->len > FILE_STEP)
		io->len = FILE_STEP;
	if (io->at > INT64_MAX || io->len > INT64_MAX - io->at)
		return -EINVAL;
	io->next = io->at + io->len;
	err = umbra_shadows(fs, ino, io->at, io->len, shadow_one, &list);
	return err < 0 ? err : 0;
}

/* ---- owners --------------------------------------------------------------------------------------- */

static int owner_one(void *arg, uint64_t ino, uint64_t off, bool cached)
{
	struct um_ioc_lba_owners *out = arg;

	if (out->count == COUNT(out->owner))
		return 1;
	out->owner[out->count++] =
		(struct um_ioc_lba_owner){.ino = ino, .off = off, .cached = cached};
	return 0;
}

static int ask_owners(struct umbra_fs *fs, struct um_ioc_lba_owners *io)
{
	struct umbra_owner_scan scan = {
		.lba = io->lba,
		.ino = io->ino,
		.key = io->key,
		.seq = io->seq,
		.inodes = io->inodes,
		.damaged = io->damaged,
		.changed = io->changed,
	};
	int err;

	io->count = 0;
	err = umbra_lba_owners(fs, &scan, INODES_STEP, owner_one, io);
	io->ino = scan.ino;
	io->key = scan.key;
	io->seq = scan.seq;
	io->inodes = scan.inodes;
	io->damaged = scan.damaged;
	io->refs = scan.refs;
	io->done = scan.done;
	io->changed = scan.changed;
	return err;
}

/* ---- paths ---------------------------------------------------------------------------------------- */

struct paths {
	struct umbra_fs *fs;
	struct um_ioc_paths *out;
	uint64_t dir; /* whose path `prefix` is */
	char prefix[PATH_MAX];
};

static int path_one(void *arg, uint64_t ino, uint64_t dir, const char *name)
{
	struct paths *p = arg;
	struct um_ioc_paths *out = p->out;
	size_t room = sizeof(out->text) - out->len;
	int n;

	if (dir != p->dir) {
		/* Longer than any path may be, or moved just now: what is known is shown. */
		if (umbra_dir_path(p->fs, dir, p->prefix, sizeof(p->prefix)))
			snprintf(p->prefix, sizeof(p->prefix), "...");
		p->dir = dir;
	}
	if (room <= sizeof(ino))
		return 1;
	n = snprintf(out->text + out->len + sizeof(ino), room - sizeof(ino), "%s%s%s",
		strcmp(p->prefix, "/") ? p->prefix : "", "/", name);
	if (n < 0 || (size_t)n >= room - sizeof(ino))
		return 1;
	memcpy(out->text + out->len, &ino, sizeof(ino));
	out->len += (uint32_t)(sizeof(ino) + (size_t)n + 1);
	return 0;
}

static int ask_paths(struct umbra_fs *fs, struct um_ioc_paths *io)
{
	struct umbra_name_scan scan = {.dir = io->dir, .cookie = io->cookie};
	struct paths p = {.fs = fs, .out = io};
	int err;

	if (io->nino > COUNT(io->ino))
		return -EINVAL;
	for (unsigned i = 1; i < io->nino; i++)
		if (io->ino[i] <= io->ino[i - 1])
			return -EINVAL;
	io->len = 0;
	memset(io->text, 0, sizeof(io->text));
	err = umbra_find_names(
		fs, (const uint64_t *)io->ino, io->nino, &scan, DIRS_STEP, path_one, &p);
	io->dir = scan.dir;
	io->cookie = scan.cookie;
	io->done = scan.done;
	return err;
}

int um_ask(struct umbra_fs *fs, uint64_t ino, unsigned cmd, bool root, void *arg)
{
	switch (cmd) {
	case UM_IOC_SHADOWS:
		return ask_shadows(fs, ino, root, arg);
	case UM_IOC_LBA_OWNERS:
		return root ? ask_owners(fs, arg) : -EPERM;
	case UM_IOC_PATHS:
		return root ? ask_paths(fs, arg) : -EPERM;
	default:
		return -ENOTTY;
	}
}
