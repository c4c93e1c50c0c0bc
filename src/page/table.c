/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of shadows: memory, chains, and eviction when it is full. */
#include "page/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#define NODE_BYTES (sizeof(struct um_ident) + sizeof(struct um_links))
#define SHARE_MASTER 2u /* nodes per bucket */
#define SHARE_INO 4u
#define HUGE_FROM (128u << 20) /* from this size on, huge pages are requested */
#define HAND_STEPS 4096u       /* of the clock, before it evicts whatever it finds */

/* ---- making ---------------------------------------------------------------------------------------- */

static int stripes_make(struct um_stripe **out, unsigned n)
{
	struct um_stripe *s = aligned_alloc(64, n * sizeof(*s));

	if (!s)
		return -ENOMEM;
	memset(s, 0, n * sizeof(*s));
	for (unsigned i = 0; i < n; i++)
		pthread_mutex_init(&s[i].lock, NULL);
	*out = s;
	return 0;
}

static void stripes_free(struct um_stripe *s, unsigned n)
{
	for (unsigned i = 0; s && i < n; i++)
		pthread_mutex_destroy(&s[i].lock);
	free(s);
}

static size_t buckets_bytes(const struct um_page *p)
{
	return ((size_t)p->nshadow + p->nmaster + p->nino) * sizeof(uint32_t);
}

/* Computes how many shadows, and buckets for them, fit into the memory. */
static void plan(struct um_page *p, uint64_t mem_bytes)
{
	const uint64_t fixed = sizeof(*p) +
			       (3 * UM_STRIPES + UM_HOLD_SLOTS) * sizeof(struct um_stripe) +
			       NODE_BYTES + 4096;
	const uint64_t unit = NODE_BYTES + 4 + 4 / SHARE_MASTER + 4 / SHARE_INO;
	uint64_t cap;

	if (!mem_bytes)
		return;
	if (mem_bytes < UM_PAGE_MEM_MIN)
		mem_bytes = UM_PAGE_MEM_MIN;
	cap = (mem_bytes - fixed) / unit;
	if (cap > UM_NODE_SAME - 2)
		cap = UM_NODE_SAME - 2;
	p->cap = (uint32_t)cap;
	p->nshadow = p->cap;
	p->nmaster = p->cap / SHARE_MASTER;
	p->nino = p->cap / SHARE_INO;
}

