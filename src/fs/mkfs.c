/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Creating a pool. The order makes an interrupted mkfs harmless: first the old pool is made
 * unmountable, the new superblocks are written when everything they lead to is on the medium. The
 * old pool's list of bad blocks is saved before that.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <uuid/uuid.h>

#include "fs/fs.h"
#include "fs/mkfs_int.h"

#define JOURNAL_MIN (1ull << 20)
#define JOURNAL_MAX (64ull << 20)

uint64_t um_mkfs_journal_bytes(uint64_t size)
{
	uint64_t len = size / 64;

	if (len < JOURNAL_MIN)
		len = JOURNAL_MIN;
	if (len > JOURNAL_MAX)
		len = JOURNAL_MAX;
	return len & ~(uint64_t)0xffff;
}

static void progress(const struct umbra_mkfs_options *opt, uint64_t done, uint64_t total)
{
	if (opt->progress)
		opt->progress(opt->arg, done, total);
}

static int random_bytes(void *buf, size_t len)
{
	return getrandom(buf, len, 0) == (ssize_t)len ? 0 : -EIO;
}

/* At the start of what can be allocated in group 0, its second copy at the end; as near as bad
 * blocks allow. */
static int place_journal(struct um_pool *pool, const struct um_badset *bad)
{
	struct um_super *super = &pool->super;
	uint64_t n = um_mkfs_journal_bytes(pool->nchunks * UM_CHUNK_SIZE) >> UM_BLOCK_SHIFT;

	super->journal_blocks = n;
	super->journal_lba = um_badset_room(bad, super, n, false);
	if (super->copies == 2)
		super->journal_mirror = um_badset_room(bad, super, n, true);
	if (super->journal_lba &&
		(super->copies < 2 || super->journal_mirror >= super->journal_lba + n))
		return 0;
	um_err("%s: bad blocks leave no room for a journal of %llu KiB in one piece; --forget-bad "
	       "tries that "
	       "memory again",
		pool->path, (unsigned long long)(n << UM_BLOCK_SHIFT >> 10));
	return -ENOSPC;
}

/* The future superblock, in pool->super only: everything below works from there. */
static int fill_super(struct um_pool *pool, const struct umbra_mkfs_options *opt)
{
	struct um_super *super = &pool->super;
	int ret = 0;

	memset(super, 0, sizeof(*super));
	if (opt->uuid)
		memcpy(super->hdr.uuid, opt->uuid, 16);
	else
		uuid_generate_random(super->hdr.uuid);
	memcpy(super->magic, UM_POOL_MAGIC, sizeof(super->magic));
	super->version = UM_FORMAT_VERSION;
	super->block_size = UM_BLOCK_SIZE;
	pool->nags = um_pool_groups(pool->nchunks, &super->nchunks);
	pool->nchunks = super->nchunks;
	pool->nblocks = pool->nchunks * UM_CHUNK_BLOCKS;
	super->copies = opt->copies ? (uint8_t)opt->copies : 2;
	super->incompat = (opt->data_csum ? UM_INCOMPAT_DATA_CSUM : 0) |
			  (opt->parity ? UM_INCOMPAT_PARITY : 0);
	super->hash_seed = opt->hash_seed;
	if (!super->hash_seed)
		ret = random_bytes(&super->hash_seed, sizeof(super->hash_seed));
	super->made_sec = (uint64_t)(opt->made_sec ? opt->made_sec : (int64_t)time(NULL));
	super->kind_made = (uint8_t)pool->kind;
	super->root.lba = UM_TABLE_ROOT;
	if (super->copies == 2)
		super->root.mirror = um_ag_ptr(pool, 0).mirror - UM_TABLE_AG + UM_TABLE_ROOT;
	if (opt->label)
		memcpy(super->label, opt->label, strlen(opt->label));
	return ret;
}

static int all_durable(struct um_pool *pool, int ret)
{
	um_pool_drain(pool);
	return ret ? ret : um_pool_barrier(pool);
}

/*
 * As long as the old pool can be mounted nothing of it may be overwritten. Its first superblock and
 * its chunk words of group 0 are in the same blocks of chunk 0 whatever its shape. Without the first
 * superblock the second one is used, which may be anywhere in group 0, even behind the end of the new
 * pool. With words in the place of its own that are their own mirror, as in no pool, it is refused,
 * whatever its UUID is.
 */
