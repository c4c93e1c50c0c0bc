/* SPDX-License-Identifier: BSD-3-Clause */
/* The tree: against a sorted array, with sharing, and over damaged nodes. */
#include <errno.h>

#include "btree/btree.h"
#include "engine.h"

#define MODEL_MAX 20000u

/* ---- a tree type whose values may refer to a data block (their first 8 bytes, 0: none) ----------- */

static int leaf_ref(struct um_txn *txn, uint64_t key, const void *val, uint16_t len, int delta)
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

static int leaf_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
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

static void fill_value(const struct rec *rec, uint8_t *val)
{
	for (unsigned i = 0; i < rec->len; i++)
		val[i] = (uint8_t)(rec->stamp >> (i % 8 * 8)) + i / 8;
	if (rec->len >= sizeof(rec->lba))
		memcpy(val, &rec->lba, sizeof(rec->lba));
}

static unsigned model_pos(const struct model *m, uint64_t key)
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

static bool model_has(const struct model *m, unsigned pos, uint64_t key)
{
	return pos < m->n && m->rec[pos].key == key;
}

static void model_copy(struct model *to, const struct model *from)
{
	to->n = from->n;
	memcpy(to->rec, from->rec, from->n * sizeof(*from->rec));
}

static void pair_save(struct pair *p)
{
	p->tree_saved = p->tree;
	model_copy(&p->saved, &p->now);
}

static void pair_restore(struct pair *p)
{
	p->tree = p->tree_saved;
	model_copy(&p->now, &p->saved);
}

static struct pair *pair_new(const struct um_tree_type *type)
{
	struct pair *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->tree.type = type;
	pair_save(p);
	return p;
}

static um_lba_t new_data_block(struct engine *e, struct um_txn *txn)
{
	um_lba_t lba;
	uint32_t n;

	ok(um_space_take(e->space, 0, 1, 0, &lba, &n));
	ok(um_ref_alloc(txn, lba, 1));
	return lba;
}

