/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery without the pointers: nodes describe themselves. A scan of the pool lists the valid
 * nodes of the pool's own trees; those that are still counted as in use, and that no walk has
 * visited, belonged to what was lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heal/check_int.h"

/* ---- scan ------------------------------------------------------------------------------------------- */

/* The stored count, if available: a freed node may still look valid. */
static bool maybe_live(struct um_check *c, um_lba_t lba, bool *out_known)
{
	uint64_t chunk = um_chunk_of(lba), word;
	um_block_t block;
	const void *raw = NULL;
	struct um_place place = um_chunk_place(&c->pool->super, chunk);
	struct um_ptr at = um_ag_ptr(c->pool, place.ag);
	um_lba_t copy[2] = {at.lba, at.mirror};
	unsigned i;

	*out_known = false;
	for (i = 0; i < 2 && !raw; i++)
		if (copy[i] && um_read_raw(c, copy[i], block) &&
			!um_block_verify(c->pool, block, copy[i], UM_KIND_AG, NULL))
			raw = block;
	if (!raw)
		return true;
	word = ((const struct um_ag *)raw)->word[place.i];
	if (UM_WORD_STATE(word) == UM_CHUNK_UNIFORM) {
		*out_known = true;
		return UM_WORD_COUNT(word);
	}
	at = um_refs_ptr(c->pool, chunk);
	copy[0] = at.lba;
	copy[1] = at.mirror;
	for (i = 0; i < 2; i++) {
		if (!copy[i] || !um_read_raw(c, copy[i], block) ||
			um_block_verify(c->pool, block, copy[i], UM_KIND_REF, NULL))
			continue;
		*out_known = true;
		return ((const struct um_refs *)block)->count[lba % UM_CHUNK_BLOCKS];
	}
	return true;
}

static bool has_tree_magic(const struct um_check *c, um_lba_t lba)
{
	const struct um_block_hdr *hdr = um_pool_ptr(c->pool, lba);
	uint32_t magic;

	if (um_pool_lost(c->pool, lba, 1))
		return false;
	um_guard_check();
	magic = hdr->magic;
	if (um_guard_check())
		return false;
	return magic == UM_MAGIC(UM_KIND_INODES) || magic == UM_MAGIC(UM_KIND_ORPHANS) ||
	       magic == UM_MAGIC(UM_KIND_REMAP) || magic == UM_MAGIC(UM_KIND_EVENTS);
}

/* Smallest key below a node, down its leftmost path as far as that can be read: slot 0's own key is
 * not compared in searches and may be too large. */
static uint64_t smallest_key(struct um_check *c, const void *node)
{
	um_block_t block;
	struct um_ptr ptr;
	const char *why;
	const void *val;
	uint64_t key;
	uint16_t len;
	bool moved;

	memcpy(block, node, sizeof(block));
	um_body_slot(um_body(block), 0, &key, &val, &len);
	while (um_hdr(block)->level && len == sizeof(ptr)) {
		memcpy(&ptr, val, sizeof(ptr));
		if (um_load_node(c, &ptr, um_hdr(block)->kind, um_hdr(block)->level - 1, true,
			    block, &moved, &why) ||
			um_body_safe(um_body(block), UM_NODE_BODY) || !um_body_nrec(um_body(block)))
			break;
		um_body_slot(um_body(block), 0, &key, &val, &len);
	}
	return key;
}

static void scan_block(struct um_check *c, um_lba_t lba)
{
	struct um_found_node found;
	um_block_t block;
	struct um_block_hdr *hdr = um_hdr(block);
	bool known, live;

	if (!um_read_raw(c, lba, block) || hdr->level >= UM_TREE_LEVELS ||
		hdr->lba == hdr->mirror || um_block_verify(c->pool, block, lba, hdr->kind, NULL) ||
		!um_lba_usable(c, hdr->lba, 1) ||
		(hdr->mirror && !um_lba_usable(c, hdr->mirror, 1)) ||
		um_body_check(um_body(block), UM_NODE_BODY) || !um_body_nrec(um_body(block)))
		return;
	live = maybe_live(c, hdr->lba, &known);
	if (!live || !um_grow(c, &c->scan, c->nscan, &c->capscan, sizeof(*c->scan)))
		return;
	found = (struct um_found_node){.ptr = {hdr->lba, hdr->mirror},
		.first = smallest_key(c, block),
		.birth = hdr->birth,
		.kind = hdr->kind,
		.level = hdr->level,
		.live = known};
	c->scan[c->nscan++] = found;
}

