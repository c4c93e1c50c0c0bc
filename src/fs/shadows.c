/* SPDX-License-Identifier: BSD-3-Clause */
/* Shadows of what reads hand out, their removal, and their statistics. */
#include "fs/shadows.h"

#include <errno.h>
#include <stdlib.h>

#define SWEEP_LOOK 1024u /* nodes examined per sweep */
#define SWEEP_MAX 16u    /* shadows checked per sweep, or after a toss */
#define REST_MAX 4u      /* other shadows of tossed blocks that are checked */

/* ---- what a read hands out ------------------------------------------------------------------------ */

void um_note_begin(struct umbra_fs *fs, struct um_note *note, um_ino_t ino)
{
	note->ino = ino;
	note->n = 0;
	note->seq = um_shadow_seq(fs->page, ino);
}

/*
 * Whether [first, end) is shared: blocks of a file, by the nodes above them, or of the pool, by
 * their counts. A thread keeps this from one read to the next as long as nothing is committed:
 * reads of unshared files then cost next to nothing.
 */
struct known {
	uint64_t page, seq, owner, first, end;
	bool shared;
};
#define KNOWN 64u
#define KNOWN_SPAN 2048u /* file blocks per slot */

static bool is_known(
	const struct known *k, const struct umbra_fs *fs, uint64_t seq, uint64_t owner, uint64_t at)
{
	return k->page == um_page_id(fs->page) && k->seq == seq && k->owner == owner &&
	       at >= k->first && at < k->end;
}

/* Is a node above file block `block` shared, and up to which block does the answer hold? */
static int path_shared(struct umbra_fs *fs, const struct um_tree *tree, uint64_t block,
	bool *out_shared, uint64_t *out_end)
{
	static _Thread_local struct known paths[KNOWN];
	struct known *k = &paths[(block / KNOWN_SPAN + tree->owner) % KNOWN];
	struct um_tree_level level[UM_TREE_LEVELS];
	uint64_t seq = um_log_committed(fs->log);
	bool shared = false;
	unsigned n;
	int err;

	*out_shared = false;
	*out_end = UINT64_MAX;
	if (tree->root.format != UM_ROOT_NODE)
		return 0;
	if (!is_known(k, fs, seq, tree->owner, block)) {
		err = um_tree_trace(um_fs_src(fs), tree, block, level, &n);
		if (err)
			return err;
		for (unsigned i = 0; i < n; i++)
			shared |= level[i].parents > 1;
		*k = (struct known){um_page_id(fs->page), seq, tree->owner, block,
			n ? level[n - 1].end : UINT64_MAX, shared};
	}
	*out_shared = k->shared;
	*out_end = k->end;
	return 0;
}

/* Has the block several owners, and for how many of the n from there on (1..n) is it the same? */
static int block_shared(
	struct umbra_fs *fs, um_lba_t lba, uint32_t n, bool *out_shared, uint32_t *out_same)
{
	static _Thread_local struct known chunks[KNOWN];
	uint64_t seq = um_log_committed(fs->log), chunk = um_chunk_of(lba);
	struct known *k = &chunks[chunk % KNOWN];
	uint32_t count, same;
	int err;

	if (!is_known(k, fs, seq, chunk, lba)) {
		*k = (struct known){um_page_id(fs->page), seq, chunk, chunk * UM_CHUNK_BLOCKS,
			(chunk + 1) * UM_CHUNK_BLOCKS, false};
		if (!um_ref_uniform(um_fs_src(fs), lba, &count)) {
			err = um_ref_count(um_fs_src(fs), lba, n, &count, &same);
			if (err || !same) {
				k->end = 0;
				return err ? err : -EUCLEAN;
			}
			k->first = lba;
			k->end = lba + same;
		}
		k->shared = count > 1;
	}
	*out_shared = k->shared;
	*out_same = k->end - lba < n ? (uint32_t)(k->end - lba) : n;
	return 0;
}

static void note_add(struct um_note *note, uint64_t block, um_lba_t lba, uint64_t len)
{
	if (note->n < UM_NOTE_MAX && len)
		note->run[note->n++] = (struct um_shadow){note->ino, block, lba, (uint32_t)len};
}

/* Notes the shared ones of file blocks [at, end), which are one run. */
static int note_run(struct umbra_fs *fs, struct um_note *note, const struct um_tree *tree,
	const struct um_run *run, uint64_t at, uint64_t end)
{
	while (at < end && note->n < UM_NOTE_MAX) {
		um_lba_t lba = run->lba + (at - run->block);
		uint64_t stop;
		uint32_t same;
		bool shared;
		int err = path_shared(fs, tree, at, &shared, &stop);

		if (err)
			return err;
		if (stop > end)
			stop = end;
		if (!shared) {
			err = block_shared(fs, lba, (uint32_t)(stop - at), &shared, &same);
			if (err)
				return err;
			stop = at + same;
		}
		if (shared)
			note_add(note, at, lba, stop - at);
		at = stop;
	}
	return 0;
}

void um_note_runs(struct umbra_fs *fs, struct um_note *note, const struct um_tree *tree,
	const struct um_run *runs, unsigned n, uint64_t first, uint64_t end)
{
	if (!um_page_on(fs->page) || note->ino >= UM_PAGE_INO_MAX)
		return;
	for (unsigned i = 0; i < n && note->n < UM_NOTE_MAX; i++) {
		uint64_t from = runs[i].block > first ? runs[i].block : first;
		uint64_t to = runs[i].block + runs[i].len;

		if (to > end)
			to = end;
		/* An error here is the read's too, or can be ignored. */
		if (um_run_data(&runs[i]) && note_run(fs, note, tree, &runs[i], from, to))
			return;
	}
}

