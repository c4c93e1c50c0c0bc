/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading file data, and SEEK_DATA and SEEK_HOLE. No lock of the file is taken: size and mapping
 * are read together under the log's read lock, and an epoch protects the blocks until the reader is
 * done.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/failure.h"
#include "fs/shadows.h"

#define READ_RUNS 64u

void umbra_read_begin(struct umbra_fs *fs)
{
	um_epoch_enter(fs->space);
}

void umbra_read_end(struct umbra_fs *fs)
{
	um_epoch_leave(fs->space);
}

/* ---- filling iovecs ------------------------------------------------------------------------------ */

struct filler {
	struct iovec *iov;
	unsigned n, max;
	size_t len;
	bool verify; /* note blocks, to be verified against their checksums */
	bool failed; /* no memory for that */
	unsigned nsums, capsums;
	struct sums {
		um_lba_t lba;
		uint64_t n;
	} * sums;
	um_lba_t bad; /* a block that has to be read and cannot be, or 0 */
};

/* Notes the blocks that bytes come from. */
static void note_sums(struct filler *f, um_lba_t lba, uint64_t n)
{
	struct sums *last = f->nsums ? &f->sums[f->nsums - 1] : NULL, *more;
	unsigned cap = f->capsums ? 2 * f->capsums : READ_RUNS;

	if (last && last->lba + last->n == lba) {
		last->n += n;
		return;
	}
	if (f->nsums == f->capsums) {
		more = realloc(f->sums, cap * sizeof(*more));
		f->failed = f->failed || !more;
		if (!more)
			return;
		f->sums = more;
		f->capsums = cap;
	}
	f->sums[f->nsums++] = (struct sums){lba, n};
}

/* Adds the bytes at p; returns how many of them had room. */
static size_t fill(struct filler *f, const void *p, size_t len)
{
	struct iovec *last = f->n ? &f->iov[f->n - 1] : NULL;

	if (last && (const uint8_t *)last->iov_base + last->iov_len == p) {
		last->iov_len += len;
	} else {
		if (f->n == f->max)
			return 0;
		f->iov[f->n++] = (struct iovec){(void *)p, len};
	}
	f->len += len;
	return len;
}

static size_t fill_zeros(struct filler *f, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t n = len - done < UM_CHUNK_SIZE ? len - done : UM_CHUNK_SIZE;

		if (f->n == f->max)
			break;
		f->iov[f->n++] = (struct iovec){(void *)um_data_zeros(), n};
		f->len += n;
		done += n;
	}
	return done;
}

/* The record may change once the read lock is released, so its bytes are copied. */
static void fill_inline(struct filler *f, const struct um_inode *inode, uint64_t off, size_t len)
{
	static _Thread_local uint8_t copy[UM_INLINE_MAX];
	uint16_t have = inode->core.data.len;
	size_t n = 0;

	if (off < have) {
		n = have - off < len ? have - off : len;
		memcpy(copy, inode->data + off, n);
		if (fill(f, copy, n) < n)
			return;
	}
	fill_zeros(f, len - n);
}

/* Adds bytes of blocks some of which are bad or were moved. */
static bool fill_scattered(
	const struct um_pool *pool, struct filler *f, um_lba_t lba, uint64_t from, size_t len)
{
	lba += from >> UM_BLOCK_SHIFT;
	from &= UM_BLOCK_SIZE - 1;
	for (; len; lba++, from = 0) {
		size_t n = UM_BLOCK_SIZE - from < len ? UM_BLOCK_SIZE - from : len;

		if (um_pool_lost(pool, lba, 1)) {
			f->bad = lba;
			return false;
		}
		if (fill(f, (const uint8_t *)um_pool_ptr(pool, lba) + from, n) < n)
			return false;
		len -= n;
	}
	return true;
}

