/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A second mount of a filesystem in use. The kernel makes it as a copy of the first one, as for a
 * bind mount; afterwards the two are equals. What is mounted below one of them does not appear
 * below the other (they are not peers), each has flags of its own, and either can be unmounted
 * first. When the last one goes the kernel ends the filesystem, and that ends the daemon.
 *
 * The copy is taken first, before it is attached anywhere, and all queries (is this the right pool,
 * whose mount is it?) go through the copy: a path may lead elsewhere a moment later, a descriptor
 * does not. mount(2) with MS_BIND would expose the second mount for a moment without its flags.
 */
#include "fuse/second.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fuse/message.h"
#include "fuse/mounts.h"

#define ROOT_INO 1

/* glibc's <sys/mount.h> and the kernel's <linux/mount.h> exclude each other in some versions. */
static int open_copy(const char *dir)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, dir,
		OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
}

static int set_attributes(int mount, const struct um_options *opt)
{
	static const struct {
		unsigned long flag;
		uint64_t attr;
	} pairs[] = {
		{MS_RDONLY, MOUNT_ATTR_RDONLY},
		{MS_NOSUID, MOUNT_ATTR_NOSUID},
		{MS_NODEV, MOUNT_ATTR_NODEV},
		{MS_NOEXEC, MOUNT_ATTR_NOEXEC},
		{MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW},
	};
	/* The access time flags stay as on the first mount, since the daemon maintains these
	 * times. */
	struct mount_attr attr = {.propagation = MS_PRIVATE};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		if (opt->ms_flags & pairs[i].flag)
			attr.attr_set |= pairs[i].attr;
		else
			attr.attr_clr |= pairs[i].attr;
	return syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attr, sizeof(attr)) ? -errno
											 : 0;
}

static int attach(int mount, int target)
{
	return syscall(SYS_move_mount, mount, "", target, "",
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
		       ? -errno
		       : 0;
}

/*
 * Asks the kernel only, as the daemon may hang. With mask 0 it fills in the device number even
 * where the caller may not look into the mount.
 */
static int look(int fd, unsigned mask, struct statx *out)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask, out) ? -errno : 0;
}

static bool is_pool(const struct um_ioc_mount *answer, const struct stat *st)
{
	bool device = S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode);

	return answer->dev == (device ? st->st_rdev : st->st_dev) &&
	       answer->ino == (device ? 0 : st->st_ino);
}

/*
 * Is the copy of a mount of that pool, mounted by the caller's user? An ordinary user's daemon may
 * claim to serve any pool, and sees everything that is done in its mount. -EACCES: another user's;
 * -ENOENT: another pool's; -ENOTCONN: its daemon does not answer.
 */
static int examine(
	int mount, const struct stat *pool, struct um_where *where, struct um_ioc_mount *answer)
{
	struct statx st;

	if (look(mount, 0, &st))
		return -ENOENT;
	/* As long as we have the copy the kernel gives the device number to no other filesystem. */
	if (um_mounts_of_device(st.stx_dev_major, st.stx_dev_minor, where) ||
		!um_where_is_ours(where))
		return -ENOENT;
	if (where->user != geteuid())
		return -EACCES;
	if (look(mount, STATX_INO, &st) || st.stx_ino != ROOT_INO)
		return -ENOENT;
	if (um_mounts_ask(mount, answer))
		return -ENOTCONN;
	return is_pool(answer, pool) ? 0 : -ENOENT;
}

static bool is_mounted_here(int mount, int target)
{
	struct statx ours, theirs;

	return look(mount, STATX_INO, &ours) == 0 && look(target, STATX_INO, &theirs) == 0 &&
	       theirs.stx_attributes & STATX_ATTR_MOUNT_ROOT && ours.stx_ino == theirs.stx_ino &&
	       ours.stx_dev_major == theirs.stx_dev_major &&
	       ours.stx_dev_minor == theirs.stx_dev_minor;
}

