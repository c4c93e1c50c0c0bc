/* SPDX-License-Identifier: BSD-3-Clause */
/* The life cycle of a mount: mounting, INIT, workers, signals, shutdown. */
#include "fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/back.h"
#include "fuse/direct.h"
#include "fuse/door.h"
#include "fuse/late.h"
#include "fuse/message.h"
#include "fuse/mounts.h"
#include "fuse/proto.h"
#include "fuse/remount.h"
#include "fuse/seam.h"
#include "fuse/uring.h"
#include "fuse/view.h"
#include "fuse/worker.h"

#define DRAIN_SEC 10       /* after a signal: time for users of the mount to leave it */
#define READ_AHEAD_KB 2048 /* two requests in flight */

const struct fuse_lowlevel_ops um_ops;

/* ---- INIT ------------------------------------------------------------------------------------------ */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct um_mount *m = userdata;
	const unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_DONT_MASK |
			      FUSE_CAP_POSIX_ACL | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_READDIRPLUS |
			      FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC |
			      FUSE_CAP_ASYNC_DIO | FUSE_CAP_CACHE_SYMLINKS |
			      FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_IOCTL_DIR;

	/* Locks are left to the kernel, where they are exact, can be waited for and be
	 * interrupted. */
	conn->want = want & conn->capable;
	conn->max_write = UM_MAX_IO;
	/* Over io_uring the kernel has a list for each processor of what is beyond the limit, and
	 * may forget it there: none is to be. */
	conn->max_background = m->uring ? 512 : 64;
	conn->congestion_threshold = conn->max_background / 4 * 3;
	conn->time_gran = 1;
	m->inited = true;
}

/* For fuseblk mounts, whose umount(2) waits for this; for others at the end, when nobody waits. */
static void op_destroy(void *userdata)
{
	const struct um_mount *m = userdata;
	int err = m->opt->fuseblk ? umbra_sync(m->fs) : 0;

	if (err)
		um_message(UMBRA_LOG_ERROR, "last commit failed: %s", strerror(-err));
}

const struct fuse_lowlevel_ops um_ops = {
	.init = op_init,
	.destroy = op_destroy,
	.lookup = um_op_lookup,
	.forget = um_op_forget,
	.forget_multi = um_op_forget_multi,
	.getattr = um_op_getattr,
	.setattr = um_op_setattr,
	.readlink = um_op_readlink,
	.mknod = um_op_mknod,
	.mkdir = um_op_mkdir,
	.unlink = um_op_unlink,
	.rmdir = um_op_rmdir,
	.symlink = um_op_symlink,
	.rename = um_op_rename,
	.link = um_op_link,
	.open = um_op_open,
	.read = um_op_read,
	.write = um_op_write,
	.release = um_op_release,
	.fsync = um_op_fsync,
	.opendir = um_op_opendir,
	.readdir = um_op_readdir,
	.fsyncdir = um_op_fsyncdir,
	.statfs = um_op_statfs,
	.getxattr = um_op_getxattr,
	.listxattr = um_op_listxattr,
	.removexattr = um_op_removexattr,
	.create = um_op_create,
	.ioctl = um_op_ioctl,
	.fallocate = um_op_fallocate,
	.readdirplus = um_op_readdirplus,
	.copy_file_range = um_op_copy,
	.lseek = um_op_lseek,
};

/* ---- mounting ---------------------------------------------------------------------------------------- */

/* Appends a word to an option list for libfuse: commas and backslashes are escaped. */
static int list_add(char **list, const char *word, const char *value)
{
	size_t have = *list ? strlen(*list) : 0;
	char *grown = realloc(*list, have + strlen(word) + 2 * (value ? strlen(value) : 0) + 2);
	char *p;

	if (!grown)
		return -ENOMEM;
	*list = grown;
	p = grown + have;
	if (have)
		*p++ = ',';
	p = stpcpy(p, word);
	for (; value && *value; value++) {
		if (*value == ',' || *value == '\\')
			*p++ = '\\';
		*p++ = *value;
	}
	*p = 0;
	return 0;
}

