/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File data: shared by the files that map, read, write, resize and share it.
 *
 * A file's data fork is empty, inline (the file's first bytes, raw, in the inode record; the rest
 * is a hole), or an extent tree; um_inode_tree() returns inline data as an empty tree. Blocks whose
 * file offset is at or beyond the end of the file are unwritten, and bytes between the end of the
 * file and the end of its last block are zero in the pool. So a file can grow, and a clone of
 * another size can share a block, without examining old content.
 *
 * Whoever makes a file's blocks shared (a clone's source and destination) holds its mem->lock
 * exclusively. So a holder of the lock, shared or exclusive, who found blocks unshared may rely on
 * it; blocks found shared may become unshared at any time, which only costs a needless copy.
 */
#ifndef UM_FS_DATA_H
#define UM_FS_DATA_H

#include "fs/fs.h"

#define UM_FILE_BLOCKS (1ull << 51) /* a file has fewer blocks than this */
#define UM_SEGMENT_SIZE (1u << 20)  /* a write is split into pieces of this, each a transaction */
#define UM_SEGMENT_BLOCKS 257u      /* an unaligned segment touches one more */
#define UM_JOURNALED_BLOCKS 32u     /* file data through the journal in one transaction: 128 KiB */
#define UM_STEP_RUNS 64u            /* extents changed per transaction of a long operation */
#define UM_ENOSPC_WAIT_MSEC 10000u /* for removed files' space, before a write fails with -ENOSPC */

/* ---- extents (extent.c) ---------------------------------------------------------------------------- */

/* A uniform piece of a file's block range. */
struct um_run {
	uint64_t block; /* in the file */
	uint64_t len;   /* blocks, above 0 */
	um_lba_t lba;   /* 0: a hole */
	uint32_t refs;  /* with UM_RUNS_REFS: a lower bound of the owners of the blocks; else 0 */
	bool unwritten;
	bool lost; /* with UM_RUNS_REFS: the blocks can neither be read nor written in place */
};
static inline bool um_run_data(const struct um_run *run)
{
	return run->lba && !run->unwritten;
}

#define UM_RUNS_REFS 1u /* return owners; runs are split where their number changes */
/* The owners there are now, without those that a power cut would bring back: to be shown, not to decide by. */
#define UM_RUNS_NOW 2u
/*
 * The mapping of file blocks [first, first + n): up to `max` runs, without gaps, ascending from
 * `first`. They cover the whole range unless there are more: then continue after the last one. The
 * rules of um_src apply.
 */
int um_runs_get(struct um_src src, const struct um_tree *tree, uint64_t first, uint64_t n,
	unsigned flags, struct um_run *runs, unsigned max, unsigned *out_n);
/* Number of blocks mapped in [first, end), of a file whose lock is held. Takes the read lock for
 * bounded pieces of the walk. */
int um_extents_count(struct umbra_fs *fs, const struct um_tree *tree, uint64_t first, uint64_t end,
	uint64_t *out_blocks);
/* The whole record that covers a block; -ENOENT: a hole. */
int um_extent_at(struct um_src src, const struct um_tree *tree, uint64_t block, struct um_run *out);
/* Splits a record that has blocks on both sides of file block `at`. */
int um_extents_cut_at(struct um_txn *txn, struct um_tree *tree, uint64_t at);

/* Makes [first, first + n) a hole and drops the references; adds their number to *blocks. */
int um_extents_punch(
	struct um_txn *txn, struct um_tree *tree, uint64_t first, uint64_t n, uint64_t *blocks);
/* Puts blocks into a hole, merging with neighbours; the caller has counted the reference. len is at
 * most UM_CHUNK_BLOCKS, the blocks are in one chunk. */
int um_extents_add(struct um_txn *txn, struct um_tree *tree, uint64_t first, uint32_t len,
	um_lba_t lba, bool unwritten);
/* Marks everything mapped in [first, first + n), which must not be shared, as written or
 * unwritten. */
int um_extents_mark(
	struct um_txn *txn, struct um_tree *tree, uint64_t first, uint64_t n, bool unwritten);

/* ---- blocks for a file (alloc.c) -------------------------------------------------------------------- */

