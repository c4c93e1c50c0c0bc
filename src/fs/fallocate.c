/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fallocate(2): preallocation, holes, ranges of zeros. Each works through its range in steps of a
 * bounded number of extents, a transaction each, so that the writer lock is never held for long.
 * What a failing call has done stays, as on other filesystems.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include "fs/shadows.h"

/* ---- one step -------------------------------------------------------------------------------------- */

struct step {
	struct umbra_fs *fs;
	struct um_mem *mem;
	uint64_t next, end; /* file blocks still to do */
	enum { PUNCH, PREALLOCATE, ZERO } what;
	unsigned nruns;
	struct um_run runs[UM_STEP_RUNS];
	struct um_pieces fresh;
};

static int step_plan(struct step *s)
{
	struct um_src src = um_fs_src(s->fs);
	struct um_inode inode;
	struct um_tree tree;
	int err;

	s->fresh.n = s->fresh.counted = 0;
	um_log_read_lock(s->fs->log);
	err = um_inode_load(src, s->mem->ino, &inode);
	if (!err) {
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		err = um_runs_get(src, &tree, s->next, s->end - s->next,
			s->what == ZERO ? UM_RUNS_REFS : 0, s->runs, UM_STEP_RUNS, &s->nruns);
	}
	um_log_read_unlock(s->fs->log);
	return err;
}

/* Does a run get new unwritten blocks? */
static bool wants_blocks(const struct step *s, const struct um_run *run)
{
	return !run->lba || (s->what == ZERO && !run->unwritten && run->refs > 1);
}

/* Takes the blocks of the step; what they do not cover is left for the next. */
static int step_take(struct step *s)
{
	int err = 0;

	for (unsigned i = 0; !err && i < s->nruns; i++) {
		struct um_run *run = &s->runs[i];
		struct um_wish wish = {.block = run->block, .n = run->len};
		uint64_t got;

		if (!wants_blocks(s, run))
			continue;
		if (i && s->runs[i - 1].lba)
			wish.goal = s->runs[i - 1].lba + s->runs[i - 1].len;
		err = um_pieces_take(s->fs, s->mem, &wish, &s->fresh, &got);
		if (!err && got < run->len) {
			run->len = got;
			s->nruns = i + (got != 0);
		}
		if (err == -ENOSPC && i) {
			s->nruns = i;
			return 0;
		}
	}
	return err;
}

/*
 * Unwritten blocks are written in place, but a power cut may bring back that they were written, with
 * the checksum and the parity of their old bytes: until it cannot they count as shared (unshared.c).
 */
static int zero_run(struct um_txn *txn, struct um_tree *tree, const struct um_run *run)
{
	if (um_data_moves(um_txn_pool(txn)))
		um_unshared_note(txn, run->lba, (uint32_t)run->len);
	return um_extents_mark(txn, tree, run->block, run->len, true);
}

static int step_tree(struct um_txn *txn, struct um_tree *tree, struct step *s, uint64_t *gone)
{
	int err = 0;

	for (unsigned i = 0; !err && i < s->nruns; i++) {
		const struct um_run *run = &s->runs[i];

		if (!run->lba || s->what == PREALLOCATE)
			continue;
		if (s->what == PUNCH || wants_blocks(s, run))
			err = um_extents_punch(txn, tree, run->block, run->len, gone);
		else if (!run->unwritten)
			err = zero_run(txn, tree, run);
	}
	return err ? err : um_pieces_add(txn, tree, &s->fresh, true);
}

static int step_apply(struct um_txn *txn, struct step *s)
{
	struct um_inode inode;
	struct um_tree tree;
	uint64_t gone = 0;
	int err = um_pieces_count(txn, &s->fresh);

	if (!err)
		err = um_inode_load(um_txn_src(txn), s->mem->ino, &inode);
	if (err)
		return err;
	um_inode_tree(&inode, UM_FORK_DATA, &tree);
	err = step_tree(txn, &tree, s, &gone);
	if (err)
		return err;
	um_inode_set_tree(&inode, UM_FORK_DATA, &tree);
	for (unsigned i = 0; i < s->fresh.n; i++)
		inode.core.blocks += s->fresh.v[i].len;
	inode.core.blocks -= gone;
	um_inode_touch(&inode, UM_TOUCH_M | UM_TOUCH_C);
	return um_inode_store(txn, &inode);
}

/* Is there anything to change? */
static bool step_idle(const struct step *s)
{
	for (unsigned i = 0; i < s->nruns; i++) {
		const struct um_run *run = &s->runs[i];

		if (s->what == PUNCH ? run->lba != 0
				     : wants_blocks(s, run) || (s->what == ZERO && !run->unwritten))
			return false;
	}
	return true;
}

