// SPDX-License-Identifier: BSD-3-Clause
/* umbractl clone -r: a tree, built beside its destination under a temporary name and renamed when
 * complete, so that the destination is complete or absent. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "clone.h"
#include "umbractl.h"
#include "walk.h"

/* A source inode with several links, and the place of its first copy. */
struct linked {
	ino_t ino;
	nlink_t left;
	char *path; /* below the new root */
};

struct tree {
	const char *src_path, *dst_path;
	dev_t dev;
	int root;               /* the new root directory */
	struct um_dirstack dst; /* the new directory that corresponds to the walk's */
	void *links;            /* tsearch tree of struct linked */
	uint64_t entries, files, bytes;
	struct um_ioc_tree *fast; /* the daemon clones what it can; NULL: it does not */
	bool progress;
	struct timespec shown;
};

static void show_progress(struct tree *t, bool last)
{
	char size[UM_SIZE_STR];
	struct timespec now;

	if (!t->progress)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!last &&
		(now.tv_sec - t->shown.tv_sec) * 1000 + (now.tv_nsec - t->shown.tv_nsec) / 1000000 <
			200)
		return;
	t->shown = now;
	fprintf(stderr, "\r%" PRIu64 " entries, %" PRIu64 " files, %s\033[K%s", t->entries,
		t->files, um_size_str(size, t->bytes, false), last ? "\n" : "");
}

/* ---- hard links --------------------------------------------------------------------------------- */

