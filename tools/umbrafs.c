/* SPDX-License-Identifier: BSD-3-Clause */
/* umbrafs(8): mounts a pool and serves it. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuse/guardian.h"
#include "fuse/message.h"
#include "fuse/mounts.h"
#include "fuse/second.h"
#include "fuse/session.h"

/* As mount(8). */
enum { EXIT_OK = 0, EXIT_USAGE = 1, EXIT_MOUNT = 32 };

#define WAIT_SEC 30 /* for a pool that is in use */
#define WAIT_STEP_MSEC 25

struct run {
	struct um_options opt;
	const char *source; /* the pool as it was given */
	const char *target; /* the mount point as it was given */
	char *pool, *dir;   /* the same, absolute */
	char list[8192];    /* the options as they were given */
	bool foreground, debug, sloppy;
	bool again;  /* if the pool is already mounted, mount it here too */
	bool second; /* it is already mounted */
	int report;  /* pipe to the process that waits for the mount, or -1 */
};

static const char usage_text[] = "usage: umbrafs [-f] [-d] [-m] [-s] [-o OPTIONS] POOL MOUNTPOINT\n"
				 "       umbrafs -h | -V\n"
				 "Mounts the pool and serves it in the background.\n"
				 "  -f  stay in the foreground, log to standard error\n"
				 "  -d  as -f, and show every request\n"
				 "  -m  a pool that is mounted already: mount it here as well\n"
				 "  -s  ignore unknown options\n"
				 "  -o  mount options, see umbrafs(8)\n";

/* ---- the command line --------------------------------------------------------------------------- */

static int take_options(struct run *run)
{
	char msg[256];
	int err = um_options_parse(&run->opt, run->list, run->sloppy, msg, sizeof(msg));

	if (err)
		fprintf(stderr, "umbrafs: %s\n", err == -EINVAL ? msg : strerror(-err));
	return err;
}

static const struct option longs[] = {
	{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};

/* An exit status, or -1 to go on. */
static int take_arguments(struct run *run, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "fdmso:hV", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			run->foreground = true;
			break;
		case 'd':
			run->foreground = run->debug = true;
			break;
		case 'm':
			run->again = true;
			break;
		case 's':
			run->sloppy = true;
			break;
		case 'o':
			if (strlen(run->list) + strlen(optarg) + 2 > sizeof(run->list)) {
				fprintf(stderr, "umbrafs: the options are too long\n");
				return EXIT_USAGE;
			}
			strcat(strcat(run->list, optarg), ",");
			break;
		case 'h':
			fputs(usage_text, stdout);
			return EXIT_OK;
		case 'V':
			puts("umbrafs " UM_VERSION);
			return EXIT_OK;
		default:
			fputs(usage_text, stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 2) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	run->source = argv[optind];
	run->target = argv[optind + 1];
	if (take_options(run))
		return EXIT_USAGE;
	if (run->opt.remount) {
		fprintf(stderr, "umbrafs: remounting is for mount(8): mount -o remount,... %s\n",
			run->target);
		return EXIT_USAGE;
	}
	return -1;
}

/* ---- what can be known before anything is done ------------------------------------------------- */

/*
 * Removes the stale mount of a daemon that died.
 *
 * The path is resolved once: what is examined is what is unmounted. Directories on the path may
 * belong to other users, who could otherwise redirect root from their dead mount to somebody else's
 * live one in between.
 */
static void clear_dead_mount(const char *target)
{
	struct um_where where;
	int fd, err;

	if (um_mounts_open(target, &fd, &where))
		return;
	if (um_where_is_ours(&where) && um_mounts_dead(fd)) {
		err = um_mounts_detach(fd, &where);
		um_message(err ? UMBRA_LOG_WARN : UMBRA_LOG_INFO, "%s: %s", target,
			err ? "the mount of a daemon that died could not be removed"
			    : "removed the mount of a daemon that died");
	}
	um_where_clear(&where);
	close(fd);
}

static int check_target(struct run *run)
{
	struct stat st;
	int err = 0;

	clear_dead_mount(run->target);
	if (stat(run->target, &st)) {
		err = -errno;
		um_message(UMBRA_LOG_ERROR, "mount point %s: %s", run->target,
			err == -ENOTCONN
				? "a mount whose daemon died is in the way: umount it first"
				: strerror(-err));
		return err;
	}
	if (!S_ISDIR(st.st_mode)) {
		um_message(UMBRA_LOG_ERROR, "mount point %s: not a directory", run->target);
		return -ENOTDIR;
	}
	run->dir = realpath(run->target, NULL);
	return run->dir ? 0 : -errno;
}

static bool in_path(const char *program)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path ? path : "/usr/bin:/bin"), *save = NULL;
	char file[4096];
	bool found = false;

	for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir && !found;
		dir = strtok_r(NULL, ":", &save)) {
		snprintf(file, sizeof(file), "%s/%s", dir, program);
		found = access(file, X_OK) == 0;
	}
	free(copy);
	return found || access("/usr/bin/fusermount3", X_OK) == 0;
}

