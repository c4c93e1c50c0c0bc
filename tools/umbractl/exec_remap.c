// SPDX-License-Identifier: BSD-3-Clause
/*
 * FICLONE, FICLONERANGE and FIDEDUPERANGE for a supervised task, with the checks of the kernel's
 * fs/remap_range.c in its order.
 *
 * The kernel makes its generic checks before it calls the filesystem, on an umbrafs file as well:
 * whenever one of them fails, or a file is not ours, the call is passed on and the kernel itself
 * determines the error code. Here are only the checks after that point.
 */
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "umbractl.h"

#define BLOCK 4096ull
#define DEDUPE_MAX (1ull << 30) /* the kernel's limit of one request */

/* The kernel's bit as F_GETFL shows it; glibc's O_LARGEFILE is 0 where off_t is always 64 bits
 * wide. */
#if defined(__aarch64__)
#define KERNEL_O_LARGEFILE 0400000
#else
#define KERNEL_O_LARGEFILE 0100000
#endif

int um_file_get(const struct um_call *call, int fd, struct um_file *out)
{
	int err;

	out->fd = um_task_getfd(call, fd);
	if (out->fd < 0)
		return out->fd;
	out->flags = fcntl(out->fd, F_GETFL);
	if (out->flags < 0 || fstat(out->fd, &out->st) < 0) {
		err = -errno;
		um_file_put(out);
		return err;
	}
	if (out->flags & O_PATH) {
		um_file_put(out);
		return -EBADF;
	}
	return 0;
}

