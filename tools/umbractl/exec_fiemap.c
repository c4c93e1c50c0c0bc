// SPDX-License-Identifier: BSD-3-Clause
/* FS_IOC_FIEMAP for a supervised task, from the daemon's map of the file. */
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "umbractl.h"

#define BATCH 64 /* extents written to the task at once */

struct filler {
	const struct um_call *call;
	uint32_t room, mapped; /* room 0: count only */
	struct fiemap_extent batch[BATCH];
	uint32_t pending; /* in batch */
};

static int send_batch(struct filler *f)
{
	uint64_t first = f->mapped - f->pending;
	int err;

	if (!f->pending)
		return 0;
	err = um_task_write(f->call,
		f->call->arg + offsetof(struct fiemap, fm_extents) + first * sizeof(f->batch[0]),
		f->batch, f->pending * sizeof(f->batch[0]));
	f->pending = 0;
	return err;
}

/* 1: no more room. */
static int fill_extent(void *arg, const struct um_ioc_extent *e)
{
	struct filler *f = arg;
	struct fiemap_extent *out;

	if (!f->room) {
		f->mapped++;
		return 0;
	}
	if (f->mapped == f->room)
		return 1;
	out = &f->batch[f->pending++];
	memset(out, 0, sizeof(*out));
	f->mapped++;
	out->fe_logical = e->off;
	out->fe_length = e->len;
	if (e->flags & UM_EXT_INLINE)
		out->fe_flags |= FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED;
	else
		out->fe_physical = e->lba * 4096;
	if (e->flags & UM_EXT_SHARED)
		out->fe_flags |= FIEMAP_EXTENT_SHARED;
	if (e->flags & UM_EXT_UNWRITTEN)
		out->fe_flags |= FIEMAP_EXTENT_UNWRITTEN;
	if (e->flags & UM_EXT_LAST)
		out->fe_flags |= FIEMAP_EXTENT_LAST;
	if (f->pending == BATCH)
		return send_batch(f);
	return 0;
}

/* FIEMAP accepts any open descriptor, the daemon's map only a readable one. */
static int map_any_mode(const struct um_file *file, uint64_t off, uint64_t len, struct filler *f)
{
	char path[64];
	int fd, err;

	if (um_file_readable(file))
		return um_fd_map(file->fd, off, len, fill_extent, f);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME);
	if (fd < 0)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = um_fd_map(fd, off, len, fill_extent, f);
	close(fd);
	return err;
}

/* As ioctl_fiemap() and fiemap_prep(). */
static int fiemap_checked(struct um_call *call, const struct um_file *file, struct fiemap *head)
{
	uint64_t max = INT64_MAX, len = head->fm_length;
	struct filler f = {.call = call, .room = head->fm_extent_count};
	int err;

	if (head->fm_extent_count > UINT32_MAX / sizeof(struct fiemap_extent))
		return -EINVAL;
	head->fm_mapped_extents = 0;
	if (!len)
		err = -EINVAL;
	else if (head->fm_start >= max)
		err = -EFBIG;
	else if (head->fm_flags & ~FIEMAP_FLAG_SYNC) {
		head->fm_flags &= ~FIEMAP_FLAG_SYNC;
		err = -EBADR;
	} else {
		if (len > max - head->fm_start)
			len = max - head->fm_start;
		if (head->fm_flags & FIEMAP_FLAG_SYNC)
			(void)sync_file_range(file->fd, 0, 0,
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					SYNC_FILE_RANGE_WAIT_AFTER);
		err = map_any_mode(file, head->fm_start, len, &f);
		if (err > 0)
			err = 0;
		if (!err)
			err = send_batch(&f);
		head->fm_mapped_extents = f.mapped;
	}
	/* The kernel writes the head back after errors too. */
	if (um_task_write(call, call->arg, head, sizeof(*head)))
		err = -EFAULT;
	return err;
}

void um_do_fiemap(struct um_call *call)
{
	struct um_file file = {.fd = -1};
	struct fiemap head;

	call->pass = true;
	if (!um_file_get(call, call->fd, &file) && S_ISREG(file.st.st_mode) &&
		!um_fd_info(file.fd, NULL)) {
		call->pass = false;
		call->error = um_task_read(call, call->arg, &head, sizeof(head));
		if (!call->error)
			call->error = fiemap_checked(call, &file, &head);
	}
	um_file_put(&file);
}
