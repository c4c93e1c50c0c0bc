/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Walking a tree that may be damaged in any way. Each node is copied and verified, and repaired in
 * the copy. What had to be removed is missing for the rest of the check as well, and the copy is
 * written back if the pass repairs. So a check without repair sees the pool as the repair would
 * leave it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heal/check_int.h"

const char *um_kind_name(enum um_kind kind)
{
	static const char *const names[UM_KIND_MAX] = {"block", "superblock", "chunk words",
		"reference counts", "pool root", "journal", "inode", "extent", "directory", "xattr",
		"orphan", "remap", "event", "checksum", "checksum table", "cover"};

	return (unsigned)kind < UM_KIND_MAX ? names[kind] : "unknown";
}

/* Keys that may be below a node, both included. */
struct range {
	uint64_t lo, hi;
};

static enum um_verdict walk_node(
	struct um_walk *w, struct um_ptr *ptr, uint8_t level, struct range range, bool root);

/* Results about a block as a node of one kind and level do not apply to it as another. */
static uint64_t bad_key(const struct um_walk *w, um_lba_t lba, uint8_t level)
{
	return (lba & UM_LBA_MASK) | (uint64_t)w->kind << 48 | (uint64_t)level << 56;
}

static bool is_bad(const struct um_walk *w, um_lba_t lba, uint8_t level)
{
	return um_map_get(&w->c->bad, bad_key(w, lba, level), NULL);
}

static enum um_verdict drop_node(struct um_walk *w, um_lba_t lba, uint8_t level)
{
	if (um_map_set(&w->c->bad, bad_key(w, lba, level), 1))
		w->c->err = -ENOMEM;
	return UM_DROP;
}

/* ---- counting ------------------------------------------------------------------------------------ */

static void claim(struct um_check *c, um_lba_t lba)
{
	if (um_map_set(&c->claims, lba, 1))
		c->err = -ENOMEM;
}

static bool conflict(struct um_walk *w, um_lba_t lba, const char *with)
{
	return um_problem(w->c, "conflict", UM_CURE_FULL, "%s node at block %llu is %s too",
		um_kind_name(w->kind), (unsigned long long)lba, with);
}

/* Assigns the node's blocks to this tree; false: they already belong to something else. */
static bool take_node(struct um_walk *w, struct um_ptr ptr)
{
	struct um_check *c = w->c;
	enum um_use use = um_counts_use(&c->counts, ptr.lba);

	if (use == UM_USE_DATA) {
		conflict(w, ptr.lba, "data of a file");
		claim(c, ptr.lba);
		/* Counts start anew: the next pass excludes the file from it. */
		while (um_counts_get(&c->counts, ptr.lba))
			um_counts_sub(&c->counts, ptr.lba);
	} else if (use != UM_USE_NONE) {
		conflict(w, ptr.lba, "another one's mirror");
		return false;
	}
	if (um_counts_add(&c->counts, ptr.lba, UM_USE_NODE))
		c->err = -ENOMEM;
	if (!ptr.mirror)
		return true;
	if (um_counts_use(&c->counts, ptr.mirror) == UM_USE_DATA) {
		conflict(w, ptr.mirror, "data of a file");
		claim(c, ptr.mirror);
		while (um_counts_get(&c->counts, ptr.mirror))
			um_counts_sub(&c->counts, ptr.mirror);
	}
	if (um_counts_use(&c->counts, ptr.mirror) != UM_USE_NONE)
		conflict(w, ptr.mirror, "another one's copy");
	else if (um_counts_add(&c->counts, ptr.mirror, UM_USE_MIRROR))
		c->err = -ENOMEM;
	return true;
}

static void untake_node(struct um_walk *w, struct um_ptr ptr)
{
	um_counts_sub(&w->c->counts, ptr.lba);
	if (ptr.mirror && !um_counts_get(&w->c->counts, ptr.lba))
		um_counts_sub(&w->c->counts, ptr.mirror);
}

