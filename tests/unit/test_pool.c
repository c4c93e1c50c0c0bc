/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool: opening and its errors, locks, superblock repair, copies of blocks, failing memory. */
#include "pool_fixture.h"

#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#define CHUNKS 8u
#define JOURNAL 64u

static int try_open(unsigned flags)
{
	struct um_pool *pool;
	int ret = um_pool_open(fixture_path, flags, 0, &pool);

	if (!ret)
		um_pool_close(pool);
	return ret;
}

static struct um_pool *must_open(unsigned flags)
{
	struct um_pool *pool;

	ok(um_pool_open(fixture_path, flags, 0, &pool));
	return pool;
}

/* Changes the first superblock (and the second) behind everybody's back, checksum included. */
static void forge_super(void (*change)(struct um_super *super), bool both)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE];

	fixture_peek(0, block, sizeof(block));
	change((struct um_super *)block);
	um_block_seal(block);
	fixture_poke(0, block, sizeof(block));
	if (both)
		fixture_poke(um_super_mirror(CHUNKS) * UM_BLOCK_SIZE, block, sizeof(block));
}

static void newer_version(struct um_super *super)
{
	super->version = 99;
}
static void unknown_incompat(struct um_super *super)
{
	super->incompat = 1ull << 60;
}
static void unknown_ro_compat(struct um_super *super)
{
	super->ro_compat = 1ull << 60;
}
static void unknown_compat(struct um_super *super)
{
	super->compat = 1ull << 60;
}
static void huge(struct um_super *super)
{
	super->nchunks = ~0ull / UM_CHUNK_SIZE;
}
static void wild_journal(struct um_super *super)
{
	super->journal_lba = ~0ull - 3;
	super->journal_blocks = 64;
}
static void overlapping_journals(struct um_super *super)
{
	super->journal_mirror = super->journal_lba + 1;
}

static void what_is_no_pool_is_refused(void **state)
{
	char junk[8192];
	struct um_pool *pool;
	unsigned seed = 1, i;

	(void)state;
	assert_int_equal(um_pool_open("/nonexistent", UM_POOL_EXCL, 0, &pool), -ENOENT);
	assert_int_equal(um_pool_open("/tmp", UM_POOL_RDONLY, 0, &pool), -EISDIR);
	assert_int_equal(um_pool_open("/dev/null", UM_POOL_RDONLY, 0, &pool), -ENOTBLK);
	ok(truncate(fixture_path, 0));
	assert_int_equal(try_open(UM_POOL_EXCL), -EMEDIUMTYPE);
	ok(truncate(fixture_path, 100));
	assert_int_equal(try_open(UM_POOL_EXCL), -EMEDIUMTYPE);
	ok(truncate(fixture_path, 32 << 20));
	assert_int_equal(try_open(UM_POOL_EXCL), -EMEDIUMTYPE);
	for (i = 0; i < sizeof(junk); i++)
		junk[i] = (char)rand_r(&seed);
	fixture_poke(0, junk, sizeof(junk));
	assert_int_equal(try_open(UM_POOL_EXCL), -EMEDIUMTYPE);
}

static void unknown_features_are_honoured(void **state)
{
	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	forge_super(unknown_compat, true);
	ok(try_open(UM_POOL_EXCL));
	forge_super(unknown_ro_compat, true);
	assert_int_equal(try_open(UM_POOL_EXCL), -EROFS);
	ok(try_open(UM_POOL_RDONLY));
	forge_super(unknown_incompat, true);
	assert_int_equal(try_open(UM_POOL_RDONLY), -EPROTONOSUPPORT);
	forge_super(newer_version, true);
	assert_int_equal(try_open(UM_POOL_RDONLY), -EPROTONOSUPPORT);
}

static void impossible_superblocks_are_unsound(void **state)
{
	void (*const change[])(struct um_super *) = {huge, wild_journal, overlapping_journals};
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(change) / sizeof(change[0]); i++) {
		fixture_make(CHUNKS, 2, JOURNAL);
		forge_super(change[i], false);
		/* The second copy is still good. */
		ok(try_open(UM_POOL_RDONLY));
		forge_super(change[i], true);
		assert_int_equal(try_open(UM_POOL_RDONLY), -EUCLEAN);
	}
}

