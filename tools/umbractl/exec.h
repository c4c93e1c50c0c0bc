/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl exec: a command's FICLONE, FICLONERANGE, FIDEDUPERANGE and FS_IOC_FIEMAP, which the
 * kernel never passes to a FUSE server, are intercepted by a seccomp filter and carried out by a
 * supervisor.
 */
#ifndef UMBRACTL_EXEC_H
#define UMBRACTL_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* ioctl(-1, FICLONE, UM_EXEC_PROBE) is answered with UM_EXEC_ANSWER by a supervisor, and by the
 * kernel with EBADF, or with ENOSYS if a supervisor has died. */
#define UM_EXEC_PROBE 0x756d6272u
#define UM_EXEC_ANSWER 0x0065786563l

/* ---- exec_filter.c ---------------------------------------------------------------------------- */

/*
 * Installs the filter on the calling thread and returns its listener, or -errno: -EBUSY if a
 * listener exists already. *out_nnp: no_new_privs had to be set. *out_killable: a caller whose
 * request has been received waits for the answer, except for fatal signals.
 */
/* statfs: notify statfs and fstatfs too, for --as-xfs. */
int um_filter_install(bool statfs, bool *out_nnp, bool *out_killable);

/* ---- exec_supervisor.c ------------------------------------------------------------------------- */

/* One system call of a supervised task. */
struct um_call {
	int listener;
	bool killable; /* see um_filter_install */
	uint64_t id;
	pid_t tid;
	int pidfd;      /* of the task, -1 until um_task_open */
	pid_t proc_tid; /* the task's number in the mounted /proc, 0: not visible there */
	int nr; /* of the system call; SYS_ioctl or, with --as-xfs, SYS_statfs, SYS_fstatfs */
	uint64_t arg0, arg1; /* raw arguments, for the latter */
	unsigned int cmd;
	int fd; /* the task's descriptor */
	uint64_t arg;
	/* The answer: the kernel continues the call itself, or 0, or -errno. */
	bool pass;
	int error;
	int signal; /* sent to the task together with the answer; 0: none */
};

/* Serves the listener until the last task with the filter has ended. Threads may still be working
 * for tasks that were killed: the caller exits. */
void um_supervise(int listener, bool killable);

/* ---- exec_detach.c ------------------------------------------------------------------------------ */

/* Takes the listener that arrives on the socket, or -errno. */
int um_receive_listener(int sock, bool *out_killable);
/* Gives the listener away and waits until it is being served. */
int um_hand_over(int sock, int listener, bool killable);
/* Detaches the supervisor from its caller (terminal, directory, pipes, argument list) and from its
 * limits. The n descriptors are kept and become 3, 4, ...; all others are closed. */
void um_detach(int *fds, unsigned int n, int argc, char **argv);

/* ---- exec_relay.c -------------------------------------------------------------------------------- */

/* Installs the filter, hands its listener over on the socket, executes. Returns an exit code on
 * failure. */
typedef int um_become_fn(void *arg, int sock);
/* Runs become() in a child of the supervisor; returns the exit code or ends by the same signal. */
int um_relay(int argc, char **argv, um_become_fn *become, void *arg);

/* ---- exec_task.c: the task that waits ------------------------------------------------------------ */

/* Does the task still wait for this answer? False also after it was killed. */
bool um_task_waits(const struct um_call *call);
/* Opens the pidfd and finds the task in /proc. */
int um_task_open(struct um_call *call);
/* A duplicate of the task's descriptor fd, or -errno: -ESRCH if the task no longer waits. */
int um_task_getfd(const struct um_call *call, int fd);
/* All of len bytes, or -EFAULT. */
int um_task_read(const struct um_call *call, uint64_t addr, void *buf, size_t len);
int um_task_write(const struct um_call *call, uint64_t addr, const void *buf, size_t len);
/* The task's soft limit of file size. */
uint64_t um_task_fsize_limit(const struct um_call *call);
/* Sends call->signal to the thread. */
void um_task_signal(const struct um_call *call);

#define UM_TASK_GROUPS 65536 /* NGROUPS_MAX */
struct um_task_cred {
	uid_t fsuid;
	gid_t fsgid;
	uint64_t caps; /* effective, 0 if in another user namespace than the supervisor's */
	bool initial;  /* in the initial user namespace */
	gid_t *groups;
	size_t ngroups;
};
int um_task_cred(const struct um_call *call, struct um_task_cred *out);
void um_task_cred_free(struct um_task_cred *cred);
bool um_task_cap(const struct um_task_cred *cred, int cap);
/* Calls fn while this thread has the task's filesystem identity and at most its capabilities to
 * override permissions. Returns its result, or -EPERM if that is not possible. */
int um_task_as(const struct um_task_cred *cred, int (*fn)(void *arg), void *arg);
/* Could that task open fd's file for writing, as the kernel sees it (mode, ACL, flags)? */
bool um_task_may_write(const struct um_task_cred *cred, int fd);

/* ---- exec_remap.c, exec_fiemap.c ------------------------------------------------------------------ */

/* A duplicated descriptor and its properties. */
struct um_file {
	int fd;
	int flags; /* F_GETFL */
	struct stat st;
};
/* -errno if the task has no such descriptor. */
int um_file_get(const struct um_call *call, int fd, struct um_file *out);
void um_file_put(struct um_file *file);
bool um_file_readable(const struct um_file *file);
bool um_file_writable(const struct um_file *file);

/* Each sets call->pass, error and signal. */
void um_do_clone(struct um_call *call);
void um_do_clone_range(struct um_call *call);
void um_do_dedupe(struct um_call *call);
void um_do_fiemap(struct um_call *call);
/* exec_statfs.c */
void um_do_statfs(struct um_call *call);

#endif
