/* SPDX-License-Identifier: BSD-3-Clause */
/* Parts of trees: split, slice and join, against sorted arrays, with every reference recounted. */
#include "tree_model.h"

#define NTREES 3u

/* ---- the same on arrays --------------------------------------------------------------------------- */

static void model_graft(struct model *dst, const struct model *src, uint64_t first, uint64_t last)
{
	static struct model out;
	unsigned i = 0;

	out.n = 0;
	for (; i < dst->n && dst->rec[i].key < first; i++)
		out.rec[out.n++] = dst->rec[i];
	for (unsigned j = model_pos(src, first); j < src->n && src->rec[j].key <= last; j++)
		out.rec[out.n++] = src->rec[j];
	for (; i < dst->n; i++)
		if (dst->rec[i].key > last)
			out.rec[out.n++] = dst->rec[i];
	assert_true(out.n < MODEL_MAX);
	model_copy(dst, &out);
}

/* dst gets what src has in [first, last]; what it had there is left in *old. */
static int tree_graft(struct um_txn *txn, const struct um_tree *src, struct um_tree *dst,
	uint64_t first, uint64_t last, struct um_tree *old)
{
	struct um_tree rest, part;
	int err = um_tree_split(txn, dst, last + 1, &rest);

	if (!err)
		err = um_tree_split(txn, dst, first, old);
	if (!err)
		err = um_tree_slice(txn, src, first, last, &part);
	if (!err)
		err = um_tree_join(txn, dst, &part, first);
	if (!err)
		err = um_tree_join(txn, dst, &rest, last + 1);
	return err;
}

static void drop_tree(struct um_txn *txn, struct um_tree *tree)
{
	bool done = false;

	while (!done)
		ok(um_tree_drop_step(txn, tree, 0, &done));
}

static void graft(struct engine *e, struct pair *src, struct pair *dst, uint64_t first,
	uint64_t last, bool commit)
{
	struct um_txn *txn = engine_begin(e);
	struct um_tree old;

	ok(tree_graft(txn, &src->tree, &dst->tree, first, last, &old));
	drop_tree(txn, &old);
	model_graft(&dst->now, &src->now, first, last);
	check_walk(um_txn_src(txn), dst, 0, UINT64_MAX);
	if (commit) {
		ok(um_txn_commit(txn));
		pair_save(dst);
	} else {
		um_txn_abort(txn);
		pair_restore(dst);
	}
}

/* ---- at random -------------------------------------------------------------------------------------- */

struct shape {
	unsigned records; /* at the beginning, in each */
	uint64_t keys;
	unsigned min_len, max_len;
};

static void change_some(struct engine *e, struct pair *p, const struct shape *shape, uint64_t *seed)
{
	struct um_txn *txn = engine_begin(e);

	for (unsigned i = 0; i < 6; i++) {
		uint64_t key = rnd_below(seed, shape->keys);
		uint16_t len = shape->min_len + rnd_below(seed, shape->max_len - shape->min_len);

		if (p->now.n && rnd_below(seed, 2))
			key = p->now.rec[rnd_below(seed, p->now.n)].key;
		pair_change(e, txn, p, (unsigned)rnd_below(seed, 3), key, len, rnd(seed), true);
	}
	ok(um_txn_commit(txn));
	pair_save(p);
}

static void fill(struct engine *e, struct pair *p, const struct shape *shape, uint64_t *seed)
{
	for (unsigned done = 0; done < shape->records;) {
		struct um_txn *txn = engine_begin(e);

		for (unsigned i = 0; i < 200 && done < shape->records; i++, done++)
			pair_change(e, txn, p, 0, rnd_below(seed, shape->keys),
				shape->min_len + rnd_below(seed, shape->max_len - shape->min_len),
				rnd(seed), rnd_below(seed, 2));
		ok(um_txn_commit(txn));
	}
	pair_save(p);
}

/* A range that begins and ends anywhere, at records, or not at all. */
static void pick_range(
	const struct model *m, const struct shape *shape, uint64_t *seed, uint64_t *a, uint64_t *b)
{
	*a = rnd_below(seed, shape->keys);
	*b = *a + rnd_below(seed, rnd_below(seed, 2) ? shape->keys : shape->keys / 50 + 1);
	if (m->n && !rnd_below(seed, 3))
		*a = m->rec[rnd_below(seed, m->n)].key;
	if (m->n && !rnd_below(seed, 3))
		*b = m->rec[rnd_below(seed, m->n)].key + rnd_below(seed, 2);
	if (!rnd_below(seed, 6))
		*a = 0;
	if (!rnd_below(seed, 6))
		*b = shape->keys * 2;
	if (*a > *b) {
		uint64_t c = *a;

		*a = *b;
		*b = c;
	}
}

