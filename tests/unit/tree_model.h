/* SPDX-License-Identifier: BSD-3-Clause */
/* For tests of the tree: the expected contents, comparison, and recounting references. */
#ifndef TESTS_UNIT_TREE_MODEL_H
#define TESTS_UNIT_TREE_MODEL_H

#include <errno.h>

#include "btree/btree.h"
#include "engine.h"

#define MODEL_MAX 20000u

/* ---- a tree type whose values may refer to a data block (their first 8 bytes, 0: none) ----------- */

static inline int leaf_ref(
	struct um_txn *txn, uint64_t key, const void *val, uint16_t len, int delta)
{
	um_lba_t lba;

	(void)key;
	if (len < sizeof(lba))
		return 0;
	memcpy(&lba, val, sizeof(lba));
	if (!lba)
		return 0;
	return delta > 0 ? um_ref_get(txn, lba, 1) : um_ref_put(txn, lba, 1, false, NULL);
}

static inline int leaf_check(
	const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	um_lba_t lba = 0;

	(void)key;
	if (len >= sizeof(lba))
		memcpy(&lba, val, sizeof(lba));
	return !lba || um_lba_ok(pool, lba, 1) ? 0 : -EUCLEAN;
}

static const struct um_tree_type type_embed = {
	.kind = UM_KIND_EXTENTS, .embed_max = UM_INLINE_MAX, .ref = leaf_ref, .check = leaf_check};
static const struct um_tree_type type_plain = {.kind = UM_KIND_INODES};

/* ---- the model: a sorted array ----------------------------------------------------------------------- */

struct rec {
	uint64_t key;
	uint64_t stamp; /* what the value is made from */
	um_lba_t lba;   /* data block that the value refers to, or 0 */
	uint16_t len;
};
struct model {
	struct rec rec[MODEL_MAX];
	unsigned n;
};

/* A tree, what it should hold, and both as of the last commit. */
struct pair {
	struct um_tree tree, tree_saved;
	struct model now, saved;
};

static inline void fill_value(const struct rec *rec, uint8_t *val)
{
	for (unsigned i = 0; i < rec->len; i++)
		val[i] = (uint8_t)(rec->stamp >> (i % 8 * 8)) + i / 8;
	if (rec->len >= sizeof(rec->lba))
		memcpy(val, &rec->lba, sizeof(rec->lba));
}