static void a_truncated_pool_says_so_and_a_longer_one_works(void **state)
{
	struct um_pool *pool;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	ok(truncate(fixture_path, (off_t)(CHUNKS * UM_CHUNK_SIZE - 4096)));
	assert_int_equal(try_open(UM_POOL_EXCL), -ENODATA);
	ok(truncate(fixture_path, 8192));
	assert_int_equal(try_open(UM_POOL_EXCL), -ENODATA);
	fixture_make(CHUNKS, 2, JOURNAL);
	ok(truncate(fixture_path, (off_t)(20 * UM_CHUNK_SIZE + 12345)));
	pool = must_open(UM_POOL_EXCL);
	assert_int_equal(pool->size, CHUNKS * UM_CHUNK_SIZE);
	assert_int_equal(pool->nblocks, CHUNKS * 512);
	um_pool_close(pool);
}

static void one_bad_superblock_is_repaired(void **state)
{
	um_lba_t second = um_super_mirror(CHUNKS);
	uint8_t want[UM_BLOCK_SIZE], got[UM_BLOCK_SIZE], zero[UM_BLOCK_SIZE] = {0};
	uint8_t flip;
	unsigned i;

	(void)state;
	for (i = 0; i < 4; i++) {
		um_lba_t bad = i & 1 ? second : 0;
		struct um_pool *pool;

		fixture_make(CHUNKS, 2, JOURNAL);
		fixture_peek(0, want, sizeof(want));
		flip = (uint8_t)~want[200];
		if (i & 2)
			fixture_poke(bad * UM_BLOCK_SIZE, zero, sizeof(zero));
		else
			fixture_poke(bad * UM_BLOCK_SIZE + 200, &flip, 1);
		/* The file has grown since: the second copy has to be sought. */
		ok(truncate(fixture_path, (off_t)(30 * UM_CHUNK_SIZE)));
		pool = must_open(UM_POOL_RDONLY);
		assert_int_equal(pool->super_repaired, bad ? 2 : 1);
		um_pool_close(pool);
		pool = must_open(UM_POOL_EXCL);
		um_pool_close(pool);
		fixture_peek(bad * UM_BLOCK_SIZE, got, sizeof(got));
		assert_memory_equal(got, want, sizeof(got));
	}
	fixture_poke(200, &flip, 1);
	fixture_poke(second * UM_BLOCK_SIZE + 200, &flip, 1);
	assert_int_equal(try_open(UM_POOL_EXCL), -EUCLEAN);
}

/* Damage to the chunk words of group 0 does not take the second superblock away, too. */
static void wrong_chunk_words_do_not_disown_the_second_superblock(void **state)
{
	um_lba_t second = um_super_mirror(CHUNKS);
	uint8_t zero[UM_BLOCK_SIZE] = {0};
	struct um_ag head;
	struct um_pool *pool;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	pool = must_open(UM_POOL_RDONLY);
	um_block_init(pool, &head, UM_KIND_AG, 0, um_ag_ptr(pool, 0), 0, 0);
	um_pool_close(pool);
	memset(head.word, 0x5a, sizeof(head.word));
	um_block_seal(&head);
	fixture_poke(UM_TABLE_AG * UM_BLOCK_SIZE, &head, sizeof(head));
	fixture_poke((second + UM_TABLE_AG) * UM_BLOCK_SIZE, &head, sizeof(head));
	fixture_poke(0, zero, sizeof(zero));
	pool = must_open(UM_POOL_RDONLY);
	assert_int_equal(pool->super_repaired, 1);
	/* As mkfs leaves them while it wipes this pool for a new one, which may have the same UUID. */
	um_block_init(pool, &head, UM_KIND_AG, 0, (struct um_ptr){UM_TABLE_AG, UM_TABLE_AG}, 0, 0);
	um_block_seal(&head);
	um_pool_close(pool);
	fixture_poke(UM_TABLE_AG * UM_BLOCK_SIZE, &head, sizeof(head));
	assert_int_equal(try_open(UM_POOL_RDONLY), -EUCLEAN);
}

/* ---- locks ------------------------------------------------------------------------------------- */

