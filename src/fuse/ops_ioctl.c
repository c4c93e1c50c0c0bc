/* SPDX-License-Identifier: BSD-3-Clause */
/* Ioctls: inode flags, the filesystem's own (ioctl.h), shutdown. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/ask.h"
#include "fuse/back.h"
#include "fuse/door.h"
#include "fuse/ioctl.h"
#include "fuse/message.h"
#include "fuse/remount.h"
#include "fuse/room.h"
#include "fuse/session.h"
#include "fuse/text.h"
#include "fuse/view.h"

/* FS_IOC_SHUTDOWN, also known as XFS_IOC_GOINGDOWN. Its number says "read" although it takes its
 * argument in. */
#define UM_IOC_GOINGDOWN _IOR('X', 125, __u32)
#define DEDUPE_STEP (64ull << 20) /* maximum number of bytes compared per request */

struct ioctl_in {
	fuse_req_t req;
	struct um_mount *m;
	uint64_t ino;
	uint64_t fh; /* low bits: open flags */
	unsigned cmd;
	const void *arg; /* the caller's pointer */
	const void *in;  /* what the kernel copied from it */
	size_t in_size, out_size;
};

static bool readable(const struct ioctl_in *io)
{
	return ((int)io->fh & O_ACCMODE) != O_WRONLY;
}

static bool writable(const struct ioctl_in *io)
{
	return ((int)io->fh & O_ACCMODE) != O_RDONLY;
}

static int answer(const struct ioctl_in *io, const void *data, size_t len)
{
	if (len > io->out_size)
		return -EINVAL;
	fuse_reply_ioctl(io->req, 0, data, len);
	return 0;
}

/* ---- inode flags. The kernel has checked who may change them. ------------------------------------- */

static int do_getflags(const struct ioctl_in *io)
{
	struct umbra_attr attr;
	int err = umbra_getattr(io->m->fs, io->ino, &attr);
	uint32_t flags = attr.flags;

	return err ? err : answer(io, &flags, sizeof(flags));
}

static int set_flags(const struct ioctl_in *io, uint32_t flags)
{
	int err = umbra_set_flags(io->m->fs, io->ino, flags);

	if (err)
		return err;
	um_inval_attr(io->m, io->ino); /* the change time */
	return answer(io, NULL, 0);
}

static int do_setflags(const struct ioctl_in *io)
{
	uint32_t flags;

	if (io->in_size < sizeof(flags))
		return -EINVAL;
	memcpy(&flags, io->in, sizeof(flags));
	return set_flags(io, flags);
}

static const struct {
	uint32_t fl, xflag;
} flag_pairs[] = {
	{FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE},
	{FS_APPEND_FL, FS_XFLAG_APPEND},
	{FS_SYNC_FL, FS_XFLAG_SYNC},
	{FS_NOATIME_FL, FS_XFLAG_NOATIME},
	{FS_NODUMP_FL, FS_XFLAG_NODUMP},
};
#define FLAG_PAIRS (sizeof(flag_pairs) / sizeof(flag_pairs[0]))

static int do_fsgetxattr(const struct ioctl_in *io)
{
	struct fsxattr out = {0};
	struct umbra_attr attr;
	int err = umbra_getattr(io->m->fs, io->ino, &attr);

	if (err)
		return err;
	for (size_t i = 0; i < FLAG_PAIRS; i++)
		if (attr.flags & flag_pairs[i].fl)
			out.fsx_xflags |= flag_pairs[i].xflag;
	return answer(io, &out, sizeof(out));
}

static int do_fssetxattr(const struct ioctl_in *io)
{
	struct umbra_attr attr;
	struct fsxattr want;
	uint32_t flags, known = 0;
	int err;

	if (io->in_size < sizeof(want))
		return -EINVAL;
	memcpy(&want, io->in, sizeof(want));
	err = umbra_getattr(io->m->fs, io->ino, &attr);
	if (err)
		return err;
	flags = attr.flags;
	for (size_t i = 0; i < FLAG_PAIRS; i++) {
		known |= flag_pairs[i].xflag;
		flags &= ~flag_pairs[i].fl;
		if (want.fsx_xflags & flag_pairs[i].xflag)
			flags |= flag_pairs[i].fl;
	}
	if ((want.fsx_xflags & ~known) || want.fsx_projid || want.fsx_extsize ||
		want.fsx_cowextsize)
		return -EOPNOTSUPP;
	return set_flags(io, flags);
}

