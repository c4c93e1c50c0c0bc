/* SPDX-License-Identifier: BSD-3-Clause */
/* Walking trees of any depth by descriptors, with a bounded number of them open. */
#ifndef UMBRACTL_WALK_H
#define UMBRACTL_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

/* A path of open directories. Only the last few keep a descriptor; an older one is reopened through
 * ".." of its child when the child is popped, and must then be the same directory. */
struct um_dirstack {
	struct um_dirstack_level {
		int fd; /* -1: closed for now */
		dev_t dev;
		ino_t ino;
	} * level;
	size_t n, room;
};
/* Takes fd over, also on failure. */
int um_dirstack_push_fd(struct um_dirstack *s, int fd);
/* Opens the directory name in the top one; never follows a symbolic link. */
int um_dirstack_push(struct um_dirstack *s, const char *name);
/* -ESTALE: the parent directory is no longer the one that was pushed. The stack is then
 * unusable. */
int um_dirstack_pop(struct um_dirstack *s);
int um_dirstack_top(const struct um_dirstack *s);
void um_dirstack_free(struct um_dirstack *s);

typedef int um_walk_add_fn(void *to, const char *name); /* 0 or -errno */

/* Callbacks return 0 or -errno, which ends the walk. */
struct um_walk_ops {
	/* Called for every entry except "." and "..". *skip set to true for a directory: do not
	 * enter it. */
	int (*entry)(void *arg, int dirfd, const char *name, const struct stat *st, bool *skip);
	/* A directory has been opened: fd is it. May be NULL. Called for the root as well. */
	int (*enter)(void *arg, int fd, const struct stat *st);
	/* Instead of reading the directory's names, after enter: passes those to be visited to
	 * add(to, ...). -EOPNOTSUPP, with none passed: read them. May be NULL. */
	int (*list)(void *arg, int fd, um_walk_add_fn *add, void *to);
	/* All entries of a directory were visited; parentfd and name lead to it (-1 and NULL: the
	 * root). */
	int (*leave)(void *arg, int fd, int parentfd, const char *name);
};
/* Walks below the directory rootfd (kept open, not closed). Entries' order is the directory's. */
int um_walk(int rootfd, const struct um_walk_ops *ops, void *arg);
/* The present position of the walk, for messages: a path relative to the root, valid until the next
 * step. */
const char *um_walk_path(void);

/* Removes name in dirfd and everything below it. The first error, after trying everything. */
int um_remove_tree(int dirfd, const char *name);

#endif
