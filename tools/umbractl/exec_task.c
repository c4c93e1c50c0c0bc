// SPDX-License-Identifier: BSD-3-Clause
/* The supervised task that waits for an answer: descriptors, memory, credentials, limits. */
#include "exec.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif
#ifndef __NR_faccessat2
#define __NR_faccessat2 439
#endif

bool um_task_waits(const struct um_call *call)
{
	uint64_t id = call->id;

	return !ioctl(call->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id);
}

/*
 * The path of one of the task's files in /proc, by the number that the task has there: the mounted
 * /proc may belong to another pid namespace, in which our number of the task means a different one.
 */
static void proc_path(const struct um_call *call, const char *file, char path[64])
{
	snprintf(path, 64, "/proc/%d/%s", (int)call->proc_tid, file);
}

/* Calls fn for each "Key:\tvalue" line of the file. */
static int read_pairs(
	const char *path, void (*fn)(void *arg, const char *key, char *val), void *arg)
{
	char *line = NULL, *val;
	size_t room = 0;
	FILE *f;

	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (getline(&line, &room, f) > 0) {
		val = strchr(line, ':');
		if (!val)
			continue;
		*val++ = '\0';
		fn(arg, line, val);
	}
	free(line);
	fclose(f);
	return 0;
}

static void take_tgid(void *arg, const char *key, char *val)
{
	if (!strcmp(key, "Tgid"))
		*(pid_t *)arg = (pid_t)strtol(val, NULL, 10);
}

static void take_pid(void *arg, const char *key, char *val)
{
	if (!strcmp(key, "Pid"))
		*(pid_t *)arg = (pid_t)strtol(val, NULL, 10);
}

/* The number in /proc of the task of a pidfd; 0: it is not visible there. */
static pid_t number_in_proc(int pidfd)
{
	char path[64];
	pid_t pid = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	return !read_pairs(path, take_pid, &pid) && pid > 0 ? pid : 0;
}

/* Linux before 6.9: a pidfd of the process. The thread is identified if /proc has the same numbers
 * as we do. */
static int open_process(struct um_call *call)
{
	char path[64];
	pid_t tgid = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)call->tid);
	(void)read_pairs(path, take_tgid, &tgid);
	call->pidfd = tgid > 0 ? (int)syscall(__NR_pidfd_open, tgid, 0) : -1;
	if (call->pidfd < 0)
		return -ESRCH;
	call->proc_tid = number_in_proc(call->pidfd) == tgid ? call->tid : 0;
	return 0;
}

int um_task_open(struct um_call *call)
{
	int err = 0;

	/* The number is that of a thread, which may have a descriptor table of its own. */
	call->pidfd = (int)syscall(__NR_pidfd_open, call->tid, PIDFD_THREAD);
	if (call->pidfd >= 0)
		call->proc_tid = number_in_proc(call->pidfd);
	else
		err = errno == EINVAL ? open_process(call) : -errno;
	if (err)
		return err;
	/* It still waits: so the number meant this task when it was looked up. */
	return um_task_waits(call) ? 0 : -ESRCH;
}

/*
 * The pidfd may come to mean another program: when a thread executes one, the first thread of its
 * process ends and the new program takes over that one's number, perhaps with more privileges and
 * with descriptors of its own. The first thread's calls end before that; so a call that still waits
 * got its own descriptor.
 */
int um_task_getfd(const struct um_call *call, int fd)
{
	int got = (int)syscall(__NR_pidfd_getfd, call->pidfd, fd, 0);

	if (got < 0)
		return -errno;
	if (um_task_waits(call))
		return got;
	close(got);
	return -ESRCH;
}

/* All of len bytes, or -EFAULT. */
int um_task_read(const struct um_call *call, uint64_t addr, void *buf, size_t len)
{
	struct iovec local = {buf, len}, remote = {(void *)(uintptr_t)addr, len};

	if (process_vm_readv(call->tid, &local, 1, &remote, 1, 0) != (ssize_t)len)
		return -EFAULT;
	/* It still waits: what was read was this task's memory. */
	return um_task_waits(call) ? 0 : -ESRCH;
}

/* Do the listed mappings allow the task to write to all of the range? */
static bool is_writable(FILE *maps, uint64_t addr, size_t len)
{
	uint64_t start, end, at = addr;
	char *line = NULL, perms[5];
	size_t room = 0;

	while (at < addr + len && getline(&line, &room, maps) > 0) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, perms) != 3 ||
			end <= at)
			continue;
		if (start > at || perms[1] != 'w')
			break;
		at = end;
	}
	free(line);
	return at >= addr + len;
}

