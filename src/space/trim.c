/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Returning free space to the host. Only what an allocation could take is returned: blocks whose
 * freeing is durable and that nobody points at (they have left quarantine). They are busy
 * meanwhile, a piece at a time, and allocations that find no space wait. Checksums and parity are
 * undefined for free blocks, so they are not involved.
 */
#include <errno.h>
#include <stdlib.h>

#include "space/space_int.h"

#define PIECE_CHUNKS 16u /* whole chunks at once */
#define RUNS_MAX (UM_CHUNK_BLOCKS / 2)

struct piece {
	uint32_t n;
	struct {
		um_lba_t lba;
		uint32_t n;
	} run[RUNS_MAX];
};

static bool any_bad(const struct um_pool *pool, um_lba_t lba, uint32_t n)
{
	if (!um_pool_any_bad(pool))
		return false;
	for (; n; lba++, n--)
		if (um_pool_place_bad(pool, lba))
			return true;
	return false;
}

static void hold(
	struct um_space *space, struct piece *piece, uint64_t chunk, unsigned first, unsigned n)
{
	um_lba_t lba = chunk * UM_CHUNK_BLOCKS + first;

	/* On failure it stays as it is: without memory nothing is returned. */
	if (any_bad(space->pool, lba, n) || um_chunk_mark(space, chunk, first, n, true))
		return;
	space->taken += n;
	if (piece->n && piece->run[piece->n - 1].lba + piece->run[piece->n - 1].n == lba) {
		piece->run[piece->n - 1].n += n;
		return;
	}
	piece->run[piece->n].lba = lba;
	piece->run[piece->n++].n = n;
}

static bool all_free(const struct um_space *space, uint64_t chunk)
{
	return space->chunk[chunk].known && space->chunk[chunk].nfree == UM_CHUNK_BLOCKS;
}

/* Takes the free runs of one chunk, or several consecutive chunks that are entirely free; returns
 * where to continue. */
static uint64_t take_piece(
	struct um_space *space, uint64_t chunk, uint64_t end, uint32_t min, struct piece *piece)
{
	unsigned first = 0, from = 0, n;
	uint64_t last = chunk + PIECE_CHUNKS < end ? chunk + PIECE_CHUNKS : end;

	piece->n = 0;
	for (; chunk < last && all_free(space, chunk); chunk++)
		hold(space, piece, chunk, 0, UM_CHUNK_BLOCKS);
	if (piece->n || chunk == last)
		return chunk;
	if (um_chunk_load(space, chunk))
		return chunk + 1;
	while ((n = um_chunk_find(space, chunk, from, 1, &first))) {
		if (n >= min)
			hold(space, piece, chunk, first, n);
		from = first + n;
	}
	return chunk + 1;
}

int um_space_trim(
	struct um_space *space, uint64_t *chunk, uint64_t end, uint32_t min, uint64_t *blocks)
{
	uint32_t unit = um_pool_punch_unit(space->pool);
	struct piece piece;
	int err = 0;

	if (!unit)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&space->lock);
	um_quarantine_reap(space);
	if (end > space->nchunks)
		end = space->nchunks;
	if (*chunk < end)
		*chunk = take_piece(space, *chunk, end, min > unit ? min : unit, &piece);
	else
		piece.n = 0;
	space->trimming += piece.n;
	pthread_mutex_unlock(&space->lock);
	for (uint32_t i = 0; i < piece.n; i++) {
		if (!err)
			err = um_pool_punch(space->pool, piece.run[i].lba, piece.run[i].n);
		*blocks += err ? 0 : piece.run[i].n;
		um_space_give(space, piece.run[i].lba, piece.run[i].n);
	}
	pthread_mutex_lock(&space->lock);
	for (uint32_t i = 0; i < piece.n; i++)
		for (uint64_t c = um_chunk_of(piece.run[i].lba);
			c <= um_chunk_of(piece.run[i].lba + piece.run[i].n - 1); c++)
			um_chunk_lacks(space, c);
	space->trimming -= piece.n;
	pthread_mutex_unlock(&space->lock);
	return err;
}

int um_space_discard(struct um_space *space)
{
	if (!um_pool_punch_unit(space->pool))
		return -EOPNOTSUPP;
	pthread_mutex_lock(&space->lock);
	if (!space->discard)
		space->discard =
			calloc(space->nchunks / UM_REGION_CHUNKS + 1, sizeof(*space->discard));
	pthread_mutex_unlock(&space->lock);
	return space->discard ? 0 : -ENOMEM;
}

/* The next chunk in which blocks came free; UINT64_MAX: none. */
static uint64_t next_discard(struct um_space *space, uint64_t from)
{
	uint64_t chunk = UINT64_MAX;

	pthread_mutex_lock(&space->lock);
	for (; chunk == UINT64_MAX && from < space->nchunks; from = (from / 64 + 1) * 64) {
		uint64_t word = space->discard[from / 64] >> (from % 64);

		if (!word)
			continue;
		chunk = from + (unsigned)__builtin_ctzll(word);
		space->discard[chunk / 64] &= ~(1ull << (chunk % 64));
	}
	pthread_mutex_unlock(&space->lock);
	return chunk;
}

int um_space_discard_some(struct um_space *space, unsigned limit, bool *more)
{
	uint64_t chunk = 0, blocks = 0;
	int err = 0;

	*more = false;
	if (!space->discard)
		return 0;
	for (; !err && (chunk = next_discard(space, chunk)) != UINT64_MAX; chunk++) {
		uint64_t at = chunk;

		err = um_space_trim(space, &at, chunk + 1, 1, &blocks);
		*more = !--limit;
		if (*more)
			break;
	}
	return err;
}
