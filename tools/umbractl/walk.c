// SPDX-License-Identifier: BSD-3-Clause
/* Walking trees of any depth by descriptors, with a bounded number of them open. */
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEEP_OPEN 32 /* levels of a stack that hold a descriptor */

int um_dirstack_push_fd(struct um_dirstack *s, int fd)
{
	struct stat st;

	if (s->n == s->room) {
		size_t room = s->room ? s->room * 2 : 32;
		void *grown = realloc(s->level, room * sizeof(*s->level));

		if (!grown) {
			close(fd);
			return -ENOMEM;
		}
		s->level = grown;
		s->room = room;
	}
	if (fstat(fd, &st) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	s->level[s->n++] = (struct um_dirstack_level){fd, st.st_dev, st.st_ino};
	if (s->n > KEEP_OPEN) {
		struct um_dirstack_level *old = &s->level[s->n - KEEP_OPEN - 1];

		if (old->fd >= 0)
			close(old->fd);
		old->fd = -1;
	}
	return 0;
}

int um_dirstack_push(struct um_dirstack *s, const char *name)
{
	int fd = openat(um_dirstack_top(s), name,
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	return um_dirstack_push_fd(s, fd);
}

int um_dirstack_top(const struct um_dirstack *s)
{
	return s->n ? s->level[s->n - 1].fd : -1;
}

/* Opens the level below the top again, through the top's "..". */
static int reopen_parent(struct um_dirstack *s)
{
	struct um_dirstack_level *up = &s->level[s->n - 2];
	struct stat st;
	int fd;

	fd = openat(um_dirstack_top(s), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || st.st_dev != up->dev || st.st_ino != up->ino) {
		close(fd);
		return -ESTALE;
	}
	up->fd = fd;
	return 0;
}

int um_dirstack_pop(struct um_dirstack *s)
{
	int err = 0;

	if (s->n > 1 && s->level[s->n - 2].fd < 0)
		err = reopen_parent(s);
	s->n--;
	if (s->level[s->n].fd >= 0)
		close(s->level[s->n].fd);
	return err;
}

void um_dirstack_free(struct um_dirstack *s)
{
	while (s->n) {
		s->n--;
		if (s->level[s->n].fd >= 0)
			close(s->level[s->n].fd);
	}
	free(s->level);
	memset(s, 0, sizeof(*s));
}

/* One directory's names, read completely before anything is done with them: entries may come and
 * go. */
struct listing {
	char *names; /* NUL-terminated, one after the other */
	size_t len, room, pos;
	size_t path_len; /* of walk_path before this directory's entries */
};

struct walk {
	struct um_dirstack dirs;
	struct listing *list; /* one per level */
	size_t room;
	char *path;
	size_t path_room;
	const struct um_walk_ops *ops;
	void *arg;
};

static char *walk_path; /* of the innermost walk under way, for messages */

const char *um_walk_path(void)
{
	return walk_path ? walk_path : "";
}

static int add_name(void *to, const char *name)
{
	struct listing *l = to;
	size_t n = strlen(name) + 1;

	if (l->len + n > l->room) {
		size_t room = (l->len + n) * 2 + 1024;
		char *grown = realloc(l->names, room);

		if (!grown)
			return -ENOMEM;
		l->names = grown;
		l->room = room;
	}
	memcpy(l->names + l->len, name, n);
	l->len += n;
	return 0;
}

static int read_names(int dirfd, struct listing *l)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
	struct dirent *de;
	DIR *dir;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		err = -errno;
		close(fd);
		return err;
	}
	while (!err) {
		errno = 0;
		de = readdir(dir);
		if (!de) {
			err = -errno;
			break;
		}
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
			err = add_name(l, de->d_name);
	}
	closedir(dir);
	return err;
}

/* Sets the path to the current directory's plus name (NULL: the directory's own). */
static int set_path(struct walk *w, size_t base, const char *name)
{
	size_t n = name ? strlen(name) : 0;

	if (base + n + 2 > w->path_room) {
		size_t room = (base + n + 2) * 2;
		char *grown = realloc(w->path, room);

		if (!grown)
			return -ENOMEM;
		w->path = grown;
		w->path_room = room;
		walk_path = grown;
	}
	if (name) {
		if (base)
			w->path[base++] = '/';
		memcpy(w->path + base, name, n);
	}
	w->path[base + n] = '\0';
	return 0;
}

