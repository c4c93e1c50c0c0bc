/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Allocation policy. Data goes where its file ends, else to a run of the wanted length nearby.
 * Metadata goes into chunks of its own, so that it does not split data; its mirror goes into a
 * chunk at least a quarter of the pool away.
 */
#include <errno.h>
#include <stdlib.h>

#include "space/space_int.h"

/* Number of chunks without a run of the wanted length that a search may examine. */
#define SEARCH_MAX 64u
/* From this length on, an entirely free chunk is preferred. */
#define WANT_WHOLE 256u
/* On a full host: requests to it in one search. */
#define ASK_MAX 8u

struct run {
	um_lba_t lba;
	unsigned n;
};

static void set_run(struct run *run, uint64_t chunk, unsigned first, unsigned n)
{
	run->lba = chunk * UM_CHUNK_BLOCKS + first;
	run->n = n;
}

/* Searches one chunk; true if it has a run of `want`. A shorter one is kept if it is the best. */
static bool look(
	struct um_space *space, uint64_t chunk, unsigned from, unsigned want, struct run *best)
{
	unsigned first, n;

	if (um_chunk_load(space, chunk))
		return false;
	n = um_chunk_find(space, chunk, from, want, &first);
	if (!from && n < want)
		um_chunk_bound(space, chunk, n);
	if (n > best->n)
		set_run(best, chunk, first, n);
	return n >= want;
}

/* Searches chunks [from, to) in order for a run of `want`; *tries bounds how many are examined. */
static bool search_range(struct um_space *space, uint64_t from, uint64_t to, unsigned want,
	bool skip_meta, unsigned *tries, struct run *best)
{
	while (*tries && (from = um_chunk_next(space, from, to, want, skip_meta)) < to) {
		--*tries;
		if (look(space, from++, 0, want, best))
			return true;
	}
	return false;
}

/* Searches the whole pool once, from `start` on; the length is halved until a run is found. */
static bool search_from(
	struct um_space *space, uint64_t start, unsigned want, bool skip_meta, struct run *best)
{
	for (; want; want /= 2) {
		unsigned tries = SEARCH_MAX;

		if (search_range(space, start, space->nchunks, want, skip_meta, &tries, best) ||
			search_range(space, 0, start, want, skip_meta, &tries, best))
			return true;
		if (best->n && best->n >= want / 2)
			return true;
	}
	return best->n > 0;
}

/* Free blocks exactly at goal. */
static bool data_at_goal(struct um_space *space, um_lba_t goal, unsigned want, struct run *out)
{
	uint64_t chunk = um_chunk_of(goal);
	unsigned at = goal % UM_CHUNK_BLOCKS, first, n;

	if (um_chunk_load(space, chunk))
		return false;
	n = um_chunk_find(space, chunk, at, 1, &first);
	if (!n || first != at)
		return false;
	set_run(out, chunk, at, n < want ? n : want);
	return true;
}

static bool find_data(struct um_space *space, um_lba_t goal, unsigned want, struct run *out)
{
	uint64_t start, whole;

	if (goal && data_at_goal(space, goal, want, out))
		return true;
	if (!goal)
		goal = space->data_cursor;
	start = um_chunk_of(goal);
	if (want < WANT_WHOLE) {
		/* After the goal in its chunk, if that is long enough; then all of it. */
		if (!space->chunk[start].meta &&
			(look(space, start, goal % UM_CHUNK_BLOCKS, want, out) ||
				look(space, start, 0, want, out)))
			return true;
	} else {
		whole = um_chunk_next(space, start, space->nchunks, UM_CHUNK_BLOCKS, true);
		if (whole == space->nchunks)
			whole = um_chunk_next(space, 0, start, UM_CHUNK_BLOCKS, true);
		if (look(space, whole, 0, want, out))
			return true;
	}
	out->n = 0;
	return search_from(space, start, want, true, out) ||
	       search_from(space, start, want, false, out);
}

/* ---- metadata ------------------------------------------------------------------------------------- */

/* First chunk in [from, to) that holds metadata and has room. */
static uint64_t meta_next(const struct um_space *space, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t word = space->meta_free[from / 64] >> (from % 64);

		if (word) {
			from += (unsigned)__builtin_ctzll(word);
			return from < to ? from : to;
		}
		from = (from / 64 + 1) * 64;
	}
	return to;
}

