/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sizes: truncate up, down and to zero, and freeing whole forks in bounded steps.
 *
 * Growing changes the size only, since what lies beyond the end reads as zeros (fs/data.h).
 * Shrinking sets the size, zeroes the rest of the last block and drops what fits one step in one
 * transaction; the rest is named by an orphan record until it is gone. From then on the inode's
 * `blocks` does not count what lies at or beyond that record's first block.
 */
#include <errno.h>
#include <string.h>

#include "fs/failure.h"
#include "fs/orphan.h"
#include "fs/shadows.h"
#include "pool/seeded.h"

#define DROP_STEPS 16u         /* leaves per transaction */
#define DROP_BYTES (32u << 10) /* and the record size it should not exceed */

/* ---- dropping --------------------------------------------------------------------------------------- */

/* Several steps of the tree at once, as long as they stay cheap. */
static int drop_some(struct um_txn *txn, struct um_tree *tree, uint64_t first, bool *done)
{
	int err = 0;

	*done = false;
	for (unsigned i = 0; !err && !*done && i < DROP_STEPS; i++) {
		if (i && um_txn_bytes(txn) > DROP_BYTES)
			break;
		err = um_tree_drop_step(txn, tree, first, done);
	}
	return err;
}

int um_fork_drop_step(struct um_txn *txn, struct um_inode *inode, enum um_fork fork, bool *done)
{
	struct um_tree tree;
	int err;

	um_inode_tree(inode, fork, &tree);
	err = drop_some(txn, &tree, 0, done);
	if (err)
		return err;
	um_inode_set_tree(inode, fork, &tree);
	return um_inode_store(txn, inode);
}

int um_data_drop_step(struct um_txn *txn, struct um_inode *inode, uint64_t first_block, bool *done)
{
	struct um_tree tree;
	int err;

	um_inode_tree(inode, UM_FORK_DATA, &tree);
	err = drop_some(txn, &tree, first_block, done);
	if (err)
		return err;
	um_inode_set_tree(inode, UM_FORK_DATA, &tree);
	if (!first_block)
		inode->core.blocks = 0;
	return um_inode_store(txn, inode);
}

/* Can the fork be dropped in one small step? */
static int shed_is_small(struct um_src src, const struct um_root *root, bool *out_small)
{
	uint32_t count, run;
	int err;

	*out_small = root->format != UM_ROOT_NODE || !root->level;
	if (*out_small)
		return 0;
	err = um_ref_count(src, root->ptr.lba, 1, &count, &run);
	*out_small = !err && count > 1;
	return err;
}

int um_data_shed(struct um_txn *txn, struct um_inode *inode, um_ino_t *out_heir)
{
	struct um_inode heir;
	struct um_tree tree;
	bool small, done;
	int err = shed_is_small(um_txn_src(txn), &inode->core.data, &small);

	*out_heir = 0;
	if (!err && small) {
		um_inode_tree(inode, UM_FORK_DATA, &tree);
		err = drop_some(txn, &tree, 0, &done);
		if (!err && !done)
			err = -EUCLEAN; /* one leaf is one step */
	} else if (!err) {
		err = um_inode_new(txn, S_IFREG | 0600, &heir);
		if (err)
			return err;
		heir.core.data = inode->core.data;
		heir.core.blocks = inode->core.blocks;
		err = um_inode_store(txn, &heir);
		if (!err)
			err = um_orphan_add(txn, heir.ino, UM_ORPHAN_UNLINKED, 0);
		*out_heir = heir.ino;
	}
	if (err)
		return err;
	inode->core.data = (struct um_root){0};
	inode->core.blocks = 0;
	return 0;
}

/* Continues a truncation whose first transaction was made, until nothing is left. */
static int drop_rest(struct umbra_fs *fs, um_ino_t ino, uint64_t first)
{
	struct um_inode inode;
	struct um_txn *txn;
	bool done = false;
	int err = 0;

	while (!err && !done) {
		err = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);
		if (err)
			break;
		err = um_inode_load(um_txn_src(txn), ino, &inode);
		if (!err)
			err = um_data_drop_step(txn, &inode, first, &done);
		if (!err && done)
			err = um_orphan_del(txn, ino);
		err = um_txn_end(txn, err);
	}
	return err;
}

