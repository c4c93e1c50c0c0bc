/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FIDEDUPERANGE: two ranges are compared with both files locked, and the destination's blocks are
 * replaced by the source's if every byte is the same. If the two files then consist of the same
 * blocks, they share one root afterwards.
 */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/data.h"

#define COMPARE_IOVS 64u
#define ADOPT_STEPS 150u /* of UM_STEP_RUNS extents: about 64 leaves are compared */

/* ---- comparing ---------------------------------------------------------------------------------------- */

/* A place in a list of iovecs. */
struct cursor {
	struct iovec iov[COMPARE_IOVS];
	unsigned n, at;
	size_t skip; /* bytes of iov[at] that are done */
};

static int cursor_load(
	struct umbra_fs *fs, um_ino_t ino, uint64_t off, uint64_t len, struct cursor *c)
{
	size_t got;
	int err;

	if (c->at < c->n)
		return 0;
	c->at = 0;
	c->skip = 0;
	err = umbra_read_iov(fs, ino, off, len, c->iov, COMPARE_IOVS, &c->n, &got);
	return err ? err : got ? 0 : -EUCLEAN; /* both are locked: the range is inside */
}

static void cursor_advance(struct cursor *c, size_t n)
{
	c->skip += n;
	if (c->skip == c->iov[c->at].iov_len) {
		c->at++;
		c->skip = 0;
	}
}

static int compare_blocks(struct umbra_fs *fs, um_ino_t src, uint64_t src_off, um_ino_t dst,
	uint64_t dst_off, uint64_t len, bool *same)
{
	struct cursor a = {.n = 0}, b = {.n = 0};
	uint64_t done = 0;
	int err = 0;

	*same = true;
	while (*same && done < len) {
		const uint8_t *p, *q;
		size_t n, m;

		err = cursor_load(fs, src, src_off + done, len - done, &a);
		if (!err)
			err = cursor_load(fs, dst, dst_off + done, len - done, &b);
		if (err)
			break;
		p = (const uint8_t *)a.iov[a.at].iov_base + a.skip;
		q = (const uint8_t *)b.iov[b.at].iov_base + b.skip;
		n = a.iov[a.at].iov_len - a.skip;
		m = b.iov[b.at].iov_len - b.skip;
		n = n < m ? n : m;
		/* The same address: the same block, already shared, or zeros on both sides. */
		*same = p == q || !memcmp(p, q, n);
		err = um_guard_check();
		if (err)
			break;
		cursor_advance(&a, n);
		cursor_advance(&b, n);
		done += n;
	}
	return err;
}

static bool is_inline(const struct um_inode *inode)
{
	return inode->core.data.format == UM_ROOT_INLINE;
}

/* Both records hold their first bytes: compared here, since a reader has only one buffer for
 * them. */
static bool inline_same(const struct um_inode *src, const struct um_inode *dst, uint64_t len)
{
	uint8_t a[UM_INLINE_MAX] = {0}, b[UM_INLINE_MAX] = {0};

	memcpy(a, src->data, src->core.data.len);
	memcpy(b, dst->data, dst->core.data.len);
	return !memcmp(a, b, len < sizeof(a) ? len : sizeof(a));
}

static int compare(struct umbra_fs *fs, const struct um_inode *src, uint64_t src_off,
	const struct um_inode *dst, uint64_t dst_off, uint64_t len, bool *same)
{
	int err;

	if (is_inline(src) && is_inline(dst) && !src_off && !dst_off) {
		*same = inline_same(src, dst, len);
		return 0; /* beyond the records' bytes there are holes */
	}
	umbra_read_begin(fs);
	err = compare_blocks(fs, src->ino, src_off, dst->ino, dst_off, len, same);
	umbra_read_end(fs);
	return err;
}

/* ---- one root -------------------------------------------------------------------------------------------- */

static bool same_root(const struct um_inode *a, const struct um_inode *b)
{
	return a->core.data.format == UM_ROOT_NODE && b->core.data.format == UM_ROOT_NODE &&
	       a->core.data.ptr.lba == b->core.data.ptr.lba;
}

static bool same_runs(const struct um_run *a, unsigned na, const struct um_run *b, unsigned nb)
{
	if (na != nb)
		return false;
	for (unsigned i = 0; i < na; i++)
		if (a[i].block != b[i].block || a[i].len != b[i].len || a[i].lba != b[i].lba ||
			a[i].unwritten != b[i].unwritten)
			return false;
	return true;
}

/* Do both files list the same blocks? Gives up on large ones: false. */
static int same_blocks(
	struct umbra_fs *fs, const struct um_inode *src, const struct um_inode *dst, bool *same)
{
	uint64_t first = 0, end = um_blocks_of(src->core.size);
	struct um_run a[UM_STEP_RUNS], b[UM_STEP_RUNS];
	struct um_tree stree, dtree;
	unsigned na, nb, step = 0;
	int err = 0;

