/* SPDX-License-Identifier: BSD-3-Clause */
/* A pool in use: opening, closing, and operations on it as a whole. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/errors.h"
#include "fs/failure.h"
#include "fs/fs.h"
#include "page/page.h"

#define STATFS_WAIT_MSEC 100
#define CLOSE_WAIT_MSEC 2000
#define INODES_PER_BLOCK 8u /* what statfs promises per free block; about 20 fit */

int um_fs_begin(struct umbra_fs *fs, unsigned flags, struct um_txn **out)
{
	int ret = um_fs_alive(fs);

	if (!ret && fs->readonly)
		ret = -EROFS;
	return ret ? ret : um_txn_begin(fs->log, flags, out);
}

/* ---- opening and closing --------------------------------------------------------------------------- */

/* Marks the pool root: in use from now on, or closed cleanly. */
static int mark(struct umbra_fs *fs, bool opened)
{
	uint64_t errors = opened ? 0 : atomic_load(&fs->pool->csum_errors);
	struct um_pool_root *root;
	struct um_txn *txn;
	bool loosened = false;
	int ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	if (ret)
		return ret;
	ret = um_root_edit(txn, &root);
	if (!ret && opened) {
		root->clean = 0;
		/* A write to a plain file whose transaction is lost in a power cut leaves its
		 * bytes. */
		loosened = !fs->pool->direct && !root->loose_tails;
		if (loosened)
			root->loose_tails = 1;
		fs->loose_tails = root->loose_tails;
		root->mounts++;
		root->mount_sec = (um_le64_t)time(NULL);
	} else if (!ret) {
		root->clean = 1;
		root->errors = errors > UINT32_MAX - root->errors ? UINT32_MAX
								  : root->errors + (uint32_t)errors;
	}
	ret = um_txn_end(txn, ret);
	/* That these may be there must be known wherever they are. */
	return ret || !loosened ? ret : um_log_seal(fs->log);
}

static void threads_stop(struct umbra_fs *fs)
{
	um_scrub_close(fs);
	um_failures_stop(fs);
	um_reaper_stop(fs);
	/* A failed barrier of the committer is reported through the pool. */
	if (fs->log)
		um_log_serve_end(fs->log);
	um_pool_async_end(fs->pool);
	um_fetch_close(fs);
	fs->stores = false;
}

/* Drops the in-memory state of the pool, the log without another store to the pool. */
static void state_drop(struct umbra_fs *fs)
{
	if (fs->log)
		um_log_abandon(fs->log);
	if (fs->space)
		um_space_close(fs->space);
	fs->log = NULL;
	fs->space = NULL;
}

/* Tears down everything but the pool and the struct. */
static void tear_down(struct umbra_fs *fs)
{
	threads_stop(fs);
	state_drop(fs);
	um_mem_table_close(fs->mems);
	um_errors_close(fs);
	um_page_close(fs->page);
}

/* Is there a root directory? A pool without one cannot be mounted. */
static int check_root_dir(struct umbra_fs *fs)
{
	struct um_inode root;
	int ret = um_inode_read(fs, UM_ROOT_INO, &root);

	if (!ret && S_ISDIR(root.core.mode) && root.core.nlink)
		return 0;
	if (!ret || ret == -ESTALE)
		ret = -EUCLEAN;
	um_err("%s: root directory missing or invalid", fs->pool->path);
	return ret;
}

static uint64_t shadow_mem(const struct umbra_options *opt)
{
	if (opt->shadow_mem == UMBRA_SHADOW_NONE)
		return 0;
	return opt->shadow_mem ? opt->shadow_mem : UM_PAGE_MEM_DEFAULT;
}

/* The log has stopped changes. Called with its locks held: nothing that takes any may be called. */
static void on_failed(void *arg)
{
	struct umbra_fs *fs = arg;

	if (fs->opt.errors == UMBRA_ERRORS_SHUTDOWN)
		atomic_store(&fs->stopped, EIO);
}