static int cmp_linked(const void *a, const void *b)
{
	const struct linked *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void free_linked(void *node)
{
	struct linked *l = node;

	free(l->path);
	free(l);
}

/* Opens the directory of a path below root, piece by piece, as it may be longer than PATH_MAX.
 * *out_name: the last component. */
static int open_long_parent(int root, char *path, const char **out_name)
{
	int fd = fcntl(root, F_DUPFD_CLOEXEC, 0), next;
	char *end;

	if (fd < 0)
		return -errno;
	while ((end = strchr(path, '/'))) {
		char *more;

		while ((more = strchr(end + 1, '/')) && more - path < 2048)
			end = more;
		*end = '\0';
		next = openat(fd, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		*end = '/';
		if (next < 0)
			next = -errno;
		close(fd);
		if (next < 0)
			return next;
		fd = next;
		path = end + 1;
	}
	*out_name = path;
	return fd;
}

/* Makes name a link of the inode's first copy. 1 if done, 0 if this is the first. */
static int link_again(struct tree *t, const char *name, const struct stat *st)
{
	struct linked key = {.ino = st->st_ino}, **found, *l;
	const char *old = NULL;
	int dir, err = 1;

	if (st->st_nlink < 2)
		return 0;
	found = tfind(&key, &t->links, cmp_linked);
	if (!found)
		return 0;
	l = *found;
	dir = open_long_parent(t->root, l->path, &old);
	if (dir < 0)
		return dir;
	if (linkat(dir, old, um_dirstack_top(&t->dst), name, 0) < 0)
		err = -errno;
	close(dir);
	if (err == 1 && --l->left == 0) {
		tdelete(l, &t->links, cmp_linked);
		free_linked(l);
	}
	return err;
}

static int remember_link(struct tree *t, const struct stat *st)
{
	struct linked *l, **slot;

	if (st->st_nlink < 2)
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	*l = (struct linked){st->st_ino, st->st_nlink - 1, strdup(um_walk_path())};
	slot = l->path ? tsearch(l, &t->links, cmp_linked) : NULL;
	if (slot)
		return 0;
	free_linked(l);
	return -ENOMEM;
}

/* ---- entries -------------------------------------------------------------------------------------- */

static int copy_meta_fds(int src, int dst, const struct stat *st)
{
	char from[64], to[64];

	snprintf(from, sizeof(from), "/proc/self/fd/%d", src);
	snprintf(to, sizeof(to), "/proc/self/fd/%d", dst);
	return um_copy_meta(from, to, st);
}

static int copy_meta_at(int src, int dst, const char *name, const struct stat *st)
{
	char from[64 + 256], to[64 + 256];

	snprintf(from, sizeof(from), "/proc/self/fd/%d/%s", src, name);
	snprintf(to, sizeof(to), "/proc/self/fd/%d/%s", dst, name);
	return um_copy_meta(from, to, st);
}

static int clone_regular(struct tree *t, int dirfd, const char *name, const struct stat *seen)
{
	int src, dst = -1, err = 0;
	struct stat st;
	uint64_t done;

	src = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (src < 0)
		return -errno;
	if (fstat(src, &st) < 0)
		err = -errno;
	else if (st.st_ino != seen->st_ino || !S_ISREG(st.st_mode))
		err = -ESTALE;
	if (!err) {
		dst = openat(um_dirstack_top(&t->dst), name,
			O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (dst < 0)
			err = -errno;
	}
	/* An empty file may have preallocated blocks; a clone of it has none. */
	if (!err && st.st_size > 0)
		err = um_fd_clone(src, 0, 0, dst, 0, &done);
	if (!err)
		err = copy_meta_fds(src, dst, &st);
	if (dst >= 0 && close(dst) < 0 && !err)
		err = -errno;
	close(src);
	t->files++;
	t->bytes += (uint64_t)st.st_size;
	return err;
}

static int clone_symlink(struct tree *t, int dirfd, const char *name)
{
	char target[4097];
	ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	return symlinkat(target, um_dirstack_top(&t->dst), name) < 0 ? -errno : 0;
}

/* Everything that the daemon does by itself; the other names remain for clone_entry. */
static int clone_list(void *arg, int dirfd, um_walk_add_fn *add, void *to)
{
	struct tree *t = arg;
	struct um_ioc_tree *io = t->fast;
	struct stat st;
	int err = 0;

	if (!io)
		return -EOPNOTSUPP;
	if (fstat(dirfd, &st) < 0)
		return -errno;
	memset(io, 0, sizeof(*io));
	while (!err && !io->end) {
		const char *name = io->names;

		err = um_clone_signal ? -EINTR
				      : um_clone_fast(um_dirstack_top(&t->dst), st.st_ino,
						UM_TREE_ENTRIES, io);
		if (err)
			break;
		t->entries += io->entries;
		t->files += io->files;
		t->bytes += io->bytes;
		show_progress(t, false);
		for (uint32_t i = 0; !err && i < io->count; i++, name += strlen(name) + 1)
			err = add(to, name);
	}
	if (err == -EOPNOTSUPP) {
		free(io);
		t->fast = NULL;
	}
	return err;
}

static int clone_entry(void *arg, int dirfd, const char *name, const struct stat *st, bool *skip)
{
	struct tree *t = arg;
	int top = um_dirstack_top(&t->dst), err;

	(void)skip;
	if (um_clone_signal)
		return -EINTR;
	if (st->st_dev != t->dev)
		return -EXDEV;
	t->entries++;
	show_progress(t, false);
	if (S_ISDIR(st->st_mode)) {
		if (mkdirat(top, name, 0700) < 0)
			return -errno;
		return um_dirstack_push(&t->dst, name);
	}
	err = link_again(t, name, st);
	if (err)
		return err < 0 ? err : 0;
	if (S_ISREG(st->st_mode)) {
		err = clone_regular(t, dirfd, name, st);
		return err ? err : remember_link(t, st);
	}
	if (S_ISLNK(st->st_mode))
		err = clone_symlink(t, dirfd, name);
	else if (mknodat(top, name, (st->st_mode & S_IFMT) | 0600, st->st_rdev) < 0)
		err = -errno;
	if (!err)
		err = copy_meta_at(dirfd, top, name, st);
	return err ? err : remember_link(t, st);
}

/* A directory's own metadata comes last: filling it changes its times, and its mode may forbid
 * filling. */
static int clone_leave(void *arg, int fd, int parentfd, const char *name)
{
	struct tree *t = arg;
	struct stat st;
	int err;

	(void)parentfd;
	if (fstat(fd, &st) < 0)
		return -errno;
	err = t->fast ? um_clone_fast(um_dirstack_top(&t->dst), st.st_ino, UM_TREE_META, t->fast)
		      : -EOPNOTSUPP;
	if (err == -EOPNOTSUPP)
		err = copy_meta_fds(fd, um_dirstack_top(&t->dst), &st);
	if (err || !name)
		return err;
	return um_dirstack_pop(&t->dst);
}

/* ---- the whole -------------------------------------------------------------------------------------- */

static int explain(const struct tree *t, int err)
{
	const char *path = um_walk_path();

	if (err == -EINTR && um_clone_signal)
		um_err(0, "interrupted; undoing");
	else if (err == -EXDEV)
		um_err(0, "%s/%s: another filesystem is mounted there; a clone cannot contain it",
			t->src_path, path);
	else if (err == -EPERM)
		um_err(err, "%s/%s (device nodes and foreign owners need privileges)", t->src_path,
			path);
	else
		um_err(err, "%s%s%s", t->src_path, *path ? "/" : "", path);
	return err;
}

static int open_source(const char *src, struct stat *st)
{
	int fd = open(src, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd < 0 || fstat(fd, st) < 0) {
		um_err(errno, "%s", src);
		goto fail;
	}
	err = um_fd_info(fd, NULL);
	if (!err)
		return fd;
	if (err == -ENOTTY)
		um_err(0, "%s: not on a mounted umbrafs", src);
	else
		um_err(err, "%s", src);
fail:
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The new directory must be on the same mount, outside of the source. */
static int check_place(const struct tree *t, int src, int parent)
{
	struct stat st, src_st;
	int fd, err = 0;

	if (fstat(src, &src_st) < 0 || fstat(parent, &st) < 0)
		return -errno;
	if (st.st_dev != src_st.st_dev) {
		um_err(0,
			"%s and %s are on different filesystems: a clone shares the pool's blocks",
			t->src_path, t->dst_path);
		return -EXDEV;
	}
	fd = fcntl(parent, F_DUPFD_CLOEXEC, 0);
	while (!err && fd >= 0) {
		struct stat next;
		int above;

		if (st.st_ino == src_st.st_ino && st.st_dev == src_st.st_dev) {
			um_err(0, "%s lies inside %s", t->dst_path, t->src_path);
			err = -EINVAL;
			break;
		}
		above = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (above < 0 || fstat(above, &next) < 0 || next.st_dev != st.st_dev ||
			next.st_ino == st.st_ino) {
			if (above >= 0)
				close(above);
			break;
		}
		close(fd);
		fd = above;
		st = next;
	}
	if (fd >= 0)
		close(fd);
	return err;
}

/* Makes the temporary directory beside the destination. */
static int make_root(struct tree *t, int parent, const char *tmp)
{
	int err = 0;

	t->root = um_partial_make(parent, tmp);
	if (t->root < 0)
		return t->root;
	err = um_drop_inherited_acls(t->root);
	/* The group must not be inherited further either. */
	if (!err && fchmod(t->root, 0700) < 0)
		err = -errno;
	if (!err) {
		int fd = fcntl(t->root, F_DUPFD_CLOEXEC, 0);

		err = fd < 0 ? -errno : um_dirstack_push_fd(&t->dst, fd);
	}
	if (err)
		unlinkat(parent, tmp, AT_REMOVEDIR);
	return err;
}

static int fill_root(struct tree *t, int src, int parent, const char *name, const char *tmp)
{
	static const struct um_walk_ops ops = {
		.entry = clone_entry, .list = clone_list, .leave = clone_leave};
	int err;

	err = make_root(t, parent, tmp);
	if (err) {
		um_err(err, "%s", t->dst_path);
		return err;
	}
	err = um_walk(src, &ops, t);
	if (!err && um_clone_signal)
		err = -EINTR;
	show_progress(t, true);
	if (err)
		explain(t, err);
	if (!err && renameat2(parent, tmp, parent, name, RENAME_NOREPLACE) < 0) {
		err = -errno;
		um_err(err, "%s", t->dst_path);
	}
	if (err) {
		int undo = um_remove_tree(parent, tmp);

		if (undo)
			um_err(undo, "cannot remove all of %s beside %s", tmp, t->dst_path);
	}
	return err;
}

static int build(struct tree *t, int src, int parent, const char *name)
{
	struct um_undo undo;
	char tmp[256];
	int err;

	if (!faccessat(parent, name, F_OK, AT_SYMLINK_NOFOLLOW)) {
		um_err(EEXIST, "%s", t->dst_path);
		return -EEXIST;
	}
	um_partial_sweep(parent, name);
	snprintf(tmp, sizeof(tmp), UM_PARTIAL_NAME "%ld", name, (long)getpid());
	err = um_undo_begin(&undo, parent, tmp);
	if (err) {
		um_err(err, "%s", t->dst_path);
		return err;
	}
	err = fill_root(t, src, parent, name, tmp);
	um_undo_end(&undo);
	return err;
}

int um_clone_tree(const char *src_path, const char *dst_path, bool progress)
{
	struct tree t = {.src_path = src_path, .dst_path = dst_path, .root = -1};
	int src, parent, err = -1;
	const char *name;
	struct stat st;

	t.progress = progress;
	src = open_source(src_path, &st);
	if (src < 0)
		return UM_EXIT_FAIL;
	t.dev = st.st_dev;
	t.fast = um_clone_fast_begin(src) ? calloc(1, sizeof(*t.fast)) : NULL;
	parent = um_open_parent(dst_path, &name);
	if (parent < 0) {
		um_err(parent == -EINVAL ? 0 : parent, "%s%s", dst_path,
			parent == -EINVAL ? ": not a name for a new directory" : "");
	} else {
		umask(0);
		err = check_place(&t, src, parent);
		if (!err)
			err = build(&t, src, parent, name);
		close(parent);
	}
	if (t.root >= 0)
		close(t.root);
	um_dirstack_free(&t.dst);
	tdestroy(t.links, free_linked);
	free(t.fast);
	close(src);
	return err ? UM_EXIT_FAIL : UM_EXIT_OK;
}