/* One change of the tree and its model: insert, replace or delete. */
static void pair_change(struct engine *e, struct um_txn *txn, struct pair *p, unsigned what,
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

static int visit_one(void *arg, uint64_t key, const void *val, uint16_t len)
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

static void check_walk(struct um_src src, struct pair *p, uint64_t first, uint64_t last)
{
	struct visit v = {&p->now, model_pos(&p->now, first)};

	ok(um_tree_walk(src, &p->tree, first, last, visit_one, &v));
	assert_true(v.at == p->now.n || p->now.rec[v.at].key > last);
}

static void check_find(struct um_src src, struct pair *p, uint64_t key)
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

static void census_body(struct census *c, const void *body, unsigned level, uint64_t low,
	uint64_t high, const struct um_tree_type *type);

static void census_node(struct census *c, struct um_ptr ptr, unsigned level, bool root,
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
static void census_body(struct census *c, const void *body, unsigned level, uint64_t low,
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

static void census_tree(struct census *c, const struct um_tree *tree)
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
static struct census check_counts(struct engine *e, struct pair **pairs, unsigned n)
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

static void check_all(struct engine *e, struct pair **pairs, unsigned n)
{
	struct um_src src = {e->pool, NULL};

	check_counts(e, pairs, n);
	for (unsigned i = 0; i < n; i++)
		check_walk(src, pairs[i], 0, UINT64_MAX);
}

static uint64_t space_free(struct engine *e)
{
	struct um_space_stat st;

	um_space_reap(e->space);
	um_space_stat(e->space, &st);
	return st.free;
}

/* Drops the tree from first on, a transaction a step; how many it took. */
static unsigned drop_from(struct engine *e, struct pair *p, uint64_t first)
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

/* ---- tests -------------------------------------------------------------------------------------------------- */

static void ascending_inserts_leave_full_nodes(void **state)
{
	struct engine e;
	struct pair *p = pair_new(&type_plain);
	struct census c;
	struct um_txn *txn = NULL;

	(void)state;
	engine_open(&e, 16, 2);
	for (unsigned i = 0; i < 14300; i++) {
		if (!txn)
			txn = engine_begin(&e);
		pair_change(&e, txn, p, 0, 10 + 3 * i, 16, i, false);
		if (i % 100 == 99) {
			ok(um_txn_commit(txn));
			txn = NULL;
		}
	}
	c = check_counts(&e, &p, 1);
	assert_int_equal(c.records, 14300);
	assert_int_equal(c.leaves, 100);
	assert_int_equal(c.nodes, 101);
	check_walk((struct um_src){e.pool, NULL}, p, 0, UINT64_MAX);
	check_walk((struct um_src){e.pool, NULL}, p, 1000, 3000);
	free(p);
	engine_close(&e);
}

static void small_trees_are_embedded_in_as_few_bytes_as_possible(void **state)
{
	struct engine e;
	struct pair *p = pair_new(&type_embed);
	struct um_txn *txn;

	(void)state;
	engine_open(&e, 8, 2);
	txn = engine_begin(&e);
	pair_change(&e, txn, p, 0, 5, 16, 1, false);
	assert_int_equal(p->tree.root.format, UM_ROOT_EMBED);
	assert_int_equal(p->tree.root.len, 40); /* 8 + 12 + 16, rounded up */
	pair_change(&e, txn, p, 0, 6, 0, 1, false);
	assert_int_equal(p->tree.root.len, 48);
	pair_change(&e, txn, p, 2, 5, 0, 0, false);
	assert_int_equal(p->tree.root.len, 24);
	pair_change(&e, txn, p, 2, 6, 0, 0, false);
	assert_int_equal(p->tree.root.format, UM_ROOT_EMPTY);
	/* 16 records of 16 bytes fit, 17 do not; it returns at half. */
	for (unsigned i = 0; i < 16; i++)
		pair_change(&e, txn, p, 0, i, 16, i, false);
	assert_int_equal(p->tree.root.format, UM_ROOT_EMBED);
	pair_change(&e, txn, p, 0, 16, 16, 16, false);
	assert_int_equal(p->tree.root.format, UM_ROOT_NODE);
	for (unsigned i = 16; i > 8; i--) {
		assert_int_equal(p->tree.root.format, UM_ROOT_NODE);
		pair_change(&e, txn, p, 2, i, 0, 0, false);
	}
	assert_int_equal(p->tree.root.format, UM_ROOT_NODE);
	pair_change(&e, txn, p, 2, 3, 0, 0, false);
	assert_int_equal(p->tree.root.format, UM_ROOT_EMBED);
	check_walk(um_txn_src(txn), p, 0, UINT64_MAX);
	ok(um_txn_commit(txn));
	check_all(&e, &p, 1);
	free(p);
	engine_close(&e);
}

struct mix {
	uint64_t keys; /* keys are below */
	unsigned max_len;
	unsigned insert, replace; /* of 16; the rest are deletes */
};

/* A transaction of some random changes, committed or aborted. */
static void random_txn(struct engine *e, struct pair *p, const struct mix *mix, uint64_t *seed)
{
	struct um_txn *txn = engine_begin(e);
	bool data = p->tree.type->ref;

	for (uint64_t i = 1 + rnd_below(seed, 20); i; i--) {
		unsigned dice = rnd_below(seed, 16);
		unsigned what = dice < mix->insert ? 0 : dice < mix->insert + mix->replace ? 1 : 2;
		uint64_t key = rnd_below(seed, mix->keys) << rnd_below(seed, 3) * 20;
		uint16_t len = rnd_below(seed, 4) ? rnd_below(seed, 40)
						  : rnd_below(seed, mix->max_len + 1);

		if (what && p->now.n && rnd_below(seed, 2))
			key = p->now.rec[rnd_below(seed, p->now.n)].key;
		if (p->now.n > MODEL_MAX - 100)
			what = 2;
		pair_change(e, txn, p, what, key, len, rnd(seed), data && !(dice & 1));
		check_find(um_txn_src(txn), p, rnd_below(seed, mix->keys * 2));
	}
	if (rnd_below(seed, 5)) {
		ok(um_txn_commit(txn));
		pair_save(p);
	} else {
		um_txn_abort(txn);
		pair_restore(p);
	}
}

static void random_changes_match_a_sorted_array(void **state)
{
	static const struct mix mixes[] = {
		{200, 40, 8, 3},
		{3000, UM_VALUE_MAX, 9, 3},
		{3000, UM_VALUE_MAX, 4, 3},
		{20, 100, 7, 4},
		{1 << 20, 16, 15, 0},
		{4000, 64, 3, 0},
	};
	static const struct um_tree_type *const types[] = {&type_plain, &type_embed};
	uint64_t seed = engine_seed();
	struct engine e;

	(void)state;
	engine_open(&e, 24, 2);
	for (unsigned t = 0; t < 2; t++) {
		struct pair *p = pair_new(types[t]);

		for (unsigned i = 0; i < sizeof(mixes) / sizeof(*mixes); i++) {
			for (unsigned round = 0; round < 400; round++) {
				random_txn(&e, p, &mixes[i], &seed);
				check_find((struct um_src){e.pool, NULL}, p,
					rnd_below(&seed, mixes[i].keys));
				if (round % 100 == 0)
					check_all(&e, &p, 1);
			}
			check_all(&e, &p, 1);
		}
		drop_from(&e, p, 0);
		check_all(&e, &p, 1);
		free(p);
	}
	engine_close(&e);
}

static void deletes_shrink_the_tree_to_nothing(void **state)
{
	struct engine e;
	struct pair *p = pair_new(&type_plain);
	uint64_t seed = engine_seed(), all;
	struct um_txn *txn;

	(void)state;
	engine_open(&e, 16, 1);
	all = space_free(&e);
	txn = engine_begin(&e);
	for (unsigned i = 0; i < 6000; i++)
		pair_change(&e, txn, p, 0, rnd(&seed), 24, i, false);
	ok(um_txn_commit(txn));
	while (p->now.n) {
		txn = engine_begin(&e);
		for (unsigned i = 0; i < 50 && p->now.n; i++)
			pair_change(&e, txn, p, 2, p->now.rec[rnd_below(&seed, p->now.n)].key, 0, 0,
				false);
		ok(um_txn_commit(txn));
		if (p->now.n % 500 == 0)
			check_all(&e, &p, 1);
	}
	assert_int_equal(p->tree.root.format, UM_ROOT_EMPTY);
	assert_int_equal(space_free(&e), all);
	free(p);
	engine_close(&e);
}

/* A tree of n records that refer to data blocks, and a second one that shares its root. */
static void make_clone(struct engine *e, struct pair *a, struct pair *b, unsigned n, uint64_t *seed)
{
	struct um_txn *txn = engine_begin(e);

	for (unsigned i = 0; i < n; i++)
		pair_change(
			e, txn, a, 0, rnd(seed) >> 20, 16 + rnd_below(seed, 30), rnd(seed), true);
	ok(um_tree_to_node(txn, &a->tree));
	ok(um_tree_share(txn, &a->tree));
	ok(um_txn_commit(txn));
	b->tree = a->tree;
	model_copy(&b->now, &a->now);
	pair_save(a);
	pair_save(b);
}

static void a_changed_clone_leaves_its_source_alone(void **state)
{
	static const struct mix mix = {1ull << 44, 60, 7, 4};
	struct engine e;
	struct pair *pairs[3];
	uint64_t seed = engine_seed(), all;
	bool shared;

	(void)state;
	engine_open(&e, 32, 2);
	all = space_free(&e);
	for (unsigned i = 0; i < 3; i++)
		pairs[i] = pair_new(&type_embed);
	make_clone(&e, pairs[0], pairs[1], 2500, &seed);
	ok(um_tree_shared((struct um_src){e.pool, NULL}, &pairs[0]->tree, 77, &shared));
	assert_true(shared);
	check_all(&e, pairs, 2);
	for (unsigned round = 0; round < 150; round++) {
		random_txn(&e, pairs[rnd_below(&seed, 2)], &mix, &seed);
		if (round % 25 == 0)
			check_all(&e, pairs, 2);
	}
	/* A third one, of what the second has become. */
	if (pairs[1]->tree.root.format == UM_ROOT_NODE) {
		struct um_txn *txn = engine_begin(&e);

		ok(um_tree_share(txn, &pairs[1]->tree));
		ok(um_txn_commit(txn));
		pairs[2]->tree = pairs[1]->tree;
		model_copy(&pairs[2]->now, &pairs[1]->now);
		pair_save(pairs[2]);
	}
	for (unsigned round = 0; round < 150; round++)
		random_txn(&e, pairs[rnd_below(&seed, 3)], &mix, &seed);
	check_all(&e, pairs, 3);
	drop_from(&e, pairs[1], 0);
	check_all(&e, pairs, 3);
	drop_from(&e, pairs[0], 0);
	check_all(&e, pairs, 3);
	drop_from(&e, pairs[2], 0);
	assert_int_equal(space_free(&e), all);
	for (unsigned i = 0; i < 3; i++)
		free(pairs[i]);
	engine_close(&e);
}

static void dropping_a_shared_root_takes_one_step(void **state)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed(), all;

	(void)state;
	engine_open(&e, 32, 2);
	all = space_free(&e);
	make_clone(&e, pairs[0], pairs[1], 4000, &seed);
	assert_int_equal(drop_from(&e, pairs[1], 0), 1);
	assert_int_equal(pairs[1]->tree.root.format, UM_ROOT_EMPTY);
	check_all(&e, pairs, 2);
	assert_true(drop_from(&e, pairs[0], 0) > 10);
	assert_int_equal(space_free(&e), all);
	free(pairs[0]);
	free(pairs[1]);
	engine_close(&e);
}

static void truncating_keeps_what_is_before(void **state)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed(), all;

	(void)state;
	engine_open(&e, 32, 2);
	all = space_free(&e);
	make_clone(&e, pairs[0], pairs[1], 3000, &seed);
	for (unsigned left = 2500; left; left /= 2) {
		for (unsigned i = 0; i < 2; i++) {
			uint64_t first = pairs[i]->now.rec[left].key + rnd_below(&seed, 2);

			drop_from(&e, pairs[i], first);
			check_all(&e, pairs, 2);
			pair_save(pairs[i]);
		}
	}
	drop_from(&e, pairs[0], 0);
	drop_from(&e, pairs[1], 0);
	assert_int_equal(space_free(&e), all);
	free(pairs[0]);
	free(pairs[1]);
	engine_close(&e);
}

static void a_tree_is_sound_between_the_steps_of_a_drop(void **state)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed();
	bool done = false;

	(void)state;
	engine_open(&e, 32, 2);
	make_clone(&e, pairs[0], pairs[1], 2000, &seed);
	/* One change in the clone: most of its nodes are still shared, some are not. */
	random_txn(&e, pairs[1], &(struct mix){1ull << 44, 60, 16, 0}, &seed);
	while (!done) {
		struct um_txn *txn = engine_begin(&e);
		unsigned was = pairs[1]->now.n;
		uint64_t key;
		int err;

		ok(um_tree_drop_step(txn, &pairs[1]->tree, 0, &done));
		ok(um_txn_commit(txn));
		err = um_tree_find((struct um_src){e.pool, NULL}, &pairs[1]->tree, UINT64_MAX,
			UM_SEEK_LE, &key, NULL, 0, NULL);
		assert_true(err == 0 || err == -ENOENT);
		pairs[1]->now.n = err ? 0 : model_pos(&pairs[1]->now, key) + 1;
		assert_true(pairs[1]->now.n < was || done);
		check_all(&e, pairs, 2);
	}
	assert_int_equal(pairs[1]->now.n, 0);
	free(pairs[0]);
	free(pairs[1]);
	engine_close(&e);
}

