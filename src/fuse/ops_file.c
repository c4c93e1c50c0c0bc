/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests on open files. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "fuse/back.h"
#include "fuse/direct.h"
#include "fuse/door.h"
#include "fuse/late.h"
#include "fuse/proto.h"
#include "fuse/seam.h"
#include "fuse/session.h"
#include "fuse/uring.h"
#include "fuse/view.h"
#include "fuse/worker.h"

/* Bytes per request if blocks cannot be shared, so that no request takes long. */
#define COPY_STEP (64ull << 20)

uint64_t um_fh_number(const struct um_mount *m)
{
	uint64_t number;

	do
		number = umbra_open_number(m->fs) & UM_FH_NUMBERS;
	while (!number);
	return number;
}

/* A write error that has not been reported to the descriptor. */
static int error_of(const struct um_mount *m, uint64_t ino, uint64_t fh)
{
	uint64_t now = umbra_open_latest(m->fs);
	uint64_t number = (now & ~UM_FH_NUMBERS) | fh >> UM_FH_SHIFT;

	if (number > now)
		number -= UM_FH_NUMBERS + 1;
	return umbra_open_error(m->fs, ino, number);
}

/*
 * A handle contains what later requests need to know and nothing that could not be recreated: the
 * flags of open(2), UM_FH_KILLCAP, and a number that identifies the open. Pages stay in the page
 * cache from one open to the next; files opened with O_DIRECT, and all of them with cache=none,
 * bypass it, where writers of one file need not wait for each other. The kernel keeps the two
 * coherent.
 */
void um_open_answer(
	struct um_mount *m, uint64_t ino, struct fuse_file_info *fi, const struct um_grant *grant)
{
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;

	fi->fh = ((uint64_t)fi->flags & UM_FH_FLAGS) | (grant->seq ? grant->seq : um_fh_number(m))
							       << UM_FH_SHIFT;
	if (grant->seq) {
		fi->fh |= UM_FH_THROUGH;
		um_facts.open_flags |= UM_FOPEN_PASSTHROUGH;
		um_facts.backing = grant->backing;
		fi->noflush = 1;
		return;
	}
	/*
	 * Before Linux 6.6, which offers this flag, writes past the cache left cached pages
	 * unchanged. There the kernel's own O_DIRECT has to do: it writes one request after the
	 * other, and invalidates. With writeback it does too, as only that path sets times.
	 */
	fi->direct_io = m->opt->cache_none ||
			((fi->flags & O_DIRECT) && (m->offered & UM_INIT_DIRECT_IO_ALLOW_MMAP) &&
				!m->writeback);
	/*
	 * Without KEEP_CACHE the kernel drops the pages of the file, also those that others are
	 * writing just now: whoever reads such a page before the write has arrived here gets the
	 * old content, which stays. And what a direct read whose buffer is a mapping puts there is
	 * lost. So a file that is opened past the cache keeps its pages. The kernel and direct.c
	 * keep them coherent; with cache=none older kernels do not.
	 */
	fi->keep_cache =
		!grant->stale && (!fi->direct_io || (m->offered & UM_INIT_DIRECT_IO_ALLOW_MMAP));
	fi->noflush = 1; /* nothing here depends on close(2) */
	if (!fi->direct_io)
		return;
	um_facts.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
	/* Buffered writes make the kernel remove it, direct ones do not. */
	if (writes && umbra_getxattr(m->fs, ino, "security.capability", NULL, 0) > 0)
		fi->fh |= UM_FH_KILLCAP;
}

uint32_t um_open_bits(const struct fuse_file_info *fi)
{
	return (fi->direct_io ? FOPEN_DIRECT_IO : 0u) | (fi->keep_cache ? FOPEN_KEEP_CACHE : 0u) |
	       (fi->noflush ? FOPEN_NOFLUSH : 0u);
}

