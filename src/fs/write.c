/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing file data. A write is split into segments (segment.c), one after the other, each with the
 * locks that its plan needs; small files are written into their records.
 */
#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/errors.h"
#include "fs/failure.h"
#include "fs/segment.h"

/* ---- inline data --------------------------------------------------------------------------------------- */

/* Small content at the front of a file is stored in its record, as long as there is no block
 * yet. */
static bool fits_inline(const struct um_inode *inode, uint64_t off, size_t len)
{
	uint8_t format = inode->core.data.format;

	return (format == UM_ROOT_EMPTY || format == UM_ROOT_INLINE) && off <= UM_INLINE_MAX &&
	       len <= UM_INLINE_MAX - off;
}

static int put_inline(struct umbra_fs *fs, struct um_segment *s, unsigned flags)
{
	struct um_inode *inode = &s->inode;
	uint64_t end = s->off + s->len;
	struct um_txn *txn;
	int err = um_txn_begin(fs->log, 0, &txn);

	if (err)
		return err;
	err = um_inode_load(um_txn_src(txn), inode->ino, inode);
	if (!err) {
		struct um_root *root = &inode->core.data;

		if (root->len < s->off)
			memset(inode->data + root->len, 0, s->off - root->len);
		memcpy(inode->data + s->off, s->buf, s->len);
		if (root->len < end)
			root->len = (um_le16_t)end;
		root->format = UM_ROOT_INLINE;
		if (inode->core.size < end)
			inode->core.size = end;
		um_segment_touch(inode, flags);
		if (flags & UMBRA_WRITE_KILLPRIV)
			err = um_inode_killpriv(txn, inode);
	}
	if (err >= 0)
		err = um_inode_store(txn, inode);
	return um_txn_end(txn, err);
}

/* ---- segments ---------------------------------------------------------------------------------------- */

struct writer {
	struct umbra_fs *fs;
	struct um_mem *mem;
	bool alone; /* mem->lock is held exclusively */
	unsigned flags;
};

/* Carries out one planned segment. s->len is what was written. */
static int segment_run(struct writer *w, struct um_segment *s)
{
	int err;

	if (fits_inline(&s->inode, s->off, s->len))
		return put_inline(w->fs, s, w->flags);
	if (s->first && s->inode.core.data.format == UM_ROOT_INLINE) {
		err = um_data_uninline(w->fs, w->mem);
		if (err)
			return err;
	}
	err = s->off > s->inode.core.size ? um_data_clear_tail(w->fs, w->mem) : 0;
	if (!err)
		err = um_segment_store(w->fs, w->mem, s);
	if (!err && !um_segment_is_done(w->fs, s, w->flags))
		err = um_segment_commit(w->fs, s, w->flags);
	um_pieces_give(w->fs, &s->fresh);
	return err;
}

/*
 * Locks them until the segment is committed. Of two files that copy a shared block at once the
 * second waits, plans again and, if it has become the only owner, need not copy; and no block is
 * moved between being planned for, copied and released. A plan is valid if it was made with its
 * locks held, and nobody else held them in between.
 */
static int segment_lock(struct writer *w, struct um_segment *s, size_t len)
{
	um_segment_masters(s, &s->hold);
	while (!um_master_lock(w->fs->page, &s->hold)) {
		struct um_hold want;
		int err;

		um_hold_init(w->fs->page, &want);
		s->len = len;
		err = um_segment_plan(w->fs, w->mem->ino, s);
		um_segment_masters(s, &want);
		if (!err && um_hold_within(&want, &s->hold))
			return 0;
		um_master_unlock(w->fs->page, &s->hold);
		if (err)
			return err;
		s->hold = want;
	}
	return 0;
}

/* Plans, and takes the lock that the plan needs. */
static int segment_begin(struct writer *w, struct um_segment *s)
{
	size_t len = s->len;
	int err;

	um_hold_init(w->fs->page, &s->hold);
	err = um_segment_plan(w->fs, w->mem->ino, s);
	if (!err && !w->alone && !um_segment_overwrites(s)) {
		pthread_rwlock_unlock(&w->mem->lock);
		pthread_rwlock_wrlock(&w->mem->lock);
		w->alone = true;
		s->len = len;
		err = um_segment_plan(w->fs, w->mem->ino, s);
	}
	return err ? err : segment_lock(w, s, len);
}