/* Blocks taken for file offsets, before and in the transaction that points at them. */
struct um_piece {
	uint64_t block;
	um_lba_t lba;
	uint32_t len;
};
struct um_pieces {
	unsigned n;
	unsigned counted; /* the first of v, for which the transaction is now responsible */
	struct um_piece v[UM_SEGMENT_BLOCKS];
};
/* After a clone, blocks of a file that is overwritten at random keep their relative order within a
 * window of this many blocks, whatever the order of the writes. */
#define UM_COW_WINDOW 32u
/* An allocation request. */
struct um_wish {
	uint64_t block, n; /* file blocks [block, block + n) */
	um_lba_t goal;     /* preferred place; else where the file's last allocation ended */
	uint32_t room;     /* of a growing file: room to leave for itself if it has to move */
	uint32_t place; /* of a copy: position in its UM_COW_WINDOW blocks, plus 1; 0: no window */
	unsigned flags; /* UM_SPACE_* */
};
/* Takes blocks in as few pieces as free space allows. *out_got < n if the room in `pieces` or the
 * space runs out; -ENOSPC if nothing was taken. mem->lock is held exclusively. */
int um_pieces_take(struct umbra_fs *fs, struct um_mem *mem, const struct um_wish *wish,
	struct um_pieces *pieces, uint64_t *out_got);
/* Allocates them all in the transaction, which gives them back if it does not commit. */
int um_pieces_count(struct um_txn *txn, struct um_pieces *pieces);
/* Puts them all into the tree's holes. */
int um_pieces_add(
	struct um_txn *txn, struct um_tree *tree, const struct um_pieces *pieces, bool unwritten);
/* Gives back those for the file's blocks from `block` on, for which no transaction is responsible
 * yet. */
void um_pieces_cut(struct umbra_fs *fs, struct um_pieces *pieces, uint64_t block);
/* Gives back everything for which no transaction is responsible: to be called at the end in any
 * case. */
void um_pieces_give(struct umbra_fs *fs, struct um_pieces *pieces);

/* ---- checksums and parity (csum.c); nothing to do in a pool without ------------------------------------------- */

/* Checksums of nblocks of new content. */
void um_data_sums(const struct um_pool *pool, const void *src, uint64_t nblocks, uint32_t *out);
/* In the transaction that makes n new or unwritten blocks data: sets their checksums and puts them
 * under parity. */
int um_data_counts(struct um_txn *txn, um_lba_t lba, uint32_t n, const uint32_t *value);
/* Verifies old content before it is copied to new blocks; not in a transaction. -EIO. */
int um_data_verify(struct umbra_fs *fs, um_lba_t lba, uint64_t n, um_lba_t *out_bad);
/* um_txn_data, including the checksums. If a bad block changes in part: -EIO; with keep_bad it
 * stays bad. */
int um_data_put(
	struct um_txn *txn, um_lba_t lba, uint32_t off, const void *src, size_t len, bool keep_bad);
/* In a pool whose checksums or parity must never disagree with data in place, but whose journal has
 * no data, a written block is never overwritten: its new content goes to a new block. */
static inline bool um_data_moves(const struct um_pool *pool)
{
	return !pool->direct && (um_has_csum(pool) || um_has_parity(pool));
}

/* ---- for all (data.c) ------------------------------------------------------------------------------ */

/*
 * For a block that is written whole: the number of bytes that are content of the file, `end` being
 * its end. On plain files what follows may be anything after a power cut, so that the next append,
 * to the same block, changes nothing that a commit depends on. With checksums and parity it is
 * included in what they cover.
 */
static inline size_t um_data_front(const struct um_pool *pool, uint64_t block, uint64_t end)
{
	uint64_t start = block << UM_BLOCK_SHIFT;

	if (um_has_csum(pool) || um_has_parity(pool) || end >= start + UM_BLOCK_SIZE)
		return UM_BLOCK_SIZE;
	return end > start ? (size_t)(end - start) : 0;
}
/* 0 if changes are allowed: not stopped, not read-only. */
int um_data_may_change(const struct umbra_fs *fs);
/* 0 for a regular file; -EISDIR, -EINVAL. */
int um_data_regular(const struct um_inode *inode);
/* Also: not immutable, not append-only (-EPERM). */
int um_data_may_remap(const struct um_inode *inode);
/* Pins both inodes and locks them exclusively, lower number first. They may be the same. */
int um_data_lock_two(
	struct umbra_fs *fs, um_ino_t a, um_ino_t b, struct um_mem **out_a, struct um_mem **out_b);