/* ---- shared nodes: walked once, summed up for their other parents --------------------------------- */

static void note_sum(
	struct um_walk *w, struct um_ptr ptr, uint8_t level, const struct um_walk *before)
{
	struct um_check *c = w->c;

	if (!um_grow(c, &c->sum, c->nsum, &c->capsum, sizeof(*c->sum)))
		return;
	c->sum[c->nsum] = (struct um_node_sum){.mirror = ptr.mirror,
		.blocks = w->blocks - before->blocks,
		.extents = w->extents - before->extents,
		.first = w->any ? w->first : w->end,
		.last = w->any ? w->last : w->end,
		.end = w->end,
		.written = w->written > before->written ? w->written : 0,
		.level = level};
	if (um_map_set(&c->sums, ptr.lba, c->nsum++))
		c->err = -ENOMEM;
}

/* Another parent of a node that was walked before. */
static enum um_verdict meet_again(
	struct um_walk *w, struct um_ptr *ptr, uint8_t level, struct range range)
{
	struct um_check *c = w->c;
	const struct um_node_sum *sum;
	uint64_t index;

	if (!w->share || !um_map_get(&c->sums, ptr->lba, &index)) {
		um_problem(c, "tree", UM_CURE_FULL,
			"%s node at block %llu (inode %llu) has a second parent",
			um_kind_name(w->kind), (unsigned long long)ptr->lba,
			(unsigned long long)w->ino);
		return UM_DROP;
	}
	sum = &c->sum[index];
	if (sum->level != level || sum->first < range.lo || sum->last > range.hi ||
		sum->first < w->end) {
		um_problem(c, "tree", UM_CURE_FULL,
			"extent node at block %llu does not belong where inode %llu has it",
			(unsigned long long)ptr->lba, (unsigned long long)w->ino);
		return UM_DROP;
	}
	if (um_counts_add(&c->counts, ptr->lba, UM_USE_NODE))
		c->err = -ENOMEM;
	w->blocks += sum->blocks;
	w->extents += sum->extents;
	w->end = sum->end;
	if (sum->written)
		w->written = sum->written;
	w->last = sum->last;
	if (!w->any)
		w->first = sum->first;
	w->any = true;
	if (ptr->mirror == sum->mirror)
		return UM_KEEP;
	um_problem(c, "pointer", UM_CURE_FULL,
		"extent node at block %llu has its copy at %llu, inode %llu looks for it at %llu",
		(unsigned long long)ptr->lba, (unsigned long long)sum->mirror,
		(unsigned long long)w->ino, (unsigned long long)ptr->mirror);
	ptr->mirror = sum->mirror;
	return UM_CHANGED;
}

/* ---- bodies ----------------------------------------------------------------------------------------- */

/* Copies the valid records of an invalid body into a new one. */
static void mend_body(void *body, uint16_t cap)
{
	uint8_t old[UM_NODE_BODY];
	uint64_t key, last = 0;
	const void *val;
	uint16_t len;
	unsigned i, n;

	memcpy(old, body, cap);
	n = um_body_nrec(old);
	um_body_init(body, cap);
	if (n > UM_BODY_NREC_MAX)
		return;
	for (i = 0; i < n; i++) {
		if (um_body_get(old, cap, i, &key, &val, &len))
			continue;
		if (um_body_nrec(body) && key <= last)
			continue;
		if (um_body_insert(body, cap, um_body_nrec(body), key, val, len))
			continue;
		last = key;
	}
}

/* One child of an interior node. */
static enum um_verdict walk_child(
	struct um_walk *w, void *body, unsigned i, uint8_t level, struct range range)
{
	uint64_t key, next;
	const void *val;
	struct um_ptr ptr;
	uint16_t len;
	enum um_verdict verdict;

