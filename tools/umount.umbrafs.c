/* SPDX-License-Identifier: BSD-3-Clause */
/* umount.umbrafs(8): run by umount(8) for fuse.umbrafs. The kernel neither informs a FUSE daemon of
 * an unmount nor waits for it: this program waits until the pool is released. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuse/mounts.h"

enum { EXIT_OK = 0, EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_UMOUNT = 32 };

#define WAIT_SEC 30
#define POLL_MSEC 10

struct helper {
	const char *given;
	struct um_where where;
	char pool[4096]; /* "": unknown */
	bool lazy, force, readonly, verbose;
};

static const char usage_text[] =
	"usage: umount.umbrafs DIR [-f] [-l] [-n] [-r] [-v] [-t TYPE] [-N NAMESPACE]\n";

static const struct option longs[] = {
	{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};

/* An exit status, or -1 to continue. */
static int take_arguments(struct helper *h, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "flnrvRGhVt:N:", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			h->force = true;
			break;
		case 'l':
			h->lazy = true;
			break;
		case 'r':
			h->readonly = true;
			break;
		case 'v':
			h->verbose = true;
			break;
		case 'n': /* there is no mtab */
		case 'R':
		case 'G':
		case 't':
		case 'N': /* umount(8) has entered the namespace */
			break;
		case 'h':
			fputs(usage_text, stdout);
			return EXIT_OK;
		case 'V':
			puts("umount.umbrafs " UM_VERSION);
			return EXIT_OK;
		default:
			fputs(usage_text, stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 1) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	h->given = argv[optind];
	return -1;
}

static int find(struct helper *h)
{
	char *dir;
	int err = um_mounts_resolve(h->given, &dir);

	if (!err)
		err = um_mounts_at(dir, &h->where);
	if (err) {
		fprintf(stderr, "umount.umbrafs: %s: not mounted\n", h->given);
	} else if (!um_where_is_ours(&h->where)) {
		fprintf(stderr, "umount.umbrafs: %s: not a umbrafs\n", h->given);
		err = -EINVAL;
	}
	free(dir);
	return err;
}

/* Before the unmount, since the source is as the user typed it, relative to an unknown
 * directory. */
static void learn_pool(struct helper *h)
{
	if (h->where.source[0] == '/')
		snprintf(h->pool, sizeof(h->pool), "%s", h->where.source);
	else if (um_mounts_ask_pool(h->where.dir, h->pool, sizeof(h->pool)))
		h->pool[0] = 0;
}

static int fusermount(const struct helper *h)
{
	const char *argv[6] = {"fusermount3", "-u"};
	int argc = 2, status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		if (h->lazy)
			argv[argc++] = "-z";
		argv[argc++] = "--";
		argv[argc] = h->where.dir;
		execvp(argv[0], (char **)argv);
		perror("umount.umbrafs: fusermount3");
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECANCELED;
}

static int make_readonly(const char *dir)
{
	unsigned long flags;
	int err = um_mounts_flags(dir, &flags);

	if (err)
		return err;
	if (mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY | flags, NULL))
		return -errno;
	err = um_mounts_say(dir, true, 0);
	return err == -ENXIO ? 0 : err;
}

static int unmount(const struct helper *h)
{
	int flags = UMOUNT_NOFOLLOW | (h->lazy ? MNT_DETACH : 0) | (h->force ? MNT_FORCE : 0);
	int err = umount2(h->where.dir, flags) ? -errno : 0;

	if (err == -EPERM && geteuid() != 0)
		return fusermount(h);
	if (err == -EBUSY && h->readonly && make_readonly(h->where.dir) == 0) {
		fprintf(stderr, "umount.umbrafs: %s is busy: remounted read-only\n", h->given);
		return err;
	}
	if (err)
		fprintf(stderr, "umount.umbrafs: %s: %s\n", h->given, strerror(-err));
	return err;
}

static int await_release(const struct helper *h)
{
	const struct timespec step = {.tv_nsec = POLL_MSEC * 1000000};
	struct um_where other;
	bool used = true;

	/* Mounted a second time: the daemon rightly stays. */
	if (um_mounts_of_device(h->where.major, h->where.minor, &other) == 0 || !h->pool[0]) {
		um_where_clear(&other);
		return EXIT_OK;
	}
	for (int i = 0; i < WAIT_SEC * 1000 / POLL_MSEC; i++) {
		if (um_pool_in_use(h->pool, &used) || !used)
			return EXIT_OK;
		nanosleep(&step, NULL);
	}
	fprintf(stderr,
		"umount.umbrafs: %s is unmounted, but %s is still in use after %d s: "
		"its daemon has not ended\n",
		h->given, h->pool, WAIT_SEC);
	return EXIT_UMOUNT;
}

int main(int argc, char **argv)
{
	struct helper h = {0};
	int status = take_arguments(&h, argc, argv);

	if (status >= 0)
		return status;
	if (find(&h)) {
		um_where_clear(&h.where);
		return EXIT_UMOUNT;
	}
	if (!h.lazy)
		learn_pool(&h);
	if (unmount(&h))
		status = EXIT_UMOUNT;
	else if (h.lazy)
		status = EXIT_OK;
	else
		status = await_release(&h);
	if (h.verbose && status == EXIT_OK)
		printf("umount.umbrafs: %s unmounted\n", h.given);
	um_where_clear(&h.where);
	return status;
}
