/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parity. For each 8 consecutive blocks, a **stripe**, one block at a static place is the XOR of
 * those that are **covered**: nodes, their second copies, written file data. One bit per block, in
 * metadata, records which are; it changes in the transaction that makes the block count, or stop
 * counting. So writes to blocks that nothing refers to yet need no parity.
 *
 * Covered blocks change by records only. Commit updates parity while it applies a record: it XORs
 * in what changes in a block, and the contents of blocks that come or go. Replay cannot know the
 * previous state, so it recomputes the stripes that a record touches, which the record identifies
 * by the blocks it changes and by the bits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/log.h"
#include "pool/seeded.h"
#include "txn/internal.h"

#define STRIPE UM_PARITY_WIDTH
#define ALL ((1u << STRIPE) - 1)

typedef uint64_t words_t __attribute__((vector_size(32), aligned(1), may_alias));

/* The compiler's vectors are enough: the loop is bound by memory. */
static void xor_block(void *to, const void *from)
{
	words_t *a = to;
	const words_t *b = from;

	for (unsigned i = 0; i < UM_BLOCK_SIZE / sizeof(*a); i++)
		a[i] ^= b[i];
}

/* The XOR of three ranges of bytes. */
static void xor_bytes(
	uint8_t *to, const uint8_t *a, const uint8_t *b, const uint8_t *c, uint32_t len)
{
	uint32_t i = 0;

	for (; i + sizeof(words_t) <= len; i += sizeof(words_t))
		*(words_t *)(to + i) = *(const words_t *)(a + i) ^ *(const words_t *)(b + i) ^
				       *(const words_t *)(c + i);
	for (; i < len; i++)
		to[i] = a[i] ^ b[i] ^ c[i];
}

static bool in_stripes(const struct um_pool *pool, um_lba_t lba)
{
	return um_chunk_usable(&pool->super, um_chunk_of(lba));
}

static um_lba_t stripe_of(um_lba_t lba)
{
	return lba & ~(um_lba_t)(STRIPE - 1);
}

static const um_le64_t *bits_in(const struct um_pool *pool, const void *block, uint64_t chunk)
{
	uint32_t i = um_chunk_place(&pool->super, chunk).i;

	return ((const struct um_cover *)block)->bits[i % UM_COVER_CHUNKS];
}

/* Bitmap of the covered blocks of a stripe. */
static int stripe_mask(struct um_src src, um_lba_t stripe, unsigned *out)
{
	uint64_t chunk = um_chunk_of(stripe);
	unsigned i = stripe % UM_CHUNK_BLOCKS;
	const void *block;
	int err = um_src_get(src, um_cover_ptr(src.pool, chunk), UM_KIND_COVER, &block);

	if (!err)
		*out = bits_in(src.pool, block, chunk)[i / 64] >> (i % 64) & ALL;
	return err ? err : um_guard_check();
}

/* XORs in the contents of a block. -EIO. */
static int add_block(const struct um_pool *pool, um_lba_t lba, void *sum)
{
	if (um_pool_lost(pool, lba, 1))
		return -EIO;
	um_guard_check(); /* a mark left by an earlier load is not about this block */
	xor_block(sum, um_pool_ptr(pool, lba));
	return um_guard_check();
}

static int add_blocks(const struct um_pool *pool, um_lba_t stripe, unsigned mask, void *sum)
{
	int err = 0;

	for (unsigned i = 0; !err && i < STRIPE; i++)
		if (mask >> i & 1)
			err = add_block(pool, stripe + i, sum);
	return err;
}

int um_parity_sum(const struct um_pool *pool, um_lba_t lba, unsigned mask, void *out)
{
	memset(out, 0, UM_BLOCK_SIZE);
	return add_blocks(pool, stripe_of(lba), mask, out);
}