/* Replays the journal. */
static int state_load(struct umbra_fs *fs)
{
	int ret;

	um_bad_attach(fs->pool);
	ret = um_log_open(fs->pool, &fs->log);
	if (!ret)
		um_log_on_error(fs->log, fs->opt.errors == UMBRA_ERRORS_CONTINUE, on_failed, fs);
	if (!ret)
		ret = um_space_open(fs->log, &fs->space);
	if (ret)
		return ret;
	um_log_set_space(fs->log, fs->space);
	return check_root_dir(fs);
}

/* From here on the pool may be changed. */
static int threads_start(struct umbra_fs *fs)
{
	int ret = mark(fs, true);

	fs->stores = !ret;
	if (!ret)
		ret = um_fetch_open(fs);
	if (!ret)
		ret = um_pool_async(fs->pool, fs->opt.busy_poll * 1000ull);
	if (ret == -EOPNOTSUPP)
		ret = 0; /* a direct pool, or one in the memory of a test */
	else if (!ret)
		ret = um_log_serve(fs->log);
	if (!ret) {
		um_discard_start(fs);
		ret = um_reaper_start(fs);
	}
	if (!ret)
		ret = um_failures_start(fs);
	return ret ? ret : um_scrub_open(fs);
}

static int bring_up(struct umbra_fs *fs)
{
	int ret = um_errors_open(fs);

	if (!ret)
		ret = state_load(fs);
	if (!ret)
		ret = um_mem_table_open(&fs->mems);
	if (!ret)
		ret = um_page_open(shadow_mem(&fs->opt), &fs->page);
	return ret || fs->readonly ? ret : threads_start(fs);
}

static int open_pool(struct um_pool *pool, const struct umbra_options *opt, struct umbra_fs **out)
{
	struct umbra_fs *fs = calloc(1, sizeof(*fs));
	int ret;

	if (!fs) {
		um_pool_close(pool);
		return -ENOMEM;
	}
	fs->pool = pool;
	pthread_mutex_init(&fs->grow_lock, NULL);
	if (opt)
		fs->opt = *opt;
	fs->readonly = fs->opt.readonly;
	fs->taken = !fs->readonly;
	if ((um_has_csum(pool) || um_has_parity(pool)) && fs->opt.data == UMBRA_DATA_INPLACE) {
		um_warn("%s: data=inplace is ignored: data, its checksums and parity change "
			"together",
			pool->path);
		fs->opt.data = UMBRA_DATA_ATOMIC;
	}
	ret = bring_up(fs);
	if (ret) {
		tear_down(fs);
		um_pool_close(pool);
		free(fs);
		return ret;
	}
	*out = fs;
	return 0;
}

/* Read-only: the journal is replayed to private pages, so nothing is ever stored. */
static unsigned pool_flags(const struct umbra_options *opt, bool readonly)
{
	unsigned flags = UM_POOL_EXCL;

	if (readonly)
		flags = UM_POOL_RDONLY | UM_POOL_PRIVATE;
	if (opt && opt->try_lock)
		flags |= UM_POOL_TRY;
	if (opt && opt->claimed)
		flags |= UM_POOL_SHARED;
	return flags;
}

int umbra_open(const char *path, const struct umbra_options *opt, struct umbra_fs **out)
{
	struct um_pool *pool;
	int ret = um_pool_open(path, pool_flags(opt, opt && opt->readonly), 0, &pool);

	return ret ? ret : open_pool(pool, opt, out);
}

int umbra_open_image(
	void *base, uint64_t size, const struct umbra_options *opt, struct umbra_fs **out)
{
	struct um_pool *pool;
	int ret = um_pool_open_image(base, size, pool_flags(opt, opt && opt->readonly), &pool);

	return ret ? ret : open_pool(pool, opt, out);
}

