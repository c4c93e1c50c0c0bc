/* SPDX-License-Identifier: BSD-3-Clause */
/* For tests of the layers below fs/: a pool in memory with journal and space, without inodes. */
#ifndef TESTS_UNIT_ENGINE_H
#define TESTS_UNIT_ENGINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "pool/log.h"
#include "space/space.h"
#include "txn/txn.h"

struct engine {
	struct um_pool *pool;
	struct um_log *log;
	struct um_space *space;
};

#define ok(expr) assert_int_equal(expr, 0)

/* The fields of a superblock that the rooms use; it is not stored. */
static inline void engine_super(struct um_pool *pool, uint8_t copies)
{
	struct um_super *super = &pool->super;

	memset(super, 0, sizeof(*super));
	memset(super->hdr.uuid, 0x5a, sizeof(super->hdr.uuid));
	memcpy(super->magic, UM_POOL_MAGIC, sizeof(super->magic));
	super->version = UM_FORMAT_VERSION;
	super->block_size = UM_BLOCK_SIZE;
	super->copies = copies;
	pool->nags = um_pool_groups(pool->size / UM_CHUNK_SIZE, &super->nchunks);
	pool->nchunks = super->nchunks;
	super->journal_lba = UM_CHUNK_BLOCKS;
	super->journal_blocks = 300;
}

static inline void engine_mount(struct engine *e)
{
	ok(um_log_open(e->pool, &e->log));
	ok(um_space_open(e->log, &e->space));
}

static inline void engine_unmount(struct engine *e)
{
	um_space_close(e->space);
	ok(um_log_close(e->log));
}

static inline void engine_format(struct engine *e, uint8_t copies)
{
	engine_super(e->pool, copies);
	ok(um_space_format(e->pool));
	ok(um_log_format(e->pool));
	engine_mount(e);
}

static inline void engine_open(struct engine *e, uint64_t chunks, uint8_t copies)
{
	ok(um_pool_open_memory(chunks * UM_CHUNK_SIZE, &e->pool));
	engine_format(e, copies);
}

/* The same in a plain file, an indirect pool. */
static inline void engine_open_file(struct engine *e, uint64_t chunks, uint8_t copies)
{
	char path[] = "/tmp/umbra-test-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	ok(ftruncate(fd, (off_t)(chunks * UM_CHUNK_SIZE)));
	close(fd);
	ok(um_pool_open(path, UM_POOL_EXCL | UM_POOL_NOSUPER, chunks * UM_CHUNK_SIZE, &e->pool));
	unlink(path);
	engine_format(e, copies);
}

static inline void engine_close(struct engine *e)
{
	engine_unmount(e);
	um_pool_close(e->pool);
}

static inline void engine_remount(struct engine *e)
{
	engine_unmount(e);
	engine_mount(e);
}

static inline struct um_txn *engine_begin(struct engine *e)
{
	struct um_txn *txn;

	ok(um_txn_begin(e->log, 0, &txn));
	return txn;
}

/* xorshift64*: seeds make runs repeatable. */
static inline uint64_t rnd(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ull;
}

static inline uint64_t rnd_below(uint64_t *state, uint64_t n)
{
	return (rnd(state) >> 16) % n;
}

/*
 * libpmem reads PMEM_IS_PMEM_FORCE when it is loaded, and would make direct pools of plain files:
 * the test program starts itself again without it.
 */
static inline void engine_without_pmem(char **argv)
{
	if (!getenv("PMEM_IS_PMEM_FORCE"))
		return;
	unsetenv("PMEM_IS_PMEM_FORCE");
	execv("/proc/self/exe", argv);
	abort();
}

static inline uint64_t engine_seed(void)
{
	const char *text = getenv("UM_TEST_SEED");

	return text ? strtoull(text, NULL, 0) : 0x9e3779b97f4a7c15ull;
}

#endif
