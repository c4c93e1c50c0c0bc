/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clones. A whole file is cloned by its root: one transaction of constant size. A range at equal
 * offsets is cloned by whole nodes (range.c). Where the offsets differ, so do all keys: extents are
 * shared one by one, a bounded number per transaction.
 */
#include <errno.h>
#include <string.h>

#include "fs/failure.h"
#include "fs/shadows.h"
#include "pool/log.h"

/* ---- by root --------------------------------------------------------------------------------------- */

static int ref_extent(void *arg, uint64_t key, const void *val, uint16_t len)
{
	return um_extents_type.ref(arg, key, val, len, 1);
}

/*
 * An embedded leaf is copied, and its few extents (16 at most) gain a reference each: moving it to
 * a node in order to share that would leave src with two more blocks even after the clone is gone.
 */
int um_data_share_fork(struct um_txn *txn, const struct um_inode *src, struct um_inode *dst)
{
	struct um_tree tree;
	int err = 0;

	dst->core.blocks = src->core.blocks;
	if (src->core.data.format <= UM_ROOT_INLINE) {
		dst->core.data = src->core.data;
		memcpy(dst->data, src->data, src->core.data.len);
		return 0;
	}
	um_inode_tree(src, UM_FORK_DATA, &tree);
	if (tree.root.format == UM_ROOT_EMBED)
		err = um_tree_walk(um_txn_src(txn), &tree, 0, UINT64_MAX, ref_extent, txn);
	else
		err = um_tree_share(txn, &tree);
	um_inode_set_tree(dst, UM_FORK_DATA, &tree);
	return err;
}

static int share_root_txn(
	struct um_txn *txn, um_ino_t src_ino, um_ino_t dst_ino, bool same_content, um_ino_t *heir)
{
	struct um_inode src, dst;
	int err = um_inode_load(um_txn_src(txn), src_ino, &src);

	if (!err)
		err = um_inode_load(um_txn_src(txn), dst_ino, &dst);
	/* Share first: the destination's old tree may be the same one. */
	if (!err) {
		struct um_inode old = dst;

		err = um_data_share_fork(txn, &src, &dst);
		if (!err)
			err = um_data_shed(txn, &old, heir);
	}
	if (err)
		return err;
	dst.core.size = src.core.size;
	if (!same_content)
		um_inode_touch(&dst, UM_TOUCH_M | UM_TOUCH_C);
	return um_inode_store(txn, &dst);
}

int um_data_share_root(struct umbra_fs *fs, um_ino_t src, um_ino_t dst, bool same_content)
{
	struct um_txn *txn;
	um_ino_t heir = 0;
	int err = um_data_settle(fs, src);

	if (err >= 0)
		err = um_data_settle(fs, dst);
	if (err >= 0)
		err = um_txn_begin(fs->log, 0, &txn);
	if (err)
		return err;
	err = um_txn_end(txn, share_root_txn(txn, src, dst, same_content, &heir));
	if (!err)
		um_shadows_toss(fs, dst, 0, UINT64_MAX);
	if (!err && heir)
		um_reaper_kick(fs, heir);
	return err;
}

/* ---- by extents ------------------------------------------------------------------------------------- */

struct remap_step {
	const struct um_remap *r;
	uint64_t done, n; /* blocks before, and in, this step */
	unsigned nsrc, ndst;
	struct um_run src[UM_STEP_RUNS], dst[UM_STEP_RUNS];
};

static int runs_of(struct um_src src, um_ino_t ino, uint64_t first, uint64_t *n,
	struct um_run *runs, unsigned *nruns)
{
	struct um_inode inode;
	struct um_tree tree;
	int err = um_inode_load(src, ino, &inode);

	if (err)
		return err;
	um_inode_tree(&inode, UM_FORK_DATA, &tree);
	err = um_runs_get(src, &tree, first, *n, 0, runs, UM_STEP_RUNS, nruns);
	if (!err)
		*n = runs[*nruns - 1].block + runs[*nruns - 1].len - first;
	return err;
}