static int mount_list(const struct um_options *opt, const char *source, char **out)
{
	static const struct {
		unsigned long flag;
		const char *on, *off;
	} flags[] = {
		{MS_RDONLY, "ro", "rw"},
		{MS_NOSUID, "nosuid", "suid"},
		{MS_NODEV, "nodev", "dev"},
		{MS_NOEXEC, "noexec", NULL},
		{MS_SYNCHRONOUS, "sync", NULL},
		{MS_DIRSYNC, "dirsync", NULL},
		{MS_NOATIME, "noatime", NULL},
	};
	int err = list_add(out, "fsname=", source);

	if (!err)
		err = list_add(out, "subtype=umbrafs,default_permissions", NULL);
	if (!err && opt->fuseblk)
		err = list_add(out, "blkdev,blksize=4096", NULL);
	if (!err && opt->allow_other)
		err = list_add(out, "allow_other", NULL);
	for (size_t i = 0; !err && i < sizeof(flags) / sizeof(flags[0]); i++) {
		const char *word = opt->ms_flags & flags[i].flag ? flags[i].on : flags[i].off;

		if (word)
			err = list_add(out, word, NULL);
	}
	if (!err && *opt->context)
		err = list_add(out, opt->context, NULL);
	return err;
}

static struct fuse_session *session_new(struct um_mount *m, const char *source)
{
	char name[] = "umbrafs", dash_o[] = "-o", dash_d[] = "-d";
	char *argv[] = {name, dash_o, NULL, dash_d, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(um_message_debug() ? 4 : 3, argv);
	struct fuse_session *se = NULL;

	if (mount_list(m->opt, source, &argv[2]) == 0)
		se = fuse_session_new(&args, &um_ops, sizeof(um_ops), m);
	fuse_opt_free_args(&args);
	free(argv[2]);
	return se;
}

/* mountinfo has the filesystem's device number, so no request to ourselves is needed. */
static void learn_device(struct um_mount *m)
{
	struct um_where where;

	if (um_mounts_at(m->dir, &where))
		return;
	m->major = where.major;
	m->minor = where.minor;
	um_where_clear(&where);
}

/* The kernel's flag, which libfuse does not know (3.14). Until INIT is answered nobody gets as far as
 * a link. The path may lead to another mount by now. */
static int forbid_links(const struct um_mount *m)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSYMFOLLOW};
	struct um_where where;
	int fd, err = um_mounts_open(m->dir, &fd, &where);

	if (err)
		return err;
	if (where.major != m->major || where.minor != m->minor)
		err = -ESTALE;
	else if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)))
		err = -errno;
	if (err)
		um_message(UMBRA_LOG_ERROR, "option nosymfollow: %s",
			err == -EINVAL || err == -ENOSYS ? "this kernel is too old (Linux 5.14)"
							 : strerror(-err));
	um_where_clear(&where);
	close(fd);
	return err;
}

/* Tuning that the kernel permits to privileged servers; without it reads are only smaller. */
static void tune(const struct um_mount *m)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u%s/read_ahead_kb", m->major, m->minor,
		m->opt->fuseblk ? "-fuseblk" : "");
	f = fopen(path, "we");
	if (f) {
		fprintf(f, "%d\n", READ_AHEAD_KB);
		fclose(f);
	}
}

/* Each bound view has a descriptor, and each thread that serves requests over io_uring. */
static void raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

int um_mount_new(struct umbra_fs *fs, const struct um_options *opt, const char *pool,
	const char *source, const char *dir, struct um_mount **out)
{
	struct um_mount *m = calloc(1, sizeof(*m));
	int err;

	*out = NULL;
	if (!m)
		return -ENOMEM;
	*m = (struct um_mount){.fs = fs, .opt = opt, .pool = pool, .dir = dir, .ended = -1};
	m->readonly = m->gated = m->frozen = opt->fs.readonly;
	m->sync = opt->ms_flags & (MS_SYNCHRONOUS | MS_DIRSYNC);
	err = um_gate_new(&m->gate);
	if (err) {
		free(m);
		return err;
	}
	err = -EIO; /* libfuse logs why */
	raise_files();
	m->se = session_new(m, source);
	um_uring_switch_on(m);
	if (!m->se || fuse_session_mount(m->se, dir))
		goto fail;
	m->dev = fuse_session_fd(m->se);
	*out = m;
	err = fuse_session_custom_io(m->se, &um_seam_io, m->dev);
	learn_device(m);
	if (!err && opt->ms_flags & MS_NOSYMFOLLOW)
		err = forbid_links(m);
	if (!err)
		err = um_answer_init(m);
	if (!err)
		um_back_start(m);
	if (!err)
		err = um_door_open(m, &m->door);
	if (!err && m->offered & UM_INIT_DIRECT_IO_ALLOW_MMAP)
		err = um_direct_open(m, &m->direct);
	if (!err) {
		m->ended = eventfd(0, EFD_CLOEXEC);
		err = m->ended < 0 ? -errno : 0;
	}
	if (!err)
		return 0;
	um_message(UMBRA_LOG_ERROR, "cannot serve %s: %s", dir, strerror(-err));
fail:
	*out = NULL;
	um_mount_free(m);
	return err;
}