/* Keeps the pool open in a child for some milliseconds; returns when it is. */
static pid_t hold(unsigned flags, unsigned ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};
	int pipes[2];
	pid_t pid;
	char c;

	ok(pipe(pipes));
	pid = fork();
	if (!pid) {
		struct um_pool *pool;

		if (um_pool_open(fixture_path, flags, 0, &pool) || write(pipes[1], "x", 1) != 1)
			_exit(1);
		nanosleep(&ts, NULL);
		_exit(0);
	}
	assert_int_equal(read(pipes[0], &c, 1), 1);
	close(pipes[0]);
	close(pipes[1]);
	return pid;
}

static void reap(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void one_owner_at_a_time(void **state)
{
	struct um_pool *pool;
	pid_t pid;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	pool = must_open(UM_POOL_EXCL);
	assert_int_equal(try_open(UM_POOL_EXCL), -EBUSY);
	assert_int_equal(try_open(UM_POOL_EXCL | UM_POOL_NOSUPER), -EBUSY);
	assert_int_equal(try_open(UM_POOL_RDONLY), -EBUSY);
	ok(try_open(UM_POOL_RDONLY | UM_POOL_NOLOCK));
	um_pool_close(pool);
	pool = must_open(UM_POOL_RDONLY);
	ok(try_open(UM_POOL_RDONLY));
	assert_int_equal(try_open(UM_POOL_EXCL), -EBUSY);
	um_pool_close(pool);
	/* An owner that is just leaving is waited for a moment, unless it shall be tried only. */
	pid = hold(UM_POOL_EXCL, 300);
	assert_int_equal(try_open(UM_POOL_EXCL | UM_POOL_TRY), -EBUSY);
	ok(try_open(UM_POOL_EXCL));
	reap(pid);
	pid = hold(UM_POOL_EXCL, 2500);
	assert_int_equal(try_open(UM_POOL_EXCL), -EBUSY);
	reap(pid);
	ok(try_open(UM_POOL_EXCL | UM_POOL_TRY));
}

static void a_pool_that_was_looked_at_is_taken_by_its_file(void **state)
{
	struct um_pool *seen, *pool, *other;
	char moved[sizeof(fixture_path) + 8];

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	snprintf(moved, sizeof(moved), "%s.moved", fixture_path);
	seen = must_open(UM_POOL_RDONLY | UM_POOL_PRIVATE);
	/* Somebody else looks at it, too: everything stays as it is. */
	other = must_open(UM_POOL_RDONLY);
	assert_int_equal(um_pool_reopen(seen, UM_POOL_EXCL | UM_POOL_TRY, &pool), -EBUSY);
	ok(um_pool_relock(seen));
	um_pool_close(other);
	assert_int_equal(try_open(UM_POOL_EXCL | UM_POOL_TRY), -EBUSY);
	/* What its path names by now is another file. */
	ok(rename(fixture_path, moved));
	ok(close(open(fixture_path, O_RDWR | O_CREAT, 0600)));
	ok(um_pool_reopen(seen, UM_POOL_EXCL, &pool));
	assert_string_equal(pool->path, fixture_path);
	assert_int_equal(um_pool_relock(seen), -EBUSY);
	um_pool_close(seen);
	um_pool_close(pool);
	ok(rename(moved, fixture_path));
}

static void the_lock_stays_with_a_forked_daemon(void **state)
{
	struct um_pool *pool;
	int pipes[2];
	pid_t pid;
	char c;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	ok(pipe(pipes));
	pool = must_open(UM_POOL_EXCL);
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		_exit(read(pipes[0], &c, 1) != 0);
	}
	um_pool_close(pool); /* the parent leaves */
	assert_int_equal(try_open(UM_POOL_EXCL), -EBUSY);
	close(pipes[1]);
	reap(pid);
	ok(try_open(UM_POOL_EXCL));
	close(pipes[0]);
}

/* ---- stores -------------------------------------------------------------------------------------- */