static int do_getversion(const struct ioctl_in *io)
{
	struct umbra_attr attr;
	int err = umbra_getattr(io->m->fs, io->ino, &attr);

	return err ? err : answer(io, &attr.generation, sizeof(attr.generation));
}

static int do_getfslabel(const struct ioctl_in *io)
{
	char label[FSLABEL_MAX] = "";
	struct umbra_info info;
	int err = umbra_info(io->m->fs, &info);

	if (err)
		return err;
	strncpy(label, info.label, sizeof(label) - 1);
	return answer(io, label, sizeof(label));
}

/* ---- shutdown ---------------------------------------------------------------------------------------- */

/* Has the task these capabilities over this machine, not only in a user namespace of its own? */
static bool has_caps(pid_t tid, unsigned long long wanted)
{
	unsigned long long caps = 0;
	char path[48], line[128];
	struct stat ours, theirs;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/ns/user", tid);
	if (stat(path, &theirs) || stat("/proc/self/ns/user", &ours) ||
		ours.st_ino != theirs.st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f) && sscanf(line, "CapEff: %llx", &caps) != 1)
		;
	if (f)
		fclose(f);
	return (caps & wanted) == wanted;
}

static int do_goingdown(const struct ioctl_in *io)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(io->req);
	uint32_t mode = 0;
	struct iovec here = {&mode, sizeof(mode)}, there = {(void *)io->arg, sizeof(mode)};
	int err;

	if (!has_caps(ctx->pid, 1ull << CAP_SYS_ADMIN))
		return -EPERM;
	/* The kernel copies nothing in for a command that says "read": fetch it from the caller. */
	if (process_vm_readv(ctx->pid, &here, 1, &there, 1, 0) != sizeof(mode))
		return -EFAULT;
	if (mode > 2)
		return -EINVAL;
	um_message(UMBRA_LOG_WARN, "shut down on request (mode %u)", mode);
	err = umbra_shutdown(io->m->fs, mode);
	return err ? err : answer(io, NULL, 0);
}

/* ---- the filesystem's own ------------------------------------------------------------------------------ */

static int do_info(const struct ioctl_in *io)
{
	struct um_ioc_info *out = calloc(1, sizeof(*out));
	struct umbra_info info;
	int err = umbra_info(io->m->fs, &info);

	if (!out)
		return -ENOMEM;
	if (!err) {
		out->abi = UM_IOC_ABI;
		out->ino = io->ino;
		out->daemon = (uint64_t)getpid();
		for (size_t i = 0, at = 0; i < 16 && info.uuid[at]; at += 2) {
			if (info.uuid[at] == '-')
				at++;
			sscanf(info.uuid + at, "%2hhx", &out->uuid[i++]);
		}
		strncpy(out->pool, io->m->pool, sizeof(out->pool) - 1);
		err = answer(io, out, sizeof(*out));
	}
	free(out);
	return err;
}

static int do_mount(const struct ioctl_in *io)
{
	struct um_ioc_mount *out = calloc(1, sizeof(*out));
	struct umbra_info info;
	int err = umbra_info(io->m->fs, &info);

	if (!out)
		return -ENOMEM;
	if (!err) {
		out->dev = info.dev;
		out->ino = info.ino;
		out->readonly = io->m->readonly;
		um_remount_options(io->m, out->options, sizeof(out->options));
		err = answer(io, out, sizeof(*out));
	}
	free(out);
	return err;
}

static int do_remount(const struct ioctl_in *io)
{
	struct um_ioc_remount want;

	if (!has_caps(fuse_req_ctx(io->req)->pid, 1ull << CAP_SYS_ADMIN))
		return -EPERM;
	if (io->in_size < sizeof(want))
		return -EINVAL;
	memcpy(&want, io->in, sizeof(want));
	return um_remount(io->m, io->req, want.readonly, want.sync);
}

