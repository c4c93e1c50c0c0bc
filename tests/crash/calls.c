/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls of the engine, by path, as the operations are made of. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "crash.h"

static const struct umbra_cred cred = {.umask = 022};

static int find(struct world *w, const char *path, uint64_t *out)
{
	struct umbra_attr attr;
	char name[256];
	uint64_t ino = UM_ROOT_INO;
	int ret;

	while (*path) {
		size_t len = strcspn(path, "/");

		snprintf(name, sizeof(name), "%.*s", (int)len, path);
		ret = umbra_lookup(w->fs, ino, name, &attr);
		if (ret)
			return ret;
		ino = attr.st.st_ino;
		umbra_forget(w->fs, ino, 1);
		path += len + (path[len] == '/');
	}
	*out = ino;
	return 0;
}

/* The directory that a path leads to, and the name in it. */
static int split(struct world *w, const char *path, uint64_t *out_dir, const char **out_name)
{
	const char *slash = strrchr(path, '/');
	char dir[256];

	*out_name = slash ? slash + 1 : path;
	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 0, path);
	return find(w, dir, out_dir);
}

static int write_pattern(struct world *w, uint64_t ino, const struct call *c, unsigned flags)
{
	uint8_t *buf = xalloc(c->len);
	uint64_t off;
	ssize_t done;

	/* `to` names content that two calls have in common, for dedupe. */
	pattern(buf, c->len, c->to ? c->to : mix64(++w->writes));
	done = umbra_write(w->fs, ino, buf, c->len, c->off, flags, &off);
	free(buf);
	w->mix.ino = ino;
	return done < 0 ? (int)done : 0;
}

/* ---- names ------------------------------------------------------------------------------------------- */

static int call_make(struct world *w, const struct call *c)
{
	struct umbra_attr attr;
	uint64_t dir;
	const char *name;
	char target[600];
	int ret = split(w, c->a, &dir, &name);

	if (ret)
		return ret;
	if (c->kind == CALL_MKNOD) {
		ret = umbra_mknod(w->fs, dir, name, c->flags, makedev(3, 7), &cred, &attr);
	} else {
		memset(target, 't', sizeof(target));
		target[c->len] = 0;
		ret = umbra_symlink(w->fs, dir, name, target, &cred, &attr);
	}
	if (!ret)
		umbra_forget(w->fs, attr.st.st_ino, 1);
	return ret;
}

static int call_link(struct world *w, const struct call *c)
{
	struct umbra_attr attr;
	uint64_t dir, ino = w->open;
	const char *name;
	int ret = split(w, c->b, &dir, &name);

	if (!ret && c->kind == CALL_LINK)
		ret = find(w, c->a, &ino);
	if (!ret)
		ret = umbra_link(w->fs, ino, dir, name, &attr);
	if (!ret)
		umbra_forget(w->fs, attr.st.st_ino, 1);
	return ret;
}

static int call_clone_at(struct world *w, const struct call *c)
{
	const char *name;
	uint64_t dir, src;
	int ret = split(w, c->b, &dir, &name);

	if (!ret)
		ret = find(w, c->a, &src);
	return ret ? ret : umbra_clone_at(w->fs, src, dir, name);
}

static int call_remove(struct world *w, const struct call *c)
{
	const char *name;
	uint64_t dir;
	int ret = split(w, c->a, &dir, &name);

	if (ret)
		return ret;
	return c->kind == CALL_RMDIR ? umbra_rmdir(w->fs, dir, name)
				     : umbra_unlink(w->fs, dir, name);
}

static int call_rename(struct world *w, const struct call *c)
{
	const char *from, *to;
	uint64_t dir, newdir;
	int ret = split(w, c->a, &dir, &from);

	if (!ret)
		ret = split(w, c->b, &newdir, &to);
	return ret ? ret : umbra_rename(w->fs, dir, from, newdir, to, c->flags);
}

/* ---- an open file -------------------------------------------------------------------------------------- */

void world_end(struct world *w)
{
	if (!w->open)
		return;
	umbra_file_release(w->fs, w->open, O_RDWR);
	w->open = 0;
}

static int call_open(struct world *w, const struct call *c)
{
	struct umbra_attr attr;
	uint64_t ino;
	int ret;

	world_end(w);
	ret = find(w, c->a, &ino);
	if (!ret && c->kind == CALL_TMPFILE) {
		ret = umbra_tmpfile(w->fs, ino, S_IFREG | 0600, &cred, &attr);
		ino = attr.st.st_ino;
	}
	if (ret)
		return ret;
	ret = umbra_file_open(w->fs, ino, O_RDWR, false);
	if (c->kind == CALL_TMPFILE)
		umbra_forget(w->fs, ino, 1);
	if (!ret)
		w->open = ino;
	return ret;
}

static int set_size(struct world *w, uint64_t ino, uint64_t size)
{
	struct umbra_attr attr = {.st.st_size = (off_t)size};

	return umbra_setattr(w->fs, ino, &attr, UMBRA_SET_SIZE, &attr);
}

static int call_on_open(struct world *w, const struct call *c)
{
	if (!w->open)
		return -EBADF;
	switch (c->kind) {
	case CALL_LINK_OPEN:
		return call_link(w, c);
	case CALL_WRITE_OPEN:
		return write_pattern(w, w->open, c, c->flags);
	case CALL_TRUNCATE_OPEN:
		return set_size(w, w->open, c->len);
	default:
		world_end(w);
		return 0;
	}
}

