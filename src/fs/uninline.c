/* SPDX-License-Identifier: BSD-3-Clause */
/* Moves the data of a file from its inode record to a block. */
#include <errno.h>
#include <string.h>

#include "fs/data.h"

static int uninline_txn(
	struct umbra_fs *fs, um_ino_t ino, struct um_pieces *pieces, const uint32_t *csum)
{
	struct um_inode inode;
	struct um_tree tree;
	struct um_txn *txn;
	int err = um_txn_begin(fs->log, 0, &txn);

	if (err)
		return err;
	err = um_pieces_count(txn, pieces);
	if (!err)
		err = um_inode_load(um_txn_src(txn), ino, &inode);
	if (!err) {
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		err = um_pieces_add(txn, &tree, pieces, false);
	}
	if (!err)
		err = um_data_counts(txn, pieces->v[0].lba, 1, csum);
	if (!err) {
		um_inode_set_tree(&inode, UM_FORK_DATA, &tree);
		inode.core.blocks = 1;
		err = um_inode_store(txn, &inode);
	}
	return um_txn_end(txn, err);
}

int um_data_uninline(struct umbra_fs *fs, struct um_mem *mem)
{
	const struct um_wish wish = {.n = 1};
	uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_pieces pieces;
	struct um_inode inode;
	uint32_t csum;
	uint64_t got;
	int err = um_inode_read(fs, mem->ino, &inode);

	if (err || inode.core.data.format != UM_ROOT_INLINE)
		return err;
	pieces.n = pieces.counted = 0;
	err = um_pieces_take(fs, mem, &wish, &pieces, &got);
	if (err)
		return err;
	memcpy(block, inode.data, inode.core.data.len);
	um_data_sums(fs->pool, block, 1, &csum);
	err = um_pool_write_front(fs->pool, pieces.v[0].lba, 0, block, sizeof(block),
		um_data_front(fs->pool, 0, inode.core.size));
	if (!err)
		err = uninline_txn(fs, mem->ino, &pieces, &csum);
	um_pieces_give(fs, &pieces);
	return err;
}
