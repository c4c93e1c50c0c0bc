/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One segment of a write. What is done per block depends on what the file has there
 * (src/DESIGN.md, section 5); policy_of() is that table.
 */
#include "fs/segment.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/failure.h"
#include "pool/seeded.h"

enum policy {
	FRESH,   /* new blocks, then the transaction points at them */
	CONVERT, /* in place, then the transaction marks them written */
	JOURNAL, /* through the transaction's record */
	INPLACE, /* directly in place */
};

static enum policy policy_of(const struct um_segment *s, const struct um_run *run)
{
	uint64_t end = (run->block + run->len) << UM_BLOCK_SHIFT;

	/* Bad memory is not stored to: a write that covers a whole page replaces it. */
	if (!run->lba || run->refs > 1 || run->lost)
		return FRESH;
	if (run->unwritten)
		return CONVERT;
	if (s->moves)
		return FRESH;
	/* Bytes beyond the end of the file are zero until the size says otherwise, so what is
	 * stored there changes together with the size in either mode. */
	if (end > s->off + s->len)
		end = s->off + s->len;
	if (s->journal || end > s->inode.core.size)
		return JOURNAL;
	return INPLACE;
}

/* ---- plan --------------------------------------------------------------------------------------- */

static void segment_set_len(struct um_segment *s, size_t len)
{
	uint64_t end = s->off + len;

	s->len = len;
	s->nblocks = um_blocks_of(end) - s->first;
}

/* Cuts the segment before a block of the file, which is not its first. */
static void segment_trim(struct um_segment *s, uint64_t block)
{
	segment_set_len(s, (block << UM_BLOCK_SHIFT) - s->off);
	while (s->nruns && s->runs[s->nruns - 1].block >= block)
		s->nruns--;
	if (s->nruns) {
		struct um_run *last = &s->runs[s->nruns - 1];

		if (last->block + last->len > block)
			last->len = block - last->block;
	}
}

/* Where the file's block before the segment lies, so that files grow contiguously. */
static int find_goal(struct um_src src, const struct um_tree *tree, struct um_segment *s)
{
	struct um_run before;
	unsigned n;
	int err;

	s->goal = 0;
	if (!s->first)
		return 0;
	err = um_runs_get(src, tree, s->first - 1, 1, 0, &before, 1, &n);
	if (!err && before.lba)
		s->goal = before.lba + 1;
	return err;
}

/* The segment begins in blocks shared with others. Copies made before, in the same window of the
 * file, determine where its own belong; without one a new window is begun. */
static int find_place(struct um_src src, const struct um_tree *tree, struct um_segment *s)
{
	uint64_t window = s->first & ~(uint64_t)(UM_COW_WINDOW - 1), nearest = UINT64_MAX;
	struct um_run near[UM_COW_WINDOW];
	unsigned n;
	int err;

	if (!s->runs[0].lba || s->runs[0].refs < 2 ||
		s->runs[0].len > window + UM_COW_WINDOW - s->first)
		return 0;
	err = um_runs_get(src, tree, window, UM_COW_WINDOW, UM_RUNS_REFS, near, UM_COW_WINDOW, &n);
	if (err)
		return err;
	for (unsigned i = 0; i < n; i++) {
		const struct um_run *run = &near[i];
		uint64_t away =
			run->block > s->first ? run->block - s->first : s->first - run->block;
		um_lba_t there = run->lba + s->first - run->block;

		/* It is not a copy if it lies where the shared block does. */
		if (!run->lba || run->refs > 1 || there == s->runs[0].lba || away >= nearest)
			continue;
		nearest = away;
		s->goal = there;
	}
	if (nearest == UINT64_MAX)
		s->place = (uint32_t)(s->first - window) + 1;
	return 0;
}

/* Splits the run that contains the end of the file, so that no more than that block is journaled
 * for it. */
static void split_at_eof(struct um_segment *s)
{
	uint64_t eof = s->inode.core.size >> UM_BLOCK_SHIFT;

	for (unsigned i = 0; i < s->nruns && s->nruns < UM_SEGMENT_BLOCKS; i++) {
		struct um_run *run = &s->runs[i];

		if (run->block >= eof || run->block + run->len <= eof)
			continue;
		memmove(run + 1, run, (s->nruns - i) * sizeof(*run));
		s->nruns++;
		run[1].block = eof;
		run[1].len -= eof - run->block;
		run[1].lba += run->lba ? eof - run->block : 0;
		run->len = eof - run->block;
		return;
	}
}

