/* SPDX-License-Identifier: BSD-3-Clause */
/* The tree: against a sorted array, with sharing, and over damaged nodes. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tree_model.h"

/* ---- one tree ------------------------------------------------------------------------------------ */

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
	uint64_t keys;             /* keys are below */
	unsigned max_len, min_len; /* of values; most are short unless min_len says otherwise */
	unsigned insert, replace;  /* of 16; the rest are deletes */
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
		unsigned span = mix->min_len || !rnd_below(seed, 4) ? mix->max_len : 40;
		uint16_t len = mix->min_len + rnd_below(seed, span - mix->min_len + 1);

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

static void random_changes(struct engine *e, unsigned rounds)
{
	static const struct mix mixes[] = {
		{200, 40, 0, 8, 3},
		{3000, UM_VALUE_MAX, 0, 9, 3},
		{3000, UM_VALUE_MAX, 0, 4, 3},
		{20, 100, 0, 7, 4},
		{1 << 20, 16, 0, 15, 0},
		/* Three levels: few records a leaf. */
		{5000, UM_VALUE_MAX, 900, 14, 1},
		{5000, UM_VALUE_MAX, 900, 7, 1},
		{5000, UM_VALUE_MAX, 900, 2, 1},
		{4000, 64, 0, 3, 0},
	};
	static const struct um_tree_type *const types[] = {&type_plain, &type_embed};
	uint64_t seed = engine_seed();

	for (unsigned t = 0; t < 2; t++) {
		struct pair *p = pair_new(types[t]);

		for (unsigned i = 0; i < sizeof(mixes) / sizeof(*mixes); i++) {
			for (unsigned round = 0; round < rounds; round++) {
				random_txn(e, p, &mixes[i], &seed);
				check_find((struct um_src){e->pool, NULL}, p,
					rnd_below(&seed, mixes[i].keys));
				if (round % 100 == 0)
					check_all(e, &p, 1);
			}
			check_all(e, &p, 1);
		}
		drop_from(e, p, 0);
		check_all(e, &p, 1);
		free(p);
	}
}

static void random_changes_match_a_sorted_array(void **state)
{
	struct engine e;

	(void)state;
	engine_open(&e, 24, 2);
	random_changes(&e, 400);
	engine_close(&e);
}

