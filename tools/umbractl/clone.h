/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of umbractl clone: one file, a tree, metadata. */
#ifndef UMBRACTL_CLONE_H
#define UMBRACTL_CLONE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* SIGINT, SIGTERM or SIGHUP has arrived; its number. */
extern volatile int um_clone_signal;

/* A path's directory, opened, and its last component. The path must not end in "/", "." or "..". */
int um_open_parent(const char *path, const char **out_name);

/* Clones the tree at src into the new directory dst. Returns the exit code; messages are
 * printed. */
int um_clone_tree(const char *src, const char *dst, bool progress);

/* ---- clone_undo.c --------------------------------------------------------------------------------- */

/* Name of the directory that becomes NAME, followed by the process id. */
#define UM_PARTIAL_NAME ".%.200s.partial-"

struct um_undo {
	pid_t pid;
	int fd;
};

/* From now on tmp in parent is removed if this process is killed. 0 or -errno. */
int um_undo_begin(struct um_undo *undo, int parent, const char *tmp);
/* No longer. */
void um_undo_end(struct um_undo *undo);
/* Makes the directory tmp, opened and locked, so that it is not considered a left-over. -errno. */
int um_partial_make(int parent, const char *tmp);
/* Removes what interrupted clones to this name have left in parent. */
void um_partial_sweep(int parent, const char *name);

/* ---- clone_fast.c ---------------------------------------------------------------------------------- */

struct um_ioc_tree;
/* Can the daemon be asked to clone the contents of the open directory, and what is below? */
bool um_clone_fast_begin(int src);
/* UM_IOC_TREE. -EOPNOTSUPP: not possible. */
int um_clone_fast(int dst, ino_t src, uint32_t op, struct um_ioc_tree *io);

/* ---- clone_meta.c ---------------------------------------------------------------------------------- */

/*
 * Copies owner, extended attributes with ACLs, mode and times. The object is given as
 * /proc/self/fd/N (a descriptor) or as .../NAME, which is not followed if a symbolic link.
 */
int um_copy_meta(const char *src, const char *dst, const struct stat *st);
/* Removes the ACLs that a new directory inherited, so that its entries inherit none. */
int um_drop_inherited_acls(int dirfd);

#endif
