// SPDX-License-Identifier: BSD-3-Clause
/* Access to a mounted umbrafs through an open descriptor: its ioctls, looped to completion. */
#include "umbractl.h"
#include "fuse/clone.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int um_fd_info(int fd, struct um_ioc_info *out)
{
	struct um_ioc_info info;

	memset(&info, 0, sizeof(info));
	if (ioctl(fd, UM_IOC_INFO, &info) < 0) {
		/* Errors that kernels and other FUSE servers return for an unknown ioctl. */
		if (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)
			return -ENOTTY;
		return -errno;
	}
	if (info.abi != UM_IOC_ABI) {
		static bool said;

		if (!said)
			fprintf(stderr, "umbractl: the daemon is of another version: unmount and "
					"mount the pool again\n");
		said = true;
		return -EPROTO;
	}
	info.pool[sizeof(info.pool) - 1] = '\0';
	if (out)
		*out = info;
	return 0;
}

/* Appends one page of text; 1 while there is more. */
static int text_page(int fd, uint32_t what, char **buf, uint32_t *len)
{
	struct um_ioc_text page;
	char *grown;

	memset(&page, 0, sizeof(page));
	page.what = what;
	page.off = *len;
	if (ioctl(fd, UM_IOC_TEXT, &page) < 0)
		return -errno;
	if (page.len > sizeof(page.text) || *len + page.len > (1u << 24))
		return -EPROTO;
	grown = realloc(*buf, (size_t)*len + page.len + 1);
	if (!grown)
		return -ENOMEM;
	*buf = grown;
	memcpy(grown + *len, page.text, page.len);
	*len += page.len;
	grown[*len] = '\0';
	return page.len == sizeof(page.text);
}

int um_fd_text(int fd, uint32_t what, struct json_object **out)
{
	char *buf = NULL;
	uint32_t len = 0;
	int err;

	do
		err = text_page(fd, what, &buf, &len);
	while (err > 0);
	if (!err) {
		*out = json_tokener_parse(buf);
		if (!*out)
			err = -EPROTO;
	}
	free(buf);
	return err;
}

/* With the mount option writeback the kernel owns sizes and times: clone through copy_file_range. */
static int clone_by_kernel(
	int src, uint64_t src_off, uint64_t len, int dst, uint64_t dst_off, uint64_t *out_done)
{
	struct stat st;

	if (fstat(src, &st) < 0)
		return -errno;
	if (!len && (uint64_t)st.st_size > src_off)
		len = (uint64_t)st.st_size - src_off;
	while (*out_done < len) {
		off64_t from = (off64_t)(src_off + *out_done), to = (off64_t)(dst_off + *out_done);
		uint64_t left = len - *out_done;
		ssize_t n = copy_file_range(
			src, &from, dst, &to, left < SSIZE_MAX ? left : SSIZE_MAX, 0);

		if (n < 0)
			return -errno;
		if (!n)
			break;
		*out_done += (uint64_t)n;
	}
	return 0;
}

/* Stores to mappings of the source may not have reached the daemon: makes the kernel write them. */
static int flush(int src, uint64_t off, uint64_t len)
{
	if (sync_file_range(src, (off64_t)off, (off64_t)len,
		    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			    SYNC_FILE_RANGE_WAIT_AFTER) < 0)
		return -errno;
	return 0;
}

int um_fd_clone(
	int src, uint64_t src_off, uint64_t len, int dst, uint64_t dst_off, uint64_t *out_done)
{
	int err = flush(src, src_off, len);

	*out_done = 0;
	if (!err)
		err = um_ioc_clone(src, src_off, len, dst, dst_off, out_done);
	if (err == -EOPNOTSUPP)
		err = clone_by_kernel(src, src_off, len, dst, dst_off, out_done);
	return err;
}

int um_fd_dedupe(int src, uint64_t src_off, uint64_t len, int dst, uint64_t dst_off, bool *out_same,
	uint64_t *out_done)
{
	int err = flush(src, src_off, len);

	*out_done = 0;
	*out_same = true;
	while (!err && *out_done < len) {
		struct um_ioc_clone req = {.op = UM_CLONE_DEDUPE,
			.src_off = src_off + *out_done,
			.dst_off = dst_off + *out_done,
			.len = len - *out_done};
		struct um_ioc_token token;

		if (ioctl(src, UM_IOC_TOKEN, &token) < 0)
			return -errno;
		memcpy(req.token, token.token, sizeof(req.token));
		if (ioctl(dst, UM_IOC_CLONE, &req) < 0)
			return -errno;
		if (req.status)
			*out_same = false;
		if (req.status || !req.done)
			break;
		*out_done += req.done;
	}
	return err;
}

int um_fd_map(int fd, uint64_t off, uint64_t len, um_extent_fn *fn, void *arg)
{
	uint64_t end = len > UINT64_MAX - off ? UINT64_MAX : off + len;
	struct um_ioc_map map;

	while (off < end) {
		uint64_t next = off;
		uint32_t i;
		int err;

		memset(&map, 0, offsetof(struct um_ioc_map, ext));
		map.off = off;
		map.len = end - off;
		if (ioctl(fd, UM_IOC_MAP, &map) < 0)
			return -errno;
		if (map.count > sizeof(map.ext) / sizeof(map.ext[0]))
			return -EPROTO;
		for (i = 0; i < map.count; i++) {
			const struct um_ioc_extent *e = &map.ext[i];

			if (e->off > UINT64_MAX - e->len || e->off + e->len <= next)
				return -EPROTO; /* not ascending: would never end */
			next = e->off + e->len;
			err = fn(arg, e);
			if (err)
				return err;
			if (e->flags & UM_EXT_LAST)
				return 0;
		}
		if (!map.count)
			break;
		off = next;
	}
	return 0;
}

int um_open_regular(const char *path, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), err;

	if (fd < 0 || fstat(fd, st) < 0) {
		um_err(errno, "%s", path);
		goto fail;
	}
	if (!S_ISREG(st->st_mode)) {
		um_err(0, "%s: not a regular file", path);
		goto fail;
	}
	err = um_fd_info(fd, NULL);
	if (!err)
		return fd;
	if (err == -ENOTTY)
		um_err(0, "%s: not on a mounted umbrafs", path);
	else
		um_err(err, "%s", path);
fail:
	if (fd >= 0)
		close(fd);
	return -1;
}

int um_path_text(const char *path, uint32_t what, struct json_object **out)
{
	struct stat st;
	int fd, err;

	/* Opening a device or a fifo could have effects, and none is a mount. */
	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return -ENOTTY;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	err = um_fd_info(fd, NULL);
	if (!err)
		err = um_fd_text(fd, what, out);
	close(fd);
	return err;
}
