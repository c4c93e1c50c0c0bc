// SPDX-License-Identifier: BSD-3-Clause
/* umbractl clone: a file in constant time; with -r a tree (clone_tree.c). */
#include "clone.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "umbractl.h"

volatile int um_clone_signal;

static void on_signal(int sig)
{
	um_clone_signal = sig;
}

/* Signals are noticed between steps, so that what was begun can be undone. An ignored signal stays
 * ignored. */
static void catch_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction sa, old;
	size_t i;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_signal;
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
			sigaction(signals[i], &sa, NULL);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG will do, after which what was begun is undone */
}

/* Ends by the same signal, so that a calling shell sees it. */
static int end_by_signal(void)
{
	signal(um_clone_signal, SIG_DFL);
	raise(um_clone_signal);
	return 128 + um_clone_signal;
}

int um_open_parent(const char *path, const char **out_name)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char *dir = NULL;
	int fd;

	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	if (slash) {
		dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
		if (!dir)
			return -ENOMEM;
	}
	fd = open(dir ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	free(dir);
	*out_name = name;
	return fd;
}

/* Fills the new, empty dst. */
static int clone_content(const char *src_path, int src, const char *dst_path, int dst)
{
	struct stat st, dst_st;
	uint64_t done;
	int err;

	if (fstat(src, &st) < 0 || fstat(dst, &dst_st) < 0)
		return -errno;
	err = um_fd_info(dst, NULL);
	if (!err && st.st_dev != dst_st.st_dev)
		err = -EXDEV;
	if (err == -ENOTTY) {
		um_err(0, "%s: not on a mounted umbrafs", dst_path);
		return err;
	}
	if (err == -EXDEV) {
		um_err(0,
			"%s and %s are on different filesystems: a clone shares the pool's blocks",
			src_path, dst_path);
		return err;
	}
	if (!err)
		err = um_fd_clone(src, 0, 0, dst, 0, &done);
	if (err)
		um_err(err, "%s: cannot clone", src_path);
	return err;
}

/* Gives the nameless file its name. */
static int name_file(int fd, int dir, const char *name)
{
	char path[64];

	if (!linkat(fd, "", dir, name, AT_EMPTY_PATH))
		return 0;
	if (errno != ENOENT && errno != EPERM)
		return -errno;
	/* That method is not permitted to everybody, and to nobody before Linux 6.10. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* The destination has no name until it is complete: after any interruption it is complete or
 * absent. */
static int clone_file(const char *src_path, const char *dst_path)
{
	int src, dst = -1, dir, err = -1;
	const char *name;
	struct stat st;

	src = um_open_regular(src_path, &st);
	if (src < 0)
		return UM_EXIT_FAIL;
	dir = um_open_parent(dst_path, &name);
	if (dir < 0) {
		um_err(dir == -EINVAL ? 0 : dir, "%s%s", dst_path,
			dir == -EINVAL ? ": not a file name" : "");
		goto out;
	}
	if (!faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW))
		err = -EEXIST;
	else
		dst = openat(dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, st.st_mode & 0777);
	if (dst < 0) {
		if (err != -EEXIST)
			err = -errno;
		if (err == -EOPNOTSUPP)
			um_err(0, "%s: not on a mounted umbrafs", dst_path);
		else
			um_err(err, "%s", dst_path);
		goto out;
	}
	err = clone_content(src_path, src, dst_path, dst);
	if (err)
		goto out;
	err = um_clone_signal ? -EINTR : name_file(dst, dir, name);
	if (err && err != -EINTR)
		um_err(err, "%s", dst_path);
out:
	if (dst >= 0)
		close(dst);
	if (dir >= 0)
		close(dir);
	close(src);
	return err ? UM_EXIT_FAIL : UM_EXIT_OK;
}

/* "dir/" means dir if it is a directory. */
static void strip_slashes(char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
}

int um_cmd_clone(int argc, char **argv)
{
	static const struct option longs[] = {{"recursive", no_argument, NULL, 'r'},
		{"quiet", no_argument, NULL, 'q'}, {"help", no_argument, NULL, 'h'}, {}};
	bool recursive = false, quiet = false;
	int opt, code;

	while ((opt = getopt_long(argc, argv, "rqh", longs, NULL)) != -1) {
		if (opt == 'r')
			recursive = true;
		else if (opt == 'q')
			quiet = true;
		else
			return um_usage();
	}
	if (argc - optind != 2)
		return um_usage();
	catch_signals();
	if (recursive) {
		strip_slashes(argv[optind + 1]);
		code = um_clone_tree(argv[optind], argv[optind + 1], !quiet && isatty(2));
	} else {
		code = clone_file(argv[optind], argv[optind + 1]);
	}
	if (um_clone_signal && code)
		return end_by_signal();
	return code;
}
