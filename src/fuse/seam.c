/* SPDX-License-Identifier: BSD-3-Clause */
/* The seam between the kernel's FUSE interface and libfuse 3.14. */
#include "fuse/seam.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/door.h"
#include "fuse/message.h"
#include "fuse/proto.h"
#include "fuse/uring.h"
#include "fuse/view.h"

_Thread_local struct um_facts um_facts;

/* A raw request: its header, and what follows it. */
struct raw {
	struct um_mount *m;
	const struct fuse_in_header *in;
	const char *arg;
	size_t len; /* of arg */
};

/* To where the request came from. */
static ssize_t send_reply(const struct um_mount *m, const struct iovec *iov, int count)
{
	if (um_uring_reply(m->uring, iov, count))
		return ((const struct fuse_out_header *)iov[0].iov_base)->len;
	return writev(m->dev, iov, count);
}

static int reply(const struct raw *raw, int err, const void *data, size_t len)
{
	struct fuse_out_header out = {.error = err, .unique = raw->in->unique};
	struct iovec iov[2] = {{&out, sizeof(out)}, {(void *)data, err ? 0 : len}};

	out.len = (uint32_t)(iov[0].iov_len + iov[1].iov_len);
	return send_reply(raw->m, iov, iov[1].iov_len ? 2 : 1) < 0 ? -errno : 0;
}

static struct um_caller caller_of(const struct raw *raw, mode_t umask)
{
	return (struct um_caller){.uid = raw->in->uid,
		.gid = raw->in->gid,
		.pid = (pid_t)raw->in->pid,
		.umask = umask};
}

/* ---- opcodes that libfuse lacks ------------------------------------------------------------------ */

static void fill_attr(const struct stat *st, struct fuse_attr *out)
{
	*out = (struct fuse_attr){
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec,
		.mtime = (uint64_t)st->st_mtim.tv_sec,
		.ctime = (uint64_t)st->st_ctim.tv_sec,
		.atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec,
		.ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev,
		.blksize = (uint32_t)st->st_blksize,
	};
}

static void do_tmpfile(const struct raw *raw)
{
	const struct fuse_create_in *in = (const void *)raw->arg;
	struct um_caller caller;
	struct umbra_attr attr;
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = {0};
	struct fuse_file_info fi = {0};
	struct um_grant grant;
	int err;

	if (raw->len < sizeof(*in)) {
		reply(raw, -EINVAL, NULL, 0);
		return;
	}
	caller = caller_of(raw, in->umask);
	err = um_tmpfile(raw->m, raw->in->nodeid, in->mode, (int)in->flags, &caller, &attr, &fi.fh);
	if (err) {
		reply(raw, err, NULL, 0);
		return;
	}
	fi.flags = (int)in->flags;
	um_views_enter(raw->m->views, attr.st.st_ino, O_RDWR, raw->in->pid, true, &grant);
	um_open_answer(raw->m, attr.st.st_ino, &fi, &grant);
	out.entry.nodeid = attr.st.st_ino;
	out.entry.generation = attr.generation;
	out.entry.entry_valid = out.entry.attr_valid = (uint64_t)UM_FOREVER_SEC;
	fill_attr(&attr.st, &out.entry.attr);
	out.open.fh = fi.fh;
	out.open.open_flags = um_open_bits(&fi) | um_facts.open_flags;
	if (reply(raw, 0, &out, sizeof(out))) {
		um_views_leave(raw->m->views, attr.st.st_ino, grant.seq);
		umbra_file_release(raw->m->fs, attr.st.st_ino, (int)in->flags);
		umbra_forget(raw->m->fs, attr.st.st_ino, 1);
	}
}

static struct um_sx_time sx_time(const struct timespec *ts)
{
	return (struct um_sx_time){.sec = ts->tv_sec, .nsec = (uint32_t)ts->tv_nsec};
}

