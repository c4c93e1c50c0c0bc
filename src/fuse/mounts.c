/* SPDX-License-Identifier: BSD-3-Clause */
/* /proc/self/mountinfo, asking a daemon which pool it serves, and the pool's lock. */
#include "fuse/mounts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define ASK_MSEC 3000 /* time for a daemon to answer which pool it serves */

void um_where_clear(struct um_where *where)
{
	free(where->dir);
	free(where->type);
	free(where->source);
	*where = (struct um_where){0};
}

bool um_where_is_ours(const struct um_where *where)
{
	return where->type &&
	       (strcmp(where->type, UM_FSTYPE) == 0 || strcmp(where->type, UM_FSTYPE_BLOCK) == 0);
}

/* The kernel writes space, tab, newline and backslash as \ooo. In place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
			s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

/* Those of the filesystem: "rw,user_id=0,...". */
static void parse_options(const char *list, struct um_where *out)
{
	const char *user = strstr(list, ",user_id=");

	out->readonly = strncmp(list, "ro", 2) == 0 && (!list[2] || list[2] == ',');
	if (user)
		sscanf(user, ",user_id=%u", &out->user);
}

/* "36 35 98:0 /root /dir options [optional]... - type source options" */
static int parse_line(char *line, struct um_where *out)
{
	char *save = NULL, *field = strtok_r(line, " \n", &save);
	char *found[4] = {NULL, NULL, NULL, NULL}; /* dir, type, source, options */
	unsigned after = 0;

	*out = (struct um_where){.user = ~0u};
	for (unsigned i = 0; field; i++, field = strtok_r(NULL, " \n", &save)) {
		if (i == 0)
			out->id = strtoull(field, NULL, 10);
		else if (i == 2 && sscanf(field, "%u:%u", &out->major, &out->minor) != 2)
			return -EINVAL;
		else if (i == 3)
			out->whole = strcmp(field, "/") == 0;
		else if (i == 4)
			found[0] = field;
		else if (after && after < 4)
			found[after++] = field;
		else if (i > 5 && !after && strcmp(field, "-") == 0)
			after = 1;
	}
	if (after < 2 || !found[0])
		return -EINVAL;
	unescape(found[0]);
	if (found[2])
		unescape(found[2]);
	if (found[3])
		parse_options(found[3], out);
	out->dir = strdup(found[0]);
	out->type = strdup(found[1]);
	out->source = strdup(found[2] ? found[2] : "");
	if (out->dir && out->type && out->source)
		return 0;
	um_where_clear(out);
	return -ENOMEM;
}

typedef bool match_fn(const struct um_where *where, void *arg);

void um_wheres_free(struct um_where *list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		um_where_clear(&list[i]);
	free(list);
}

/* Those that match, the latest first: later mounts lie on top of earlier ones. */
static int find_all(match_fn *match, void *arg, struct um_where **out, unsigned *out_n)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	struct um_where where, *list = NULL, *grown;
	unsigned n = 0;
	char *line = NULL;
	size_t size = 0;
	int err = f ? 0 : -errno;

	while (!err && getline(&line, &size, f) > 0) {
		if (parse_line(line, &where))
			continue;
		if (!match(&where, arg)) {
			um_where_clear(&where);
			continue;
		}
		grown = realloc(list, (n + 1) * sizeof(*list));
		if (!grown) {
			um_where_clear(&where);
			err = -ENOMEM;
			continue;
		}
		list = grown;
		memmove(&list[1], &list[0], n++ * sizeof(*list));
		list[0] = where;
	}
	free(line);
	if (f)
		fclose(f);
	if (err) {
		um_wheres_free(list, n);
		return err;
	}
	*out = list;
	*out_n = n;
	return 0;
}

static int find_last(match_fn *match, void *arg, struct um_where *out)
{
	struct um_where *list;
	unsigned n;
	int err = find_all(match, arg, &list, &n);

	*out = (struct um_where){0};
	if (err)
		return err;
	if (n) {
		*out = list[0];
		list[0] = (struct um_where){0};
	}
	um_wheres_free(list, n);
	return n ? 0 : -ENOENT;
}

static bool match_dir(const struct um_where *where, void *arg)
{
	return strcmp(where->dir, arg) == 0;
}

int um_mounts_at(const char *dir, struct um_where *out)
{
	return find_last(match_dir, (void *)dir, out);
}

static bool match_device(const struct um_where *where, void *arg)
{
	const unsigned *device = arg;

	return where->major == device[0] && where->minor == device[1];
}

int um_mounts_of_device(unsigned major, unsigned minor, struct um_where *out)
{
	unsigned device[2] = {major, minor};

	return find_last(match_device, device, out);
}

int um_mounts_all_of_device(unsigned major, unsigned minor, struct um_where **out, unsigned *out_n)
{
	unsigned device[2] = {major, minor};

	return find_all(match_device, device, out, out_n);
}