static int do_text(const struct ioctl_in *io)
{
	struct um_ioc_text *out;
	char *text;
	int err;

	if (io->in_size < sizeof(*out))
		return -EINVAL;
	out = malloc(sizeof(*out));
	if (!out)
		return -ENOMEM;
	memcpy(out, io->in, sizeof(*out));
	err = out->what == UM_TEXT_HEALTH && fuse_req_ctx(io->req)->uid ? -EPERM : 0;
	if (!err)
		err = um_text_make(io->m, out->what, &text);
	if (!err) {
		size_t total = strlen(text);
		size_t off = out->off < total ? out->off : total;

		out->total = (uint32_t)total;
		out->len = (uint32_t)(total - off < sizeof(out->text) ? total - off
								      : sizeof(out->text));
		memset(out->text, 0, sizeof(out->text));
		memcpy(out->text, text + off, out->len);
		err = answer(io, out, sizeof(*out));
		free(text);
	}
	free(out);
	return err;
}

struct mapping {
	struct um_ioc_map *out;
	bool more;
};

static int map_one(void *arg, const struct umbra_extent *extent)
{
	const unsigned max = sizeof(((struct um_ioc_map *)0)->ext) / sizeof(struct um_ioc_extent);
	struct mapping *map = arg;

	if (map->out->count == max) {
		map->more = true;
		return 1;
	}
	map->out->ext[map->out->count++] = (struct um_ioc_extent){
		.off = extent->off,
		.lba = extent->lba,
		.len = extent->len,
		.refs = extent->refs,
		.flags = (extent->shared ? UM_EXT_SHARED : 0u) |
			 (extent->unwritten ? UM_EXT_UNWRITTEN : 0u) |
			 (extent->inline_data ? UM_EXT_INLINE : 0u),
	};
	return 0;
}

/* The clones held by views are not shown. */
static void discount_map(const struct ioctl_in *io, struct um_ioc_map *out)
{
	struct umbra_content content;

	if (!io->m->views || umbra_content(io->m->fs, io->ino, &content))
		return;
	for (unsigned i = 0; i < out->count; i++) {
		struct um_ioc_extent *e = &out->ext[i];
		unsigned n = um_views_count(io->m->views, e->lba);

		if (content.kind == UMBRA_CONTENT_ROOT)
			n += um_views_count(io->m->views, content.root);
		e->refs -= n < e->refs ? n : e->refs - !!e->refs;
		if (e->refs <= 1)
			e->flags &= ~UM_EXT_SHARED;
	}
}

static int do_map(const struct ioctl_in *io)
{
	struct um_ioc_map *out;
	struct umbra_attr attr;
	struct mapping map = {0};
	int err;

	if (!readable(io))
		return -EBADF;
	if (io->in_size < sizeof(*out))
		return -EINVAL;
	out = map.out = calloc(1, sizeof(*out));
	if (!out)
		return -ENOMEM;
	memcpy(out, io->in, offsetof(struct um_ioc_map, count));
	um_views_flush(io->m->views, io->ino);
	um_back_fetch(io->m, io->ino);
	err = umbra_getattr(io->m->fs, io->ino, &attr);
	if (!err)
		err = umbra_map(io->m->fs, io->ino, out->off, out->len, map_one, &map);
	if (err >= 0) {
		uint64_t size = (uint64_t)attr.st.st_size;

		discount_map(io, out);
		/* The range reached the end of the file, so the last one is the file's last. */
		if (!map.more && out->count && (out->off >= size || out->len >= size - out->off))
			out->ext[out->count - 1].flags |= UM_EXT_LAST;
		err = answer(io, out, sizeof(*out));
	}
	free(out);
	return err;
}

static void fill_owners(struct um_ioc_owners *out, const struct umbra_owners *in)
{
	static_assert(sizeof(out->node) / sizeof(out->node[0]) == UMBRA_OWNER_NODES, "nodes");
	static_assert(sizeof(out->run) / sizeof(out->run[0]) == UMBRA_OWNER_RUNS, "runs");
	out->next = in->next;
	out->blocks = in->blocks;
	out->inline_bytes = in->inline_bytes;
	out->nnode = in->nnode;
	out->nrun = in->nrun;
	for (unsigned i = 0; i < in->nnode; i++)
		out->node[i] = (struct um_ioc_owner_node){
			.lba = in->node[i].lba,
			.end = in->node[i].end,
			.parents = in->node[i].parents,
		};
	for (unsigned i = 0; i < in->nrun; i++)
		out->run[i] = (struct um_ioc_owner_run){
			.lba = in->run[i].lba,
			.len = in->run[i].len,
			.refs = in->run[i].refs,
		};
}

