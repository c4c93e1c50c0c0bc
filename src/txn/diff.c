/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What changed in a metadata block, as entries of a redo record: ranges of bytes, and fills where
 * many equal 32-bit values follow each other (reference counts of an extent).
 */
#include <string.h>

#include "txn/internal.h"

#define WORD 8u
#define GAP_MAX 32u  /* equal bytes between two changes that cost less than a new entry */
#define FILL_MIN 64u /* bytes: 16 equal counts */

static void put_entry(struct um_buf *buf, struct um_ptr ptr, uint16_t type, uint32_t off,
	uint32_t len, uint32_t value)
{
	struct um_entry *entry = (struct um_entry *)(buf->at + buf->len);

	memset(entry, 0, sizeof(*entry));
	entry->lba = ptr.lba;
	entry->mirror = ptr.mirror;
	entry->off = (uint16_t)off;
	entry->type = type;
	entry->len = len;
	entry->value = value;
	buf->len += sizeof(*entry);
}

static uint32_t put_bytes(
	struct um_buf *buf, struct um_ptr ptr, const uint8_t *now, uint32_t off, uint32_t end)
{
	if (off == end)
		return 0;
	put_entry(buf, ptr, UM_ENTRY_BYTES, off, end - off, 0);
	memcpy(buf->at + buf->len, now + off, end - off);
	buf->len += end - off; /* a multiple of 8: changes are found by words */
	return 1;
}

/* Length of the run of equal 32-bit values at off. */
static uint32_t run_at(const uint8_t *now, uint32_t off, uint32_t end)
{
	uint32_t first, value, at;

	memcpy(&first, now + off, sizeof(first));
	for (at = off + 4; at < end; at += 4) {
		memcpy(&value, now + at, sizeof(value));
		if (value != first)
			break;
	}
	return at - off;
}

/* One changed range: its long runs as fills, the rest as bytes. */
static uint32_t put_range(
	struct um_buf *buf, struct um_ptr ptr, const uint8_t *now, uint32_t off, uint32_t end)
{
	uint32_t at = off, bytes = off, run, value, n = 0;

	while (at < end) {
		run = run_at(now, at, end);
		if (run < FILL_MIN) {
			at += run;
			continue;
		}
		/* Bytes end on a word: what a run has before its first whole word stays with them. */
		if (at % WORD) {
			at += 4;
			run -= 4;
		}
		run &= ~(WORD - 1);
		if (run < FILL_MIN)
			continue;
		n += put_bytes(buf, ptr, now, bytes, at);
		memcpy(&value, now + at, sizeof(value));
		put_entry(buf, ptr, UM_ENTRY_FILL, at, run, value);
		n++;
		at += run;
		bytes = at;
	}
	return n + put_bytes(buf, ptr, now, bytes, end);
}

static bool same_word(const uint8_t *was, const uint8_t *now, uint32_t off)
{
	uint64_t a, b;

	memcpy(&a, was + off, WORD);
	memcpy(&b, now + off, WORD);
	return a == b;
}

/* First change at or behind off, by cache lines where nothing changed. */
static uint32_t next_change(const uint8_t *was, const uint8_t *now, uint32_t off)
{
	while (off < UM_BLOCK_SIZE) {
		if (!(off % 64) && !memcmp(was + off, now + off, 64))
			off += 64;
		else if (same_word(was, now, off))
			off += WORD;
		else
			break;
	}
	return off;
}

uint32_t um_diff_block(struct um_buf *buf, struct um_ptr ptr, const void *was, const void *now)
{
	uint32_t off, end, next, n = 0;

	if (!was)
		return put_range(buf, ptr, now, 0, UM_BLOCK_SIZE);
	off = next_change(was, now, 0);
	while (off < UM_BLOCK_SIZE) {
		end = off + WORD;
		for (;;) {
			while (end < UM_BLOCK_SIZE && !same_word(was, now, end))
				end += WORD;
			next = next_change(was, now, end);
			if (next == UM_BLOCK_SIZE || next - end >= GAP_MAX)
				break;
			end = next + WORD;
		}
		n += put_range(buf, ptr, now, off, end);
		off = next;
	}
	return n;
}
