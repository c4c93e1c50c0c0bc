/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Counts at their limit. Changing a shared tree copies nodes, and each child of a copy gains an
 * owner; if one is at its limit, the change fails with -EMLINK. The file is then rebuilt: its
 * extents are cloned into a nameless inode, in which blocks at their limit are copied, and the two
 * exchange their trees.
 */
#include <errno.h>

#include "fs/shadows.h"

/* A nameless inode, on the orphan list, that nobody else can see: locked and pinned. */
static int helper_make(struct umbra_fs *fs, struct um_mem **out)
{
	struct um_inode inode;
	struct um_txn *txn;
	int err = um_txn_begin(fs->log, 0, &txn);

	if (err)
		return err;
	err = um_inode_new(txn, S_IFREG | 0600, &inode);
	if (!err)
		err = um_inode_store(txn, &inode);
	if (!err)
		err = um_orphan_add(txn, inode.ino, UM_ORPHAN_UNLINKED, 0);
	/* Before the commit: from then on the reaper would consider it abandoned. */
	if (!err)
		err = um_mem_get(fs, inode.ino, out);
	if (err) {
		um_txn_abort(txn);
		return err;
	}
	err = um_txn_commit(txn);
	if (err)
		um_mem_put(fs, *out);
	else
		pthread_rwlock_wrlock(&(*out)->lock);
	return err;
}

static void helper_leave(struct umbra_fs *fs, struct um_mem *mem)
{
	um_ino_t ino = mem->ino;

	pthread_rwlock_unlock(&mem->lock);
	um_mem_put(fs, mem);
	um_reaper_kick(fs, ino);
}

static int exchange(struct umbra_fs *fs, um_ino_t ino, um_ino_t helper)
{
	struct um_inode a, b;
	struct um_tree tree, other;
	struct um_txn *txn;
	uint64_t blocks;
	int err = um_txn_begin(fs->log, 0, &txn);

	if (err)
		return err;
	err = um_inode_load(um_txn_src(txn), ino, &a);
	if (!err)
		err = um_inode_load(um_txn_src(txn), helper, &b);
	if (!err) {
		um_inode_tree(&a, UM_FORK_DATA, &tree);
		um_inode_tree(&b, UM_FORK_DATA, &other);
		um_inode_set_tree(&a, UM_FORK_DATA, &other);
		um_inode_set_tree(&b, UM_FORK_DATA, &tree);
		blocks = a.core.blocks;
		a.core.blocks = b.core.blocks;
		b.core.blocks = blocks;
		a.core.change++;
		err = um_inode_store(txn, &a);
	}
	if (!err)
		err = um_inode_store(txn, &b);
	/* A truncation that was interrupted is complete: the new tree ends with the file. */
	if (!err)
		err = um_orphan_del(txn, ino);
	return um_txn_end(txn, err);
}

int um_data_unshare(struct umbra_fs *fs, struct um_mem *mem)
{
	struct um_remap remap = {.fs = fs, .src = mem, .one_by_one = true};
	struct um_inode inode;
	int err = um_inode_read(fs, mem->ino, &inode);

	if (!err && inode.core.data.format < UM_ROOT_EMBED)
		err = -EMLINK; /* nothing is shared there */
	if (!err)
		err = helper_make(fs, &remap.dst);
	if (err)
		return err;
	remap.blocks = um_blocks_of(inode.core.size);
	remap.dst_size = inode.core.size;
	err = um_data_remap(&remap);
	if (!err)
		err = exchange(fs, mem->ino, remap.dst->ino);
	if (!err) /* blocks at their limit have been replaced */
		um_shadows_toss(fs, mem->ino, 0, UINT64_MAX);
	helper_leave(fs, remap.dst);
	return err;
}