	um_body_slot(body, i, &key, &val, &len);
	if (len != sizeof(ptr) || (i && (key <= range.lo || key > range.hi)))
		return UM_DROP;
	memcpy(&ptr, val, sizeof(ptr));
	if (i)
		range.lo = key;
	if (i + 1 < um_body_nrec(body)) {
		um_body_slot(body, i + 1, &next, &val, &len);
		if (next > range.lo && next - 1 < range.hi)
			range.hi = next - 1;
	}
	verdict = walk_node(w, &ptr, (uint8_t)(level - 1), range, false);
	if (verdict == UM_CHANGED)
		um_body_replace(body, UM_NODE_BODY, i, &ptr, sizeof(ptr));
	return verdict;
}

static enum um_verdict walk_record(
	struct um_walk *w, void *body, uint16_t cap, unsigned i, struct range range)
{
	uint8_t copy[UM_VALUE_MAX];
	uint64_t key;
	const void *val;
	uint16_t len;
	enum um_verdict verdict;

	um_body_slot(body, i, &key, &val, &len);
	if (key < range.lo || key > range.hi || len > sizeof(copy))
		return UM_DROP;
	memcpy(copy, val, len);
	verdict = w->record(w, key, copy, &len);
	if (verdict == UM_CHANGED)
		um_body_replace(body, cap, i, copy, len);
	if (verdict == UM_DROP)
		return verdict;
	if (!w->any)
		w->first = key;
	w->last = key;
	w->any = true;
	return verdict;
}

/* All slots of a valid body; level 0 also for embedded roots. true: the body changed. */
static bool walk_body(
	struct um_walk *w, void *body, uint16_t cap, uint8_t level, struct range range, um_lba_t at)
{
	bool changed = false;
	unsigned i = 0, lost = 0;

	while (i < um_body_nrec(body) && !w->c->err) {
		uint64_t found = w->c->found;
		enum um_verdict verdict = level ? walk_child(w, body, i, level, range)
						: walk_record(w, body, cap, i, range);

		if (verdict == UM_DROP) {
			um_body_delete(body, cap, i);
			lost += found == w->c->found; /* nobody has reported why */
		} else {
			i++;
		}
		changed = changed || verdict != UM_KEEP;
	}
	if (lost && w->count)
		um_problem(w->c, "tree", UM_CURE_FULL,
			"%s %s at block %llu (inode %llu): %u records dropped",
			um_kind_name(w->kind), level ? "node" : "leaf", (unsigned long long)at,
			(unsigned long long)w->ino, lost);
	return changed;
}

/* ---- nodes --------------------------------------------------------------------------------------------- */

static enum um_verdict lost_node(
	struct um_walk *w, struct um_ptr ptr, uint8_t level, struct range range, const char *why)
{
	um_problem(w->c, "block", UM_CURE_FULL,
		"%s node at block %llu, mirror %llu (level %u, inode %llu, keys %llx to %llx) is "
		"lost: %s",
		um_kind_name(w->kind), (unsigned long long)ptr.lba, (unsigned long long)ptr.mirror,
		level, (unsigned long long)w->ino, (unsigned long long)range.lo,
		(unsigned long long)range.hi, why);
	return drop_node(w, ptr.lba, level);
}

/* The node is not where its pointer leads, but it exists. */
static bool adopt_node(struct um_walk *w, struct um_ptr *ptr, uint8_t level, struct range range,
	void *block, const char **why)
{
	struct um_check *c = w->c;
	struct um_ptr found;
	bool moved;

	if (!w->count || w->ino ||
		!um_salvage_same(c, w->kind, level, range.lo, range.hi, &found) ||
		um_load_node(c, &found, w->kind, level, false, block, &moved, why))
		return false;
	um_problem(c, "pointer", UM_CURE_FULL,
		"%s node at block %llu (level %u): %s; the node is at block %llu",
		um_kind_name(w->kind), (unsigned long long)ptr->lba, level, *why,
		(unsigned long long)found.lba);
	*ptr = found;
	return true;
}

