/* SPDX-License-Identifier: BSD-3-Clause */
/* The references to a file's blocks, node by node, for umbractl du. */
#include <errno.h>
#include <string.h>

#include "fs/data.h"

struct owners {
	struct um_src src;
	const struct um_tree *tree;
	struct umbra_owners *out;
};

/* One record, split where the number of references changes. There is room for the worst case. */
static int owners_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct owners *o = arg;
	struct umbra_owners *out = o->out;
	struct um_extent raw;
	um_lba_t lba;
	uint32_t left;
	int err = um_extents_type.check(o->src.pool, key, val, len);

	if (err)
		return err;
	if (UMBRA_OWNER_RUNS - out->nrun < UM_CHUNK_BLOCKS) {
		out->next = key;
		return 1;
	}
	memcpy(&raw, val, sizeof(raw));
	lba = raw.addr & UM_LBA_MASK;
	for (left = raw.len; left;) {
		uint32_t refs, same;

		err = um_ref_count(o->src, lba, left, &refs, &same);
		if (err)
			return err;
		if (!refs || !same || same > left)
			return -EUCLEAN;
		out->run[out->nrun++] =
			(struct umbra_owner_run){.lba = lba, .len = same, .refs = refs};
		lba += same;
		left -= same;
	}
	return 0;
}

static int owners_locked(struct umbra_fs *fs, uint64_t ino, uint64_t first,
	struct umbra_owners *out, struct um_inode *inode)
{
	struct owners o = {.src = um_fs_src(fs), .out = out};
	struct um_tree_level level[UM_TREE_LEVELS];
	struct um_tree tree;
	int err = um_inode_load(o.src, ino, inode);

	if (!err)
		err = um_data_regular(inode);
	if (err)
		return err;
	out->blocks = inode->core.blocks;
	if (inode->core.data.format == UM_ROOT_INLINE) {
		out->inline_bytes = inode->core.data.len;
		return 0;
	}
	um_inode_tree(inode, UM_FORK_DATA, &tree);
	err = um_tree_trace(o.src, &tree, first, level, &out->nnode);
	for (unsigned i = 0; !err && i < out->nnode; i++)
		out->node[i] = (struct umbra_owner_node){
			.lba = level[i].lba, .end = level[i].end, .parents = level[i].parents};
	if (err)
		return err;
	if (out->nnode)
		out->next = out->node[out->nnode - 1].end;
	o.tree = &tree;
	err = um_tree_walk(o.src, &tree, first, out->next - 1, owners_record, &o);
	return err < 0 ? err : 0;
}

int umbra_owners(struct umbra_fs *fs, uint64_t ino, uint64_t first, struct umbra_owners *out)
{
	struct um_inode inode;
	int err;

	static_assert(UMBRA_OWNER_NODES >= UM_TREE_LEVELS, "a path fits");
	static_assert(UMBRA_OWNER_RUNS >= UM_CHUNK_BLOCKS, "a record fits");
	out->nnode = out->nrun = 0;
	out->blocks = out->inline_bytes = 0;
	out->next = UINT64_MAX;
	um_log_read_lock(fs->log);
	err = owners_locked(fs, ino, first, out, &inode);
	um_log_read_unlock(fs->log);
	return err;
}