static int plan_locked(struct umbra_fs *fs, um_ino_t ino, struct um_segment *s)
{
	struct um_src src = um_fs_src(fs);
	struct um_tree tree;
	int err = um_inode_load(src, ino, &s->inode);

	if (!err)
		err = um_data_regular(&s->inode);
	if (err)
		return err;
	um_inode_tree(&s->inode, UM_FORK_DATA, &tree);
	err = um_runs_get(src, &tree, s->first, s->nblocks, UM_RUNS_REFS, s->runs,
		UM_SEGMENT_BLOCKS, &s->nruns);
	if (!err && policy_of(s, &s->runs[0]) == FRESH)
		err = find_goal(src, &tree, s);
	if (!err && policy_of(s, &s->runs[0]) == FRESH)
		err = find_place(src, &tree, s);
	return err;
}

/* Limits what goes through the journal to a sensible record. */
static void limit_journaled(struct um_segment *s)
{
	uint64_t left = UM_JOURNALED_BLOCKS;

	for (unsigned i = 0; i < s->nruns; i++) {
		const struct um_run *run = &s->runs[i];

		if (policy_of(s, run) != JOURNAL)
			continue;
		if (run->len > left) {
			segment_trim(s, run->block + left);
			return;
		}
		left -= run->len;
		if (!left && i + 1 < s->nruns) {
			segment_trim(s, run->block + run->len);
			return;
		}
	}
}

int um_segment_plan(struct umbra_fs *fs, um_ino_t ino, struct um_segment *s)
{
	int err;

	s->journal = fs->pool->direct && fs->opt.data == UMBRA_DATA_ATOMIC;
	s->moves = um_data_moves(fs->pool) && !um_seeded_bug(23);
	s->fresh.n = s->fresh.counted = 0;
	s->goal = 0;
	s->place = 0;
	s->first = s->off >> UM_BLOCK_SHIFT;
	segment_set_len(s, s->len);
	um_log_read_lock(fs->log);
	err = plan_locked(fs, ino, s);
	um_log_read_unlock(fs->log);
	if (err)
		return err;
	if (!s->journal && !s->moves && s->off + s->len > s->inode.core.size)
		split_at_eof(s);
	limit_journaled(s);
	return 0;
}

bool um_segment_overwrites(const struct um_segment *s)
{
	if (s->off + s->len > s->inode.core.size)
		return false;
	for (unsigned i = 0; i < s->nruns; i++)
		if (policy_of(s, &s->runs[i]) < JOURNAL)
			return false;
	return true;
}

/* ---- filling blocks ------------------------------------------------------------------------------- */

/* The part of a file block that the segment covers. */
static void block_part(
	const struct um_segment *s, uint64_t block, uint32_t *out_from, uint32_t *out_to)
{
	uint64_t start = block << UM_BLOCK_SHIFT, end = s->off + s->len;

	*out_from = s->off > start ? (uint32_t)(s->off - start) : 0;
	*out_to = end < start + UM_BLOCK_SIZE ? (uint32_t)(end - start) : UM_BLOCK_SIZE;
}

static bool block_whole(const struct um_segment *s, uint64_t block)
{
	uint32_t from, to;

	block_part(s, block, &from, &to);
	return !from && to == UM_BLOCK_SIZE;
}

static const uint8_t *block_src(const struct um_segment *s, uint64_t block)
{
	return s->buf + ((block << UM_BLOCK_SHIFT) - s->off);
}

/* The contents of a file block. Beyond the end of the file these are zeros: the pool may have other
 * bytes there, from a write that was lost, or because there was no space to store zeros. */