/* By kind, level, key; the better one of two first. */
static int compare_found(const void *a, const void *b)
{
	const struct um_found_node *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->level != y->level)
		return x->level < y->level ? -1 : 1;
	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	if (x->live != y->live)
		return x->live ? -1 : 1;
	if (x->birth != y->birth)
		return x->birth > y->birth ? -1 : 1;
	return x->ptr.lba < y->ptr.lba ? -1 : x->ptr.lba > y->ptr.lba;
}

static void scan_pool(struct um_check *c)
{
	size_t i, n = 0;
	um_lba_t lba;

	if (c->scanned)
		return;
	c->scanned = true;
	for (lba = 1; lba < c->pool->nblocks && !c->err; lba++)
		if (um_lba_usable(c, lba, 1) && has_tree_magic(c, lba))
			scan_block(c, lba);
	if (c->nscan)
		qsort(c->scan, c->nscan, sizeof(*c->scan), compare_found);
	/* Both copies of a node are found. */
	for (i = 0; i < c->nscan; i++)
		if (!n || c->scan[i].ptr.lba != c->scan[n - 1].ptr.lba)
			c->scan[n++] = c->scan[i];
	c->nscan = n;
}

/* ---- rebuilding ----------------------------------------------------------------------------------------- */

static bool fits(const struct um_check *c, const struct um_found_node *node, enum um_kind kind,
	unsigned level)
{
	return node->kind == kind && node->level == level &&
	       um_counts_use(&c->counts, node->ptr.lba) == UM_USE_NONE;
}

bool um_salvage_same(struct um_check *c, enum um_kind kind, uint8_t level, uint64_t lo, uint64_t hi,
	struct um_ptr *out)
{
	size_t i;

	scan_pool(c);
	for (i = 0; i < c->nscan; i++) {
		const struct um_found_node *node = &c->scan[i];

		if (!node->live || !fits(c, node, kind, level) || node->first < lo ||
			node->first > hi)
			continue;
		*out = node->ptr;
		return true;
	}
	return false;
}

bool um_salvage_node(struct um_check *c, enum um_kind kind, struct um_ptr at, uint8_t level,
	uint64_t lo, uint64_t hi, void *block)
{
	void *body = um_body(block);
	uint64_t last = 0;
	size_t i;

	scan_pool(c);
	memset(block, 0, UM_BLOCK_SIZE);
	um_block_init(c->pool, block, kind, level, at, 0, 0);
	um_body_init(body, UM_NODE_BODY);
	for (i = 0; i < c->nscan; i++) {
		const struct um_found_node *node = &c->scan[i];

		if (!fits(c, node, kind, level - 1u) || node->first < lo || node->first > hi)
			continue;
		/* Of several that begin with the same key the first is the best. */
		if (um_body_nrec(body) && node->first == last)
			continue;
		if (um_body_insert(body, UM_NODE_BODY, um_body_nrec(body), node->first, &node->ptr,
			    sizeof(node->ptr)))
			break;
		last = node->first;
	}
	um_block_seal(block);
	return um_body_nrec(body);
}

bool um_salvage_root(struct um_check *c, enum um_kind kind, struct um_root *out)
{
	const struct um_found_node *best = NULL;
	size_t i;

	scan_pool(c);
	for (i = 0; i < c->nscan; i++) {
		const struct um_found_node *node = &c->scan[i];

		if (node->kind != kind)
			continue;
		/* The root is the highest; of several, one known to be in use, then the newest. */
		if (best && (best->level > node->level ||
				    (best->level == node->level &&
					    (best->live > node->live ||
						    (best->live == node->live &&
							    best->birth >= node->birth)))))
			continue;
		best = node;
	}
	if (!best)
		return false;
	*out = (struct um_root){.ptr = best->ptr, .format = UM_ROOT_NODE, .level = best->level};
	return true;
}