/* ---- the end ------------------------------------------------------------------------------------------ */

/* Is it unmounted everywhere, so that the mount point may belong to another filesystem by now? */
static bool is_gone(const struct um_mount *m)
{
	struct pollfd dev = {.fd = m->dev};

	return poll(&dev, 1, 0) == 1 && (dev.revents & POLLERR);
}

/*
 * Detaches all mounts of the filesystem, including those of parts of it; open files stay usable. A
 * mount that is covered by another one cannot be reached, and the covering one is not ours to
 * unmount.
 */
static void detach(const struct um_mount *m)
{
	struct um_where *list, there;
	unsigned n;
	int fd;

	if (is_gone(m) || um_mounts_all_of_device(m->major, m->minor, &list, &n))
		return;
	for (unsigned i = 0; i < n; i++) {
		if (!um_where_is_ours(&list[i]) || um_mounts_open(list[i].dir, &fd, &there))
			continue;
		if (there.id == list[i].id)
			um_mounts_detach(fd, &there);
		um_where_clear(&there);
		close(fd);
	}
	um_wheres_free(list, n);
}

/* Waits for the end of the session or for a signal; msec -1: without limit. True: it is the end. */
static bool await_end(const struct um_mount *m, int signals, int msec, int *out_sig)
{
	struct pollfd fds[2] = {
		{.fd = m->ended, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	struct signalfd_siginfo info;
	int n;

	*out_sig = 0;
	do
		n = poll(fds, 2, msec);
	while (n < 0 && errno == EINTR);
	if (n > 0 && (fds[0].revents & POLLIN))
		return true;
	if (n > 0 && read(signals, &info, sizeof(info)) == sizeof(info))
		*out_sig = (int)info.ssi_signo;
	return false;
}

static void serve_until_end(struct um_mount *m, int signals)
{
	int sig;

	if (await_end(m, signals, -1, &sig))
		return;
	um_message(UMBRA_LOG_INFO, "signal %d: unmounting %s", sig, m->dir);
	detach(m);
	if (!await_end(m, signals, DRAIN_SEC * 1000, &sig)) {
		um_message(UMBRA_LOG_WARN, "%s is still used; its users will get errors", m->dir);
		m->ending = true;
		um_back_fetch_all(m);
	}
}

int um_mount_serve(struct um_mount *m, void (*ready)(void *arg), void *arg)
{
	sigset_t set;
	int signals, err;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		return -errno;
	if (geteuid() == 0) {
		/* Memory reclaim by this process must not write to this filesystem. */
		prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
		tune(m);
	}
	err = um_views_start(m, &m->views);
	if (!err)
		err = um_workers_start(m, &m->workers);
	if (!err)
		err = um_uring_start(m->uring);
	if (!err) {
		if (ready)
			ready(arg);
		um_views_guarded(m->views);
		serve_until_end(m, signals);
		um_direct_stop(m->direct);
		um_door_stop(m->door);
	}
	um_uring_stop(m->uring);
	um_workers_stop(m->workers);
	close(signals);
	return err;
}

void um_mount_free(struct um_mount *m)
{
	if (!m)
		return;
	um_direct_close(m->direct);
	um_door_close(m->door);
	um_late_wait(m);
	um_back_stop(m);
	um_views_stop(m->views);
	if (m->se) {
		if (m->dev)
			detach(m);
		/* Otherwise libfuse would unmount by path, and hit what is there now. */
		if (m->dev && is_gone(m))
			fuse_session_unmount(m->se);
		fuse_session_destroy(m->se);
	}
	if (m->ended >= 0)
		close(m->ended);
	um_workers_free(m->workers);
	um_uring_free(m->uring);
	pthread_rwlock_destroy(&m->gate);
	free(m);
}