/* The part of a run that intersects [off, end); false if there was no room for all of it. */
static bool fill_run(const struct um_pool *pool, struct filler *f, const struct um_run *run,
	uint64_t off, uint64_t end)
{
	uint64_t start = run->block << UM_BLOCK_SHIFT;
	uint64_t stop = (run->block + run->len) << UM_BLOCK_SHIFT;
	uint64_t from = start > off ? start : off;
	size_t len = (stop < end ? stop : end) - from;

	if (!um_run_data(run))
		return fill_zeros(f, len) == len;
	if (f->verify)
		note_sums(f, run->lba + (from >> UM_BLOCK_SHIFT) - run->block,
			um_blocks_of(from + len) - (from >> UM_BLOCK_SHIFT));
	if (um_pool_any_bad(pool))
		return fill_scattered(pool, f, run->lba, from - start, len);
	return fill(f, (const uint8_t *)um_pool_ptr(pool, run->lba) + (from - start), len) == len;
}

static int fill_blocks(struct umbra_fs *fs, struct filler *f, struct um_note *note,
	const struct um_inode *inode, uint64_t off, uint64_t end)
{
	uint64_t first = off >> UM_BLOCK_SHIFT, stop = um_blocks_of(end);
	struct um_run runs[READ_RUNS];
	struct um_tree tree;

	um_inode_tree(inode, UM_FORK_DATA, &tree);
	while (first < stop && f->n < f->max) {
		unsigned n;
		int err = um_runs_get(
			um_fs_src(fs), &tree, first, stop - first, 0, runs, READ_RUNS, &n);

		if (err)
			return err;
		um_note_runs(fs, note, &tree, runs, n, first, stop);
		for (unsigned i = 0; i < n; i++)
			if (!fill_run(fs->pool, f, &runs[i], off, end))
				return 0;
		first = runs[n - 1].block + runs[n - 1].len;
	}
	return 0;
}

static int read_locked(
	struct umbra_fs *fs, struct um_note *note, uint64_t off, size_t len, struct filler *f)
{
	struct um_inode inode;
	int err = um_inode_load(um_fs_src(fs), note->ino, &inode);

	if (!err)
		err = um_data_regular(&inode);
	if (err || off >= inode.core.size)
		return err;
	if (len > inode.core.size - off)
		len = inode.core.size - off;
	if (inode.core.data.format == UM_ROOT_INLINE) {
		fill_inline(f, &inode, off, len);
		return 0;
	}
	return fill_blocks(fs, f, note, &inode, off, off + len);
}

/* Verifies what was filled in against its checksums. *out_bad: a block that does not match. */
static int check_sums(struct umbra_fs *fs, const struct filler *f, um_lba_t *out_bad)
{
	int err = f->failed ? -ENOMEM : 0;

	for (unsigned i = 0; !err && i < f->nsums; i++)
		err = um_data_verify(fs, f->sums[i].lba, f->sums[i].n, out_bad);
	return err;
}

/* Ensures that what is handed out can be loaded: it is copied by the kernel, or by callers that do
 * not check. *out_bad: a block that cannot be loaded, if known. */
static int touch(const struct um_pool *pool, const struct filler *f, um_lba_t *out_bad)
{
	uintptr_t base = (uintptr_t)pool->base;

	um_guard_check(); /* a mark left by an earlier load is not about these */
	for (unsigned i = 0; i < f->n; i++) {
		uintptr_t at = (uintptr_t)f->iov[i].iov_base;

		if (at < base || at - base >= pool->map_len)
			continue; /* zeros, or a copy */
		if (um_guard_touch(f->iov[i].iov_base, f->iov[i].iov_len)) {
			*out_bad = UM_LBA_MASK;
			return -EIO;
		}
	}
	return 0;
}

static int read_once(struct umbra_fs *fs, um_ino_t ino, uint64_t off, size_t len, bool load,
	struct filler *f, um_lba_t *out_bad)
{
	struct um_note note;
	int err;

	f->n = 0;
	f->len = 0;
	f->nsums = 0;
	f->failed = false;
	f->bad = *out_bad = 0;
	um_note_begin(fs, &note, ino);
	um_log_read_lock(fs->log);
	err = read_locked(fs, &note, off, len, f);
	um_log_read_unlock(fs->log);
	um_note_end(fs, &note);
	if (err)
		return err;
	*out_bad = f->bad;
	err = f->bad ? -EIO : load ? touch(fs->pool, f, out_bad) : 0;
	return err ? err : check_sums(fs, f, out_bad);
}

