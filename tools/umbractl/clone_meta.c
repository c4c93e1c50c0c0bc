// SPDX-License-Identifier: BSD-3-Clause
/* Owner, extended attributes, ACLs, mode and times for clone -r. */
#include "clone.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The paths here begin with /proc/self/fd/N. If N is the object itself, its link must be followed;
 * if a name comes after it, the name must not be. */
static bool is_link_path(const char *path)
{
	return strchr(path + strlen("/proc/self/fd/"), '/') != NULL;
}

static ssize_t get_list(const char *path, char **out)
{
	bool nofollow = is_link_path(path);
	ssize_t n, room = 1024;
	char *buf = NULL;

	for (;;) {
		char *grown = realloc(buf, (size_t)room);

		if (!grown) {
			free(buf);
			return -ENOMEM;
		}
		buf = grown;
		n = nofollow ? llistxattr(path, buf, (size_t)room)
			     : listxattr(path, buf, (size_t)room);
		if (n >= 0) {
			*out = buf;
			return n;
		}
		if (errno != ERANGE || room > (1 << 20)) {
			int err = errno;

			free(buf);
			*out = NULL;
			return err == EOPNOTSUPP ? 0 : -err;
		}
		room *= 4;
	}
}

/* Attributes that only the superuser, or a security module, can copy. */
static bool may_be_left_out(const char *name)
{
	return !strncmp(name, "trusted.", 8) || !strncmp(name, "security.", 9);
}

static int copy_xattr(const char *src, const char *dst, const char *name, char *value)
{
	ssize_t n;
	int r;

	n = is_link_path(src) ? lgetxattr(src, name, value, XATTR_SIZE_MAX)
			      : getxattr(src, name, value, XATTR_SIZE_MAX);
	if (n < 0)
		return errno == ENODATA || may_be_left_out(name) ? 0 : -errno;
	r = is_link_path(dst) ? lsetxattr(dst, name, value, (size_t)n, 0)
			      : setxattr(dst, name, value, (size_t)n, 0);
	if (r < 0)
		return may_be_left_out(name) && (errno == EPERM || errno == EOPNOTSUPP) ? 0
											: -errno;
	return 0;
}

static int copy_xattrs(const char *src, const char *dst)
{
	char *list = NULL, *value = NULL, *name;
	ssize_t n = get_list(src, &list);
	int err = 0;

	if (n > 0) {
		value = malloc(XATTR_SIZE_MAX);
		if (!value)
			err = -ENOMEM;
	} else if (n < 0) {
		err = (int)n;
	}
	for (name = list; !err && n > 0 && name < list + n; name += strlen(name) + 1)
		err = copy_xattr(src, dst, name, value);
	free(value);
	free(list);
	return err;
}

int um_drop_inherited_acls(int dirfd)
{
	static const char *const acls[] = {"system.posix_acl_default", "system.posix_acl_access"};
	size_t i;

	for (i = 0; i < 2; i++)
		if (fremovexattr(dirfd, acls[i]) < 0 && errno != ENODATA && errno != EOPNOTSUPP)
			return -errno;
	return 0;
}

/* Owners are preserved if the caller may; an ordinary user keeps the group where a member. */
static int copy_owner(const char *dst, const struct stat *st, mode_t *mode)
{
	int flags = is_link_path(dst) ? AT_SYMLINK_NOFOLLOW : 0;
	struct stat now;

	if (fstatat(AT_FDCWD, dst, &now, flags) < 0)
		return -errno;
	if (now.st_uid == st->st_uid && now.st_gid == st->st_gid)
		return 0;
	if (!fchownat(AT_FDCWD, dst, st->st_uid, st->st_gid, flags))
		return 0;
	if (errno != EPERM && errno != EINVAL)
		return -errno;
	if (now.st_uid != st->st_uid)
		*mode &= ~(mode_t)S_ISUID;
	if (now.st_gid != st->st_gid && fchownat(AT_FDCWD, dst, (uid_t)-1, st->st_gid, flags) < 0)
		*mode &= ~(mode_t)S_ISGID;
	return 0;
}

int um_copy_meta(const char *src, const char *dst, const struct stat *st)
{
	struct timespec times[2] = {st->st_atim, st->st_mtim};
	int flags = is_link_path(dst) ? AT_SYMLINK_NOFOLLOW : 0;
	mode_t mode = st->st_mode & 07777;
	int err;

	/* In this order: chown drops set-id bits and capabilities, an ACL changes the mode. */
	err = copy_owner(dst, st, &mode);
	if (!err)
		err = copy_xattrs(src, dst);
	if (!err && !S_ISLNK(st->st_mode) && fchmodat(AT_FDCWD, dst, mode, 0) < 0)
		err = -errno;
	if (!err && utimensat(AT_FDCWD, dst, times, flags) < 0)
		err = -errno;
	return err;
}