int umbra_close(struct umbra_fs *fs)
{
	int ret = 0;

	um_scrub_close(fs);
	if (fs->stores && !atomic_load(&fs->stopped)) {
		um_reaper_wait(fs, CLOSE_WAIT_MSEC);
		um_reaper_stop(fs);
		umbra_failures_settle(fs);
		um_failures_stop(fs);
		ret = mark(fs, false);
		if (!ret) {
			ret = um_log_close(fs->log);
			fs->log = NULL;
		}
		if (ret)
			um_err("%s: not closed cleanly: %s", fs->pool->path, strerror(-ret));
	}
	tear_down(fs);
	um_pool_close(fs->pool);
	free(fs);
	return ret;
}

void umbra_abandon(struct umbra_fs *fs)
{
	atomic_store(&fs->stopped, EIO);
	um_log_stop(fs->log, EIO, false);
	tear_down(fs);
	um_pool_close(fs->pool);
	free(fs);
}

/* ---- read-only and back --------------------------------------------------------------------------- */

/*
 * From private pages, which are only this process's copy of the pool, to the pool itself: the
 * journal is replayed once more, permanently, and arrives at the same state. So the in-memory state
 * of inodes (lookups, opens) and of shared blocks stays valid.
 */
static int take_pool(struct umbra_fs *fs)
{
	struct um_pool *seen = fs->pool;
	struct um_log *log = fs->log;
	struct um_space *space = fs->space;
	int ret = um_pool_reopen(seen, pool_flags(&fs->opt, false), &fs->pool);

	if (!ret) {
		fs->log = NULL;
		fs->space = NULL;
		ret = state_load(fs);
		if (!ret) {
			um_log_abandon(log);
			um_space_close(space);
			um_pool_close(seen);
			return 0;
		}
		state_drop(fs);
		um_pool_close(fs->pool);
	}
	fs->pool = seen;
	fs->log = log;
	fs->space = space;
	/* Another process that got in between may change the pool under what is mapped here. */
	if (um_pool_relock(seen)) {
		um_err("%s: another process has taken the pool; no more is read from it",
			seen->path);
		atomic_store(&fs->stopped, EIO);
	}
	return ret;
}

static int to_writable(struct umbra_fs *fs)
{
	int ret = 0;

	if (!fs->taken)
		ret = take_pool(fs);
	if (ret)
		return ret;
	fs->taken = true;
	if (!fs->stores)
		ret = threads_start(fs);
	if (ret) {
		um_err("%s: stays read-only: %s", fs->pool->path, strerror(-ret));
		threads_stop(fs);
		return ret;
	}
	fs->readonly = false;
	return 0;
}

int umbra_remount(struct umbra_fs *fs, bool readonly)
{
	int ret = um_fs_alive(fs);

	/* After an error of the medium another mount is needed: what is in memory may not be on the
	 * medium. */
	if (!ret && !readonly)
		ret = um_log_stopped(fs->log);
	if (ret || readonly == fs->readonly)
		return ret;
	if (!readonly)
		return to_writable(fs);
	fs->readonly = true;
	um_reaper_wait(fs, CLOSE_WAIT_MSEC);
	/* Then everything is home, and a copy of the pool made now needs no replay. */
	return um_log_stopped(fs->log) ? 0 : um_log_checkpoint(fs->log);
}

/* ---- the pool as a whole --------------------------------------------------------------------------- */

int umbra_sync(struct umbra_fs *fs)
{
	int ret = um_fs_alive(fs);

	return ret ? ret : um_log_sync(fs->log);
}

int umbra_shutdown(struct umbra_fs *fs, unsigned mode)
{
	if (mode > 2)
		return -EINVAL;
	if (atomic_exchange(&fs->stopped, EIO))
		return 0;
	um_warn("%s: shut down by request (mode %u)", fs->pool->path, mode);
	um_log_stop(fs->log, EIO, mode != 2);
	return 0;
}