	um_inode_tree(src, UM_FORK_DATA, &stree);
	um_inode_tree(dst, UM_FORK_DATA, &dtree);
	*same = true;
	while (!err && *same && first < end) {
		if (step++ == ADOPT_STEPS) {
			*same = false;
			break;
		}
		um_log_read_lock(fs->log);
		err = um_runs_get(
			um_fs_src(fs), &stree, first, end - first, 0, a, UM_STEP_RUNS, &na);
		if (!err)
			err = um_runs_get(
				um_fs_src(fs), &dtree, first, end - first, 0, b, UM_STEP_RUNS, &nb);
		um_log_read_unlock(fs->log);
		if (!err) {
			*same = same_runs(a, na, b, nb);
			first = a[na - 1].block + a[na - 1].len;
		}
	}
	return err;
}

/* After a dedupe of parts: one root for both, if they have become identical. */
static int adopt(struct umbra_fs *fs, um_ino_t src_ino, um_ino_t dst_ino)
{
	struct um_inode src, dst;
	bool same;
	int err = um_inode_read(fs, src_ino, &src);

	if (!err)
		err = um_inode_read(fs, dst_ino, &dst);
	if (err || src.core.size != dst.core.size || src.core.blocks != dst.core.blocks ||
		src.core.data.format != UM_ROOT_NODE || dst.core.data.format < UM_ROOT_EMBED ||
		same_root(&src, &dst))
		return err;
	err = same_blocks(fs, &src, &dst, &same);
	if (err || !same)
		return err;
	err = um_data_share_root(fs, src_ino, dst_ino, true);
	return err == -EMLINK ? 0 : err;
}

/* ---- dedupe ------------------------------------------------------------------------------------------------ */

static int share(struct umbra_fs *fs, struct um_mem *smem, const struct um_inode *src,
	uint64_t src_off, struct um_mem *dmem, const struct um_inode *dst, uint64_t dst_off,
	uint64_t len)
{
	struct um_remap remap = {
		.fs = fs,
		.src = smem,
		.dst = dmem,
		.src_block = src_off >> UM_BLOCK_SHIFT,
		.dst_block = dst_off >> UM_BLOCK_SHIFT,
		.blocks = um_blocks_of(len),
		.same_content = true,
	};
	int err;

	if (same_root(src, dst) && src_off == dst_off)
		return 0;
	if (!src_off && !dst_off && smem != dmem && len == src->core.size &&
		len == dst->core.size) {
		err = um_data_share_root(fs, smem->ino, dmem->ino, true);
		if (err != -EMLINK)
			return err;
	}
	/* Data in an inode record has no block to share. */
	if (is_inline(dst) || (is_inline(src) && !src_off))
		return 0;
	err = um_data_remap(&remap);
	if (err || smem == dmem)
		return err;
	return adopt(fs, smem->ino, dmem->ino);
}

static int dedupe_locked(struct umbra_fs *fs, struct um_mem *smem, uint64_t src_off, uint64_t len,
	struct um_mem *dmem, uint64_t dst_off, bool *out_same, uint64_t *out_done)
{
	struct um_inode src, dst;
	int err = um_inode_read(fs, smem->ino, &src);

	if (!err)
		err = um_inode_read(fs, dmem->ino, &dst);
	if (!err && (S_ISDIR(src.core.mode) || S_ISDIR(dst.core.mode)))
		err = -EISDIR;
	if (!err)
		err = um_data_regular(&src);
	if (!err)
		err = um_data_regular(&dst);
	if (!err && dst.core.flags & FS_IMMUTABLE_FL)
		err = -EPERM;
	if (err)
		return err;
	*out_same = true;
	if (!len)
		return 0;
	err = um_data_remap_check(&src, src_off, &len, &dst, dst_off, true);
	if (!err && len)
		err = compare(fs, &src, src_off, &dst, dst_off, len, out_same);
	if (err || !len || !*out_same)
		return err;
	err = share(fs, smem, &src, src_off, dmem, &dst, dst_off, len);
	if (!err)
		*out_done = len;
	return err;
}

int umbra_dedupe_range(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t len,
	uint64_t dst, uint64_t dst_off, bool *out_same, uint64_t *out_done)
{
	struct um_mem *smem, *dmem;
	int err = um_data_may_change(fs);

	*out_same = false;
	*out_done = 0;
	if (!err)
		err = um_data_lock_two(fs, src, dst, &smem, &dmem);
	if (err)
		return err;
	err = dedupe_locked(fs, smem, src_off, len, dmem, dst_off, out_same, out_done);
	um_data_unlock_two(fs, smem, dmem);
	return err;
}
