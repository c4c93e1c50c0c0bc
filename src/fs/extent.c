/* SPDX-License-Identifier: BSD-3-Clause */
/* Extent trees: the blocks of a file, and how they change. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/data.h"

/* ---- the type ---------------------------------------------------------------------------------- */

/* A decoded record. */
struct extent {
	uint64_t key;
	um_lba_t lba;
	uint32_t len;
	bool unwritten;
};

static bool extent_sound(const struct um_pool *pool, const struct extent *e)
{
	return e->len && e->len <= UM_CHUNK_BLOCKS && e->key < UM_FILE_BLOCKS &&
	       e->len <= UM_FILE_BLOCKS - e->key && um_lba_ok(pool, e->lba, e->len) &&
	       um_chunk_of(e->lba) == um_chunk_of(e->lba + e->len - 1);
}

static int extent_decode(
	const struct um_pool *pool, uint64_t key, const void *val, uint16_t len, struct extent *out)
{
	struct um_extent raw;

	if (len != sizeof(raw))
		return -EUCLEAN;
	memcpy(&raw, val, sizeof(raw));
	*out = (struct extent){
		.key = key,
		.lba = raw.addr & UM_LBA_MASK,
		.len = raw.len,
		.unwritten = raw.addr & UM_EXTENT_UNWRITTEN,
	};
	if (raw.pad || raw.addr & ~(UM_LBA_MASK | UM_EXTENT_UNWRITTEN) || !extent_sound(pool, out))
		return -EUCLEAN;
	return 0;
}

static struct um_extent extent_encode(const struct extent *e)
{
	return (struct um_extent){
		.addr = e->lba | (e->unwritten ? UM_EXTENT_UNWRITTEN : 0),
		.len = e->len,
	};
}

static int extents_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	struct extent e;

	return extent_decode(pool, key, val, len, &e);
}

static int extents_ref(struct um_txn *txn, uint64_t key, const void *val, uint16_t len, int delta)
{
	struct extent e;
	int err = extent_decode(um_txn_pool(txn), key, val, len, &e);

	if (err)
		return err;
	if (delta > 0)
		return um_ref_get(txn, e.lba, e.len);
	return um_ref_put(txn, e.lba, e.len, false, NULL);
}

const struct um_tree_type um_extents_type = {
	.kind = UM_KIND_EXTENTS,
	.embed_max = UM_INLINE_MAX,
	.ref = extents_ref,
	.check = extents_check,
};

static int unsound(const struct um_tree *tree, uint64_t key, const char *why)
{
	um_log_line(UMBRA_LOG_ERROR, "inode %" PRIu64 ": extent at file block %" PRIu64 ": %s",
		tree->owner, key, why);
	return -EUCLEAN;
}

/* The record at key, or the last before it. -ENOENT. */
static int extent_find(struct um_src src, const struct um_tree *tree, uint64_t key,
	enum um_seek seek, struct extent *out)
{
	uint8_t val[sizeof(struct um_extent)];
	uint16_t len;
	uint64_t found;
	int err;

	if (tree->root.format == UM_ROOT_EMPTY)
		return -ENOENT;
	err = um_tree_find(src, tree, key, seek, &found, val, sizeof(val), &len);
	if (err)
		return err;
	if (extent_decode(src.pool, found, val, len, out))
		return unsound(tree, found, "invalid record");
	return 0;
}

/* ---- looking --------------------------------------------------------------------------------- */

struct collect {
	struct um_src src;
	const struct um_tree *tree;
	unsigned flags;
	uint64_t at, end; /* covered up to; end of the range */
	struct um_run *runs;
	unsigned n, max;
};

/* 1 if there is no more room. */
static int collect_push(struct collect *c, const struct um_run *run)
{
	if (c->n == c->max)
		return 1;
	c->runs[c->n++] = *run;
	c->at = run->block + run->len;
	return c->at >= c->end;
}

/* Cuts a run of blocks with one owner where it changes whether they recently had another. */
static bool lately_shared(const struct um_pool *pool, um_lba_t lba, uint32_t *len)
{
	bool first = um_unshared_lately(pool, lba);
	uint32_t n = 1;

	while (n < *len && um_unshared_lately(pool, lba + n) == first)
		n++;
	*len = n;
	return first;
}