static inline unsigned model_pos(const struct model *m, uint64_t key)
{
	unsigned lo = 0, hi = m->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (m->rec[mid].key < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static inline bool model_has(const struct model *m, unsigned pos, uint64_t key)
{
	return pos < m->n && m->rec[pos].key == key;
}

static inline void model_copy(struct model *to, const struct model *from)
{
	to->n = from->n;
	memcpy(to->rec, from->rec, from->n * sizeof(*from->rec));
}

static inline void pair_save(struct pair *p)
{
	p->tree_saved = p->tree;
	model_copy(&p->saved, &p->now);
}

static inline void pair_restore(struct pair *p)
{
	p->tree = p->tree_saved;
	model_copy(&p->now, &p->saved);
}

static inline struct pair *pair_new(const struct um_tree_type *type)
{
	struct pair *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->tree.type = type;
	pair_save(p);
	return p;
}

static inline um_lba_t new_data_block(struct engine *e, struct um_txn *txn)
{
	um_lba_t lba;
	uint32_t n;

	ok(um_space_take(e->space, 0, 1, 0, &lba, &n));
	ok(um_ref_alloc(txn, lba, 1));
	return lba;
}

/* One change of the tree and its model: insert, replace or delete. */
static inline void pair_change(struct engine *e, struct um_txn *txn, struct pair *p, unsigned what,
	uint64_t key, uint16_t len, uint64_t stamp, bool data)
{
	struct model *m = &p->now;
	unsigned pos = model_pos(m, key);
	bool there = model_has(m, pos, key);
	struct rec rec = {.key = key, .stamp = stamp, .len = len};
	uint8_t val[UM_VALUE_MAX] = {0};
	um_lba_t old = there ? m->rec[pos].lba : 0;

	if (what == 0 && there) {
		assert_int_equal(um_tree_insert(txn, &p->tree, key, val, 1), -EEXIST);
		return;
	}
	if (what != 0 && !there) {
		assert_int_equal(um_tree_replace(txn, &p->tree, key, val, 1), -ENOENT);
		assert_int_equal(um_tree_delete(txn, &p->tree, key), -ENOENT);
		return;
	}
	if (what < 2 && data && len >= sizeof(rec.lba))
		rec.lba = new_data_block(e, txn);
	fill_value(&rec, val);
	if (what == 0) {
		ok(um_tree_insert(txn, &p->tree, key, val, len));
		memmove(&m->rec[pos + 1], &m->rec[pos], (m->n - pos) * sizeof(rec));
		m->rec[pos] = rec;
		m->n++;
		assert_true(m->n < MODEL_MAX);
		return;
	}
	if (what == 1) {
		ok(um_tree_replace(txn, &p->tree, key, val, len));
		m->rec[pos] = rec;
	} else {
		ok(um_tree_delete(txn, &p->tree, key));
		memmove(&m->rec[pos], &m->rec[pos + 1], (m->n - pos - 1) * sizeof(rec));
		m->n--;
	}
	if (old)
		ok(um_ref_put(txn, old, 1, false, NULL));
}

/* ---- comparing ------------------------------------------------------------------------------------------ */

struct visit {
	const struct model *m;
	unsigned at;
};

static inline int visit_one(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct visit *v = arg;
	uint8_t expect[UM_VALUE_MAX];
	const struct rec *rec = &v->m->rec[v->at];

	assert_true(v->at < v->m->n);
	assert_int_equal(key, rec->key);
	assert_int_equal(len, rec->len);
	fill_value(rec, expect);
	assert_memory_equal(val, expect, len);
	v->at++;
	return 0;
}

static inline void check_walk(struct um_src src, struct pair *p, uint64_t first, uint64_t last)
{
	struct visit v = {&p->now, model_pos(&p->now, first)};

	ok(um_tree_walk(src, &p->tree, first, last, visit_one, &v));
	assert_true(v.at == p->now.n || p->now.rec[v.at].key > last);
}

static inline void check_find(struct um_src src, struct pair *p, uint64_t key)
{
	static const enum um_seek seeks[] = {UM_SEEK_EQ, UM_SEEK_LE, UM_SEEK_GE};
	const struct model *m = &p->now;
	unsigned pos = model_pos(m, key);
	bool there = model_has(m, pos, key);

	for (unsigned i = 0; i < 3; i++) {
		unsigned expect = seeks[i] == UM_SEEK_LE && !there ? pos - 1 : pos;
		bool found = seeks[i] == UM_SEEK_EQ ? there : expect < m->n;
		uint8_t val[UM_VALUE_MAX], want[UM_VALUE_MAX];
		uint64_t out_key;
		uint16_t len;
		int err = um_tree_find(
			src, &p->tree, key, seeks[i], &out_key, val, sizeof(val), &len);

		assert_int_equal(err, found ? 0 : -ENOENT);
		if (!found)
			continue;
		assert_int_equal(out_key, m->rec[expect].key);
		assert_int_equal(len, m->rec[expect].len);
		fill_value(&m->rec[expect], want);
		assert_memory_equal(val, want, len);
	}
}

/* ---- counting from scratch ---------------------------------------------------------------------------------- */

struct census {
	struct engine *e;
	uint32_t *count; /* of each block */
	uint64_t nodes, leaves, records;
	bool data; /* leaf values refer to data blocks */
};

static inline void census_body(struct census *c, const void *body, unsigned level, uint64_t low,
	uint64_t high, const struct um_tree_type *type);

static inline void census_node(struct census *c, struct um_ptr ptr, unsigned level, bool root,
	uint64_t low, uint64_t high, const struct um_tree_type *type)
{
	const void *block;
	const uint8_t *body;

	if (c->count[ptr.lba]++)
		return;
	c->nodes++;
	if (ptr.mirror)
		c->count[ptr.mirror]++;
	ok(um_block_get(c->e->pool, ptr, type->kind, &block));
	assert_int_equal(((const struct um_block_hdr *)block)->level, level);
	body = (const uint8_t *)block + sizeof(struct um_block_hdr);
	ok(um_body_check(body, UM_NODE_BODY));
	if (!root)
		assert_true(um_body_nrec(body) > 0);
	census_body(c, body, level, low, high, type);
}

/* Keys lie in [low, high]. */
static inline void census_body(struct census *c, const void *body, unsigned level, uint64_t low,
	uint64_t high, const struct um_tree_type *type)
{
	unsigned nrec = um_body_nrec(body);

	c->leaves += level == 0;
	for (unsigned i = 0; i < nrec; i++) {
		uint64_t key, next = high;
		const void *val;
		uint16_t len;
		struct um_ptr ptr;
		um_lba_t lba = 0;

		um_body_slot(body, i, &key, &val, &len);
		if (level) {
			if (i)
				assert_true(key > low || (i == 1 && key >= low));
			if (i + 1 < nrec) {
				const void *v;
				uint16_t l;

				um_body_slot(body, i + 1, &next, &v, &l);
				next--;
			}
			assert_true(i == 0 || key <= high);
			assert_int_equal(len, sizeof(ptr));
			memcpy(&ptr, val, sizeof(ptr));
			census_node(c, ptr, level - 1, false, i ? key : low, next, type);
			continue;
		}
		assert_true(key >= low && key <= high);
		c->records++;
		if (type->ref && len >= sizeof(lba))
			memcpy(&lba, val, sizeof(lba));
		if (lba)
			c->count[lba]++;
	}
}

static inline void census_tree(struct census *c, const struct um_tree *tree)
{
	if (tree->root.format == UM_ROOT_NODE)
		census_node(c, tree->root.ptr, tree->root.level, true, 0, UINT64_MAX, tree->type);
	if (tree->root.format == UM_ROOT_EMBED) {
		assert_in_range(tree->root.len, 8, tree->type->embed_max);
		ok(um_body_check(tree->embed, tree->root.len));
		census_body(c, tree->embed, 0, 0, UINT64_MAX, tree->type);
	}
}

/* Stored counts equal those found from the trees' roots; the structure is sound. */
static inline struct census check_counts(struct engine *e, struct pair **pairs, unsigned n)
{
	struct census c = {.e = e, .count = calloc(e->pool->nblocks, sizeof(*c.count))};
	struct um_src src = {e->pool, NULL};
	const struct um_super *super = &e->pool->super;

	assert_non_null(c.count);
	for (unsigned i = 0; i < n; i++)
		census_tree(&c, &pairs[i]->tree);
	for (uint64_t i = 0; i < super->journal_blocks; i++)
		c.count[super->journal_lba + i]++;
	for (uint64_t chunk = 1; chunk + 1 < e->pool->nchunks; chunk++) {
		for (um_lba_t lba = chunk * 512; lba < (chunk + 1) * 512; lba++) {
			uint32_t count, run;

			ok(um_ref_count(src, lba, 1, &count, &run));
			assert_int_equal(count, c.count[lba]);
		}
	}
	free(c.count);
	c.count = NULL;
	return c;
}

static inline void check_all(struct engine *e, struct pair **pairs, unsigned n)
{
	struct um_src src = {e->pool, NULL};

	check_counts(e, pairs, n);
	for (unsigned i = 0; i < n; i++)
		check_walk(src, pairs[i], 0, UINT64_MAX);
}

static inline uint64_t space_free(struct engine *e)
{
	struct um_space_stat st;

	um_space_reap(e->space);
	um_space_stat(e->space, &st);
	return st.free;
}

/* Drops the tree from first on, a transaction a step; how many it took. */
static inline unsigned drop_from(struct engine *e, struct pair *p, uint64_t first)
{
	unsigned steps = 0;
	bool done = false;

	while (!done) {
		struct um_txn *txn = engine_begin(e);

		ok(um_tree_drop_step(txn, &p->tree, first, &done));
		ok(um_txn_commit(txn));
		steps++;
		assert_true(steps < 100000);
	}
	p->now.n = model_pos(&p->now, first);
	return steps;
}

#endif
