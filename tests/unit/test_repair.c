/* SPDX-License-Identifier: BSD-3-Clause */
/* The checker against contradictions in valid blocks, made with the engine's own functions: each is
 * reported under its code, is repaired, and costs nothing that was not damaged. */
#include "check_fixture.h"

#include "fs/data.h"
#include "pool/backend.h"

/* ---- inconsistencies made by the engine's own hands ------------------------------------------------------------- */

struct hands {
	struct um_pool *pool;
	struct um_log *log;
	struct um_space *space;
	struct um_txn *txn;
};

static struct hands hands_begin(void)
{
	struct hands h;

	reset();
	assert_int_equal(um_pool_open_image(image, SIZE, UM_POOL_EXCL, &h.pool), 0);
	assert_int_equal(um_log_open(h.pool, &h.log), 0);
	assert_int_equal(um_space_open(h.log, &h.space), 0);
	um_log_set_space(h.log, h.space);
	assert_int_equal(um_txn_begin(h.log, 0, &h.txn), 0);
	return h;
}

static void hands_end(struct hands *h)
{
	assert_int_equal(um_txn_commit(h->txn), 0);
	assert_int_equal(um_log_close(h->log), 0);
	um_space_close(h->space);
	um_pool_close(h->pool);
}

static struct um_inode load(struct hands *h, uint64_t ino)
{
	struct um_inode inode;

	assert_int_equal(um_inode_load(um_txn_src(h->txn), ino, &inode), 0);
	return inode;
}

static uint64_t find(struct hands *h, uint64_t dir, const char *name, uint64_t *out_key)
{
	struct um_inode inode = load(h, dir);
	struct um_dent dent;

	assert_int_equal(um_dir_find(um_txn_src(h->txn), &inode, name, strlen(name), &dent), 0);
	if (out_key)
		*out_key = dent.key;
	return dent.ino;
}

static void store(struct hands *h, const struct um_inode *inode)
{
	assert_int_equal(um_inode_store(h->txn, inode), 0);
}

/* The damage shows under this code, a repair mends it, and no inode is lost. */
static void assert_mended(const char *code, int64_t inodes_more)
{
	struct umbra_check_report report = check(UMBRA_CHECK_ONLY);

	if (!saw(code))
		fail_msg("not seen: %s; only %s", code, seen_codes);
	assert_true(report.unrepaired > 0);
	report = check(UMBRA_CHECK_REPAIR);
	if (report.unrepaired)
		fail_msg("%s: %" PRIu64 " unrepaired", code, report.unrepaired);
	assert_int_equal(report.inodes, pristine_inodes + (uint64_t)inodes_more);
	assert_clean(code);
	assert_usable(code);
}

static void a_wrong_link_count_is_corrected(void **state)
{
	struct hands h = hands_begin();
	struct um_inode inode = load(&h, find(&h, ROOT, "second name of holes", NULL));

	(void)state;
	inode.core.nlink = 7;
	store(&h, &inode);
	inode = load(&h, find(&h, ROOT, "others", NULL));
	inode.core.nlink = 1;
	store(&h, &inode);
	hands_end(&h);
	assert_mended("nlink", 0);
}

static void an_inode_without_a_name_goes_to_lost_found(void **state)
{
	struct hands h = hands_begin();
	uint64_t key, ino = find(&h, ROOT, "many", &key);
	struct um_inode root = load(&h, ROOT);
	struct umbra_attr attr;
	struct umbra_fs *fs;
	char name[32];

	(void)state;
	assert_int_equal(um_dir_remove(h.txn, &root, key), 0);
	store(&h, &root);
	hands_end(&h);
	assert_mended("unreachable", 1);
	assert_int_equal(umbra_open_image(image, SIZE, NULL, &fs), 0);
	assert_int_equal(umbra_lookup(fs, ROOT, "lost+found", &attr), 0);
	snprintf(name, sizeof(name), "#%" PRIu64, ino);
	assert_int_equal(umbra_lookup(fs, attr.st.st_ino, name, &attr), 0);
	assert_int_equal(attr.st.st_ino, ino);
	assert_int_equal(attr.st.st_nlink, 2);
	assert_int_equal(umbra_close(fs), 0);
}

static void an_entry_for_nothing_is_removed(void **state)
{
	struct hands h = hands_begin();
	struct um_inode dir = load(&h, find(&h, ROOT, "others", NULL));
	struct um_inode ghost = {.ino = 999999, .core.mode = S_IFREG};

	(void)state;
	assert_int_equal(um_dir_add(h.txn, &dir, "ghost", 5, &ghost), 0);
	store(&h, &dir);
	hands_end(&h);
	assert_mended("dirent", 0);
}