int um_parity_rebuild(struct um_src src, um_lba_t lba, void *out)
{
	um_lba_t stripe = stripe_of(lba);
	unsigned mask, bit = 1u << (lba % STRIPE);
	int err;

	if (!um_has_parity(src.pool) || !um_lba_ok(src.pool, lba, 1) || !in_stripes(src.pool, lba))
		return -ENODATA;
	err = stripe_mask(src, stripe, &mask);
	if (err)
		return err;
	if (!(mask & bit))
		return -ENODATA;
	memset(out, 0, UM_BLOCK_SIZE);
	err = add_block(src.pool, um_parity_lba(src.pool, lba), out);
	return err ? err : add_blocks(src.pool, stripe, mask & ~bit, out);
}

/* The stripe whose parity is at this place; 0: none. */
static um_lba_t stripe_at(const struct um_pool *pool, um_lba_t at)
{
	uint32_t ag = um_chunk_place(&pool->super, um_chunk_of(at)).ag;
	um_lba_t first = um_ag_first(&pool->super, ag) * UM_CHUNK_BLOCKS, begin, stripe;
	struct um_group group;

	um_group_layout(&pool->super, ag, &group);
	begin = first + (um_lba_t)group.parity * UM_CHUNK_BLOCKS;
	if (!group.nparity || at < begin || at - begin >= (um_lba_t)group.nparity * UM_CHUNK_BLOCKS)
		return 0;
	stripe = first + (um_lba_t)group.first * UM_CHUNK_BLOCKS + (at - begin) * STRIPE;
	return um_lba_ok(pool, stripe, STRIPE) && in_stripes(pool, stripe) ? stripe : 0;
}

int um_parity_content(struct um_src src, um_lba_t at, void *out)
{
	um_lba_t stripe = stripe_at(src.pool, at);
	unsigned mask;
	int err;

	memset(out, 0, UM_BLOCK_SIZE);
	if (!stripe)
		return 0; /* behind the last one: unused */
	err = stripe_mask(src, stripe, &mask);
	return err ? err : um_parity_sum(src.pool, stripe, mask, out);
}

bool um_parity_right(struct um_src src, um_lba_t at)
{
	_Alignas(64) uint8_t sum[UM_BLOCK_SIZE];
	um_lba_t stripe = stripe_at(src.pool, at);
	unsigned mask;
	bool right;

	if (!stripe || stripe_mask(src, stripe, &mask) || !mask || um_pool_lost(src.pool, at, 1) ||
		um_parity_sum(src.pool, stripe, mask, sum))
		return true;
	um_guard_check();
	right = !memcmp(sum, um_pool_ptr(src.pool, at), UM_BLOCK_SIZE);
	return um_guard_check() || right;
}

/* ---- in a transaction: what is covered ----------------------------------------------------------- */

/* Notes the changed bits of up to 64 blocks of one word, as runs. */
static int note_bits(struct um_txn *txn, um_lba_t lba, uint64_t changed, bool on)
{
	int err = 0;

	while (!err && changed) {
		unsigned first = (unsigned)__builtin_ctzll(changed), n;

		n = ~(changed >> first) ? (unsigned)__builtin_ctzll(~(changed >> first)) : 64;
		if (first + n > 64)
			n = 64 - first;
		err = um_txn_note_cover(txn, lba + first, n, on);
		if (first + n == 64)
			break;
		changed &= ~0ull << (first + n);
	}
	return err;
}

/* Bad for good: rewriting it was tried. */
static bool is_void(const struct um_pool *pool, struct um_ptr ptr)
{
	return atomic_load(&pool->cover_void) && um_pool_lost(pool, ptr.lba, 1) &&
	       (!ptr.mirror || um_pool_lost(pool, ptr.mirror, 1));
}