static void a_child_count_at_its_limit_is_copied_instead(void **state)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed();
	const void *block, *val;
	uint16_t len;
	uint64_t key;
	struct um_ptr child;
	struct um_txn *txn;
	void *refs;

	(void)state;
	engine_open(&e, 32, 2);
	make_clone(&e, pairs[0], pairs[1], 2000, &seed);
	assert_int_equal(pairs[0]->tree.root.level, 1);
	ok(um_block_get(e.pool, pairs[0]->tree.root.ptr, UM_KIND_EXTENTS, &block));
	um_body_slot((const uint8_t *)block + sizeof(struct um_block_hdr), 2, &key, &val, &len);
	memcpy(&child, val, sizeof(child));
	txn = engine_begin(&e);
	ok(um_txn_edit(txn, um_refs_ptr(e.pool, um_chunk_of(child.lba)), UM_KIND_REF, &refs));
	((struct um_refs *)refs)->count[child.lba % UM_CHUNK_BLOCKS] = UM_REF_MAX;
	ok(um_txn_commit(txn));
	txn = engine_begin(&e);
	pair_change(&e, txn, pairs[1], 0, key + 1, 16, 1, true);
	ok(um_txn_commit(txn));
	check_walk((struct um_src){e.pool, NULL}, pairs[0], 0, UINT64_MAX);
	check_walk((struct um_src){e.pool, NULL}, pairs[1], 0, UINT64_MAX);
	txn = engine_begin(&e);
	ok(um_txn_edit(txn, um_refs_ptr(e.pool, um_chunk_of(child.lba)), UM_KIND_REF, &refs));
	((struct um_refs *)refs)->count[child.lba % UM_CHUNK_BLOCKS] = 1;
	ok(um_txn_commit(txn));
	check_all(&e, pairs, 2);
	free(pairs[0]);
	free(pairs[1]);
	engine_close(&e);
}

