/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copy_file_range(2): what is aligned alike on both sides is cloned, the rest goes through a
 * buffer. Each part takes its own locks; as with any copy, a concurrent writer of the source may be
 * seen in one part and not in another.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/data.h"

#define COPY_BUFFER (1u << 20)
/* A hole of at least this length stays a hole in the copy. */
#define COPY_HOLE (64u << 10)

struct copy {
	struct umbra_fs *fs;
	um_ino_t src, dst;
	uint64_t src_off, dst_off;
	uint64_t left, done;
	uint8_t *buf;
};

static void copy_advance(struct copy *c, uint64_t n)
{
	c->src_off += n;
	c->dst_off += n;
	c->left -= n;
	c->done += n;
}

/* Copies through the buffer; ends early at the end of the source. */
static int copy_bytes(struct copy *c, uint64_t len)
{
	while (len) {
		size_t n = len < COPY_BUFFER ? len : COPY_BUFFER;
		ssize_t got, put;

		if (!c->buf)
			c->buf = malloc(COPY_BUFFER);
		if (!c->buf)
			return -ENOMEM;
		got = umbra_read(c->fs, c->src, c->buf, n, c->src_off);
		if (got <= 0) {
			c->left = got ? c->left : 0;
			return (int)got;
		}
		put = umbra_write(c->fs, c->dst, c->buf, (size_t)got, c->dst_off, 0, NULL);
		if (put < 0)
			return (int)put;
		copy_advance(c, (uint64_t)put);
		if (put < got)
			return -ENOSPC;
		len -= (uint64_t)put;
	}
	return 0;
}

/* A hole of the source becomes one in the destination. */
static int copy_hole(struct copy *c, uint64_t len)
{
	struct um_inode inode;
	struct um_mem *mem;
	int err = um_mem_get(c->fs, c->dst, &mem);

	if (err)
		return err;
	pthread_rwlock_wrlock(&mem->lock);
	err = um_data_punch(c->fs, mem, c->dst_off, len);
	if (!err)
		err = um_inode_read(c->fs, c->dst, &inode);
	if (!err && c->dst_off + len > inode.core.size)
		err = um_data_set_size(c->fs, mem, c->dst_off + len, false);
	pthread_rwlock_unlock(&mem->lock);
	um_mem_put(c->fs, mem);
	if (!err)
		copy_advance(c, len);
	return err;
}

/* Differently aligned: data by data, hole by hole. */
static int copy_unaligned(struct copy *c)
{
	int err = 0;

	while (!err && c->left) {
		uint64_t data, end;

		err = umbra_lseek(c->fs, c->src, c->src_off, SEEK_DATA, &data);
		if (err == -ENXIO)
			data = c->src_off + c->left;
		else if (err)
			break;
		err = 0;
		if (data - c->src_off >= COPY_HOLE) {
			data -= c->src_off;
			err = copy_hole(c, data < c->left ? data : c->left);
			continue;
		}
		/* Data, including short holes before and within it. */
		err = umbra_lseek(c->fs, c->src, data, SEEK_HOLE, &end);
		if (err == -ENXIO)
			end = c->src_off + c->left;
		else if (err)
			break;
		end -= c->src_off;
		err = copy_bytes(c, end < c->left ? end : c->left);
	}
	return err;
}

/* Clones len bytes, block-aligned in both; copies what cannot be cloned. */
static int copy_blocks(struct copy *c, uint64_t len)
{
	int err;

	if (!len)
		return 0;
	err = umbra_clone_range(c->fs, c->src, c->src_off, len, c->dst, c->dst_off);
	if (!err)
		copy_advance(c, len);
	else if (err == -EINVAL) /* the sizes changed meanwhile */
		err = copy_bytes(c, len);
	return err;
}

static int copy_aligned(struct copy *c, uint64_t src_size, uint64_t dst_size)
{
	uint64_t ragged = -c->src_off & (UM_BLOCK_SIZE - 1), len;
	int err = copy_bytes(c, ragged < c->left ? ragged : c->left);

	if (err || !c->left)
		return err;
	len = c->left;
	/* The last block can be shared if both files end with it: it is zero beyond the end. */
	if (c->src_off + len != src_size || c->dst_off + len < dst_size)
		len &= ~(uint64_t)(UM_BLOCK_SIZE - 1);
	err = copy_blocks(c, len);
	return err ? err : copy_bytes(c, c->left);
}

/* Is it permitted, and how far does it go? */
static int copy_check(struct copy *c, struct um_inode *src, struct um_inode *dst)
{
	int err = um_inode_read(c->fs, c->src, src);

	if (!err)
		err = um_inode_read(c->fs, c->dst, dst);
	if (!err && (S_ISDIR(src->core.mode) || S_ISDIR(dst->core.mode)))
		err = -EISDIR;
	if (!err)
		err = um_data_regular(src);
	if (!err)
		err = um_data_may_remap(dst);
	if (err)
		return err;
	if (c->src_off > UMBRA_SIZE_MAX || c->dst_off > UMBRA_SIZE_MAX)
		return -EINVAL;
	if (c->left > SSIZE_MAX)
		c->left = SSIZE_MAX;
	if (c->src_off >= src->core.size)
		c->left = 0;
	else if (c->left > src->core.size - c->src_off)
		c->left = src->core.size - c->src_off;
	if (c->left && c->dst_off == UMBRA_SIZE_MAX)
		return -EFBIG;
	if (c->left > UMBRA_SIZE_MAX - c->dst_off)
		c->left = UMBRA_SIZE_MAX - c->dst_off;
	if (c->src == c->dst && c->src_off < c->dst_off + c->left &&
		c->dst_off < c->src_off + c->left)
		return -EINVAL;
	return 0;
}

ssize_t umbra_copy_range(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t dst,
	uint64_t dst_off, size_t len)
{
	struct copy c = {
		.fs = fs,
		.src = src,
		.dst = dst,
		.src_off = src_off,
		.dst_off = dst_off,
		.left = len,
	};
	struct um_inode from, to;
	int err = um_data_may_change(fs);

	if (!err)
		err = copy_check(&c, &from, &to);
	if (!err && c.left) {
		if ((src_off ^ dst_off) & (UM_BLOCK_SIZE - 1))
			err = copy_unaligned(&c);
		else
			err = copy_aligned(&c, from.core.size, to.core.size);
	}
	free(c.buf);
	return c.done ? (ssize_t)c.done : err;
}