static int load_old(struct umbra_fs *fs, const struct um_segment *s, const struct um_run *run,
	uint64_t block, void *out)
{
	um_lba_t lba = run->lba + (block - run->block);
	uint64_t end = s->inode.core.size, start = block << UM_BLOCK_SHIFT;

	if (!um_run_data(run)) {
		memset(out, 0, UM_BLOCK_SIZE);
		return 0;
	}
	if (um_pool_lost(fs->pool, lba, 1) || um_data_verify(fs, lba, 1, NULL))
		return -EIO;
	memcpy(out, um_pool_ptr(fs->pool, lba), UM_BLOCK_SIZE);
	if (end < start + UM_BLOCK_SIZE)
		memset((uint8_t *)out + (end > start ? end - start : 0), 0,
			UM_BLOCK_SIZE - (end > start ? end - start : 0));
	return um_guard_check();
}

/* Stores a block that the segment covers in part: old content merged with the new bytes, at lba. */
static int store_merged(struct umbra_fs *fs, struct um_segment *s, const struct um_run *run,
	uint64_t block, um_lba_t lba)
{
	uint8_t merged[UM_BLOCK_SIZE];
	uint32_t from, to;
	uint64_t end;

	block_part(s, block, &from, &to);
	if (load_old(fs, s, run, block, merged))
		return -EIO;
	if (!block && s->inode.core.data.format == UM_ROOT_INLINE)
		memcpy(merged, s->inode.data, s->inode.core.data.len);
	memcpy(merged + from, s->buf + ((block << UM_BLOCK_SHIFT) + from - s->off), to - from);
	um_data_sums(fs->pool, merged, 1, &s->csum[block - s->first]);
	end = s->off + s->len > s->inode.core.size ? s->off + s->len : s->inode.core.size;
	return um_pool_write_front(
		fs->pool, lba, 0, merged, UM_BLOCK_SIZE, um_data_front(fs->pool, block, end));
}

/* Stores whole blocks [block, block + n) of a run, to lba on. Only its ends can be covered in
 * part. */
static int store_blocks(struct umbra_fs *fs, struct um_segment *s, const struct um_run *run,
	uint64_t block, uint64_t n, um_lba_t lba)
{
	int err = 0;

	if (!block_whole(s, block)) {
		err = store_merged(fs, s, run, block, lba);
		block++, lba++, n--;
	}
	if (!err && n && !block_whole(s, block + n - 1)) {
		n--;
		err = store_merged(fs, s, run, block + n, lba + n);
	}
	if (!err && n)
		err = um_pool_write(fs->pool, lba, 0, block_src(s, block), n << UM_BLOCK_SHIFT);
	if (!err && n)
		um_data_sums(fs->pool, block_src(s, block), n, &s->csum[block - s->first]);
	return err;
}

/* How much room a file that grows here should find: more as it becomes larger. */
static uint32_t growth_room(const struct um_segment *s, const struct um_run *run)
{
	uint64_t blocks = s->inode.core.blocks;

	if (run->lba || blocks < 16 || run->block < s->inode.core.size >> UM_BLOCK_SHIFT)
		return 0;
	return blocks < 256 ? (uint32_t)blocks / 2 : 128;
}

/* Takes and fills new blocks for a run. If space runs out the segment is cut there. */
static int store_fresh(struct umbra_fs *fs, struct um_mem *mem, struct um_segment *s, unsigned i)
{
	const struct um_run *run = &s->runs[i];
	unsigned at = s->fresh.n;
	const struct um_wish wish = {
		.block = run->block,
		.n = run->len,
		.goal = at ? 0 : s->goal,
		.room = growth_room(s, run),
		.place = at ? 0 : s->place,
		/* Moving gives back as many. */
		.flags = run->lba && run->refs < 2 ? UM_SPACE_RESERVE : 0,
	};
	uint64_t got;
	int err = um_pieces_take(fs, mem, &wish, &s->fresh, &got);

	for (; !err && at < s->fresh.n; at++) {
		const struct um_piece *p = &s->fresh.v[at];

		err = store_blocks(fs, s, run, p->block, p->len, p->lba);
	}
	if (err == -ENOSPC && run->block > s->first) {
		/* Space ran out in the pool, or in the file below while they were filled. */
		um_pieces_cut(fs, &s->fresh, run->block);
		segment_trim(s, run->block);
		return 0;
	}
	if (!err && got < run->len)
		segment_trim(s, run->block + got);
	return err;
}

