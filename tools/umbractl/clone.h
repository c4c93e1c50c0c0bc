/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of umbractl clone: one file, a tree, metadata. */
#ifndef UMBRACTL_CLONE_H
#define UMBRACTL_CLONE_H

#include <stdbool.h>
#include <sys/stat.h>

/* SIGINT, SIGTERM or SIGHUP has arrived; its number. */
extern volatile int um_clone_signal;

/* A path's directory, opened, and its last component. The path must not end in "/", "." or "..". */
int um_open_parent(const char *path, const char **out_name);

/* Clones the tree at src into the new directory dst. The exit code; messages are printed. */
int um_clone_tree(const char *src, const char *dst, bool progress);

/*
 * Copies owner, extended attributes with ACLs, mode and times. The object is given as
 * /proc/self/fd/N (a descriptor) or as .../NAME, which is not followed if a symbolic link.
 */
int um_copy_meta(const char *src, const char *dst, const struct stat *st);
/* Removes the ACLs that a new directory inherited, so that its entries inherit none. */
int um_drop_inherited_acls(int dirfd);

#endif
