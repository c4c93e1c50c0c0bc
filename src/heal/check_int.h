/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Internal to the checker. A check is one or more passes over the whole pool; each pass walks every
 * tree once, counts every reference, and compares what it found with what is stored. A repairing
 * pass works in place as it goes: it only removes things (a slot, a record, an entry) or rewrites
 * what follows from the rest (counts, words, mirrors), so that it needs no free space and no
 * trustworthy count. What needs space (lost+found) is done by the engine after the pass, when the
 * counts are right. The next pass checks the result.
 *
 * Transactions are not used throughout because they allocate and free by the very counts in doubt.
 * An interrupted repair leaves blocks that are each valid, and the next run continues from there.
 *
 * Nothing read from the pool is trusted: a block is copied, verified, and then examined; each node
 * is walked once; every loop has a bound that the pool does not choose.
 */
#ifndef UM_HEAL_CHECK_INT_H
#define UM_HEAL_CHECK_INT_H

#include <sys/stat.h>

#include "btree/body.h"
#include "btree/btree.h"
#include "fs/fs.h"
#include "umbra/check.h"

/* ---- a map of numbers (map.c) ------------------------------------------------------------------- */

/* A map from numbers above 0 to numbers. */
struct um_map {
	uint64_t *slot; /* key, value pairs; NULL: empty */
	uint64_t cap, n;
};
void um_map_clear(struct um_map *map);
int um_map_set(struct um_map *map, uint64_t key, uint64_t val); /* -ENOMEM */
bool um_map_get(const struct um_map *map, uint64_t key, uint64_t *out);

/* ---- recount (counts.c) -------------------------------------------------------------------------- */

enum um_use {
	UM_USE_NONE = 0,
	UM_USE_DATA,
	UM_USE_NODE,
	UM_USE_MIRROR,
	UM_USE_FIXED, /* superblock, tables, journal */
};
struct um_chunk_map;
struct um_counts {
	uint64_t nchunks;
	struct um_chunk_map **chunk;
};
int um_counts_open(struct um_counts *counts, const struct um_pool *pool);
void um_counts_close(struct um_counts *counts);
enum um_use um_counts_use(const struct um_counts *counts, um_lba_t lba);
uint32_t um_counts_get(const struct um_counts *counts, um_lba_t lba);
/* Adds a reference to a block used in this way; the caller has checked its use. -ENOMEM. */
int um_counts_add(struct um_counts *counts, um_lba_t lba, enum um_use use);
/* Removes one; a block without any is unused. */
void um_counts_sub(struct um_counts *counts, um_lba_t lba);
/* Adds a reference to each block of an extent, which lies in one chunk. */
int um_counts_data(struct um_counts *counts, um_lba_t lba, uint32_t n);
/* The blocks of an extent have been written. um_counts_written: a bitmap of such blocks of a chunk,
 * or NULL: none. */
int um_counts_write(struct um_counts *counts, um_lba_t lba, uint32_t n);
const uint64_t *um_counts_written(const struct um_counts *counts, uint64_t chunk);
/* How many blocks of an extent, from its start on, are used as nothing but data. */
uint32_t um_counts_free_of_meta(const struct um_counts *counts, um_lba_t lba, uint32_t n);
/* Is no block of the chunk in use? */
bool um_counts_none(const struct um_counts *counts, uint64_t chunk);
/* All 512 counts of a chunk; true if they are equal. */
bool um_counts_chunk(const struct um_counts *counts, uint64_t chunk, uint32_t out[UM_CHUNK_BLOCKS]);

/* ---- the check ------------------------------------------------------------------------------------- */

/* What is known about an inode after the first walk. */
struct um_ino_info {
	um_ino_t ino;
	uint32_t nlink;   /* stored */
	uint32_t entries; /* found that name it */
	uint32_t dir;     /* directories: index in c->dir */
	uint8_t type;     /* mode >> 12 */
	uint8_t flags;    /* UM_INFO_* */
};
#define UM_INFO_ORPHAN 1u /* UNLINKED or TMPFILE in the orphan tree */
#define UM_INFO_RELINK 2u /* goes to lost+found after this pass */

struct um_dir_info {
	um_ino_t ino;
	um_ino_t stored; /* its record's parent */
	um_ino_t parent; /* directory of the entry that counts; 0: none */
	uint64_t size;   /* stored number of entries */
	uint64_t have;   /* found */
	uint32_t subdirs;
	uint32_t state; /* used by the search for loops */
	bool once;      /* second walk: its one entry has been found */
};

struct um_orphan_info {
	um_ino_t ino;
	uint32_t what;
	uint64_t arg;
};

