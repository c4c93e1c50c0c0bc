/* SPDX-License-Identifier: BSD-3-Clause */
/* Shadows: adding, finding and tossing them, by inode and place in the file. */
#include <errno.h>
#include <stdlib.h>

#include "page/table.h"

#define PROBE_WINDOWS 64u     /* for more windows a toss walks the inode's chain instead */
#define GATHER_MAX (1u << 20) /* windows gathered in one such pass */

uint64_t um_shadow_seq(const struct um_page *p, um_ino_t ino)
{
	return p && p->cap ? atomic_load(&um_ino_stripe(p, ino)->seq) : 0;
}

/* The first node from *at on that belongs to the window; *prev is maintained. */
static uint32_t chain_find(
	const struct um_page *p, um_ino_t ino, uint64_t window, uint32_t at, uint32_t *prev)
{
	while (at &&
		(um_page_ino(p, at) != ino || um_w2_window(um_word(&p->ident[at].w2)) != window)) {
		*prev = at;
		at = um_page_next(p, at);
	}
	return at;
}

/* ---- adding ---------------------------------------------------------------------------------------- */

/*
 * Merges a piece of one window with what exists: shadows that it touches and continues are
 * absorbed, those that contradict it are removed, since it is newer. true if nothing is left to be
 * done.
 */
static bool absorb(struct um_page *p, uint32_t bucket, struct um_shadow *s)
{
	uint64_t window = s->block / UM_PAGE_WINDOW, end = s->block + s->len;
	uint32_t prev = 0, at;

	at = chain_find(p, s->ino, window, um_head(&p->shadow[bucket]), &prev);
	while (at) {
		struct um_shadow old = um_page_shadow(p, at);
		uint64_t old_end = old.block + old.len;
		bool same = old.lba - old.block == s->lba - s->block;
		uint32_t next = um_page_next(p, at);

		if (same && old.block <= s->block && old_end >= end)
			return true;
		if (same ? old.block > end || old_end < s->block
			 : old.block >= end || old_end <= s->block) {
			prev = at;
			at = chain_find(p, s->ino, window, next, &prev);
			continue;
		}
		um_page_unlink(p, at, prev);
		um_page_give(p, at);
		if (same && old.block < s->block) {
			s->lba = old.lba;
			s->block = old.block;
		}
		if (same && old_end > end)
			end = old_end;
		s->len = (uint32_t)(end - s->block);
		at = chain_find(p, s->ino, window, next, &prev);
	}
	return false;
}

static inline void prefetch(const void *at)
{
	__builtin_prefetch(at, 1);
}

/* Prefetches heads and what they lead to while the locks are taken. */
static void prefetch_for_add(const struct um_page *p, uint32_t bucket, const struct um_shadow *s)
{
	uint32_t mbucket = um_master_bucket(p, s->lba), ibucket = um_ino_bucket(p, s->ino);

	prefetch(&p->shadow[bucket]);
	prefetch(&p->master[mbucket]);
	prefetch(&p->ino[ibucket]);
	prefetch(&p->ident[um_head(&p->free)]);
	prefetch(&p->links[um_head(&p->free)]);
	prefetch(&p->ident[um_head(&p->shadow[bucket])]);
	prefetch(&p->ident[um_head(&p->master[mbucket])]);
	prefetch(&p->links[um_head(&p->master[mbucket])]);
	prefetch(&p->links[um_head(&p->ino[ibucket])]);
}

/* A piece within one window. */
static void add_piece(struct um_page *p, struct um_shadow s, uint64_t seq)
{
	uint32_t bucket = um_shadow_bucket(p, s.ino, s.block / UM_PAGE_WINDOW), id;
	struct um_stripe *stripe = um_stripe_of(p->sstripe, bucket);

	prefetch_for_add(p, bucket, &s);
	id = um_page_take(p, true);
	if (!id)
		return;
	pthread_mutex_lock(&stripe->lock);
	if (!absorb(p, bucket, &s) && um_page_link(p, id, &s, &seq))
		id = 0;
	pthread_mutex_unlock(&stripe->lock);
	if (id)
		um_page_give(p, id);
}

void um_shadow_add(struct um_page *p, const struct um_shadow *run, uint64_t seq)
{
	struct um_shadow s = *run;
	uint32_t left = run->len;

	if (!p || !p->cap || run->ino >= UM_PAGE_INO_MAX || run->lba > UM_LBA_MASK)
		return;
	while (left) {
		uint32_t room = UM_PAGE_WINDOW - s.block % UM_PAGE_WINDOW;

		s.len = left < room ? left : room;
		add_piece(p, s, seq);
		s.block += s.len;
		s.lba += s.len;
		left -= s.len;
	}
}