/* The bytes that the segment has for a run: where in its first block, how many, from where. */
static const uint8_t *run_bytes(
	const struct um_segment *s, const struct um_run *run, uint32_t *out_from, size_t *out_len)
{
	uint64_t start = run->block << UM_BLOCK_SHIFT;
	uint64_t stop = (run->block + run->len) << UM_BLOCK_SHIFT;
	uint64_t from = start > s->off ? start : s->off;
	uint64_t to = stop < s->off + s->len ? stop : s->off + s->len;

	*out_from = (uint32_t)(from - start);
	*out_len = to - from;
	return s->buf + (from - s->off);
}

/* What goes through the journal is acknowledged before it is stored: whether the blocks can take it
 * is found out now, by a load from each. */
static int touch_run(const struct umbra_fs *fs, const struct um_run *run)
{
	int err = 0;

	um_guard_check();
	for (uint64_t i = 0, span; !err && i < run->len; i += span) {
		span = um_pool_span(fs->pool, run->lba + i, run->len - i);
		err = um_guard_touch(um_pool_ptr(fs->pool, run->lba + i), span << UM_BLOCK_SHIFT);
	}
	return err;
}

/* The stores made before the transaction. Trimming lowers nruns as it goes. */
int um_segment_store(struct umbra_fs *fs, struct um_mem *mem, struct um_segment *s)
{
	int err = 0;

	for (unsigned i = 0; !err && i < s->nruns; i++) {
		const struct um_run *run = &s->runs[i];
		const uint8_t *src;
		uint32_t from;
		size_t len;

		switch (policy_of(s, run)) {
		case FRESH:
			err = store_fresh(fs, mem, s, i);
			break;
		case CONVERT:
			err = store_blocks(fs, s, run, run->block, run->len, run->lba);
			break;
		case INPLACE:
			src = run_bytes(s, run, &from, &len);
			err = um_pool_overwrite(fs->pool, run->lba, from, src, len);
			break;
		case JOURNAL:
			err = touch_run(fs, run);
			break;
		}
	}
	return err;
}

/* ---- making it true ---------------------------------------------------------------------------------- */

static int apply_run(struct um_txn *txn, struct um_tree *tree, const struct um_segment *s,
	const struct um_run *run, uint64_t *out_gone)
{
	const uint8_t *src;
	uint32_t from;
	size_t len;
	int err;

	switch (policy_of(s, run)) {
	case FRESH:
		return run->lba ? um_extents_punch(txn, tree, run->block, run->len, out_gone) : 0;
	case CONVERT:
		err = um_data_counts(
			txn, run->lba, (uint32_t)run->len, &s->csum[run->block - s->first]);
		return err ? err : um_extents_mark(txn, tree, run->block, run->len, false);
	case JOURNAL:
		src = run_bytes(s, run, &from, &len);
		return um_data_put(txn, run->lba, from, src, len, false);
	case INPLACE:
		break;
	}
	return 0;
}

/* The file has changed; who owns its times tells of them. */
void um_segment_touch(struct um_inode *inode, unsigned flags)
{
	if (flags & UMBRA_WRITE_BACK)
		inode->core.change++;
	else
		um_inode_touch(inode, UM_TOUCH_M | UM_TOUCH_C);
}

static int apply(struct um_txn *txn, struct um_segment *s, unsigned flags, struct um_inode *inode,
	uint64_t *out_gone)
{
	struct um_tree tree;
	int err = um_inode_load(um_txn_src(txn), inode->ino, inode);

	if (err)
		return err;
	um_inode_tree(inode, UM_FORK_DATA, &tree);
	for (unsigned i = 0; !err && i < s->nruns; i++)
		err = apply_run(txn, &tree, s, &s->runs[i], out_gone);
	if (!err)
		err = um_pieces_add(txn, &tree, &s->fresh, false);
	for (unsigned i = 0; !err && i < s->fresh.n; i++) {
		const struct um_piece *p = &s->fresh.v[i];

		err = um_data_counts(txn, p->lba, p->len, &s->csum[p->block - s->first]);
	}
	if (err)
		return err;
	if (!um_segment_overwrites(s) && tree.root.format != UM_ROOT_EMPTY)
		um_inode_set_tree(inode, UM_FORK_DATA, &tree);
	for (unsigned i = 0; i < s->fresh.n; i++)
		inode->core.blocks += s->fresh.v[i].len;
	inode->core.blocks -= *out_gone;
	if (s->off + s->len > inode->core.size)
		inode->core.size = s->off + s->len;
	um_segment_touch(inode, flags);
	if (flags & UMBRA_WRITE_KILLPRIV)
		err = um_inode_killpriv(txn, inode);
	return err < 0 ? err : um_inode_store(txn, inode);
}