int um_txn_cover(struct um_txn *txn, um_lba_t lba, uint32_t n, bool on)
{
	const struct um_pool *pool = txn->log->pool;
	struct um_ptr ptr;
	uint32_t part;
	void *block;
	int err = 0;

	if (!um_has_parity(pool))
		return 0;
	for (; !err && n; n -= part, lba += part) {
		unsigned i = lba % UM_CHUNK_BLOCKS;
		um_le64_t *word;
		uint64_t bits, was;

		part = 64 - i % 64 < n ? 64 - i % 64 : n;
		if (!um_lba_ok(pool, lba, part) || !in_stripes(pool, lba))
			return -EUCLEAN;
		ptr = um_cover_ptr(pool, um_chunk_of(lba));
		err = um_txn_edit(txn, ptr, UM_KIND_COVER, &block);
		if (err && is_void(pool, ptr)) {
			err = 0;
			continue;
		}
		if (err)
			return err;
		word = (um_le64_t *)bits_in(pool, block, um_chunk_of(lba)) + i / 64;
		bits = (part == 64 ? ~0ull : (1ull << part) - 1) << (i % 64);
		was = *word;
		*word = on ? was | bits : was & ~bits;
		err = note_bits(txn, lba - i % 64, was ^ *word, on);
	}
	return err;
}

/* ---- storing ---------------------------------------------------------------------------------------- */

static int store(struct um_log *log, um_lba_t stripe, uint32_t off, const void *src, size_t len,
	uint64_t seq)
{
	um_lba_t lba = um_parity_lba(log->pool, stripe);
	int err = um_pool_apply(log->pool, lba, off, src, len);

	if (!log->direct)
		um_dirty_add(&log->dirty, lba, seq);
	return err == -EIO && um_pool_lost(log->pool, lba, 1) ? 0 : err;
}

/* The parity of the stripe cannot be determined: two of its blocks are lost. */
static void give_up(struct um_log *log, um_lba_t stripe)
{
	um_err("%s: blocks %llu to %llu have lost their parity: two of them, or one and the "
	       "parity, "
	       "cannot be read",
		log->pool->path, (unsigned long long)stripe,
		(unsigned long long)stripe + STRIPE - 1);
	um_pool_set_lost(log->pool, um_parity_lba(log->pool, stripe), 1);
}

/* Computes the parity of a stripe from its covered blocks. */
static int sum_up(struct um_log *log, um_lba_t stripe, unsigned mask, uint64_t seq)
{
	_Alignas(64) uint8_t sum[UM_BLOCK_SIZE];
	int err;

	if (!mask)
		return 0; /* no covered block: undefined */
	err = um_parity_sum(log->pool, stripe, mask, sum);
	return err ? err : store(log, stripe, 0, sum, sizeof(sum), seq);
}

/* XORs in blocks of a stripe that come and go. */
static int add_toggled(struct um_log *log, um_lba_t stripe, unsigned toggled, uint64_t seq)
{
	_Alignas(64) uint8_t sum[UM_BLOCK_SIZE];
	int err;

	memset(sum, 0, sizeof(sum));
	err = add_block(log->pool, um_parity_lba(log->pool, stripe), sum);
	if (!err)
		err = add_blocks(log->pool, stripe, toggled, sum);
	return err ? err : store(log, stripe, 0, sum, sizeof(sum), seq);
}

/* Uses the method that reads less; the other one if something cannot be read. */
static void toggle(struct um_log *log, um_lba_t stripe, unsigned toggled, uint64_t seq)
{
	unsigned mask;
	bool anew;
	int err = stripe_mask((struct um_src){log->pool, NULL}, stripe, &mask);

	if (um_seeded_bug(28))
		return;
	if (err) {
		give_up(log, stripe);
		return;
	}
	anew = !(mask ^ toggled) || __builtin_popcount(mask) <= __builtin_popcount(toggled) + 1;
	err = anew ? sum_up(log, stripe, mask, seq) : add_toggled(log, stripe, toggled, seq);
	if (err && !anew)
		err = sum_up(log, stripe, mask, seq);
	else if (err && (mask ^ toggled))
		err = add_toggled(log, stripe, toggled, seq);
	if (err)
		give_up(log, stripe);
}

/* ---- commit ------------------------------------------------------------------------------------------ */