/* Opening may have updated the access time, which the kernel does not expect. */
static void note_atime(struct um_mount *m, uint64_t ino, int flags, const struct timespec *before)
{
	struct umbra_attr attr;

	if ((flags & O_ACCMODE) == O_WRONLY || m->opt->fs.atime == UMBRA_NOATIME || m->readonly ||
		umbra_getattr(m->fs, ino, &attr))
		return;
	if (attr.st.st_atim.tv_sec > before->tv_sec ||
		(attr.st.st_atim.tv_sec == before->tv_sec &&
			attr.st.st_atim.tv_nsec >= before->tv_nsec))
		um_inval_attr(m, ino);
}

/* O_TRUNC of a bound file is carried out on the view, so that its pages go too. */
static int open_file(struct um_mount *m, uint64_t ino, int flags, bool wait, struct um_grant *grant)
{
	bool kill = um_facts.kill_setid;
	struct umbra_attr none = {0};
	int err = um_views_enter(m->views, ino, flags, um_facts.tid, wait, grant);
	bool cut;

	if (err)
		return err;
	cut = grant->fd >= 0 && (flags & O_TRUNC);
	err = umbra_file_open(m->fs, ino, cut ? flags & ~O_TRUNC : flags, kill);
	if (!err && cut) {
		err = ftruncate(grant->fd, 0) ? -errno : 0;
		if (!err && kill)
			err = umbra_setattr(m->fs, ino, &none, UMBRA_SET_KILLPRIV, &none);
		if (err)
			umbra_file_release(m->fs, ino, flags);
	}
	if (err)
		um_views_leave(m->views, ino, grant->seq);
	return err;
}

/* An open that waits for a release. */
struct late_open {
	fuse_req_t req;
	fuse_ino_t ino;
	struct fuse_file_info fi;
};

static void late_open(void *arg);

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, bool wait)
{
	struct um_mount *m = um_of(req);
	struct um_caller caller = um_caller_of(req);
	bool kill = um_facts.kill_setid && um_drops_setid(m, ino, &caller);
	struct late_open *late;
	struct timespec before;
	struct um_grant grant;
	int err;

	clock_gettime(CLOCK_REALTIME_COARSE, &before);
	err = open_file(m, ino, fi->flags, wait, &grant);
	if (err == -EAGAIN && (late = malloc(sizeof(*late)))) {
		*late = (struct late_open){req, ino, *fi};
		um_late(m, late_open, late);
		return;
	}
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	if (kill)
		um_setid_dropped(m, ino, &caller);
	else
		note_atime(m, ino, fi->flags, &before);
	um_open_answer(m, ino, fi, &grant);
	if (fuse_reply_open(req, fi)) {
		umbra_file_release(m->fs, ino, fi->flags);
		um_views_leave(m->views, ino, grant.seq);
	}
}

static void late_open(void *arg)
{
	struct late_open late = *(struct late_open *)arg;

	free(arg);
	do_open(late.req, late.ino, &late.fi, true);
}

void um_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	do_open(req, ino, fi, false);
}

void um_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct um_mount *m = um_of(req);

	/* The flags at open: those in the request may have been changed with fcntl(2). */
	atomic_fetch_add(&m->forgetting, 1);
	umbra_file_release(m->fs, ino, (int)(fi->fh & UM_FH_FLAGS));
	um_views_leave(m->views, ino, um_fh_seq(fi->fh));
	um_door_drop(m->door, ino, fi->fh, NULL);
	if ((fi->fh & O_ACCMODE) != O_RDONLY)
		um_views_stir(m->views, true); /* it may have parted the file from others */
	atomic_fetch_sub(&m->forgetting, 1);
	fuse_reply_err(req, 0);
}

/* Plain files: the reply is sent when the data has arrived, by a thread of the engine. */
struct fetched {
	fuse_req_t req;
	struct um_mount *m;
};

static void on_fetched(void *arg, int err, const struct iovec *iov, unsigned n)
{
	struct fetched *r = arg;

	if (err)
		fuse_reply_err(r->req, -err);
	else
		fuse_reply_iov(r->req, iov, (int)n);
	atomic_fetch_sub(&r->m->fetching, 1);
	free(r);
}