int umbra_statfs(struct umbra_fs *fs, struct statvfs *out)
{
	const struct um_pool_root *root;
	struct um_space_stat space;
	uint64_t ninodes = 0;
	int ret = um_fs_alive(fs);

	if (ret)
		return ret;
	um_reaper_wait(fs, STATFS_WAIT_MSEC);
	um_space_reap(fs->space);
	um_space_stat(fs->space, &space);
	um_log_read_lock(fs->log);
	ret = um_root_get(um_fs_src(fs), &root);
	if (!ret)
		ninodes = root->ninodes;
	um_log_read_unlock(fs->log);
	if (ret)
		return ret;
	memset(out, 0, sizeof(*out));
	out->f_bsize = UM_BLOCK_SIZE;
	out->f_frsize = UM_BLOCK_SIZE;
	out->f_blocks = space.total;
	out->f_bfree = space.free;
	out->f_bavail = space.avail;
	out->f_ffree = space.avail * INODES_PER_BLOCK;
	out->f_favail = out->f_ffree;
	out->f_files = out->f_ffree + ninodes;
	out->f_namemax = UMBRA_NAME_MAX;
	return 0;
}

int umbra_info(struct umbra_fs *fs, struct umbra_info *out)
{
	const struct um_pool_root *root;
	struct um_space_stat space;
	int ret;

	memset(out, 0, sizeof(*out));
	snprintf(out->path, sizeof(out->path), "%s", fs->pool->path);
	um_info_super(fs->pool, out);
	um_space_stat(fs->space, &space);
	out->total_blocks = space.total;
	out->free_blocks = space.free;
	out->replayed = um_log_replayed(fs->log);
	out->readonly = fs->readonly || um_log_stopped(fs->log);
	um_log_read_lock(fs->log);
	ret = um_root_get(um_fs_src(fs), &root);
	if (!ret) {
		out->inodes = root->ninodes;
		out->mounts = root->mounts;
		out->mount_sec = (int64_t)root->mount_sec;
		out->clean = root->clean == 1;
		out->errors = root->errors;
	}
	um_log_read_unlock(fs->log);
	return ret;
}

void umbra_stat(struct umbra_fs *fs, umbra_stat_fn *fn, void *arg)
{
	struct um_space_stat space;
	struct um_page_stats page;
	struct um_log_stats log;

	um_log_stats(fs->log, &log);
	um_page_stats(fs->page, &page);
	um_space_stat(fs->space, &space);
	fn(arg, "stopped", !!um_log_stopped(fs->log));
	fn(arg, "write_errors", um_error_count(fs));
	fn(arg, "reads", atomic_load(&fs->stat_reads));
	fn(arg, "read_bytes", atomic_load(&fs->stat_read_bytes));
	fn(arg, "writes", atomic_load(&fs->stat_writes));
	fn(arg, "write_bytes", atomic_load(&fs->stat_write_bytes));
	fn(arg, "clones", atomic_load(&fs->stat_clones));
	fn(arg, "cow_blocks", atomic_load(&fs->stat_cow_blocks));
	fn(arg, "orphans_freed", atomic_load(&fs->stat_orphans_freed));
	fn(arg, "orphans_pending", um_reaper_backlog(fs));
	fn(arg, "inodes_in_memory", um_mem_count(fs));
	fn(arg, "shadows", page.shadows);
	fn(arg, "masters", page.masters);
	fn(arg, "shadow_bytes", page.bytes);
	fn(arg, "shadow_evictions", page.evictions);
	fn(arg, "tosses", page.tosses);
	fn(arg, "master_waits", page.waits);
	fn(arg, "commits", log.commits);
	fn(arg, "aborts", log.aborts);
	fn(arg, "block_edits", log.edits);
	fn(arg, "journal_bytes", log.record_bytes);
	fn(arg, "syncs", log.syncs);
	fn(arg, "checkpoints", log.checkpoints);
	fn(arg, "blocks_total", space.total);
	fn(arg, "blocks_free", space.free);
	fn(arg, "blocks_avail", space.avail);
	fn(arg, "blocks_reserved", space.reserved);
	fn(arg, "blocks_quarantined", space.quarantined);
	fn(arg, "checksum_errors", atomic_load(&fs->pool->csum_errors));
	fn(arg, "data_errors", atomic_load(&fs->pool->data_errors));
	fn(arg, "mirror_repairs", atomic_load(&fs->pool->mirror_repairs));
}