/* Determines how far the step goes: as far as a bounded number of extents on either side
 * reaches. */
static int remap_plan(struct remap_step *s)
{
	const struct um_remap *r = s->r;
	struct um_src src = um_fs_src(r->fs);
	int err;

	s->n = r->blocks - s->done;
	um_log_read_lock(r->fs->log);
	err = runs_of(src, r->src->ino, r->src_block + s->done, &s->n, s->src, &s->nsrc);
	if (!err)
		err = runs_of(src, r->dst->ino, r->dst_block + s->done, &s->n, s->dst, &s->ndst);
	um_log_read_unlock(r->fs->log);
	return err;
}

/* A piece of the step in which both sides are one run. */
struct piece {
	uint64_t at, len;  /* blocks from the ranges' starts */
	um_lba_t src, dst; /* 0: hole */
	bool src_data, dst_data;
};

/* The next piece at p->at + p->len; false at the step's end. */
static bool next_piece(const struct remap_step *s, unsigned *si, unsigned *di, struct piece *p)
{
	uint64_t at = p->at + p->len, end = s->done + s->n, src_end, dst_end;
	uint64_t sb = s->r->src_block + at, db = s->r->dst_block + at;
	const struct um_run *a, *b;

	if (at >= end)
		return false;
	while (s->src[*si].block + s->src[*si].len <= sb)
		++*si;
	while (s->dst[*di].block + s->dst[*di].len <= db)
		++*di;
	a = &s->src[*si];
	b = &s->dst[*di];
	src_end = at + (a->block + a->len - sb);
	dst_end = at + (b->block + b->len - db);
	end = end < src_end ? end : src_end;
	end = end < dst_end ? end : dst_end;
	*p = (struct piece){
		.at = at,
		.len = end - at,
		.src = a->lba ? a->lba + (sb - a->block) : 0,
		.dst = b->lba ? b->lba + (db - b->block) : 0,
		.src_data = um_run_data(a),
		.dst_data = um_run_data(b),
	};
	return true;
}

static int remap_piece(struct um_txn *txn, struct um_tree *tree, const struct remap_step *s,
	const struct piece *p, int64_t *blocks)
{
	uint64_t to = s->r->dst_block + p->at, gone = 0;
	int err = 0;

	if (p->src_data ? p->dst_data && p->src == p->dst : !p->dst)
		return 0;
	if (p->src_data) {
		/* Counted before the old reference goes: it may be the same block elsewhere in the
		 * tree. */
		err = um_ref_get(txn, p->src, (uint32_t)p->len);
		if (err == -EMLINK && s->r->same_content)
			return 0;
	}
	if (!err && p->dst)
		err = um_extents_punch(txn, tree, to, p->len, &gone);
	*blocks -= (int64_t)gone;
	if (err || !p->src_data)
		return err;
	*blocks += (int64_t)p->len;
	return um_extents_add(txn, tree, to, (uint32_t)p->len, p->src, false);
}

static int remap_apply(struct um_txn *txn, const struct remap_step *s)
{
	const struct um_remap *r = s->r;
	struct piece p = {.at = s->done};
	struct um_inode inode;
	struct um_tree tree;
	int64_t blocks = 0;
	uint64_t end = (r->dst_block + s->done + s->n) << UM_BLOCK_SHIFT;
	unsigned si = 0, di = 0;
	int err = um_inode_load(um_txn_src(txn), r->dst->ino, &inode);

	if (err)
		return err;
	um_inode_tree(&inode, UM_FORK_DATA, &tree);
	while (!err && next_piece(s, &si, &di, &p))
		err = remap_piece(txn, &tree, s, &p, &blocks);
	if (err)
		return err;
	um_inode_set_tree(&inode, UM_FORK_DATA, &tree);
	inode.core.blocks += (uint64_t)blocks;
	if (end > r->dst_size)
		end = r->dst_size;
	if (end > inode.core.size)
		inode.core.size = end;
	if (!r->same_content)
		um_inode_touch(&inode, UM_TOUCH_M | UM_TOUCH_C);
	return um_inode_store(txn, &inode);
}