/* A lost interior node of the pool's own trees can often be rebuilt from its children. */
static bool rebuild_node(struct um_walk *w, struct um_ptr ptr, uint8_t level, struct range range,
	void *block, const char *why)
{
	struct um_check *c = w->c;
	uint8_t *image;

	if (!w->count || !level || w->ino || !um_lba_usable(c, ptr.lba, 1) ||
		(ptr.mirror && !um_lba_usable(c, ptr.mirror, 1)) || ptr.lba == ptr.mirror ||
		um_counts_use(&c->counts, ptr.lba) != UM_USE_NONE)
		return false;
	if (!um_salvage_node(c, w->kind, ptr, level, range.lo, range.hi, block))
		return false;
	if (um_problem(c, "block", UM_CURE_FULL,
		    "%s node at block %llu, mirror %llu (level %u): %s; rebuilt from %u nodes",
		    um_kind_name(w->kind), (unsigned long long)ptr.lba,
		    (unsigned long long)ptr.mirror, level, why, um_body_nrec(um_body(block)))) {
		um_write_block(c, ptr, block);
		return true;
	}
	image = malloc(UM_BLOCK_SIZE);
	if (image)
		memcpy(image, block, UM_BLOCK_SIZE);
	if (!image || um_map_set(&c->rebuilt, ptr.lba, (uintptr_t)image)) {
		free(image);
		c->err = -ENOMEM;
	}
	return true;
}

/* Loads the node by all available means; false: it is lost. *out_moved: *ptr was corrected. */
static bool find_node(struct um_walk *w, struct um_ptr *ptr, uint8_t level, struct range range,
	void *block, bool *out_moved, const char **why)
{
	if (!um_load_node(w->c, ptr, w->kind, level, !w->count, block, out_moved, why))
		return true;
	*out_moved = adopt_node(w, ptr, level, range, block, why);
	return *out_moved || rebuild_node(w, *ptr, level, range, block, *why);
}

/* The keys do not belong here: is the pointer wrong, rather than the node? Then the node is left as
 * it is, for the tree that it belongs to. */
static bool misplaced(const void *body, uint8_t level, struct range range)
{
	unsigned i = level ? 1 : 0, n = um_body_nrec(body), out = 0;
	uint64_t key;
	const void *val;
	uint16_t len;

	for (; i < n; i++) {
		um_body_slot(body, i, &key, &val, &len);
		out += key < range.lo || key > range.hi;
	}
	return out && 2 * out >= n - (level ? 1 : 0);
}

/* The node's content, already loaded and counted. */
static enum um_verdict walk_content(struct um_walk *w, struct um_ptr ptr, uint8_t level,
	struct range range, bool root, um_block_t block)
{
	struct um_walk before = *w;
	void *body = um_body(block);
	bool changed = false;

	w->any = false;
	if (um_body_check(body, UM_NODE_BODY)) {
		if (w->count)
			um_problem(w->c, "tree", UM_CURE_FULL,
				"%s node at block %llu (inode %llu): invalid slots",
				um_kind_name(w->kind), (unsigned long long)ptr.lba,
				(unsigned long long)w->ino);
		mend_body(body, UM_NODE_BODY);
		changed = true;
	}
	if (misplaced(body, level, range)) {
		if (w->count)
			untake_node(w, ptr);
		else if (um_map_set(&w->c->seen, ptr.lba, 0))
			w->c->err = -ENOMEM;
		w->any = before.any;
		return UM_DROP;
	}
	if (!um_body_nrec(body) && (level || !root) && w->count)
		um_problem(w->c, "tree", UM_CURE_FULL, "%s node at block %llu is empty",
			um_kind_name(w->kind), (unsigned long long)ptr.lba);
	changed = walk_body(w, body, UM_NODE_BODY, level, range, ptr.lba) || changed;
	if (!um_body_nrec(body) && (level || !root || changed)) {
		untake_node(w, ptr);
		w->any = before.any;
		w->first = before.first;
		w->last = before.last;
		return drop_node(w, ptr.lba, level);
	}
	if (changed && um_may_fix(w->c))
		um_write_block(w->c, ptr, block);
	if (w->share && w->count)
		note_sum(w, ptr, level, &before);
	if (before.any) {
		w->first = before.first;
		w->any = true;
	}
	return UM_KEEP;
}