static int do_owners(const struct ioctl_in *io)
{
	struct um_ioc_owners *out;
	struct umbra_owners *in;
	int err;

	if (!readable(io))
		return -EBADF;
	if (io->in_size < sizeof(*out))
		return -EINVAL;
	out = calloc(1, sizeof(*out));
	in = malloc(sizeof(*in));
	err = out && in ? 0 : -ENOMEM;
	if (!err) {
		memcpy(&out->first, io->in, sizeof(out->first));
		um_back_fetch(io->m, io->ino);
		err = umbra_owners(io->m->fs, io->ino, out->first, in);
	}
	if (!err) {
		um_views_discount_owners(io->m->views, in);
		fill_owners(out, in);
		err = answer(io, out, sizeof(*out));
	}
	free(in);
	free(out);
	return err;
}

/* Masters, shadows and owners: ask.c. */
static int do_ask(const struct ioctl_in *io)
{
	bool root = fuse_req_ctx(io->req)->uid == 0;
	size_t size = _IOC_SIZE(io->cmd);
	void *page;
	int err;

	if (io->in_size < size)
		return -EINVAL;
	if (!root && io->cmd != UM_IOC_SHADOWS)
		return -EPERM;
	if (!readable(io))
		return -EBADF;
	page = malloc(size);
	if (!page)
		return -ENOMEM;
	memcpy(page, io->in, size);
	err = um_ask(io->m->fs, io->ino, io->cmd, root, page);
	if (!err)
		err = answer(io, page, size);
	free(page);
	return err;
}

static int do_token(const struct ioctl_in *io)
{
	struct um_ioc_token out;
	struct umbra_attr attr;
	int err;

	if (!readable(io))
		return -EBADF;
	err = umbra_getattr(io->m->fs, io->ino, &attr);
	if (err)
		return err;
	if (!S_ISREG(attr.st.st_mode))
		return S_ISDIR(attr.st.st_mode) ? -EISDIR : -EINVAL;
	err = um_door_token(io->m->door, io->ino, &out);
	return err ? err : answer(io, &out, sizeof(out));
}

/* ---- clone and dedupe ------------------------------------------------------------------------------------ */

