/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finds, for an LBA, the records of extent trees that refer to it. The pool has no index from
 * blocks to owners: it would have to change with every reference, and a clone would no longer take
 * constant time. So the trees are read, which sharing makes cheap: a thousand clones are one tree.
 */
#include "page/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEMO_MAX (1u << 20) /* limit of nodes remembered, and of hits below them */

/* What is known of a shared node: its hits are hit[from, from + n). */
struct memo {
	um_lba_t lba; /* 0: unused */
	uint32_t from, n;
};

/* A node on the path whose records are being visited, from its first on if `whole`. */
struct open_node {
	um_lba_t lba;
	uint64_t end;
	uint32_t from; /* of its hits in `now` */
	bool whole, shared;
};

struct hits {
	struct um_hit *v;
	uint32_t n, max;
};

struct um_finder {
	um_lba_t lba;
	uint32_t n;
	uint64_t seq;
	struct memo *memo; /* hash, open addressing */
	uint32_t nmemo, slots;
	struct hits kept, now;
	struct open_node open[UM_TREE_LEVELS];
	unsigned nopen;
	bool lost; /* `now` had no room for a hit: nothing is remembered of the open nodes */
};

int um_finder_new(um_lba_t lba, uint32_t n, struct um_finder **out)
{
	struct um_finder *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->lba = lba;
	f->n = n;
	*out = f;
	return 0;
}

void um_finder_free(struct um_finder *f)
{
	if (!f)
		return;
	free(f->memo);
	free(f->kept.v);
	free(f->now.v);
	free(f);
}

static bool hits_add(struct hits *hits, const struct um_hit *hit)
{
	if (hits->n == hits->max) {
		uint32_t max = hits->max ? 2 * hits->max : 64;
		struct um_hit *v = NULL;

		if (max <= MEMO_MAX)
			v = realloc(hits->v, max * sizeof(*v));
		if (!v)
			return false;
		hits->v = v;
		hits->max = max;
	}
	hits->v[hits->n++] = *hit;
	return true;
}

/* ---- what is remembered ------------------------------------------------------------------------------- */

static struct memo *memo_slot(struct memo *memo, uint32_t slots, um_lba_t lba)
{
	uint32_t i = (uint32_t)(lba * 0x9e3779b97f4a7c15ull >> 32) & (slots - 1);

	while (memo[i].lba && memo[i].lba != lba)
		i = (i + 1) & (slots - 1);
	return &memo[i];
}

static const struct memo *memo_find(const struct um_finder *f, um_lba_t lba)
{
	const struct memo *m = f->slots ? memo_slot(f->memo, f->slots, lba) : NULL;

	return m && m->lba ? m : NULL;
}

static bool memo_grow(struct um_finder *f)
{
	uint32_t slots = f->slots ? 2 * f->slots : 256;
	struct memo *memo;

	if (f->nmemo < f->slots / 2)
		return true;
	memo = slots <= MEMO_MAX ? calloc(slots, sizeof(*memo)) : NULL;
	if (!memo)
		return false;
	for (uint32_t i = 0; i < f->slots; i++)
		if (f->memo[i].lba)
			*memo_slot(memo, slots, f->memo[i].lba) = f->memo[i];
	free(f->memo);
	f->memo = memo;
	f->slots = slots;
	return true;
}

static void memo_add(struct um_finder *f, const struct open_node *node)
{
	struct memo m = {.lba = node->lba, .from = f->kept.n};

	if (!node->whole || !node->shared || f->lost || !memo_grow(f))
		return;
	for (uint32_t i = node->from; i < f->now.n; i++)
		if (!hits_add(&f->kept, &f->now.v[i]))
			return;
	m.n = f->kept.n - m.from;
	*memo_slot(f->memo, f->slots, m.lba) = m;
	f->nmemo++;
}

/* ---- one tree ---------------------------------------------------------------------------------------- */

struct leaf {
	struct um_finder *f;
	um_finder_fn *fn;
	void *arg;
	uint64_t at; /* the current record */
};

static int leaf_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct leaf *l = arg;
	struct um_finder *f = l->f;
	struct um_extent raw;
	um_lba_t lba, from, to;
	struct um_hit hit;
	int err;

	l->at = key;
	if (len != sizeof(raw))
		return -EUCLEAN;
	memcpy(&raw, val, sizeof(raw));
	lba = raw.addr & UM_LBA_MASK;
	from = lba > f->lba ? lba : f->lba;
	to = lba + raw.len < f->lba + f->n ? lba + raw.len : f->lba + f->n;
	if (from >= to)
		return 0;
	hit = (struct um_hit){key, key + (from - lba), from, (uint32_t)(to - from)};
	err = l->fn(l->arg, &hit);
	if (!err && f->nopen && !hits_add(&f->now, &hit))
		f->lost = true;
	return err;
}