/* In [from, to): a chunk of metadata with room, else a free chunk, else one with some room. */
static bool meta_range(
	struct um_space *space, uint64_t from, uint64_t to, unsigned want, struct run *out)
{
	uint64_t chunk = meta_next(space, from, to);

	if (chunk < to && look(space, chunk, 0, want, out))
		return true;
	for (unsigned least = UM_CHUNK_BLOCKS; least; least /= 8) {
		unsigned tries = SEARCH_MAX;

		out->n = 0;
		if (search_range(space, from, to, least > want ? least : want, false, &tries, out))
			return true;
	}
	return false;
}

/* At or after `near` in its chunk, or before. */
static bool meta_near(struct um_space *space, um_lba_t near, unsigned want, struct run *out)
{
	uint64_t chunk = um_chunk_of(near);

	if (look(space, chunk, near % UM_CHUNK_BLOCKS, want, out))
		return true;
	out->n = 0;
	return look(space, chunk, 0, want, out);
}

static bool find_meta(struct um_space *space, um_lba_t goal, unsigned want, struct run *out)
{
	uint64_t start;

	/* The goal is followed into a chunk known to hold metadata. After a mount none is known:
	 * then the first goal, usually a node's neighbour, shows one. */
	if (goal && (space->chunk[um_chunk_of(goal)].meta || !space->meta_cursor) &&
		meta_near(space, goal, want, out))
		return true;
	out->n = 0;
	if (space->meta_cursor && meta_near(space, space->meta_cursor, want, out))
		return true;
	out->n = 0;
	start = um_chunk_of(space->meta_cursor ? space->meta_cursor : goal);
	return meta_range(space, start, space->nchunks, want, out) ||
	       meta_range(space, 0, start, want, out) ||
	       search_from(space, start, want, false, out);
}

static bool far_apart(const struct um_space *space, uint64_t a, uint64_t b)
{
	uint64_t quarter = space->nchunks / 4;

	return a != b && (a > b ? a - b : b - a) >= quarter;
}

/* Finds a block for the mirror of one in chunk p; the primary itself is already marked busy. */
static bool find_mirror(struct um_space *space, uint64_t p, struct run *out)
{
	uint64_t n = space->nchunks, quarter = n / 4, target = (p + n / 2) % n;
	uint64_t low_end = p >= quarter ? p - quarter + 1 : 0; /* distant chunks below p */
	uint64_t high = p + (quarter ? quarter : 1);           /* and above */

	if (space->mirror_cursor && far_apart(space, p, um_chunk_of(space->mirror_cursor)) &&
		meta_near(space, space->mirror_cursor, 1, out))
		return true;
	if (low_end > p)
		low_end = p;
	if (high > n)
		high = n;
	out->n = 0;
	if (target > p ? meta_range(space, target, n, 1, out) ||
				 meta_range(space, high, target, 1, out) ||
				 meta_range(space, 0, low_end, 1, out)
		       : meta_range(space, target, low_end, 1, out) ||
				 meta_range(space, 0, target, 1, out) ||
				 meta_range(space, high, n, 1, out))
		return true;
	return meta_range(space, p + 1, n, 1, out) || meta_range(space, 0, p, 1, out) ||
	       meta_range(space, p, p + 1, 1, out);
}

/* ---- taking ------------------------------------------------------------------------------------------- */

/* How many of `want` blocks the reserve allows a caller with these flags. */
static unsigned allowed(const struct um_space *space, unsigned flags, unsigned want)
{
	uint64_t keep = space->keep;

	if (flags & UM_SPACE_RESERVE)
		keep = 0;
	else if (flags & UM_SPACE_META)
		keep /= 4;
	if (space->idle <= keep)
		return 0;
	return space->idle - keep < want ? (unsigned)(space->idle - keep) : want;
}

static int mark_taken(struct um_space *space, struct run *run, unsigned want)
{
	int err;

	if (run->n > want)
		run->n = want;
	err = um_chunk_mark(space, um_chunk_of(run->lba), run->lba % UM_CHUNK_BLOCKS, run->n, true);
	if (!err)
		space->taken += run->n;
	return err;
}

/* A goal that names no usable block is ignored. */
static um_lba_t sane_goal(const struct um_space *space, um_lba_t goal)
{
	return um_chunk_of(goal) < space->nchunks ? goal : 0;
}

