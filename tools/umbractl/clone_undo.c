// SPDX-License-Identifier: BSD-3-Clause
/*
 * Removes what is left of a tree clone that was killed: by a process that waits for its end, or, if
 * that was killed too or could not do it (the daemon's death, a power cut), by the next clone to
 * the same place.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clone.h"
#include "umbractl.h"
#include "walk.h"

/* ---- the process that waits --------------------------------------------------------------------- */

static void __attribute__((noreturn)) wait_and_undo(int parent, const char *tmp, int pipe_fd)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
	char byte;
	ssize_t n;
	size_t i;

	prctl(PR_SET_NAME, "umbractl-undo");
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], SIG_IGN);
	um_clone_signal = 0;
	do
		n = read(pipe_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (!n)
		(void)um_remove_tree(parent, tmp);
	_exit(0);
}

int um_undo_begin(struct um_undo *undo, int parent, const char *tmp)
{
	int fds[2], err;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	undo->pid = fork();
	if (undo->pid < 0) {
		err = -errno;
		close(fds[0]);
		close(fds[1]);
		return err;
	}
	if (!undo->pid) {
		close(fds[1]);
		wait_and_undo(parent, tmp, fds[0]);
	}
	close(fds[0]);
	undo->fd = fds[1];
	return 0;
}

void um_undo_end(struct um_undo *undo)
{
	/* Fails if it was killed: then there is nothing to be told. */
	(void)!write(undo->fd, "", 1);
	close(undo->fd);
	while (waitpid(undo->pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* ---- what earlier ones left ------------------------------------------------------------------------ */

int um_partial_make(int parent, const char *tmp)
{
	struct stat st;
	int fd, err;

	for (;;) {
		if (mkdirat(parent, tmp, 0700) < 0)
			return -errno;
		fd = openat(parent, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && !flock(fd, LOCK_EX) && !fstat(fd, &st) && st.st_nlink)
			return fd;
		err = fd < 0 ? -errno : 0;
		if (fd >= 0)
			close(fd);
		/* Somebody may have taken it for a left-over at that moment: make it again. */
		if (err && err != -ENOENT)
			return err;
	}
}

/* Whoever builds a directory holds its lock. */
static bool is_left_over(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool free = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB);

	/* Once the lock is released its maker may still get to it, but then sees that its directory
	 * is gone. */
	if (fd >= 0)
		close(fd);
	return free;
}

void um_partial_sweep(int parent, const char *name)
{
	char prefix[256];
	struct dirent *de;
	DIR *dir;
	int fd;

	snprintf(prefix, sizeof(prefix), UM_PARTIAL_NAME, name);
	fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((de = readdir(dir))) {
		const char *pid = de->d_name + strlen(prefix);

		if (strncmp(de->d_name, prefix, strlen(prefix)) || !*pid ||
			strspn(pid, "0123456789") != strlen(pid) ||
			!is_left_over(parent, de->d_name))
			continue;
		if (!um_remove_tree(parent, de->d_name))
			um_err(0, "%s of an interrupted clone removed", de->d_name);
	}
	closedir(dir);
}