/* Does it replace the file's own blocks? Then it gives back as many as it takes. */
static bool segment_moves(const struct um_segment *s)
{
	for (unsigned i = 0; s->moves && i < s->nruns; i++)
		if (s->runs[i].lba && s->runs[i].refs < 2 && policy_of(s, &s->runs[i]) == FRESH)
			return true;
	return false;
}

static int64_t since(const struct timespec *now, const struct um_time *then)
{
	return (now->tv_sec - (int64_t)then->sec) * 1000000000ll + now->tv_nsec - then->nsec;
}

/*
 * Plain files: data went in place, and the times are those of the present tick of the kernel's
 * clock, which is their granularity, or are not ours to set. There is nothing to commit.
 */
bool um_segment_is_done(const struct umbra_fs *fs, const struct um_segment *s, unsigned flags)
{
	const struct um_inode_core *core = &s->inode.core;
	struct timespec tick, now;

	if (fs->pool->direct || flags & UMBRA_WRITE_KILLPRIV || !um_segment_overwrites(s))
		return false;
	for (unsigned i = 0; i < s->nruns; i++)
		if (policy_of(s, &s->runs[i]) != INPLACE)
			return false;
	if (flags & UMBRA_WRITE_BACK)
		return true;
	clock_gettime(CLOCK_REALTIME_COARSE, &tick);
	clock_gettime(CLOCK_REALTIME, &now);
	return since(&tick, &core->mtime) <= 0 && since(&tick, &core->ctime) <= 0 &&
	       since(&now, &core->mtime) >= 0 && since(&now, &core->ctime) >= 0;
}

int um_segment_commit(struct umbra_fs *fs, struct um_segment *s, unsigned flags)
{
	struct um_inode inode = {.ino = s->inode.ino};
	struct um_txn *txn;
	uint64_t gone = 0;
	int err = um_txn_begin(fs->log, segment_moves(s) ? UM_TXN_RESERVE : 0, &txn);

	if (err)
		return err;
	err = um_pieces_count(txn, &s->fresh);
	if (!err)
		err = apply(txn, s, flags, &inode, &gone);
	err = um_txn_end(txn, err);
	if (!err && gone) {
		atomic_fetch_add_explicit(&fs->stat_cow_blocks, gone, memory_order_relaxed);
		um_shadows_toss(fs, inode.ino, s->first, s->nblocks);
	}
	return err;
}

void um_segment_masters(const struct um_segment *s, struct um_hold *hold)
{
	for (unsigned i = 0; i < s->nruns; i++)
		if (s->runs[i].lba && policy_of(s, &s->runs[i]) == FRESH)
			um_hold_add(hold, s->runs[i].lba, s->runs[i].len);
}

/* ---- after an error --------------------------------------------------------------------------------- */

/* If the segment covers a block in part: is it bad, and have its bytes been rebuilt? */
static bool block_cured(struct umbra_fs *fs, const struct um_segment *s, uint64_t block)
{
	for (unsigned i = 0; i < s->nruns; i++) {
		const struct um_run *run = &s->runs[i];
		um_lba_t lba = run->lba + (block - run->block);

		if (block < run->block || block - run->block >= run->len)
			continue;
		if (!um_run_data(run) || block_whole(s, block) ||
			(!um_pool_lost(fs->pool, lba, 1) && !um_data_verify(fs, lba, 1, NULL)))
			return false;
		return !um_failure_cure(fs, lba);
	}
	return false;
}

/* Remains of old blocks are in the first and the last one. */
bool um_segment_cured(struct umbra_fs *fs, const struct um_segment *s)
{
	uint64_t last = s->first + s->nblocks - 1;
	bool cured = block_cured(fs, s, s->first);

	return (last != s->first && block_cured(fs, s, last)) || cured;
}