static void a_full_pool_fails_a_change_and_an_abort_undoes_it(void **state)
{
	struct engine e;
	struct pair *p = pair_new(&type_plain);
	um_lba_t lba;
	uint32_t n;
	uint8_t val[1000] = {0};
	int err = 0;
	uint64_t i;
	struct um_ptr ptr;

	(void)state;
	engine_open(&e, 8, 2);
	while (!um_space_take(e.space, 0, 512, 0, &lba, &n))
		;
	/* Some room for metadata is left. */
	for (unsigned j = 0; j < 10; j++)
		ok(um_space_take_meta(e.space, 0, 0, &ptr));
	for (i = 0; i < 20 && !err; i++) {
		struct um_txn *txn = engine_begin(&e);

		err = um_tree_insert(txn, &p->tree, i, val, sizeof(val));
		if (!err) {
			ok(um_txn_commit(txn));
			p->tree_saved = p->tree;
		} else {
			um_txn_abort(txn);
			p->tree = p->tree_saved;
		}
	}
	assert_int_equal(err, -ENOSPC);
	for (uint64_t j = 0; j + 1 < i; j++)
		ok(um_tree_find((struct um_src){e.pool, NULL}, &p->tree, j, UM_SEEK_EQ, NULL, NULL,
			0, NULL));
	free(p);
	engine_close(&e);
}