/* ---- finding ------------------------------------------------------------------------------------------ */

/* Under the lock: the node that covers the block, or 0. */
static uint32_t covering(const struct um_page *p, uint32_t bucket, um_ino_t ino, uint64_t block)
{
	uint32_t prev = 0, at = um_head(&p->shadow[bucket]);

	while ((at = chain_find(p, ino, block / UM_PAGE_WINDOW, at, &prev))) {
		uint64_t w2 = um_word(&p->ident[at].w2);

		if (block % UM_PAGE_WINDOW - um_w2_start(w2) < um_w2_len(w2))
			return at;
		at = um_page_next(p, at);
	}
	return 0;
}

bool um_shadow_find(struct um_page *p, um_ino_t ino, uint64_t block, struct um_shadow *out)
{
	uint32_t bucket, id;
	struct um_stripe *stripe;

	if (!p || !p->cap)
		return false;
	bucket = um_shadow_bucket(p, ino, block / UM_PAGE_WINDOW);
	stripe = um_stripe_of(p->sstripe, bucket);
	prefetch(&p->shadow[bucket]);
	pthread_mutex_lock(&stripe->lock);
	id = covering(p, bucket, ino, block);
	if (id) {
		*out = um_page_shadow(p, id);
		if (!(um_word(&p->ident[id].w2) & UM_W2_REF))
			__atomic_fetch_or(&p->ident[id].w2, UM_W2_REF, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&stripe->lock);
	return id;
}

bool um_shadow_covers(struct um_page *p, um_ino_t ino, uint64_t block, uint64_t n)
{
	uint64_t end = block + n;
	struct um_shadow s;

	while (block < end) {
		if (!um_shadow_find(p, ino, block, &s))
			return false;
		block = s.block + s.len;
	}
	return true;
}

unsigned um_shadow_list(struct um_page *p, um_ino_t ino, uint64_t first, uint64_t n,
	struct um_shadow *out, unsigned max)
{
	uint64_t end = n > UINT64_MAX - first ? UINT64_MAX : first + n;
	unsigned got = 0;

	if (!p || !p->cap || ino >= UM_PAGE_INO_MAX)
		return 0;
	for (uint64_t w = first / UM_PAGE_WINDOW; got < max && w * UM_PAGE_WINDOW < end; w++) {
		uint32_t bucket = um_shadow_bucket(p, ino, w), prev = 0, at;
		struct um_stripe *stripe = um_stripe_of(p->sstripe, bucket);
		unsigned from = got;

		pthread_mutex_lock(&stripe->lock);
		at = chain_find(p, ino, w, um_head(&p->shadow[bucket]), &prev);
		while (at && got < max) {
			struct um_shadow s = um_page_shadow(p, at);
			unsigned i = got;

			if (s.block < end && s.block + s.len > first) {
				/* The few of a window come in any order. */
				for (; i > from && out[i - 1].block > s.block; i--)
					out[i] = out[i - 1];
				out[i] = s;
				got++;
			}
			at = chain_find(p, ino, w, um_page_next(p, at), &prev);
		}
		pthread_mutex_unlock(&stripe->lock);
	}
	return got;
}

/* ---- tossing ------------------------------------------------------------------------------------------- */

struct toss {
	struct um_page *p;
	um_ino_t ino;
	uint64_t first, end;
	struct um_shadow *list; /* what went */
	unsigned nlist, max_list;
	uint64_t gone;
};

/* Keeps the part of a shadow on one side of the range; without a free node it is lost, which is
 * harmless. */
static void keep_part(struct toss *t, const struct um_shadow *old, uint64_t from, uint64_t to)
{
	struct um_shadow part = {
		.ino = old->ino,
		.block = from,
		.lba = old->lba + (from - old->block),
		.len = (uint32_t)(to - from),
	};
	uint32_t id = from < to ? um_page_take(t->p, false) : 0;

	if (id)
		um_page_link(t->p, id, &part, NULL);
}

/* The part of a shadow that lies in the range. */
static struct um_shadow clipped(const struct toss *t, const struct um_shadow *s)
{
	uint64_t from = s->block > t->first ? s->block : t->first;
	uint64_t to = s->block + s->len < t->end ? s->block + s->len : t->end;

	return (struct um_shadow){s->ino, from, s->lba + (from - s->block), (uint32_t)(to - from)};
}

static void toss_window(struct toss *t, uint64_t window)
{
	struct um_page *p = t->p;
	uint64_t from = window * UM_PAGE_WINDOW, to = from + UM_PAGE_WINDOW;
	uint32_t bucket = um_shadow_bucket(p, t->ino, window), prev = 0, at;
	struct um_stripe *stripe = um_stripe_of(p->sstripe, bucket);

	if (from < t->first)
		from = t->first;
	if (to > t->end)
		to = t->end;
	at = um_head(&p->shadow[bucket]);
	prefetch(&p->ident[at]);
	prefetch(&p->links[at]);
	pthread_mutex_lock(&stripe->lock);
	at = chain_find(p, t->ino, window, um_head(&p->shadow[bucket]), &prev);
	while (at) {
		struct um_shadow old = um_page_shadow(p, at);
		uint64_t end = old.block + old.len;

		if (old.block >= t->end || end <= t->first) {
			prev = at;
			at = chain_find(p, t->ino, window, um_page_next(p, at), &prev);
			continue;
		}
		um_page_unlink(p, at, prev);
		um_page_give(p, at);
		t->gone++;
		keep_part(t, &old, old.block, t->first);
		keep_part(t, &old, t->end, end);
		if (t->nlist < t->max_list)
			t->list[t->nlist++] = clipped(t, &old);
		if (old.block <= from && end >= to)
			break; /* that was all: the rest of the chain need not be visited */
		prev = 0;      /* the kept parts are in front now, and outside the range */
		at = chain_find(p, t->ino, window, um_head(&p->shadow[bucket]), &prev);
	}
	pthread_mutex_unlock(&stripe->lock);
}

/* Collects windows of the inode that intersect the range, by its chain; up to max. */
static unsigned gather(const struct toss *t, uint64_t *windows, unsigned max)
{
	const struct um_page *p = t->p;
	uint32_t bucket = um_ino_bucket(p, t->ino), at;
	struct um_stripe *stripe = um_stripe_of(p->istripe, bucket);
	unsigned n = 0;

	pthread_mutex_lock(&stripe->lock);
	for (at = um_head(&p->ino[bucket]); at && n < max; at = um_head(&p->links[at].inext)) {
		uint64_t w2 = um_word(&p->ident[at].w2), block;

		if (um_page_ino(p, at) != t->ino)
			continue;
		block = um_w2_window(w2) * UM_PAGE_WINDOW + um_w2_start(w2);
		if (block < t->end && block + um_w2_len(w2) > t->first)
			windows[n++] = um_w2_window(w2);
	}
	pthread_mutex_unlock(&stripe->lock);
	return n;
}

static void toss_chain(struct toss *t)
{
	uint64_t few[PROBE_WINDOWS], *windows = few;
	unsigned n = gather(t, few, PROBE_WINDOWS), max = PROBE_WINDOWS;

	while (n) {
		for (unsigned i = 0; i < n; i++)
			toss_window(t, windows[i]);
		if (n < max)
			break;
		/* A long chain: larger passes, since each begins at its front. */
		if (max < GATHER_MAX) {
			uint64_t *more = malloc(sizeof(*more) * GATHER_MAX);

			if (more) {
				windows = more;
				max = GATHER_MAX;
			}
		}
		n = gather(t, windows, max);
	}
	if (windows != few)
		free(windows);
}

uint64_t um_shadow_toss(struct um_page *p, um_ino_t ino, uint64_t first, uint64_t n,
	struct um_shadow *list, unsigned *nlist)
{
	struct toss t = {
		.p = p,
		.ino = ino,
		.first = first,
		.end = n > UINT64_MAX - first ? UINT64_MAX : first + n,
		.list = list,
		.max_list = list ? *nlist : 0,
	};

	if (list)
		*nlist = 0;
	if (!p || !p->cap || !n || ino >= UM_PAGE_INO_MAX)
		return 0;
	/* Atomic operations wait for loads issued before them: so this prefetch is in flight by
	 * then. */
	prefetch(&p->shadow[um_shadow_bucket(p, ino, first / UM_PAGE_WINDOW)]);
	prefetch(&p->ino[um_ino_bucket(p, ino)]);
	atomic_fetch_add(&um_ino_stripe(p, ino)->seq, 1);
	if (!atomic_load(&p->count))
		return 0;
	if ((t.end - 1) / UM_PAGE_WINDOW - first / UM_PAGE_WINDOW < PROBE_WINDOWS)
		for (uint64_t w = first / UM_PAGE_WINDOW; w <= (t.end - 1) / UM_PAGE_WINDOW; w++)
			toss_window(&t, w);
	else
		toss_chain(&t);
	if (list)
		*nlist = t.nlist;
	atomic_fetch_add_explicit(&p->tosses, t.gone, memory_order_relaxed);
	return t.gone;
}