/* ---- attributes ------------------------------------------------------------------------------------------ */

static int call_setattr(struct world *w, uint64_t ino, const struct call *c)
{
	struct umbra_attr attr = {0};
	unsigned mask = 0;

	switch (c->kind) {
	case CALL_CHMOD:
		attr.st.st_mode = c->flags;
		mask = UMBRA_SET_MODE | UMBRA_SET_CTIME;
		break;
	case CALL_CHOWN:
		attr.st.st_uid = (uid_t)c->off;
		attr.st.st_gid = (gid_t)c->len;
		mask = UMBRA_SET_UID | UMBRA_SET_GID | UMBRA_SET_CTIME;
		break;
	default:
		attr.st.st_atim.tv_sec = (time_t)c->off;
		attr.st.st_mtim.tv_sec = (time_t)c->len;
		mask = UMBRA_SET_ATIME | UMBRA_SET_MTIME | UMBRA_SET_CTIME;
		break;
	}
	clock_gettime(CLOCK_REALTIME, &attr.st.st_ctim);
	return umbra_setattr(w->fs, ino, &attr, mask, &attr);
}

static int call_xattr(struct world *w, uint64_t ino, const struct call *c)
{
	uint8_t *value;
	int ret;

	if (c->kind == CALL_REMOVEXATTR)
		return umbra_removexattr(w->fs, ino, c->b);
	value = xalloc(c->len);
	pattern(value, c->len, mix64(++w->writes));
	ret = umbra_setxattr(w->fs, ino, c->b, value, c->len, (int)c->flags, false);
	free(value);
	return ret;
}

/* ---- sharing ------------------------------------------------------------------------------------------------ */

static int call_share(struct world *w, uint64_t src, const struct call *c)
{
	uint64_t dst, done;
	ssize_t copied;
	bool same;
	int ret = find(w, c->b, &dst);

	if (ret)
		return ret;
	switch (c->kind) {
	case CALL_CLONE:
		return umbra_clone(w->fs, src, dst);
	case CALL_CLONE_RANGE:
		/* Of many extents: a bounded number in a transaction. */
		w->mix = (struct mix){.ino = dst, .size = true};
		return umbra_clone_range(w->fs, src, c->off, c->len, dst, c->to);
	case CALL_COPY_RANGE:
		w->mix = (struct mix){.ino = dst, .size = true};
		copied = umbra_copy_range(w->fs, src, c->off, dst, c->to, c->len);
		return copied < 0 ? (int)copied : 0;
	default:
		return umbra_dedupe_range(w->fs, src, c->off, c->len, dst, c->to, &same, &done);
	}
}

/* ---- all -------------------------------------------------------------------------------------------------- */

static int call_file(struct world *w, const struct call *c)
{
	uint64_t ino;
	int ret = find(w, c->a, &ino);

	if (ret)
		return ret;
	switch (c->kind) {
	case CALL_WRITE:
		return write_pattern(w, ino, c, c->flags);
	case CALL_APPEND:
		return write_pattern(w, ino, c, UMBRA_WRITE_APPEND);
	case CALL_TRUNCATE:
		return set_size(w, ino, c->len);
	case CALL_FALLOCATE:
		w->mix.ino = ino;
		return umbra_fallocate(w->fs, ino, (int)c->flags, c->off, c->len);
	case CALL_SETXATTR:
	case CALL_REMOVEXATTR:
		return call_xattr(w, ino, c);
	case CALL_CHMOD:
	case CALL_CHOWN:
	case CALL_UTIMENS:
		return call_setattr(w, ino, c);
	case CALL_FLAGS:
		return umbra_set_flags(w->fs, ino, c->flags);
	default:
		return call_share(w, ino, c);
	}
}

int call_run(struct world *w, const struct call *c)
{
	uint64_t was, size;
	int ret;

	w->mix = (struct mix){0};
	switch (c->kind) {
	case CALL_MKNOD:
	case CALL_SYMLINK:
		return call_make(w, c);
	case CALL_LINK:
		return call_link(w, c);
	case CALL_CLONE_AT:
		return call_clone_at(w, c);
	case CALL_UNLINK:
	case CALL_RMDIR:
		return call_remove(w, c);
	case CALL_RENAME:
		return call_rename(w, c);
	case CALL_TMPFILE:
	case CALL_OPEN:
		return call_open(w, c);
	case CALL_LINK_OPEN:
	case CALL_WRITE_OPEN:
	case CALL_TRUNCATE_OPEN:
	case CALL_RELEASE:
		return call_on_open(w, c);
	case CALL_SYNC:
		return umbra_sync(w->fs);
	case CALL_REAP:
		um_reaper_run(w->fs);
		return 0;
	case CALL_CHECKPOINT:
		return um_log_checkpoint(w->fs->log);
	case CALL_GROW:
		return umbra_grow(w->fs, UMBRA_GROW_ALL, true, &was, &size);
	case CALL_CLOSE:
		ret = umbra_close(w->fs);
		w->fs = NULL;
		return ret;
	default:
		return call_file(w, c);
	}
}