static int take_meta_run(struct um_space *space, um_lba_t goal, unsigned want, struct run *out)
{
	int err;

	out->n = 0;
	if (!find_meta(space, goal, want, out))
		return -ENOSPC;
	err = mark_taken(space, out, want);
	if (err)
		return err;
	um_chunk_set_meta(space, um_chunk_of(out->lba));
	space->meta_cursor = out->lba;
	return 0;
}

static int take_locked(
	struct um_space *space, um_lba_t goal, unsigned want, unsigned flags, struct run *out)
{
	int err;

	goal = sane_goal(space, goal);
	want = allowed(space, flags, want);
	if (!want)
		return -ENOSPC;
	if (flags & UM_SPACE_META)
		return take_meta_run(space, goal, want, out);
	out->n = 0;
	if (!find_data(space, goal, want, out))
		return -ENOSPC;
	err = mark_taken(space, out, want);
	if (!err && !goal)
		space->data_cursor = sane_goal(space, out->lba + out->n);
	return err;
}

/* A run may cross chunks here, since transactions merge adjacent runs. */
static void give_locked(struct um_space *space, um_lba_t lba, uint32_t n)
{
	space->taken -= n;
	while (n) {
		unsigned first = lba % UM_CHUNK_BLOCKS;
		unsigned part = n < UM_CHUNK_BLOCKS - first ? n : UM_CHUNK_BLOCKS - first;

		/* Without memory for a full chunk's bitmap they stay unused until the next
		 * mount. */
		(void)um_chunk_mark(space, um_chunk_of(lba), first, part, false);
		lba += part;
		n -= part;
	}
}

static int take_meta_locked(
	struct um_space *space, um_lba_t goal, unsigned flags, struct um_ptr *out)
{
	unsigned copies = space->pool->super.copies == 2 ? 2 : 1;
	struct run run, mirror = {0, 0};
	int err;

	if (allowed(space, flags | UM_SPACE_META, copies) < copies)
		return -ENOSPC;
	err = take_meta_run(space, sane_goal(space, goal), 1, &run);
	if (err)
		return err;
	if (copies == 2) {
		err = find_mirror(space, um_chunk_of(run.lba), &mirror) ? 0 : -ENOSPC;
		if (!err)
			err = mark_taken(space, &mirror, 1);
		if (err) {
			give_locked(space, run.lba, 1);
			return err;
		}
		um_chunk_set_meta(space, um_chunk_of(mirror.lba));
		space->mirror_cursor = mirror.lba;
	}
	*out = (struct um_ptr){.lba = run.lba, .mirror = mirror.lba};
	return 0;
}

/* Quarantined blocks are checked before each search, if there are enough for it to pay. */
static void reap_some(struct um_space *space)
{
	if (space->freed_data.len + space->freed_meta.len >= SEARCH_MAX)
		um_quarantine_reap(space);
}

static bool room_to_withhold(struct um_space *space)
{
	size_t cap = space->withheld_cap ? 2 * space->withheld_cap : 64;
	um_lba_t *bigger;

	if (space->nwithheld < space->withheld_cap)
		return true;
	bigger = realloc(space->withheld, cap * sizeof(*bigger));
	if (!bigger)
		return false;
	space->withheld = bigger;
	space->withheld_cap = cap;
	return true;
}

/* Of the blocks just taken, those before the first bad one are left to the caller, those after it
 * are given back, and that one is withheld. True: none is left. */
static bool withhold_bad(struct um_space *space, um_lba_t lba, uint32_t *n)
{
	uint32_t i;

	for (i = 0; i < *n && !um_pool_place_bad(space->pool, lba + i); i++)
		;
	/* Without memory to record it the store will fail. */
	if (i == *n || !room_to_withhold(space))
		return false;
	space->withheld[space->nwithheld++] = lba + i;
	space->taken--;
	if (i + 1 < *n)
		give_locked(space, lba + i + 1, *n - i - 1);
	*n = i;
	return !i;
}