static int end_old(struct um_pool *pool)
{
	_Alignas(64) uint8_t words[UM_BLOCK_SIZE] = {0};
	int ret = all_durable(pool, um_pool_zero(pool, 0, 0, UM_BLOCK_SIZE));

	um_block_init(pool, words, UM_KIND_AG, 0, (struct um_ptr){UM_TABLE_AG, UM_TABLE_AG}, 0, 0);
	um_block_seal(words);
	if (!ret)
		ret = um_pool_write(pool, UM_TABLE_AG, 0, words, UM_BLOCK_SIZE);
	return all_durable(pool, ret);
}

/* Wipes blocks that may hold a superblock of this pool, or of one made here before. */
static int wipe_supers(struct um_pool *pool)
{
	uint64_t ag;
	int ret = end_old(pool);

	if (!ret)
		ret = um_pool_zero(pool, um_super_mirror(pool->nchunks), 0, UM_BLOCK_SIZE);
	for (ag = 1; ag < pool->nags && !ret; ag++)
		ret = um_pool_zero(pool, um_ag_first(&pool->super, (uint32_t)ag) * UM_CHUNK_BLOCKS,
			0, UM_BLOCK_SIZE);
	return all_durable(pool, ret);
}

static int write_both(struct um_pool *pool, struct um_ptr at, const void *block)
{
	int ret = um_pool_write(pool, at.lba, 0, block, UM_BLOCK_SIZE);

	if (!ret && at.mirror)
		ret = um_pool_write(pool, at.mirror, 0, block, UM_BLOCK_SIZE);
	return ret;
}

static int write_pool_root(struct um_pool *pool)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_pool_root *root = (struct um_pool_root *)block;

	root->next_ino = UM_FIRST_INO;
	root->ninodes = 1;
	root->clean = 1;
	um_block_init(pool, block, UM_KIND_ROOT, 0, pool->super.root, 0, 0);
	um_block_seal(block);
	return write_both(pool, pool->super.root, block);
}

static void fill_root_inode(
	struct um_pool *pool, const struct umbra_mkfs_options *opt, struct um_inode *inode)
{
	struct um_inode_core *core = &inode->core;

	memset(inode, 0, sizeof(*inode));
	inode->ino = UM_ROOT_INO;
	core->mode = S_IFDIR | 0755;
	core->nlink = 2;
	core->uid = opt->root_uid;
	core->gid = opt->root_gid;
	core->parent = UM_ROOT_INO;
	core->generation = 1;
	core->atime.sec = pool->super.made_sec;
	core->mtime = core->ctime = core->btime = core->atime;
}

/* The root directory, created by the engine itself, so that mkfs leaves what a transaction
 * leaves. */
static int make_root_inode(
	struct um_pool *pool, const struct umbra_mkfs_options *opt, const struct um_badset *bad)
{
	struct um_space *space = NULL;
	struct um_log *log = NULL;
	struct um_txn *txn = NULL;
	struct um_inode inode;
	int ret = um_log_open(pool, &log);

	if (ret)
		return ret;
	ret = um_space_open(log, &space);
	if (!ret)
		um_log_set_space(log, space);
	if (!ret)
		ret = um_badset_retire(log, space, bad);
	if (!ret)
		ret = um_txn_begin(log, 0, &txn);
	if (!ret) {
		fill_root_inode(pool, opt, &inode);
		ret = um_txn_end(txn, um_inode_store(txn, &inode));
	}
	if (ret)
		um_log_abandon(log);
	else
		ret = um_log_close(log);
	if (space)
		um_space_close(space);
	return ret;
}

/* Backups first, then the second copy, then the first: each leads to a complete pool. */
static int write_supers(struct um_pool *pool, const struct umbra_mkfs_options *opt)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_ptr at = {0, um_super_mirror(pool->nchunks)};
	uint64_t ag;
	int ret = 0;

	memcpy(block, &pool->super, sizeof(pool->super));
	um_block_init(pool, block, UM_KIND_SUPER, 0, at, 0, 0);
	um_block_seal(block);
	for (ag = 1; ag < pool->nags && !ret; ag++) {
		ret = um_pool_write(pool, um_ag_first(&pool->super, (uint32_t)ag) * UM_CHUNK_BLOCKS,
			0, block, UM_BLOCK_SIZE);
		progress(opt, pool->nags + ag, 2 * (uint64_t)pool->nags + 2);
	}
	if (!ret)
		ret = um_pool_write(pool, at.mirror, 0, block, UM_BLOCK_SIZE);
	um_pool_drain(pool);
	if (!ret)
		ret = um_pool_barrier(pool);
	if (!ret)
		ret = um_pool_write(pool, at.lba, 0, block, UM_BLOCK_SIZE);
	um_pool_drain(pool);
	if (!ret)
		ret = um_pool_barrier(pool);
	return ret;
}