/* A valid node found by scanning the pool. */
struct um_found_node {
	struct um_ptr ptr;
	uint64_t first, birth;
	uint8_t kind, level;
	bool live; /* its stored count is not 0 */
};

/* What the first visit of an extent node found below it. */
struct um_node_sum {
	um_lba_t mirror; /* of the node */
	uint64_t blocks, extents, first, last, end;
	uint64_t written; /* end of the last written extent, 0: none */
	uint8_t level;
};

/* A file with data beyond its end. */
struct um_trim {
	um_ino_t ino;
	bool blocks; /* whole blocks; else bytes in the last one */
};

#define UM_LOOSE_MAX 32u

struct um_check {
	struct um_pool *pool;
	enum umbra_check_mode mode;
	bool fix;  /* this pass repairs */
	bool mute; /* what it cannot repair is left for the last pass to report */
	umbra_check_fn *fn;
	void *arg;
	struct umbra_check_report *report;
	/* Indirect pools: where blocks were written since the last barrier. */
	um_lba_t loose[UM_LOOSE_MAX];
	unsigned nloose;

	/* Of one pass. */
	int err; /* no memory, cannot write: ends the check */
	uint64_t found, fixed;
	struct um_pool_root root;
	bool root_dirty;
	struct um_counts counts;
	struct um_map bad;     /* nodes dropped */
	struct um_map seen;    /* nodes visited in the present walk */
	struct um_map sums;    /* extent node -> index in sum */
	struct um_map rebuilt; /* node -> its new image, uint8_t * */
	struct um_node_sum *sum;
	size_t nsum, capsum;
	struct um_ino_info *ino; /* ascending */
	size_t nino, capino;
	struct um_dir_info *dir;
	size_t ndir, capdir;
	struct um_orphan_info *orphan; /* ascending */
	size_t norphan, caporphan;
	struct um_found_node *scan;
	size_t nscan, capscan;
	struct um_trim *trim; /* to be repaired after this pass */
	size_t ntrim, captrim;
	bool scanned;
	uint64_t nrelink;
	uint64_t nretired;
	bool need_root_dir;
	uint64_t max_ino;
	uint64_t walk; /* number of the present walk */

	/* Across passes. */
	struct um_map claims; /* blocks found to be metadata: no extent may use them */
};

enum um_cure {
	UM_CURE_SAFE, /* repaired by PREEN too */
	UM_CURE_FULL, /* by REPAIR */
};
/* Counts and reports a problem; true: the caller is to repair it now. */
__attribute__((format(printf, 4, 5))) bool um_problem(
	struct um_check *c, const char *code, enum um_cure cure, const char *fmt, ...);
/* May repairs of the kind of REPAIR be written in this pass? */
static inline bool um_may_fix(const struct um_check *c)
{
	return c->fix && !c->err && c->mode == UMBRA_CHECK_REPAIR;
}
/* Makes room for another element of size bytes in an array; -ENOMEM in c->err. */
bool um_grow(struct um_check *c, void *array, size_t n, size_t *cap, size_t size);
struct um_ino_info *um_ino_find(struct um_check *c, um_ino_t ino);
struct um_orphan_info *um_orphan_find(struct um_check *c, um_ino_t ino);

/* ---- blocks (block.c) --------------------------------------------------------------------------------- */

typedef uint8_t um_block_t[UM_BLOCK_SIZE] __attribute__((aligned(64)));

static inline struct um_block_hdr *um_hdr(void *block)
{
	return block;
}
static inline void *um_body(void *block)
{
	return (uint8_t *)block + sizeof(struct um_block_hdr);
}
/* Is the block neither superblock, table nor journal? */
bool um_lba_usable(const struct um_check *c, um_lba_t lba, uint64_t n);
/* Copies a raw block; false if it cannot be read. */
bool um_read_raw(struct um_check *c, um_lba_t lba, void *block);
void um_write_raw(struct um_check *c, um_lba_t lba, const void *block);
/* One of two copies (other 0: the only one): not before the other is durable, so that a power cut
 * cannot tear both. */
void um_write_copy(struct um_check *c, um_lba_t lba, um_lba_t other, const void *block);
/* Seals the block and writes both copies. */
void um_write_block(struct um_check *c, struct um_ptr at, void *block);
/*
 * Loads a tree node: the better copy; the other one is repaired, and *ptr is corrected if the
 * node's own header is right and it is not (*out_moved). quiet: any good copy, without reports.
 * -EUCLEAN.
 */
int um_load_node(struct um_check *c, struct um_ptr *ptr, enum um_kind kind, uint8_t level,
	bool quiet, void *block, bool *out_moved, const char **out_why);