static void reading_never_writes(void **state)
{
	struct um_pool *pool;
	char got[4] = {0};

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	pool = must_open(UM_POOL_RDONLY);
	assert_int_equal(um_pool_write(pool, 1000, 0, "abc", 4), -EROFS);
	assert_int_equal(um_pool_apply(pool, 1000, 0, "abc", 4), -EROFS);
	um_pool_close(pool);
	pool = must_open(UM_POOL_RDONLY | UM_POOL_PRIVATE);
	ok(um_pool_write(pool, 1000, 0, "abc", 4));
	ok(um_pool_apply(pool, 1001, 0, "def", 4));
	ok(um_pool_barrier(pool));
	assert_string_equal(um_pool_ptr(pool, 1000), "abc");
	assert_string_equal(um_pool_ptr(pool, 1001), "def");
	um_pool_close(pool);
	fixture_peek(1000 * 4096, got, sizeof(got));
	assert_int_equal(got[0], 0);
	fixture_peek(1001 * 4096, got, sizeof(got));
	assert_int_equal(got[0], 0);
}

static void stores_outside_of_the_pool_are_refused(void **state)
{
	struct um_pool *pool;

	(void)state;
	ok(um_pool_open_memory(CHUNKS * UM_CHUNK_SIZE, &pool));
	assert_int_equal(um_pool_write(pool, CHUNKS * 512, 0, "abc", 4), -EUCLEAN);
	assert_int_equal(um_pool_write(pool, CHUNKS * 512 - 1, 4094, "abc", 4), -EUCLEAN);
	assert_int_equal(um_pool_write(pool, ~0ull, 0, "abc", 4), -EUCLEAN);
	assert_int_equal(um_pool_write(pool, 1ull << 52, 0, "abc", 4), -EUCLEAN);
	ok(um_pool_write(pool, CHUNKS * 512 - 1, 4092, "abc", 4));
	um_pool_close(pool);
}

static void stores_are_seen_at_once_and_in_the_file(void **state)
{
	static uint8_t data[3 * UM_BLOCK_SIZE], got[sizeof(data)];
	struct um_pool *pool;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	memset(data, 0xab, sizeof(data));
	pool = must_open(UM_POOL_EXCL);
	ok(um_pool_write(pool, 2000, 100, data, sizeof(data)));
	um_pool_drain(pool);
	assert_memory_equal((const uint8_t *)um_pool_ptr(pool, 2000) + 100, data, sizeof(data));
	ok(um_pool_zero(pool, 2001, 0, UM_BLOCK_SIZE));
	ok(um_pool_zero(pool, 2600, 0, 2 << 20));
	ok(um_pool_barrier(pool));
	assert_int_equal(((const uint8_t *)um_pool_ptr(pool, 2001))[4095], 0);
	assert_int_equal(((const uint8_t *)um_pool_ptr(pool, 2002))[0], 0xab);
	um_pool_close(pool);
	fixture_peek(2000 * 4096, got, sizeof(got));
	assert_int_equal(got[99], 0);
	assert_int_equal(got[100], 0xab);
	assert_int_equal(got[4096], 0);
	assert_int_equal(got[8192], 0xab);
}

static void applied_metadata_stays_private_until_written_back(void **state)
{
	static uint8_t image[2 * UM_BLOCK_SIZE];
	struct um_pool *pool;
	char got[4] = {0};

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	pool = must_open(UM_POOL_EXCL);
	assert_int_equal(pool->kind, UMBRA_POOL_FILE);
	assert_false(pool->direct);
	ok(um_pool_apply(pool, 2000, 0, "abc", 4));
	assert_string_equal(um_pool_ptr(pool, 2000), "abc");
	fixture_peek(2000 * 4096, got, sizeof(got));
	assert_int_equal(got[0], 0);
	memcpy(image, "abc", 4);
	memcpy(image + UM_BLOCK_SIZE, "xyz", 4);
	ok(pool->ops->writeback(pool, 2000, image, 2));
	pool->ops->giveback(pool, 2000, 2);
	assert_string_equal(um_pool_ptr(pool, 2000), "abc");
	assert_string_equal(um_pool_ptr(pool, 2001), "xyz");
	um_pool_close(pool);
	fixture_peek(2001 * 4096, got, sizeof(got));
	assert_string_equal(got, "xyz");
}

static void a_file_that_counts_as_pmem_is_direct(void **state)
{
	enum umbra_pool_kind kind;
	struct um_pool *pool;
	uint64_t size;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	pool = must_open(UM_POOL_EXCL);
	assert_int_equal(pool->kind, UMBRA_POOL_FSDAX);
	assert_true(pool->direct);
	um_pool_close(pool);
	ok(um_pool_probe(fixture_path, &size, &kind));
	assert_int_equal(size, CHUNKS * UM_CHUNK_SIZE);
	assert_int_equal(kind, UMBRA_POOL_FSDAX);
}

