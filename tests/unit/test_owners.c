/* SPDX-License-Identifier: BSD-3-Clause */
/* umbra_owners: which nodes lead to a file's blocks, and how many references all of them have. */
#include "datakit.h"

#define CAP (8u << 20)

/* What a whole walk over a file sees. */
struct seen {
	uint64_t blocks, once; /* in runs; of these, with one reference */
	unsigned leaves;
	struct umbra_owners last;
};

static struct seen walk(struct kit *k, const struct file *f)
{
	struct seen seen = {0};
	uint64_t first = 0, leaf = 0;

	while (first != UINT64_MAX) {
		struct umbra_owners *o = &seen.last;

		ok(umbra_owners(k->fs, f->ino, first, o));
		assert_true(o->next > first);
		if (o->nnode && o->node[o->nnode - 1].lba != leaf) {
			leaf = o->node[o->nnode - 1].lba;
			seen.leaves++;
		}
		for (unsigned i = 0; i < o->nrun; i++) {
			seen.blocks += o->run[i].len;
			if (o->run[i].refs == 1)
				seen.once += o->run[i].len;
		}
		first = o->next;
	}
	assert_int_equal(seen.blocks, seen.last.blocks);
	return seen;
}

/* Every second block, so that each is an extent of its own. */
static void fragmented(struct kit *k, struct file *f, const char *name, unsigned n)
{
	file_make(k, f, name, CAP);
	for (unsigned i = 0; i < n; i++)
		file_write(k, f, (uint64_t)i * 2 * B, B, i);
}

static void every_block_is_seen_once_under_its_leaf(void **state)
{
	struct kit k;
	struct file f;
	struct seen seen;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	fragmented(&k, &f, "f", 700);
	seen = walk(&k, &f);
	assert_int_equal(seen.blocks, 700);
	assert_int_equal(seen.once, 700);
	assert_true(seen.leaves >= 700 / 143);
	assert_true(seen.last.nnode >= 2);
	assert_int_equal(seen.last.node[0].parents, 1);
	assert_true(seen.last.node[0].end == UINT64_MAX);
	file_free(&f);
	kit_close(&k);
}

static void a_clone_is_one_more_parent_of_the_root(void **state)
{
	struct file f, clone[3];
	struct seen seen;
	struct kit k;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	fragmented(&k, &f, "f", 700);
	for (unsigned i = 0; i < 3; i++) {
		const char *names[] = {"c0", "c1", "c2"};

		file_make(&k, &clone[i], names[i], CAP);
		ok(umbra_clone(k.fs, f.ino, clone[i].ino));
	}
	seen = walk(&k, &clone[1]);
	assert_int_equal(seen.once, 700);
	assert_int_equal(seen.last.node[0].parents, 4);
	assert_int_equal(seen.last.node[1].parents, 1);

	/* One changed block: its own path of nodes, which refers to all the rest a second time. */
	file_write(&k, &clone[0], 0, B, 1000);
	seen = walk(&k, &clone[0]);
	assert_int_equal(seen.last.node[0].parents, 1);
	assert_int_equal(seen.last.node[1].parents, 2);
	seen = walk(&k, &f);
	assert_int_equal(seen.last.node[0].parents, 3);
	for (unsigned i = 0; i < 3; i++)
		file_free(&clone[i]);
	file_free(&f);
	kit_close(&k);
}

static void small_files_hold_their_blocks_themselves(void **state)
{
	struct umbra_owners o;
	struct kit k;
	struct file f;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	file_make(&k, &f, "f", CAP);
	ok(umbra_owners(k.fs, f.ino, 0, &o));
	assert_int_equal(o.nnode + o.nrun + o.blocks + o.inline_bytes, 0);
	file_write(&k, &f, 0, 100, 1);
	ok(umbra_owners(k.fs, f.ino, 0, &o));
	assert_int_equal(o.inline_bytes, 100);
	file_write(&k, &f, 0, 3 * B, 2);
	ok(umbra_owners(k.fs, f.ino, 0, &o));
	assert_int_equal(o.nnode, 0);
	assert_int_equal(o.blocks, 3);
	assert_true(o.nrun >= 1);
	assert_int_equal(umbra_owners(k.fs, UM_ROOT_INO, 0, &o), -EISDIR);
	file_free(&f);
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_block_is_seen_once_under_its_leaf),
		cmocka_unit_test(a_clone_is_one_more_parent_of_the_root),
		cmocka_unit_test(small_files_hold_their_blocks_themselves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
