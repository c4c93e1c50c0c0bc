/* SPDX-License-Identifier: BSD-3-Clause */
/* The set of blocks that a checkpoint has to write home, and growable buffers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "txn/internal.h"

int um_buf_reserve(struct um_buf *buf, size_t more)
{
	size_t cap = buf->cap ? buf->cap : 64 << 10;
	uint8_t *at;

	if (buf->cap - buf->len >= more)
		return 0;
	while (cap - buf->len < more)
		cap *= 2;
	at = aligned_alloc(64, cap);
	if (!at)
		return -ENOMEM;
	if (buf->len)
		memcpy(at, buf->at, buf->len);
	free(buf->at);
	buf->at = at;
	buf->cap = cap;
	return 0;
}

static uint32_t slot_of(const struct um_dirty *dirty, um_lba_t lba)
{
	return (uint32_t)(lba * 0x9e3779b97f4a7c15ull >> 32) & dirty->mask;
}

static void insert(struct um_dirty *dirty, uint32_t i)
{
	uint32_t slot = slot_of(dirty, dirty->at[i].lba);

	while (dirty->index[slot])
		slot = (slot + 1) & dirty->mask;
	dirty->index[slot] = i + 1;
}

static void reindex(struct um_dirty *dirty)
{
	uint32_t i;

	memset(dirty->index, 0, ((size_t)dirty->mask + 1) * sizeof(*dirty->index));
	for (i = 0; i < dirty->n; i++)
		insert(dirty, i);
}

int um_dirty_reserve(struct um_dirty *dirty, uint32_t more)
{
	uint32_t cap = dirty->cap ? dirty->cap : 1024;
	struct um_dirty_block *at;
	uint32_t *index;

	if (dirty->cap - dirty->n >= more)
		return 0;
	while (cap - dirty->n < more) {
		if (cap > UINT32_MAX / 8)
			return -ENOMEM;
		cap *= 2;
	}
	at = realloc(dirty->at, cap * sizeof(*at));
	if (!at)
		return -ENOMEM;
	dirty->at = at;
	index = malloc(2 * (size_t)cap * sizeof(*index));
	if (!index)
		return -ENOMEM;
	free(dirty->index);
	dirty->index = index;
	dirty->cap = cap;
	dirty->mask = 2 * cap - 1;
	reindex(dirty);
	return 0;
}

void um_dirty_add(struct um_dirty *dirty, um_lba_t lba, uint64_t seq)
{
	uint32_t slot = slot_of(dirty, lba);

	for (; dirty->index[slot]; slot = (slot + 1) & dirty->mask) {
		struct um_dirty_block *block = &dirty->at[dirty->index[slot] - 1];

		if (block->lba == lba) {
			block->seq = seq;
			return;
		}
	}
	dirty->at[dirty->n] = (struct um_dirty_block){.lba = lba, .seq = seq};
	dirty->index[slot] = ++dirty->n;
}

void um_dirty_prune(struct um_dirty *dirty,
	bool (*gone)(const struct um_dirty_block *block, void *arg), void *arg)
{
	uint32_t i, n = 0;

	if (!dirty->n)
		return;
	for (i = 0; i < dirty->n; i++)
		if (!gone(&dirty->at[i], arg))
			dirty->at[n++] = dirty->at[i];
	dirty->n = n;
	reindex(dirty);
}

void um_dirty_free(struct um_dirty *dirty)
{
	free(dirty->at);
	free(dirty->index);
	memset(dirty, 0, sizeof(*dirty));
}
