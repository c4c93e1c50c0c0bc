/* SPDX-License-Identifier: BSD-3-Clause */
/* The medium: sizes, offsets, places and checksums as documented in FORMAT.md. */
#include "engine.h"

#include <errno.h>

#include "txn/internal.h"

#define at(type, field, offset) assert_int_equal(offsetof(struct type, field), offset)
#define size(type, bytes) assert_int_equal(sizeof(struct type), bytes)

static void structures_have_their_sizes_and_offsets(void **state)
{
	(void)state;
	size(um_ptr, 16);
	size(um_block_hdr, 64);
	at(um_block_hdr, csum, 8);
	at(um_block_hdr, lba, 16);
	at(um_block_hdr, mirror, 24);
	at(um_block_hdr, uuid, 32);
	at(um_block_hdr, birth, 48);
	at(um_block_hdr, owner, 56);
	size(um_super, 4088);
	at(um_super, magic, 64);
	at(um_super, version, 72);
	at(um_super, nchunks, 80);
	at(um_super, compat, 88);
	at(um_super, journal_lba, 112);
	at(um_super, hash_seed, 136);
	at(um_super, root, 152);
	at(um_super, copies, 168);
	at(um_super, label, 176);
	at(um_super, nseams, 240);
	at(um_super, seam, 248);
	size(um_ag, 4096);
	at(um_ag, word, 64);
	size(um_refs, 4096);
	at(um_refs, count, 64);
	at(um_pool_root, next_ino, 64);
	at(um_pool_root, inodes, 104);
	at(um_pool_root, orphans, 128);
	size(um_inode_core, 176);
	at(um_inode_core, atime, 32);
	at(um_inode_core, data, 128);
	size(um_extent, 16);
	size(um_dirent, 10);
	size(um_xattr, 8);
	at(um_journal, boot_id, 64);
	at(um_journal, first_seq, 80);
	at(um_journal, mode, 88);
	at(um_journal, tail, 128);
	at(um_journal, tail_seq, 136);
	size(um_record, 64);
	at(um_record, csum, 24);
	at(um_record, nentry, 32);
	at(um_record, covers, 40);
	size(um_entry, 32);
	at(um_entry, off, 16);
	at(um_entry, type, 18);
	at(um_entry, len, 20);
	at(um_entry, value, 24);
}

static void a_checksum_is_known_and_covers_every_byte(void **state)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_pool pool = {0};
	struct um_block_hdr *hdr = (void *)block;
	const char *why;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i * 7);
	/* XXH3-64 of these bytes with 8..15 as zero, from the xxhash library's one-shot
	 * function. */
	assert_true(um_block_csum(block) == 0x916efd0d19864472ull);

	um_block_init(&pool, block, UM_KIND_EXTENTS, 3, (struct um_ptr){77, 999}, 5, 6);
	um_block_seal(block);
	assert_int_equal(hdr->magic, 0x07424d55);
	assert_true(hdr->csum == um_block_csum(block));
	ok(um_block_verify(&pool, block, 77, UM_KIND_EXTENTS, &why));
	ok(um_block_verify(&pool, block, 999, UM_KIND_EXTENTS, &why));
	assert_int_equal(um_block_verify(&pool, block, 78, UM_KIND_EXTENTS, &why), -EUCLEAN);
	assert_string_equal(why, "wrong address");
	assert_int_equal(um_block_verify(&pool, block, 77, UM_KIND_DIR, &why), -EUCLEAN);
	for (i = 0; i < sizeof(block); i++) {
		block[i] ^= 0x10;
		assert_int_equal(
			um_block_verify(&pool, block, 77, UM_KIND_EXTENTS, &why), -EUCLEAN);
		block[i] ^= 0x10;
	}
	pool.super.hdr.uuid[15] = 1;
	assert_int_equal(um_block_verify(&pool, block, 77, UM_KIND_EXTENTS, &why), -EUCLEAN);
	assert_string_equal(why, "of another pool");
}

