/* SPDX-License-Identifier: BSD-3-Clause */
/* What is mounted where, and which pool is in use; for the daemon and the mount and umount helpers. */
#ifndef UM_FUSE_MOUNTS_H
#define UM_FUSE_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

#define UM_FSTYPE "fuse.umbrafs"
#define UM_FSTYPE_BLOCK "fuseblk.umbrafs" /* with the option of that name */

/* A line of mountinfo. */
struct um_where {
	unsigned major, minor;
	char *dir, *type, *source;
};
void um_where_clear(struct um_where *where);
bool um_where_is_ours(const struct um_where *where);

/* The topmost mount on dir, an absolute path without symbolic links. -ENOENT. */
int um_mounts_at(const char *dir, struct um_where *out);
/* Is a filesystem of that device number mounted somewhere in this namespace? */
bool um_mounts_have_device(unsigned major, unsigned minor);
/* The umbrafs mount that serves the pool at path. -ENOENT: none that answers. */
int um_mounts_of_pool(const char *path, struct um_where *out);
/* The absolute path of the pool mounted on dir, asked of its daemon, which gets a few seconds. */
int um_mounts_ask_pool(const char *dir, char *out, size_t len);

/* Does anybody hold the pool's lock, shared or not? Errors of open(2). */
int um_pool_in_use(const char *path, bool *out);

/*
 * The path as mountinfo writes it, to be freed. Sends no request to a filesystem mounted there, which
 * may hang or be dead.
 */
int um_mounts_resolve(const char *path, char **out);
/* Lazily unmounts dir: umount2(2), or fusermount3 for those who may not. */
int um_mounts_detach(const char *dir);

#endif