/* ---- copies of blocks ------------------------------------------------------------------------------ */

static const struct um_ptr pair = {1500, 3000};

static void put_pair(struct um_pool *pool)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};

	um_block_init(pool, block, UM_KIND_DIR, 0, pair, 1, 0);
	memcpy(block + 100, "hello", 6);
	um_block_seal(block);
	ok(um_pool_write(pool, pair.lba, 0, block, sizeof(block)));
	ok(um_pool_write(pool, pair.mirror, 0, block, sizeof(block)));
	um_pool_drain(pool);
}

static void the_mirror_stands_in_for_a_bad_block(void **state)
{
	struct um_pool *pool;
	const void *block;
	um_lba_t fixed;

	(void)state;
	ok(um_pool_open_memory(CHUNKS * UM_CHUNK_SIZE, &pool));
	fixture_format(pool, 2, JOURNAL, 0);
	put_pair(pool);
	ok(um_block_get(pool, pair, UM_KIND_DIR, &block));
	assert_ptr_equal(block, um_pool_ptr(pool, pair.lba));
	assert_int_equal(um_block_get(pool, pair, UM_KIND_XATTR, &block), -EUCLEAN);
	assert_int_equal(
		um_block_get(pool, (struct um_ptr){pair.lba, 3001}, UM_KIND_DIR, &block), -EUCLEAN);
	assert_int_equal(
		um_block_get(pool, (struct um_ptr){pair.mirror, 0}, UM_KIND_DIR, &block), -EUCLEAN);

	/* Data written over it: what was verified before counts no more. */
	ok(um_pool_write(pool, pair.lba, 100, "HELLO", 6));
	ok(um_block_get(pool, pair, UM_KIND_DIR, &block));
	assert_ptr_equal(block, um_pool_ptr(pool, pair.mirror));
	assert_int_equal(pool->mirror_repairs, 1);
	ok(um_block_repair(pool, pair, UM_KIND_DIR, &fixed));
	assert_int_equal(fixed, pair.lba);
	ok(um_block_get(pool, pair, UM_KIND_DIR, &block));
	assert_ptr_equal(block, um_pool_ptr(pool, pair.lba));
	assert_string_equal((const char *)block + 100, "hello");

	ok(um_pool_write(pool, pair.mirror, 100, "HELLO", 6));
	ok(um_block_repair(pool, pair, UM_KIND_DIR, &fixed));
	assert_int_equal(fixed, pair.mirror);
	ok(um_block_repair(pool, pair, UM_KIND_DIR, &fixed));
	assert_int_equal(fixed, 0);

	ok(um_pool_write(pool, pair.lba, 100, "HELLO", 6));
	ok(um_pool_write(pool, pair.mirror, 100, "HELLO", 6));
	assert_int_equal(um_block_get(pool, pair, UM_KIND_DIR, &block), -EUCLEAN);
	assert_int_equal(um_block_repair(pool, pair, UM_KIND_DIR, &fixed), -EUCLEAN);
	um_pool_close(pool);
}

static void wild_pointers_are_errors(void **state)
{
	const um_lba_t wild[] = {0, CHUNKS * 512, ~0ull, 1ull << 52, 1ull << 48};
	struct um_pool *pool;
	const void *block;
	unsigned i;

	(void)state;
	ok(um_pool_open_memory(CHUNKS * UM_CHUNK_SIZE, &pool));
	fixture_format(pool, 2, JOURNAL, 0);
	for (i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		struct um_ptr ptr = {wild[i], 700}, other = {700, wild[i] ? wild[i] : 700};

		assert_int_equal(um_block_get(pool, ptr, UM_KIND_DIR, &block), -EUCLEAN);
		assert_int_equal(um_block_get(pool, other, UM_KIND_DIR, &block), -EUCLEAN);
	}
	um_pool_close(pool);
}