static int fetch(struct um_mount *m, fuse_req_t req, uint64_t ino, size_t size, uint64_t off)
{
	struct fetched *r = size > UM_MAX_IO ? NULL : malloc(sizeof(*r));
	int err;

	if (!r)
		return -EAGAIN;
	*r = (struct fetched){req, m};
	atomic_fetch_add(&m->fetching, 1);
	err = umbra_fetch(m->fs, ino, off, size, um_uring_memory(), on_fetched, r);
	if (err) {
		atomic_fetch_sub(&m->fetching, 1);
		free(r);
	}
	return err;
}

/*
 * Whether a write bypasses the page cache is told by its lock owner, as for reads: the page cache
 * has none. The descriptor's flags are those of this moment, but the kernel chose the way before,
 * and fcntl(2) may have changed O_DIRECT since. A write through the cache holds its pages locked
 * until it is answered: invalidating them first would never end.
 */
static bool is_direct(const struct fuse_file_info *fi)
{
	return !fi->writepage && fi->lock_owner;
}

/* The reply points into the pool. The blocks are not reused before umbra_read_end(), and no lock is
 * held while the kernel copies. */
void um_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct iovec few[UM_MAX_IO / UM_BLOCK + 2], *iov = few;
	unsigned max = sizeof(few) / sizeof(few[0]), n = 0;
	struct um_mount *m = um_of(req);
	size_t len = 0;
	int err;

	/* The page cache has no lock owner; mappings of files opened with O_DIRECT use it too. */
	if (!fi->lock_owner)
		umbra_cache_fills(m->fs, ino);
	err = fetch(m, req, ino, size, (uint64_t)off);
	if (!err)
		return;
	if (err != -EOPNOTSUPP && err != -EAGAIN) {
		fuse_reply_err(req, -err);
		return;
	}
	if (size > UM_MAX_IO) {
		max = (unsigned)(size / UM_BLOCK) + 2;
		iov = calloc(max, sizeof(*iov));
	}
	umbra_read_begin(m->fs);
	err = iov ? umbra_read_iov(m->fs, ino, (uint64_t)off, size, iov, max, &n, &len) : -ENOMEM;
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_iov(req, iov, (int)n);
	umbra_read_end(m->fs);
	if (iov != few)
		free(iov);
}

/* A reply that waits for the medium: as a rule no worker does. */
struct syncing {
	fuse_req_t req;
	struct um_mount *m;
	uint64_t ino, fh;
	ssize_t written; /* bytes for the reply to a write; -1: not a write */
};

/* The result, or an error that has not been reported to this descriptor yet. */
static int outcome(const struct um_mount *m, uint64_t ino, uint64_t fh, int err)
{
	int before = fh ? error_of(m, ino, fh) : 0;

	return before ? before : err;
}

static void on_synced(void *arg, int err)
{
	struct syncing s = *(struct syncing *)arg;

	free(arg);
	err = outcome(s.m, s.ino, s.fh, err);
	if (!err && s.written >= 0)
		fuse_reply_write(s.req, (size_t)s.written);
	else
		fuse_reply_err(s.req, -err);
	atomic_fetch_sub(&s.m->fetching, 1);
}

void um_reply_synced(
	fuse_req_t req, uint64_t ino, uint64_t fh, bool datasync, bool may_wait, ssize_t written)
{
	struct um_mount *m = um_of(req);
	struct syncing *s = malloc(sizeof(*s));
	int err;

	if (s) {
		*s = (struct syncing){req, m, ino, fh, written};
		atomic_fetch_add(&m->fetching, 1);
		umbra_fsync_start(m->fs, ino, datasync, may_wait, on_synced, s);
		return;
	}
	err = outcome(m, ino, fh, umbra_fsync(m->fs, ino, datasync));
	if (!err && written >= 0)
		fuse_reply_write(req, (size_t)written);
	else
		fuse_reply_err(req, -err);
}

