/* SPDX-License-Identifier: BSD-3-Clause */
/* The extents of a file, for umbractl map and FIEMAP. */
#include <errno.h>

#include "fs/data.h"

#define MAP_RUNS 128u

struct map {
	umbra_extent_fn *fn;
	void *arg;
	struct umbra_extent held; /* the last, which the next may continue */
	bool holds;
};

static int map_flush(struct map *m)
{
	if (!m->holds)
		return 0;
	m->holds = false;
	return m->fn(m->arg, &m->held);
}

/* Records end at chunks of the pool and at 2 MiB: adjacent ones are merged. */
static int map_run(struct map *m, const struct um_run *run)
{
	struct umbra_extent e = {
		.off = run->block << UM_BLOCK_SHIFT,
		.lba = run->lba,
		.len = run->len << UM_BLOCK_SHIFT,
		.refs = run->refs,
		.shared = run->refs > 1,
		.unwritten = run->unwritten,
	};
	struct umbra_extent *held = &m->held;
	int err;

	if (m->holds && held->off + held->len == e.off &&
		held->lba + (held->len >> UM_BLOCK_SHIFT) == e.lba && held->refs == e.refs &&
		held->unwritten == e.unwritten) {
		held->len += e.len;
		return 0;
	}
	err = map_flush(m);
	m->held = e;
	m->holds = true;
	return err;
}

/* The runs from block `first` on; *inode has the inline data. */
static int map_runs(struct umbra_fs *fs, um_ino_t ino, uint64_t first, uint64_t end,
	struct um_inode *inode, struct um_run *runs, unsigned *n)
{
	struct um_tree tree;
	int err;

	um_log_read_lock(fs->log);
	err = um_inode_load(um_fs_src(fs), ino, inode);
	if (!err)
		err = um_data_regular(inode);
	if (!err) {
		um_inode_tree(inode, UM_FORK_DATA, &tree);
		err = um_runs_get(um_fs_src(fs), &tree, first, end - first,
			UM_RUNS_REFS | UM_RUNS_NOW, runs, MAP_RUNS, n);
	}
	um_log_read_unlock(fs->log);
	return err;
}

int umbra_map(struct umbra_fs *fs, uint64_t ino, uint64_t off, uint64_t len, umbra_extent_fn *fn,
	void *arg)
{
	struct map m = {.fn = fn, .arg = arg};
	struct um_run runs[MAP_RUNS];
	struct um_inode inode;
	uint64_t first, end;
	unsigned n;
	int err = 0;

	if (!len || off > UMBRA_SIZE_MAX)
		return 0;
	if (len > UMBRA_SIZE_MAX - off)
		len = UMBRA_SIZE_MAX - off;
	first = off >> UM_BLOCK_SHIFT;
	end = um_blocks_of(off + len);
	while (!err && first < end) {
		err = map_runs(fs, ino, first, end, &inode, runs, &n);
		if (err)
			break;
		if (!first && inode.core.data.format == UM_ROOT_INLINE) {
			struct umbra_extent e = {
				.len = inode.core.data.len,
				.refs = 1,
				.inline_data = true,
			};

			err = fn(arg, &e);
		}
		for (unsigned i = 0; !err && i < n; i++)
			if (runs[i].lba)
				err = map_run(&m, &runs[i]);
		first = runs[n - 1].block + runs[n - 1].len;
	}
	return err ? err : map_flush(&m);
}