static void random_grafts(const struct shape *shape, unsigned rounds, uint64_t *seed)
{
	struct pair *pairs[NTREES];
	struct engine e;
	uint64_t all;

	engine_open(&e, 96, 2);
	all = space_free(&e);
	for (unsigned i = 0; i < NTREES; i++) {
		pairs[i] = pair_new(&type_embed);
		if (i < 2)
			fill(&e, pairs[i], shape, seed);
	}
	for (unsigned round = 0; round < rounds; round++) {
		struct pair *src = pairs[rnd_below(seed, NTREES)];
		struct pair *dst = pairs[rnd_below(seed, NTREES)];
		uint64_t first, last;

		if (!rnd_below(seed, 4)) {
			change_some(&e, dst, shape, seed);
			continue;
		}
		if (src == dst)
			continue;
		pick_range(rnd_below(seed, 2) ? &src->now : &dst->now, shape, seed, &first, &last);
		graft(&e, src, dst, first, last, rnd_below(seed, 5) > 0);
		if (round % 16 == 0)
			check_all(&e, pairs, NTREES);
		if (!rnd_below(seed, 20))
			drop_from(&e, dst, rnd_below(seed, shape->keys));
		pair_save(dst);
	}
	check_all(&e, pairs, NTREES);
	for (unsigned i = 0; i < NTREES; i++) {
		drop_from(&e, pairs[i], 0);
		free(pairs[i]);
	}
	assert_int_equal(space_free(&e), all);
	engine_close(&e);
}