/* A covered block's bytes from off on are about to change. */
static void change(struct um_log *log, um_lba_t lba, uint32_t off, const uint8_t *now, uint32_t len,
	uint64_t seq)
{
	_Alignas(64) uint8_t sum[UM_BLOCK_SIZE];
	const struct um_pool *pool = log->pool;
	const uint8_t *was = (const uint8_t *)um_pool_ptr(pool, lba) + off;
	const uint8_t *parity;
	unsigned mask;

	if (!in_stripes(pool, lba) || um_pool_lost(pool, lba, 1))
		return;
	if (stripe_mask((struct um_src){log->pool, NULL}, stripe_of(lba), &mask) ||
		!(mask >> (lba % STRIPE) & 1))
		return;
	parity = (const uint8_t *)um_pool_ptr(pool, um_parity_lba(pool, lba)) + off;
	um_guard_check();
	xor_bytes(sum, parity, was, now, len);
	/* If the block is lost it stays what it was. If its parity is lost, there is none. */
	if (!um_guard_check())
		store(log, stripe_of(lba), off, sum, len, seq);
}

void um_parity_before(struct um_log *log, const struct um_record *record)
{
	const uint8_t *at = (const uint8_t *)(record + 1);

	if (!um_has_parity(log->pool) || um_seeded_bug(27))
		return;
	for (uint32_t i = 0; i < record->nentry; i++) {
		const struct um_entry *entry = (const struct um_entry *)at;
		const uint8_t *now = at + sizeof(*entry);
		uint8_t fill[UM_BLOCK_SIZE];
		uint32_t off = entry->off, left = entry->len;

		at += um_entry_size(entry);
		if (!in_stripes(log->pool, entry->lba))
			continue;
		if (entry->type == UM_ENTRY_FILL) {
			for (uint32_t j = 0; j < left; j += 4)
				memcpy(fill + j, &entry->value, 4);
			now = fill;
		}
		if (entry->mirror)
			change(log, entry->mirror, off, now, left, record->seq);
		for (um_lba_t lba = entry->lba; left; lba++, off = 0) {
			uint32_t part = left < UM_BLOCK_SIZE - off ? left : UM_BLOCK_SIZE - off;

			change(log, lba, off, now, part, record->seq);
			now += part;
			left -= part;
		}
	}
}

static int by_lba(const void *a, const void *b)
{
	um_lba_t x = ((const struct um_range *)a)->lba, y = ((const struct um_range *)b)->lba;

	return x < y ? -1 : x > y;
}

void um_parity_after(struct um_txn *txn)
{
	um_lba_t stripe = 0;
	unsigned toggled = 0;

	if (!txn->ncovers)
		return;
	qsort(txn->covers, txn->ncovers, sizeof(*txn->covers), by_lba);
	for (uint32_t i = 0; i < txn->ncovers; i++) {
		um_lba_t lba = txn->covers[i].lba, end = lba + txn->covers[i].n;

		while (lba < end) {
			um_lba_t here = stripe_of(lba), next = here + STRIPE;
			unsigned first = lba % STRIPE;
			unsigned n = (unsigned)((end < next ? end : next) - lba);

			if (here != stripe && toggled)
				toggle(txn->log, stripe, toggled, txn->seq);
			if (here != stripe)
				toggled = 0;
			stripe = here;
			toggled ^= ((1u << n) - 1) << first;
			lba += n;
			/* All of a stripe has gone: its parity is undefined. */
			if (n == STRIPE && !txn->covers[i].meta)
				toggled = 0;
		}
	}
	if (toggled)
		toggle(txn->log, stripe, toggled, txn->seq);
}

uint32_t um_parity_blocks(const struct um_txn *txn)
{
	uint32_t n = 0;

	if (!um_has_parity(txn->log->pool))
		return 0;
	for (uint32_t i = 0; i < txn->ncovers; i++)
		n += 2 + (txn->covers[i].meta ? txn->covers[i].n / STRIPE : 0);
	/* A block's entries, and its mirror's; an entry of data may span more stripes. */
	return n + 2 * txn->nentry;
}

/* ---- replay ------------------------------------------------------------------------------------------- */