static int check_fuse(void)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int err = fd < 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	if (err == ENOENT || err == ENODEV || err == ENXIO)
		um_message(UMBRA_LOG_ERROR, "/dev/fuse does not exist: the kernel's fuse module is "
					    "missing (modprobe fuse)");
	else if (err)
		um_message(UMBRA_LOG_ERROR, "/dev/fuse cannot be opened: %s", strerror(err));
	if (!err && geteuid() != 0 && !in_path("fusermount3")) {
		um_message(UMBRA_LOG_ERROR, "fusermount3 was not found, which ordinary users need "
					    "to mount: install fuse3");
		err = ENOENT;
	}
	return -err;
}

/* Is the pool mounted by now? If so this is reported, unless it is just what is wanted. */
static bool is_mounted(const struct run *run)
{
	struct um_where where;

	if (um_mounts_of_pool(run->pool, &where))
		return false;
	if (!run->again)
		um_message(UMBRA_LOG_ERROR,
			"%s is already mounted on %s; to have it on %s as well: mount -t " UM_FSTYPE
			" %s %s",
			run->source, where.dir, run->target, run->source, run->target);
	else if (geteuid() != 0)
		um_message(UMBRA_LOG_ERROR,
			"%s is already mounted on %s; only root can mount it on %s as well",
			run->source, where.dir, run->target);
	um_where_clear(&where);
	return true;
}

/* Refuses a pool that is mounted, or notes that it is; decides about read-only. */
static int check_pool(struct run *run)
{
	bool used;
	int fd, err;

	run->pool = realpath(run->source, NULL);
	if (!run->pool) {
		err = -errno;
		um_message(UMBRA_LOG_ERROR, "%s: %s", run->source, strerror(-err));
		return err;
	}
	err = um_pool_in_use(run->pool, &used);
	if (err) {
		um_message(UMBRA_LOG_ERROR, "%s: %s", run->source, strerror(-err));
		return err;
	}
	if (used && is_mounted(run)) {
		run->second = run->again && geteuid() == 0;
		return run->second ? 0 : -EBUSY;
	}
	if (run->opt.fuseblk) {
		struct stat st;

		if (geteuid() != 0 || stat(run->pool, &st) || !S_ISBLK(st.st_mode)) {
			um_message(UMBRA_LOG_ERROR,
				"option fuseblk is for a pool on a block device, mounted by root");
			return -EINVAL;
		}
	}
	if (run->opt.ms_flags & MS_NOSYMFOLLOW && geteuid() != 0) {
		um_message(UMBRA_LOG_ERROR,
			"option nosymfollow is for root: fusermount3 does not know it");
		return -EINVAL;
	}
	fd = open(run->pool, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
	else if ((errno == EROFS || errno == EACCES || errno == EPERM) && !run->opt.fs.readonly) {
		um_message(UMBRA_LOG_WARN, "%s can only be read: mounting read-only", run->source);
		run->opt.fs.readonly = true;
		run->opt.ms_flags |= MS_RDONLY;
	}
	return 0;
}

/* ---- serving -------------------------------------------------------------------------------------- */

static void to_background(struct run *run)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	um_message_to_syslog();
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	if (write(run->report, "R", 1) != 1)
		um_message(UMBRA_LOG_WARN, "nobody waited for the mount");
	close(run->report);
	run->report = -1;
}

static void ready(void *arg)
{
	struct run *run = arg;

	if (run->report >= 0)
		to_background(run);
	um_message(UMBRA_LOG_INFO, "%s mounted on %s%s", run->pool, run->dir,
		run->opt.fs.readonly ? " read-only" : "");
	if (geteuid() != 0)
		um_message(UMBRA_LOG_INFO,
			"not root: other users have no access, set-id and device "
			"files have no effect, read-ahead stays as it is");
}

static int mount_second(const struct run *run)
{
	const struct um_second want = {run->pool, run->target, run->list, &run->opt};

	return um_second_mount(&want) ? EXIT_MOUNT : EXIT_OK;
}

/* A pool in use that is not mounted belongs to a daemon that is just closing, or just starting if
 * two mounts of the same pool are requested at once. Both are waited for. */
