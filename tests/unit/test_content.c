/* SPDX-License-Identifier: BSD-3-Clause */
/* Identifiers of content: equal exactly as long as two files share everything. */
#include "datakit.h"

static struct umbra_content name_of(struct kit *k, uint64_t ino)
{
	struct umbra_content content;

	ok(umbra_content(k->fs, ino, &content));
	return content;
}

static bool same(struct kit *k, uint64_t a, uint64_t b)
{
	struct umbra_content x = name_of(k, a), y = name_of(k, b);

	return umbra_content_same(&x, &y);
}

static void put(struct kit *k, uint64_t ino, uint64_t off, size_t len, int byte)
{
	uint8_t *buf = malloc(len);

	assert_non_null(buf);
	memset(buf, byte, len);
	assert_int_equal(umbra_write(k->fs, ino, buf, len, off, 0, NULL), len);
	free(buf);
}

/* A file of as many extents as it has blocks: every other block is a hole. */
static uint64_t make(struct kit *k, const char *name, unsigned extents)
{
	uint64_t ino = file_ino(k, name);

	for (unsigned i = 0; i < extents; i++)
		put(k, ino, 2ull * i * B, B, (int)i);
	return ino;
}

static void a_clone_has_the_name_until_one_of_them_changes(void **state)
{
	static const unsigned extents[] = {1, 5, 500};
	struct kit k;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	for (unsigned i = 0; i < 3; i++) {
		char a_name[8], b_name[8];
		uint64_t a, b;

		snprintf(a_name, sizeof(a_name), "a%u", i);
		snprintf(b_name, sizeof(b_name), "b%u", i);
		a = make(&k, a_name, extents[i]);
		b = file_ino(&k, b_name);
		assert_int_equal(name_of(&k, a).owners, 1);
		assert_false(same(&k, a, b));
		ok(umbra_clone(k.fs, a, b));
		assert_true(same(&k, a, b));
		assert_int_equal(name_of(&k, a).owners, 2);
		put(&k, b, 0, 1, 99);
		assert_false(same(&k, a, b));
		ok(umbra_clone(k.fs, a, b));
		assert_true(same(&k, a, b));
		put(&k, a, 0, 1, 98);
		assert_false(same(&k, a, b));
	}
	kit_close(&k);
}

static void the_size_is_part_of_the_name(void **state)
{
	struct umbra_attr attr = {0}, out;
	struct kit k;
	uint64_t a, b;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	a = make(&k, "a", 3);
	b = file_ino(&k, "b");
	ok(umbra_clone(k.fs, a, b));
	attr.st.st_size = 100 * B;
	ok(umbra_setattr(k.fs, b, &attr, UMBRA_SET_SIZE, &out));
	assert_false(same(&k, a, b));
	kit_close(&k);
}

static void without_blocks_there_is_no_name(void **state)
{
	struct kit k;
	uint64_t a, b;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	a = file_ino(&k, "a");
	b = file_ino(&k, "b");
	assert_int_equal(name_of(&k, a).kind, UMBRA_CONTENT_NONE);
	put(&k, a, 0, 100, 1); /* in the record */
	ok(umbra_clone(k.fs, a, b));
	assert_int_equal(name_of(&k, a).kind, UMBRA_CONTENT_NONE);
	assert_false(same(&k, a, b));
	assert_int_equal(name_of(&k, UM_ROOT_INO).kind, UMBRA_CONTENT_NONE);
	kit_close(&k);
}

static void the_fewest_owners_count(void **state)
{
	struct umbra_content content;
	struct kit k;
	uint64_t a, b, c;

	(void)state;
	kit_open(&k, 64, UMBRA_DATA_ATOMIC);
	a = make(&k, "a", 4);
	b = file_ino(&k, "b");
	c = file_ino(&k, "c");
	ok(umbra_clone(k.fs, a, b));
	ok(umbra_clone(k.fs, a, c));
	assert_int_equal(name_of(&k, a).owners, 3);
	put(&k, c, 4 * B, B, 7);
	content = name_of(&k, a);
	assert_int_equal(content.owners, 2);
	assert_true(umbra_content_has(&content, content.lba));
	content = name_of(&k, c);
	assert_int_equal(content.owners, 1);
	assert_true(umbra_content_has(&content, content.lba));
	assert_false(umbra_content_has(&content, name_of(&k, a).lba));
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_clone_has_the_name_until_one_of_them_changes),
		cmocka_unit_test(the_size_is_part_of_the_name),
		cmocka_unit_test(without_blocks_there_is_no_name),
		cmocka_unit_test(the_fewest_owners_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