/* The first block of the file's unfinished truncation, or UINT64_MAX. */
static uint64_t unfinished(struct umbra_fs *fs, um_ino_t ino)
{
	uint64_t first = UINT64_MAX;
	struct um_inode inode;
	struct um_orphan rec;

	um_log_read_lock(fs->log);
	if (!um_orphan_get(um_fs_src(fs), ino, &rec)) {
		if (rec.what == UM_ORPHAN_TRUNCATE)
			first = rec.arg;
		else if (rec.what == UM_ORPHAN_TMPFILE)
			first = rec.arg - 1; /* 0: none */
	}
	if (first != UINT64_MAX && (um_inode_load(um_fs_src(fs), ino, &inode) ||
					   first < um_blocks_of(inode.core.size)))
		first = UINT64_MAX; /* not one of ours */
	um_log_read_unlock(fs->log);
	return first;
}

int um_data_settle(struct umbra_fs *fs, um_ino_t ino)
{
	uint64_t first = unfinished(fs, ino);
	int err;

	if (first == UINT64_MAX)
		return 0;
	err = drop_rest(fs, ino, first);
	return err ? err : 1;
}

int um_data_resume_truncate(struct umbra_fs *fs, um_ino_t ino, uint64_t first_block)
{
	struct um_inode inode;
	struct um_mem *mem;
	int err = um_mem_get(fs, ino, &mem);

	if (err)
		return err;
	pthread_rwlock_wrlock(&mem->lock);
	err = um_inode_read(fs, ino, &inode);
	if (!err)
		err = um_data_regular(&inode);
	/* A record that would drop data of the file is not one of ours. */
	if (!err && first_block < um_blocks_of(inode.core.size)) {
		um_log_line(UMBRA_LOG_ERROR,
			"inode %llu: truncation record inside of the file, ignored",
			(unsigned long long)ino);
		err = -EUCLEAN;
	}
	if (!err)
		err = drop_rest(fs, ino, first_block);
	pthread_rwlock_unlock(&mem->lock);
	um_mem_put(fs, mem);
	return err;
}

/* ---- truncate ------------------------------------------------------------------------------------- */

struct shrink {
	um_ino_t ino;
	uint64_t size;
	bool killpriv;
	uint64_t first;     /* first block that goes, with everything after it */
	uint64_t counted;   /* blocks mapped from there on */
	uint32_t tail;      /* bytes that stay of the block before, if its rest must be zeroed */
	struct um_run last; /* that block */
	uint32_t csum;      /* of its successor */
	struct um_pieces fresh; /* its successor, if it is shared */
};

/* Is the rest of the last block already zero? */
static bool tail_clean(const struct um_pool *pool, const struct shrink *s)
{
	const uint8_t *block = um_pool_ptr(pool, s->last.lba);

	return !memcmp(block + s->tail, um_data_zeros(), UM_BLOCK_SIZE - s->tail);
}

/* Plans the change of the last block: as a reader. */
static int plan_tail(struct umbra_fs *fs, const struct um_tree *tree, struct shrink *s)
{
	unsigned n;
	int err;

	s->tail = s->size & (UM_BLOCK_SIZE - 1);
	if (!s->tail)
		return 0;
	um_log_read_lock(fs->log);
	err = um_runs_get(um_fs_src(fs), tree, s->first - 1, 1, UM_RUNS_REFS, &s->last, 1, &n);
	um_log_read_unlock(fs->log);
	if (err)
		return err;
	/* With parity it is rebuilt, or lost, from here on. */
	if (um_run_data(&s->last) && um_has_parity(fs->pool) &&
		(s->last.lost || um_data_verify(fs, s->last.lba, 1, NULL))) {
		um_failure_cure(fs, s->last.lba);
		s->last.lost = um_pool_lost(fs->pool, s->last.lba, 1);
	}
	/* A page that cannot be read does not expose old bytes either. */
	if (!um_run_data(&s->last) || s->last.lost || tail_clean(fs->pool, s))
		s->tail = 0;
	return um_guard_check();
}

/*
 * A shared last block gets a successor of its own. So does any on an indirect pool: zeros stored in
 * place could outlive the transaction that makes the file end before them. A bad one gets a bad
 * successor.
 */