/* Extends the file to the end of the step, even if that is in a hole. */
static int extend_to(const struct remap_step *s)
{
	const struct um_remap *r = s->r;
	uint64_t end = (r->dst_block + s->done + s->n) << UM_BLOCK_SHIFT;
	struct um_inode inode;
	int err = um_inode_read(r->fs, r->dst->ino, &inode);

	if (end > r->dst_size)
		end = r->dst_size;
	if (err || end <= inode.core.size)
		return err;
	return um_data_set_size(r->fs, r->dst, end, false);
}

/* Reads bytes from blocks of the pool, which are not contiguous if some were moved. */
static int copy_blocks(const struct um_remap *r, um_lba_t lba, uint64_t len, uint64_t off)
{
	const struct um_pool *pool = r->fs->pool;
	int err = 0;

	while (!err && len) {
		uint64_t span = um_pool_span(pool, lba, um_blocks_of(len));
		uint64_t n = span << UM_BLOCK_SHIFT < len ? span << UM_BLOCK_SHIFT : len;
		ssize_t done = -EIO;

		if (!um_pool_lost(pool, lba, span))
			done = um_data_write(r->fs, r->dst, um_pool_ptr(pool, lba), n, off, 0);
		err = done < 0 ? (int)done : (uint64_t)done < n ? -ENOSPC : um_guard_check();
		lba += span;
		off += n;
		len -= n;
	}
	return err;
}

/* A block, or a node that the destination shares with others, is at its owner limit: the content of
 * the step is copied instead. */
static int copy_step(const struct remap_step *s)
{
	const struct um_remap *r = s->r;
	struct piece p = {.at = s->done};
	unsigned si = 0, di = 0;
	uint64_t tries;
	um_lba_t bad;
	int err = 0;

	while (!err && next_piece(s, &si, &di, &p)) {
		uint64_t off = (r->dst_block + p.at) << UM_BLOCK_SHIFT;
		uint64_t len = p.len << UM_BLOCK_SHIFT;

		if (r->dst_size && off + len > r->dst_size)
			len = r->dst_size - off;
		if (!p.src_data) {
			err = um_data_punch(r->fs, r->dst, off, len);
			continue;
		}
		tries = p.len + UM_CURES;
		do
			err = um_data_verify(r->fs, p.src, p.len, &bad);
		while (err && tries-- && !um_failure_cure(r->fs, bad));
		if (!err)
			err = copy_blocks(r, p.src, len, off);
	}
	return err ? err : extend_to(s);
}

/* Locks the masters of the blocks that gain an owner, so that none of them is moved between
 * planning and commit. */
static int remap_lock(struct remap_step *s, struct um_hold *hold)
{
	struct um_page *page = s->r->fs->page;

	for (;;) {
		int err;

		um_hold_init(page, hold);
		err = remap_plan(s);
		if (err)
			return err;
		for (unsigned i = 0; i < s->nsrc; i++)
			if (s->src[i].lba)
				um_hold_add(hold, s->src[i].lba, s->src[i].len);
		/* The wait alone is harmless here: the files' own locks protect the plan. */
		um_master_lock(page, hold);
		if (um_master_unmoved(page, hold))
			return 0;
		um_master_unlock(page, hold);
	}
}

static int remap_step(struct remap_step *s)
{
	struct umbra_fs *fs = s->r->fs;
	struct um_hold hold;
	struct um_txn *txn;
	int err = remap_lock(s, &hold);

	if (err)
		return err;
	err = um_txn_begin(fs->log, 0, &txn);
	if (!err)
		err = um_txn_end(txn, remap_apply(txn, s));
	um_master_unlock(fs->page, &hold);
	if (!err)
		um_shadows_toss(fs, s->r->dst->ino, s->r->dst_block + s->done, s->n);
	if (err == -EMLINK)
		err = copy_step(s);
	s->done += s->n;
	return err;
}