static ssize_t write_segments(struct writer *w, const uint8_t *buf, size_t len, uint64_t off)
{
	struct um_segment s;
	size_t done = 0;
	bool waited = false, unshared = false, settled = false;
	unsigned cures = 0;
	uint64_t failed;
	int err = 0;

	while (done < len) {
		s.off = off + done;
		s.buf = buf + done;
		s.len = UM_SEGMENT_SIZE - (s.off & (UM_SEGMENT_SIZE - 1));
		if (s.len > len - done)
			s.len = len - done;
		failed = atomic_load(&w->fs->pool->nfailed);
		err = segment_begin(w, &s);
		if (!err && w->flags & UMBRA_WRITE_OPENED_APPEND &&
			s.inode.core.flags & FS_APPEND_FL && s.off < s.inode.core.size)
			err = -EPERM;
		if (!err && !settled && s.off + s.len > s.inode.core.size) {
			err = um_data_settle(w->fs, w->mem->ino);
			settled = err >= 0;
			if (err > 0)
				continue; /* with a new plan */
		}
		if (!err)
			err = segment_run(w, &s);
		um_master_unlock(w->fs->page, &s.hold);
		/* Memory failed under it, or before: try a new plan, which avoids what is bad. */
		if (err == -EIO && (atomic_load(&w->fs->pool->nfailed) != failed ||
					   (cures++ < UM_CURES && um_segment_cured(w->fs, &s))))
			continue;
		if (err == -ENOSPC && !waited) {
			/* Recently removed files may still be on their way to free space. And what a power
			 * cut could bring back need not be copied any more once it cannot. */
			um_reaper_wait(w->fs, UM_ENOSPC_WAIT_MSEC);
			if (um_log_firm(w->fs->log) < um_log_committed(w->fs->log))
				(void)um_log_seal(w->fs->log);
			waited = true;
			continue;
		}
		if (err == -EMLINK && !unshared) {
			err = um_data_unshare(w->fs, w->mem);
			unshared = true;
			if (!err)
				continue;
		}
		if (err)
			break;
		if (s.inode.core.flags & FS_SYNC_FL)
			w->flags |= UMBRA_WRITE_SYNC;
		done += s.len;
	}
	atomic_fetch_add_explicit(&w->fs->stat_writes, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->fs->stat_write_bytes, done, memory_order_relaxed);
	if (err == -ENOSPC && w->flags & (UMBRA_WRITE_CACHED | UMBRA_WRITE_BACK))
		return err;
	if (done && (!err || err == -ENOSPC))
		return (ssize_t)done;
	return err;
}

/* How much of a write fits below the largest file size. -EFBIG if nothing does. */
static int clip(uint64_t off, size_t *len)
{
	if (*len > SSIZE_MAX)
		*len = SSIZE_MAX;
	if (off >= UMBRA_SIZE_MAX)
		return -EFBIG;
	if (*len > UMBRA_SIZE_MAX - off)
		*len = UMBRA_SIZE_MAX - off;
	return 0;
}

ssize_t um_data_write(struct umbra_fs *fs, struct um_mem *mem, const void *buf, size_t len,
	uint64_t off, unsigned flags)
{
	struct writer w = {fs, mem, true, flags};
	int err = um_data_may_change(fs);

	if (!err && len)
		err = clip(off, &len);
	return err ? err : write_segments(&w, buf, len, off);
}

static ssize_t write_locked(struct writer *w, const void *buf, size_t len, uint64_t *off)
{
	const bool cached = w->flags & UMBRA_WRITE_CACHED;
	struct um_inode inode;
	size_t most = len;
	ssize_t done;
	int err = 0;

	if (!len || cached || w->flags & UMBRA_WRITE_APPEND) {
		err = um_inode_read(w->fs, w->mem->ino, &inode);
		if (!err)
			err = um_data_regular(&inode);
		if (err)
			return err;
		if (w->flags & UMBRA_WRITE_APPEND)
			*off = inode.core.size;
		if (cached && *off >= inode.core.size)
			return (ssize_t)len;
		if (cached && most > inode.core.size - *off)
			most = inode.core.size - *off;
	}
	if (most)
		err = clip(*off, &most);
	if (!err && most < len && w->flags & UMBRA_WRITE_BACK)
		err = -EFBIG;
	if (err)
		return err;
	done = write_segments(w, buf, most, *off);
	return cached && done == (ssize_t)most ? (ssize_t)len : done;
}

static ssize_t write_file(
	struct writer *w, uint64_t ino, const void *buf, size_t len, uint64_t *off)
{
	ssize_t done;
	int err = um_data_may_change(w->fs);

	/* The end must not move meanwhile. */
	w->alone = w->flags & (UMBRA_WRITE_APPEND | UMBRA_WRITE_CACHED);
	if (!err)
		err = um_mem_get(w->fs, ino, &w->mem);
	if (err)
		return err;
	if (w->alone)
		pthread_rwlock_wrlock(&w->mem->lock);
	else
		pthread_rwlock_rdlock(&w->mem->lock);
	done = write_locked(w, buf, len, off);
	pthread_rwlock_unlock(&w->mem->lock);
	if (done < 0 &&
		(w->flags & UMBRA_WRITE_LATE || (done == -EIO && !(w->flags & UMBRA_WRITE_QUIET))))
		um_error_note(w->fs, w->mem, (int)done);
	um_mem_put(w->fs, w->mem);
	return done;
}

ssize_t umbra_write(struct umbra_fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
	unsigned flags, uint64_t *out_off)
{
	struct writer w = {.fs = fs, .flags = flags};
	ssize_t done = write_file(&w, ino, buf, len, &off);
	int err = 0;

	if (out_off)
		*out_off = off;
	if (done > 0 && w.flags & UMBRA_WRITE_SYNC)
		err = um_log_sync(fs->log);
	return err ? err : done;
}

ssize_t umbra_write_start(struct umbra_fs *fs, uint64_t ino, const void *buf, size_t len,
	uint64_t off, unsigned flags, bool *out_sync)
{
	struct writer w = {.fs = fs, .flags = flags};
	ssize_t done = write_file(&w, ino, buf, len, &off);

	*out_sync = done > 0 && w.flags & UMBRA_WRITE_SYNC && !fs->pool->direct;
	return done;
}