static uint64_t step_end(const struct step *s)
{
	return s->runs[s->nruns - 1].block + s->runs[s->nruns - 1].len;
}

static int step_run(struct step *s)
{
	struct um_txn *txn;
	int err = step_plan(s);

	if (err)
		return err;
	if (!step_idle(s)) {
		if (s->what != PUNCH)
			err = step_take(s);
		if (!err)
			err = um_txn_begin(s->fs->log, s->what == PUNCH ? UM_TXN_RESERVE : 0, &txn);
		if (!err)
			err = um_txn_end(txn, step_apply(txn, s));
		if (!err && s->what != PREALLOCATE)
			um_shadows_toss(s->fs, s->mem->ino, s->next, step_end(s) - s->next);
		um_pieces_give(s->fs, &s->fresh);
	}
	if (!err)
		s->next = step_end(s);
	return err;
}

static int steps_run(
	struct umbra_fs *fs, struct um_mem *mem, int what, uint64_t first, uint64_t end)
{
	struct step s = {.fs = fs, .mem = mem, .next = first, .end = end, .what = what};
	bool waited = false, unshared = false;
	int err = 0;

	while (!err && s.next < s.end) {
		err = step_run(&s);
		if (err == -EMLINK && !unshared) {
			err = um_data_unshare(fs, mem);
			unshared = true;
		}
		if (err == -ENOSPC && !waited) {
			um_reaper_wait(fs, UM_ENOSPC_WAIT_MSEC);
			waited = true;
			err = 0;
		}
	}
	return err;
}

/* ---- holes ----------------------------------------------------------------------------------------- */

/* Zeroes bytes of one block if it has any data. */
static int zero_bytes(struct umbra_fs *fs, struct um_mem *mem, uint64_t off, uint64_t len)
{
	struct um_inode inode;
	struct um_tree tree;
	struct um_run run;
	unsigned n;
	ssize_t done;
	int err;

	if (!len)
		return 0;
	um_log_read_lock(fs->log);
	err = um_inode_load(um_fs_src(fs), mem->ino, &inode);
	if (!err) {
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		err = um_runs_get(um_fs_src(fs), &tree, off >> UM_BLOCK_SHIFT, 1, 0, &run, 1, &n);
	}
	um_log_read_unlock(fs->log);
	if (err)
		return err;
	if (inode.core.data.format == UM_ROOT_INLINE) {
		if (off >= inode.core.data.len)
			return 0;
		if (len > inode.core.data.len - off)
			len = inode.core.data.len - off;
	} else if (!um_run_data(&run)) {
		return 0;
	}
	/* Beyond the end there are zeros, and a write there would move the end. */
	if (off >= inode.core.size)
		return 0;
	if (len > inode.core.size - off)
		len = inode.core.size - off;
	done = um_data_write(fs, mem, um_data_zeros(), len, off, 0);
	return done < 0 ? (int)done : 0;
}

/* Zeroes the parts of the range that do not fill a block; [*first, *last) are the blocks that it
 * fills. */
static int zero_edges(struct umbra_fs *fs, struct um_mem *mem, uint64_t off, uint64_t len,
	uint64_t *first, uint64_t *last)
{
	uint64_t end = off + len;
	int err;

	*first = um_blocks_of(off);
	*last = end >> UM_BLOCK_SHIFT;
	if (*first > *last) { /* all within one block */
		*last = *first;
		return zero_bytes(fs, mem, off, len);
	}
	err = zero_bytes(fs, mem, off, (*first << UM_BLOCK_SHIFT) - off);
	if (!err)
		err = zero_bytes(fs, mem, *last << UM_BLOCK_SHIFT, end - (*last << UM_BLOCK_SHIFT));
	return err;
}

/* Inline data counts as block 0, and the record's bytes are dropped with it. */
static int punch_inline(struct umbra_fs *fs, struct um_mem *mem)
{
	struct um_inode inode;
	struct um_txn *txn;
	int err = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	if (err)
		return err;
	err = um_inode_load(um_txn_src(txn), mem->ino, &inode);
	if (!err && inode.core.data.format == UM_ROOT_INLINE) {
		inode.core.data = (struct um_root){0};
		um_inode_touch(&inode, UM_TOUCH_M | UM_TOUCH_C);
		err = um_inode_store(txn, &inode);
	}
	return um_txn_end(txn, err);
}