static int copy_tail(struct umbra_fs *fs, struct um_mem *mem, struct shrink *s)
{
	const struct um_wish wish = {.block = s->first - 1, .n = 1, .flags = UM_SPACE_RESERVE};
	uint8_t block[UM_BLOCK_SIZE] = {0};
	bool shared = s->last.refs > 1, bad;
	uint64_t got;
	int err;

	if (!s->tail || (!shared && fs->pool->direct))
		return 0;
	err = um_pieces_take(fs, mem, &wish, &s->fresh, &got);
	if (err == -ENOSPC && !shared) {
		/* A full pool must let files shrink. Where nothing may change in place, the block
		 * is left as it is. */
		if (um_data_moves(fs->pool))
			s->tail = 0;
		return 0;
	}
	if (err)
		return err;
	bad = um_data_verify(fs, s->last.lba, 1, NULL);
	memcpy(block, um_pool_ptr(fs->pool, s->last.lba), s->tail);
	err = um_guard_check();
	um_data_sums(fs->pool, block, 1, &s->csum);
	if (bad)
		s->csum = ~s->csum;
	return err ? err : um_pool_write(fs->pool, s->fresh.v[0].lba, 0, block, sizeof(block));
}

static int apply_tail(struct um_txn *txn, struct um_tree *tree, struct shrink *s, uint64_t *gone)
{
	int err;

	if (!s->tail)
		return 0;
	if (!s->fresh.n)
		return um_data_put(
			txn, s->last.lba, s->tail, um_data_zeros(), UM_BLOCK_SIZE - s->tail, true);
	err = um_pieces_count(txn, &s->fresh);
	if (!err)
		err = um_extents_punch(txn, tree, s->first - 1, 1, gone);
	if (!err)
		err = um_pieces_add(txn, tree, &s->fresh, false);
	return err ? err : um_data_counts(txn, s->fresh.v[0].lba, 1, &s->csum);
}

/* Stores zeros beyond the end together with the block's checksum: in place or, where that is not
 * allowed, in a new block. */
static int replace_tail(struct umbra_fs *fs, struct um_mem *mem, struct shrink *s)
{
	struct um_inode inode;
	struct um_tree tree;
	struct um_txn *txn;
	uint64_t gone = 0;
	int err = copy_tail(fs, mem, s);

	if (!err && !s->fresh.n && um_data_moves(fs->pool))
		err = -ENOSPC;
	if (!err)
		err = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);
	if (!err) {
		err = um_inode_load(um_txn_src(txn), s->ino, &inode);
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		if (!err)
			err = apply_tail(txn, &tree, s, &gone);
		um_inode_set_tree(&inode, UM_FORK_DATA, &tree);
		inode.core.blocks += s->fresh.n - gone;
		err = um_txn_end(txn, err ? err : um_inode_store(txn, &inode));
	}
	um_pieces_give(fs, &s->fresh);
	return err;
}

int um_data_clear_tail(struct umbra_fs *fs, struct um_mem *mem)
{
	struct shrink s = {.ino = mem->ino};
	struct um_inode inode;
	struct um_tree tree;
	uint32_t tail;
	int err;

	if (!fs->loose_tails || um_seeded_bug(22))
		return 0;
	err = um_inode_read(fs, mem->ino, &inode);
	if (err)
		return err;
	s.size = inode.core.size;
	s.first = um_blocks_of(s.size);
	tail = s.size & (UM_BLOCK_SIZE - 1);
	um_inode_tree(&inode, UM_FORK_DATA, &tree);
	err = plan_tail(fs, &tree, &s);
	/* Zeros that nothing depended on before (um_data_front()) are content now. */
	if (!err && tail && !s.tail && um_run_data(&s.last) && !s.last.lost)
		um_pool_vouch(fs->pool, s.last.lba, tail, UM_BLOCK_SIZE - tail);
	if (err || !s.tail)
		return err;
	if (um_has_csum(fs->pool) || um_has_parity(fs->pool))
		return replace_tail(fs, mem, &s);
	return um_pool_zero(fs->pool, s.last.lba, s.tail, UM_BLOCK_SIZE - s.tail);
}

/* Splits the record that holds the new end: the tree's drop steps would leave it alone. */
static int cut_straddler(struct um_txn *txn, struct um_tree *tree, uint64_t first)
{
	uint64_t left = UM_FILE_BLOCKS - first, cut = 0;
	struct um_run run = {0};
	unsigned n;
	int err;

	if (!left)
		return 0;
	if (left > UM_CHUNK_BLOCKS)
		left = UM_CHUNK_BLOCKS;
	err = um_runs_get(um_txn_src(txn), tree, first, left, 0, &run, 1, &n);
	if (err || !run.lba)
		return err;
	/* One that begins exactly there goes as well: the same result, sooner. */
	return um_extents_punch(txn, tree, first, run.len, &cut);
}

static int shrink_tree(
	struct um_txn *txn, struct um_inode *inode, struct shrink *s, um_ino_t *heir, bool *done)
{
	struct um_tree tree;
	uint64_t gone = 0;
	int err;