static int note_stripe(struct um_stripes *stripes, um_lba_t lba)
{
	um_lba_t stripe = stripe_of(lba), *at;
	uint32_t cap = stripes->cap ? 2 * stripes->cap : 256;

	if (stripes->n && stripes->at[stripes->n - 1] == stripe)
		return 0;
	if (stripes->n == stripes->cap) {
		at = realloc(stripes->at, cap * sizeof(*at));
		if (!at)
			return -ENOMEM;
		stripes->at = at;
		stripes->cap = cap;
	}
	stripes->at[stripes->n++] = stripe;
	return 0;
}

/* If the entry changes cover bits: notes the stripes that these are for. */
static int note_cover(
	const struct um_pool *pool, struct um_stripes *stripes, const struct um_entry *entry)
{
	uint32_t ag = um_chunk_place(&pool->super, um_chunk_of(entry->lba)).ag;
	uint64_t first = um_ag_first(&pool->super, ag), chunk, from, end;
	int err = 0;

	/* For each chunk whose bits are there. */
	for (chunk = first; chunk < first + um_ag_chunks(pool, ag); chunk += UM_COVER_CHUNKS)
		if (um_cover_ptr(pool, chunk).lba == entry->lba)
			break;
	if (chunk >= first + um_ag_chunks(pool, ag))
		return 0;
	from = entry->off < sizeof(struct um_block_hdr) ? 0
							: entry->off - sizeof(struct um_block_hdr);
	end = entry->off + entry->len;
	end = end < sizeof(struct um_block_hdr) ? 0 : end - sizeof(struct um_block_hdr);
	for (; !err && from < end; from++) {
		/* One byte is one stripe. */
		um_lba_t lba = (chunk + from / 64) * UM_CHUNK_BLOCKS + from % 64 * STRIPE;

		if (um_lba_ok(pool, lba, STRIPE) && in_stripes(pool, lba))
			err = note_stripe(stripes, lba);
	}
	return err;
}

int um_parity_note(struct um_log *log, const struct um_record *record, struct um_stripes *stripes)
{
	const uint8_t *at = (const uint8_t *)(record + 1);
	int err = 0;

	static_assert(UM_CHUNK_BLOCKS / STRIPE == 64, "a byte of the bits is a stripe");
	for (uint32_t i = 0; um_has_parity(log->pool) && !err && i < record->nentry; i++) {
		const struct um_entry *entry = (const struct um_entry *)at;
		um_lba_t end = entry->lba + (entry->off + entry->len) / UM_BLOCK_SIZE;

		at += um_entry_size(entry);
		if (!in_stripes(log->pool, entry->lba)) {
			err = note_cover(log->pool, stripes, entry);
			continue;
		}
		for (um_lba_t lba = entry->lba; !err && lba <= end; lba++)
			if (in_stripes(log->pool, lba))
				err = note_stripe(stripes, lba);
		if (!err && entry->mirror)
			err = note_stripe(stripes, entry->mirror);
	}
	return err;
}

static int by_number(const void *a, const void *b)
{
	um_lba_t x = *(const um_lba_t *)a, y = *(const um_lba_t *)b;

	return x < y ? -1 : x > y;
}

int um_parity_replay(struct um_log *log, struct um_stripes *stripes, uint64_t seq)
{
	int err = 0;

	if (um_seeded_bug(29))
		stripes->n = 0;
	if (stripes->n)
		qsort(stripes->at, stripes->n, sizeof(*stripes->at), by_number);
	if (!log->direct)
		err = um_dirty_reserve(&log->dirty, stripes->n);
	for (uint32_t i = 0; !err && i < stripes->n; i++) {
		unsigned mask;

		if (i && stripes->at[i] == stripes->at[i - 1])
			continue;
		if (stripe_mask((struct um_src){log->pool, NULL}, stripes->at[i], &mask) ||
			sum_up(log, stripes->at[i], mask, seq))
			give_up(log, stripes->at[i]);
	}
	free(stripes->at);
	*stripes = (struct um_stripes){0};
	return err;
}