/* Cuts a run where bad blocks begin or end. */
static bool is_lost(const struct um_pool *pool, um_lba_t lba, uint32_t *len)
{
	bool first = um_pool_lost(pool, lba, 1);
	uint32_t n = 1;

	while (n < *len && um_pool_lost(pool, lba + n, 1) == first)
		n++;
	*len = n;
	return first;
}

/* A mapped piece, split where the number of owners changes. */
static int collect_mapped(struct collect *c, uint64_t key, struct um_run run)
{
	uint64_t end = run.block + run.len;
	uint32_t parents, count, same;
	int err;

	if (!(c->flags & UM_RUNS_REFS))
		return collect_push(c, &run);
	err = (c->flags & UM_RUNS_NOW ? um_tree_parents_now : um_tree_parents)(
		c->src, c->tree, key, &parents);
	while (!err && run.block < end) {
		err = um_ref_count(c->src, run.lba, (uint32_t)(end - run.block), &count, &same);
		if (err)
			break;
		if (!count)
			return unsound(c->tree, key, "blocks are marked free");
		run.refs = count > parents ? count : parents;
		/* Nothing that a power cut would show to the other owner may be written in place
		 * yet. */
		if (run.refs < 2 && !(c->flags & UM_RUNS_NOW) && !c->src.txn &&
			!c->src.pool->direct && lately_shared(c->src.pool, run.lba, &same))
			run.refs = 2;
		run.lost = um_pool_any_bad(c->src.pool) && is_lost(c->src.pool, run.lba, &same);
		run.len = same;
		err = collect_push(c, &run);
		run.block += same;
		run.lba += same;
	}
	return err;
}

static int collect_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct collect *c = arg;
	struct extent e;
	struct um_run run;
	uint64_t skip, end;
	int err;

	if (extent_decode(c->src.pool, key, val, len, &e))
		return unsound(c->tree, key, "invalid record");
	if (key + e.len <= c->at)
		return c->n ? unsound(c->tree, key, "overlaps another") : 0;
	if (key < c->at && c->n)
		return unsound(c->tree, key, "overlaps another");
	if (key >= c->end)
		return 1;
	if (key > c->at) {
		run = (struct um_run){.block = c->at, .len = key - c->at};
		err = collect_push(c, &run);
		if (err)
			return err;
	}
	skip = c->at - key;
	end = key + e.len < c->end ? key + e.len : c->end;
	run = (struct um_run){
		.block = c->at,
		.len = end - c->at,
		.lba = e.lba + skip,
		.unwritten = e.unwritten,
	};
	return collect_mapped(c, key, run);
}

int um_runs_get(struct um_src src, const struct um_tree *tree, uint64_t first, uint64_t n,
	unsigned flags, struct um_run *runs, unsigned max, unsigned *out_n)
{
	struct collect c = {src, tree, flags, first, first + n, runs, 0, max};
	struct extent e;
	uint64_t start = first;
	int err = 0;

	*out_n = 0;
	if (!n || !max)
		return 0;
	if (first >= UM_FILE_BLOCKS || n > UM_FILE_BLOCKS - first)
		return -EFBIG;
	if (tree->root.format != UM_ROOT_EMPTY) {
		err = extent_find(src, tree, first, UM_SEEK_LE, &e);
		if (err && err != -ENOENT)
			return err;
		if (!err && e.key + e.len > first)
			start = e.key;
		err = um_tree_walk(src, tree, start, first + n - 1, collect_record, &c);
		if (err < 0 && err != -ENOENT)
			return err;
	}
	if (c.at < c.end && c.n < max) {
		runs[c.n++] = (struct um_run){.block = c.at, .len = c.end - c.at};
	}
	*out_n = c.n;
	return 0;
}

int um_extent_at(struct um_src src, const struct um_tree *tree, uint64_t block, struct um_run *out)
{
	struct extent e;
	int err = extent_find(src, tree, block, UM_SEEK_LE, &e);

	if (err)
		return err;
	if (e.key + e.len <= block)
		return -ENOENT;
	*out = (struct um_run){
		.block = e.key, .len = e.len, .lba = e.lba, .unwritten = e.unwritten};
	return 0;
}

