/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Internal to page/: the table of shadows.
 *
 * A slab of nodes, numbered from 1, with three hashes that chain them: by (inode, window), by the
 * window of the LBA, and by inode. Everything is allocated once, according to the memory limit, and
 * touched as it is used, so nothing is ever moved or rehashed. 24 + 16 bytes per node and 4 + 2 + 1
 * of buckets are 47.
 *
 * A node-based hash of a library would need more: liburcu's cds_lfht has 16 bytes of its own in a
 * node and 16 more to free it later, for each of the three; and readers here hold a lock for two
 * cache misses only.
 *
 * Locks: that of a shadow bucket's stripe, then that of either a master bucket or an inode bucket;
 * the slab's is a leaf. A node's identity is written only while it is in no chain, so it may be
 * read under the lock of the chain in which it was found. The clock's hand reads without any lock:
 * hence the atomics.
 */
#ifndef UM_PAGE_TABLE_H
#define UM_PAGE_TABLE_H

#include <pthread.h>
#include <stdatomic.h>

#include "page/page.h"

#define UM_NODE_SAME (1u << 31) /* in mprev, mnext: that neighbour has the same master */
#define UM_NODE_ID(link) ((link) & ~UM_NODE_SAME)
#define UM_STRIPES 256u /* all three kinds fit the processor's inner caches */

/* What a node is: ino 48 | lba high 16, lba low 32 | next in the shadow chain 32, window and
 * flags. */
struct um_ident {
	uint64_t w0, w1, w2;
};
struct um_links {
	uint32_t mprev, mnext; /* in the master's bucket; shadows of one master are neighbours */
	uint32_t iprev, inext; /* in the inode's bucket */
};
static_assert(sizeof(struct um_ident) == 24 && sizeof(struct um_links) == 16, "a node's size");

#define UM_W2_REF (1ull << 0)  /* used since the clock's hand passed */
#define UM_W2_LIVE (1ull << 1) /* in the chains */
#define UM_W2_LEN 2            /* 4 bits: blocks - 1 */
#define UM_W2_START 6          /* 4 bits: first block in the window */
#define UM_W2_WINDOW 10

struct um_stripe {
	pthread_mutex_t lock;
	atomic_uint_fast64_t seq; /* inode stripes: tosses so far */
} __attribute__((aligned(64)));

struct um_page {
	uint32_t cap;
	uint32_t nshadow, nmaster, nino; /* buckets */
	struct um_ident *ident;          /* [0] is unused */
	struct um_links *links;
	uint32_t *shadow, *master, *ino;
	size_t map_len; /* of the mapping that holds them all; it begins with links */
	uint64_t seed;
	struct um_stripe *sstripe, *mstripe, *istripe;
	pthread_mutex_t slab; /* protects free and fresh */
	uint32_t free, fresh;
	atomic_uint hand, sole_hand; /* of the clock; of the search for masters with one shadow */
	atomic_uint_fast64_t count, masters, evictions, tosses, waits, moves;
	struct um_stripe *hold; /* UM_HOLD_SLOTS of them: the masters' locks */
};

static inline uint64_t um_word(const uint64_t *w)
{
	return __atomic_load_n(w, __ATOMIC_RELAXED);
}
static inline void um_word_set(uint64_t *w, uint64_t v)
{
	__atomic_store_n(w, v, __ATOMIC_RELAXED);
}
static inline uint32_t um_head(const uint32_t *bucket)
{
	return __atomic_load_n(bucket, __ATOMIC_RELAXED);
}
static inline void um_head_set(uint32_t *bucket, uint32_t id)
{
	__atomic_store_n(bucket, id, __ATOMIC_RELAXED);
}

static inline um_ino_t um_page_ino(const struct um_page *p, uint32_t id)
{
	return um_word(&p->ident[id].w0) >> 16;
}
static inline um_lba_t um_page_lba(const struct um_page *p, uint32_t id)
{
	return (um_word(&p->ident[id].w0) & 0xffff) << 32 | um_word(&p->ident[id].w1) >> 32;
}
static inline uint32_t um_page_next(const struct um_page *p, uint32_t id)
{
	return (uint32_t)um_word(&p->ident[id].w1);
}
static inline void um_page_set_next(struct um_page *p, uint32_t id, uint32_t next)
{
	uint64_t *w1 = &p->ident[id].w1;

	um_word_set(w1, (um_word(w1) & ~0xffffffffull) | next);
}
static inline uint64_t um_w2_window(uint64_t w2)
{
	return w2 >> UM_W2_WINDOW;
}
static inline uint32_t um_w2_start(uint64_t w2)
{
	return w2 >> UM_W2_START & 15;
}
static inline uint32_t um_w2_len(uint64_t w2)
{
	return (w2 >> UM_W2_LEN & 15) + 1;
}
struct um_shadow um_page_shadow(const struct um_page *p, uint32_t id);

/* Buckets. Neighbouring windows have neighbouring buckets, for sequential access to a file. */
static inline uint64_t um_page_mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}
static inline uint32_t um_page_scale(uint64_t hash, uint32_t n)
{
	return (uint32_t)((hash >> 32) * n >> 32);
}
static inline uint32_t um_shadow_bucket(const struct um_page *p, um_ino_t ino, uint64_t window)
{
	uint64_t hash = um_page_mix((ino + p->seed) * 0x9e3779b97f4a7c15ull ^ window >> 3);

	return um_page_scale(hash, p->nshadow - 7) + (window & 7);
}
static inline uint32_t um_master_bucket(const struct um_page *p, um_lba_t lba)
{
	uint64_t window = lba / UM_PAGE_WINDOW;

	return um_page_scale(um_page_mix((window >> 3) + p->seed), p->nmaster - 7) + (window & 7);
}
static inline uint32_t um_ino_bucket(const struct um_page *p, um_ino_t ino)
{
	return um_page_scale(um_page_mix(ino + p->seed), p->nino);
}
static inline struct um_stripe *um_stripe_of(struct um_stripe *stripes, uint32_t bucket)
{
	return &stripes[bucket % UM_STRIPES];
}
static inline struct um_stripe *um_ino_stripe(const struct um_page *p, um_ino_t ino)
{
	return um_stripe_of(p->istripe, um_ino_bucket(p, ino));
}

/* ---- table.c ------------------------------------------------------------------------------------------ */

/* A free node, or 0. With `make_room`, for which the caller holds no lock, evicts if there is
 * none. */
uint32_t um_page_take(struct um_page *p, bool make_room);
void um_page_give(struct um_page *p, uint32_t id);
/* Chains a node; the lock of its shadow bucket is held. seq: fails, changing nothing, unless the
 * inode's number is still that; NULL: unconditional. */
bool um_page_link(struct um_page *p, uint32_t id, const struct um_shadow *s, const uint64_t *seq);
/* Takes a node out of all chains; the lock is held, prev is before it in the shadow chain (0: the
 * bucket). */
void um_page_unlink(struct um_page *p, uint32_t id, uint32_t prev);

#endif