int um_data_punch(struct umbra_fs *fs, struct um_mem *mem, uint64_t off, uint64_t len)
{
	struct um_inode inode;
	uint64_t first, last;
	int err = um_inode_read(fs, mem->ino, &inode);

	if (err)
		return err;
	/* What lies beyond the end is zero anyway, so the last block goes entirely. */
	if (off + len >= inode.core.size)
		len = (um_blocks_of(off + len) << UM_BLOCK_SHIFT) - off;
	err = zero_edges(fs, mem, off, len, &first, &last);
	if (!err && !first && last && inode.core.data.format == UM_ROOT_INLINE)
		err = punch_inline(fs, mem);
	return err ? err : steps_run(fs, mem, PUNCH, first, last);
}

/* ---- fallocate -------------------------------------------------------------------------------------- */

/* Sets the new size, if the range reaches further, and the times in any case. */
static int finish(struct umbra_fs *fs, struct um_mem *mem, uint64_t end)
{
	struct um_inode inode;
	struct um_txn *txn;
	int err = end ? um_data_clear_tail(fs, mem) : 0;

	if (!err)
		err = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);
	if (err)
		return err;
	err = um_inode_load(um_txn_src(txn), mem->ino, &inode);
	if (!err) {
		if (end > inode.core.size)
			inode.core.size = end;
		um_inode_touch(&inode, UM_TOUCH_M | UM_TOUCH_C);
		err = um_inode_store(txn, &inode);
	}
	return um_txn_end(txn, err);
}

/* Fails early where a long call would otherwise first fill the pool. */
static int enough_space(struct umbra_fs *fs, const struct um_inode *inode, uint64_t blocks)
{
	struct um_space_stat stat;

	/* At best all of the file's blocks lie in the range already. */
	blocks = blocks > inode->core.blocks ? blocks - inode->core.blocks : 0;
	um_space_stat(fs->space, &stat);
	if (blocks <= stat.avail)
		return 0;
	um_reaper_wait(fs, UM_ENOSPC_WAIT_MSEC);
	um_space_stat(fs->space, &stat);
	return blocks <= stat.avail ? 0 : -ENOSPC;
}

static int zero_range(struct umbra_fs *fs, struct um_mem *mem, uint64_t off, uint64_t len)
{
	uint64_t first, last;
	int err = zero_edges(fs, mem, off, len, &first, &last);

	return err ? err : steps_run(fs, mem, ZERO, first, last);
}

static int fallocate_locked(
	struct umbra_fs *fs, struct um_mem *mem, int mode, uint64_t off, uint64_t len)
{
	uint64_t first = off >> UM_BLOCK_SHIFT, end = um_blocks_of(off + len);
	struct um_inode inode;
	int err = um_inode_read(fs, mem->ino, &inode);

	if (!err)
		err = um_data_regular(&inode);
	if (err)
		return err == -EISDIR ? err : err == -EINVAL ? -ENODEV : err;
	if (inode.core.flags & FS_IMMUTABLE_FL ||
		(inode.core.flags & FS_APPEND_FL && mode & ~FALLOC_FL_KEEP_SIZE))
		return -EPERM;
	err = um_data_settle(fs, mem->ino);
	if (err < 0)
		return err;
	if (mode & FALLOC_FL_PUNCH_HOLE) {
		err = um_data_punch(fs, mem, off, len);
		return err ? err : finish(fs, mem, 0);
	}
	err = enough_space(fs, &inode, end - first);
	if (!err && inode.core.data.format == UM_ROOT_INLINE)
		err = um_data_uninline(fs, mem);
	if (!err && mode & FALLOC_FL_ZERO_RANGE)
		err = zero_range(fs, mem, off, len);
	if (!err)
		err = steps_run(fs, mem, PREALLOCATE, first, end);
	return err ? err : finish(fs, mem, mode & FALLOC_FL_KEEP_SIZE ? 0 : off + len);
}

int umbra_fallocate(struct umbra_fs *fs, uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	struct um_mem *mem;
	int err;

	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (!len)
		return -EINVAL;
	if (off > UMBRA_SIZE_MAX || len > UMBRA_SIZE_MAX - off)
		return -EFBIG;
	err = um_data_may_change(fs);
	if (!err)
		err = um_mem_get(fs, ino, &mem);
	if (err)
		return err;
	pthread_rwlock_wrlock(&mem->lock);
	err = fallocate_locked(fs, mem, mode, off, len);
	pthread_rwlock_unlock(&mem->lock);
	um_mem_put(fs, mem);
	return err;
}
