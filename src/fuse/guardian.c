/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guardian, and how it is started.
 *
 * It is this program again, by posix_spawn: nothing of the server's memory, of the pool or its lock goes
 * with it. It holds a pidfd of a thread that does nothing but wait, since a pidfd of the whole process
 * says nothing as long as one thread cannot die; a pipe that says "in order"; and the abort files of both
 * connections, opened by the server on a fusectl mount of its own.
 */
#include "fuse/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/message.h"

#define THREAD_PIDFD O_EXCL /* PIDFD_THREAD, Linux 6.9 */

/* The guardian's descriptors. */
enum { FD_SERVER = 3, FD_PIPE, FD_HIDDEN, FD_FRONT };

struct um_guardian {
	pthread_t alive; /* lives as long as the server */
	pthread_mutex_t lock;
	pthread_cond_t known;
	pid_t tid; /* of alive */
	int end;   /* eventfd: it shall end */
	int pipe;  /* to the guardian */
	pid_t pid;
};

/* ---- the guardian ------------------------------------------------------------------------------------- */

static void abort_connection(int fd)
{
	/* It fails when the connection is gone already. */
	if (write(fd, "1", 1) < 0 && errno != ENOENT && errno != ENODEV)
		um_message(UMBRA_LOG_ERROR, "a connection could not be ended: %s", strerror(errno));
}

int um_guardian_main(int argc, char **argv)
{
	struct pollfd fds[2] = {
		{.fd = FD_SERVER, .events = POLLIN}, {.fd = FD_PIPE, .events = POLLIN}};
	char byte;

	close_range(FD_FRONT + 1, ~0u, 0); /* what was open without close-on-exec */
	um_message_init("umbrafs", false);
	if (argc != 4)
		return 1;
	if (strcmp(argv[3], "syslog") == 0)
		um_message_to_syslog();
	prctl(PR_SET_NAME, UM_GUARDIAN_NAME);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (chdir("/"))
		return 1;
	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return 1;
	if ((fds[1].revents & POLLIN) && read(FD_PIPE, &byte, 1) == 1)
		return 0;
	abort_connection(FD_HIDDEN);
	abort_connection(FD_FRONT);
	um_message(UMBRA_LOG_ERROR,
		"the server of %s (process %s) died; its users get errors until it is mounted "
		"again",
		argv[1], argv[2]);
	return 0;
}

/* ---- starting it ---------------------------------------------------------------------------------------- */

/*
 * The file that ends a connection, on a fusectl mount that appears nowhere. The connection is called by the
 * kernel's own form of the device's number.
 */
static int open_abort(int ctl, unsigned major, unsigned minor)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "%u/abort", major << 20 | minor);
	fd = openat(ctl, path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int open_fusectl(void)
{
	enum { CLOEXEC = 1, CREATE = 6 };
	int fs = (int)syscall(SYS_fsopen, "fusectl", CLOEXEC);
	int mnt = -1, err = fs < 0 ? -errno : 0;

	if (!err && syscall(SYS_fsconfig, fs, CREATE, NULL, NULL, 0))
		err = -errno;
	if (!err) {
		mnt = (int)syscall(SYS_fsmount, fs, CLOEXEC, 0);
		err = mnt < 0 ? -errno : 0;
	}
	if (fs >= 0)
		close(fs);
	return err ? err : mnt;
}

static void *stay_alive(void *arg)
{
	struct um_guardian *g = arg;
	eventfd_t value;

	pthread_mutex_lock(&g->lock);
	g->tid = gettid();
	pthread_cond_signal(&g->known);
	pthread_mutex_unlock(&g->lock);
	while (eventfd_read(g->end, &value) && errno == EINTR)
		;
	return NULL;
}

static int spawn(struct um_guardian *g, const struct um_mount *m, const int fds[4])
{
	char pid[16], name[] = UM_GUARDIAN_NAME, to_syslog[] = "syslog", to_stderr[] = "stderr";
	char *argv[] = {
		name, (char *)m->dir, pid, um_message_syslog() ? to_syslog : to_stderr, NULL};
	char *envp[] = {NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int err;

	snprintf(pid, sizeof(pid), "%d", getpid());
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_RDWR, 0);
	for (int i = 0; i < 4; i++)
		posix_spawn_file_actions_adddup2(&actions, fds[i], FD_SERVER + i);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	err = posix_spawn(&g->pid, "/proc/self/exe", &actions, &attr, argv, envp);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

/* Moves a descriptor out of the way of those that the guardian will have. */
static int move_up(int fd)
{
	int up = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 16);

	if (fd >= 0)
		close(fd);
	return up;
}

static int open_and_spawn(struct um_guardian *g, const struct um_mount *m, unsigned hidden_minor)
{
	int fds[4] = {-1, -1, -1, -1}, pipes[2] = {-1, -1};
	int ctl = open_fusectl();
	int err = ctl < 0 ? ctl : 0;

	if (!err) {
		fds[0] = move_up((int)syscall(SYS_pidfd_open, g->tid, THREAD_PIDFD));
		fds[2] = move_up(hidden_minor ? open_abort(ctl, 0, hidden_minor)
					      : open_abort(ctl, m->major, m->minor));
		fds[3] = move_up(open_abort(ctl, m->major, m->minor));
		if (pipe2(pipes, O_CLOEXEC) == 0)
			fds[1] = move_up(pipes[0]);
		for (int i = 0; i < 4 && !err; i++)
			if (fds[i] < 0)
				err = -ENOTSUP;
		close(ctl);
	}
	if (!err)
		err = spawn(g, m, fds);
	for (int i = 0; i < 4; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	g->pipe = pipes[1];
	return err;
}

int um_guardian_start(struct um_mount *m, unsigned hidden_minor, struct um_guardian **out)
{
	struct um_guardian *g;
	int err;

	*out = NULL;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->pipe = -1;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->known, NULL);
	g->end = eventfd(0, EFD_CLOEXEC);
	err = g->end < 0 ? -errno : -pthread_create(&g->alive, NULL, stay_alive, g);
	if (err) {
		if (g->end >= 0)
			close(g->end);
		free(g);
		return err;
	}
	pthread_setname_np(g->alive, "umbrafs-alive");
	pthread_mutex_lock(&g->lock);
	while (!g->tid)
		pthread_cond_wait(&g->known, &g->lock);
	pthread_mutex_unlock(&g->lock);
	err = open_and_spawn(g, m, hidden_minor);
	if (err)
		um_guardian_stop(g);
	else
		*out = g;
	return err;
}

bool um_guardian_there(struct um_guardian *g)
{
	if (g->pid > 0 && waitpid(g->pid, NULL, WNOHANG) == g->pid)
		g->pid = 0;
	return g->pid > 0;
}

void um_guardian_stop(struct um_guardian *g)
{
	if (!g)
		return;
	if (g->pid > 0) {
		ssize_t n = write(g->pipe, "q", 1);
		pid_t pid;

		do
			pid = n == 1 ? waitpid(g->pid, NULL, 0) : g->pid;
		while (pid < 0 && errno == EINTR);
	}
	if (g->pipe >= 0)
		close(g->pipe);
	eventfd_write(g->end, 1);
	pthread_join(g->alive, NULL);
	close(g->end);
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->known);
	free(g);
}