	*done = true;
	if (!s->first)
		return um_data_shed(txn, inode, heir);
	um_inode_tree(inode, UM_FORK_DATA, &tree);
	err = apply_tail(txn, &tree, s, &gone);
	if (!err)
		err = cut_straddler(txn, &tree, s->first);
	if (!err)
		err = drop_some(txn, &tree, s->first, done);
	if (err)
		return err;
	um_inode_set_tree(inode, UM_FORK_DATA, &tree);
	inode->core.blocks += s->fresh.n;
	inode->core.blocks -= gone + s->counted;
	return *done ? 0 : um_orphan_add(txn, inode->ino, UM_ORPHAN_TRUNCATE, s->first);
}

static void shrink_inline(struct um_inode *inode, uint64_t size)
{
	struct um_root *root = &inode->core.data;

	if (size < root->len)
		root->len = (um_le16_t)size;
	if (!root->len)
		*root = (struct um_root){0};
}

static int set_size_txn(struct umbra_fs *fs, struct shrink *s, bool *done)
{
	struct um_inode inode;
	struct um_txn *txn;
	um_ino_t heir = 0;
	bool down;
	int err = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	*done = true;
	if (err)
		return err;
	err = um_inode_load(um_txn_src(txn), s->ino, &inode);
	if (!err) {
		down = s->size <= inode.core.size;
		inode.core.size = s->size;
		if (down && inode.core.data.format == UM_ROOT_INLINE)
			shrink_inline(&inode, s->size);
		else if (down && inode.core.data.format != UM_ROOT_EMPTY)
			err = shrink_tree(txn, &inode, s, &heir, done);
	}
	if (!err) {
		um_inode_touch(&inode, UM_TOUCH_M | UM_TOUCH_C);
		if (s->killpriv)
			err = um_inode_killpriv(txn, &inode);
	}
	if (err >= 0)
		err = um_inode_store(txn, &inode);
	err = um_txn_end(txn, err);
	if (!err && heir)
		um_reaper_kick(fs, heir);
	return err;
}

static int set_size_once(struct umbra_fs *fs, struct um_mem *mem, uint64_t size, bool killpriv)
{
	struct shrink s = {.ino = mem->ino, .size = size, .killpriv = killpriv};
	struct um_inode inode;
	struct um_tree tree;
	bool done = true;
	int err = um_inode_read(fs, mem->ino, &inode);

	if (!err)
		err = um_data_regular(&inode);
	if (err)
		return err;
	s.first = um_blocks_of(size);
	um_inode_tree(&inode, UM_FORK_DATA, &tree);
	if (size <= inode.core.size && s.first && tree.root.format != UM_ROOT_EMPTY) {
		err = plan_tail(fs, &tree, &s);
		if (!err)
			err = copy_tail(fs, mem, &s);
		if (!err)
			err = um_extents_count(fs, &tree, s.first, UINT64_MAX, &s.counted);
	}
	if (!err && size > inode.core.size)
		err = um_data_clear_tail(fs, mem);
	if (!err)
		err = set_size_txn(fs, &s, &done);
	if (!err && size < inode.core.size)
		um_shadows_toss(fs, mem->ino, size >> UM_BLOCK_SHIFT, UINT64_MAX);
	um_pieces_give(fs, &s.fresh);
	return err || done ? err : drop_rest(fs, mem->ino, s.first);
}

int um_data_set_size(struct umbra_fs *fs, struct um_mem *mem, uint64_t size, bool killpriv)
{
	int err = um_data_may_change(fs);

	if (!err && size > UMBRA_SIZE_MAX)
		err = -EFBIG;
	if (!err)
		err = um_data_settle(fs, mem->ino);
	if (err >= 0)
		err = set_size_once(fs, mem, size, killpriv);
	if (err != -EMLINK)
		return err;
	err = um_data_unshare(fs, mem);
	return err ? err : set_size_once(fs, mem, size, killpriv);
}

int um_data_resize(struct umbra_fs *fs, um_ino_t ino, uint64_t size, bool killpriv)
{
	struct um_mem *mem;
	int err = um_mem_get(fs, ino, &mem);

	if (err)
		return err;
	pthread_rwlock_wrlock(&mem->lock);
	err = um_data_set_size(fs, mem, size, killpriv);
	pthread_rwlock_unlock(&mem->lock);
	um_mem_put(fs, mem);
	return err;
}