/*
 * Opening these two files pins an address space, not a number that may come to mean another one
 * (see um_task_getfd): if the task still waits after that, it is the one whose address space it is.
 * Unlike the system call, a write to mem does not respect the protection of the task's pages.
 */
int um_task_write(const struct um_call *call, uint64_t addr, const void *buf, size_t len)
{
	char path[64];
	int mem, err = 0;
	FILE *maps;

	if (addr > UINT64_MAX - len)
		return -EFAULT;
	proc_path(call, "mem", path);
	mem = open(path, O_WRONLY | O_CLOEXEC);
	proc_path(call, "maps", path);
	maps = fopen(path, "re");
	if (!um_task_waits(call))
		err = -ESRCH;
	else if (mem < 0 || !maps || !is_writable(maps, addr, len) ||
		 pwrite(mem, buf, len, (off_t)addr) != (ssize_t)len)
		err = -EFAULT;
	if (mem >= 0)
		close(mem);
	if (maps)
		fclose(maps);
	return err;
}

uint64_t um_task_fsize_limit(const struct um_call *call)
{
	uint64_t limit = UINT64_MAX;
	struct rlimit rl;
	char line[256], path[64];
	FILE *f;

	if (!prlimit(call->tid, RLIMIT_FSIZE, NULL, &rl))
		return rl.rlim_cur == RLIM_INFINITY ? UINT64_MAX : rl.rlim_cur;
	/* That is not permitted for another user's task; this file is readable by all. */
	proc_path(call, "limits", path);
	f = fopen(path, "re");
	if (!f)
		return limit;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Max file size %" SCNu64, &limit) == 1)
			break;
	fclose(f);
	return limit;
}

void um_task_signal(const struct um_call *call)
{
	/* To the thread, to which the pidfd refers (before Linux 6.9: to its process). */
	(void)syscall(__NR_pidfd_send_signal, call->pidfd, call->signal, NULL, 0);
}

/* ---- credentials ------------------------------------------------------------------------------- */

struct cred_parse {
	struct um_task_cred *cred;
	int err;
	unsigned int found;
};

static void take_groups(struct cred_parse *p, char *val)
{
	char *save = NULL, *word;

	for (word = strtok_r(val, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save)) {
		gid_t *grown;

		if (p->cred->ngroups == UM_TASK_GROUPS)
			break;
		grown = realloc(p->cred->groups, (p->cred->ngroups + 1) * sizeof(gid_t));
		if (!grown) {
			p->err = -ENOMEM;
			return;
		}
		p->cred->groups = grown;
		grown[p->cred->ngroups++] = (gid_t)strtoul(word, NULL, 10);
	}
	p->found |= 4;
}

static void take_cred(void *arg, const char *key, char *val)
{
	struct cred_parse *p = arg;
	unsigned int real, eff, saved, fs;

	if (!strcmp(key, "Uid") && sscanf(val, "%u %u %u %u", &real, &eff, &saved, &fs) == 4) {
		p->cred->fsuid = fs;
		p->found |= 1;
	} else if (!strcmp(key, "Gid") &&
		   sscanf(val, "%u %u %u %u", &real, &eff, &saved, &fs) == 4) {
		p->cred->fsgid = fs;
		p->found |= 2;
	} else if (!strcmp(key, "Groups")) {
		take_groups(p, val);
	} else if (!strcmp(key, "CapEff")) {
		p->cred->caps = strtoull(val, NULL, 16);
		p->found |= 8;
	}
}

/* The user namespace: the inode number of its file, 0 if that may not be known. */
static uint64_t user_ns(const char *path)
{
	char link[64];
	uint64_t ino = 0;
	ssize_t n;

	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0)
		return 0;
	link[n] = '\0';
	return sscanf(link, "user:[%" SCNu64 "]", &ino) == 1 ? ino : 0;
}

#define INITIAL_USER_NS 0xEFFFFFFDull /* PROC_USER_INIT_INO: part of the kernel's interface */

int um_task_cred(const struct um_call *call, struct um_task_cred *out)
{
	struct cred_parse p = {.cred = out};
	char path[64];
	uint64_t ns;
	int err;

	memset(out, 0, sizeof(*out));
	proc_path(call, "status", path);
	err = read_pairs(path, take_cred, &p);
	if (!err)
		err = p.err;
	if (!err && p.found != 15)
		err = -EPROTO;
	proc_path(call, "ns/user", path);
	ns = user_ns(path);
	out->initial = ns == INITIAL_USER_NS;
	if (!ns || ns != user_ns("/proc/self/ns/user"))
		out->caps = 0;
	if (!err && !um_task_waits(call))
		err = -ESRCH;
	if (err)
		um_task_cred_free(out);
	return err;
}

