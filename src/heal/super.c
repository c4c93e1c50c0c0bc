/* SPDX-License-Identifier: BSD-3-Clause */
/* The superblock's copies and the pool root. */
#include <errno.h>
#include <string.h>

#include "heal/check_int.h"

/* ---- superblocks ------------------------------------------------------------------------------------ */

static bool super_sound(const struct um_check *c, const void *block)
{
	const struct um_super *super = block;

	return super->hdr.magic == UM_MAGIC(UM_KIND_SUPER) &&
	       um_block_csum(block) == super->hdr.csum &&
	       !memcmp(super, &c->pool->super, sizeof(*super));
}

/* A backup that the last growth has not come to: as good as any, and brought up to date without a word. */
static bool backup_older(const struct um_check *c, const void *block)
{
	const struct um_super *super = block;

	return super->hdr.magic == UM_MAGIC(UM_KIND_SUPER) &&
	       um_block_csum(block) == super->hdr.csum && um_super_older(super, &c->pool->super);
}

static void check_copy(struct um_check *c, um_lba_t lba, const char *which, const void *good)
{
	um_block_t block;
	bool read = um_read_raw(c, lba, block);

	if (read && super_sound(c, block) && !memcmp(block, good, UM_BLOCK_SIZE))
		return;
	if (read && lba != um_super_second(&c->pool->super) && backup_older(c, block)) {
		if (c->fix && !c->err)
			um_write_raw(c, lba, good);
		return;
	}
	if (um_problem(c, "super", UM_CURE_SAFE, "%s superblock at block %llu is bad", which,
		    (unsigned long long)lba))
		um_write_raw(c, lba, good);
}

void um_check_super_fields(struct um_check *c)
{
	struct um_super *super = &c->pool->super;
	struct um_ptr want = um_ag_ptr(c->pool, 0);
	um_block_t block = {0};

	want.lba += UM_TABLE_ROOT - UM_TABLE_AG;
	if (want.mirror)
		want.mirror += UM_TABLE_ROOT - UM_TABLE_AG;
	if (super->root.lba == want.lba && super->root.mirror == want.mirror)
		return;
	um_problem(c, "super", UM_CURE_SAFE,
		"superblock says that the pool root is at blocks %llu and %llu",
		(unsigned long long)super->root.lba, (unsigned long long)super->root.mirror);
	super->root = want;
	memcpy(block, super, sizeof(*super));
	um_block_seal(block);
	super->hdr.csum = um_hdr(block)->csum;
}

void um_check_supers(struct um_check *c)
{
	um_lba_t second = um_super_second(&c->pool->super);
	um_block_t good;
	uint32_t ag;

	if (!um_read_raw(c, 0, good) || !super_sound(c, good)) {
		if (!um_read_raw(c, second, good) || !super_sound(c, good)) {
			/* Damaged since the pool was opened: what was read then is still in
			 * memory. */
			memset(good, 0, sizeof(good));
			memcpy(good, &c->pool->super, sizeof(c->pool->super));
			um_block_seal(good);
		}
		if (um_problem(c, "super", UM_CURE_SAFE, "first superblock at block 0 is bad"))
			um_write_raw(c, 0, good);
	}
	check_copy(c, second, "second", good);
	for (ag = 1; ag < c->pool->nags; ag++)
		check_copy(c, um_ag_first(&c->pool->super, ag) * UM_CHUNK_BLOCKS, "backup", good);
}

/* ---- pool root ----------------------------------------------------------------------------------------- */

static void check_tree_root(
	struct um_check *c, enum um_kind kind, struct um_root *root, bool salvage)
{
	struct um_root found = {0};

	if (root->format == UM_ROOT_EMPTY && !salvage)
		return;
	if (root->format == UM_ROOT_NODE && root->level < UM_TREE_LEVELS && !salvage &&
		um_lba_usable(c, root->ptr.lba, 1))
		return;
	if (!salvage)
		um_problem(c, "root", UM_CURE_FULL, "pool root: the root of the %s tree is unsound",
			um_kind_name(kind));
	um_salvage_root(c, kind, &found);
	*root = found;
	c->root_dirty = true;
}

void um_check_root_load(struct um_check *c)
{
	struct um_ptr at = c->pool->super.root;
	um_block_t block;
	const char *why = NULL;
	bool lost;

	lost = um_load_fixed(c, at, UM_KIND_ROOT, block, &why);
	if (lost) {
		um_problem(c, "root", UM_CURE_FULL,
			"pool root at block %llu, mirror %llu is lost (%s); trees are sought",
			(unsigned long long)at.lba, (unsigned long long)at.mirror, why);
		memset(block, 0, sizeof(block));
		um_block_init(c->pool, block, UM_KIND_ROOT, 0, at, 0, 0);
		/* Numbers are never reused, and the last one is unknown. */
		((struct um_pool_root *)block)->next_ino = 1ull << 40;
		((struct um_pool_root *)block)->loose_tails = 1;
		c->root_dirty = true;
	}
	memcpy(&c->root, block, sizeof(c->root));
	check_tree_root(c, UM_KIND_INODES, &c->root.inodes, lost);
	check_tree_root(c, UM_KIND_ORPHANS, &c->root.orphans, lost);
	check_tree_root(c, UM_KIND_REMAP, &c->root.remap, lost);
	check_tree_root(c, UM_KIND_EVENTS, &c->root.events, lost);
}

void um_check_root_store(struct um_check *c)
{
	um_block_t block = {0};

	if (!um_may_fix(c) || !c->root_dirty)
		return;
	memcpy(block, &c->root, sizeof(c->root));
	um_write_block(c, c->pool->super.root, block);
	c->root_dirty = false;
}