static int check_options(const struct um_second *want, const struct um_where *where,
	const struct um_ioc_mount *answer)
{
	struct um_options have;
	char word[256];

	um_options_init(&have, true);
	have.allow_other = false;
	if (um_options_parse(&have, answer->options, true, word, sizeof(word)))
		return -EPROTO;
	if ((answer->readonly || where->readonly) && !(want->opt->ms_flags & MS_RDONLY)) {
		um_message(UMBRA_LOG_ERROR,
			"%s is mounted read-only on %s, and cannot be mounted otherwise on %s: use "
			"ro, or "
			"mount -o remount,rw %s first",
			want->pool, where->dir, want->target, where->dir);
		return -EBUSY;
	}
	if (um_options_differ(&have, want->list, word, sizeof(word))) {
		um_message(UMBRA_LOG_ERROR,
			"%s is mounted on %s with other options (%s), which go for all its mounts: "
			"%s cannot be had "
			"on %s only",
			want->pool, where->dir, answer->options, word, want->target);
		return -EINVAL;
	}
	return 0;
}

static int make(const struct um_second *want, int mount, int target)
{
	int err = set_attributes(mount, want->opt);

	if (!err)
		err = attach(mount, target);
	if (err)
		um_message(
			UMBRA_LOG_ERROR, "%s on %s: %s", want->pool, want->target, strerror(-err));
	return err;
}

/* *done: this was the pool's mount, so that others need not be tried, whether it went well or
 * not. */
static int try_one(const struct um_second *want, const struct um_where *first, int target,
	const struct stat *pool, bool *done)
{
	struct um_ioc_mount answer;
	struct um_where where = {0};
	/* Other users' mounts are not even resolved: the path may lead through a mount whose daemon
	 * hangs. */
	int mount = first->user == geteuid() ? open_copy(first->dir) : -1;
	int err = mount >= 0                 ? examine(mount, pool, &where, &answer)
		  : first->user == geteuid() ? -errno
					     : -EACCES;

	*done = !err;
	if (!err && is_mounted_here(mount, target)) {
		err = -EBUSY;
		um_message(
			UMBRA_LOG_ERROR, "%s is already mounted on %s", want->pool, want->target);
	} else if (!err) {
		err = check_options(want, &where, &answer);
		if (!err)
			err = make(want, mount, target);
	}
	um_where_clear(&where);
	if (mount >= 0)
		close(mount);
	return err;
}

static void say_why(const struct um_second *want, const struct um_where *first, int err)
{
	const char *why = strerror(-err);

	if (err == -EACCES)
		um_message(UMBRA_LOG_ERROR, "%s is mounted on %s by user %u: umount it first",
			want->pool, first->dir, first->user);
	else {
		if (err == -ENOTCONN)
			why = "its daemon does not answer";
		else if (err == -ENOENT)
			why = "another pool has been mounted there since";
		else if (err == -EINVAL)
			why = "that mount must not be copied (mount --make-unbindable)";
		um_message(UMBRA_LOG_ERROR,
			"%s is already mounted on %s, but not on %s as well: %s", want->pool,
			first->dir, want->target, why);
	}
}

int um_second_mount(const struct um_second *want)
{
	int target = open(want->target, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct um_where *list = NULL;
	unsigned n = 0, at = 0;
	struct stat pool;
	bool done = false;
	int err = target < 0 || stat(want->pool, &pool) ? -errno : 0, why = 0;

	if (err)
		um_message(
			UMBRA_LOG_ERROR, "%s on %s: %s", want->pool, want->target, strerror(-err));
	else
		err = um_mounts_all_of_pool(want->pool, &list, &n);
	for (unsigned i = 0; i < n && !done; i++) {
		err = try_one(want, &list[i], target, &pool, &done);
		if (done || !why || why == -ENOENT) {
			why = err;
			at = i;
		}
	}
	if (n && !done)
		say_why(want, &list[at], why);
	else if (!n && target >= 0) {
		err = -EBUSY;
		um_message(UMBRA_LOG_ERROR,
			"%s is already mounted, but in no place that can be seen from here: "
			"nothing is mounted "
			"on %s",
			want->pool, want->target);
	}
	um_wheres_free(list, n);
	if (target >= 0)
		close(target);
	return done ? err : err ? err : -EBUSY;
}