int um_data_remap(const struct um_remap *remap)
{
	struct remap_step s = {.r = remap};
	bool done = false;
	int err = um_data_uninline(remap->fs, remap->dst);

	if (!err && remap->dst_size)
		err = um_data_clear_tail(remap->fs, remap->dst);
	if (!err)
		err = um_data_settle(remap->fs, remap->dst->ino);
	err = err < 0 ? err : 0;
	if (!err)
		err = um_data_graft(remap, &done);
	if (!err && done)
		um_shadows_toss(remap->fs, remap->dst->ino, remap->dst_block, remap->blocks);
	while (!err && !done && s.done < remap->blocks)
		err = remap->stop && remap->stop(remap->stop_arg) ? -EINTR : remap_step(&s);
	return err;
}

/* ---- FICLONERANGE ------------------------------------------------------------------------------------- */

static bool aligned(uint64_t bytes)
{
	return !(bytes & (UM_BLOCK_SIZE - 1));
}

int um_data_remap_check(const struct um_inode *src, uint64_t src_off, uint64_t *len,
	const struct um_inode *dst, uint64_t dst_off, bool dedupe)
{
	uint64_t ssize = src->core.size, dsize = dst->core.size, n = *len, span;

	if (!aligned(src_off) || !aligned(dst_off))
		return -EINVAL;
	if (src_off > UMBRA_SIZE_MAX || dst_off > UMBRA_SIZE_MAX || n > UMBRA_SIZE_MAX)
		return -EINVAL;
	if (dedupe && (src_off + n > ssize || dst_off >= dsize || dst_off + n > dsize))
		return -EINVAL;
	if (src_off >= ssize)
		return -EINVAL;
	if (n > ssize - src_off)
		n = ssize - src_off;
	if (n > UMBRA_SIZE_MAX - dst_off)
		return -EFBIG;
	/* Up to the end of the source the last block is taken whole; otherwise only whole blocks
	 * count. */
	if (src_off + n == ssize && (!dedupe || dst_off + n == dsize)) {
		span = (um_blocks_of(ssize) << UM_BLOCK_SHIFT) - src_off;
	} else {
		n &= ~(uint64_t)(UM_BLOCK_SIZE - 1);
		span = n;
	}
	if (src->ino == dst->ino && dst_off + span > src_off && dst_off < src_off + span)
		return -EINVAL;
	if (n != *len && !dedupe)
		return -EINVAL;
	/* A partial block at the end must not overwrite what the destination has after it. */
	if (!aligned(n) && dst_off + n < dsize) {
		if (!dedupe)
			return -EINVAL;
		n &= ~(uint64_t)(UM_BLOCK_SIZE - 1);
	}
	*len = n;
	return 0;
}

/* The source's first block is in its record: that is written out, and the rest is a hole. */
static int clone_inline(const struct um_inode *src, struct um_remap *r, uint64_t len)
{
	uint8_t block[UM_BLOCK_SIZE] = {0};
	uint64_t n = len < UM_BLOCK_SIZE ? len : UM_BLOCK_SIZE;
	ssize_t done;

	memcpy(block, src->data, src->core.data.len);
	done = um_data_write(r->fs, r->dst, block, n, r->dst_block << UM_BLOCK_SHIFT, 0);
	if (done != (ssize_t)n)
		return done < 0 ? (int)done : -ENOSPC;
	r->src_block++;
	r->dst_block++;
	r->blocks--;
	return r->blocks ? um_data_remap(r) : 0;
}

static int within(struct umbra_clone_bounds *bounds, uint64_t end, uint64_t size)
{
	bool may = bounds->end ? end == bounds->end : end <= size;

	bounds->end = end;
	return may ? 0 : -EAGAIN;
}