static void groups_and_tables_are_where_they_should_be(void **state)
{
	struct um_pool pool = {.super.copies = 2};
	uint64_t used;

	(void)state;
	assert_int_equal(um_pool_groups(0, &used), 0);
	assert_int_equal(um_pool_groups(3, &used), 0);
	assert_int_equal(um_pool_groups(4, &used), 1);
	assert_int_equal(used, 4);
	assert_int_equal(um_pool_groups(504, &used), 1);
	assert_int_equal(um_pool_groups(507, &used), 1);
	assert_int_equal(used, 504);
	assert_int_equal(um_pool_groups(508, &used), 2);
	assert_int_equal(used, 508);

	assert_int_equal(um_super_mirror(8), 7 * 512);
	assert_int_equal(um_super_mirror(504), 503 * 512);
	assert_int_equal(um_super_mirror(100000), 503 * 512);
	assert_int_equal(um_super_mirror(2), 0);

	pool.nags = um_pool_groups(520, &pool.super.nchunks);
	pool.nchunks = pool.super.nchunks;
	assert_int_equal(um_ag_chunks(&pool, 0), 504);
	assert_int_equal(um_ag_chunks(&pool, 1), 16);
	assert_int_equal(um_ag_chunks(&pool, 2), 0);
	assert_int_equal(um_ag_ptr(&pool, 0).lba, 1);
	assert_int_equal(um_ag_ptr(&pool, 0).mirror, 503 * 512 + 1);
	assert_int_equal(um_ag_ptr(&pool, 1).lba, 504 * 512 + 1);
	assert_int_equal(um_ag_ptr(&pool, 1).mirror, 519 * 512 + 1);
	assert_int_equal(um_ag_ptr(&pool, 2).lba, 0);
	assert_int_equal(um_refs_ptr(&pool, 505).lba, 504 * 512 + 9);
	pool.super.copies = 1;
	assert_int_equal(um_refs_ptr(&pool, 503).lba, 8 + 503);
	assert_int_equal(um_refs_ptr(&pool, 503).mirror, 0);
}

static void a_pool_that_grew_has_its_groups_where_the_seams_are(void **state)
{
	struct um_pool pool = {.super = {.nchunks = 100, .copies = 2}};
	struct um_super super;

	(void)state;
	assert_int_equal(um_super_grow(&pool.super, 100, &super), -EINVAL);
	assert_int_equal(um_super_grow(&pool.super, 103, &super), -EINVAL);
	ok(um_super_grow(&pool.super, 100 + 504 + 3, &super));
	assert_int_equal(super.nchunks, 604);
	assert_int_equal(super.nseams, 1);
	assert_int_equal(super.incompat, UM_INCOMPAT_SEAMS);
	/* The last group is a whole one: no seam behind it. */
	ok(um_super_grow(&super, 604 + 504 + 20, &super));
	assert_int_equal(super.nseams, 1);
	assert_int_equal(super.nchunks, 604 + 504 + 20);
	ok(um_super_grow(&super, 5000, &super));
	assert_int_equal(super.nseams, 2);
	assert_int_equal(super.seam[1].chunk, 1128);
	assert_int_equal(super.seam[1].group, 4);
	assert_true(um_super_shape_ok(&super));
	pool.super = super;
	assert_int_equal(um_super_second(&super), 99 * 512);
	assert_int_equal(um_ag_chunks(&pool, 0), 100);
	assert_int_equal(um_ag_chunks(&pool, 1), 504);
	assert_int_equal(um_ag_chunks(&pool, 3), 20);
	assert_int_equal(um_ag_first(&super, 3), 1108);
	assert_int_equal(um_ag_first(&super, 4), 1128);
	assert_int_equal(um_chunk_place(&super, 1127).ag, 3);
	assert_int_equal(um_chunk_place(&super, 1127).i, 19);
	assert_int_equal(um_chunk_place(&super, 1128).ag, 4);
	assert_int_equal(um_refs_ptr(&pool, 101).lba, 100 * 512 + 9);
	assert_int_equal(um_refs_ptr(&pool, 101).mirror, 603 * 512 + 9);
	for (uint32_t ag = 0, next = 0; ag < um_super_groups(&super); ag++) {
		assert_int_equal(um_ag_first(&super, ag), next);
		next += um_ag_chunks(&pool, ag);
		assert_int_equal(um_chunk_place(&super, next - 1).ag, ag);
		assert_int_equal(next == super.nchunks, ag + 1 == um_super_groups(&super));
	}
	super.seam[1].group++;
	assert_false(um_super_shape_ok(&super));
	super.seam[1].group--;
	super.seam[1].chunk = super.nchunks;
	assert_false(um_super_shape_ok(&super));
}

static void seams_come_to_an_end(void **state)
{
	struct um_super super = {.nchunks = 8, .copies = 2};
	unsigned n;

	(void)state;
	for (n = 0; n < UM_SEAMS_MAX; n++)
		ok(um_super_grow(&super, super.nchunks + 4, &super));
	assert_true(um_super_shape_ok(&super));
	assert_int_equal(um_super_groups(&super), UM_SEAMS_MAX + 1);
	assert_int_equal(um_super_grow(&super, super.nchunks + 4, &super), -E2BIG);
}

