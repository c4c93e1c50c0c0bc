/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File data: what the files that map, read, write, resize and share it have in common.
 *
 * A file's data fork is empty, inline (the file's first bytes, raw, in the inode record; what lies
 * behind them is a hole), or an extents tree; um_inode_tree() gives inline data as an empty tree. Blocks whose file offset lies at or behind the end of the file are unwritten, and bytes
 * between the end of the file and the end of its last block are zero on the pool, so that a file can
 * grow, and a clone of another size can share a block, without a look at old content.
 *
 * Whoever makes a file's blocks shared (a clone's source and destination) holds its mem->lock alone. So
 * a holder of the lock, shared or alone, who found blocks unshared may rely on it; blocks found shared
 * may become unshared at any time, which costs a needless copy and nothing else.
 */
#ifndef UM_FS_DATA_H
#define UM_FS_DATA_H

#include "fs/fs.h"

#define UM_FILE_BLOCKS (1ull << 51) /* a file has fewer blocks than this */
#define UM_SEGMENT_SIZE (1u << 20)  /* a write goes on in pieces of this, each a transaction */
#define UM_SEGMENT_BLOCKS 257u      /* an unaligned segment touches one more */
#define UM_JOURNALED_BLOCKS 32u     /* file data through the journal in one transaction: 128 KiB */
#define UM_STEP_RUNS 64u            /* extents changed in one transaction of a long operation */
#define UM_ENOSPC_WAIT_MSEC 10000u  /* for removed files' space, before a write says -ENOSPC */

/* ---- extents (extent.c) ---------------------------------------------------------------------------- */

/* A piece of a file's block range that is all one thing. */
struct um_run {
	uint64_t block; /* in the file */
	uint64_t len;   /* blocks, above 0 */
	um_lba_t lba;   /* 0: a hole */
	uint32_t refs;  /* with UM_RUNS_REFS: owners of the blocks, at least; else 0 */
	bool unwritten;
	bool lost; /* with UM_RUNS_REFS: the blocks cannot be read, nor written where they are */
};
static inline bool um_run_data(const struct um_run *run)
{
	return run->lba && !run->unwritten;
}

#define UM_RUNS_REFS 1u /* ask for owners; runs are split where their number changes */
/*
 * What file blocks [first, first + n) are: up to `max` runs, without gaps, ascending from `first`. They
 * cover the whole range unless there are more of them: go on behind the last. src rules as ever.
 */
int um_runs_get(struct um_src src, const struct um_tree *tree, uint64_t first, uint64_t n,
	unsigned flags, struct um_run *runs, unsigned max, unsigned *out_n);
/* How many blocks are mapped in [first, end), of a file whose lock is held. Takes the read lock for
 * bounded pieces of the walk. */
int um_extents_count(struct umbra_fs *fs, const struct um_tree *tree, uint64_t first, uint64_t end,
	uint64_t *out_blocks);
/* The whole record that covers a block; -ENOENT: a hole. */
int um_extent_at(struct um_src src, const struct um_tree *tree, uint64_t block, struct um_run *out);
/* Makes two of a record that has blocks on both sides of file block `at`. */
int um_extents_cut_at(struct um_txn *txn, struct um_tree *tree, uint64_t at);

/* Makes [first, first + n) a hole and drops the references; adds to *blocks how many went. */
int um_extents_punch(
	struct um_txn *txn, struct um_tree *tree, uint64_t first, uint64_t n, uint64_t *blocks);
/* Puts blocks into a hole, merging with neighbours; the caller has counted the reference. len up to
 * UM_CHUNK_BLOCKS, the blocks in one chunk. */
int um_extents_add(struct um_txn *txn, struct um_tree *tree, uint64_t first, uint32_t len,
	um_lba_t lba, bool unwritten);
/* Marks all that is mapped in [first, first + n), which must not be shared, as written or not. */
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
	unsigned counted; /* the first of v, which the transaction now answers for */
	struct um_piece v[UM_SEGMENT_BLOCKS];
};
/*
 * Blocks of a file that is overwritten here and there after a clone come to lie as in the file, as far as
 * a window of this many blocks goes, whatever the order of the writes.
 */
#define UM_COW_WINDOW 32u
/* What is asked for. */
struct um_wish {
	uint64_t block, n; /* file blocks [block, block + n) */
	um_lba_t goal;     /* there, else where the file's last allocation ended */
	uint32_t room;  /* of a growing file: blocks to keep clear of others when it has to move */
	uint32_t place; /* of a copy: where in UM_COW_WINDOW blocks, plus 1; 0: none of a window */
	unsigned flags; /* UM_SPACE_* */
};
/*
 * Takes blocks in as few pieces as free space allows. *out_got < n when the room in `pieces` or the space
 * ends; -ENOSPC when nothing was got. mem->lock is held alone.
 */
int um_pieces_take(struct umbra_fs *fs, struct um_mem *mem, const struct um_wish *wish,
	struct um_pieces *pieces, uint64_t *out_got);
/* Allocates them all in the transaction, which gives them back if it does not commit. */
int um_pieces_count(struct um_txn *txn, struct um_pieces *pieces);
/* Puts them all into the tree's holes. */
int um_pieces_add(
	struct um_txn *txn, struct um_tree *tree, const struct um_pieces *pieces, bool unwritten);
/* Gives back those for the file's blocks from `block` on, which no transaction answers for yet. */
void um_pieces_cut(struct umbra_fs *fs, struct um_pieces *pieces, uint64_t block);
/* Gives back what no transaction answers for: call it at the end in any case. */
void um_pieces_give(struct umbra_fs *fs, struct um_pieces *pieces);