/* A block at a fixed place. -EUCLEAN. */
int um_load_fixed(
	struct um_check *c, struct um_ptr at, enum um_kind kind, void *block, const char **out_why);

/* ---- trees (walk.c) ------------------------------------------------------------------------------------- */

enum um_verdict { UM_KEEP, UM_CHANGED, UM_DROP };

struct um_walk {
	struct um_check *c;
	enum um_kind kind;
	um_ino_t ino; /* owner of the tree; 0: the pool */
	bool count;   /* the walk that counts references and reports; others are quiet */
	bool share;   /* nodes may have several parents */
	/* Checks a record, may change val (never making it longer) or have it dropped. */
	enum um_verdict (*record)(struct um_walk *w, uint64_t key, uint8_t *val, uint16_t *len);
	void *arg;
	/* Extents so far. */
	uint64_t blocks, extents, end;
	uint64_t written; /* end of the last written one */
	/* Keys seen in this subtree, for sums. */
	uint64_t first, last;
	bool any;
};
/* Begins a walk that does not count: nodes may be visited once more. */
void um_walk_again(struct um_check *c);
/* Walks a tree; embed: the embedded body, changed in place. KEEP or CHANGED (*root). */
enum um_verdict um_walk_tree(struct um_walk *w, struct um_root *root, uint8_t *embed);
const char *um_kind_name(enum um_kind kind);

/* ---- salvage (salvage.c) ------------------------------------------------------------------------------------ */

/* Finds a valid node of this kind and level that begins in the range and to which nothing has led:
 * then only the pointer was damaged. */
bool um_salvage_same(struct um_check *c, enum um_kind kind, uint8_t level, uint64_t lo, uint64_t hi,
	struct um_ptr *out);
/* Rebuilds a lost interior node of a tree of the pool from the valid nodes below it. */
bool um_salvage_node(struct um_check *c, enum um_kind kind, struct um_ptr at, uint8_t level,
	uint64_t lo, uint64_t hi, void *block);
/* Finds the root of one of the pool's trees. */
bool um_salvage_root(struct um_check *c, enum um_kind kind, struct um_root *out);

/* ---- what is in the trees ------------------------------------------------------------------------------------- */

/* Checks superblock fields that the format fixes; they are corrected in pool->super, and written by
 * the pass. */
void um_check_super_fields(struct um_check *c);
void um_check_supers(struct um_check *c);    /* super.c */
void um_check_root_load(struct um_check *c); /* super.c */
void um_check_root_store(struct um_check *c);
void um_check_inodes(struct um_check *c); /* inode.c: records, extents, xattrs; fills c->ino */
enum um_verdict um_check_xattrs(
	struct um_check *c, um_ino_t ino, struct um_root *root, uint8_t *embed, uint64_t link_len);
/* Checks beyond the end of a regular file, whose extents were walked (tail.c). */
void um_check_tail(struct um_check *c, um_ino_t ino, const struct um_inode_core *core,
	const uint8_t *embed, uint64_t written_end);
int um_trim_all(struct um_check *c, struct um_log *log);
enum um_verdict um_check_dirent(struct um_walk *w, uint64_t key, uint8_t *val,
	uint16_t *len); /* dir.c: an entry in itself */
/* Names of the present hash in a directory, to detect duplicates. */
struct um_dir_names {
	uint64_t hash;
	unsigned n;
	uint8_t len[16];
	char name[16][256];
};
void um_check_entries(struct um_check *c);      /* dir.c: where entries lead */
void um_check_orphans_load(struct um_check *c); /* link.c */
void um_check_links(struct um_check *c);        /* link.c: connectivity, orphans, link counts */
void um_check_csums(struct um_check *c);        /* csum.c */
void um_check_parity(struct um_check *c);       /* parity.c */
void um_check_bads(struct um_check *c);         /* bad.c: records of bad blocks, events */
void um_check_attach(struct um_pool *pool);     /* bad.c: as um_bad_attach; never fails */
void um_check_space(struct um_check *c);        /* space.c; what is retired goes into c->root */
/* After a repairing pass, with transactions: root directory, lost+found and what goes there. */
int um_relink(struct um_check *c); /* relink.c */
/* umbra_check of an open pool (check.c); also for the crash tests. */
int um_check_pool(struct um_pool *pool, enum umbra_check_mode mode, umbra_check_fn *fn, void *arg,
	struct umbra_check_report *out);
/* Before the pool can be opened at all (restore.c). -ENOENT: no backup is good either. */
int um_restore_super(const char *path);
int um_restore_super_image(void *base, uint64_t size);

#endif