void um_file_put(struct um_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

bool um_file_readable(const struct um_file *file)
{
	int mode = file->flags & O_ACCMODE;

	return mode == O_RDONLY || mode == O_RDWR;
}

bool um_file_writable(const struct um_file *file)
{
	int mode = file->flags & O_ACCMODE;

	return mode == O_WRONLY || mode == O_RDWR;
}

/* A range to be remapped. */
struct remap {
	struct um_file *src, *dst;
	uint64_t src_off, dst_off, len;
	bool dedupe; /* may be shortened, then */
};

/* As remap_verify_area(). */
static int check_area(uint64_t off, uint64_t len)
{
	if (off > INT64_MAX || len > INT64_MAX || off + len > INT64_MAX)
		return -EINVAL;
	return 0;
}

/* As generic_write_check_limits(): shortens *count, or -EFBIG. */
static int check_limits(struct um_call *call, const struct remap *r, uint64_t *count)
{
	uint64_t limit = um_task_fsize_limit(call), max = INT64_MAX;

	if (limit != UINT64_MAX) {
		if (r->dst_off >= limit) {
			call->signal = SIGXFSZ;
			return -EFBIG;
		}
		if (*count > limit - r->dst_off)
			*count = limit - r->dst_off;
	}
	if (!(r->dst->flags & KERNEL_O_LARGEFILE))
		max = INT_MAX;
	if (r->dst_off >= max)
		return -EFBIG;
	if (*count > max - r->dst_off)
		*count = max - r->dst_off;
	return 0;
}

/* As generic_remap_checks() and generic_remap_check_len(). r->len may shrink, to 0: nothing to
 * do. */
static int check_range(struct um_call *call, struct remap *r)
{
	uint64_t src_size = (uint64_t)r->src->st.st_size, dst_size = (uint64_t)r->dst->st.st_size;
	uint64_t count = r->len, whole;
	int err;

	if (r->src_off % BLOCK || r->dst_off % BLOCK)
		return -EINVAL;
	if (r->dedupe && (r->src_off >= src_size || r->src_off + count > src_size ||
				 r->dst_off >= dst_size || r->dst_off + count > dst_size))
		return -EINVAL;
	if (r->src_off >= src_size)
		return -EINVAL;
	if (count > src_size - r->src_off)
		count = src_size - r->src_off;
	err = check_limits(call, r, &count);
	if (err)
		return err;
	if (r->src_off + count == src_size && (!r->dedupe || r->dst_off + count == dst_size)) {
		whole = (count + BLOCK - 1) & ~(BLOCK - 1);
	} else {
		count &= ~(BLOCK - 1);
		whole = count;
	}
	if (r->src->st.st_ino == r->dst->st.st_ino && r->dst_off + whole > r->src_off &&
		r->dst_off < r->src_off + whole)
		return -EINVAL;
	if (count != r->len && !r->dedupe)
		return -EINVAL;
	r->len = count;
	/* A partial last block must not end inside the destination. */
	if (r->len % BLOCK && r->dst_off + r->len < dst_size) {
		if (!r->dedupe)
			return -EINVAL;
		r->len &= ~(BLOCK - 1);
	}
	return 0;
}

static bool is_immutable(const struct um_file *file)
{
	int flags = 0;

	return !ioctl(file->fd, FS_IOC_GETFLAGS, &flags) && (flags & FS_IMMUTABLE_FL);
}

/* Dirty pages of mappings are written to the daemon first. */
static int flush_range(const struct um_file *file, uint64_t off, uint64_t len)
{
	if (sync_file_range(file->fd, (off64_t)off, (off64_t)len,
		    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			    SYNC_FILE_RANGE_WAIT_AFTER) < 0)
		return -errno;
	return 0;
}

/* As file_modified(): a change of content clears set-id bits (unless the task has CAP_FSETID) and
 * file capabilities. */
static int drop_privileges(const struct um_call *call, const struct um_file *file)
{
	mode_t mode = file->st.st_mode, drop = 0;
	struct um_task_cred cred;
	int err;

	if (fgetxattr(file->fd, "security.capability", NULL, 0) >= 0 &&
		fremovexattr(file->fd, "security.capability") < 0 && errno != ENODATA)
		return -errno;
	if (!(mode & (S_ISUID | S_ISGID)))
		return 0;
	err = um_task_cred(call, &cred);
	if (err)
		return err;
	if (!um_task_cap(&cred, CAP_FSETID)) {
		bool member = cred.fsgid == file->st.st_gid;
		size_t i;

		for (i = 0; i < cred.ngroups && !member; i++)
			member = cred.groups[i] == file->st.st_gid;
		drop = mode & S_ISUID;
		if ((mode & S_ISGID) && ((mode & S_IXGRP) || !member))
			drop |= S_ISGID;
	}
	um_task_cred_free(&cred);
	if (drop && fchmod(file->fd, (mode & 07777) & ~drop) < 0)
		return -errno;
	return 0;
}

/* The checks and the clone itself, for two regular files of one mount with the required modes. */
static int clone_checked(struct um_call *call, struct remap *r)
{
	uint64_t src_size = (uint64_t)r->src->st.st_size, asked = r->len, done;
	int err;

	err = check_area(r->src_off, r->len);
	if (!err)
		err = check_area(r->dst_off, r->len);
	if (err)
		return err;
	if (!r->len && r->src_off <= src_size)
		r->len = src_size - r->src_off;
	else if (!r->len)
		err = -EINVAL;
	if (!err && r->len)
		err = check_range(call, r);
	/* The kernel checks this flag first, we only if it would hide another error. */
	if (err || !r->len)
		return is_immutable(r->dst) ? -EPERM : err;
	err = flush_range(r->src, r->src_off, r->len);
	if (!err)
		err = flush_range(r->dst, r->dst_off, r->len);
	if (!err)
		err = drop_privileges(call, r->dst);
	if (err)
		return is_immutable(r->dst) ? -EPERM : err;
	/* "To the end" is kept, in case the size changes, unless the destination is longer. */
	if (!asked && r->dst->st.st_size <= r->src->st.st_size && !r->dst_off)
		r->len = 0;
	err = um_fd_clone(r->src->fd, r->src_off, r->len, r->dst->fd, r->dst_off, &done);
	if (!err && r->len && done != r->len)
		err = -EINVAL;
	return err;
}

static bool clone_is_ours(const struct um_file *src, const struct um_file *dst)
{
	return S_ISREG(src->st.st_mode) && S_ISREG(dst->st.st_mode) &&
	       src->st.st_dev == dst->st.st_dev && um_file_readable(src) && um_file_writable(dst) &&
	       !(dst->flags & O_APPEND) && !um_fd_info(dst->fd, NULL);
}

static void clone_call(
	struct um_call *call, int src_fd, uint64_t src_off, uint64_t len, uint64_t dst_off)
{
	struct um_file src = {.fd = -1}, dst = {.fd = -1};

	call->pass = true;
	if (!um_file_get(call, call->fd, &dst) && !um_file_get(call, src_fd, &src) &&
		clone_is_ours(&src, &dst)) {
		struct remap r = {&src, &dst, src_off, dst_off, len, false};

		call->pass = false;
		call->error = clone_checked(call, &r);
	}
	um_file_put(&src);
	um_file_put(&dst);
}

void um_do_clone(struct um_call *call)
{
	clone_call(call, (int)(uint32_t)call->arg, 0, 0, 0);
}

void um_do_clone_range(struct um_call *call)
{
	struct file_clone_range args;

	if (um_task_read(call, call->arg, &args, sizeof(args)))
		call->pass = true; /* the kernel's EFAULT */
	else
		clone_call(call, (int)(uint32_t)args.src_fd, args.src_offset, args.src_length,
			args.dest_offset);
}

/* ---- dedupe -------------------------------------------------------------------------------------- */

/* As may_dedupe_file(): the descriptor's mode, or the caller's right to write to the file. */
static bool may_dedupe(const struct um_call *call, const struct um_file *dst)
{
	struct um_task_cred cred;
	bool ok;

	if (um_file_writable(dst))
		return true;
	if (um_task_cred(call, &cred))
		return false;
	ok = (cred.initial && um_task_cap(&cred, CAP_SYS_ADMIN)) || cred.fsuid == dst->st.st_uid ||
	     um_task_may_write(&cred, dst->fd);
	um_task_cred_free(&cred);
	return ok;
}

/* Whether the mount is read-only matters only if the descriptor is not writable. */
static bool on_readonly_mount(const struct um_file *file)
{
	struct statvfs sv;

	return !um_file_writable(file) && !fstatvfs(file->fd, &sv) && (sv.f_flag & ST_RDONLY);
}

/* As vfs_dedupe_file_range_one(). 0, -errno or -EBADE: they differ. */
static int dedupe_one(struct um_call *call, struct um_file *src, uint64_t src_off, uint64_t len,
	struct um_file *dst, uint64_t dst_off)
{
	struct remap r = {src, dst, src_off, dst_off, len, true};
	uint64_t done;
	bool same;
	int err;

	err = check_area(dst_off, len);
	if (err)
		return err;
	if (on_readonly_mount(dst))
		return -EROFS;
	if (!may_dedupe(call, dst))
		return -EPERM;
	if (src->st.st_dev != dst->st.st_dev)
		return -EXDEV;
	if (S_ISDIR(dst->st.st_mode))
		return -EISDIR;
	if (!S_ISREG(dst->st.st_mode))
		return -EINVAL;
	if (!len)
		return 0;
	err = check_range(call, &r);
	if (err)
		return is_immutable(dst) ? -EPERM : err;
	if (!r.len)
		return is_immutable(dst) ? -EPERM : 0;
	err = flush_range(src, src_off, r.len);
	if (!err)
		err = flush_range(dst, dst_off, r.len);
	if (!err)
		err = um_fd_dedupe(src->fd, src_off, r.len, dst->fd, dst_off, &same, &done);
	if (err)
		return is_immutable(dst) ? -EPERM : err;
	return same ? 0 : -EBADE;
}

static void dedupe_dest(struct um_call *call, struct um_file *src,
	const struct file_dedupe_range *args, uint64_t len, struct file_dedupe_range_info *info)
{
	struct um_file dst = {.fd = -1};
	int err = um_file_get(call, (int)(uint32_t)info->dest_fd, &dst);

	if (err) {
		info->status = -EBADF;
	} else if (info->reserved) {
		info->status = -EINVAL;
	} else {
		err = dedupe_one(call, src, args->src_offset, len, &dst, info->dest_offset);
		if (err == -EBADE)
			info->status = FILE_DEDUPE_RANGE_DIFFERS;
		else if (err < 0)
			info->status = err;
		else
			info->bytes_deduped = len;
	}
	um_file_put(&dst);
}

/* As vfs_dedupe_file_range() after its generic checks. */
static int dedupe_all(struct um_call *call, struct um_file *src, struct file_dedupe_range *args)
{
	uint64_t len = args->src_length;
	unsigned int i;
	int err;

	err = check_area(args->src_offset, len);
	if (err)
		return err;
	if (args->src_offset + len > (uint64_t)src->st.st_size)
		return -EINVAL;
	if (len > DEDUPE_MAX)
		len = DEDUPE_MAX;
	for (i = 0; i < args->dest_count; i++) {
		args->info[i].bytes_deduped = 0;
		args->info[i].status = FILE_DEDUPE_RANGE_SAME;
	}
	for (i = 0; i < args->dest_count && um_task_waits(call); i++)
		dedupe_dest(call, src, args, len, &args->info[i]);
	return 0;
}

void um_do_dedupe(struct um_call *call)
{
	struct file_dedupe_range head, *args = NULL;
	struct um_file src = {.fd = -1};
	size_t size;

	call->pass = true;
	if (um_file_get(call, call->fd, &src) || !um_file_readable(&src) ||
		!S_ISREG(src.st.st_mode) || um_fd_info(src.fd, NULL) ||
		um_task_read(call, call->arg, &head, sizeof(head)))
		goto out;
	/* The kernel refuses more than a page, and reserved fields that are not 0. */
	size = sizeof(head) + (size_t)head.dest_count * sizeof(struct file_dedupe_range_info);
	if (size > (size_t)sysconf(_SC_PAGESIZE) || head.reserved1 || head.reserved2)
		goto out;
	args = malloc(size);
	if (!args || um_task_read(call, call->arg, args, size))
		goto out;
	args->dest_count = head.dest_count;
	call->pass = false;
	call->error = dedupe_all(call, &src, args);
	if (!call->error)
		call->error = um_task_write(call, call->arg, args, size);
out:
	free(args);
	um_file_put(&src);
}