void um_task_cred_free(struct um_task_cred *cred)
{
	free(cred->groups);
	cred->groups = NULL;
	cred->ngroups = 0;
}

bool um_task_cap(const struct um_task_cred *cred, int cap)
{
	return cred->caps >> cap & 1;
}

/* The supervisor's own, per thread. */
struct own_cred {
	struct __user_cap_data_struct caps[2];
	gid_t *groups;
	int ngroups;
	bool groups_changed;
	uid_t fsuid;
	gid_t fsgid;
};

static struct __user_cap_header_struct cap_header(void)
{
	return (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 0};
}

/* setfsuid returns the previous value and no error: calling it again shows whether it took
 * effect. */
static bool set_fs_ids(uid_t uid, gid_t gid)
{
	setfsgid(gid);
	setfsuid(uid);
	return setfsuid((uid_t)-1) == (int)uid && setfsgid((gid_t)-1) == (int)gid;
}

/*
 * From here to leave_cred this thread, and only it (raw system calls: glibc's wrappers would change
 * all threads), has the task's filesystem identity, and of the capabilities that override
 * permissions at most those of the task.
 */
static bool enter_cred(const struct um_task_cred *cred, struct own_cred *own)
{
	struct __user_cap_header_struct hdr = cap_header();
	struct __user_cap_data_struct caps[2];
	const uint32_t dac = 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER;

	memcpy(caps, own->caps, sizeof(caps));
	caps[0].effective &= ~dac | (uint32_t)cred->caps;
	if (syscall(__NR_setgroups, cred->ngroups, cred->groups) < 0)
		return false;
	own->groups_changed = true;
	if (!set_fs_ids(cred->fsuid, cred->fsgid))
		return false;
	hdr = cap_header();
	return !syscall(__NR_capset, &hdr, caps);
}

static void leave_cred(const struct own_cred *own)
{
	struct __user_cap_header_struct hdr = cap_header();

	/* A thread that cannot regain its own identity must not serve anybody. */
	if (syscall(__NR_capset, &hdr, own->caps) < 0 || !set_fs_ids(own->fsuid, own->fsgid))
		abort();
	if (own->groups_changed && syscall(__NR_setgroups, (size_t)own->ngroups, own->groups) < 0)
		abort();
	hdr = cap_header();
	if (syscall(__NR_capset, &hdr, own->caps) < 0)
		abort();
}

static bool same_groups(const struct um_task_cred *cred, const struct own_cred *own)
{
	/* The kernel keeps groups sorted, so equal sets are equal lists. */
	return cred->ngroups == (size_t)own->ngroups &&
	       (!own->ngroups || !memcmp(cred->groups, own->groups, cred->ngroups * sizeof(gid_t)));
}

int um_task_as(const struct um_task_cred *cred, int (*fn)(void *arg), void *arg)
{
	struct own_cred own = {
		.fsuid = (uid_t)setfsuid((uid_t)-1), .fsgid = (gid_t)setfsgid((gid_t)-1)};
	int err = -EPERM;

	own.ngroups = getgroups(0, NULL);
	if (own.ngroups < 0)
		return -EPERM;
	own.groups = calloc((size_t)own.ngroups + 1, sizeof(gid_t));
	if (!own.groups || getgroups(own.ngroups, own.groups) != own.ngroups)
		goto out;
	/* An ordinary user's supervisor cannot change its identity and seldom needs to. */
	if (geteuid() && cred->fsuid == own.fsuid && cred->fsgid == own.fsgid &&
		same_groups(cred, &own)) {
		err = fn(arg);
	} else {
		struct __user_cap_header_struct hdr = cap_header();
		const uint32_t ids = 1u << CAP_SETUID | 1u << CAP_SETGID;

		if (syscall(__NR_capget, &hdr, own.caps) < 0 ||
			(own.caps[0].effective & ids) != ids)
			goto out;
		if (enter_cred(cred, &own))
			err = fn(arg);
		leave_cred(&own);
	}
out:
	free(own.groups);
	return err;
}

static int may_write(void *arg)
{
	const int *fd = arg;

	return syscall(__NR_faccessat2, *fd, "", W_OK, AT_EACCESS | AT_EMPTY_PATH) ? -errno : 0;
}

bool um_task_may_write(const struct um_task_cred *cred, int fd)
{
	return !um_task_as(cred, may_write, &fd);
}
