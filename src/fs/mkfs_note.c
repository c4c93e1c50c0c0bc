/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The note of bad blocks, for the time when mkfs has destroyed the pool that had the list and the
 * new one does not have it yet: without it, an mkfs that is started again after an interruption
 * would use that memory. It is in blocks of the table chunks that the new pool does not use, twice.
 * An old pool that is larger or has seams may have data in these places; only chunk 0 is the same in
 * all pools. What fits there is written before anything is wiped, the rest when the old pool cannot
 * be mounted any more. The note is removed when the new superblocks are on the medium. A list that
 * does not fit (2535 runs of blocks) is incomplete while the rest is written, which its first block
 * shows.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "fs/mkfs_int.h"
#include "pool/log.h"

#define RUN_MAX 0xffffu

static uint32_t groups_of(const struct um_pool *pool, uint64_t *used)
{
	return um_pool_groups(pool->nchunks, used);
}

/* Block i of the first or the second copy, in a pool of this size without seams. */
static um_lba_t place(const struct um_pool *pool, unsigned copy, uint32_t i)
{
	uint64_t chunk = i / UM_NOTE_BLOCKS * (uint64_t)UM_AG_CHUNKS, used;

	groups_of(pool, &used);
	if (copy)
		chunk += used - chunk < UM_AG_CHUNKS ? used - chunk - 1 : UM_AG_CHUNKS - 1;
	return chunk * UM_CHUNK_BLOCKS + UM_TABLE_NOTE + i % UM_NOTE_BLOCKS;
}

enum found { ABSENT, TORN, SOUND };

static enum found read_at(struct um_pool *pool, um_lba_t lba, struct um_bad_note *out)
{
	um_guard_check();
	memcpy(out, um_pool_ptr(pool, lba), sizeof(*out));
	if (um_guard_check())
		return TORN;
	if (memcmp(out->magic, UM_NOTE_MAGIC, sizeof(out->magic)))
		return ABSENT;
	return um_block_csum(out) == out->csum && out->nruns <= UM_NOTE_RUNS ? SOUND : TORN;
}

/* The second copy alone has no meaning: it may be part of an older note. */
static enum found read_first(struct um_pool *pool, struct um_bad_note *out)
{
	enum found found = read_at(pool, place(pool, 0, 0), out);

	return found == TORN ? read_at(pool, place(pool, 1, 0), out) : found;
}

static int add_runs(const struct um_bad_note *note, struct um_badset *set)
{
	int ret = 0;

	for (uint32_t i = 0; i < note->nruns; i++)
		for (uint64_t n = note->run[i] & RUN_MAX, lba = note->run[i] >> 16; n && !ret;
			n--, lba++)
			ret = um_badset_add(set, lba);
	return ret;
}

int um_badnote_load(struct um_pool *pool, struct um_badset *set)
{
	struct um_bad_note first, note;
	enum found found = read_first(pool, &first);
	uint64_t used;
	int ret = 0;

	if (found != SOUND || first.index ||
		first.count > (uint64_t)groups_of(pool, &used) * UM_NOTE_BLOCKS)
		return found == ABSENT ? -ENOENT : -EUCLEAN;
	for (uint32_t i = 0; i < first.count && !ret; i++) {
		unsigned copy;

		for (copy = 0; copy < 2; copy++)
			if (read_at(pool, place(pool, copy, i), &note) == SOUND &&
				note.id == first.id && note.index == i)
				break;
		ret = copy < 2 ? add_runs(&note, set) : -EUCLEAN;
	}
	um_badset_sort(set);
	return ret;
}

/* The runs from bad->lba[*at] on, as many as fit a block. */
static void fill(const struct um_badset *bad, size_t *at, struct um_bad_note *out)
{
	out->nruns = 0;
	while (*at < bad->n && out->nruns < UM_NOTE_RUNS) {
		um_lba_t lba = bad->lba[*at];
		uint64_t n = 1;

		while (*at + n < bad->n && n < RUN_MAX && bad->lba[*at + n] == lba + n)
			n++;
		out->run[out->nruns++] = lba << 16 | n;
		*at += n;
	}
	memset(&out->run[out->nruns], 0, (UM_NOTE_RUNS - out->nruns) * sizeof(out->run[0]));
}

