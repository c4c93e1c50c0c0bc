/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks what lies beyond the end of a file: no written blocks, unless they are about to be
 * dropped, and zeros in the rest of the last one. A growing file would expose it. Transactions
 * repair it after the pass, when the counts are right: blocks may be shared with longer files.
 */
#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "heal/check_int.h"

/* ---- looking ----------------------------------------------------------------------------------------- */

/* Finds the record that covers key, or the child that leads to it. */
static bool body_find(const void *body, uint16_t cap, bool leaf, uint64_t key, unsigned *out)
{
	bool exact;

	if (um_body_safe(body, cap) || um_body_search(body, cap, key, out, &exact))
		return false;
	if (!exact && *out)
		--*out;
	else if (!exact && leaf)
		return false;
	return *out < um_body_nrec(body);
}

/* The written block at file block `at` of a tree that has been walked: the pass has reported what
 * is wrong with it. */
static um_lba_t find_block(
	struct um_check *c, const struct um_root *root, const uint8_t *embed, uint64_t at)
{
	const void *body = embed, *val;
	uint16_t cap = root->len, len;
	unsigned level = root->level, pos;
	struct um_ptr ptr = root->ptr;
	struct um_extent e;
	um_block_t block;
	const char *why;
	uint64_t key;
	bool moved;

	for (;; level--) {
		if (root->format == UM_ROOT_NODE) {
			if (um_load_node(c, &ptr, UM_KIND_EXTENTS, (uint8_t)level, true, block,
				    &moved, &why))
				return 0;
			body = um_body(block);
			cap = UM_NODE_BODY;
		} else {
			level = 0;
		}
		if (!body_find(body, cap, !level, at, &pos))
			return 0;
		um_body_slot(body, pos, &key, &val, &len);
		if (len != sizeof(struct um_extent))
			return 0;
		if (!level)
			break;
		memcpy(&ptr, val, sizeof(ptr));
	}
	memcpy(&e, val, sizeof(e));
	if (at < key || at - key >= e.len || e.addr & UM_EXTENT_UNWRITTEN)
		return 0;
	return (e.addr & UM_LBA_MASK) + (at - key);
}

/* Are the bytes of the last block beyond the end zero? */
static bool tail_clean(struct um_check *c, const struct um_inode_core *core, const uint8_t *embed)
{
	static const uint8_t zeros[UM_BLOCK_SIZE];
	unsigned tail = core->size % UM_BLOCK_SIZE;
	um_block_t block;
	um_lba_t lba;

	/* A pool may have bytes there from a write that a crash undid: they are cleared on
	 * growth. */
	if (!tail || c->root.loose_tails || core->data.format < UM_ROOT_EMBED)
		return true;
	lba = find_block(c, &core->data, embed, core->size >> UM_BLOCK_SHIFT);
	return !lba || !um_lba_usable(c, lba, 1) || !um_read_raw(c, lba, block) ||
	       !memcmp(block + tail, zeros, UM_BLOCK_SIZE - tail);
}

static void note_trim(struct um_check *c, um_ino_t ino, bool blocks)
{
	if (um_grow(c, &c->trim, c->ntrim, &c->captrim, sizeof(*c->trim)))
		c->trim[c->ntrim++] = (struct um_trim){.ino = ino, .blocks = blocks};
}

void um_check_tail(struct um_check *c, um_ino_t ino, const struct um_inode_core *core,
	const uint8_t *embed, uint64_t written_end)
{
	bool fix;

	/* A truncation that is not finished, or a removed file. */
	if (um_orphan_find(c, ino))
		return;
	if (written_end > um_blocks_of(core->size)) {
		fix = um_problem(c, "eof", UM_CURE_FULL,
			"inode %llu: written blocks up to %llu beyond its end at %llu",
			(unsigned long long)ino, (unsigned long long)written_end,
			(unsigned long long)um_blocks_of(core->size));
		if (fix)
			note_trim(c, ino, true);
	}
	if (tail_clean(c, core, embed))
		return;
	fix = um_problem(c, "eof", UM_CURE_FULL, "inode %llu: bytes beyond its end are not zero",
		(unsigned long long)ino);
	if (fix)
		note_trim(c, ino, false);
}

/* ---- repairing ----------------------------------------------------------------------------------------- */

/* Zeroes the last block, or a copy of it, beyond the end. */
static int zero_tail(struct um_txn *txn, struct um_tree *tree, uint64_t size)
{
	uint64_t at = size >> UM_BLOCK_SHIFT, gone = 0;
	unsigned tail = size % UM_BLOCK_SIZE, n;
	struct um_pool *pool = um_txn_pool(txn);
	uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_run run;
	um_lba_t lba;
	uint32_t got, csum;
	int err = um_runs_get(um_txn_src(txn), tree, at, 1, UM_RUNS_REFS, &run, 1, &n);

	if (err || !n || !um_run_data(&run))
		return err;
	if (run.refs <= 1 && !um_data_moves(pool))
		return um_data_put(txn, run.lba, tail, um_data_zeros(), UM_BLOCK_SIZE - tail, true);
	err = um_space_take(um_txn_space(txn), run.lba, 1, UM_SPACE_RESERVE, &lba, &got);
	if (err)
		return err;
	memcpy(block, um_pool_ptr(pool, run.lba), tail);
	err = um_guard_check();
	if (!err)
		err = um_pool_write(pool, lba, 0, block, sizeof(block));
	if (!err)
		err = um_ref_alloc(txn, lba, 1);
	if (err) {
		um_space_give(um_txn_space(txn), lba, 1);
		return err;
	}
	err = um_extents_punch(txn, tree, at, 1, &gone);
	if (!err)
		err = um_extents_add(txn, tree, at, 1, lba, false);
	um_data_sums(pool, block, 1, &csum);
	return err ? err : um_data_counts(txn, lba, 1, &csum);
}

static int trim_txn(struct um_txn *txn, const struct um_trim *trim, bool *done)
{
	struct um_inode inode;
	struct um_tree tree;
	uint64_t end;
	int err = um_inode_load(um_txn_src(txn), trim->ino, &inode);

	*done = true;
	if (err)
		return err == -ESTALE ? 0 : err; /* dropped by the pass */
	if (!S_ISREG(inode.core.mode) || inode.core.data.format < UM_ROOT_EMBED)
		return 0;
	end = um_blocks_of(inode.core.size);
	um_inode_tree(&inode, UM_FORK_DATA, &tree);
	if (trim->blocks) {
		err = um_extents_cut_at(txn, &tree, end);
		if (!err)
			err = um_tree_drop_step(txn, &tree, end, done);
	} else if (inode.core.size % UM_BLOCK_SIZE) {
		err = zero_tail(txn, &tree, inode.core.size);
	}
	if (err)
		return err;
	um_inode_set_tree(&inode, UM_FORK_DATA, &tree);
	return um_inode_store(txn, &inode); /* the next pass corrects its number of blocks */
}

int um_trim_all(struct um_check *c, struct um_log *log)
{
	int err = 0;

	for (size_t i = 0; i < c->ntrim && !err; i++) {
		bool done = false;

		while (!err && !done) {
			struct um_txn *txn;

			err = um_txn_begin(log, UM_TXN_RESERVE, &txn);
			if (!err)
				err = um_txn_end(txn, trim_txn(txn, &c->trim[i], &done));
		}
	}
	return err;
}