static int emit_memo(
	const struct um_finder *f, const struct memo *m, uint64_t *key, um_finder_fn *fn, void *arg)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const struct um_hit *hit = &f->kept.v[m->from + i];
		int err = hit->key < *key ? 0 : fn(arg, hit);

		if (err) {
			*key = hit->key;
			return err;
		}
	}
	return 0;
}

/* Closes nodes that end at or before key. */
static void close_to(struct um_finder *f, uint64_t key)
{
	while (f->nopen && f->open[f->nopen - 1].end <= key) {
		f->nopen--;
		memo_add(f, &f->open[f->nopen]);
	}
	if (!f->nopen) {
		f->now.n = 0;
		f->lost = false;
	}
}

static void open_path(
	struct um_finder *f, const struct um_tree_level *level, unsigned n, bool whole)
{
	for (unsigned i = f->nopen; i < n; i++)
		f->open[i] = (struct open_node){
			level[i].lba, level[i].end, f->now.n, whole, level[i].parents > 1};
	f->nopen = n;
}

/* Uses what is remembered of a node that begins or continues at *key; *skip: there was one. */
static int try_memo(struct um_finder *f, const struct um_tree_level *level, unsigned n, bool whole,
	uint64_t *key, bool *skip, um_finder_fn *fn, void *arg)
{
	*skip = false;
	for (unsigned i = f->nopen; i < n; i++) {
		const struct memo *m = level[i].parents > 1 ? memo_find(f, level[i].lba) : NULL;
		int err;

		if (!m)
			continue;
		err = emit_memo(f, m, key, fn, arg);
		if (err)
			return err;
		open_path(f, level, i, whole);
		for (uint32_t h = 0; i && h < m->n; h++) {
			struct um_hit hit = f->kept.v[m->from + h];

			if (!hits_add(&f->now, &hit))
				f->lost = true;
		}
		*key = level[i].end;
		*skip = true;
		return 0;
	}
	return 0;
}

/* The leaf, or the remembered node, at *key. */
static int find_part(struct um_finder *f, struct um_src src, const struct um_tree *tree, bool whole,
	uint64_t *key, um_finder_fn *fn, void *arg)
{
	struct um_tree_level level[UM_TREE_LEVELS];
	struct leaf leaf = {f, fn, arg, *key};
	uint64_t end;
	unsigned n;
	bool skip;
	int err = um_tree_trace(src, tree, *key, level, &n);

	if (err || !n)
		return err ? err : -EUCLEAN;
	end = level[n - 1].end;
	if (end <= *key)
		return -EUCLEAN;
	err = try_memo(f, level, n, whole, key, &skip, fn, arg);
	if (err || skip)
		return err;
	open_path(f, level, n, whole);
	err = um_tree_walk(src, tree, *key, end - 1, leaf_record, &leaf);
	*key = err ? leaf.at : end;
	return err;
}

/* Nothing seen before a commit can be relied on. */
static void forget(struct um_finder *f, uint64_t seq)
{
	if (f->memo)
		memset(f->memo, 0, f->slots * sizeof(*f->memo));
	f->nmemo = f->kept.n = f->now.n = 0;
	f->nopen = 0;
	f->lost = false;
	f->seq = seq;
}

int um_finder_step(struct um_finder *f, struct um_src src, uint64_t seq, const struct um_tree *tree,
	uint64_t *key, unsigned *budget, um_finder_fn *fn, void *arg)
{
	bool whole = !*key;
	int err = 0;

	if (seq != f->seq)
		forget(f, seq);
	if (whole)
		f->nopen = f->now.n = 0;
	else
		whole = f->nopen; /* continues where the last step ended */
	if (tree->root.format != UM_ROOT_NODE) {
		struct leaf leaf = {f, fn, arg, *key};

		if (tree->root.format == UM_ROOT_EMBED)
			err = um_tree_walk(src, tree, *key, UINT64_MAX, leaf_record, &leaf);
		*key = err ? leaf.at : UINT64_MAX;
		return err;
	}
	while (!err && *key != UINT64_MAX && *budget) {
		--*budget;
		err = find_part(f, src, tree, whole, key, fn, arg);
		if (!err)
			close_to(f, *key);
		whole = true;
	}
	if (err)
		f->nopen = f->now.n = 0;
	return err;
}
