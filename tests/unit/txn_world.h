/* SPDX-License-Identifier: BSD-3-Clause */
/* For tests of txn/: metadata and data that every transaction changes together, so that half of one shows. */
#ifndef TESTS_UNIT_TXN_WORLD_H
#define TESTS_UNIT_TXN_WORLD_H

#include "recorder.h"
#include "txn/internal.h"

#define CHUNKS 8u
#define JOURNAL 65u  /* a ring of 256 KiB: wraps often */
#define MIRROR 1024u /* of the journal, where there is one */
#define CELLS 6u     /* metadata blocks that every transaction changes together */
#define DATA 3000u   /* block of file data, in an allocated chunk */
#define DATA_LEN 5000u
#define SLOT(version) (2600u + (version) % 64) /* new data: written before its transaction */

/*
 * The state under test. Version n: each cell holds n and a pattern that depends on n; the first cell
 * points at a leaf made by transaction n; data in place holds n (direct pools).
 */
struct world {
	struct engine e;
	struct um_ptr cell[CELLS];
	struct um_ptr leaf;
	uint64_t version; /* of the last acknowledged commit */
	uint64_t pending; /* of the commit in flight, or 0 */
	uint64_t synced;  /* of the last sync that returned */
	unsigned states;  /* crash states looked at */
};

struct cell {
	struct um_block_hdr hdr;
	uint64_t version;
	struct um_ptr leaf;
	uint8_t pattern[UM_BLOCK_SIZE - 64 - 24];
};

/* Deterministic, with long runs and scattered bytes, and different lengths of change. */
static inline void draw(struct cell *cell, unsigned i, uint64_t n)
{
	uint64_t seed = n * CELLS + i + 1;
	uint32_t *words = (uint32_t *)(cell->pattern + 8);
	unsigned k, len = (unsigned)rnd_below(&seed, 900);

	cell->version = n;
	memset(cell->pattern, 0, sizeof(cell->pattern));
	for (k = 0; k < len; k++)
		words[k] = (uint32_t)n;
	for (k = 0; k < 10; k++)
		cell->pattern[rnd_below(&seed, sizeof(cell->pattern))] = (uint8_t)rnd(&seed);
}

static inline void must(int ret)
{
	/* Also in threads, where cmocka's assertions cannot be caught. */
	if (ret) {
		fprintf(stderr, "unexpected error %d\n", ret);
		abort();
	}
}

/* Transaction n + 1 on top of version n. */
static inline int step(struct world *w)
{
	struct um_txn *txn;
	struct um_ptr leaf = {0, 0};
	uint8_t data[DATA_LEN];
	uint64_t next = w->version + 1;
	void *block;
	unsigned i;
	int ret = um_pool_write(w->e.pool, SLOT(next), 800, &next, sizeof(next));

	um_pool_drain(w->e.pool);
	if (!ret)
		ret = um_txn_begin(w->e.log, 0, &txn);
	if (ret)
		return ret;
	w->pending = w->version + 1;
	ret = um_txn_new(txn, UM_KIND_DIR, 0, 0, &leaf, &block);
	if (!ret)
		((struct cell *)block)->version = w->pending;
	for (i = 0; i < CELLS && !ret; i++) {
		ret = um_txn_edit(txn, w->cell[i], UM_KIND_DIR, &block);
		if (ret)
			break;
		draw(block, i, w->pending);
		if (!i)
			((struct cell *)block)->leaf = leaf;
	}
	if (!ret && w->leaf.lba)
		ret = um_txn_drop(txn, w->leaf, NULL);
	memset(data, (int)w->pending, sizeof(data));
	if (!ret)
		ret = um_txn_data(txn, DATA, 100, data, sizeof(data));
	ret = um_txn_end(txn, ret);
	w->pending = 0;
	if (!ret) {
		w->version++;
		w->leaf = leaf;
	}
	return ret;
}

/* Reads the version that a recovered pool is in and checks that all of it is of that version. */
static inline uint64_t inspect(const struct world *w, struct engine *e, bool with_data)
{
	_Alignas(64) struct cell want;
	struct um_src src = {e->pool, NULL};
	const uint8_t *data = um_pool_ptr(e->pool, DATA), *slot;
	const void *block;
	const struct cell *cell;
	uint64_t version = 0;
	uint32_t count, run;
	unsigned i;

	um_log_read_lock(e->log);
	for (i = 0; i < CELLS; i++) {
		must(um_src_get(src, w->cell[i], UM_KIND_DIR, &block));
		cell = block;
		if (!i)
			version = cell->version;
		if (cell->version == version && !version)
			continue;
		want = *cell;
		draw(&want, i, version);
		must(memcmp(&want, cell, sizeof(want)));
		/* Both copies are the same. */
		must(memcmp(cell, um_pool_ptr(e->pool, w->cell[i].mirror), sizeof(*cell)));
		if (i)
			continue;
		must(um_src_get(src, cell->leaf, UM_KIND_DIR, &block));
		must(((const struct cell *)block)->version != version);
		must(um_ref_count(src, cell->leaf.lba, 1, &count, &run));
		must(count != 1);
	}
	slot = um_pool_ptr(e->pool, SLOT(version));
	must(version && memcmp(slot + 800, &version, sizeof(version)));
	for (i = 100; with_data && version && i < 100 + DATA_LEN; i++)
		must(data[i] != (uint8_t)version);
	um_log_read_unlock(e->log);
	return version;
}

/* The cells, and a chunk for the data that nothing else will use. */
static inline void world_fill(struct world *w)
{
	struct um_txn *txn;
	um_lba_t lba;
	uint32_t n;
	void *block;
	unsigned i;

	ok(um_txn_begin(w->e.log, 0, &txn));
	for (i = 0; i < CELLS; i++)
		ok(um_txn_new(txn, UM_KIND_DIR, 0, 0, &w->cell[i], &block));
	ok(um_txn_commit(txn));
	do {
		ok(um_space_take(w->e.space, DATA & ~511u, 512, 0, &lba, &n));
		ok(um_txn_begin(w->e.log, 0, &txn));
		ok(um_ref_alloc(txn, lba, n));
		ok(um_txn_commit(txn));
	} while (lba + n <= DATA);
}

static inline void world_open_mirrored(struct world *w, um_lba_t journal_mirror)
{
	memset(w, 0, sizeof(*w));
	ok(um_pool_open_memory(CHUNKS * UM_CHUNK_SIZE, &w->e.pool));
	fixture_format(w->e.pool, 2, JOURNAL, journal_mirror);
	engine_mount(&w->e);
	world_fill(w);
}

static inline void world_open(struct world *w)
{
	world_open_mirrored(w, 0);
}

static inline void world_open_file(struct world *w, um_lba_t journal_mirror)
{
	memset(w, 0, sizeof(*w));
	fixture_make_mirrored(CHUNKS, 2, JOURNAL, journal_mirror);
	ok(um_pool_open(fixture_path, UM_POOL_EXCL, 0, &w->e.pool));
	engine_mount(&w->e);
	world_fill(w);
}

/* The daemon dies: nothing more is written, private pages are gone. */
static inline void die(struct engine *e)
{
	um_space_close(e->space);
	um_log_abandon(e->log);
	um_pool_close(e->pool);
}

static inline void world_close(struct world *w)
{
	engine_close(&w->e);
}

#endif