static int await_pool(struct run *run, struct umbra_fs **out)
{
	const struct timespec step = {.tv_nsec = WAIT_STEP_MSEC * 1000000};
	int err = -EBUSY;

	run->opt.fs.try_lock = true;
	for (int i = 0; err == -EBUSY && i < WAIT_SEC * 1000 / WAIT_STEP_MSEC; i++) {
		if (i)
			nanosleep(&step, NULL);
		err = umbra_open(run->pool, &run->opt.fs, out);
		if (err == -EBUSY && i % 8 == 7 && is_mounted(run)) {
			run->second = run->again && geteuid() == 0;
			return err;
		}
	}
	if (err == -EBUSY)
		um_message(UMBRA_LOG_ERROR, "%s: is in use by another process", run->source);
	return err;
}

static int open_pool(struct run *run, struct umbra_fs **out)
{
	int err = await_pool(run, out);

	if (err == -EROFS && !run->opt.fs.readonly) {
		um_message(UMBRA_LOG_WARN, "%s: mounting read-only", run->source);
		run->opt.fs.readonly = true;
		run->opt.ms_flags |= MS_RDONLY;
		err = umbra_open(run->pool, &run->opt.fs, out);
	}
	return err;
}

/* A limit on the size of files is for the files of whoever mounts, not for the pool's. Without the
 * right to lift it the pool must fit. */
static bool lift_file_size_limit(const char *pool)
{
	struct rlimit limit;
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	if (getrlimit(RLIMIT_FSIZE, &limit) ||
		!setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}))
		return true;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
	if (limit.rlim_cur == RLIM_INFINITY || stat(pool, &st) || !S_ISREG(st.st_mode) ||
		(uint64_t)st.st_size <= limit.rlim_cur)
		return true;
	fprintf(stderr,
		"umbrafs: %s: is larger than the limit on the size of files allows: raise that "
		"(ulimit -f unlimited) and mount again\n",
		pool);
	return false;
}

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int serve(struct run *run)
{
	struct um_mount *m;
	struct umbra_fs *fs;
	int err, closed;

	block_signals();
	if (!lift_file_size_limit(run->pool))
		return EXIT_MOUNT;
	err = open_pool(run, &fs);
	if (err && run->second)
		return mount_second(run);
	if (err) /* the engine has reported why */
		return EXIT_MOUNT;
	err = um_mount_new(fs, &run->opt, run->pool, run->source, run->dir, &m);
	if (!err) {
		err = um_mount_serve(m, ready, run);
		um_mount_free(m);
	}
	closed = umbra_close(fs);
	if (closed)
		um_message(UMBRA_LOG_ERROR, "%s: closing failed: %s", run->pool, strerror(-closed));
	else if (!err)
		um_message(UMBRA_LOG_INFO, "%s released", run->pool);
	return err || closed ? EXIT_MOUNT : EXIT_OK;
}

/* The parent's half: waits until the mount answers or the child has reported an error. */
static int await_mount(const struct run *run, pid_t child, int from)
{
	struct stat st;
	char byte;
	ssize_t n;
	int status;

	do
		n = read(from, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1) {
		if (stat(run->dir, &st) == 0)
			return EXIT_OK;
		fprintf(stderr, "umbrafs: %s does not answer: %s\n", run->target, strerror(errno));
		return EXIT_MOUNT;
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_MOUNT;
	if (WIFEXITED(
		    status)) /* 0: another process mounted the pool meanwhile, and now it is here too */
		return WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		fprintf(stderr, "umbrafs: died by signal %d\n", WTERMSIG(status));
	return EXIT_MOUNT;
}

static int serve_in_background(struct run *run)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC)) {
		perror("umbrafs: pipe");
		return EXIT_MOUNT;
	}
	child = fork();
	if (child < 0) {
		perror("umbrafs: fork");
		return EXIT_MOUNT;
	}
	if (child == 0) {
		close(fds[0]);
		run->report = fds[1];
		um_message_quiet();
		setsid();
		if (chdir("/"))
			perror("umbrafs: chdir /");
		return serve(run);
	}
	close(fds[1]);
	return await_mount(run, child, fds[0]);
}

int main(int argc, char **argv)
{
	struct run run = {.report = -1};
	int status;

	if (strcmp(argv[0], UM_GUARDIAN_NAME) == 0)
		return um_guardian_main(argc, argv);
	um_options_init(&run.opt, geteuid() == 0);
	status = take_arguments(&run, argc, argv);
	if (status >= 0)
		return status;
	um_message_init("umbrafs", run.debug);
	/* Nothing of the caller's stays open for as long as the mount lives. */
	close_range(3, ~0u, 0);
	if (check_fuse() || check_pool(&run) || check_target(&run)) {
		status = EXIT_MOUNT;
	} else if (run.second) {
		status = mount_second(&run);
	} else if (run.foreground) {
		status = serve(&run);
	} else {
		status = serve_in_background(&run);
	}
	free(run.pool);
	free(run.dir);
	return status;
}