/* Writes blocks [from, to) of a copy, except those that an interrupted mkfs has left complete. */
static int write_blocks(struct um_pool *pool, const struct um_badset *bad, unsigned copy,
	uint32_t from, uint32_t to, const struct um_badnote *head)
{
	struct um_bad_note note = {.magic = UM_NOTE_MAGIC, .id = head->id, .count = head->count};
	struct um_bad_note there;
	size_t at = 0;
	int ret = 0;

	for (note.index = 0; note.index < to && !ret; note.index++) {
		um_lba_t lba = place(pool, copy, note.index);

		fill(bad, &at, &note);
		if (note.index < from)
			continue;
		note.csum = um_block_csum(&note);
		if (read_at(pool, lba, &there) != SOUND || memcmp(&there, &note, sizeof(note)))
			ret = um_pool_write(pool, lba, 0, &note, sizeof(note));
	}
	um_pool_drain(pool);
	return ret ? ret : um_pool_barrier(pool);
}

static bool same_list(const struct um_badset *a, const struct um_badset *b)
{
	return a->n == b->n && !memcmp(a->lba, b->lba, a->n * sizeof(*a->lba));
}

/* Is exactly this list there already, from an interrupted mkfs? Then it is continued, and there is
 * no moment without it. */
static bool is_noted(struct um_pool *pool, const struct um_badset *bad, uint64_t *out_id)
{
	struct um_badset set = {0};
	struct um_bad_note first;
	bool same = !um_badnote_load(pool, &set) && same_list(&set, bad) &&
		    read_first(pool, &first) == SOUND;

	um_badset_free(&set);
	if (same)
		*out_id = first.id;
	return same;
}

int um_badnote_begin(struct um_pool *pool, const struct um_badset *bad, struct um_badnote *out)
{
	struct um_badnote note = {0};
	struct um_bad_note block;
	uint64_t used;

	*out = note;
	for (size_t at = 0; at < bad->n; note.count++)
		fill(bad, &at, &block);
	if (!note.count)
		return 0;
	if (note.count > (uint64_t)groups_of(pool, &used) * UM_NOTE_BLOCKS)
		return -E2BIG;
	if (!is_noted(pool, bad, &note.id) &&
		getrandom(&note.id, sizeof(note.id), 0) != sizeof(note.id))
		return -EIO;
	/* Where memory is bad there is no note; the second copy is sufficient. */
	note.failed = write_blocks(
		pool, bad, 0, 0, note.count < UM_NOTE_BLOCKS ? note.count : UM_NOTE_BLOCKS, &note);
	*out = note;
	return 0;
}

int um_badnote_finish(
	struct um_pool *pool, const struct um_badset *bad, const struct um_badnote *note)
{
	int ret = note->failed, ret2;

	if (!ret && note->count > UM_NOTE_BLOCKS)
		ret = write_blocks(pool, bad, 0, UM_NOTE_BLOCKS, note->count, note);
	ret2 = note->count ? write_blocks(pool, bad, 1, 0, note->count, note) : 0;
	return ret && ret2 ? ret2 : 0;
}

int um_badnote_clear(struct um_pool *pool)
{
	struct um_bad_note note;
	bool any = false;
	int ret = 0;

	/* The first block last: an interrupted removal leaves a complete note, or none. */
	for (int copy = 1; copy >= 0; copy--) {
		um_lba_t lba = place(pool, (unsigned)copy, 0);
		int err = read_at(pool, lba, &note) == ABSENT
				  ? 0
				  : um_pool_zero(pool, lba, 0, sizeof(note));

		any |= !err;
		ret = ret ? ret : err;
	}
	if (!any)
		return ret;
	um_pool_drain(pool);
	return ret ? ret : um_pool_barrier(pool);
}