/* If one of a node's blocks is bad it is withheld, and the other given back. */
static bool withhold_meta(struct um_space *space, const struct um_ptr *ptr)
{
	uint32_t one = 1, two = 1;
	bool first = withhold_bad(space, ptr->lba, &one);
	bool second = ptr->mirror && withhold_bad(space, ptr->mirror, &two);

	if (first && ptr->mirror && !second)
		give_locked(space, ptr->mirror, 1);
	if (second && !first)
		give_locked(space, ptr->lba, 1);
	return first || second;
}

/* ---- the host below --------------------------------------------------------------------------------- */

static bool no_room(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

/* To be called before blocks of the chunk are used. Returns the host's error. */
static int make_ready(struct um_space *space, uint64_t chunk)
{
	int err = um_pool_ready(space->pool, chunk);

	if (space->chunk[chunk].lacks)
		um_chunk_lacks(space, chunk);
	return err;
}

/*
 * Hides a chunk that the host had no space for. If it is entirely free, so are all other entirely
 * free ones that lack space, since the host has none for them either. A chunk in use may happen to
 * have all its space, so each is tried, up to ASK_MAX in one search.
 */
static void hide_dry(struct um_space *space, uint64_t chunk, unsigned *refused)
{
	unsigned least = space->chunk[chunk].nfree;

	um_chunk_hide(space, chunk);
	if (++*refused >= ASK_MAX)
		least = 1;
	else if (least < UM_CHUNK_BLOCKS)
		return;
	for (uint64_t i = 0; i < space->nchunks; i++)
		if (space->chunk[i].lacks && space->chunk[i].nfree >= least)
			um_chunk_hide(space, i);
}

static void show_all(struct um_space *space)
{
	for (uint64_t i = 0; space->ndry && i < space->nchunks; i++)
		um_chunk_show(space, i);
}

/* The next hidden chunk, round robin. There must be one. */
static uint64_t next_dry(struct um_space *space)
{
	uint64_t words = space->nchunks / 64 + 1, at = space->dry_cursor + 1;

	if (at >= space->nchunks)
		at = 0;
	for (uint64_t i = 0; i <= words; i++, at = at / 64 + 1 < words ? (at / 64 + 1) * 64 : 0) {
		uint64_t word = space->dry[at / 64] >> (at % 64);

		if (!word)
			continue;
		at += (unsigned)__builtin_ctzll(word);
		break;
	}
	return space->dry_cursor = at;
}

/* Before an allocation fails: asks the host again, for some of the hidden chunks. Returns 0 if one
 * more chunk can be used now, -ENOSPC if not. */
static int ask_again(struct um_space *space)
{
	int err = -ENOSPC;

	for (unsigned i = 0; space->ndry && no_room(err) && i < ASK_MAX; i++) {
		uint64_t chunk = next_dry(space);
		bool whole = space->chunk[chunk].hidden == UM_CHUNK_BLOCKS;

		err = make_ready(space, chunk);
		if (err)
			continue;
		um_chunk_show(space, chunk);
		if (whole)
			show_all(space);
	}
	return no_room(err) ? -ENOSPC : err;
}

/* The reserved blocks must be usable when the host is full, as removing files takes some. Chunks
 * that the host has no space for are hidden. */
static void keep_spare(struct um_space *space, unsigned *refused)
{
	while (space->idle_lacking && space->idle - space->idle_lacking <= space->keep) {
		uint64_t i, chunk = 0;
		int err;

		for (i = 0; i < space->nchunks; i++) {
			chunk = (space->spare_cursor + i) % space->nchunks;
			if (space->chunk[chunk].lacks && space->chunk[chunk].nfree)
				break;
		}
		space->spare_cursor = chunk;
		if (i == space->nchunks)
			return;
		err = make_ready(space, chunk);
		if (no_room(err))
			hide_dry(space, chunk, refused);
		else if (err)
			return;
	}
}

/* ---- taking what can be used ---------------------------------------------------------------------------- */

/* Finds a run of which the caller may have some. */
static int take_usable(
	struct um_space *space, um_lba_t goal, uint32_t want, unsigned flags, struct run *out)
{
	unsigned refused = 0;
	uint32_t got;
	int err;

	for (;;) {
		keep_spare(space, &refused);
		err = take_locked(space, goal, want, flags, out);
		if (err == -ENOSPC) {
			err = ask_again(space);
			if (!err)
				continue;
		}
		if (err)
			return err;
		err = make_ready(space, um_chunk_of(out->lba));
		if (err) {
			give_locked(space, out->lba, out->n);
			if (!no_room(err))
				return err;
			hide_dry(space, um_chunk_of(out->lba), &refused);
			continue;
		}
		got = out->n;
		if (um_pool_any_bad(space->pool) && withhold_bad(space, out->lba, &got))
			continue;
		out->n = got;
		return 0;
	}
}

static int take_usable_meta(
	struct um_space *space, um_lba_t goal, unsigned flags, struct um_ptr *out)
{
	unsigned refused = 0;
	int err;

	for (;;) {
		um_lba_t lba;

		keep_spare(space, &refused);
		err = take_meta_locked(space, goal, flags, out);
		if (err == -ENOSPC) {
			err = ask_again(space);
			if (!err)
				continue;
		}
		if (err)
			return err;
		lba = out->lba;
		err = make_ready(space, um_chunk_of(lba));
		if (!err && out->mirror)
			err = make_ready(space, um_chunk_of(lba = out->mirror));
		if (err) {
			give_locked(space, out->lba, 1);
			if (out->mirror)
				give_locked(space, out->mirror, 1);
			if (!no_room(err))
				return err;
			hide_dry(space, um_chunk_of(lba), &refused);
			continue;
		}
		if (!um_pool_any_bad(space->pool) || !withhold_meta(space, out))
			return 0;
	}
}

int um_space_take(struct um_space *space, um_lba_t goal, uint32_t want, unsigned flags,
	um_lba_t *out_lba, uint32_t *out_got)
{
	struct run run;
	uint64_t seen;
	int err;

	if (!want)
		return -EINVAL;
	if (want > UM_CHUNK_BLOCKS)
		want = UM_CHUNK_BLOCKS;
	do {
		pthread_mutex_lock(&space->lock);
		reap_some(space);
		seen = space->came_free;
		err = take_usable(space, goal, want, flags, &run);
		pthread_mutex_unlock(&space->lock);
	} while (err == -ENOSPC && um_quarantine_flush(space, seen));
	if (err)
		return err;
	*out_lba = run.lba;
	*out_got = run.n;
	return 0;
}

int um_space_take_meta(struct um_space *space, um_lba_t goal, unsigned flags, struct um_ptr *out)
{
	uint64_t seen;
	int err;

	do {
		pthread_mutex_lock(&space->lock);
		reap_some(space);
		seen = space->came_free;
		err = take_usable_meta(space, goal, flags, out);
		pthread_mutex_unlock(&space->lock);
	} while (err == -ENOSPC && um_quarantine_flush(space, seen));
	return err;
}

void um_space_give(struct um_space *space, um_lba_t lba, uint32_t n)
{
	pthread_mutex_lock(&space->lock);
	give_locked(space, lba, n);
	space->came_free++;
	pthread_mutex_unlock(&space->lock);
}

int um_space_take_at(struct um_space *space, um_lba_t lba)
{
	struct run run;
	int err = -EINVAL;

	pthread_mutex_lock(&space->lock);
	if (um_chunk_ok(space->pool, um_chunk_of(lba))) {
		um_chunk_show(space, um_chunk_of(lba));
		err = data_at_goal(space, lba, 1, &run) ? mark_taken(space, &run, 1) : -EBUSY;
	}
	for (size_t i = 0; err == -EBUSY && i < space->nwithheld; i++) {
		if (space->withheld[i] != lba)
			continue;
		space->withheld[i] = space->withheld[--space->nwithheld];
		space->taken++;
		err = 0;
	}
	pthread_mutex_unlock(&space->lock);
	return err;
}

void um_space_allocated(struct um_space *space, um_lba_t lba, uint32_t n)
{
	(void)lba;
	pthread_mutex_lock(&space->lock);
	space->taken -= n;
	pthread_mutex_unlock(&space->lock);
}

void um_space_stat(struct um_space *space, struct um_space_stat *out)
{
	uint64_t usable;

	pthread_mutex_lock(&space->lock);
	out->total = space->total;
	out->reserved = space->taken;
	out->quarantined = um_quarantine_blocks(space);
	out->free = space->idle + space->hidden + space->taken + out->quarantined;
	usable = space->idle + space->hidden + out->quarantined;
	out->avail = usable > space->keep ? usable - space->keep : 0;
	pthread_mutex_unlock(&space->lock);
}
