/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guardian, and how it is started.
 *
 * It is this program again, started by posix_spawn: it inherits nothing of the server's memory, of
 * the pool or its lock, except a page that both have mapped. In it is a robust mutex, held by a
 * thread of the server that does nothing but wait: when that thread is gone the kernel passes the
 * mutex to the guardian with a notice of the death, whereas the process as a whole (to which a
 * pidfd or the end of a pipe refers) exists as long as one thread cannot die. The guardian also
 * holds the abort files of both connections. The server opens them on a fusectl mount of its own;
 * an ordinary user, who owns those of their own connections, where the system has mounted fusectl.
 */
#include "fuse/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/message.h"

#define FUSECTL "/sys/fs/fuse/connections"

/* The guardian's descriptors. */
enum { FD_PULSE = 3, FD_HIDDEN, FD_FRONT, FDS };

/* Mapped by both the server and the guardian. */
struct pulse {
	pthread_mutex_t held; /* by the thread that lives as long as the server */
	bool in_order;        /* the thread released it, at a clean shutdown */
};

struct um_guardian {
	pthread_t alive; /* lives as long as the server */
	pthread_mutex_t lock;
	pthread_cond_t known;
	bool holds; /* alive holds the pulse's mutex */
	int end;    /* eventfd: it is to end */
	int fd;     /* of the page with the pulse */
	struct pulse *pulse;
	pid_t pid;
};

static struct pulse *pulse_map(int fd)
{
	void *map = mmap(NULL, sizeof(struct pulse), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return map == MAP_FAILED ? NULL : map;
}

/* ---- the guardian ------------------------------------------------------------------------------------- */

static void abort_connection(int fd)
{
	/* It fails if the connection is gone already. */
	if (write(fd, "1", 1) < 0 && errno != ENOENT && errno != ENODEV)
		um_message(UMBRA_LOG_ERROR, "a connection could not be ended: %s", strerror(errno));
}

int um_guardian_main(int argc, char **argv)
{
	struct pulse *pulse = pulse_map(FD_PULSE);

	close_range(FD_FRONT + 1, ~0u, 0); /* what was open without close-on-exec */
	um_message_init("umbrafs", false);
	if (argc != 4 || !pulse)
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
	/* EOWNERDEAD if it died. */
	if (pthread_mutex_lock(&pulse->held) == 0 && pulse->in_order)
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

/* Opens the abort file of a connection, on a fusectl mount that appears nowhere. The connection's
 * name is the kernel's internal form of the device number. */
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
	int fs, mnt = -1, err;

	if (geteuid()) {
		mnt = open(FUSECTL, O_PATH | O_DIRECTORY | O_CLOEXEC);
		return mnt < 0 ? -errno : mnt;
	}
	fs = (int)syscall(SYS_fsopen, "fusectl", CLOEXEC);
	err = fs < 0 ? -errno : 0;
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

	pthread_mutex_lock(&g->pulse->held);
	pthread_mutex_lock(&g->lock);
	g->holds = true;
	pthread_cond_signal(&g->known);
	pthread_mutex_unlock(&g->lock);
	while (eventfd_read(g->end, &value) && errno == EINTR)
		;
	g->pulse->in_order = true;
	pthread_mutex_unlock(&g->pulse->held);
	return NULL;
}

static int spawn(struct um_guardian *g, const struct um_mount *m, const int fds[FDS - FD_PULSE])
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
	for (int i = 0; i < FDS - FD_PULSE; i++)
		posix_spawn_file_actions_adddup2(&actions, fds[i], FD_PULSE + i);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	err = posix_spawn(&g->pid, "/proc/self/exe", &actions, &attr, argv, envp);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

/* Moves a descriptor out of the range that the guardian will use. */
static int move_up(int fd)
{
	int up = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 16);

	if (fd >= 0)
		close(fd);
	return up;
}

static int open_and_spawn(struct um_guardian *g, const struct um_mount *m, unsigned hidden_minor)
{
	int fds[FDS - FD_PULSE] = {-1, -1, -1};
	int ctl = open_fusectl();
	int err = ctl < 0 ? ctl : 0;

	if (!err) {
		fds[FD_HIDDEN - FD_PULSE] =
			move_up(hidden_minor ? open_abort(ctl, 0, hidden_minor)
					     : open_abort(ctl, m->major, m->minor));
		fds[FD_FRONT - FD_PULSE] = move_up(open_abort(ctl, m->major, m->minor));
		fds[0] = move_up(fcntl(g->fd, F_DUPFD_CLOEXEC, 0));
		for (int i = 0; i < FDS - FD_PULSE && !err; i++)
			if (fds[i] < 0)
				err = -ENOTSUP;
		close(ctl);
	}
	if (!err)
		err = spawn(g, m, fds);
	for (int i = 0; i < FDS - FD_PULSE; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return err;
}

static int pulse_new(struct um_guardian *g)
{
	pthread_mutexattr_t attr;
	int err;

	g->fd = memfd_create("umbrafs-pulse", MFD_CLOEXEC);
	if (g->fd < 0 || ftruncate(g->fd, sizeof(struct pulse)))
		return -errno;
	g->pulse = pulse_map(g->fd);
	if (!g->pulse)
		return -ENOMEM;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	err = -pthread_mutex_init(&g->pulse->held, &attr);
	pthread_mutexattr_destroy(&attr);
	return err;
}

static void guardian_free(struct um_guardian *g)
{
	if (g->end >= 0)
		close(g->end);
	if (g->pulse)
		munmap(g->pulse, sizeof(*g->pulse));
	if (g->fd >= 0)
		close(g->fd);
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->known);
	free(g);
}

int um_guardian_start(struct um_mount *m, unsigned hidden_minor, struct um_guardian **out)
{
	struct um_guardian *g;
	int err;

	*out = NULL;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->fd = -1;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->known, NULL);
	g->end = eventfd(0, EFD_CLOEXEC);
	err = g->end < 0 ? -errno : pulse_new(g);
	if (!err)
		err = -pthread_create(&g->alive, NULL, stay_alive, g);
	if (err) {
		guardian_free(g);
		return err;
	}
	pthread_setname_np(g->alive, "umbrafs-alive");
	pthread_mutex_lock(&g->lock);
	while (!g->holds)
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
	eventfd_write(g->end, 1);
	pthread_join(g->alive, NULL);
	while (g->pid > 0 && waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
		;
	guardian_free(g);
}