/* ---- checksums and parity (csum.c); nothing to do in a pool without ------------------------------------------- */

/* Of nblocks of new content. */
void um_data_sums(const struct um_pool *pool, const void *src, uint64_t nblocks, uint32_t *out);
/* In the transaction from which on n new or unwritten blocks are data: their checksums; parity covers them. */
int um_data_counts(struct um_txn *txn, um_lba_t lba, uint32_t n, const uint32_t *value);
/* Before old content goes into new blocks; not in a transaction. -EIO. */
int um_data_verify(struct umbra_fs *fs, um_lba_t lba, uint64_t n, um_lba_t *out_bad);
/*
 * um_txn_data, with the checksums. A block that is bad already and changes in part: -EIO; with keep_bad it
 * stays bad.
 */
int um_data_put(
	struct um_txn *txn, um_lba_t lba, uint32_t off, const void *src, size_t len, bool keep_bad);
/*
 * In a pool that has what must never disagree with data in place, and no journal for data: a written block
 * is never overwritten, its new content goes to a new block.
 */
static inline bool um_data_moves(const struct um_pool *pool)
{
	return !pool->direct && (um_has_csum(pool) || um_has_parity(pool));
}

/* ---- for all (data.c) ------------------------------------------------------------------------------ */

/*
 * Of a block of a file that is written whole, how many bytes the file's content is then, `end` being its end. On plain files
 * what is behind may be anything after a power cut; so the next append, to the same block, changes nothing that a commit
 * rests on. With checksums and parity it is a part of what they cover.
 */
static inline size_t um_data_front(const struct um_pool *pool, uint64_t block, uint64_t end)
{
	uint64_t start = block << UM_BLOCK_SHIFT;

	if (um_has_csum(pool) || um_has_parity(pool) || end >= start + UM_BLOCK_SIZE)
		return UM_BLOCK_SIZE;
	return end > start ? (size_t)(end - start) : 0;
}
/* 0 when changes are allowed: not stopped, not read-only. */
int um_data_may_change(const struct umbra_fs *fs);
/* 0 for a regular file; -EISDIR, -EINVAL. */
int um_data_regular(const struct um_inode *inode);
/* Also: not immutable, not append-only (-EPERM). */
int um_data_may_remap(const struct um_inode *inode);
/* Pins both inodes and locks them alone, lower number first. The same twice is fine. */
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
 * resize.c: before a file grows by anything but bytes put right behind its end. On an indirect pool a write
 * there whose transaction was lost in a crash may have left bytes in the last block: they become zeros.
 */
int um_data_clear_tail(struct umbra_fs *fs, struct um_mem *mem);
/*
 * resize.c: goes on with a truncation that failed half-way, before the file grows or is cloned: what is left of
 * it behind the end must not be seen, nor counted, again. 1 when the mapping changed.
 */
int um_data_settle(struct umbra_fs *fs, um_ino_t ino);
/* resize.c: as um_data_resize. */
int um_data_set_size(struct umbra_fs *fs, struct um_mem *mem, uint64_t size, bool killpriv);
/*
 * resize.c: takes all blocks off the inode (its fork is empty then, the caller stores it) in constant
 * time: what cannot be dropped in one step moves to a nameless inode on the orphan list, whose number
 * is *out_heir (else 0) for um_reaper_kick after the commit.
 */
int um_data_shed(struct um_txn *txn, struct um_inode *inode, um_ino_t *out_heir);
/* fallocate.c: a hole of bytes: edges zeroed, whole blocks dropped; times change. */
int um_data_punch(struct umbra_fs *fs, struct um_mem *mem, uint64_t off, uint64_t len);

/*
 * unshare.c: after -EMLINK from a change of a shared tree, whose nodes or blocks cannot have one more
 * owner: gives the file a tree of its own, with copies of those blocks. Costs by the file's extents; happens
 * at four billion owners.
 */
int um_data_unshare(struct umbra_fs *fs, struct um_mem *mem);

/* clone.c: how blocks come to be in two files. Both are locked. */
struct um_remap {
	struct umbra_fs *fs;
	struct um_mem *src, *dst;
	uint64_t src_block, dst_block, blocks;
	uint64_t dst_size; /* the destination ends there at least when done; 0: as it is */
	bool same_content; /* dedupe: no times, and a block that cannot be shared stays as it is */
	bool one_by_one;   /* extent by extent: no node is shared */
	bool (*stop)(void *arg); /* asked before each step; NULL: never */
	void *stop_arg;
};
/* Makes dst's blocks those of src; where src has none, or unwritten ones, dst has one of the two. -EINTR:
 * stopped. */
int um_data_remap(const struct um_remap *remap);
/* range.c: the same by whole nodes, if the ranges lie so that it can be done; else *out_done is false. */
int um_data_graft(const struct um_remap *remap, bool *out_done);
/* In the transaction: dst, which has no data, gets src's, which does not change. -EMLINK. */
int um_data_share_fork(struct um_txn *txn, const struct um_inode *src, struct um_inode *dst);
/* dst's whole content becomes src's root; constant time. -EMLINK: no more owners possible. */
int um_data_share_root(struct umbra_fs *fs, um_ino_t src, um_ino_t dst, bool same_content);
/*
 * The kernel's rules for FICLONERANGE and FIDEDUPERANGE (generic_remap_file_range_prep), with its
 * errors. Shortens *len where a dedupe may; 0 then says that there is nothing to do.
 */
int um_data_remap_check(const struct um_inode *src, uint64_t src_off, uint64_t *len,
	const struct um_inode *dst, uint64_t dst_off, bool dedupe);

#endif