static void random_changes_match_a_sorted_array_in_a_plain_file(void **state)
{
	struct engine e;

	(void)state;
	engine_open_file(&e, 24, 2);
	random_changes(&e, 100);
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

/* The first slot's key is not the lowest possible any more when what was left of it has gone. */
static void keys_below_a_removed_first_leaf_are_welcome(void **state)
{
	struct engine e;
	struct pair *p = pair_new(&type_plain);
	struct um_txn *txn;

	(void)state;
	engine_open(&e, 16, 2);
	txn = engine_begin(&e);
	for (unsigned i = 0; i < 1430; i++)
		pair_change(&e, txn, p, 0, 1000000 + i, 16, i, false);
	ok(um_txn_commit(txn));
	txn = engine_begin(&e);
	for (unsigned i = 0; i < 143; i++)
		pair_change(&e, txn, p, 2, 1000000 + i, 0, 0, false);
	ok(um_txn_commit(txn));
	assert_int_equal(check_counts(&e, &p, 1).leaves, 9);
	txn = engine_begin(&e);
	for (unsigned i = 0; i < 1000; i++)
		pair_change(&e, txn, p, 0, 5000 - i, 16, i, false);
	ok(um_txn_commit(txn));
	check_all(&e, &p, 1);
	free(p);
	engine_close(&e);
}

static void small_trees_become_nodes_to_be_shared(void **state)
{
	struct engine e;
	struct pair *pairs[3] = {
		pair_new(&type_embed), pair_new(&type_embed), pair_new(&type_embed)};
	struct um_txn *txn;
	uint64_t all;

	(void)state;
	engine_open(&e, 8, 2);
	all = space_free(&e);
	txn = engine_begin(&e);
	assert_int_equal(um_tree_share(txn, &pairs[0]->tree), -EINVAL);
	for (unsigned i = 0; i < 5; i++)
		pair_change(&e, txn, pairs[0], 0, i, 16, i, true);
	for (unsigned i = 0; i < 3; i += 2) {
		ok(um_tree_to_node(txn, &pairs[i]->tree));
		assert_int_equal(pairs[i]->tree.root.format, UM_ROOT_NODE);
	}
	ok(um_tree_share(txn, &pairs[0]->tree));
	ok(um_txn_commit(txn));
	pairs[1]->tree = pairs[0]->tree;
	model_copy(&pairs[1]->now, &pairs[0]->now);
	check_all(&e, pairs, 3);
	txn = engine_begin(&e);
	pair_change(&e, txn, pairs[1], 2, 3, 0, 0, true);
	ok(um_txn_commit(txn));
	check_all(&e, pairs, 3);
	for (unsigned i = 0; i < 3; i++)
		drop_from(&e, pairs[i], 0);
	assert_int_equal(space_free(&e), all);
	for (unsigned i = 0; i < 3; i++)
		free(pairs[i]);
	engine_close(&e);
}

/* A tree of n records that refer to data blocks, and a second one that shares its root. */
static void make_clone(
	struct engine *e, struct pair *a, struct pair *b, unsigned n, unsigned len, uint64_t *seed)
{
	struct um_txn *txn = engine_begin(e);

	for (unsigned i = 0; i < n; i++)
		pair_change(
			e, txn, a, 0, rnd(seed) >> 20, len + rnd_below(seed, 30), rnd(seed), true);
	ok(um_tree_to_node(txn, &a->tree));
	ok(um_tree_share(txn, &a->tree));
	ok(um_txn_commit(txn));
	b->tree = a->tree;
	model_copy(&b->now, &a->now);
	pair_save(a);
	pair_save(b);
}

static void change_clones(bool large)
{
	const struct mix mix = {1ull << 44, large ? 1200 : 60, large ? 900 : 0, 7, 4};
	struct engine e;
	struct pair *pairs[3];
	uint64_t seed = engine_seed(), all;
	uint32_t parents;

	engine_open(&e, 32, 2);
	all = space_free(&e);
	for (unsigned i = 0; i < 3; i++)
		pairs[i] = pair_new(&type_embed);
	make_clone(&e, pairs[0], pairs[1], 2500, large ? 900 : 16, &seed);
	ok(um_tree_parents((struct um_src){e.pool, NULL}, &pairs[0]->tree, 77, &parents));
	assert_int_equal(parents, 2);
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

static void a_changed_clone_leaves_its_source_alone(void **state)
{
	(void)state;
	change_clones(false);
	change_clones(true);
}

static void dropping_a_shared_root_takes_one_step(void **state)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed(), all;

	(void)state;
	engine_open(&e, 32, 2);
	all = space_free(&e);
	make_clone(&e, pairs[0], pairs[1], 4000, 16, &seed);
	assert_int_equal(drop_from(&e, pairs[1], 0), 1);
	assert_int_equal(pairs[1]->tree.root.format, UM_ROOT_EMPTY);
	check_all(&e, pairs, 2);
	assert_true(drop_from(&e, pairs[0], 0) > 10);
	assert_int_equal(space_free(&e), all);
	free(pairs[0]);
	free(pairs[1]);
	engine_close(&e);
}

static void truncate_both(bool large)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed(), all;

	engine_open(&e, 32, 2);
	all = space_free(&e);
	make_clone(&e, pairs[0], pairs[1], 3000, large ? 1000 : 16, &seed);
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

static void truncating_keeps_what_is_before(void **state)
{
	(void)state;
	truncate_both(false);
	truncate_both(true);
}

static void a_tree_is_sound_between_the_steps_of_a_drop(void **state)
{
	struct engine e;
	struct pair *pairs[2] = {pair_new(&type_embed), pair_new(&type_embed)};
	uint64_t seed = engine_seed();
	bool done = false;

	(void)state;
	engine_open(&e, 32, 2);
	make_clone(&e, pairs[0], pairs[1], 2000, 16, &seed);
	/* One change in the clone: most of its nodes are still shared, some are not. */
	random_txn(&e, pairs[1], &(struct mix){1ull << 44, 60, 0, 16, 0}, &seed);
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
	make_clone(&e, pairs[0], pairs[1], 2000, 16, &seed);
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

/* ---- readers beside a writer ------------------------------------------------------------------------------------ */

#define TWINS 3000u

struct readers {
	struct engine *e;
	struct um_tree tree;
	atomic_bool stop;
};

/* Keys 2k and 2k + 1 always have the same value. */
static void *read_twins(void *arg)
{
	struct readers *r = arg;
	struct um_src src = {r->e->pool, NULL};
	uint64_t seed = (uintptr_t)&seed | 1, bad = 0;

	while (!atomic_load(&r->stop)) {
		uint64_t key = 2 * rnd_below(&seed, TWINS), a = 0, b = 1;
		int err;

		um_log_read_lock(r->e->log);
		err = um_tree_find(src, &r->tree, key, UM_SEEK_EQ, NULL, &a, sizeof(a), NULL);
		if (!err)
			err = um_tree_find(
				src, &r->tree, key + 1, UM_SEEK_EQ, NULL, &b, sizeof(b), NULL);
		um_log_read_unlock(r->e->log);
		bad += err || a != b;
	}
	return (void *)(uintptr_t)bad;
}

static void readers_see_all_of_a_transaction_or_nothing(void **state)
{
	struct engine e;
	struct readers r = {.e = &e, .tree = {.type = &type_plain}};
	pthread_t thread[2];
	uint64_t seed = engine_seed(), zero = 0;
	struct um_txn *txn;
	void *bad;

	(void)state;
	engine_open(&e, 16, 2);
	txn = engine_begin(&e);
	for (uint64_t key = 0; key < 2 * TWINS; key++)
		ok(um_tree_insert(txn, &r.tree, key, &zero, sizeof(zero)));
	ok(um_txn_commit(txn));
	for (unsigned i = 0; i < 2; i++)
		ok(pthread_create(&thread[i], NULL, read_twins, &r));
	for (unsigned i = 0; i < 4000; i++) {
		uint64_t key = 2 * rnd_below(&seed, TWINS), val = rnd(&seed);

		txn = engine_begin(&e);
		ok(um_tree_replace(txn, &r.tree, key, &val, sizeof(val)));
		ok(um_tree_replace(txn, &r.tree, key + 1, &val, sizeof(val)));
		ok(um_txn_commit(txn));
	}
	atomic_store(&r.stop, true);
	for (unsigned i = 0; i < 2; i++) {
		ok(pthread_join(thread[i], &bad));
		assert_null(bad);
	}
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
	uint32_t parents;

	(void)um_tree_walk(src, &p->tree, 0, UINT64_MAX, count_visits, &n);
	assert_true(n <= 1000000);
	for (unsigned i = 0; i < 20; i++) {
		struct um_txn *txn = engine_begin(e);
		uint64_t key = rnd_below(seed, 2) ? p->now.rec[rnd_below(seed, p->now.n)].key
						  : rnd(seed) >> 20;
		struct um_tree tree = p->tree;

		(void)um_tree_find(src, &tree, key, UM_SEEK_LE, NULL, val, sizeof(val), NULL);
		(void)um_tree_find(src, &tree, key, UM_SEEK_GE, NULL, val, sizeof(val), NULL);
		(void)um_tree_parents(src, &tree, key, &parents);
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
	make_clone(&e, pairs[0], pairs[1], 1200, 16, &seed);
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

static void damaged_roots_end_in_errors_only(void **state)
{
	struct engine e;
	struct pair *p = pair_new(&type_embed), *bad = pair_new(&type_embed);
	uint64_t seed = engine_seed();
	struct um_txn *txn;

	(void)state;
	engine_open(&e, 16, 2);
	txn = engine_begin(&e);
	for (unsigned i = 0; i < 12; i++)
		pair_change(&e, txn, p, 0, i * 10, 20, i, false);
	ok(um_txn_commit(txn));
	assert_int_equal(p->tree.root.format, UM_ROOT_EMBED);
	umbra_log_to(quiet, NULL);
	for (unsigned round = 0; round < 3000; round++) {
		uint8_t *at = (uint8_t *)&bad->tree.root;
		size_t span = sizeof(bad->tree.root);

		model_copy(&bad->now, &p->now);
		bad->tree = p->tree;
		if (rnd_below(&seed, 2)) {
			at = bad->tree.embed;
			span = rnd_below(&seed, 2) ? 160 : bad->tree.root.len;
		}
		for (uint64_t i = 1 + rnd_below(&seed, 3); i; i--)
			at[rnd_below(&seed, span)] = rnd(&seed) >> 30;
		exercise(&e, bad, &seed);
	}
	umbra_log_to(NULL, NULL);
	check_all(&e, &p, 1);
	free(p);
	free(bad);
	engine_close(&e);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ascending_inserts_leave_full_nodes),
		cmocka_unit_test(small_trees_are_embedded_in_as_few_bytes_as_possible),
		cmocka_unit_test(random_changes_match_a_sorted_array),
		cmocka_unit_test(random_changes_match_a_sorted_array_in_a_plain_file),
		cmocka_unit_test(deletes_shrink_the_tree_to_nothing),
		cmocka_unit_test(keys_below_a_removed_first_leaf_are_welcome),
		cmocka_unit_test(small_trees_become_nodes_to_be_shared),
		cmocka_unit_test(a_changed_clone_leaves_its_source_alone),
		cmocka_unit_test(dropping_a_shared_root_takes_one_step),
		cmocka_unit_test(truncating_keeps_what_is_before),
		cmocka_unit_test(a_tree_is_sound_between_the_steps_of_a_drop),
		cmocka_unit_test(a_child_count_at_its_limit_is_copied_instead),
		cmocka_unit_test(a_full_pool_fails_a_change_and_an_abort_undoes_it),
		cmocka_unit_test(readers_see_all_of_a_transaction_or_nothing),
		cmocka_unit_test(damaged_nodes_end_in_errors_only),
		cmocka_unit_test(damaged_roots_end_in_errors_only),
	};

	(void)argc;
	engine_without_pmem(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