static void an_image_is_the_callers_memory(void **state)
{
	size_t size = CHUNKS * UM_CHUNK_SIZE;
	uint8_t *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct um_pool *pool;

	(void)state;
	assert_int_equal(um_pool_open_image(base, size, UM_POOL_EXCL, &pool), -EMEDIUMTYPE);
	ok(um_pool_open_image(base, size, UM_POOL_EXCL | UM_POOL_NOSUPER, &pool));
	fixture_format(pool, 2, JOURNAL, 0);
	um_pool_close(pool);
	ok(um_pool_open_image(base, size, UM_POOL_EXCL, &pool));
	assert_ptr_equal(pool->base, base);
	um_pool_close(pool);
	ok(um_pool_open_image(base, size, UM_POOL_RDONLY | UM_POOL_PRIVATE, &pool));
	ok(um_pool_write(pool, 2000, 0, "abc", 4));
	assert_int_equal(base[2000 * 4096], 0);
	um_pool_close(pool);
	munmap(base, size);
}

/* ---- failing memory ----------------------------------------------------------------------------------- */

static void failing_loads_are_errors_not_signals(void **state)
{
	struct um_pool *pool;
	volatile const uint8_t *byte;
	const void *block;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	pool = must_open(UM_POOL_EXCL);
	put_pair(pool);
	/* Pages behind the end of a file fail like pages of broken memory. */
	ok(truncate(fixture_path, (off_t)(pair.mirror * UM_BLOCK_SIZE)));
	assert_false(um_pool_lost(pool, 0, pool->nblocks));
	byte = um_pool_ptr(pool, pair.mirror + 7);
	assert_int_equal(*byte, 0);
	assert_int_equal(um_guard_check(), -EIO);
	ok(um_guard_check());
	assert_true(um_pool_lost(pool, pair.mirror + 7, 1));
	assert_true(um_pool_lost(pool, pair.mirror, 100));
	assert_false(um_pool_lost(pool, pair.mirror, 7));
	assert_int_equal(um_pool_write(pool, pair.mirror + 7, 0, "abc", 4), -EIO);
	/* A copy that cannot be read is one more bad copy. */
	ok(um_block_get(pool, pair, UM_KIND_DIR, &block));
	ok(um_pool_write(pool, pair.lba, 100, "HELLO", 6));
	assert_int_equal(um_block_get(pool, pair, UM_KIND_DIR, &block), -EUCLEAN);
	ok(um_guard_check());
	um_pool_close(pool);
}

static void other_failures_end_the_process_as_before(void **state)
{
	struct um_pool *pool;
	int status;
	pid_t pid;

	(void)state;
	fixture_make(CHUNKS, 2, JOURNAL);
	signal(SIGBUS, SIG_DFL); /* cmocka has a handler */
	pool = must_open(UM_POOL_EXCL);
	pid = fork();
	if (!pid) {
		volatile char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED,
			open("/proc/self/exe", O_RDONLY), 1 << 30);

		_exit(*map);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGBUS);
	um_pool_close(pool);
}

#define file_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
#define COMMON                                                                                     \
	file_test(what_is_no_pool_is_refused), file_test(unknown_features_are_honoured),           \
		file_test(impossible_superblocks_are_unsound),                                     \
		file_test(a_truncated_pool_says_so_and_a_longer_one_works),                        \
		file_test(one_bad_superblock_is_repaired),                                         \
		file_test(wrong_chunk_words_do_not_disown_the_second_superblock),                  \
		file_test(one_owner_at_a_time),                                                    \
		file_test(a_pool_that_was_looked_at_is_taken_by_its_file),                         \
		file_test(the_lock_stays_with_a_forked_daemon), file_test(reading_never_writes),   \
		file_test(stores_are_seen_at_once_and_in_the_file),                                \
		file_test(failing_loads_are_errors_not_signals),                                   \
		file_test(other_failures_end_the_process_as_before)

static const struct CMUnitTest direct[] = {
	COMMON,
	file_test(a_file_that_counts_as_pmem_is_direct),
	cmocka_unit_test(stores_outside_of_the_pool_are_refused),
	cmocka_unit_test(the_mirror_stands_in_for_a_bad_block),
	cmocka_unit_test(wild_pointers_are_errors),
	cmocka_unit_test(an_image_is_the_callers_memory),
};
static const struct CMUnitTest indirect[] = {
	COMMON,
	file_test(applied_metadata_stays_private_until_written_back),
};

fixture_main(direct, indirect)
