/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools in files, for tests of pool/ and txn/. libpmem decides when it is loaded whether mappings
 * count as persistent memory, so such a test runs twice, the second time by executing itself again.
 */
#ifndef TESTS_UNIT_POOL_FIXTURE_H
#define TESTS_UNIT_POOL_FIXTURE_H

#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char fixture_path[4096];

static inline int fixture_setup(void **state)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	(void)state;
	snprintf(fixture_path, sizeof(fixture_path), "%s/um-test-XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(fixture_path);
	if (fd < 0)
		return -1;
	return close(fd);
}

static inline int fixture_teardown(void **state)
{
	(void)state;
	return unlink(fixture_path);
}

static inline void fixture_write_supers(struct um_pool *pool)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};
	struct um_ptr at = {0, um_super_mirror(pool->nchunks)};

	memcpy(block, &pool->super, sizeof(pool->super));
	um_block_init(pool, block, UM_KIND_SUPER, 0, at, 0, 0);
	um_block_seal(block);
	ok(um_pool_write(pool, at.mirror, 0, block, sizeof(block)));
	ok(um_pool_write(pool, 0, 0, block, sizeof(block)));
	um_pool_drain(pool);
	ok(um_pool_barrier(pool));
	ok(um_pool_load_super(pool));
}

/* Superblocks, tables and an empty journal; journal_mirror: LBA of its second copy or 0. */
static inline void fixture_format(
	struct um_pool *pool, uint8_t copies, uint64_t journal_blocks, um_lba_t journal_mirror)
{
	engine_super(pool, copies);
	pool->super.journal_blocks = journal_blocks;
	pool->super.journal_mirror = journal_mirror;
	pool->super.root.lba = UM_TABLE_ROOT;
	if (copies == 2)
		pool->super.root.mirror = um_super_mirror(pool->nchunks) + UM_TABLE_ROOT;
	ok(um_space_format(pool));
	ok(um_log_format(pool));
	fixture_write_supers(pool);
}

static inline void fixture_make_mirrored(
	uint64_t chunks, uint8_t copies, uint64_t journal_blocks, um_lba_t journal_mirror)
{
	struct um_pool *pool;

	ok(truncate(fixture_path, 0));
	ok(truncate(fixture_path, (off_t)(chunks * UM_CHUNK_SIZE)));
	ok(um_pool_open(fixture_path, UM_POOL_EXCL | UM_POOL_NOSUPER, 0, &pool));
	fixture_format(pool, copies, journal_blocks, journal_mirror);
	um_pool_close(pool);
}

static inline void fixture_make(uint64_t chunks, uint8_t copies, uint64_t journal_blocks)
{
	fixture_make_mirrored(chunks, copies, journal_blocks, 0);
}

static inline void fixture_poke(uint64_t off, const void *bytes, size_t len)
{
	int fd = open(fixture_path, O_RDWR);

	assert_int_equal(pwrite(fd, bytes, len, (off_t)off), len);
	close(fd);
}

static inline void fixture_peek(uint64_t off, void *bytes, size_t len)
{
	int fd = open(fixture_path, O_RDONLY);

	assert_int_equal(pread(fd, bytes, len, (off_t)off), len);
	close(fd);
}

/* Runs a group with mappings that count as persistent memory, then one where they do not. */
#define fixture_main(direct, indirect)                                                             \
	int main(int argc, char **argv)                                                            \
	{                                                                                          \
		int ret;                                                                           \
                                                                                                   \
		if (argc == 1) {                                                                   \
			setenv("PMEM_IS_PMEM_FORCE", "1", 1);                                      \
			execl("/proc/self/exe", argv[0], "direct", (char *)NULL);                  \
			return 1;                                                                  \
		}                                                                                  \
		if (!strcmp(argv[1], "indirect"))                                                  \
			return cmocka_run_group_tests_name("indirect", indirect, NULL, NULL);      \
		ret = cmocka_run_group_tests_name("direct", direct, NULL, NULL);                   \
		if (ret)                                                                           \
			return ret;                                                                \
		unsetenv("PMEM_IS_PMEM_FORCE");                                                    \
		execl("/proc/self/exe", argv[0], "indirect", (char *)NULL);                        \
		return 1;                                                                          \
	}

#endif