void um_note_end(struct umbra_fs *fs, struct um_note *note)
{
	for (unsigned i = 0; i < note->n; i++) {
		const struct um_shadow *run = &note->run[i];

		if (!um_shadow_covers(fs->page, run->ino, run->block, run->len))
			um_shadow_add(fs->page, run, note->seq);
	}
	note->n = 0;
}

/* ---- their end ---------------------------------------------------------------------------------------- */

/* Does the file still share any of the blocks? */
static bool still_shared(struct umbra_fs *fs, const struct um_shadow *s)
{
	struct um_run runs[UM_PAGE_WINDOW];
	struct um_inode inode;
	struct um_tree tree;
	bool shared = false;
	unsigned n = 0;
	int err;

	um_log_read_lock(fs->log);
	err = um_inode_load(um_fs_src(fs), s->ino, &inode);
	if (!err && S_ISREG(inode.core.mode)) {
		um_inode_tree(&inode, UM_FORK_DATA, &tree);
		err = um_runs_get(um_fs_src(fs), &tree, s->block, s->len, UM_RUNS_REFS, runs,
			UM_PAGE_WINDOW, &n);
	}
	um_log_read_unlock(fs->log);
	for (unsigned i = 0; !err && i < n; i++)
		shared |= runs[i].lba && runs[i].refs > 1;
	return shared;
}

static void check(struct umbra_fs *fs, const struct um_shadow *s)
{
	if (!still_shared(fs, s))
		um_shadow_toss(fs->page, s->ino, s->block, s->len, NULL, NULL);
}

/* Checks other files' shadows of blocks that lost an owner. If many are left the blocks are still
 * shared; a single one, or a few that need not overlap, are checked. */
static void check_rest(struct umbra_fs *fs, const struct um_shadow *gone)
{
	struct um_shadow rest[REST_MAX];
	uint64_t all;
	unsigned n = um_master_shadows(fs->page, gone->lba, gone->len, rest, REST_MAX, &all);

	if (all > REST_MAX || (all > 1 && gone->len == 1))
		return;
	for (unsigned i = 0; i < n; i++) {
		struct um_shadow *s = &rest[i];
		um_lba_t from = s->lba > gone->lba ? s->lba : gone->lba;
		um_lba_t to = s->lba + s->len;

		if (to > gone->lba + gone->len)
			to = gone->lba + gone->len;
		s->block += from - s->lba;
		s->lba = from;
		s->len = (uint32_t)(to - from);
		check(fs, s);
	}
}

void um_shadows_toss(struct umbra_fs *fs, um_ino_t ino, uint64_t first, uint64_t n)
{
	struct um_shadow gone[SWEEP_MAX];
	unsigned ngone = SWEEP_MAX;

	if (!um_shadow_toss(fs->page, ino, first, n, gone, &ngone))
		return;
	for (unsigned i = 0; i < ngone; i++)
		check_rest(fs, &gone[i]);
}

void um_shadows_sweep(struct umbra_fs *fs)
{
	struct um_shadow sole[SWEEP_MAX];
	unsigned n = um_master_sole(fs->page, SWEEP_LOOK, sole, SWEEP_MAX);

	for (unsigned i = 0; i < n; i++)
		check(fs, &sole[i]);
}

void umbra_cache_dropped(struct umbra_fs *fs, uint64_t ino, uint64_t off, uint64_t len)
{
	uint64_t first = off >> UM_BLOCK_SHIFT;
	uint64_t n = len && len < UINT64_MAX - off ? um_blocks_of(off + len) - first : UINT64_MAX;

	um_shadow_toss(fs->page, ino, first, n, NULL, NULL);
}

/* ---- looking at them ------------------------------------------------------------------------------------ */

static int show(struct umbra_fs *fs, const struct um_shadow *s, umbra_shadow_fn *fn, void *arg)
{
	const struct umbra_shadow out = {
		.ino = s->ino,
		.off = s->block << UM_BLOCK_SHIFT,
		.lba = s->lba,
		.len = (uint64_t)s->len << UM_BLOCK_SHIFT,
		.sharers = um_master_count(fs->page, s->lba),
	};

	return fn(arg, &out);
}

int umbra_shadows(struct umbra_fs *fs, uint64_t ino, uint64_t off, uint64_t len,
	umbra_shadow_fn *fn, void *arg)
{
	uint64_t first = off >> UM_BLOCK_SHIFT, end = UM_FILE_BLOCKS;
	struct um_shadow s[64];
	int err = 0;

	if (off > UMBRA_SIZE_MAX)
		return 0;
	if (len < UMBRA_SIZE_MAX - off)
		end = um_blocks_of(off + len);
	while (!err && first < end) {
		unsigned n = um_shadow_list(fs->page, ino, first, end - first, s, 64);

		for (unsigned i = 0; !err && i < n; i++)
			err = show(fs, &s[i], fn, arg);
		if (n < 64)
			break;
		first = s[n - 1].block + s[n - 1].len;
	}
	return err;
}

int umbra_lba_shadows(struct umbra_fs *fs, uint64_t lba, umbra_shadow_fn *fn, void *arg)
{
	struct um_shadow *s;
	uint64_t all = um_master_count(fs->page, lba);
	unsigned n;
	int err = 0;

	if (!all)
		return 0;
	if (all > 1u << 20)
		all = 1u << 20;
	s = malloc(all * sizeof(*s));
	if (!s)
		return -ENOMEM;
	n = um_master_shadows(fs->page, lba, 1, s, (unsigned)all, &all);
	for (unsigned i = 0; !err && i < n; i++)
		err = show(fs, &s[i], fn, arg);
	free(s);
	return err;
}