static int table_make(struct um_page *p)
{
	uint8_t *at;

	if (!p->cap)
		return 0;
	p->map_len = ((size_t)p->cap + 1) * NODE_BYTES + buckets_bytes(p);
	at = mmap(NULL, p->map_len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return -ENOMEM;
	if (p->map_len >= HUGE_FROM)
		madvise(at, p->map_len, MADV_HUGEPAGE);
	/* Links first: they are 16 bytes and so never cross a cache line. */
	p->links = (struct um_links *)at;
	at += ((size_t)p->cap + 1) * sizeof(struct um_links);
	p->ident = (struct um_ident *)at;
	at += ((size_t)p->cap + 1) * sizeof(struct um_ident);
	p->shadow = (uint32_t *)at;
	p->master = p->shadow + p->nshadow;
	p->ino = p->master + p->nmaster;
	return stripes_make(&p->sstripe, UM_STRIPES) || stripes_make(&p->mstripe, UM_STRIPES) ||
			       stripes_make(&p->istripe, UM_STRIPES)
		       ? -ENOMEM
		       : 0;
}

int um_page_open(uint64_t mem_bytes, struct um_page **out)
{
	struct um_page *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	plan(p, mem_bytes);
	p->fresh = 1;
	pthread_mutex_init(&p->slab, NULL);
	if (getrandom(&p->seed, sizeof(p->seed), GRND_NONBLOCK) != sizeof(p->seed))
		p->seed = (uintptr_t)p;
	if (table_make(p) || stripes_make(&p->hold, UM_HOLD_SLOTS)) {
		um_page_close(p);
		return -ENOMEM;
	}
	*out = p;
	return 0;
}

void um_page_close(struct um_page *p)
{
	if (!p)
		return;
	if (p->links)
		munmap(p->links, p->map_len);
	stripes_free(p->sstripe, UM_STRIPES);
	stripes_free(p->mstripe, UM_STRIPES);
	stripes_free(p->istripe, UM_STRIPES);
	stripes_free(p->hold, UM_HOLD_SLOTS);
	pthread_mutex_destroy(&p->slab);
	free(p);
}

bool um_page_on(const struct um_page *p)
{
	return p && p->cap;
}

uint64_t um_page_id(const struct um_page *p)
{
	return p->seed;
}

void um_page_stats(const struct um_page *p, struct um_page_stats *out)
{
	memset(out, 0, sizeof(*out));
	out->waits = p ? atomic_load(&p->waits) : 0;
	if (!p || !p->cap)
		return;
	out->bytes = (uint64_t)um_head(&p->fresh) * NODE_BYTES;
	out->bytes += buckets_bytes(p) + sizeof(*p) +
		      (3 * UM_STRIPES + UM_HOLD_SLOTS) * sizeof(struct um_stripe);
	out->shadows = atomic_load(&p->count);
	out->masters = atomic_load(&p->masters);
	out->capacity = p->cap;
	out->evictions = atomic_load(&p->evictions);
	out->tosses = atomic_load(&p->tosses);
}

/* ---- nodes ------------------------------------------------------------------------------------------- */

struct um_shadow um_page_shadow(const struct um_page *p, uint32_t id)
{
	uint64_t w2 = um_word(&p->ident[id].w2);

	return (struct um_shadow){
		.ino = um_page_ino(p, id),
		.block = um_w2_window(w2) * UM_PAGE_WINDOW + um_w2_start(w2),
		.lba = um_page_lba(p, id),
		.len = um_w2_len(w2),
	};
}

static void node_set(struct um_page *p, uint32_t id, const struct um_shadow *s)
{
	struct um_ident *ident = &p->ident[id];

	um_word_set(&ident->w0, s->ino << 16 | s->lba >> 32);
	um_word_set(&ident->w1, s->lba << 32);
	um_word_set(&ident->w2, s->block / UM_PAGE_WINDOW << UM_W2_WINDOW |
					s->block % UM_PAGE_WINDOW << UM_W2_START |
					(uint64_t)(s->len - 1) << UM_W2_LEN | UM_W2_LIVE);
}

/* ---- the master's chain ---------------------------------------------------------------------------------- */

/* Next to another shadow of the master if there is one, else in front. */
static void master_link(struct um_page *p, uint32_t id, um_lba_t lba)
{
	uint32_t bucket = um_master_bucket(p, lba), at;
	struct um_stripe *stripe = um_stripe_of(p->mstripe, bucket);
	struct um_links *l = p->links;

	pthread_mutex_lock(&stripe->lock);
	at = um_head(&p->master[bucket]);
	while (at && um_page_lba(p, at) / UM_PAGE_WINDOW != lba / UM_PAGE_WINDOW)
		at = UM_NODE_ID(um_head(&l[at].mnext));
	if (at) {
		uint32_t next = um_head(&l[at].mnext);

		um_head_set(&l[id].mprev, at | UM_NODE_SAME);
		um_head_set(&l[id].mnext, next);
		um_head_set(&l[at].mnext, id | UM_NODE_SAME);
		if (UM_NODE_ID(next))
			um_head_set(&l[UM_NODE_ID(next)].mprev, id | (next & UM_NODE_SAME));
	} else {
		uint32_t head = um_head(&p->master[bucket]);

		um_head_set(&l[id].mprev, 0);
		um_head_set(&l[id].mnext, head);
		if (head)
			um_head_set(&l[head].mprev, id);
		um_head_set(&p->master[bucket], id);
		atomic_fetch_add_explicit(&p->masters, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&stripe->lock);
}

static void master_unlink(struct um_page *p, uint32_t id)
{
	uint32_t bucket = um_master_bucket(p, um_page_lba(p, id)), prev, next, same;
	struct um_stripe *stripe = um_stripe_of(p->mstripe, bucket);
	struct um_links *l = p->links;

	pthread_mutex_lock(&stripe->lock);
	prev = um_head(&l[id].mprev);
	next = um_head(&l[id].mnext);
	same = prev & next & UM_NODE_SAME;
	if (UM_NODE_ID(prev))
		um_head_set(&l[UM_NODE_ID(prev)].mnext, UM_NODE_ID(next) | same);
	else
		um_head_set(&p->master[bucket], UM_NODE_ID(next));
	if (UM_NODE_ID(next))
		um_head_set(&l[UM_NODE_ID(next)].mprev, UM_NODE_ID(prev) | same);
	if (!((prev | next) & UM_NODE_SAME))
		atomic_fetch_sub_explicit(&p->masters, 1, memory_order_relaxed);
	pthread_mutex_unlock(&stripe->lock);
}

/* ---- the inode's chain ------------------------------------------------------------------------------------ */

static bool ino_link(struct um_page *p, uint32_t id, um_ino_t ino, const uint64_t *seq)
{
	uint32_t bucket = um_ino_bucket(p, ino), head;
	struct um_stripe *stripe = um_stripe_of(p->istripe, bucket);
	struct um_links *l = p->links;
	bool fits;

	pthread_mutex_lock(&stripe->lock);
	fits = !seq || atomic_load(&stripe->seq) == *seq;
	if (fits) {
		head = um_head(&p->ino[bucket]);
		um_head_set(&l[id].iprev, 0);
		um_head_set(&l[id].inext, head);
		if (head)
			um_head_set(&l[head].iprev, id);
		um_head_set(&p->ino[bucket], id);
	}
	pthread_mutex_unlock(&stripe->lock);
	return fits;
}

static void ino_unlink(struct um_page *p, uint32_t id)
{
	uint32_t bucket = um_ino_bucket(p, um_page_ino(p, id)), prev, next;
	struct um_stripe *stripe = um_stripe_of(p->istripe, bucket);
	struct um_links *l = p->links;

	pthread_mutex_lock(&stripe->lock);
	prev = um_head(&l[id].iprev);
	next = um_head(&l[id].inext);
	if (prev)
		um_head_set(&l[prev].inext, next);
	else
		um_head_set(&p->ino[bucket], next);
	if (next)
		um_head_set(&l[next].iprev, prev);
	pthread_mutex_unlock(&stripe->lock);
}

/* ---- all three -------------------------------------------------------------------------------------------- */

bool um_page_link(struct um_page *p, uint32_t id, const struct um_shadow *s, const uint64_t *seq)
{
	uint32_t *head = &p->shadow[um_shadow_bucket(p, s->ino, s->block / UM_PAGE_WINDOW)];

	node_set(p, id, s);
	/* Counted before the number is checked: um_shadow_toss raises it, then reads the count. */
	atomic_fetch_add(&p->count, 1);
	if (!ino_link(p, id, s->ino, seq)) {
		atomic_fetch_sub(&p->count, 1);
		um_word_set(&p->ident[id].w2, 0);
		return false;
	}
	master_link(p, id, s->lba);
	um_page_set_next(p, id, um_head(head));
	um_head_set(head, id);
	return true;
}

/* Prefetches everything that unlinking a node will touch. */
static void prefetch_for_unlink(const struct um_page *p, uint32_t id)
{
	const struct um_links *l = &p->links[id];
	uint32_t mbucket = um_master_bucket(p, um_page_lba(p, id));

	__builtin_prefetch(&p->master[mbucket], 1);
	__builtin_prefetch(um_stripe_of(p->mstripe, mbucket), 1);
	__builtin_prefetch(&p->ino[um_ino_bucket(p, um_page_ino(p, id))], 1);
	__builtin_prefetch(&p->links[UM_NODE_ID(um_head(&l->mprev))], 1);
	__builtin_prefetch(&p->links[UM_NODE_ID(um_head(&l->mnext))], 1);
	__builtin_prefetch(&p->links[um_head(&l->iprev)], 1);
	__builtin_prefetch(&p->links[um_head(&l->inext)], 1);
}

void um_page_unlink(struct um_page *p, uint32_t id, uint32_t prev)
{
	uint64_t window = um_w2_window(um_word(&p->ident[id].w2));
	uint32_t *head = &p->shadow[um_shadow_bucket(p, um_page_ino(p, id), window)];

	prefetch_for_unlink(p, id);
	if (prev)
		um_page_set_next(p, prev, um_page_next(p, id));
	else
		um_head_set(head, um_page_next(p, id));
	master_unlink(p, id);
	ino_unlink(p, id);
	um_word_set(&p->ident[id].w2, 0);
	atomic_fetch_sub(&p->count, 1);
}

/* ---- free nodes ------------------------------------------------------------------------------------------- */

static uint32_t slab_take(struct um_page *p)
{
	uint32_t id = 0;

	pthread_mutex_lock(&p->slab);
	if (p->free) {
		id = p->free;
		um_head_set(&p->free, um_page_next(p, id));
	} else if (p->fresh <= p->cap) {
		id = p->fresh;
		um_head_set(&p->fresh, id + 1);
	}
	pthread_mutex_unlock(&p->slab);
	return id;
}

void um_page_give(struct um_page *p, uint32_t id)
{
	pthread_mutex_lock(&p->slab);
	um_page_set_next(p, id, p->free);
	um_head_set(&p->free, id);
	pthread_mutex_unlock(&p->slab);
}

/* Evicts a node that the hand found, if it is unchanged since. */
static bool evict(struct um_page *p, uint32_t id)
{
	um_ino_t ino = um_page_ino(p, id);
	uint64_t window = um_w2_window(um_word(&p->ident[id].w2));
	uint32_t bucket = um_shadow_bucket(p, ino, window), at, prev = 0;
	struct um_stripe *stripe = um_stripe_of(p->sstripe, bucket);

	pthread_mutex_lock(&stripe->lock);
	for (at = um_head(&p->shadow[bucket]); at && at != id; at = um_page_next(p, at))
		prev = at;
	if (at)
		um_page_unlink(p, id, prev);
	pthread_mutex_unlock(&stripe->lock);
	return at;
}

/* The clock: what was used since the hand passed gets a second chance. */
static uint32_t evict_one(struct um_page *p)
{
	for (unsigned step = 0; step < 4 * HAND_STEPS; step++) {
		uint32_t id =
			atomic_fetch_add_explicit(&p->hand, 1, memory_order_relaxed) % p->cap + 1;
		uint64_t *w2 = &p->ident[id].w2, now = um_word(w2);

		if (!(now & UM_W2_LIVE))
			continue;
		if (now & UM_W2_REF && step < HAND_STEPS) {
			__atomic_fetch_and(w2, ~UM_W2_REF, __ATOMIC_RELAXED);
			continue;
		}
		if (evict(p, id)) {
			atomic_fetch_add_explicit(&p->evictions, 1, memory_order_relaxed);
			return id;
		}
	}
	return 0;
}

uint32_t um_page_take(struct um_page *p, bool make_room)
{
	uint32_t id = slab_take(p);

	if (!id && make_room)
		id = evict_one(p);
	return id;
}