static void an_entry_of_the_wrong_type_is_corrected(void **state)
{
	struct hands h = hands_begin();
	struct um_inode dir = load(&h, find(&h, ROOT, "others", NULL)), child;
	uint64_t key;

	(void)state;
	child = load(&h, find(&h, dir.ino, "fifo", &key));
	child.core.mode = S_IFSOCK;
	assert_int_equal(um_dir_point(h.txn, &dir, key, "fifo", 4, &child), 0);
	store(&h, &dir);
	hands_end(&h);
	assert_mended("dirent", 0);
}

static void a_directory_with_two_names_keeps_its_own(void **state)
{
	struct hands h = hands_begin();
	uint64_t others = find(&h, ROOT, "others", NULL), a = find(&h, others, "a", NULL);
	struct um_inode root = load(&h, ROOT), inode = load(&h, a);
	struct umbra_attr attr;
	struct umbra_fs *fs;

	(void)state;
	assert_int_equal(um_dir_add(h.txn, &root, "another a", 9, &inode), 0);
	store(&h, &root);
	hands_end(&h);
	assert_mended("dirent", 0);
	assert_int_equal(umbra_open_image(image, SIZE, NULL, &fs), 0);
	assert_int_equal(umbra_lookup(fs, ROOT, "another a", &attr), -ENOENT);
	assert_int_equal(umbra_lookup(fs, others, "a", &attr), 0);
	assert_int_equal(umbra_close(fs), 0);
}

static void a_circle_of_directories_is_cut(void **state)
{
	struct hands h = hands_begin();
	uint64_t key, others = find(&h, ROOT, "others", NULL), a = find(&h, others, "a", &key);
	struct um_inode dir = load(&h, others), inode_a = load(&h, a), inode_c;
	uint64_t b = find(&h, a, "b", NULL);

	(void)state;
	inode_c = load(&h, find(&h, b, "c", NULL));
	assert_int_equal(um_dir_remove(h.txn, &dir, key), 0);
	store(&h, &dir);
	assert_int_equal(um_dir_add(h.txn, &inode_c, "a", 1, &inode_a), 0);
	store(&h, &inode_c);
	inode_a.core.parent = inode_c.ino;
	store(&h, &inode_a);
	hands_end(&h);
	assert_mended("loop", 1);
}

static void wrong_sizes_blocks_and_parents_are_corrected(void **state)
{
	struct hands h = hands_begin();
	struct um_inode inode = load(&h, find(&h, ROOT, "second name of holes", NULL));

	(void)state;
	inode.core.blocks++;
	store(&h, &inode);
	inode = load(&h, find(&h, ROOT, "many", NULL));
	inode.core.size = 3;
	inode.core.parent = 77;
	store(&h, &inode);
	hands_end(&h);
	check(UMBRA_CHECK_ONLY);
	assert_true(saw("blocks") && saw("size") && saw("parent"));
	assert_mended("parent", 0);
}

static void a_record_of_no_known_type_costs_that_inode_only(void **state)
{
	struct hands h = hands_begin();
	uint64_t others = find(&h, ROOT, "others", NULL);
	struct um_inode inode = load(&h, find(&h, others, "fifo", NULL));

	(void)state;
	inode.core.mode = 0600;
	store(&h, &inode);
	hands_end(&h);
	assert_mended("inode", -1);
}

static void leaked_blocks_are_freed_by_preen(void **state)
{
	struct hands h = hands_begin();
	struct umbra_check_report report, before;
	um_lba_t lba;
	uint32_t n;

	(void)state;
	assert_int_equal(um_space_take(h.space, 0, 20, 0, &lba, &n), 0);
	assert_int_equal(um_ref_alloc(h.txn, lba, n), 0);
	hands_end(&h);
	before = check(UMBRA_CHECK_ONLY);
	assert_true(saw("leak"));
	report = check(UMBRA_CHECK_PREEN);
	assert_int_equal(report.unrepaired, 0);
	assert_int_equal(report.blocks_used, before.blocks_used);
	assert_clean("leak");
}