int um_read_iov(struct umbra_fs *fs, um_ino_t ino, uint64_t off, size_t len, bool load,
	struct iovec *iov, unsigned max, unsigned *out_n, size_t *out_len)
{
	struct filler f = {
		.iov = iov,
		.max = max,
		.verify = um_has_csum(fs->pool) && fs->opt.data_csum == UMBRA_CSUM_READ,
	};
	/* A block may have to be examined again to find out which one it is. */
	uint64_t tries = 2 * um_blocks_of(len) + UM_CURES;
	um_lba_t bad;
	int err = 0;

	if (len && max) {
		/* Each iteration has one bad block less, or ends. */
		do
			err = read_once(fs, ino, off, len, load, &f, &bad);
		while (err && bad && tries-- && !um_failure_cure(fs, bad));
		free(f.sums);
	}
	*out_n = f.n;
	*out_len = f.len;
	if (err)
		return err;
	atomic_fetch_add_explicit(&fs->stat_reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&fs->stat_read_bytes, f.len, memory_order_relaxed);
	return 0;
}

int umbra_read_iov(struct umbra_fs *fs, uint64_t ino, uint64_t off, size_t len, struct iovec *iov,
	unsigned max, unsigned *out_n, size_t *out_len)
{
	return um_read_iov(fs, ino, off, len, true, iov, max, out_n, out_len);
}

ssize_t umbra_read(struct umbra_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off)
{
	struct iovec iov[READ_RUNS];
	size_t done = 0, got;
	unsigned n;
	int err = 0;

	if (len > SSIZE_MAX)
		len = SSIZE_MAX;
	umbra_read_begin(fs);
	while (!err && done < len) {
		err = umbra_read_iov(fs, ino, off + done, len - done, iov, READ_RUNS, &n, &got);
		if (err || !got)
			break;
		for (unsigned i = 0; i < n; i++) {
			memcpy((uint8_t *)buf + done, iov[i].iov_base, iov[i].iov_len);
			done += iov[i].iov_len;
		}
		err = um_guard_check();
	}
	umbra_read_end(fs);
	return err ? err : (ssize_t)done;
}

/* ---- looking for data ------------------------------------------------------------------------------ */

/* The first block at or after `first` that has data (or has none), or `stop`. */
static int seek_block(struct umbra_fs *fs, um_ino_t ino, bool want_data, uint64_t off,
	uint64_t *out, bool *out_more)
{
	struct um_run runs[READ_RUNS];
	struct um_inode inode;
	struct um_tree tree;
	uint64_t first = off >> UM_BLOCK_SHIFT, stop;
	unsigned n, i;
	int err = um_inode_load(um_fs_src(fs), ino, &inode);

	*out_more = false;
	if (!err)
		err = um_data_regular(&inode);
	if (err)
		return err;
	if (off >= inode.core.size)
		return -ENXIO;
	stop = um_blocks_of(inode.core.size);
	if (inode.core.data.format == UM_ROOT_INLINE && !first) {
		/* The record's bytes represent the first block. */
		*out = want_data ? off : UM_BLOCK_SIZE;
	} else {
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		err = um_runs_get(
			um_fs_src(fs), &tree, first, stop - first, 0, runs, READ_RUNS, &n);
		if (err)
			return err;
		for (i = 0; i < n && um_run_data(&runs[i]) != want_data; i++)
			first = runs[i].block + runs[i].len;
		*out_more = i == n && first < stop;
		*out = first << UM_BLOCK_SHIFT > off ? first << UM_BLOCK_SHIFT : off;
	}
	if (*out < inode.core.size)
		return 0;
	*out = inode.core.size;
	return want_data ? -ENXIO : 0;
}

int umbra_lseek(struct umbra_fs *fs, uint64_t ino, uint64_t off, int whence, uint64_t *out)
{
	bool more = true;
	int err = 0;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	while (!err && more) {
		um_log_read_lock(fs->log);
		err = seek_block(fs, ino, whence == SEEK_DATA, off, out, &more);
		um_log_read_unlock(fs->log);
		off = *out;
	}
	return err;
}