struct count {
	struct umbra_fs *fs;
	const struct um_tree *tree;
	uint64_t next; /* counted up to */
	uint64_t end;
	uint64_t blocks;
	unsigned seen;
};

static int count_leaf(void *arg, const void *body, unsigned pos)
{
	struct count *c = arg;
	unsigned nrec = um_body_nrec(body);

	for (; pos < nrec; pos++) {
		uint64_t key, end;
		struct um_extent raw;
		const void *val;
		uint16_t len;

		um_body_slot(body, pos, &key, &val, &len);
		if (key >= c->end)
			return 2;
		if (len != sizeof(raw))
			return unsound(c->tree, key, "invalid record");
		memcpy(&raw, val, sizeof(raw));
		if (key < c->next || key >= UM_FILE_BLOCKS || !raw.len || raw.len > UM_CHUNK_BLOCKS)
			return unsound(c->tree, key, "impossible, or overlaps another");
		end = key + raw.len;
		c->next = end;
		c->blocks += (end < c->end ? end : c->end) - key;
	}
	return ++c->seen == 64; /* about 50 us; then let a commit in */
}

int um_extents_count(struct umbra_fs *fs, const struct um_tree *tree, uint64_t first, uint64_t end,
	uint64_t *out_blocks)
{
	struct count c = {.fs = fs, .tree = tree, .next = first, .end = end};
	struct extent e;
	int err;

	*out_blocks = 0;
	if (first >= end || tree->root.format == UM_ROOT_EMPTY)
		return 0;
	um_log_read_lock(fs->log);
	err = extent_find(um_fs_src(fs), tree, first, UM_SEEK_LE, &e);
	um_log_read_unlock(fs->log);
	if (err && err != -ENOENT)
		return err;
	if (!err && e.key + e.len > first) {
		c.next = e.key + e.len;
		c.blocks = (c.next < end ? c.next : end) - first;
	}
	do {
		c.seen = 0;
		um_log_read_lock(fs->log);
		err = um_tree_walk_leaves(um_fs_src(fs), tree, c.next, count_leaf, &c);
		um_log_read_unlock(fs->log);
	} while (err == 1);
	*out_blocks = c.blocks;
	return err < 0 ? err : 0;
}

/* ---- changing ---------------------------------------------------------------------------------- */

/*
 * Takes [from, to) out of record e, leaving what is before and after it. The tree changes before
 * any count does: if the leaf is shared it is copied here, which counts the copy's references, to
 * all of e.
 */
static int extent_cut(struct um_txn *txn, struct um_tree *tree, const struct extent *e,
	uint64_t from, uint64_t to)
{
	uint64_t end = e->key + e->len;
	struct um_extent raw;
	struct extent part;
	int err;

	if (from > e->key) {
		part = *e;
		part.len = (uint32_t)(from - e->key);
		raw = extent_encode(&part);
		err = um_tree_replace(txn, tree, e->key, &raw, sizeof(raw));
	} else {
		err = um_tree_delete(txn, tree, e->key);
	}
	if (err || to >= end)
		return err;
	part = *e;
	part.key = to;
	part.lba = e->lba + (to - e->key);
	part.len = (uint32_t)(end - to);
	raw = extent_encode(&part);
	return um_tree_insert(txn, tree, to, &raw, sizeof(raw));
}

int um_extents_cut_at(struct um_txn *txn, struct um_tree *tree, uint64_t at)
{
	struct extent e;
	int err = extent_find(um_txn_src(txn), tree, at, UM_SEEK_LE, &e);

	if (err || e.key == at || e.key + e.len <= at)
		return err == -ENOENT ? 0 : err;
	return extent_cut(txn, tree, &e, at, at);
}

/*
 * The last record that intersects [first, end), and the part of it that does; -ENOENT: none. A
 * caller that works backwards through a range lowers `end` to that part in each iteration, and so
 * terminates on any tree.
 */
static int last_part(struct um_src src, const struct um_tree *tree, uint64_t first, uint64_t end,
	struct extent *out, uint64_t *out_from, uint64_t *out_to)
{
	int err = extent_find(src, tree, end - 1, UM_SEEK_LE, out);