static void counts_too_low_are_not_preened_but_repaired(void **state)
{
	struct hands h = hands_begin();
	struct umbra_check_report report;
	struct um_inode inode = load(&h, find(&h, ROOT, "second name of holes", NULL));

	(void)state;
	/* Shared with three clones: one reference less than there are. */
	assert_int_equal(inode.core.data.format, UM_ROOT_NODE);
	assert_int_equal(um_ref_put(h.txn, inode.core.data.ptr.lba, 1, true, NULL), 0);
	hands_end(&h);
	report = check(UMBRA_CHECK_PREEN);
	assert_true(report.unrepaired > 0);
	assert_mended("refcount", 0);
}

static void orphan_records_must_fit_their_inodes(void **state)
{
	struct hands h = hands_begin();
	uint64_t ino = find(&h, ROOT, "second name of holes", NULL);

	(void)state;
	assert_int_equal(um_orphan_add(h.txn, ino, UM_ORPHAN_UNLINKED, 0), 0);
	assert_int_equal(um_orphan_add(h.txn, 888888, UM_ORPHAN_TRUNCATE, 1), 0);
	hands_end(&h);
	assert_mended("orphan", 0);
}

static void a_second_owner_of_data_is_counted(void **state)
{
	struct hands h = hands_begin();
	uint64_t files = find(&h, ROOT, "files", NULL);
	struct um_inode plain = load(&h, find(&h, files, "plain", NULL));
	struct um_inode small = load(&h, find(&h, files, "small", NULL));

	(void)state;
	assert_int_equal(plain.core.data.format, UM_ROOT_EMBED);
	small.core.data = plain.core.data;
	small.core.blocks = plain.core.blocks;
	small.core.size = plain.core.size;
	memcpy(small.data, plain.data, sizeof(small.data));
	store(&h, &small);
	hands_end(&h);
	assert_mended("refcount", 0);
}

static void data_that_is_metadata_is_taken_from_the_file(void **state)
{
	struct hands h = hands_begin();
	uint64_t files = find(&h, ROOT, "files", NULL);
	struct um_inode small = load(&h, find(&h, files, "small", NULL));
	struct um_inode holes = load(&h, find(&h, files, "holes", NULL));
	struct um_extent extent = {.addr = holes.core.data.ptr.lba, .len = 1};
	struct um_tree tree;

	(void)state;
	memset(&small.core.data, 0, sizeof(small.core.data));
	um_inode_tree(&small, UM_FORK_DATA, &tree);
	assert_int_equal(um_tree_insert(h.txn, &tree, 0, &extent, sizeof(extent)), 0);
	um_inode_set_tree(&small, UM_FORK_DATA, &tree);
	small.core.blocks = 1;
	store(&h, &small);
	hands_end(&h);
	assert_mended("conflict", 0);
}

static void without_a_root_directory_everything_is_in_lost_found(void **state)
{
	struct hands h = hands_begin();

	(void)state;
	assert_int_equal(um_inode_remove(h.txn, UM_ROOT_INO), 0);
	hands_end(&h);
	assert_mended("root", 1);
}

/* What a file, some bytes long, reads as; the pool is mounted for it. */
static void assert_reads(const char *name, uint64_t off, size_t len, int byte)
{
	struct umbra_attr dir, attr;
	uint8_t buf[8192];
	struct umbra_fs *fs;

	assert_int_equal(umbra_open_image(image, SIZE, NULL, &fs), 0);
	assert_int_equal(umbra_lookup(fs, ROOT, "files", &dir), 0);
	assert_int_equal(umbra_lookup(fs, dir.st.st_ino, name, &attr), 0);
	assert_true(len <= sizeof(buf));
	assert_int_equal(umbra_read(fs, attr.st.st_ino, buf, len, off), len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], byte);
	assert_int_equal(umbra_close(fs), 0);
}

static void blocks_behind_the_end_are_dropped(void **state)
{
	static const char *const names[] = {"plain", "holes", "clone0"};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct hands h = hands_begin();
		struct um_inode file =
			load(&h, find(&h, find(&h, ROOT, "files", NULL), names[i], NULL));

		file.core.size = i ? 100 * 8192 + 100 : 16 * 4096;
		store(&h, &file);
		hands_end(&h);
		assert_mended("eof", 0);
		assert_reads(names[i], 0, 4096, i ? 'h' : 'p');
		if (i) /* what shares its nodes has kept all */
			assert_reads("clone1", 300 * 8192, 4096, 'h');
	}
}

