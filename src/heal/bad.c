/* SPDX-License-Identifier: BSD-3-Clause */
/* fsck: the records of bad blocks, and the events. */
#include <string.h>

#include "fs/failure.h"
#include "heal/check_int.h"

/* The block to which bytes were moved has one reference, for the record. */
static const char *bad_fault(struct um_check *c, um_lba_t lba, const struct um_bad *bad)
{
	if (!um_lba_usable(c, lba, 1))
		return "not a block that can be moved";
	if (bad->flags & ~(UM_BAD_LOST | UM_BAD_MOVED | UM_BAD_TOLD | UM_BAD_WRONG))
		return "unknown flags";
	if (!(bad->flags & UM_BAD_LOST) == !(bad->flags & UM_BAD_MOVED))
		return "neither lost nor moved, or both";
	if (!(bad->flags & UM_BAD_MOVED))
		return NULL;
	if (!um_lba_usable(c, bad->to, 1))
		return "moved to an impossible place";
	return um_counts_use(&c->counts, bad->to) == UM_USE_NONE ? NULL : "put where another is";
}

/*
 * Parity that could not be maintained, or whose memory failed: it is not used, which is no problem.
 * If its stripe can be read again, it is recomputed, before the stripes are compared with their
 * parity, and by the cover as it is stored.
 */
static enum um_verdict void_parity(struct um_check *c, um_lba_t lba)
{
	um_block_t sum;

	if (!c->fix || c->err || um_parity_content((struct um_src){c->pool, NULL}, lba, sum) ||
		um_pool_retry(c->pool, lba, sum))
		return UM_KEEP;
	um_problem(c, "parity", UM_CURE_SAFE, "block %llu: parity was given up; recomputed",
		(unsigned long long)lba);
	return UM_DROP;
}

/* Parity may be able to rebuild a lost page now, since others of its stripe have been written or
 * moved. */
static enum um_verdict lost_data(struct um_check *c, um_lba_t lba)
{
	struct um_src src = {c->pool, NULL};
	um_block_t block;
	uint32_t value;

	if (!c->fix || c->err || c->mode != UMBRA_CHECK_REPAIR ||
		um_parity_rebuild(src, lba, block) ||
		(um_has_csum(c->pool) &&
			(um_csum_get(src, lba, 1, &value) || um_data_csum(block) != value)) ||
		um_pool_retry(c->pool, lba, block))
		return UM_KEEP;
	um_problem(c, "data", UM_CURE_FULL, "block %llu: file data was lost; parity has it",
		(unsigned long long)lba);
	return UM_DROP;
}

static bool is_parity(struct um_check *c, um_lba_t lba, const struct um_bad *bad)
{
	struct um_found found = {0};

	return bad->kind == UM_KIND_PARITY && bad->flags == (UM_BAD_LOST | UM_BAD_TOLD) &&
	       um_failure_fixed(c->pool, lba, &found) && found.kind == UM_KIND_PARITY;
}

static enum um_verdict bad_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	struct um_check *c = w->c;
	const char *why = "wrong length";
	struct um_bad bad;

	if (*len == sizeof(bad)) {
		memcpy(&bad, val, sizeof(bad));
		if (is_parity(c, key, &bad))
			return void_parity(c, key);
		why = bad_fault(c, key, &bad);
		if (!why && bad.flags & UM_BAD_LOST && !bad.kind)
			return lost_data(c, key);
	}
	if (why) {
		um_problem(c, "remap", UM_CURE_FULL, "record of bad block %llu: %s",
			(unsigned long long)key, why);
		return UM_DROP;
	}
	if (bad.flags & UM_BAD_MOVED && um_counts_add(&c->counts, bad.to, UM_USE_DATA))
		c->err = -12; /* -ENOMEM */
	return UM_KEEP;
}

static enum um_verdict event_record(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len)
{
	if (!um_events_type.check(w->c->pool, key, val, *len))
		return UM_KEEP;
	um_problem(w->c, "event", UM_CURE_FULL, "event %llu is invalid", (unsigned long long)key);
	return UM_DROP;
}

static void walk(struct um_check *c, enum um_kind kind, struct um_root *root,
	enum um_verdict (*record)(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len))
{
	struct um_walk w = {.c = c, .kind = kind, .count = true, .record = record};

	if (um_walk_tree(&w, root, NULL) != UM_KEEP)
		c->root_dirty = true;
}

void um_check_bads(struct um_check *c)
{
	walk(c, UM_KIND_REMAP, &c->root.remap, bad_record);
	walk(c, UM_KIND_EVENTS, &c->root.events, event_record);
}

/* What cannot be read of it is dropped by the passes. */
static int (*load)(struct um_pool *pool, bool *changed);

static int load_anyway(struct um_pool *pool, bool *changed)
{
	(void)load(pool, changed);
	return 0;
}

void um_check_attach(struct um_pool *pool)
{
	um_bad_attach(pool);
	load = pool->load_bad;
	pool->load_bad = load_anyway;
}
