/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The changes of a metadata block, as entries of a redo record: ranges of bytes, and fills for runs
 * of equal 32-bit values (reference counts of an extent).
 *
 * A block is compared once, into a bitmap of its changed words; the rest works on that bitmap.
 */
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "txn/internal.h"

#define WORD 8u
#define WORDS (UM_BLOCK_SIZE / WORD)
#define LINE 64u       /* bytes compared at a time, one byte of the bits */
#define GAP_MAX 4u     /* equal words between two changes that cost less than a new entry */
#define FILL_MIN 64u   /* bytes: 16 equal counts */
#define STRIDE_MIN 64u /* bytes of a run before larger pieces are tried */

/* ---- comparing ----------------------------------------------------------------------------------- */

static uint8_t line_changes(const uint8_t *was, const uint8_t *now)
{
	uint64_t a[LINE / WORD], b[LINE / WORD];
	unsigned i, bits = 0;

	memcpy(a, was, LINE);
	memcpy(b, now, LINE);
	for (i = 0; i < LINE / WORD; i++)
		bits |= (unsigned)(a[i] != b[i]) << i;
	return (uint8_t)bits;
}

static bool find_changes(const uint8_t *was, const uint8_t *now, uint64_t *word)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < UM_CHANGE_WORDS; i++) {
		word[i] = 0;
		for (unsigned j = 0; j < 8; j++, was += LINE, now += LINE)
			if (memcmp(was, now, LINE))
				word[i] |= (uint64_t)line_changes(was, now) << 8 * j;
		any |= word[i];
	}
	return any;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static unsigned half_line_changes(
	const uint8_t *was, const uint8_t *now)
{
	__m256i a = _mm256_loadu_si256((const void *)was);
	__m256i b = _mm256_loadu_si256((const void *)now);

	/* A bit for each word that is equal; 4 of them. */
	return (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(a, b)));
}

__attribute__((target("avx2"))) static bool find_changes_avx2(
	const uint8_t *was, const uint8_t *now, uint64_t *word)
{
	uint64_t all = ~0ull;

	for (unsigned i = 0; i < UM_CHANGE_WORDS; i++) {
		uint64_t equal = 0;

		for (unsigned j = 0; j < 16; j++, was += LINE / 2, now += LINE / 2)
			equal |= (uint64_t)half_line_changes(was, now) << 4 * j;
		word[i] = ~equal;
		all &= equal;
	}
	return ~all;
}
#endif

bool um_diff_find(const void *was, const void *now, struct um_changes *out)
{
	if (!was) {
		memset(out, 0xff, sizeof(*out));
		return true;
	}
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		return find_changes_avx2(was, now, out->word);
#endif
	return find_changes(was, now, out->word);
}

void um_diff_add(struct um_changes *changes, uint32_t off, uint32_t len)
{
	uint32_t first = off / WORD, end = (off + len + WORD - 1) / WORD;

	for (uint32_t i = first / 64; i * 64 < end; i++) {
		uint32_t from = first > i * 64 ? first - i * 64 : 0, to = end - i * 64;

		changes->word[i] |= (to >= 64 ? ~0ull : (1ull << to) - 1) & ~0ull << from;
	}
}

/* First word at or after `from` that changed, or that did not; WORDS for none. */
static uint32_t next_word(const struct um_changes *changes, uint32_t from, bool changed)
{
	for (uint32_t i = from / 64; i < UM_CHANGE_WORDS; i++) {
		uint64_t bits = changed ? changes->word[i] : ~changes->word[i];

		if (i == from / 64)
			bits &= ~0ull << (from % 64);
		if (bits)
			return i * 64 + (uint32_t)__builtin_ctzll(bits);
	}
	return WORDS;
}

/* ---- entries ------------------------------------------------------------------------------------- */

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

static uint32_t value_at(const uint8_t *block, uint32_t off)
{
	uint32_t value;

	memcpy(&value, block + off, sizeof(value));
	return value;
}

/* Length of the run of equal 32-bit values at off. */
static uint32_t run_at(const uint8_t *now, uint32_t off, uint32_t end)
{
	uint32_t first = value_at(now, off), at = off + 4, step;

	while (at < end && at - off < STRIDE_MIN && value_at(now, at) == first)
		at += 4;
	if (at == end || at - off < STRIDE_MIN)
		return at - off;
	/* What equals the bytes 4 before it continues the run. */
	for (step = 256; step >= 32; step /= 8)
		while (end - at >= step && !memcmp(now + at, now + at - 4, step))
			at += step;
	while (at < end && value_at(now, at) == first)
		at += 4;
	return at - off;
}

/* Is half of a changed word, which counts because of its other half, unchanged? */
static bool same_half(const uint8_t *was, const uint8_t *now, uint32_t off)
{
	return was && value_at(was, off) == value_at(now, off);
}

/* One changed range: its long runs as fills, the rest as bytes. */
static uint32_t put_range(struct um_buf *buf, struct um_ptr ptr, const uint8_t *was,
	const uint8_t *now, uint32_t off, uint32_t end)
{
	uint32_t at = off, bytes = off, from, to, n = 0;

	while (end - at >= FILL_MIN) {
		from = at;
		to = at + run_at(now, at, end);
		at = to;
		/* Bytes begin and end on a word, so a fill does too, unless the half beside it
		 * needs none. */
		if (from % WORD && (bytes + 4 != from || !same_half(was, now, bytes)))
			from += 4;
		if (to != end && (to + 4 != end || !same_half(was, now, to)))
			to -= to % WORD;
		if (to < from + FILL_MIN)
			continue;
		if (from % WORD)
			bytes = from;
		n += put_bytes(buf, ptr, now, bytes, from);
		put_entry(buf, ptr, UM_ENTRY_FILL, from, to - from, value_at(now, from));
		n++;
		bytes = to;
		if (to % WORD)
			return n;
	}
	return n + put_bytes(buf, ptr, now, bytes, end);
}

uint32_t um_diff_put(struct um_buf *buf, struct um_ptr ptr, const void *was, const void *now,
	const struct um_changes *changes)
{
	uint32_t from = next_word(changes, 0, true), end, next, n = 0;

	while (from < WORDS) {
		end = next_word(changes, from, false);
		for (;;) {
			next = end < WORDS ? next_word(changes, end, true) : WORDS;
			if (next == WORDS || next - end >= GAP_MAX)
				break;
			end = next_word(changes, next, false);
		}
		n += put_range(buf, ptr, was, now, from * WORD, end * WORD);
		from = next;
	}
	return n;
}

uint32_t um_diff_block(struct um_buf *buf, struct um_ptr ptr, const void *was, const void *now)
{
	struct um_changes changes;

	return um_diff_find(was, now, &changes) ? um_diff_put(buf, ptr, was, now, &changes) : 0;
}
