/* SPDX-License-Identifier: BSD-3-Clause */
/* Mounts, and which pool is in use; for the daemon and the mount and umount helpers. */
#ifndef UM_FUSE_MOUNTS_H
#define UM_FUSE_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fuse/ioctl.h"

#define UM_FSTYPE "fuse.umbrafs"
#define UM_FSTYPE_BLOCK "fuseblk.umbrafs" /* with the option of that name */

/* A line of mountinfo. */
struct um_where {
	uint64_t id;
	unsigned major, minor;
	char *dir, *type, *source;
	bool whole;    /* it shows the filesystem from its root */
	bool readonly; /* of the filesystem, not of this mount of it */
	unsigned user; /* owner of the FUSE mount */
};
void um_where_clear(struct um_where *where);
bool um_where_is_ours(const struct um_where *where);

/* The topmost mount on dir, an absolute path without symbolic links. -ENOENT. */
int um_mounts_at(const char *dir, struct um_where *out);
/* The mount that contains path, and a descriptor (O_PATH) that stays with it whatever happens to
 * the path meanwhile. Sends no request to a filesystem mounted there. */
int um_mounts_open(const char *path, int *out_fd, struct um_where *out);
/* The latest mount of the filesystem with that device number in this namespace. -ENOENT. */
int um_mounts_of_device(unsigned major, unsigned minor, struct um_where *out);
int um_mounts_all_of_device(unsigned major, unsigned minor, struct um_where **out, unsigned *out_n);
/* The umbrafs mount that serves the pool at path. -ENOENT: none that answers. */
int um_mounts_of_pool(const char *path, struct um_where *out);
/* All of them that show its root; they need not answer. Lists begin with the latest, and are freed
 * with um_wheres_free(). */
int um_mounts_all_of_pool(const char *path, struct um_where **out, unsigned *out_n);
void um_wheres_free(struct um_where *list, unsigned n);
/* The absolute path of the pool mounted on dir, according to its daemon, which gets a few seconds
 * to answer. */
int um_mounts_ask_pool(const char *dir, char *out, size_t len);
/* How the mount that contains the descriptor (O_PATH of a directory suffices) is served; the same
 * time limit. */
int um_mounts_ask(int dir_fd, struct um_ioc_mount *out);
/* Has the daemon of the mount that contains the descriptor ended? One that lives and does not
 * answer is not dead. */
bool um_mounts_dead(int fd);
/*
 * Tells the daemon of the mount on dir that it became, or is about to become, read-only or
 * writable, and UM_REMOUNT_* of what is made durable at once. -ENXIO: the mount is another user's,
 * who lets nobody else in, not even root.
 */
int um_mounts_say(const char *dir, bool readonly, uint32_t sync);

/* Flags (MS_*) that the mount on dir has and a remount has to name again, or they are lost. Those of
 * access times are not among them. */
int um_mounts_flags(const char *dir, unsigned long *out);

/* Does anybody hold the pool's lock, shared or not? Errors of open(2). */
int um_pool_in_use(const char *path, bool *out);

/* The path as mountinfo shows it, to be freed. Sends no request to a filesystem mounted there,
 * which may hang or be dead. */
int um_mounts_resolve(const char *path, char **out);
/* Lazily unmounts what um_mounts_open() opened: umount2(2), or fusermount3 for users without the
 * privilege. */
int um_mounts_detach(int fd, const struct um_where *where);

#endif