/* ---- differences ------------------------------------------------------------------------------- */

static void play(const struct um_buf *buf, uint32_t n, uint8_t *block)
{
	const uint8_t *next = buf->at;

	while (n--) {
		const struct um_entry *entry = (const void *)next;

		assert_int_equal(entry->lba, 9);
		assert_int_equal(entry->mirror, 10);
		assert_true(entry->off + entry->len <= UM_BLOCK_SIZE);
		if (entry->type == UM_ENTRY_BYTES)
			memcpy(block + entry->off, entry + 1, entry->len);
		else
			for (uint32_t i = 0; i < entry->len; i += 4)
				memcpy(block + entry->off + i, &entry->value, 4);
		next += um_entry_size(entry);
	}
	assert_ptr_equal(next, buf->at + buf->len);
}

static void random_differences_play_back(void **state)
{
	static uint8_t was[UM_BLOCK_SIZE], now[UM_BLOCK_SIZE], got[UM_BLOCK_SIZE];
	struct um_ptr ptr = {9, 10};
	struct um_buf buf = {0};
	unsigned seed = 1, round, i, changes;

	(void)state;
	for (round = 0; round < 5000; round++) {
		memcpy(now, was, sizeof(now));
		changes = (unsigned)rand_r(&seed) % 40;
		for (i = 0; i < changes; i++) {
			unsigned off = (unsigned)rand_r(&seed) % UM_BLOCK_SIZE;
			unsigned len = 1u << rand_r(&seed) % 10;

			if (off + len > UM_BLOCK_SIZE)
				len = UM_BLOCK_SIZE - off;
			if (rand_r(&seed) % 2)
				off &= ~3u;
			memset(now + off, rand_r(&seed), len);
		}
		buf.len = 0;
		ok(um_buf_reserve(&buf, UM_DIFF_MAX));
		memcpy(got, was, sizeof(got));
		play(&buf, um_diff_block(&buf, ptr, was, now), got);
		assert_true(buf.len <= UM_DIFF_MAX);
		assert_memory_equal(got, now, sizeof(got));
		buf.len = 0;
		memset(got, 0x99, sizeof(got));
		play(&buf, um_diff_block(&buf, ptr, NULL, now), got);
		assert_memory_equal(got, now, sizeof(got));
		memcpy(was, now, sizeof(was));
	}
	free(buf.at);
}

static void small_changes_make_small_entries(void **state)
{
	static uint8_t was[UM_BLOCK_SIZE], now[UM_BLOCK_SIZE];
	struct um_ptr ptr = {9, 10};
	struct um_buf buf = {0};
	uint32_t *count = (uint32_t *)(now + 64), i;

	(void)state;
	ok(um_buf_reserve(&buf, UM_DIFF_MAX));
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 0);
	now[100] = 1;
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 1);
	assert_int_equal(buf.len, 40);
	/* Near changes share an entry, a far one has its own. */
	buf.len = 0;
	now[128] = 1;
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 1);
	now[1000] = 1;
	buf.len = 0;
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 2);
	/* 512 counts, the whole chunk: one entry without bytes, wherever the run begins. */
	memset(now, 0, sizeof(now));
	for (i = 0; i < 512; i++)
		count[i] = 3;
	buf.len = 0;
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 1);
	assert_int_equal(buf.len, 32);
	count[0] = 0;
	buf.len = 0;
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 1);
	assert_int_equal(buf.len, 32);
	count[511] = 0;
	buf.len = 0;
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 1);
	assert_int_equal(buf.len, 32);
	/* Half a word of another value beside the run. */
	count[0] = 1;
	buf.len = 0;
	assert_int_equal(um_diff_block(&buf, ptr, was, now), 2);
	assert_int_equal(buf.len, 32 + 40);
	free(buf.at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(structures_have_their_sizes_and_offsets),
		cmocka_unit_test(a_checksum_is_known_and_covers_every_byte),
		cmocka_unit_test(a_pool_that_grew_has_its_groups_where_the_seams_are),
		cmocka_unit_test(seams_come_to_an_end),
		cmocka_unit_test(groups_and_tables_are_where_they_should_be),
		cmocka_unit_test(random_differences_play_back),
		cmocka_unit_test(small_changes_make_small_entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
