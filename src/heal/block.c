/* SPDX-License-Identifier: BSD-3-Clause */
/* Metadata blocks for the checker: both copies are read and compared, and written back. */
#include <errno.h>
#include <string.h>

#include "heal/check_int.h"

static bool overlaps(um_lba_t a, uint64_t na, um_lba_t b, uint64_t nb)
{
	return nb && a < b + nb && b < a + na;
}

bool um_lba_usable(const struct um_check *c, um_lba_t lba, uint64_t n)
{
	const struct um_pool *pool = c->pool;
	const struct um_super *super = &pool->super;

	if (!n || !um_lba_ok(pool, lba, n))
		return false;
	for (uint64_t chunk = um_chunk_of(lba); chunk <= um_chunk_of(lba + n - 1); chunk++)
		if (!um_chunk_usable(super, chunk))
			return false;
	return !overlaps(lba, n, super->journal_lba, super->journal_blocks) &&
	       !(super->journal_mirror &&
		       overlaps(lba, n, super->journal_mirror, super->journal_blocks));
}

bool um_read_raw(struct um_check *c, um_lba_t lba, void *block)
{
	if (lba >= c->pool->nblocks || um_pool_lost(c->pool, lba, 1))
		return false;
	um_guard_check(); /* a mark left by an earlier load is not about this block */
	memcpy(block, um_pool_ptr(c->pool, lba), UM_BLOCK_SIZE);
	return !um_guard_check();
}

/* What was written so far is durable from here on. */
static void settle(struct um_check *c)
{
	int ret = um_pool_barrier(c->pool);

	c->nloose = 0;
	if (ret && !c->err)
		c->err = ret;
}

static bool is_loose(const struct um_check *c, um_lba_t lba)
{
	for (unsigned i = 0; i < c->nloose; i++)
		if (c->loose[i] == lba)
			return true;
	return false;
}

void um_write_raw(struct um_check *c, um_lba_t lba, const void *block)
{
	struct um_pool *pool = c->pool;
	int ret;

	if (c->nloose == UM_LOOSE_MAX)
		settle(c);
	/* After an error of our own (no memory) it would be the incomplete result of a pass. */
	if (c->err)
		return;
	if (!pool->direct)
		c->loose[c->nloose++] = lba;
	ret = um_pool_write(pool, lba, 0, block, UM_BLOCK_SIZE);

	/* The mapping of an indirect pool shows the file where it has no private page. */
	if (!ret && !pool->direct && pool->ops->giveback)
		um_pool_giveback(pool, lba, 1);
	um_pool_drain(pool);
	if (!ret)
		return;
	c->fix = false; /* what cannot be written is not repaired: the last pass reports it */
	um_err("%s: block %llu cannot be written: %s", pool->path, (unsigned long long)lba,
		strerror(-ret));
}

void um_write_copy(struct um_check *c, um_lba_t lba, um_lba_t other, const void *block)
{
	if (other && is_loose(c, other))
		settle(c);
	um_write_raw(c, lba, block);
}

void um_write_block(struct um_check *c, struct um_ptr at, void *block)
{
	um_block_seal(block);
	um_write_copy(c, at.lba, at.mirror, block);
	if (at.mirror)
		um_write_copy(c, at.mirror, at.lba, block);
}

/* ---- nodes ------------------------------------------------------------------------------------- */

static bool read_copy(struct um_check *c, um_lba_t lba, enum um_kind kind, uint8_t level,
	void *block, const char **why)
{
	const struct um_block_hdr *hdr = block;

	if (!um_lba_usable(c, lba, 1)) {
		*why = "address is none of a node";
		return false;
	}
	if (!um_read_raw(c, lba, block)) {
		*why = "cannot be read";
		return false;
	}
	if (um_block_verify(c->pool, block, lba, kind, why))
		return false;
	if (hdr->level != level) {
		*why = "wrong level";
		return false;
	}
	if (!um_lba_usable(c, hdr->lba, 1) || hdr->mirror == hdr->lba ||
		(hdr->mirror && !um_lba_usable(c, hdr->mirror, 1))) {
		*why = "its header has impossible addresses";
		return false;
	}
	return true;
}

/* Does this block belong to some other node? Then it must not be overwritten as our mirror. */
static bool is_primary(struct um_check *c, um_lba_t lba)
{
	um_block_t block;
	const struct um_block_hdr *hdr = um_hdr(block);

	if (um_counts_use(&c->counts, lba) != UM_USE_NONE &&
		um_counts_use(&c->counts, lba) != UM_USE_DATA)
		return true;
	return um_read_raw(c, lba, block) && hdr->lba == lba && hdr->kind < UM_KIND_MAX &&
	       !um_block_verify(c->pool, block, lba, hdr->kind, NULL);
}

/* Makes the other copy equal to the one chosen, which was read at `from`. */
static void mend_copy(struct um_check *c, enum um_kind kind, uint8_t level, void *block,
	um_lba_t from, struct um_ptr *ptr, bool *moved)
{
	um_lba_t at = from == ptr->lba ? ptr->mirror : ptr->lba;
	const char *why;
	um_block_t other;

	if (!at)
		return;
	if (read_copy(c, at, kind, level, other, &why)) {
		if (!memcmp(block, other, UM_BLOCK_SIZE))
			return;
		why = "differs from the other copy";
	}
	if (at == ptr->lba && um_counts_use(&c->counts, at) > UM_USE_DATA)
		return;
	if (at == ptr->mirror && is_primary(c, at)) {
		if (!um_problem(c, "pointer", UM_CURE_FULL,
			    "%s node at block %llu: its mirror %llu belongs to another node",
			    um_kind_name(kind), (unsigned long long)ptr->lba,
			    (unsigned long long)at))
			return;
		um_hdr(block)->mirror = ptr->mirror = 0;
		um_write_block(c, *ptr, block);
		*moved = true;
		return;
	}
	if (um_problem(c, "mirror", UM_CURE_SAFE, "%s node at block %llu: copy at %llu: %s",
		    um_kind_name(kind), (unsigned long long)ptr->lba, (unsigned long long)at, why))
		um_write_copy(c, at, from, block);
}