static blkcnt_t blocks_of(const struct um_mount *m, uint64_t ino)
{
	struct umbra_attr attr;

	return umbra_getattr(m->fs, ino, &attr) ? 0 : attr.st.st_blocks;
}

/* The kernel keeps the time of what it writes back, and will not send it any more. */
static void set_mtime_owed(struct um_mount *m, uint64_t ino)
{
	struct umbra_attr attr = {0};

	umbra_setattr(m->fs, ino, &attr, UMBRA_SET_MTIME_NOW | UMBRA_SET_OWED, &attr);
}

void um_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	struct um_mount *m = um_of(req);
	struct um_caller caller = um_caller_of(req);
	bool kill = um_facts.kill_setid && um_drops_setid(m, ino, &caller);
	unsigned flags = (fi->flags & O_DSYNC ? UMBRA_WRITE_SYNC : 0) |
			 (fi->writepage ? UMBRA_WRITE_QUIET : 0);
	bool direct = is_direct(fi), back = m->writeback && fi->writepage, sync;
	blkcnt_t blocks = back ? blocks_of(m, ino) : 0;
	ssize_t n;

	/* The kernel does not know that a file is append-only: it lets fcntl(2) remove the flag,
	 * RWF_NOAPPEND circumvent it, and the file be mapped. What it writes back are whole pages. */
	if (fi->fh & O_APPEND && !back)
		flags |= UMBRA_WRITE_OPENED_APPEND;
	if (fi->writepage)
		flags |= back ? UMBRA_WRITE_BACK : UMBRA_WRITE_CACHED;
	if (um_facts.kill_setid)
		flags |= UMBRA_WRITE_KILLPRIV;
	else if (fi->fh & UM_FH_KILLCAP)
		umbra_removexattr(m->fs, ino, "security.capability");
	if (!direct && (!fi->writepage || back))
		umbra_cache_fills(m->fs, ino);
	/* The kernel has turned O_APPEND into an offset, under its lock of the inode. */
	n = umbra_write_start(m->fs, ino, buf, size, (uint64_t)off, flags, &sync);
	if (n == -ENOSPC && m->views) {
		/* An unused view may hold what was removed. */
		um_views_stir(m->views, false);
		um_views_sweep(m->views);
		n = umbra_write_start(m->fs, ino, buf, size, (uint64_t)off, flags, &sync);
	}
	if (n > 0 && back && m->ending)
		set_mtime_owed(m, ino);
	/* Writeback allocates space that the kernel does not know of. */
	if (n >= 0 && back && blocks_of(m, ino) != blocks)
		um_inval_attr(m, ino);
	if (n >= 0 && kill)
		um_setid_dropped(m, ino, &caller);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else if (direct &&
		 um_direct_wrote(m->direct, req, ino, fi->fh, (uint64_t)off, (size_t)n, sync))
		return;
	else if (sync)
		um_reply_synced(req, ino, fi->fh, true, um_worker_may_wait(m), n);
	else
		fuse_reply_write(req, (size_t)n);
}

void um_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	um_views_flush(um_of(req)->views, ino);
	um_reply_synced(req, ino, fi->fh, datasync, um_worker_may_wait(um_of(req)), -1);
}

int um_changed(struct um_mount *m, uint64_t ino, uint64_t fh)
{
	bool sync = fh & O_DSYNC ||
		    atomic_load_explicit(&m->sync, memory_order_relaxed) & MS_SYNCHRONOUS ||
		    umbra_wants_sync(m->fs, ino);

	if (!sync)
		return 0;
	um_views_flush(m->views, ino);
	return outcome(m, ino, fh, umbra_fsync(m->fs, ino, true));
}

