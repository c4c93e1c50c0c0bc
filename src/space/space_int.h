/* SPDX-License-Identifier: BSD-3-Clause */
/* Internal to space/: the volatile index of free blocks, the quarantine, epochs. */
#ifndef UM_SPACE_SPACE_INT_H
#define UM_SPACE_SPACE_INT_H

#include <pthread.h>

#include "space/space.h"

#define UM_CHUNK_WORDS (UM_CHUNK_BLOCKS / 64)
#define UM_REGION_CHUNKS 64u /* chunks summarised in one entry of um_space.region */

/*
 * The free blocks of a chunk. For `known` chunks nfree is exact, as is busy if nfree is neither
 * none nor all. Others are mixed chunks that have not been searched since mount: nfree is what the
 * chunk's word says, and none of their blocks is taken or in quarantine.
 */
struct um_chunk {
	uint64_t *busy; /* 512 bits, 1: unavailable; NULL if nfree is sufficient */
	uint16_t nfree;
	uint16_t run;    /* upper bound of the longest run of free blocks; 0 and 512 are exact */
	uint16_t hidden; /* replaces nfree while the chunk is hidden (um_chunk_hide) */
	bool known : 1;
	bool lacks : 1; /* it may need space of the host before use, see um_pool_ready */
	bool meta : 1;  /* metadata was recently placed here: file data goes elsewhere if it can */
};
static_assert(sizeof(struct um_chunk) == 16, "one for each 2 MiB");

/* A run of freed blocks that may still be referenced. */
struct um_freed {
	uint64_t seq;   /* the transaction that freed it */
	uint64_t epoch; /* current then */
	um_lba_t lba;
	uint32_t n;
};
/* Oldest first; a ring. */
struct um_freed_list {
	struct um_freed *ring;
	size_t cap, head, len;
	uint64_t blocks;
};

struct um_space {
	struct um_pool *pool;
	struct um_log *log;
	pthread_mutex_t lock; /* protects everything below */
	uint64_t nchunks;     /* those that belong to groups */
	uint64_t total;       /* blocks that can be used */
	uint64_t keep;        /* blocks that file data leaves for metadata */
	struct um_chunk *chunk;
	uint16_t *region;      /* per 64 chunks: upper bound of their `run` */
	uint64_t *meta_free;   /* bit per chunk: meta, and has free blocks */
	uint64_t idle;         /* sum of nfree: can be taken now */
	uint64_t idle_lacking; /* the same, of chunks that lack space of the host */
	uint64_t spare_cursor; /* chunk where the last search for a spare one ended */
	uint64_t *dry;         /* bit per chunk: hidden, since the host had no space for it */
	uint64_t ndry, hidden; /* number of such chunks, and of their free blocks */
	uint64_t dry_cursor;   /* the last of them that the host was asked for again */
	uint64_t taken;        /* taken by um_space_take, not yet allocated or given back */
	uint64_t trimming;     /* runs that are being returned to the host, taken meanwhile */
	uint64_t *discard;     /* bit per chunk: blocks came free there; NULL: not recorded */
	uint64_t came_free;    /* raised whenever more blocks become available */
	um_lba_t data_cursor;  /* where the last search for data without a goal ended */
	um_lba_t meta_cursor, mirror_cursor;
	struct um_freed_list freed_data, freed_meta;
	/* Free blocks that are bad: unavailable until they are retired. */
	um_lba_t *withheld;
	size_t nwithheld, withheld_cap;
};

/* ---- index (free.c); space->lock held ------------------------------------------------------------ */

/* Makes a chunk known by reading its counts. -EUCLEAN, -EIO: it then has no free blocks. */
int um_chunk_load(struct um_space *space, uint64_t chunk);
/* Free blocks become busy, or busy ones free. -ENOMEM (only from all or none). */
int um_chunk_mark(struct um_space *space, uint64_t chunk, unsigned first, unsigned n, bool busy);
/* In a known chunk: the first run of `want` free blocks at or after from, else the longest one.
 * Returns its length, 0 for none. */
unsigned um_chunk_find(const struct um_space *space, uint64_t chunk, unsigned from, unsigned want,
	unsigned *out_first);
/* Next chunk in [from, to) that may have a run of `want` blocks; `to` if there is none. */
uint64_t um_chunk_next(
	struct um_space *space, uint64_t from, uint64_t to, unsigned want, bool skip_meta);
/* A search proved that no run in the chunk is longer. */
void um_chunk_bound(struct um_space *space, uint64_t chunk, unsigned run);
/* Updates the chunk's `lacks` from the pool, and the sums. */
void um_chunk_lacks(struct um_space *space, uint64_t chunk);
/* Hides a chunk that cannot be used now from searches, until it is shown again. Blocks may come free
 * in it meanwhile. */
void um_chunk_hide(struct um_space *space, uint64_t chunk);
void um_chunk_show(struct um_space *space, uint64_t chunk);
void um_chunk_set_meta(struct um_space *space, uint64_t chunk);

/* ---- quarantine (quarantine.c) ---------------------------------------------------------------------- */

/* Frees what has waited long enough; lock held. True if any block was freed. */
bool um_quarantine_reap(struct um_space *space);
static inline uint64_t um_quarantine_blocks(const struct um_space *space)
{
	return space->freed_data.blocks + space->freed_meta.blocks;
}
/* Forces and awaits what keeps blocks in quarantine; lock not held. False: without effect, and
 * nothing else came free since space->came_free was `seen`. */
bool um_quarantine_flush(struct um_space *space, uint64_t seen);
void um_quarantine_drop(struct um_space *space);

/* ---- epochs (epoch.c) ---------------------------------------------------------------------------------- */

uint64_t um_epoch_now(void);
/* Begins a new epoch; returns the oldest one that some thread is still in, or the new one. */
uint64_t um_epoch_oldest(void);
/* The one that the calling thread is in, or 0. */
uint64_t um_epoch_own(void);

/* ---- counts (refs.c) -------------------------------------------------------------------------------------- */

/* Is the chunk part of a group, and none of its tables? */
bool um_chunk_ok(const struct um_pool *pool, uint64_t chunk);
/* Makes blocks that a transaction is about to free visible as busy, before its commit. */
int um_space_pin(struct um_space *space, uint64_t chunk);

#endif