/* A header is wrong if it names the place of another node, which is valid and has its mirror
 * elsewhere. */
static bool is_anothers(struct um_check *c, struct um_ptr own)
{
	um_block_t block;
	const struct um_block_hdr *hdr = um_hdr(block);

	return um_read_raw(c, own.lba, block) && hdr->lba == own.lba && hdr->mirror != own.mirror &&
	       hdr->kind < UM_KIND_MAX &&
	       !um_block_verify(c->pool, block, own.lba, hdr->kind, NULL);
}

/*
 * Pointer and header name different places, and one of them is wrong. The header is right if the
 * other place that it names has the same node. Otherwise nothing may be written there, as it may
 * belong to anybody: the node is where it was found, and has no other copy.
 */
static void settle_place(struct um_check *c, enum um_kind kind, uint8_t level, void *block,
	um_lba_t from, struct um_ptr *ptr)
{
	struct um_ptr own = {um_hdr(block)->lba, um_hdr(block)->mirror};
	um_lba_t at = from == own.lba ? own.mirror : own.lba;
	const char *why;
	um_block_t other;

	*ptr = own;
	if (!at || (read_copy(c, at, kind, level, other, &why) && um_hdr(other)->lba == own.lba &&
			   um_hdr(other)->mirror == own.mirror))
		return;
	*ptr = (struct um_ptr){.lba = from};
	um_hdr(block)->lba = from;
	um_hdr(block)->mirror = 0;
	if (um_may_fix(c))
		um_write_block(c, *ptr, block);
}

int um_load_node(struct um_check *c, struct um_ptr *ptr, enum um_kind kind, uint8_t level,
	bool quiet, void *block, bool *out_moved, const char **out_why)
{
	struct um_ptr own;
	um_lba_t from = ptr->lba;
	const char *why;
	uint64_t image;

	*out_moved = false;
	if (um_map_get(&c->rebuilt, ptr->lba, &image)) {
		memcpy(block, (const void *)(uintptr_t)image, UM_BLOCK_SIZE);
		if (um_hdr(block)->kind == kind && um_hdr(block)->level == level)
			return 0;
	}
	if (!read_copy(c, ptr->lba, kind, level, block, out_why)) {
		from = ptr->mirror;
		if (!from || !read_copy(c, from, kind, level, block, &why))
			return -EUCLEAN;
	}
	own = (struct um_ptr){um_hdr(block)->lba, um_hdr(block)->mirror};
	if (own.lba != ptr->lba && is_anothers(c, own)) {
		*out_why = "its header names the place of another node";
		return -EUCLEAN;
	}
	if (own.lba != ptr->lba || own.mirror != ptr->mirror) {
		if (!quiet)
			um_problem(c, "pointer", UM_CURE_FULL,
				"%s node at block %llu is pointed at as %llu and %llu",
				um_kind_name(kind), (unsigned long long)own.lba,
				(unsigned long long)ptr->lba, (unsigned long long)ptr->mirror);
		settle_place(c, kind, level, block, from, ptr);
		*out_moved = true;
	}
	if (!quiet)
		mend_copy(c, kind, level, block, from, ptr, out_moved);
	return 0;
}

/* ---- fixed places --------------------------------------------------------------------------------- */

static bool read_fixed(struct um_check *c, um_lba_t lba, struct um_ptr at, enum um_kind kind,
	void *block, const char **why)
{
	*why = "cannot be read";
	if (!um_read_raw(c, lba, block) || um_block_verify(c->pool, block, lba, kind, why))
		return false;
	if (um_hdr(block)->lba == at.lba && um_hdr(block)->mirror == at.mirror)
		return true;
	*why = "wrong address";
	return false;
}

int um_load_fixed(
	struct um_check *c, struct um_ptr at, enum um_kind kind, void *block, const char **out_why)
{
	const char *why2 = "differs from the other copy";
	um_block_t other;
	bool first = read_fixed(c, at.lba, at, kind, block, out_why), second;

	if (!at.mirror)
		return first ? 0 : -EUCLEAN;
	second = read_fixed(c, at.mirror, at, kind, other, &why2);
	if (!first && !second)
		return -EUCLEAN;
	if (!first) {
		memcpy(block, other, UM_BLOCK_SIZE);
		if (um_problem(c, "mirror", UM_CURE_SAFE, "%s at block %llu: %s",
			    um_kind_name(kind), (unsigned long long)at.lba, *out_why))
			um_write_copy(c, at.lba, at.mirror, block);
		return 0;
	}
	if (second && !memcmp(block, other, UM_BLOCK_SIZE))
		return 0;
	if (second)
		why2 = "differs from the first copy";
	if (um_problem(c, "mirror", UM_CURE_SAFE, "%s at block %llu: copy at %llu: %s",
		    um_kind_name(kind), (unsigned long long)at.lba, (unsigned long long)at.mirror,
		    why2))
		um_write_copy(c, at.mirror, at.lba, block);
	return 0;
}
