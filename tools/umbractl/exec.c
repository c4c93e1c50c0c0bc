// SPDX-License-Identifier: BSD-3-Clause
/*
 * umbractl exec: starts the supervisor and becomes the command.
 *
 * The original process installs the filter, hands its listener to the supervisor, a detached
 * process that it forked before, and executes the command itself. So the command's parent, process
 * group, terminal, signals and exit status are really those it has without the wrapper; and
 * background processes that outlive the command are still served, until the last one ends.
 *
 * Where that arrangement is forbidden, exec_relay.c has another one.
 */
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "umbractl.h"

/* As in env(1), nohup(1) and timeout(1). */
#define EXIT_OWN_FAILURE 125
#define EXIT_CANNOT_EXECUTE 126
#define EXIT_NOT_FOUND 127

struct command {
	char **argv;
	bool verbose;
	bool as_xfs;
};

static void __attribute__((noreturn)) supervisor(int sock, int argc, char **argv)
{
	bool killable;
	int listener;

	um_detach(&sock, 1, argc, argv);
	listener = um_receive_listener(sock, &killable);
	if (listener < 0 || write(sock, "", 1) != 1)
		_exit(1);
	close(sock);
	um_supervise(listener, killable);
	_exit(0);
}

/* Forks the supervisor as nobody's child. Returns this side's end of the socket, or -errno. */
static int start_supervisor(int argc, char **argv)
{
	pid_t middle;
	int sv[2], status = 0, err = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	middle = fork();
	if (!middle) {
		pid_t pid = fork();

		if (!pid)
			supervisor(sv[1], argc, argv);
		_exit(pid < 0);
	}
	if (middle < 0)
		err = -errno;
	close(sv[1]);
	if (middle > 0) {
		while (waitpid(middle, &status, 0) < 0 && errno == EINTR)
			;
		/* An ignored SIGCHLD leaves no status; a missing supervisor is noticed at the
		 * handover. */
		if (status)
			err = -EAGAIN;
	}
	if (err)
		close(sv[0]);
	return err ? err : sv[0];
}

/* Yama's restriction on inspecting other processes of an ordinary user: 0: only credentials
 * count. */
static int ptrace_scope(void)
{
	int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC);
	char scope = '0';

	if (fd < 0)
		return 0;
	if (read(fd, &scope, 1) != 1)
		scope = '0';
	close(fd);
	return scope - '0';
}

/* Is this process served by a supervisor already? -ENOSYS: it was, and the supervisor has died. */
static int outer_supervisor(void)
{
	long r = ioctl(-1, FICLONE, UM_EXEC_PROBE);

	if (r == UM_EXEC_ANSWER)
		return 1;
	return r < 0 && errno == ENOSYS ? -ENOSYS : 0;
}

static int explain_filter(int err)
{
	if (err == -EBUSY)
		um_err(0, "this process already has a seccomp listener, which is not an umbractl "
			  "exec (a container runtime's?); a task can have only one, so the command "
			  "was not started. Run umbractl exec outside of it.");
	else if (err == -EACCES || err == -EPERM)
		um_err(err, "seccomp filters are forbidden here");
	else if (err == -EINVAL || err == -ENOSYS)
		um_err(err, "the kernel lacks seccomp user notification");
	else
		um_err(err, "cannot install the seccomp filter");
	return EXIT_OWN_FAILURE;
}

static int execute(char **argv)
{
	int err;

	execvp(argv[0], argv);
	err = errno;
	um_err(err, "%s", argv[0]);
	return err == ENOENT || err == ENOTDIR ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
}

static int become_command(void *arg, int sock)
{
	struct command *cmd = arg;
	bool nnp, killable;
	int listener, err;

	listener = um_filter_install(cmd->as_xfs, &nnp, &killable);
	if (listener < 0)
		return explain_filter(listener);
	err = um_hand_over(sock, listener, killable);
	close(sock);
	close(listener);
	if (err) {
		um_err(err, "the supervisor did not start");
		return EXIT_OWN_FAILURE;
	}
	if (cmd->verbose)
		um_err(0, "%s",
			nnp ? "supervised; no_new_privs is set: set-user-id programs and "
			      "file capabilities have no effect in the command"
			    : "supervised; set-user-id programs work");
	return execute(cmd->argv);
}

static int supervised(struct command *cmd, int argc, char **argv, bool relay)
{
	int scope = geteuid() ? ptrace_scope() : 0, sock;

	if (scope > 1) {
		um_err(0,
			"kernel.yama.ptrace_scope is %d: an ordinary user's supervisor may not "
			"inspect its command; run it as root, or set the sysctl to 0 or 1",
			scope);
		return EXIT_OWN_FAILURE;
	}
	if (relay || scope)
		return um_relay(argc, argv, become_command, cmd);
	sock = start_supervisor(argc, argv);
	if (sock < 0) {
		um_err(sock, "cannot start the supervisor");
		return EXIT_OWN_FAILURE;
	}
	return become_command(cmd, sock);
}

int um_cmd_exec(int argc, char **argv)
{
	static const struct option longs[] = {{"verbose", no_argument, NULL, 'v'},
		{"relay", no_argument, NULL, 'r'}, {"as-xfs", no_argument, NULL, 'x'},
		{"help", no_argument, NULL, 'h'}, {}};
	struct command cmd = {0};
	bool relay = false;
	int opt, r;

	/* "+": the command's own options are not ours. */
	while ((opt = getopt_long(argc, argv, "+vh", longs, NULL)) != -1) {
		if (opt == 'v') {
			cmd.verbose = true;
		} else if (opt == 'r') {
			relay = true;
		} else if (opt == 'x') {
			cmd.as_xfs = true;
		} else {
			um_usage();
			return EXIT_OWN_FAILURE;
		}
	}
	cmd.argv = argv + optind;
	if (optind == argc) {
		um_usage();
		return EXIT_OWN_FAILURE;
	}
	r = outer_supervisor();
	if (r < 0) {
		um_err(0, "the umbractl exec that this process runs under has lost its supervisor; "
			  "a task cannot have a second one, so the command was not started");
		return EXIT_OWN_FAILURE;
	}
	if (r) {
		if (cmd.verbose)
			um_err(0, "already served by an outer umbractl exec");
		return execute(cmd.argv);
	}
	return supervised(&cmd, argc, argv, relay);
}
