/* SPDX-License-Identifier: BSD-3-Clause */
/* /proc/self/mountinfo, the question "which pool is this?", and the pool's lock. */
#include "fuse/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/ioctl.h"

#define ASK_MSEC 3000 /* what a daemon gets to say which pool it serves */

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

/* "36 35 98:0 /root /dir options [optional]... - type source options" */
static int parse_line(char *line, struct um_where *out)
{
	char *save = NULL, *field = strtok_r(line, " \n", &save);
	char *found[3] = {NULL, NULL, NULL}; /* dir, type, source */
	unsigned after = 0;

	*out = (struct um_where){0};
	for (unsigned i = 0; field; i++, field = strtok_r(NULL, " \n", &save)) {
		if (i == 2 && sscanf(field, "%u:%u", &out->major, &out->minor) != 2)
			return -EINVAL;
		if (i == 4)
			found[0] = field;
		else if (after && after < 3)
			found[after++] = field;
		else if (i > 5 && !after && strcmp(field, "-") == 0)
			after = 1;
	}
	if (after < 2 || !found[0])
		return -EINVAL;
	unescape(found[0]);
	if (found[2])
		unescape(found[2]);
	out->dir = strdup(found[0]);
	out->type = strdup(found[1]);
	out->source = strdup(found[2] ? found[2] : "");
	if (out->dir && out->type && out->source)
		return 0;
	um_where_clear(out);
	return -ENOMEM;
}

typedef bool match_fn(const struct um_where *where, void *arg);

/* The last line that matches: later mounts lie on top of earlier ones. */
static int find_last(match_fn *match, void *arg, struct um_where *out)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	struct um_where where;
	char *line = NULL;
	size_t size = 0;
	int err = -ENOENT;

	*out = (struct um_where){0};
	if (!f)
		return -errno;
	while (getline(&line, &size, f) > 0) {
		if (parse_line(line, &where))
			continue;
		if (match(&where, arg)) {
			um_where_clear(out);
			*out = where;
			err = 0;
		} else {
			um_where_clear(&where);
		}
	}
	free(line);
	fclose(f);
	return err;
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

bool um_mounts_have_device(unsigned major, unsigned minor)
{
	unsigned device[2] = {major, minor};
	struct um_where where;
	int err = find_last(match_device, device, &where);

	um_where_clear(&where);
	return err == 0;
}

/* ---- asking a daemon -------------------------------------------------------------------------------- */

static void ask(const char *dir, int to)
{
	struct um_ioc_info info = {0};
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UM_IOC_INFO, &info))
		_exit(1);
	info.pool[sizeof(info.pool) - 1] = 0;
	if (write(to, info.pool, strlen(info.pool)) < 0)
		_exit(1);
	_exit(0);
}

/* A process that waits for a request which a hung daemon has read cannot be killed: it is left behind. */
static void reap(pid_t pid)
{
	kill(pid, SIGKILL);
	for (int i = 0; i < 50 && waitpid(pid, NULL, WNOHANG) == 0; i++)
		usleep(2000);
}

/* In a process of its own: a daemon that hangs would hold whoever asks. */
int um_mounts_ask_pool(const char *dir, char *out, size_t len)
{
	struct pollfd answer = {.events = POLLIN};
	int fds[2];
	ssize_t n = 0;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		ask(dir, fds[1]);
	close(fds[1]);
	answer.fd = fds[0];
	if (pid > 0 && poll(&answer, 1, ASK_MSEC) == 1)
		n = read(fds[0], out, len - 1);
	close(fds[0]);
	if (pid > 0)
		reap(pid);
	if (n <= 0)
		return -ENOENT;
	out[n] = 0;
	return 0;
}

static bool same_file(const char *path, const struct stat *st)
{
	struct stat other;

	if (stat(path, &other))
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
	/* The source is as somebody typed it: a relative one says nothing here. */
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

/*
 * The path may be what an ordinary user's mount says of itself, and the caller root: what is no pool is not
 * opened, as that alone makes some devices (a watchdog) do something.
 */
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

/* realpath(3) asks about the last component too; here only its parent is followed. */
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

int um_mounts_detach(const char *dir)
{
	int err = umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) ? -errno : 0;
	int status;
	pid_t pid;

	if (err != -EPERM)
		return err;
	pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", dir, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : err;
}
