// SPDX-License-Identifier: BSD-3-Clause
/*
 * The other arrangement of umbractl exec, for systems where a process may inspect only its
 * descendants (Yama's ptrace_scope 1, for ordinary users): the supervisor is the command's parent,
 * and the original process waits and mirrors the command: it stops, continues, and ends by the same
 * signal or code.
 */
#include "exec.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "umbractl.h"

/* ---- the supervisor's side ---------------------------------------------------------------------- */

struct reaper {
	pid_t command;
	int pidfd; /* of the command */
	int sock;  /* to the process that waits */
};

/* Signals go through a pidfd only: it refers to one process for good, while a number may be reused
 * after the command's end or, were it ever -1, mean every process. */
static void send_to(int pidfd, int sig)
{
	if (pidfd >= 0)
		(void)syscall(__NR_pidfd_send_signal, pidfd, sig, NULL, 0);
}

/* Tells the waiting process what happens to the command, and reaps everything else that becomes a
 * child: orphans of the command, which would otherwise no longer be descendants. */
static void *reap(void *arg)
{
	struct reaper *r = arg;
	bool ended = false;
	int status;

	for (;;) {
		pid_t pid = waitpid(-1, &status, WUNTRACED | WCONTINUED);

		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0)
			return NULL; /* no children: nobody is left to be served */
		if (pid != r->command || ended)
			continue;
		(void)send(r->sock, &status, sizeof(status), MSG_NOSIGNAL);
		ended = WIFEXITED(status) || WIFSIGNALED(status);
		if (ended)
			shutdown(r->sock, SHUT_RDWR);
	}
}

/* If the waiting process is killed, so is the command, as it would be without the wrapper. */
static void *watch(void *arg)
{
	const struct reaper *r = arg;
	char byte;

	while (recv(r->sock, &byte, 1, 0) > 0)
		;
	send_to(r->pidfd, SIGKILL);
	return NULL;
}

static void __attribute__((noreturn)) supervise(int *fds, pid_t command, int argc, char **argv)
{
	static struct reaper r; /* outlives this frame's use by the threads */
	bool killable;
	pthread_t reaper, watcher;
	int listener;

	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	um_detach(fds, 2, argc, argv);
	r = (struct reaper){command, (int)syscall(__NR_pidfd_open, command, 0), fds[1]};
	listener = um_receive_listener(fds[0], &killable);
	if (listener < 0) {
		/* The command's process reported why and ended; its exit code is passed on. */
		reap(&r);
		_exit(1);
	}
	if (pthread_create(&reaper, NULL, reap, &r) || pthread_create(&watcher, NULL, watch, &r) ||
		write(fds[0], "", 1) != 1) {
		send_to(r.pidfd, SIGKILL);
		_exit(1);
	}
	close(fds[0]);
	um_supervise(listener, killable);
	/* The command's end has not been reported yet. */
	pthread_join(reaper, NULL);
	_exit(0);
}

/* ---- the waiting process's side -------------------------------------------------------------------- */

static int relay_to = -1; /* pidfd of the command */

static void forward(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)context;
	/* What the terminal sends, it sends to the command as well. */
	if (info->si_code == SI_USER || info->si_code == SI_QUEUE || info->si_code == SI_TKILL)
		send_to(relay_to, sig);
	errno = saved;
}

static void forward_signals(pid_t command)
{
	static const int forwarded[] = {
		SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT};
	static const int stops[] = {SIGTSTP, SIGTTIN, SIGTTOU};
	struct sigaction sa, old;
	size_t i;

	relay_to = (int)syscall(__NR_pidfd_open, command, 0);
	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = forward;
	sa.sa_flags = SA_SIGINFO | SA_RESTART;
	for (i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		if (!sigaction(forwarded[i], NULL, &old) && old.sa_handler != SIG_IGN)
			sigaction(forwarded[i], &sa, NULL);
	/* This process stops when the command has, not by itself. */
	for (i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
		signal(stops[i], SIG_IGN);
}

static int end_as(int status)
{
	struct rlimit none = {0, 0};
	sigset_t set;
	int sig;

	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	sig = WTERMSIG(status);
	setrlimit(RLIMIT_CORE, &none); /* only the command's core dump matters */
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	return 128 + sig;
}

static int imitate(int sock)
{
	int status;
	ssize_t n;

	for (;;) {
		n = recv(sock, &status, sizeof(status), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(status)) {
			um_err(0, "the supervisor has ended");
			return 125;
		}
		if (WIFSTOPPED(status))
			raise(SIGSTOP);
		else if (!WIFCONTINUED(status))
			return end_as(status);
	}
}

int um_relay(int argc, char **argv, um_become_fn *become, void *arg)
{
	int listen_sock[2], wait_sock[2], fds[2];
	pid_t middle, command = -1;
	char go = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, listen_sock) < 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, wait_sock) < 0) {
		um_err(errno, "cannot start the supervisor");
		return 125;
	}
	middle = fork();
	if (!middle) {
		close(wait_sock[0]);
		command = fork();
		if (!command) {
			close(wait_sock[1]);
			close(listen_sock[1]);
			_exit(become(arg, listen_sock[0]));
		}
		if (command < 0 || send(wait_sock[1], &command, sizeof(command), MSG_NOSIGNAL) < 0)
			_exit(1);
		/* Nobody is reaped before the waiting process has its pidfd. */
		if (recv(wait_sock[1], &go, 1, 0) != 1)
			_exit(1);
		fds[0] = listen_sock[1];
		fds[1] = wait_sock[1];
		supervise(fds, command, argc, argv);
	}
	close(listen_sock[0]);
	close(listen_sock[1]);
	close(wait_sock[1]);
	if (middle < 0 || recv(wait_sock[0], &command, sizeof(command), 0) != sizeof(command) ||
		command <= 0) {
		um_err(middle < 0 ? errno : 0, "cannot start the supervisor");
		return 125;
	}
	forward_signals(command);
	if (send(wait_sock[0], &go, 1, MSG_NOSIGNAL) != 1) {
		um_err(errno, "the supervisor has ended");
		return 125;
	}
	return imitate(wait_sock[0]);
}