	if (err)
		return err;
	if (out->key > end - 1)
		return unsound(tree, out->key, "out of order");
	if (out->key + out->len <= first)
		return -ENOENT;
	*out_from = out->key > first ? out->key : first;
	*out_to = out->key + out->len < end ? out->key + out->len : end;
	return 0;
}

int um_extents_punch(
	struct um_txn *txn, struct um_tree *tree, uint64_t first, uint64_t n, uint64_t *blocks)
{
	struct um_src src = um_txn_src(txn);
	uint64_t end = first + n;
	struct extent e;
	int err;

	while (end > first) {
		uint64_t from, to;

		err = last_part(src, tree, first, end, &e, &from, &to);
		if (err)
			return err == -ENOENT ? 0 : err;
		err = extent_cut(txn, tree, &e, from, to);
		if (err)
			return err;
		err = um_ref_put(txn, e.lba + (from - e.key), (uint32_t)(to - from), false, NULL);
		if (err)
			return err;
		*blocks += to - from;
		end = from;
	}
	return 0;
}

/* Can record b, which follows a, be merged with it? */
static bool extents_join(const struct extent *a, const struct extent *b)
{
	return a->key + a->len == b->key && a->lba + a->len == b->lba &&
	       a->unwritten == b->unwritten && a->len + b->len <= UM_CHUNK_BLOCKS &&
	       um_chunk_of(a->lba) == um_chunk_of(b->lba);
}

/* A neighbour that can be changed without copying a shared leaf just for that. */
static int neighbour(struct um_txn *txn, const struct um_tree *tree, uint64_t key,
	enum um_seek seek, struct extent *out, bool *out_found)
{
	struct um_src src = um_txn_src(txn);
	uint32_t parents = 1;
	int err = extent_find(src, tree, key, seek, out);

	*out_found = false;
	if (err == -ENOENT)
		return 0;
	if (!err)
		err = um_tree_parents(src, tree, out->key, &parents);
	*out_found = !err && parents < 2;
	return err;
}

int um_extents_add(struct um_txn *txn, struct um_tree *tree, uint64_t first, uint32_t len,
	um_lba_t lba, bool unwritten)
{
	struct extent e = {first, lba, len, unwritten}, near;
	struct um_extent raw;
	bool found = false, grow = false;
	int err;

	if (!extent_sound(um_txn_pool(txn), &e))
		return -EUCLEAN;
	err = neighbour(txn, tree, first + len, UM_SEEK_EQ, &near, &found);
	if (err)
		return err;
	if (found && extents_join(&e, &near)) {
		err = um_tree_delete(txn, tree, near.key);
		if (err)
			return err;
		e.len += near.len;
	}
	if (first) {
		err = neighbour(txn, tree, first - 1, UM_SEEK_LE, &near, &found);
		if (err)
			return err;
		if (found && extents_join(&near, &e)) {
			near.len += e.len;
			e = near;
			grow = true;
		}
	}
	raw = extent_encode(&e);
	if (grow)
		return um_tree_replace(txn, tree, e.key, &raw, sizeof(raw));
	return um_tree_insert(txn, tree, e.key, &raw, sizeof(raw));
}

int um_extents_mark(
	struct um_txn *txn, struct um_tree *tree, uint64_t first, uint64_t n, bool unwritten)
{
	struct um_src src = um_txn_src(txn);
	uint64_t end = first + n;
	struct extent e;
	int err;

	while (end > first) {
		uint64_t from, to;

		err = last_part(src, tree, first, end, &e, &from, &to);
		if (err)
			return err == -ENOENT ? 0 : err;
		if (e.unwritten != unwritten) {
			err = extent_cut(txn, tree, &e, from, to);
			/* Unwritten blocks may be written in place at any time. */
			if (!err && unwritten)
				err = um_txn_cover(
					txn, e.lba + (from - e.key), (uint32_t)(to - from), false);
			if (!err)
				err = um_extents_add(txn, tree, from, (uint32_t)(to - from),
					e.lba + (from - e.key), unwritten);
			if (err)
				return err;
		}
		end = from;
	}
	return 0;
}