static void do_statx(const struct raw *raw)
{
	struct um_statx_out out = {.attr_valid = (uint64_t)UM_FOREVER_SEC};
	struct umbra_attr attr;
	const struct stat *st = &attr.st;
	int err = umbra_getattr(raw->m->fs, raw->in->nodeid, &attr);

	if (err) {
		reply(raw, err, NULL, 0);
		return;
	}
	out.stat = (struct um_sx){
		.mask = STATX_BASIC_STATS | STATX_BTIME,
		.blksize = (uint32_t)st->st_blksize,
		.attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mode = (uint16_t)st->st_mode,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = sx_time(&st->st_atim),
		.btime = sx_time(&attr.btime),
		.ctime = sx_time(&st->st_ctim),
		.mtime = sx_time(&st->st_mtim),
		.rdev_major = major(st->st_rdev),
		.rdev_minor = minor(st->st_rdev),
	};
	/* FS_*_FL and STATX_ATTR_* of these three have the same values by design. */
	out.stat.attributes = attr.flags & out.stat.attributes_mask;
	reply(raw, 0, &out, sizeof(out));
}

static void do_copy64(const struct raw *raw)
{
	const struct fuse_copy_file_range_in *in = (const void *)raw->arg;
	struct um_caller caller;
	struct um_copy_out out;
	ssize_t n;

	if (raw->len < sizeof(*in)) {
		reply(raw, -EINVAL, NULL, 0);
		return;
	}
	caller = caller_of(raw, 0);
	n = um_copy(raw->m, &caller, raw->in->nodeid, in->off_in, in->nodeid_out, in->fh_out,
		in->off_out, in->len);
	out.bytes_copied = n < 0 ? 0 : (uint64_t)n;
	reply(raw, n < 0 ? (int)n : 0, &out, sizeof(out));
}

/* Handled here because of the flag in the longer request (SETXATTR_EXT), which 3.14 cannot ask for;
 * it would also misread the shorter one. */
static void do_setxattr(const struct raw *raw)
{
	const struct fuse_setxattr_in *in = (const void *)raw->arg;
	bool ext = raw->m->offered & FUSE_SETXATTR_EXT;
	size_t head = ext ? sizeof(*in) : FUSE_COMPAT_SETXATTR_IN_SIZE;
	const char *name = raw->arg + head;
	const char *end = raw->len > head ? memchr(name, 0, raw->len - head) : NULL;
	bool kill_sgid;

	if (!end || in->size > raw->len - head - (size_t)(end + 1 - name)) {
		reply(raw, -EINVAL, NULL, 0);
		return;
	}
	kill_sgid = ext && (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID);
	reply(raw,
		umbra_setxattr(raw->m->fs, raw->in->nodeid, name, end + 1, in->size, (int)in->flags,
			kill_sgid),
		NULL, 0);
}

/* ---- requests ------------------------------------------------------------------------------------- */

static void note_init(struct um_mount *m, const struct raw *raw)
{
	const struct fuse_init_in *in = (const void *)raw->arg;

	m->offered = 0;
	if (raw->len < 16)
		return;
	m->offered = in->flags;
	if ((in->flags & FUSE_INIT_EXT) && raw->len >= 20)
		m->offered |= (uint64_t)in->flags2 << 32;
	m->writeback = m->opt->writeback && m->offered & FUSE_WRITEBACK_CACHE;
	if (m->opt->writeback && !m->writeback)
		um_message(UMBRA_LOG_WARN, "this kernel has no write-back cache for FUSE");
	um_uring_offer(m);
}

static void note_facts(const struct raw *raw)
{
	um_facts = (struct um_facts){
		.unique = raw->in->unique, .opcode = raw->in->opcode, .tid = raw->in->pid};
	if (raw->in->opcode == FUSE_WRITE && raw->len >= sizeof(struct fuse_write_in))
		um_facts.kill_setid = ((const struct fuse_write_in *)raw->arg)->write_flags &
				      FUSE_WRITE_KILL_SUIDGID;
	else if (raw->in->opcode == FUSE_OPEN && raw->len >= sizeof(struct fuse_open_in))
		um_facts.kill_setid = ((const struct fuse_open_in *)raw->arg)->open_flags &
				      FUSE_OPEN_KILL_SUIDGID;
}