void um_op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct um_mount *m = um_of(req);
	struct um_caller caller = um_caller_of(req);
	int fd, err = um_killpriv(m, ino, &caller);

	if (!err && !mode && um_door_fire(m->door, req, ino, fi->fh, (uint64_t)off, (uint64_t)len))
		return;
	if (!err)
		err = um_views_change_begin(m->views, ino, true, &fd);
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	if (fd >= 0)
		err = fallocate(fd, mode, off, len) ? -errno : 0;
	else
		err = umbra_fallocate(m->fs, ino, mode, (uint64_t)off, (uint64_t)len);
	um_views_change_end(m->views, ino, fd);
	if (!err)
		err = um_changed(m, ino, fi->fh);
	fuse_reply_err(req, -err);
}

struct seek {
	fuse_req_t req;
	uint64_t ino, off;
	int whence;
};

static void seek_data(const struct seek *s, int err)
{
	uint64_t out;

	if (!err)
		err = umbra_lseek(um_of(s->req)->fs, s->ino, s->off, s->whence, &out);
	if (err)
		fuse_reply_err(s->req, -err);
	else
		fuse_reply_lseek(s->req, (off_t)out);
}

static void late_seek(void *arg, int err)
{
	struct seek *s = arg;

	if (!err)
		um_back_fetch(um_of(s->req), s->ino);
	seek_data(s, err);
	free(s);
}

/* The kernel asks without having sent its dirty pages. */
void um_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct um_mount *m = um_of(req);
	struct seek now = {req, ino, (uint64_t)off, whence}, *s;

	(void)fi;
	if (!um_back_owed(m, ino)) {
		um_views_flush(m->views, ino);
		seek_data(&now, 0);
		return;
	}
	s = malloc(sizeof(*s));
	if (!s) {
		seek_data(&now, -ENOMEM);
		return;
	}
	*s = now;
	um_door_run(m->door, late_seek, s);
}

/* Copies to a bound file go through its view, which all its readers and mappings use. */
static ssize_t copy_bytes(
	struct um_mount *m, uint64_t src, uint64_t src_off, int fd, uint64_t dst_off, uint64_t len)
{
	size_t size = len < UM_MAX_IO ? (size_t)len : UM_MAX_IO;
	void *buf = malloc(size ? size : 1);
	ssize_t n = buf ? umbra_read(m->fs, src, buf, size, src_off) : -ENOMEM;

	if (n > 0) {
		n = pwrite(fd, buf, (size_t)n, (off_t)dst_off);
		if (n < 0)
			n = -errno;
	}
	free(buf);
	return n;
}

ssize_t um_copy(struct um_mount *m, const struct um_caller *caller, uint64_t src, uint64_t src_off,
	uint64_t dst, uint64_t dst_fh, uint64_t dst_off, uint64_t len)
{
	int err = um_killpriv(m, dst, caller);
	ssize_t n;
	int fd;

	um_views_flush(m->views, src);
	if (!err)
		err = um_views_change_begin(m->views, dst, true, &fd);
	if (err)
		return err;
	if ((src_off ^ dst_off) % UM_BLOCK && len > COPY_STEP)
		len = COPY_STEP;
	if (len > INT64_MAX / 2)
		len = INT64_MAX / 2;
	if (fd >= 0)
		n = copy_bytes(m, src, src_off, fd, dst_off, len);
	else
		n = umbra_copy_range(m->fs, src, src_off, dst, dst_off, len);
	um_views_change_end(m->views, dst, fd);
	if (n > 0)
		err = um_changed(m, dst, dst_fh);
	return err ? err : n;
}

void um_op_copy(fuse_req_t req, fuse_ino_t src, off_t src_off, struct fuse_file_info *src_fi,
	fuse_ino_t dst, off_t dst_off, struct fuse_file_info *dst_fi, size_t len, int flags)
{
	struct um_caller caller = um_caller_of(req);
	ssize_t n = um_copy(um_of(req), &caller, src, (uint64_t)src_off, dst, dst_fi->fh,
		(uint64_t)dst_off, len);

	(void)src_fi, (void)flags;
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}