static bool match_id(const struct um_where *where, void *arg)
{
	return where->id == *(const uint64_t *)arg;
}

/* What the kernel says about a descriptor needs no request to the filesystem, which may be dead. */
static int mount_id(int fd, uint64_t *out)
{
	char path[40], line[128];
	int err = -ENOENT;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (err && fgets(line, sizeof(line), f))
		if (sscanf(line, "mnt_id: %" SCNu64, out) == 1)
			err = 0;
	fclose(f);
	return err;
}

int um_mounts_open(const char *path, int *out_fd, struct um_where *out)
{
	int fd = open(path, O_PATH | O_CLOEXEC | O_DIRECTORY);
	uint64_t id;
	int err = fd < 0 ? -errno : mount_id(fd, &id);

	*out_fd = -1;
	*out = (struct um_where){0};
	if (!err)
		err = find_last(match_id, &id, out);
	if (!err)
		*out_fd = fd;
	else if (fd >= 0)
		close(fd);
	return err;
}

/* ---- asking a daemon -------------------------------------------------------------------------------- */

static_assert(sizeof(struct um_ioc_info) <= PIPE_BUF && sizeof(struct um_ioc_mount) <= PIPE_BUF,
	"one write, one read");

struct question {
	int dir_fd;
	const char *dir; /* relative to dir_fd */
	unsigned long cmd;
	size_t len; /* of the answer */
};

static void put_question(const void *arg, int to)
{
	const struct question *q = arg;
	char *answer = calloc(1, q->len);
	int fd = openat(q->dir_fd, q->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || !answer || ioctl(fd, q->cmd, answer))
		_exit(1);
	_exit(write(to, answer, q->len) == (ssize_t)q->len ? 0 : 1);
}

/* A process that waits for a request which a hung daemon has read cannot be killed: it is left
 * behind. */
static void reap(pid_t pid)
{
	kill(pid, SIGKILL);
	for (int i = 0; i < 50 && waitpid(pid, NULL, WNOHANG) == 0; i++)
		usleep(2000);
}

typedef void child_fn(const void *arg, int to);

/* Runs fn in a child process: a hung daemon would block the caller. The answer has exactly this
 * length, or there is none. */
static int in_child(child_fn *fn, const void *arg, void *out, size_t len)
{
	struct pollfd answer = {.events = POLLIN};
	int fds[2];
	ssize_t n = 0;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		fn(arg, fds[1]);
	close(fds[1]);
	answer.fd = fds[0];
	if (pid > 0 && poll(&answer, 1, ASK_MSEC) == 1)
		n = read(fds[0], out, len);
	close(fds[0]);
	if (pid > 0)
		reap(pid);
	return n == (ssize_t)len ? 0 : -ENOENT;
}

int um_mounts_ask_pool(const char *dir, char *out, size_t len)
{
	struct um_ioc_info info;
	struct question q = {AT_FDCWD, dir, UM_IOC_INFO, sizeof(info)};
	int err = in_child(put_question, &q, &info, sizeof(info));

	if (err)
		return err;
	info.pool[sizeof(info.pool) - 1] = 0;
	snprintf(out, len, "%s", info.pool);
	return 0;
}

int um_mounts_ask(int dir_fd, struct um_ioc_mount *out)
{
	struct question q = {dir_fd, ".", UM_IOC_MOUNT, sizeof(*out)};
	int err = in_child(put_question, &q, out, sizeof(*out));

	if (!err)
		out->options[sizeof(out->options) - 1] = 0;
	return err;
}

/* The kernel may still answer for a dead mount from its caches; only STATFS always goes to the
 * daemon. */
static void put_end(const void *arg, int to)
{
	struct statvfs now;
	int err = fstatvfs(*(const int *)arg, &now) ? errno : 0;

	_exit(write(to, &err, sizeof(err)) != sizeof(err));
}

bool um_mounts_dead(int fd)
{
	int err;

	/* The other two: a request that was under way when it died; -ECANCELED over io_uring. */
	return in_child(put_end, &fd, &err, sizeof(err)) == 0 &&
	       (err == ENOTCONN || err == ECONNABORTED || err == ECANCELED);
}

int um_mounts_say(const char *dir, bool readonly, uint32_t sync)
{
	struct um_ioc_remount say = {.readonly = readonly, .sync = sync};
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno == EACCES ? -ENXIO : -errno;
	if (ioctl(fd, UM_IOC_REMOUNT, &say))
		err = -errno;
	close(fd);
	return err;
}

#define NOSYMFOLLOW 0x2000u /* ST_NOSYMFOLLOW of the kernel; not every libc has it */

