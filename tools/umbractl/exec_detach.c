// SPDX-License-Identifier: BSD-3-Clause
/* Passing the listener from the command's process to the supervisor, and the setup of the
 * latter. */
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __NR_close_range
#define __NR_close_range 436
#endif

union fd_control {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int um_receive_listener(int sock, bool *out_killable)
{
	union fd_control control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -EPIPE;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS || cmsg->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	*out_killable = byte;
	return fd;
}

int um_hand_over(int sock, int listener, bool killable)
{
	union fd_control control = {0};
	char byte = killable;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &listener, sizeof(int));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != 1)
		return -errno;
	do
		n = read(sock, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : -EPIPE;
}

/* A search by command line must find the command, not the supervisor that was forked beside it. */
static void set_title(int argc, char **argv)
{
	static const char title[] = "umbractl-supervisor";
	char *begin = program_invocation_name, *end;
	int i;

	if (begin + strlen(begin) + 1 != argv[0])
		begin = argv[0];
	for (i = 1, end = argv[0] + strlen(argv[0]) + 1; i < argc && argv[i] == end; i++)
		end += strlen(argv[i]) + 1;
	memset(begin, 0, (size_t)(end - begin));
	snprintf(begin, (size_t)(end - begin), "%s", title);
	prctl(PR_SET_NAME, "umbractl-superv", 0, 0, 0);
}

static void reset_signals(void)
{
	static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU,
		SIGXFSZ, SIGUSR1, SIGUSR2, SIGALRM};
	sigset_t none;
	size_t i;

	for (i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGCONT, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void raise_limits(void)
{
	static const int limits[] = {RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_CPU};
	struct rlimit rl;
	size_t i;

	for (i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		if (getrlimit(limits[i], &rl))
			continue;
		rl.rlim_cur = rl.rlim_max;
		setrlimit(limits[i], &rl);
	}
}

void um_detach(int *fds, unsigned int n, int argc, char **argv)
{
	unsigned int i;
	int null;

	setsid();
	reset_signals();
	raise_limits();
	if (chdir("/") < 0)
		_exit(1);
	for (i = 0; i < n; i++) {
		fds[i] = fcntl(fds[i], F_DUPFD, 16); /* out of the way of what follows */
		if (fds[i] < 0)
			_exit(1);
	}
	null = open("/dev/null", O_RDWR);
	for (i = 0; i < 3; i++)
		if (null < 0)
			close((int)i);
		else
			dup2(null, (int)i);
	for (i = 0; i < n; i++) {
		if (dup2(fds[i], (int)(3 + i)) < 0)
			_exit(1);
		fds[i] = (int)(3 + i);
	}
	syscall(__NR_close_range, 3 + n, ~0u, 0u);
	set_title(argc, argv);
}