static void random_grafts_match_sorted_arrays(void **state)
{
	static const struct shape shapes[] = {
		{10, 30, 8, 24},           /* embedded */
		{300, 2000, 0, 60},        /* leaves */
		{4000, 100000, 8, 40},     /* two levels */
		{2500, 100000, 900, 1300}, /* three, with few records in a leaf */
	};
	uint64_t seed = engine_seed();

	(void)state;
	for (unsigned i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
		random_grafts(&shapes[i], i < 2 ? 1500 : 300, &seed);
}

/* ---- cost and shape ------------------------------------------------------------------------------------ */

#define EVEN 14300u /* 100 full leaves of 16 bytes */

static void even(struct engine *e, struct pair *p, unsigned n)
{
	struct um_txn *txn = NULL;

	for (unsigned i = 0; i < n; i++) {
		if (!txn)
			txn = engine_begin(e);
		pair_change(e, txn, p, 0, 10 * i, 16, i, false);
		if (i % 500 == 499) {
			ok(um_txn_commit(txn));
			txn = NULL;
		}
	}
	if (txn)
		ok(um_txn_commit(txn));
	pair_save(p);
}

static void a_tree_taken_over_in_pieces_has_no_more_nodes_than_its_source(void **state)
{
	static const unsigned pieces[] = {100, 143, 1000, 2047, 5000};

	(void)state;
	for (unsigned i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		struct pair *p[2] = {pair_new(&type_embed), pair_new(&type_embed)};
		struct engine e;
		struct census c;

		engine_open(&e, 32, 2);
		even(&e, p[0], EVEN);
		for (unsigned at = 0; at < EVEN; at += pieces[i])
			graft(&e, p[0], p[1], 10ull * at, 10ull * (at + pieces[i]) - 1, true);
		check_all(&e, p, 2);
		assert_int_equal(p[1]->now.n, EVEN);
		c = check_counts(&e, p, 2); /* nodes of both, shared ones once */
		assert_true(c.nodes <= 2 * 101 + 2);
		if (pieces[i] == 5000)
			assert_true(c.nodes <= 101 + 10);
		assert_true(p[1]->tree.root.level <= p[0]->tree.root.level);
		free(p[0]);
		free(p[1]);
		engine_close(&e);
	}
}

/* Bytes that a graft of nearly everything in a tree of n records puts into the journal. */
static uint64_t graft_bytes(unsigned n)
{
	struct pair *p[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	struct um_log_stats before, after;
	struct engine e;

	engine_open(&e, 32, 2);
	even(&e, p[0], n);
	um_log_stats(e.log, &before);
	graft(&e, p[0], p[1], 15, 10ull * n - 15, true);
	um_log_stats(e.log, &after);
	assert_int_equal(after.commits - before.commits, 1);
	check_all(&e, p, 2);
	free(p[0]);
	free(p[1]);
	engine_close(&e);
	return after.record_bytes - before.record_bytes;
}

static void what_lies_between_the_edges_costs_nothing(void **state)
{
	uint64_t small = graft_bytes(143 * 20), large = graft_bytes(143 * 130);

	(void)state;
	assert_true(large < small + small / 2 + 4096);
}

static void a_count_at_its_limit_fails_a_graft_and_an_abort_undoes_it(void **state)
{
	struct pair *p[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	struct um_tree_level level[UM_TREE_LEVELS];
	struct um_tree old;
	struct um_txn *txn;
	struct engine e;
	unsigned n;
	void *block;

	(void)state;
	engine_open(&e, 32, 2);
	even(&e, p[0], 3000);
	even(&e, p[1], 200);
	ok(um_tree_trace((struct um_src){e.pool, NULL}, &p[0]->tree, 15000, level, &n));
	txn = engine_begin(&e);
	ok(um_txn_edit(
		txn, um_refs_ptr(e.pool, um_chunk_of(level[n - 1].lba)), UM_KIND_REF, &block));
	((struct um_refs *)block)->count[level[n - 1].lba % UM_CHUNK_BLOCKS] = UM_REF_MAX;
	assert_int_equal(tree_graft(txn, &p[0]->tree, &p[1]->tree, 100, 29000, &old), -EMLINK);
	um_txn_abort(txn);
	pair_restore(p[1]);
	check_all(&e, p, 2);
	free(p[0]);
	free(p[1]);
	engine_close(&e);
}

static void quiet(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

/* Some bytes of some node become others, with a right checksum. */
static void damage(struct engine *e, const struct um_tree *tree, uint64_t key, uint64_t *seed)
{
	struct um_tree_level level[UM_TREE_LEVELS];
	unsigned n = 0;
	struct um_txn *txn;
	struct um_ptr ptr;
	const uint8_t *block;
	void *copy;

	if (um_tree_trace((struct um_src){e->pool, NULL}, tree, key, level, &n) || !n)
		return;
	block = um_pool_ptr(e->pool, level[rnd_below(seed, n)].lba);
	ptr = (struct um_ptr){((const struct um_block_hdr *)block)->lba,
		((const struct um_block_hdr *)block)->mirror};
	txn = engine_begin(e);
	if (um_txn_edit(txn, ptr, tree->type->kind, &copy)) {
		um_txn_abort(txn);
		return;
	}
	for (unsigned i = 1 + rnd_below(seed, 4); i; i--) {
		unsigned at =
			rnd_below(seed, 2) ? 64 + rnd_below(seed, 100) : 64 + rnd_below(seed, 4032);

		((uint8_t *)copy)[at] = (uint8_t)rnd(seed);
	}
	ok(um_txn_commit(txn));
}

static void damaged_trees_end_in_errors_only(void **state)
{
	const struct shape shape = {2500, 100000, 8, 200};
	uint64_t seed = engine_seed();

	(void)state;
	umbra_log_to(quiet, NULL);
	for (unsigned round = 0; round < 40; round++) {
		struct pair *p[2] = {pair_new(&type_embed), pair_new(&type_embed)};
		struct engine e;

		engine_open(&e, 32, 2);
		fill(&e, p[0], &shape, &seed);
		fill(&e, p[1], &shape, &seed);
		for (unsigned i = 0; i < 8; i++) {
			struct um_tree from = p[0]->tree, to = p[1]->tree, old;
			struct um_txn *txn;
			uint64_t first, last;

			damage(&e, &p[rnd_below(&seed, 2)]->tree, rnd_below(&seed, 100000), &seed);
			pick_range(&p[0]->now, &shape, &seed, &first, &last);
			txn = engine_begin(&e);
			if (!tree_graft(txn, &from, &to, first, last, &old)) {
				bool done;

				um_tree_drop_step(txn, &old, 0, &done);
			}
			um_txn_abort(txn);
		}
		free(p[0]);
		free(p[1]);
		engine_close(&e);
	}
	umbra_log_to(NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_grafts_match_sorted_arrays),
		cmocka_unit_test(a_tree_taken_over_in_pieces_has_no_more_nodes_than_its_source),
		cmocka_unit_test(what_lies_between_the_edges_costs_nothing),
		cmocka_unit_test(a_count_at_its_limit_fails_a_graft_and_an_abort_undoes_it),
		cmocka_unit_test(damaged_trees_end_in_errors_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
