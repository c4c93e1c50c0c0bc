/* SPDX-License-Identifier: BSD-3-Clause */
/* Information about a pool that is not mounted. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <uuid/uuid.h>

#include "fs/failure.h"
#include "fs/fs.h"
#include "umbra/umbra.h"

void um_info_super(const struct um_pool *pool, struct umbra_info *out)
{
	static const char *const kinds[] = {"file", "block", "fsdax", "devdax", "memory"};
	const struct um_super *super = &pool->super;
	struct stat st;

	memcpy(out->label, super->label, sizeof(super->label));
	out->label[64] = 0;
	uuid_unparse_lower(super->hdr.uuid, out->uuid);
	snprintf(out->kind, sizeof(out->kind), "%s", kinds[pool->kind]);
	out->size = pool->size;
	out->version = super->version;
	out->copies = super->copies;
	out->compat = super->compat;
	out->ro_compat = super->ro_compat;
	out->incompat = super->incompat;
	out->data_csum = um_has_csum(pool);
	out->parity = um_has_parity(pool);
	out->journal_bytes = super->journal_blocks * UM_BLOCK_SIZE;
	out->made_sec = (int64_t)super->made_sec;
	if (pool->fd >= 0 && fstat(pool->fd, &st) == 0) {
		bool device = S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode);

		out->dev = device ? st.st_rdev : st.st_dev;
		out->ino = device ? 0 : st.st_ino;
	}
}

static int fill_from_root(struct um_pool *pool, struct umbra_info *out)
{
	const struct um_pool_root *root;
	const void *block;
	int ret = um_block_get(pool, pool->super.root, UM_KIND_ROOT, &block);

	if (ret)
		return ret;
	root = block;
	out->inodes = root->ninodes;
	out->mounts = root->mounts;
	out->mount_sec = (int64_t)root->mount_sec;
	out->clean = root->clean == 1;
	out->errors = root->errors;
	out->retired = root->retired;
	return um_guard_check();
}

/* Counts according to the groups' words. */
static int fill_from_groups(struct um_pool *pool, struct umbra_info *out)
{
	uint64_t fixed = pool->super.journal_blocks * (pool->super.journal_mirror ? 2 : 1);
	const void *block;
	uint32_t ag, i;
	int ret;

	for (ag = 0; ag < pool->nags; ag++) {
		uint32_t n = um_ag_chunks(pool, ag);

		ret = um_block_get(pool, um_ag_ptr(pool, ag), UM_KIND_AG, &block);
		if (ret)
			return ret;
		for (i = 0; i < n && i < UM_AG_CHUNKS; i++) {
			uint64_t word = ((const struct um_ag *)block)->word[i];

			if (UM_WORD_STATE(word) == UM_CHUNK_STATIC)
				continue;
			out->total_blocks += UM_CHUNK_BLOCKS;
			if (UM_WORD_STATE(word) == UM_CHUNK_MIXED)
				out->free_blocks += UM_WORD_NFREE(word);
			else if (!UM_WORD_COUNT(word))
				out->free_blocks += UM_CHUNK_BLOCKS;
		}
	}
	out->total_blocks -= fixed < out->total_blocks ? fixed : out->total_blocks;
	return um_guard_check();
}

/*
 * The journal has what a daemon that died had not written home: unless the pool is in use, it is
 * replayed, in memory. In a pool in use the blocks at home are slightly outdated, which has to
 * suffice.
 */
static void replay(struct um_pool *pool, struct umbra_info *out)
{
	struct um_log *log;

	um_bad_attach(pool);
	if (flock(pool->fd, LOCK_SH | LOCK_NB) || um_log_open(pool, &log))
		return;
	out->replayed = um_log_replayed(log);
	um_log_abandon(log);
}

int umbra_info_pool(const char *path, struct umbra_info *out)
{
	struct um_pool *pool;
	int ret;

	memset(out, 0, sizeof(*out));
	snprintf(out->path, sizeof(out->path), "%s", path);
	ret = um_pool_open(path, UM_POOL_RDONLY | UM_POOL_NOLOCK | UM_POOL_PRIVATE, 0, &pool);
	if (ret)
		return ret;
	um_info_super(pool, out);
	replay(pool, out);
	ret = fill_from_root(pool, out);
	if (!ret)
		ret = fill_from_groups(pool, out);
	um_pool_close(pool);
	return ret;
}
