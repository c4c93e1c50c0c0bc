/* SPDX-License-Identifier: BSD-3-Clause */
/* mount.umbrafs(8): run by mount(8) for the types umbrafs and fuse.umbrafs. Starts umbrafs, which
 * returns when the mount answers; a remount is done in the kernel alone. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/ioctl.h"
#include "fuse/mounts.h"
#include "fuse/options.h"

enum { EXIT_OK = 0, EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_MOUNT = 32 };

struct helper {
	const char *pool, *dir;
	char *list; /* options */
	bool fake, sloppy, verbose;
	struct um_options opt;
};

static const char usage_text[] =
	"usage: mount.umbrafs POOL DIR [-f] [-n] [-r] [-s] [-v] [-w] [-t TYPE] [-o OPTIONS]\n";

static int add_options(struct helper *h, const char *more)
{
	char *joined;

	if (asprintf(&joined, "%s%s%s", h->list ? h->list : "", h->list ? "," : "", more) < 0)
		return -ENOMEM;
	free(h->list);
	h->list = joined;
	return 0;
}

static const struct option longs[] = {
	{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};

/* An exit status, or -1 to continue. */
static int take_arguments(struct helper *h, int argc, char **argv)
{
	char msg[256];
	int c, err = 0;

	while (!err && (c = getopt_long(argc, argv, "fnrsvwhVt:o:N:", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			h->fake = true;
			break;
		case 's':
			h->sloppy = true;
			break;
		case 'v':
			h->verbose = true;
			break;
		case 'r':
		case 'w':
			err = add_options(h, c == 'r' ? "ro" : "rw");
			break;
		case 'o':
			err = add_options(h, optarg);
			break;
		case 'n': /* there is no mtab */
		case 't':
		case 'N': /* mount(8) has entered the namespace */
			break;
		case 'h':
			fputs(usage_text, stdout);
			return EXIT_OK;
		case 'V':
			puts("mount.umbrafs " UM_VERSION);
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
	h->pool = argv[optind];
	h->dir = argv[optind + 1];
	if (!err)
		err = um_options_parse(
			&h->opt, h->list ? h->list : "", h->sloppy, msg, sizeof(msg));
	if (err) {
		fprintf(stderr, "mount.umbrafs: %s\n", err == -EINVAL ? msg : strerror(-err));
		return EXIT_USAGE;
	}
	return -1;
}

/* ---- remount --------------------------------------------------------------------------------------- */

/* Options that can only be chosen when the filesystem is mounted are ignored, with a warning. */
static void warn_of_options(const struct helper *h, const char *dir)
{
	struct um_ioc_mount answer;
	struct um_options have;
	char word[256];
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	um_options_init(&have, true);
	have.allow_other = false;
	if (fd < 0 || um_mounts_ask(fd, &answer) ||
		um_options_parse(&have, answer.options, true, word, sizeof(word)))
		goto end;
	/* The kernel handles these itself, and shows "relatime" for what it leaves to the
	 * daemon. */
	have.ms_flags = h->opt.ms_flags;
	if (h->opt.fs.atime == UMBRA_RELATIME)
		have.fs.atime = UMBRA_RELATIME;
	if (um_options_differ(&have, h->list ? h->list : "", word, sizeof(word)))
		fprintf(stderr,
			"mount.umbrafs: %s: %s is passed over: that is chosen when the filesystem "
			"is "
			"mounted\n",
			h->dir, word);
end:
	if (fd >= 0)
		close(fd);
}

static uint32_t sync_bits(unsigned long flags)
{
	return (flags & MS_SYNCHRONOUS ? UM_REMOUNT_SYNC : 0) |
	       (flags & MS_DIRSYNC ? UM_REMOUNT_DIRSYNC : 0);
}

/*
 * The kernel remounts by itself and does not inform the daemon: that is done here, before the first
 * possible write, and after the last. -EROFS, -EACCES: the pool cannot be written. If the daemon
 * cannot become read-only nobody writes any more, except access times.
 */
static int change(const struct helper *h, const char *dir, unsigned long flags)
{
	uint32_t sync = sync_bits(flags) | UM_REMOUNT_NAMES(sync_bits(h->opt.ms_named));
	int err = flags & MS_RDONLY ? 0 : um_mounts_say(dir, false, sync);

	if (err == -ENXIO) {
		err = 0; /* an ordinary user's pool: the kernel's flag has to suffice */
	} else if (err == -EBUSY) {
		fprintf(stderr,
			"mount.umbrafs: %s stays read-only: another process is looking at the "
			"pool\n",
			h->dir);
	} else if (err) {
		fprintf(stderr,
			"mount.umbrafs: %s stays read-only: the pool cannot be written: %s\n",
			h->dir, strerror(-err));
	}
	if (err)
		return err;
	if (mount(NULL, dir, NULL, MS_REMOUNT | flags, NULL)) {
		err = -errno;
		fprintf(stderr, "mount.umbrafs: remounting %s: %s\n", h->dir, strerror(-err));
	} else if (flags & MS_RDONLY && !(flags & MS_BIND)) {
		err = um_mounts_say(dir, true, sync);
		if (err == -ENXIO)
			err = 0;
		else if (err)
			fprintf(stderr,
				"mount.umbrafs: %s is read-only, but not all is on the medium: "
				"%s\n",
				h->dir, strerror(-err));
	}
	return err;
}

static int remount(const struct helper *h)
{
	unsigned long flags, now;
	struct um_where where;
	char *dir;
	int err = um_mounts_resolve(h->dir, &dir);

	if (!err)
		err = um_mounts_at(dir, &where);
	if (err || !um_where_is_ours(&where)) {
		fprintf(stderr, "mount.umbrafs: %s: no umbrafs is mounted there\n", h->dir);
		free(dir);
		return EXIT_MOUNT;
	}
	/* Flags that no option names stay as they are. */
	flags = h->opt.ms_flags & h->opt.ms_named;
	if (um_mounts_flags(dir, &now) == 0) {
		flags |= now & ~h->opt.ms_named;
		/*
		 * A mount that is read-only by itself stays so, and the filesystem stays as it is
		 * for its other mounts: mount(8) passes all options that a mount has, so "ro" may
		 * be nobody's wish.
		 */
		if (flags & now & MS_RDONLY && !where.readonly)
			flags |= MS_BIND;
	}
	um_where_clear(&where);
	if (!h->fake) {
		warn_of_options(h, dir);
		err = change(h, dir, flags);
	}
	free(dir);
	return err ? EXIT_MOUNT : EXIT_OK;
}

/* ---- mount ------------------------------------------------------------------------------------------- */

static int check_only(const struct helper *h)
{
	struct stat st;

	if (access(h->pool, R_OK) || stat(h->dir, &st)) {
		fprintf(stderr, "mount.umbrafs: %s on %s: %s\n", h->pool, h->dir, strerror(errno));
		return EXIT_MOUNT;
	}
	if (!S_ISDIR(st.st_mode)) {
		fprintf(stderr, "mount.umbrafs: %s: not a directory\n", h->dir);
		return EXIT_MOUNT;
	}
	return EXIT_OK;
}

/* The umbrafs that was installed or built with this program, or else the one in the path. */
static int run_daemon(const struct helper *h)
{
	static const char *const beside[] = {"../bin/umbrafs", "umbrafs"};
	char own[4096], path[4160];
	char *argv[9];
	int argc = 0;
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);

	argv[argc++] = (char *)"umbrafs";
	argv[argc++] = (char *)"-m";
	if (h->sloppy)
		argv[argc++] = (char *)"-s";
	argv[argc++] = (char *)"-o";
	argv[argc++] = h->list ? h->list : (char *)"defaults";
	argv[argc++] = (char *)"--";
	argv[argc++] = (char *)h->pool;
	argv[argc++] = (char *)h->dir;
	argv[argc] = NULL;
	close_range(3, ~0u, 0);
	if (n > 0) {
		own[n] = 0;
		dirname(own);
		for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
			snprintf(path, sizeof(path), "%s/%s", own, beside[i]);
			execv(path, argv);
		}
	}
	execvp("umbrafs", argv);
	fprintf(stderr, "mount.umbrafs: umbrafs cannot be started: %s\n", strerror(errno));
	return EXIT_SYSTEM;
}

int main(int argc, char **argv)
{
	struct helper h = {0};
	int status;

	um_options_init(&h.opt, geteuid() == 0);
	status = take_arguments(&h, argc, argv);
	if (status < 0 && h.verbose)
		fprintf(stderr, "mount.umbrafs: %s on %s, options %s\n", h.pool, h.dir,
			h.list ? h.list : "none");
	if (status < 0 && h.opt.remount)
		status = remount(&h);
	else if (status < 0)
		status = h.fake ? check_only(&h) : run_daemon(&h);
	free(h.list);
	return status;
}
