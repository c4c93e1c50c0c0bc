/* SPDX-License-Identifier: BSD-3-Clause */
/* Returning free space to the host: on request, or automatically (option discard). */
#include <errno.h>
#include <string.h>

#include "fs/data.h"

#define WAIT_MSEC 2000
#define DISCARD_CHUNKS 128u /* per second, at most */

/* Makes what was removed so far free, durably and without a record that needs it. */
static int let_go(struct umbra_fs *fs)
{
	int ret;

	um_reaper_wait(fs, WAIT_MSEC);
	ret = um_log_seal(fs->log);
	return ret ? ret : um_log_checkpoint(fs->log);
}

int umbra_trim(struct umbra_fs *fs, struct umbra_trim *trim)
{
	uint64_t first = (trim->start + UM_CHUNK_SIZE - 1) / UM_CHUNK_SIZE, end, chunk;
	uint64_t min = trim->min / UM_BLOCK_SIZE + !!(trim->min % UM_BLOCK_SIZE), blocks = 0;
	int ret = um_fs_alive(fs);

	if (!ret)
		ret = um_data_may_change(fs);
	if (!ret && !um_pool_punch_unit(fs->pool))
		ret = -EOPNOTSUPP;
	if (!ret && trim->start >= fs->pool->size)
		ret = -EINVAL;
	if (!ret && !trim->begun)
		ret = let_go(fs);
	if (ret)
		return ret;
	trim->begun = true;
	end = trim->len > fs->pool->size - trim->start ? fs->pool->nchunks
						       : (trim->start + trim->len) / UM_CHUNK_SIZE;
	chunk = first;
	if (first < end)
		ret = um_space_trim(fs->space, &chunk, end,
			min > UM_CHUNK_BLOCKS ? UM_CHUNK_BLOCKS : (uint32_t)min, &blocks);
	trim->bytes += blocks * UM_BLOCK_SIZE;
	trim->done = ret || chunk >= end;
	trim->len = trim->done ? 0 : (end - chunk) * UM_CHUNK_SIZE;
	trim->start = chunk * UM_CHUNK_SIZE;
	return ret;
}

void um_discard_start(struct umbra_fs *fs)
{
	int ret = fs->opt.discard ? um_space_discard(fs->space) : 0;

	if (ret == -EOPNOTSUPP)
		um_warn("%s: the option discard does nothing: what the pool lies on takes no space "
			"back",
			fs->pool->path);
	else if (ret)
		um_warn("%s: no memory for the option discard", fs->pool->path);
	fs->discarding = fs->opt.discard && !ret;
}

void um_discard_tick(struct umbra_fs *fs)
{
	bool more;
	int ret;

	if (!fs->discarding || fs->readonly || um_log_stopped(fs->log))
		return;
	ret = um_space_discard_some(fs->space, DISCARD_CHUNKS, &more);
	if (!ret)
		return;
	/* Once: a host that refuses will refuse again. */
	um_warn("%s: the option discard ends: giving space back: %s", fs->pool->path,
		strerror(-ret));
	fs->discarding = false;
}