static int load_both(const struct um_remap *r, struct um_inode *src, struct um_inode *dst)
{
	int err = um_inode_read(r->fs, r->src->ino, src);

	if (!err)
		err = um_inode_read(r->fs, r->dst->ino, dst);
	if (!err && (S_ISDIR(src->core.mode) || S_ISDIR(dst->core.mode)))
		err = -EISDIR;
	if (!err)
		err = um_data_regular(src);
	if (!err)
		err = um_data_may_remap(dst);
	return err;
}

/* A range that has been checked; fills in that of the remap. */
static int remap_checked(struct um_remap *r, const struct um_inode *src, const struct um_inode *dst,
	uint64_t src_off, uint64_t len, uint64_t dst_off)
{
	int err;

	atomic_fetch_add_explicit(&r->fs->stat_clones, 1, memory_order_relaxed);
	if (!src_off && !dst_off && len == src->core.size && dst->core.size <= len) {
		err = um_data_share_root(r->fs, src->ino, dst->ino, false);
		if (err != -EMLINK)
			return err;
	}
	r->src_block = src_off >> UM_BLOCK_SHIFT;
	r->dst_block = dst_off >> UM_BLOCK_SHIFT;
	r->blocks = um_blocks_of(len);
	r->dst_size = dst_off + len;
	if (src->core.data.format == UM_ROOT_INLINE && !src_off)
		return clone_inline(src, r, len);
	return um_data_remap(r);
}

/* After an error: what was added to dst goes again. */
static void cut_back(struct um_remap *r, uint64_t size)
{
	struct um_inode dst;
	int err = um_inode_read(r->fs, r->dst->ino, &dst);

	if (!err && dst.core.size > size)
		err = um_data_set_size(r->fs, r->dst, size, false);
	if (err)
		um_warn("%s: a clone that failed has left inode %llu longer: %s", r->fs->pool->path,
			(unsigned long long)r->dst->ino, strerror(-err));
}

/* Both files are locked. */
static int clone_locked(struct um_remap *r, uint64_t src_off, uint64_t len, uint64_t dst_off,
	struct umbra_clone_bounds *bounds)
{
	struct um_inode src, dst;
	int err = load_both(r, &src, &dst);

	if (err)
		return err;
	if (!len) {
		if (src_off > src.core.size)
			return -EINVAL;
		len = src.core.size - src_off;
		if (!len)
			return bounds && bounds->end ? within(bounds, dst_off, 0) : 0;
	}
	err = um_data_remap_check(&src, src_off, &len, &dst, dst_off, false);
	if (!err && bounds)
		err = within(bounds, dst_off + len, dst.core.size);
	if (err)
		return err;
	err = remap_checked(r, &src, &dst, src_off, len, dst_off);
	if (err)
		cut_back(r, dst.core.size);
	return err;
}

int umbra_clone_range_until(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t len,
	uint64_t dst, uint64_t dst_off, struct umbra_clone_bounds *bounds)
{
	struct um_remap remap = {.fs = fs};
	int err = um_data_may_change(fs);

	if (bounds) {
		remap.stop = bounds->stop;
		remap.stop_arg = bounds->arg;
	}
	if (!err)
		err = um_data_lock_two(fs, src, dst, &remap.src, &remap.dst);
	if (err)
		return err;
	err = clone_locked(&remap, src_off, len, dst_off, bounds);
	um_data_unlock_two(fs, remap.src, remap.dst);
	return err;
}

int umbra_clone_range(struct umbra_fs *fs, uint64_t src, uint64_t src_off, uint64_t len,
	uint64_t dst, uint64_t dst_off)
{
	return umbra_clone_range_until(fs, src, src_off, len, dst, dst_off, NULL);
}

int umbra_clone(struct umbra_fs *fs, uint64_t src, uint64_t dst)
{
	return umbra_clone_range(fs, src, 0, 0, dst, 0);
}