/* ---- damage --------------------------------------------------------------------------------------------------- */

static int count_visits(void *arg, uint64_t key, const void *val, uint16_t len)
{
	uint64_t *n = arg;

	(void)key;
	(void)val;
	(void)len;
	return ++*n > 1000000 ? -ELOOP : 0;
}

static void quiet(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

/* Changes bytes of a node, most often in its head and slots, and makes the checksum right again. */
static void damage(struct engine *e, struct um_ptr ptr, uint64_t *seed)
{
	uint8_t *block = (uint8_t *)um_pool_ptr(e->pool, ptr.lba);

	for (uint64_t i = 1 + rnd_below(seed, 4); i; i--) {
		unsigned span = rnd_below(seed, 3) ? 200 : UM_NODE_BODY;
		uint8_t *at = block + sizeof(struct um_block_hdr) + rnd_below(seed, span);

		*at = rnd_below(seed, 2) ? (uint8_t)(rnd(seed) >> 30)
					 : (uint8_t)(*at ^ 1 << rnd_below(seed, 8));
	}
	um_block_seal(block);
	memcpy((uint8_t *)um_pool_ptr(e->pool, ptr.mirror), block, UM_BLOCK_SIZE);
}

/* Everything that may be done to a tree; errors are fine, crashes and endless loops are not. */
static void exercise(struct engine *e, struct pair *p, uint64_t *seed)
{
	struct um_src src = {e->pool, NULL};
	uint8_t val[64] = {0};
	uint64_t n = 0;
	bool flag = false;

	(void)um_tree_walk(src, &p->tree, 0, UINT64_MAX, count_visits, &n);
	assert_true(n <= 1000000);
	for (unsigned i = 0; i < 20; i++) {
		struct um_txn *txn = engine_begin(e);
		uint64_t key = rnd_below(seed, 2) ? p->now.rec[rnd_below(seed, p->now.n)].key
						  : rnd(seed) >> 20;
		struct um_tree tree = p->tree;

		(void)um_tree_find(src, &tree, key, UM_SEEK_LE, NULL, val, sizeof(val), NULL);
		(void)um_tree_find(src, &tree, key, UM_SEEK_GE, NULL, val, sizeof(val), NULL);
		(void)um_tree_shared(src, &tree, key, &flag);
		memset(val, 0, sizeof(val));
		for (unsigned j = 0; j < 4; j++) {
			int err = 0;

			switch (rnd_below(seed, 4)) {
			case 0:
				err = um_tree_insert(txn, &tree, key + j, val, 16);
				break;
			case 1:
				err = um_tree_replace(txn, &tree, key, val, sizeof(val));
				break;
			case 2:
				err = um_tree_delete(txn, &tree, key);
				break;
			default:
				err = um_tree_drop_step(txn, &tree, key, &flag);
				break;
			}
			if (err && err != -ENOENT && err != -EEXIST)
				break;
		}
		um_txn_abort(txn);
	}
}

static void damaged_nodes_end_in_errors_only(void **state)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed();
	uint8_t *image, *base;

	(void)state;
	engine_open(&e, 16, 2);
	make_clone(&e, pairs[0], pairs[1], 1200, &seed);
	assert_int_equal(pairs[0]->tree.root.level, 1);
	image = malloc(e.pool->size);
	base = (uint8_t *)um_pool_ptr(e.pool, 0);
	memcpy(image, base, e.pool->size);
	umbra_log_to(quiet, NULL);
	for (unsigned round = 0; round < 1500; round++) {
		const void *block, *val;
		struct um_ptr ptr = pairs[0]->tree.root.ptr;
		uint64_t key;
		uint16_t len;

		ok(um_block_get(e.pool, ptr, UM_KIND_EXTENTS, &block));
		block = (const uint8_t *)block + sizeof(struct um_block_hdr);
		um_body_slot(block, rnd_below(&seed, um_body_nrec(block)), &key, &val, &len);
		if (rnd_below(&seed, 2))
			memcpy(&ptr, val, sizeof(ptr));
		damage(&e, ptr, &seed);
		exercise(&e, pairs[0], &seed);
		memcpy((uint8_t *)um_pool_ptr(e.pool, ptr.lba), image + ptr.lba * UM_BLOCK_SIZE,
			UM_BLOCK_SIZE);
		memcpy((uint8_t *)um_pool_ptr(e.pool, ptr.mirror),
			image + ptr.mirror * UM_BLOCK_SIZE, UM_BLOCK_SIZE);
	}
	umbra_log_to(NULL, NULL);
	check_all(&e, pairs, 2);
	free(image);
	free(pairs[0]);
	free(pairs[1]);
	engine_close(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ascending_inserts_leave_full_nodes),
		cmocka_unit_test(small_trees_are_embedded_in_as_few_bytes_as_possible),
		cmocka_unit_test(random_changes_match_a_sorted_array),
		cmocka_unit_test(deletes_shrink_the_tree_to_nothing),
		cmocka_unit_test(a_changed_clone_leaves_its_source_alone),
		cmocka_unit_test(dropping_a_shared_root_takes_one_step),
		cmocka_unit_test(truncating_keeps_what_is_before),
		cmocka_unit_test(a_tree_is_sound_between_the_steps_of_a_drop),
		cmocka_unit_test(a_child_count_at_its_limit_is_copied_instead),
		cmocka_unit_test(a_full_pool_fails_a_change_and_an_abort_undoes_it),
		cmocka_unit_test(damaged_nodes_end_in_errors_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