/* Even in a sparse file the journal is allocated, as it will be needed soon anyway: if the
 * filesystem below is full, files can still be removed. */
static int reserve_journal(struct um_pool *pool)
{
	const struct um_super *super = &pool->super;
	int ret = um_pool_reserve(pool, super->journal_lba, super->journal_blocks);

	if (!ret && super->journal_mirror)
		ret = um_pool_reserve(pool, super->journal_mirror, super->journal_blocks);
	return ret;
}

/* Without the note an interruption costs the list; that is no reason not to make a pool. */
static void say_unnoted(struct um_pool *pool, const struct um_badset *bad, int ret)
{
	if (ret)
		um_warn("%s: cannot note the %zu bad blocks (%s): should mkfs be interrupted now, "
			"nobody knows them any more",
			pool->path, bad->n, strerror(-ret));
}

/* Makes the old pool unmountable and saves its list of bad blocks. */
static int replace_old(
	struct um_pool *pool, const struct umbra_mkfs_options *opt, const struct um_badset *bad)
{
	struct um_badnote note;
	int ret;

	say_unnoted(pool, bad, um_badnote_begin(pool, bad, &note));
	progress(opt, 0, 2 * (uint64_t)pool->nags + 2);
	ret = wipe_supers(pool);
	if (!ret)
		say_unnoted(pool, bad, um_badnote_finish(pool, bad, &note));
	return ret;
}

static void forget_note(struct um_pool *pool)
{
	int ret = um_badnote_clear(pool);

	if (ret)
		um_warn("%s: a note of bad blocks stays, and the next mkfs will keep to it: %s",
			pool->path, strerror(-ret));
}

int um_mkfs_write(
	struct um_pool *pool, const struct umbra_mkfs_options *opt, const struct um_badset *bad)
{
	uint64_t total;
	int ret = fill_super(pool, opt);

	if (!ret)
		ret = place_journal(pool, bad);
	if (!ret)
		ret = um_badset_fixed(pool, bad);
	if (ret)
		return ret;
	total = 2 * (uint64_t)pool->nags + 2;
	ret = replace_old(pool, opt, bad);
	if (!ret)
		ret = um_space_format(pool);
	progress(opt, pool->nags, total);
	if (!ret)
		ret = um_log_format(pool);
	if (!ret && opt->sparse)
		ret = reserve_journal(pool);
	if (!ret)
		ret = write_pool_root(pool);
	if (ret)
		return ret;
	um_pool_drain(pool);
	ret = um_pool_barrier(pool);
	if (!ret)
		ret = make_root_inode(pool, opt, bad);
	if (!ret)
		ret = write_supers(pool, opt);
	if (!ret)
		forget_note(pool);
	if (!ret)
		ret = um_pool_load_super(pool);
	progress(opt, total, total);
	return ret;
}

int um_mkfs_check_options(const struct umbra_mkfs_options *opt)
{
	if (opt->copies > 2)
		return -EINVAL;
	if (opt->label && strlen(opt->label) > sizeof(((struct um_super *)0)->label))
		return -ENAMETOOLONG;
	return 0;
}

int umbra_mkfs_image(void *base, uint64_t size, const struct umbra_mkfs_options *opt)
{
	static const struct umbra_mkfs_options defaults;
	static const struct um_badset none;
	struct um_pool *pool;
	int ret;

	if (!opt)
		opt = &defaults;
	ret = um_mkfs_check_options(opt);
	if (ret)
		return ret;
	size -= size % UM_CHUNK_SIZE;
	if (size < UM_POOL_MIN_SIZE)
		return -ENOSPC;
	ret = um_pool_open_image(base, size, UM_POOL_EXCL | UM_POOL_NOSUPER, &pool);
	if (ret)
		return ret;
	if (!opt->dry_run)
		ret = um_mkfs_write(pool, opt, &none);
	um_pool_close(pool);
	return ret;
}