void um_data_unlock_two(struct umbra_fs *fs, struct um_mem *a, struct um_mem *b);
/* UM_CHUNK_SIZE bytes of zeros. */
const void *um_data_zeros(void);
static inline uint64_t um_blocks_of(uint64_t bytes)
{
	return (bytes >> UM_BLOCK_SHIFT) + !!(bytes & (UM_BLOCK_SIZE - 1));
}

/* ---- what operations are made of; mem->lock is held alone ---------------------------------------------- */

/* write.c: as umbra_write at an offset. */
ssize_t um_data_write(struct umbra_fs *fs, struct um_mem *mem, const void *buf, size_t len,
	uint64_t off, unsigned flags);
/* uninline.c: moves inline data into a block. */
int um_data_uninline(struct umbra_fs *fs, struct um_mem *mem);
/*
 * resize.c: to be called before a file grows other than by an append at its end. On an indirect
 * pool a write there whose transaction was lost in a crash may have left bytes in the last block:
 * they are zeroed.
 */
int um_data_clear_tail(struct umbra_fs *fs, struct um_mem *mem);
/* resize.c: completes a truncation that failed half-way, before the file grows or is cloned: what
 * remains of it beyond the end must not be seen, nor counted, again. 1 if the mapping changed. */
int um_data_settle(struct umbra_fs *fs, um_ino_t ino);
/* resize.c: as um_data_resize. */
int um_data_set_size(struct umbra_fs *fs, struct um_mem *mem, uint64_t size, bool killpriv);
/*
 * resize.c: takes all blocks off the inode (its fork is empty then, and the caller stores it) in
 * constant time: what cannot be dropped in one step moves to a nameless inode on the orphan list,
 * whose number is *out_heir (else 0) for um_reaper_kick after the commit.
 */
int um_data_shed(struct um_txn *txn, struct um_inode *inode, um_ino_t *out_heir);
/* fallocate.c: punches a hole: edges are zeroed, whole blocks dropped; times change. */
int um_data_punch(struct umbra_fs *fs, struct um_mem *mem, uint64_t off, uint64_t len);

/*
 * unshare.c: after -EMLINK from a change of a shared tree, whose nodes or blocks are at their owner
 * limit: gives the file a tree of its own, with copies of those blocks. Takes time proportional to
 * the file's extents; happens at four billion owners.
 */
int um_data_unshare(struct umbra_fs *fs, struct um_mem *mem);

/* clone.c: sharing blocks between two files. Both are locked. */
struct um_remap {
	struct umbra_fs *fs;
	struct um_mem *src, *dst;
	uint64_t src_block, dst_block, blocks;
	uint64_t dst_size;       /* the destination ends at least there afterwards; 0: no change */
	bool same_content;       /* dedupe: no times, and a block that cannot be shared stays */
	bool one_by_one;         /* extent by extent: nodes are not shared */
	bool (*stop)(void *arg); /* polled before each step; NULL: never */
	void *stop_arg;
};
/* Replaces dst's blocks by those of src; where src has none, or unwritten ones, dst gets either.
 * -EINTR: stopped. */
int um_data_remap(const struct um_remap *remap);
/* range.c: the same by whole nodes, if the ranges allow it; else *out_done is false. */
int um_data_graft(const struct um_remap *remap, bool *out_done);
/* In a transaction: dst, which has no data, gets that of src, which does not change. -EMLINK. */
int um_data_share_fork(struct um_txn *txn, const struct um_inode *src, struct um_inode *dst);
/* Replaces dst's whole content by src's root; constant time. -EMLINK: owner limit. */
int um_data_share_root(struct umbra_fs *fs, um_ino_t src, um_ino_t dst, bool same_content);
/* The kernel's rules for FICLONERANGE and FIDEDUPERANGE (generic_remap_file_range_prep), with its
 * errors. Shortens *len where a dedupe may; 0 then means that there is nothing to do. */
int um_data_remap_check(const struct um_inode *src, uint64_t src_off, uint64_t *len,
	const struct um_inode *dst, uint64_t dst_off, bool dedupe);

#endif