static void bytes_behind_the_end_become_zeros(void **state)
{
	static const uint64_t sizes[] = {300000 - 5, 399 * 8192 + 1000, 399 * 8192 + 1000};
	static const char *const names[] = {"plain", "holes", "clone0"};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct hands h = hands_begin();
		struct um_inode file =
			load(&h, find(&h, find(&h, ROOT, "files", NULL), names[i], NULL));

		file.core.size = sizes[i];
		store(&h, &file);
		hands_end(&h);
		assert_mended("eof", 0);
		assert_reads(names[i], sizes[i] - 900, 900, i ? 'h' : 'p');
		if (i)
			assert_reads("clone1", 399 * 8192, 4096, 'h');
	}
}

/* The only copy left of a node says that it is another one: that one must not be written over. */
static void a_copy_with_the_address_of_another_node_harms_nobody(void **state)
{
	struct hands h = hands_begin();
	uint64_t files = find(&h, ROOT, "files", NULL);
	struct um_ptr lost = load(&h, find(&h, files, "holes", NULL)).core.data.ptr;
	struct um_ptr other = load(&h, find(&h, files, "clone0", NULL)).core.data.ptr;
	struct um_block_hdr *hdr = (void *)(image + lost.mirror * UM_BLOCK_SIZE);

	(void)state;
	hands_end(&h);
	memset(image + lost.lba * UM_BLOCK_SIZE, 0, UM_BLOCK_SIZE);
	hdr->lba = other.lba;
	um_block_seal(hdr);
	check(UMBRA_CHECK_REPAIR);
	assert_clean("after repair");
	assert_reads("clone0", 8192 * 200, 4096, 'c');
	assert_reads("clone1", 8192 * 200, 4096, 'c');
	/* It was still there in its other copy; but then with counts that were another's. */
	assert_usable("after repair");
}

/* A header says that the mirror is where a file has data, and there is no other copy to say where
 * it was. */
static void a_header_with_a_wrong_mirror_costs_no_data(void **state)
{
	struct hands h = hands_begin();
	uint64_t files = find(&h, ROOT, "files", NULL);
	struct um_inode plain = load(&h, find(&h, files, "plain", NULL));
	struct um_ptr node = load(&h, find(&h, files, "holes", NULL)).core.data.ptr;
	struct um_block_hdr *hdr = (void *)(image + node.lba * UM_BLOCK_SIZE);
	struct um_tree tree;
	struct um_run run;
	unsigned n;

	(void)state;
	um_inode_tree(&plain, UM_FORK_DATA, &tree);
	assert_int_equal(um_runs_get(um_txn_src(h.txn), &tree, 3, 1, 0, &run, 1, &n), 0);
	assert_int_equal(n, 1);
	hands_end(&h);
	memset(image + node.mirror * UM_BLOCK_SIZE, 0, UM_BLOCK_SIZE);
	hdr->mirror = run.lba;
	um_block_seal(hdr);
	check(UMBRA_CHECK_REPAIR);
	assert_clean("after repair");
	assert_reads("plain", 3 * 4096, 4096, 'p');
	assert_reads("holes", 8192 * 200, 4096, 'h');
	assert_usable("after repair");
}

/* Of a shared node one owner has the right first copy and a wrong second one. */
static void each_owner_of_a_shared_node_has_both_its_copies(void **state)
{
	struct hands h = hands_begin();
	uint64_t files = find(&h, ROOT, "files", NULL);
	struct um_inode holes = load(&h, find(&h, files, "holes", NULL));
	struct um_inode clone = load(&h, find(&h, files, "clone0", NULL));

	(void)state;
	clone.core.data.ptr = (struct um_ptr){holes.core.data.ptr.lba, clone.core.data.ptr.mirror};
	store(&h, &clone);
	hands_end(&h);
	assert_mended("pointer", 0);
	assert_reads("clone0", 8192 * 200, 4096, 'h');
}

/* ---- a repair that ends in a power cut ------------------------------------------------------------------------- */

#define SECTOR 512u
#define PENDING 4096u

/* A plain file, of which the medium has what was written before the last barrier and any sectors of
 * what was written since. */
static struct {
	struct um_pool_ops ops;
	const struct um_pool_ops *real;
	uint8_t *medium, *torn;
	struct {
		uint64_t off;
		size_t len;
	} write[PENDING];
	unsigned n, cuts;
} cut;

static int cut_write(struct um_pool *pool, uint64_t off, const void *src, size_t len)
{
	assert_true(cut.n < PENDING);
	cut.write[cut.n].off = off;
	cut.write[cut.n++].len = len;
	return cut.real->write(pool, off, src, len);
}

static int cut_writeback(struct um_pool *pool, um_lba_t lba, const void *images, uint32_t n)
{
	return cut_write(pool, lba * UM_BLOCK_SIZE, images, (size_t)n * UM_BLOCK_SIZE);
}