/* The directory now on top of the stack begins. */
static int begin_dir(struct walk *w)
{
	size_t depth = w->dirs.n - 1;
	struct stat st;

	if (depth == w->room) {
		size_t room = depth ? depth * 2 : 32;
		void *grown = realloc(w->list, room * sizeof(*w->list));

		if (!grown)
			return -ENOMEM;
		w->list = grown;
		w->room = room;
	}
	w->list[depth] = (struct listing){.path_len = w->path ? strlen(w->path) : 0};
	if (fstat(um_dirstack_top(&w->dirs), &st) < 0)
		return -errno;
	if (w->ops->enter) {
		int err = w->ops->enter(w->arg, um_dirstack_top(&w->dirs), &st);

		if (err)
			return err;
	}
	if (w->ops->list) {
		int err =
			w->ops->list(w->arg, um_dirstack_top(&w->dirs), add_name, &w->list[depth]);

		if (err != -EOPNOTSUPP)
			return err;
	}
	return read_names(um_dirstack_top(&w->dirs), &w->list[depth]);
}

static int one_name(struct walk *w, struct listing *l, const char *name)
{
	int dirfd = um_dirstack_top(&w->dirs), err;
	bool skip = false;
	struct stat st;

	err = set_path(w, l->path_len, name);
	if (err)
		return err;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	err = w->ops->entry(w->arg, dirfd, name, &st, &skip);
	if (err || skip || !S_ISDIR(st.st_mode))
		return err;
	err = um_dirstack_push(&w->dirs, name);
	return err ? err : begin_dir(w);
}

static int end_dir(struct walk *w)
{
	struct listing *l = &w->list[w->dirs.n - 1];
	int fd, err = 0;

	free(l->names);
	l->names = NULL;
	set_path(w, l->path_len, NULL);
	if (w->dirs.n == 1) {
		if (w->ops->leave)
			err = w->ops->leave(w->arg, um_dirstack_top(&w->dirs), -1, NULL);
		um_dirstack_pop(&w->dirs);
		return err;
	}
	/* leave() gets both descriptors, so the popped one lives a moment longer. */
	fd = fcntl(um_dirstack_top(&w->dirs), F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = um_dirstack_pop(&w->dirs);
	if (!err && w->ops->leave) {
		const char *slash = strrchr(w->path, '/');

		err = w->ops->leave(
			w->arg, fd, um_dirstack_top(&w->dirs), slash ? slash + 1 : w->path);
	}
	close(fd);
	return err;
}

int um_walk(int rootfd, const struct um_walk_ops *ops, void *arg)
{
	struct walk w = {.ops = ops, .arg = arg};
	char *outer = walk_path;
	int fd, err;
	size_t i;

	fd = fcntl(rootfd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = set_path(&w, 0, NULL);
	if (err)
		close(fd);
	else
		err = um_dirstack_push_fd(&w.dirs, fd);
	if (!err)
		err = begin_dir(&w);
	while (!err && w.dirs.n) {
		struct listing *l = &w.list[w.dirs.n - 1];

		if (l->pos < l->len) {
			const char *name = l->names + l->pos;

			l->pos += strlen(name) + 1;
			err = one_name(&w, l, name);
		} else {
			err = end_dir(&w);
		}
	}
	for (i = 0; i < w.dirs.n && i < w.room; i++)
		free(w.list[i].names);
	um_dirstack_free(&w.dirs);
	free(w.list);
	/* The path is kept for the caller's message, unless this walk ran inside another one. */
	if (outer || !err) {
		free(w.path);
		walk_path = outer;
	}
	return err;
}

/* ---- removal ---------------------------------------------------------------------------------- */

struct removal {
	int first_err;
};

static int remove_entry(void *arg, int dirfd, const char *name, const struct stat *st, bool *skip)
{
	struct removal *r = arg;

	(void)skip;
	if (S_ISDIR(st->st_mode)) {
		/* A copied directory may lack the permissions that its removal needs. */
		if ((st->st_mode & 0700) != 0700)
			(void)fchmodat(dirfd, name, 0700, 0);
	} else if (unlinkat(dirfd, name, 0) < 0 && !r->first_err) {
		r->first_err = -errno;
	}
	return 0;
}

static int remove_leave(void *arg, int fd, int parentfd, const char *name)
{
	struct removal *r = arg;

	(void)fd;
	if (name && unlinkat(parentfd, name, AT_REMOVEDIR) < 0 && !r->first_err)
		r->first_err = -errno;
	return 0;
}

int um_remove_tree(int dirfd, const char *name)
{
	static const struct um_walk_ops ops = {.entry = remove_entry, .leave = remove_leave};
	struct removal r = {0};
	int fd, err;

	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOTDIR && errno != ELOOP)
			return -errno;
		return unlinkat(dirfd, name, 0) < 0 ? -errno : 0;
	}
	err = um_walk(fd, &ops, &r);
	close(fd);
	if (!err)
		err = r.first_err;
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && !err)
		err = -errno;
	return err;
}