static enum um_verdict walk_node(
	struct um_walk *w, struct um_ptr *ptr, uint8_t level, struct range range, bool root)
{
	struct um_check *c = w->c;
	const char *why = "no such copy";
	bool moved = false;
	um_block_t block;
	enum um_verdict verdict;
	uint64_t walk;

	if (c->err || is_bad(w, ptr->lba, level))
		return UM_DROP;
	if (w->count && ptr->lba && ptr->lba < c->pool->nblocks &&
		um_counts_use(&c->counts, ptr->lba) == UM_USE_NODE)
		return meet_again(w, ptr, level, range);
	if (!find_node(w, ptr, level, range, block, &moved, &why))
		return w->count ? lost_node(w, *ptr, level, range, why) : UM_DROP;
	if (moved && is_bad(w, ptr->lba, level))
		return UM_DROP;
	if (moved && w->count && um_counts_use(&c->counts, ptr->lba) == UM_USE_NODE) {
		verdict = meet_again(w, ptr, level, range);
		return verdict == UM_KEEP ? UM_CHANGED : verdict;
	}
	if (!w->count) {
		if (um_map_get(&c->seen, ptr->lba, &walk) && walk == c->walk)
			return UM_DROP;
		if (um_map_set(&c->seen, ptr->lba, c->walk))
			c->err = -ENOMEM;
	} else {
		if (!take_node(w, *ptr))
			return drop_node(w, ptr->lba, level);
		c->report->nodes++;
	}
	verdict = walk_content(w, *ptr, level, range, root, block);
	return verdict == UM_KEEP && moved ? UM_CHANGED : verdict;
}

/* ---- roots ------------------------------------------------------------------------------------------------ */

void um_walk_again(struct um_check *c)
{
	c->walk++;
}

static enum um_verdict walk_embed(struct um_walk *w, struct um_root *root, uint8_t *embed)
{
	struct range all = {0, UINT64_MAX};
	uint16_t cap = root->len;
	bool changed = false;

	if (um_body_check(embed, cap)) {
		if (w->count)
			um_problem(w->c, "tree", UM_CURE_FULL,
				"inode %llu: embedded %s leaf: invalid slots",
				(unsigned long long)w->ino, um_kind_name(w->kind));
		if (cap >= sizeof(struct um_body_head))
			mend_body(embed, cap);
		changed = true;
	}
	if (cap >= sizeof(struct um_body_head)) {
		changed = walk_body(w, embed, cap, 0, all, 0) || changed;
		if (um_body_nrec(embed))
			return changed ? UM_CHANGED : UM_KEEP;
	}
	memset(root, 0, sizeof(*root));
	return UM_CHANGED;
}

enum um_verdict um_walk_tree(struct um_walk *w, struct um_root *root, uint8_t *embed)
{
	struct range all = {0, UINT64_MAX};
	struct um_ptr ptr = root->ptr;
	enum um_verdict verdict;

	if (root->format == UM_ROOT_EMBED)
		return walk_embed(w, root, embed);
	if (root->format != UM_ROOT_NODE)
		return UM_KEEP;
	verdict =
		root->level < UM_TREE_LEVELS ? walk_node(w, &ptr, root->level, all, true) : UM_DROP;
	if (verdict == UM_DROP) {
		memset(root, 0, sizeof(*root));
		return UM_CHANGED;
	}
	root->ptr = ptr;
	return verdict;
}