static void cut_giveback(struct um_pool *pool, um_lba_t lba, uint32_t n)
{
	(void)pool, (void)lba, (void)n;
}

static void apply_writes(uint8_t *to, uint64_t step)
{
	for (unsigned i = 0; i < cut.n; i++)
		for (uint64_t at = 0; at < cut.write[i].len; at += step) {
			uint64_t len = cut.write[i].len - at;

			memcpy(to + cut.write[i].off + at, image + cut.write[i].off + at,
				len < SECTOR ? len : SECTOR);
		}
}

/* Every other sector: what has both its copies among the writes has none any more. */
static int cut_barrier(struct um_pool *pool)
{
	void (*hook)(struct um_pool *) = um_image_hook;
	struct umbra_check_report again;

	(void)pool;
	if (cut.n) {
		memcpy(cut.torn, cut.medium, SIZE);
		apply_writes(cut.torn, 2 * SECTOR);
		um_image_hook = NULL;
		assert_int_equal(
			umbra_check_image(cut.torn, SIZE, UMBRA_CHECK_REPAIR, NULL, NULL, &again),
			0);
		um_image_hook = hook;
		assert_int_equal(again.unrepaired, 0);
		assert_int_equal(again.inodes, pristine_inodes);
		cut.cuts++;
	}
	apply_writes(cut.medium, SECTOR);
	cut.n = 0;
	return 0;
}

static void cut_hook(struct um_pool *pool)
{
	cut.real = pool->ops;
	cut.ops = *pool->ops;
	cut.ops.write = cut_write;
	cut.ops.writeback = cut_writeback;
	cut.ops.giveback = cut_giveback;
	cut.ops.barrier = cut_barrier;
	pool->ops = &cut.ops;
	pool->direct = false;
}

static void a_power_cut_during_a_repair_costs_nothing(void **state)
{
	struct hands h = hands_begin();
	unsigned wrong = 0;

	(void)state;
	for (uint64_t ino = UM_ROOT_INO + 1; wrong < 60; ino++) {
		struct um_inode inode;

		if (um_inode_load(um_txn_src(h.txn), ino, &inode) || !S_ISREG(inode.core.mode) ||
			inode.core.nlink != 1)
			continue;
		inode.core.nlink = 7;
		store(&h, &inode);
		wrong++;
	}
	hands_end(&h);
	memset(&cut, 0, sizeof(cut));
	cut.medium = new_image(SIZE);
	cut.torn = new_image(SIZE);
	memcpy(cut.medium, image, SIZE);
	um_image_hook = cut_hook;
	check(UMBRA_CHECK_REPAIR);
	um_image_hook = NULL;
	assert_true(saw("nlink"));
	assert_true(cut.cuts > 0);
	assert_clean("after it");
	munmap(cut.medium, SIZE);
	munmap(cut.torn, SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wrong_link_count_is_corrected),
		cmocka_unit_test(an_inode_without_a_name_goes_to_lost_found),
		cmocka_unit_test(an_entry_for_nothing_is_removed),
		cmocka_unit_test(an_entry_of_the_wrong_type_is_corrected),
		cmocka_unit_test(a_directory_with_two_names_keeps_its_own),
		cmocka_unit_test(a_circle_of_directories_is_cut),
		cmocka_unit_test(wrong_sizes_blocks_and_parents_are_corrected),
		cmocka_unit_test(a_record_of_no_known_type_costs_that_inode_only),
		cmocka_unit_test(leaked_blocks_are_freed_by_preen),
		cmocka_unit_test(counts_too_low_are_not_preened_but_repaired),
		cmocka_unit_test(orphan_records_must_fit_their_inodes),
		cmocka_unit_test(a_second_owner_of_data_is_counted),
		cmocka_unit_test(data_that_is_metadata_is_taken_from_the_file),
		cmocka_unit_test(blocks_behind_the_end_are_dropped),
		cmocka_unit_test(bytes_behind_the_end_become_zeros),
		cmocka_unit_test(a_copy_with_the_address_of_another_node_harms_nobody),
		cmocka_unit_test(a_header_with_a_wrong_mirror_costs_no_data),
		cmocka_unit_test(each_owner_of_a_shared_node_has_both_its_copies),
		cmocka_unit_test(without_a_root_directory_everything_is_in_lost_found),
		cmocka_unit_test(a_power_cut_during_a_repair_costs_nothing),
	};

	return cmocka_run_group_tests(tests, build, drop);
}