bool um_seam_request(struct um_mount *m, void *buf, size_t len)
{
	struct raw raw = {.m = m, .in = buf};

	if (len < sizeof(*raw.in))
		return true;
	raw.arg = (const char *)buf + sizeof(*raw.in);
	raw.len = len - sizeof(*raw.in);
	note_facts(&raw);
	switch (raw.in->opcode) {
	case FUSE_INIT:
		note_init(m, &raw);
		return false;
	case FUSE_INTERRUPT:
		/* Only clones and trims may take long; file locks, which could wait, are handled by
		 * the kernel. */
		if (raw.len >= sizeof(uint64_t) && m->door)
			um_door_interrupt(m->door, *(const uint64_t *)(const void *)raw.arg);
		return true;
	case FUSE_SETXATTR:
		do_setxattr(&raw);
		return true;
	case UM_OP_SYNCFS:
		reply(&raw, umbra_sync(m->fs), NULL, 0);
		return true;
	case UM_OP_TMPFILE:
		do_tmpfile(&raw);
		return true;
	case UM_OP_STATX:
		do_statx(&raw);
		return true;
	case UM_OP_COPY_FILE_RANGE_64:
		do_copy64(&raw);
		return true;
	default:
		return false;
	}
}

/* ---- replies --------------------------------------------------------------------------------------- */

/* The reply to INIT: what libfuse agreed to, corrected to what we want of what the kernel offers.
 * 3.14 does not know the flags of the second word and forgets PARALLEL_DIROPS. */
static void patch_init(const struct um_mount *m, struct um_init_out *out)
{
	uint64_t want = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT |
			FUSE_INIT_EXT | UM_INIT_DIRECT_IO_ALLOW_MMAP | UM_INIT_HAS_RESEND;
	uint64_t refuse = FUSE_AUTO_INVAL_DATA | FUSE_HANDLE_KILLPRIV | FUSE_POSIX_LOCKS |
			  FUSE_FLOCK_LOCKS | FUSE_WRITEBACK_CACHE;
	uint64_t flags = out->flags | (uint64_t)out->flags2 << 32;

	/* The kernel supports only one of the two. */
	if (m->writeback) {
		want |= FUSE_WRITEBACK_CACHE;
		refuse &= ~(uint64_t)FUSE_WRITEBACK_CACHE;
	} else if (m->opt->share != UM_SHARE_OFF && !m->opt->cache_none) {
		want |= UM_INIT_PASSTHROUGH;
	}
	if (m->uring)
		want |= UM_INIT_OVER_IO_URING;
	if (m->opt->no_handles) {
		want |= UM_INIT_NO_EXPORT_SUPPORT;
		refuse |= FUSE_EXPORT_SUPPORT;
	}
	flags &= ~refuse;
	flags |= want & m->offered;
	out->flags = (uint32_t)flags;
	out->flags2 = flags & FUSE_INIT_EXT ? (uint32_t)(flags >> 32) : 0;
	/* If it is 0 no file of ours is backed by another, and two overlays may be stacked on
	 * us. */
	out->max_stack_depth = flags & UM_INIT_PASSTHROUGH ? 1 : 0;
}

static void patch_open(struct fuse_open_out *out)
{
	out->open_flags |= um_facts.open_flags;
	if (um_facts.backing)
		out->padding = (uint32_t)um_facts.backing;
}

static void patch_reply(struct um_mount *m, struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	size_t off = 0;

	if (count < 2 || out->error || !out->unique || out->unique != um_facts.unique)
		return;
	switch (um_facts.opcode) {
	case FUSE_INIT:
		if (iov[1].iov_len == sizeof(struct um_init_out))
			patch_init(m, iov[1].iov_base);
		break;
	case FUSE_CREATE:
		off = sizeof(struct fuse_entry_out);
		/* fall through */
	case FUSE_OPEN:
		if (iov[1].iov_len == off + sizeof(struct fuse_open_out))
			patch_open((void *)((char *)iov[1].iov_base + off));
		break;
	default:
		break;
	}
}

static ssize_t seam_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	(void)fd; /* m->dev */
	patch_reply(userdata, iov, count);
	return send_reply(userdata, iov, count);
}

static ssize_t seam_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

const struct fuse_custom_io um_seam_io = {.read = seam_read, .writev = seam_writev};
