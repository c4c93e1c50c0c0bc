/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Masters and shadows: which files have which shared blocks cached at this moment.
 *
 * A shadow says that a piece of a file, whose blocks have more than one owner, was handed to the
 * kernel: (inode, file blocks) -> LBA. A master is an aligned run of UM_PAGE_WINDOW blocks of the
 * pool that has shadows; it exists as long as one of them does. Both live in memory only and are
 * found through hashes, by (inode, window of the file) and by LBA.
 *
 * A shadow is a hint that is never wrong: as long as it is found, the file maps those blocks there.
 * It may be absent at any time (memory is bounded, see um_page_open), so nothing may depend on the
 * absence of a shadow. Readers that turn a mapping into a shadow and writers that change mappings
 * have no lock in common:
 *   reader                                     writer
 *   seq = um_shadow_seq(ino)                   commits the transaction
 *   looks the mapping up, releases the locks   um_shadow_toss(ino, range)
 *   um_shadow_add(run, seq)
 *
 * A reader whose lookup came before the commit has a number from before the toss. So either its add
 * finds the number changed and does nothing, or the toss finds the shadow.
 *
 * The lock of a master (lock.c) serialises operations on a block that must not overlap: copying it
 * for a write, taking another reference to it, moving it elsewhere.
 *
 * All functions accept NULL for the um_page, and do nothing then.
 */
#ifndef UM_PAGE_PAGE_H
#define UM_PAGE_PAGE_H

#include <stdbool.h>

#include "btree/btree.h"

struct um_page;

#define UM_PAGE_WINDOW 16u /* blocks: the most that a shadow covers, aligned in its file */
#define UM_PAGE_INO_MAX (1ull << 48) /* files with larger numbers have no shadows */
#define UM_PAGE_MEM_MIN (1ull << 20) /* bytes */
#define UM_PAGE_MEM_DEFAULT (64ull << 20)

/* mem_bytes bounds everything: about 47 bytes per shadow. 0: no shadows, only the locks; else at
 * least the minimum. */
int um_page_open(uint64_t mem_bytes, struct um_page **out);
void um_page_close(struct um_page *page);
/* Can there be shadows at all? */
bool um_page_on(const struct um_page *page);
/* An identifier that no other um_page of this process ever has. */
uint64_t um_page_id(const struct um_page *page);

struct um_page_stats {
	uint64_t shadows, masters;
	uint64_t capacity;  /* shadows that fit */
	uint64_t bytes;     /* used by shadows so far, and by the indexes */
	uint64_t evictions; /* shadows dropped to make room */
	uint64_t tosses;    /* shadows tossed because their file changed or left */
	uint64_t waits;     /* waits for a master's lock */
};
void um_page_stats(const struct um_page *page, struct um_page_stats *out);

/* ---- shadows (shadow.c) ------------------------------------------------------------------------- */

/* A piece of a file and where it lies. */
struct um_shadow {
	um_ino_t ino;
	uint64_t block; /* in the file */
	um_lba_t lba;
	uint32_t len; /* blocks */
};

uint64_t um_shadow_seq(const struct um_page *page, um_ino_t ino);
/* Any length; split at windows, joined with what exists. May do nothing. No lock may be held. */
void um_shadow_add(struct um_page *page, const struct um_shadow *run, uint64_t seq);
/* The shadow that covers a block; counts as a use, which protects it from eviction. */
bool um_shadow_find(struct um_page *page, um_ino_t ino, uint64_t block, struct um_shadow *out);
/* Is all of [block, block + n) there already? */
bool um_shadow_covers(struct um_page *page, um_ino_t ino, uint64_t block, uint64_t n);
/* Tosses what intersects [first, first + n) (n UINT64_MAX: to the end). list, or NULL: what was
 * tossed, up to *nlist pieces. Returns how many shadows were removed or lost a part. */
uint64_t um_shadow_toss(struct um_page *page, um_ino_t ino, uint64_t first, uint64_t n,
	struct um_shadow *list, unsigned *nlist);
/* Shadows that intersect [first, first + n), ascending; visits one window after the other. */
unsigned um_shadow_list(struct um_page *page, um_ino_t ino, uint64_t first, uint64_t n,
	struct um_shadow *out, unsigned max);

/* ---- masters (master.c) ---------------------------------------------------------------------------- */

/* The shadows that intersect LBAs [lba, lba + n), n at most UM_PAGE_WINDOW; *out_all: their number,
 * even if it exceeds max. */
unsigned um_master_shadows(struct um_page *page, um_lba_t lba, uint32_t n, struct um_shadow *out,
	unsigned max, uint64_t *out_all);
/* Number of shadows that point at one block. */
uint64_t um_master_count(struct um_page *page, um_lba_t lba);
/* Shadows that are the only one of their master, among the next `look` in turn, to check whether
 * they may stay. */
unsigned um_master_sole(struct um_page *page, unsigned look, struct um_shadow *out, unsigned max);

/* ---- owners through the trees (finder.c) ------------------------------------------------------------------ */

/*
 * Finds, in one extent tree after the other, the records that refer to LBAs [lba, lba + n). What is
 * below a node with several parents is visited once and remembered, as long as nothing is
 * committed.
 */
struct um_finder;
int um_finder_new(um_lba_t lba, uint32_t n, struct um_finder **out);
void um_finder_free(struct um_finder *f);
struct um_hit {
	uint64_t key; /* of the record */
	uint64_t block;
	um_lba_t lba;
	uint32_t len;
};
typedef int um_finder_fn(void *arg, const struct um_hit *hit);
/*
 * Continues in the tree from *key (0: its beginning) for up to *budget leaves, lowering it. *key is
 * UINT64_MAX at the tree's end. A non-zero return of fn ends the step and is returned; *key is then
 * at that record, which counts as not visited. seq: of the last commit, read under the same lock.
 */
int um_finder_step(struct um_finder *f, struct um_src src, uint64_t seq, const struct um_tree *tree,
	uint64_t *key, unsigned *budget, um_finder_fn *fn, void *arg);

/* ---- the masters' locks (lock.c) ----------------------------------------------------------------------- */

#define UM_HOLD_SLOTS 256u
/* A set of LBAs to be locked together: chunks of 2 MiB, hashed to a table of locks. */
struct um_hold {
	uint64_t slot[UM_HOLD_SLOTS / 64];
	uint64_t moves;
};
/* To be called before the mapping is read that gives the LBAs. */
void um_hold_init(const struct um_page *page, struct um_hold *hold);
void um_hold_add(struct um_hold *hold, um_lba_t lba, uint64_t n);
/* Does the outer one lock everything that the inner one would? */
bool um_hold_within(const struct um_hold *inner, const struct um_hold *outer);
/*
 * Takes all locks, in the table's order. true: as far as masters are concerned, the mapping is as
 * it was read. false: since um_hold_init somebody else held one of the locks, or blocks were moved.
 * The locks are held, but the mapping must be read again (and if it gives other LBAs, unlock and
 * start over).
 */
bool um_master_lock(struct um_page *page, struct um_hold *hold);
/* The second check alone, for a holder of the locks: was nothing moved since um_hold_init? */
bool um_master_unmoved(const struct um_page *page, const struct um_hold *hold);
/* Does nothing for a hold that is not locked or is empty. */
void um_master_unlock(struct um_page *page, struct um_hold *hold);
/* Blocks were moved or retired by the holder of their locks, who still holds them. */
void um_master_moved(struct um_page *page);

#endif