int um_mounts_flags(const char *dir, unsigned long *out)
{
	/* Of these ST_* equal MS_*. */
	const unsigned long same =
		MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS | MS_DIRSYNC;
	struct statvfs now;

	if (statvfs(dir, &now))
		return -errno;
	*out = (now.f_flag & same) | (now.f_flag & NOSYMFOLLOW ? MS_NOSYMFOLLOW : 0);
	return 0;
}

static void put_stat(const void *arg, int to)
{
	struct stat st;

	_exit(stat(arg, &st) || write(to, &st, sizeof(st)) != sizeof(st));
}

/* The path is as whoever mounted it likes, and may lead to where nobody answers. */
static bool same_file(const char *path, const struct stat *st)
{
	struct stat other;

	if (in_child(put_stat, path, &other, sizeof(other)))
		return false;
	if (S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode))
		return (other.st_mode & S_IFMT) == (st->st_mode & S_IFMT) &&
		       other.st_rdev == st->st_rdev;
	return other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

static bool match_pool(const struct um_where *where, void *arg)
{
	char pool[sizeof(((struct um_ioc_info *)0)->pool)];

	if (!um_where_is_ours(where))
		return false;
	/* The source is as the user typed it: a relative one has no meaning here. */
	if (where->source[0] == '/')
		return same_file(where->source, arg);
	return um_mounts_ask_pool(where->dir, pool, sizeof(pool)) == 0 && same_file(pool, arg);
}

int um_mounts_of_pool(const char *path, struct um_where *out)
{
	struct stat st;

	*out = (struct um_where){0};
	if (stat(path, &st))
		return -errno;
	return find_last(match_pool, &st, out);
}

static bool match_whole_pool(const struct um_where *where, void *arg)
{
	return where->whole && match_pool(where, arg);
}

int um_mounts_all_of_pool(const char *path, struct um_where **out, unsigned *out_n)
{
	struct stat st;

	*out = NULL;
	*out_n = 0;
	if (stat(path, &st))
		return -errno;
	return find_all(match_whole_pool, &st, out, out_n);
}

/* ---- the lock ------------------------------------------------------------------------------------------ */

/* A file, a block device or a DAX device. */
static bool may_be_pool(int fd)
{
	char path[64], link[4096], *base;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st))
		return false;
	if (!S_ISCHR(st.st_mode))
		return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/subsystem", major(st.st_rdev),
		minor(st.st_rdev));
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0)
		return false;
	link[n] = 0;
	base = strrchr(link, '/');
	return strcmp(base ? base + 1 : link, "dax") == 0;
}

/* The path may be one that an ordinary user's mount claims for itself, and the caller may be root:
 * what is not a pool is not opened, as opening alone triggers some devices (a watchdog). */
static int open_pool(const char *path)
{
	int at = open(path, O_PATH | O_CLOEXEC), fd;
	char name[32];

	if (at < 0)
		return -errno;
	fd = -ENOTBLK;
	if (may_be_pool(at)) {
		snprintf(name, sizeof(name), "/proc/self/fd/%d", at);
		fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0 && errno == ENOENT) /* no /proc */
			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			fd = -errno;
	}
	close(at);
	return fd;
}

int um_pool_in_use(const char *path, bool *out)
{
	int fd = open_pool(path);

	*out = false;
	if (fd < 0)
		return fd == -ENOTBLK ? 0 : fd;
	if (flock(fd, LOCK_EX | LOCK_NB))
		*out = errno == EWOULDBLOCK;
	close(fd);
	return 0;
}

/* realpath(3) accesses the last component too; here only its parent is resolved. */
static int resolve_parent(char *path, char **out)
{
	char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	char *parent;
	int n;

	if (slash)
		*slash = 0;
	parent = realpath(!slash ? "." : *path ? path : "/", NULL);
	if (!parent)
		return -errno;
	n = asprintf(out, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, base);
	free(parent);
	return n < 0 ? -ENOMEM : 0;
}

int um_mounts_resolve(const char *path, char **out)
{
	char *copy = strdup(path);
	size_t len = strlen(path);
	const char *base;
	char link[1];
	int err;

	*out = NULL;
	if (!copy)
		return -ENOMEM;
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = 0;
	base = strrchr(copy, '/') ? strrchr(copy, '/') + 1 : copy;
	if (!*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0 ||
		readlink(copy, link, sizeof(link)) >= 0) {
		*out = realpath(copy, NULL);
		err = *out ? 0 : -errno;
	} else {
		err = resolve_parent(copy, out);
	}
	free(copy);
	return err;
}

int um_mounts_detach(int fd, const struct um_where *where)
{
	char path[32];
	int status, err;
	pid_t pid;

	/* This leads to what was opened, not along a path that somebody could have changed
	 * meanwhile. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	err = umount2(path, MNT_DETACH) ? -errno : 0;
	if (err != -EPERM)
		return err;
	pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", where->dir,
			(char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : err;
}