static bool in_group(fuse_req_t req, gid_t gid)
{
	gid_t groups[256];
	int n;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	n = fuse_req_getgroups(req, 256, groups);
	if (n > 256)
		n = 256;
	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

/* The kernel's rule for the destination of a dedupe: open for writing, or the caller is root, owns
 * it, or could open it for writing. An ACL is assumed to forbid what the mode alone would allow. */
static int may_dedupe(const struct ioctl_in *io)
{
	uid_t uid = fuse_req_ctx(io->req)->uid;
	struct umbra_attr attr;
	int err;

	if (writable(io) || uid == 0)
		return 0;
	err = umbra_getattr(io->m->fs, io->ino, &attr);
	if (err)
		return err;
	if (attr.st.st_uid == uid)
		return 0;
	if (umbra_getxattr(io->m->fs, io->ino, "system.posix_acl_access", NULL, 0) != -ENODATA)
		return -EPERM;
	if (in_group(io->req, attr.st.st_gid))
		return attr.st.st_mode & S_IWGRP ? 0 : -EPERM;
	return attr.st.st_mode & S_IWOTH ? 0 : -EPERM;
}

static int dedupe(const struct ioctl_in *io, uint64_t src, struct um_ioc_clone *want)
{
	uint64_t len = want->len, done = 0;
	struct umbra_attr attr;
	bool same = false;
	int err = umbra_getattr(io->m->fs, src, &attr);

	if (err)
		return err;
	if (want->src_off > (uint64_t)attr.st.st_size)
		return -EINVAL;
	if (!len)
		len = (uint64_t)attr.st.st_size - want->src_off;
	if (len > DEDUPE_STEP)
		len = DEDUPE_STEP;
	um_views_flush(io->m->views, src);
	um_views_flush(io->m->views, io->ino);
	um_back_fetch(io->m, src);
	um_back_fetch(io->m, io->ino);
	err = umbra_dedupe_range(
		io->m->fs, src, want->src_off, len, io->ino, want->dst_off, &same, &done);
	if (err)
		return err;
	want->done = done;
	want->status = same ? FILE_DEDUPE_RANGE_SAME : FILE_DEDUPE_RANGE_DIFFERS;
	/* The bytes are unchanged; only block counts may differ. */
	um_inval_attr(io->m, io->ino);
	return answer(io, want, sizeof(*want));
}

static int check_clone(const struct ioctl_in *io, const struct um_ioc_clone *want)
{
	struct um_caller caller;

	if (want->op != UM_CLONE_RANGE && want->op != UM_CLONE_DEDUPE)
		return -EINVAL;
	if (io->m->readonly)
		return -EROFS;
	if (want->op == UM_CLONE_DEDUPE)
		return may_dedupe(io);
	if (io->m->writeback)
		return -EOPNOTSUPP;
	if (!writable(io) || ((int)io->fh & O_APPEND))
		return -EBADF;
	caller = um_caller_of(io->req);
	return um_killpriv(io->m, io->ino, &caller);
}

static int do_clone(const struct ioctl_in *io)
{
	struct um_ioc_clone want;
	uint64_t src;
	int refused, err;

	if (io->in_size < sizeof(want) || io->out_size < sizeof(want))
		return -EINVAL;
	memcpy(&want, io->in, sizeof(want));
	if (want.op == UM_CLONE_DISARM) {
		um_door_drop(io->m->door, io->ino, io->fh, want.token);
		return answer(io, &want, sizeof(want));
	}
	refused = check_clone(io, &want);
	if (refused && refused != -EOPNOTSUPP)
		return refused;
	err = um_door_redeem(io->m->door, want.token, &src);
	if (err)
		return err;
	if (refused) {
		/* The caller goes another way, so the token must not hold its file any longer. */
		umbra_forget(io->m->fs, src, 1);
		return refused;
	}
	want.status = 0;
	want.done = 0;
	if (want.op == UM_CLONE_RANGE) {
		um_door_clone(io->m->door, io->req, src, io->ino, io->fh, &want);
		return 0;
	}
	err = dedupe(io, src, &want);
	umbra_forget(io->m->fs, src, 1);
	return err;
}

static int do_scrub(const struct ioctl_in *io)
{
	struct um_ioc_scrub want;
	struct umbra_scrub now;
	int err;

	if (io->in_size < sizeof(want))
		return -EINVAL;
	memcpy(&want, io->in, sizeof(want));
	if (want.op > UMBRA_SCRUB_CANCEL)
		return -EINVAL;
	if (want.op != UMBRA_SCRUB_STATUS && fuse_req_ctx(io->req)->uid)
		return -EPERM;
	err = umbra_scrub(io->m->fs, (enum umbra_scrub_op)want.op, want.rate, &now);
	if (err)
		return err;
	want.state = now.state;
	want.rate = now.rate;
	want.bytes = now.bytes;
	want.bad = now.bad;
	want.permille = now.permille;
	want.msec = now.seconds < 4e6 ? (uint32_t)(now.seconds * 1000) : UINT32_MAX;
	return answer(io, &want, sizeof(want));
}

static int do_grow(const struct ioctl_in *io)
{
	struct um_ioc_grow want;

	if (io->in_size < sizeof(want) || io->out_size < sizeof(want))
		return -EINVAL;
	if (!has_caps(fuse_req_ctx(io->req)->pid, 1ull << CAP_SYS_ADMIN))
		return -EPERM;
	memcpy(&want, io->in, sizeof(want));
	um_room_grow(io->m, io->req, &want);
	return 0;
}

static int do_trim(const struct ioctl_in *io)
{
	struct fstrim_range range;

	if (io->in_size < sizeof(range) || io->out_size < sizeof(range))
		return -EINVAL;
	if (!has_caps(fuse_req_ctx(io->req)->pid, 1ull << CAP_SYS_ADMIN))
		return -EPERM;
	memcpy(&range, io->in, sizeof(range));
	if (range.len < UM_BLOCK) /* as elsewhere */
		return -EINVAL;
	um_room_trim(io->m, io->req, &range);
	return 0;
}

#ifdef UM_POISON
static int do_poison(const struct ioctl_in *io)
{
	struct um_ioc_poison want;
	int err = 0;

	if (fuse_req_ctx(io->req)->uid)
		return -EPERM;
	if (io->in_size < sizeof(want))
		return -EINVAL;
	memcpy(&want, io->in, sizeof(want));
	if (want.settle)
		umbra_failures_settle(io->m->fs);
	else
		err = umbra_poison(io->m->fs, want.lba, want.bit);
	return err ? err : answer(io, NULL, 0);
}
#endif

/* ---- trees ----------------------------------------------------------------------------------------------- */

/* Could nothing that is checked on the path by names be refused to the caller? */
static bool may_everything(const struct fuse_ctx *ctx)
{
	static const unsigned caps[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
		CAP_FOWNER, CAP_FSETID, CAP_SETFCAP, CAP_MKNOD, CAP_SYS_ADMIN};
	unsigned long long all = 0;

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		all |= 1ull << caps[i];
	return ctx->uid == 0 && has_caps(ctx->pid, all);
}

static int do_tree(const struct ioctl_in *io)
{
	struct um_ioc_tree *want;

	if (io->in_size < sizeof(*want) || io->out_size < sizeof(*want))
		return -EINVAL;
	if (io->m->readonly)
		return -EROFS;
	if (!may_everything(fuse_req_ctx(io->req)))
		return -EPERM;
	want = malloc(sizeof(*want));
	if (!want)
		return -ENOMEM;
	memcpy(want, io->in, sizeof(*want));
	um_door_tree(io->m->door, io->req, io->ino, want);
	return 0;
}

/* ---- all of them -------------------------------------------------------------------------------------------- */

/* Each answers and returns 0, or leaves the answer to the caller with a negative errno. */
static const struct command {
	unsigned cmd;
	int (*run)(const struct ioctl_in *io);
} commands[] = {
	{FS_IOC_GETFLAGS, do_getflags},
	{FS_IOC_SETFLAGS, do_setflags},
	{FS_IOC_FSGETXATTR, do_fsgetxattr},
	{FS_IOC_FSSETXATTR, do_fssetxattr},
	{FS_IOC_GETVERSION, do_getversion},
	{FS_IOC_GETFSLABEL, do_getfslabel},
	{UM_IOC_GOINGDOWN, do_goingdown},
	{UM_IOC_INFO, do_info},
	{UM_IOC_TEXT, do_text},
	{UM_IOC_MAP, do_map},
	{UM_IOC_OWNERS, do_owners},
	{UM_IOC_SHADOWS, do_ask},
	{UM_IOC_LBA_OWNERS, do_ask},
	{UM_IOC_PATHS, do_ask},
	{UM_IOC_TOKEN, do_token},
	{UM_IOC_CLONE, do_clone},
	{UM_IOC_SCRUB, do_scrub},
	{UM_IOC_GROW, do_grow},
	{FITRIM, do_trim},
#ifdef UM_POISON
	{UM_IOC_POISON, do_poison},
#endif
	{UM_IOC_TREE, do_tree},
	{UM_IOC_REMOUNT, do_remount},
	{UM_IOC_MOUNT, do_mount},
};

/* Does it first have the kernel send what it keeps back? */
static bool fetches(unsigned cmd)
{
	return cmd == UM_IOC_MAP || cmd == UM_IOC_OWNERS || cmd == UM_IOC_CLONE;
}

static void run_here(const struct command *command, const struct ioctl_in *io)
{
	int err = command->run(io);

	if (err)
		fuse_reply_err(io->req, -err);
}

/* One that a thread of the door's carries out. */
struct elsewhere {
	const struct command *command;
	struct ioctl_in io;
	char in[];
};

static void on_elsewhere(void *arg, int err)
{
	struct elsewhere *e = arg;

	if (err)
		fuse_reply_err(e->io.req, -err);
	else
		run_here(e->command, &e->io);
	free(e);
}

static void run_elsewhere(const struct command *command, const struct ioctl_in *io)
{
	struct elsewhere *e = malloc(sizeof(*e) + io->in_size);

	if (!e) {
		fuse_reply_err(io->req, ENOMEM);
		return;
	}
	e->command = command;
	e->io = *io;
	e->io.in = e->in;
	memcpy(e->in, io->in, io->in_size);
	um_door_run(io->m->door, on_elsewhere, e);
}

void um_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	struct ioctl_in io = {
		.req = req,
		.m = um_of(req),
		.ino = ino,
		.fh = fi->fh,
		.cmd = cmd,
		.arg = arg,
		.in = in,
		.in_size = in_size,
		.out_size = out_size,
	};
	const struct command *command = NULL;

	(void)flags;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && !command; i++)
		if (commands[i].cmd == cmd)
			command = &commands[i];
	if (!command)
		fuse_reply_err(req, ENOTTY);
	else if (fetches(cmd) && io.m->writeback && !io.m->readonly)
		run_elsewhere(command, &io);
	else
		run_here(command, &io);
}
