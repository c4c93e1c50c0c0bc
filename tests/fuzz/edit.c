/* SPDX-License-Identifier: BSD-3-Clause */
/* Edits of blocks: single fields, records, whole blocks, with the checksum corrected or not, in one
 * copy or in both; and journal records. */
#include "edit.h"

#include <xxhash.h>

#include "btree/body.h"
#include "pool/format.h"
#include "txn/internal.h"

#define NBLOCKS (POOL_SIZE / B)
#define PART 40u /* bytes of the input for each edit */
#define HDR sizeof(struct um_block_hdr)

static struct block *blocks; /* metadata first */
static size_t nblocks, nmeta, cap_blocks;
static const struct tree *base;
static struct um_super super;
static uint8_t **was; /* by LBA: the block before any edit; metadata only */

/* ---- which blocks there are --------------------------------------------------------------------------- */

static bool sound(const uint8_t *block)
{
	const struct um_block_hdr *hdr = (const void *)block;
	uint8_t copy[B];

	if ((hdr->magic & 0xffffff) != UM_BLOCK_MAGIC || memcmp(hdr->uuid, super.hdr.uuid, 16))
		return false;
	if (hdr->kind == UM_KIND_JOURNAL)
		return um_journal_csum((const void *)block) == hdr->csum;
	memcpy(copy, block, B);
	um_block_seal(copy);
	return !memcmp(copy, block, B);
}

static void add(uint64_t lba, uint64_t mirror, uint8_t kind)
{
	grow(&blocks, nblocks, &cap_blocks, sizeof(*blocks));
	blocks[nblocks++] = (struct block){lba, mirror, kind};
}

static bool in_journal(uint64_t lba)
{
	return (lba - super.journal_lba < super.journal_blocks) ||
	       (super.journal_mirror && lba - super.journal_mirror < super.journal_blocks);
}

/* Apart from the pool's tables, only blocks with owners; the counts are those of a pool at rest. */
static bool in_use(const uint8_t *pool, uint64_t lba)
{
	struct image img;
	struct um_pool *open;
	uint32_t count = 0, run;
	static uint32_t *all;

	if (!pool) {
		free(all);
		all = NULL;
		return false;
	}
	if (!all) {
		all = xalloc(NBLOCKS * sizeof(*all));
		memset(&img, 0, sizeof(img));
		if (um_pool_open_image((void *)(uintptr_t)pool, POOL_SIZE, UM_POOL_RDONLY, &open))
			die("the pool cannot be opened");
		for (lba = 0; lba < NBLOCKS; lba++) {
			count = 0;
			if (um_ref_count((struct um_src){open, NULL}, lba, 1, &count, &run))
				count = 1;
			all[lba] = count;
		}
		um_pool_close(open);
		return false;
	}
	return all[lba] > 0;
}

void edits_open(const uint8_t *pool, const struct tree *tree)
{
	uint64_t lba;

	base = tree;
	memcpy(&super, pool, sizeof(super));
	was = xalloc(NBLOCKS * sizeof(*was));
	in_use(pool, 0);
	for (lba = 0; lba < NBLOCKS; lba++) {
		const struct um_block_hdr *hdr = (const void *)(pool + lba * B);

		if (!sound(pool + lba * B) || hdr->lba != lba)
			continue;
		if (hdr->kind > UM_KIND_JOURNAL && !in_use(pool, lba))
			continue;
		was[lba] = xalloc(B);
		memcpy(was[lba], pool + lba * B, B);
		add(lba, hdr->mirror, hdr->kind);
	}
	nmeta = nblocks;
	for (lba = 0; lba < NBLOCKS; lba++)
		if (in_use(pool, lba) && !sound(pool + lba * B) && !in_journal(lba))
			add(lba, 0, 0);
	in_use(NULL, 0);
	if (!nmeta || nmeta == nblocks)
		die("the pool has no metadata, or no data");
}

void edits_close(void)
{
	size_t i;

	for (i = 0; i < NBLOCKS; i++)
		free(was[i]);
	free(was);
	free(blocks);
	blocks = NULL;
	nblocks = cap_blocks = 0;
}

void edits_plan(struct input *in, unsigned n, struct edits *out)
{
	unsigned i;

	for (i = 0; i < n && i < EDITS; i++) {
		uint16_t which = take_16(in);
		size_t len = in->left < PART ? in->left : PART;

		/* Sometimes file data. An input that has ended names no superblock. */
		out->block[i] = which % 16 == 15 ? &blocks[nmeta + (which / 16) % (nblocks - nmeta)]
						 : &blocks[(which / 16 + nmeta / 2) % nmeta];
		out->plan[i] = (struct input){in->at, len};
		in->at += len;
		in->left -= len;
		out->n++;
	}
}

/* ---- single edits ------------------------------------------------------------------------------------------ */

/* Numbers that are meaningful in a pool, and others; `old` is the present one. */
static uint64_t take_number(struct input *in, uint64_t old)
{
	uint8_t how = take_8(in);

	switch (how % 9) {
	case 0:
		return old + 1;
	case 1:
		return old - 1;
	case 2:
		return take_8(in);
	case 3:
		return take_16(in);
	case 4:
		return take_64(in);
	case 5:
		return blocks[take_16(in) % nblocks].lba;
	case 6:
		return base->file[take_16(in) % base->n].ino;
	case 7:
		return old ^ 1ull << (take_8(in) & 63);
	default:
		return UINT64_MAX - take_8(in);
	}
}

static void edit_number(struct input *in, uint8_t *at, size_t max)
{
	size_t size = 1ull << (take_8(in) & 3);
	uint64_t value = 0;

	if (size > max)
		size = 1;
	memcpy(&value, at, size);
	value = take_number(in, value);
	memcpy(at, &value, size);
}

/* In a tree's node: a slot's key, offset or length, two slots, a field of a record. */
static void edit_slot(struct input *in, uint8_t *block)
{
	struct um_body *body = (void *)(block + HDR);
	unsigned n = um_body_nrec(body), i = take_8(in), what = take_8(in), at;
	uint8_t *slot, other[12];

	if (!n || n > 300) {
		edit_number(in, block + HDR + i, 8);
		return;
	}
	i %= n;
	slot = block + HDR + 8 + 12ull * i;
	switch (what & 7) {
	case 0:
		edit_number(in, slot, 8);
		break;
	case 1:
		edit_number(in, slot + 8 + 2 * (what >> 7), 2);
		break;
	case 2:
		at = take_8(in) % n;
		memcpy(other, slot, 12);
		memmove(slot, block + HDR + 8 + 12ull * at, 12);
		memcpy(block + HDR + 8 + 12ull * at, other, 12);
		break;
	default:
		at = slot[8] | (unsigned)slot[9] << 8;
		at += (take_8(in) & 31) * 8;
		if (at + 8 <= B - HDR)
			edit_number(in, block + HDR + at, 8);
		break;
	}
}

static void edit_once(struct input *in, uint8_t *block, uint8_t kind)
{
	unsigned what = take_8(in), at = take_16(in) % B, len;
	const struct block *other;

	switch (what % 10) {
	case 0:
		block[at] = take_8(in);
		break;
	case 1:
		edit_number(in, block + (at & ~7u), 8);
		break;
	case 2: /* the first fields of whatever it is */
		edit_number(in, block + HDR + at % 256, 8);
		break;
	case 3:
		other = &blocks[take_16(in) % nmeta];
		len = take_16(in) % B;
		if (len > B - at)
			len = B - at;
		memcpy(block + at, was[other->lba] + at, len);
		break;
	case 4:
		len = take_16(in) % B;
		memset(block + at, what & 16 ? 0xff : 0, len < B - at ? len : B - at);
		break;
	case 5: /* another block, in this place */
		other = &blocks[take_16(in) % nmeta];
		memcpy(block + (what & 16 ? HDR : 0), was[other->lba] + (what & 16 ? HDR : 0),
			B - (what & 16 ? HDR : 0));
		break;
	default:
		if (kind > UM_KIND_JOURNAL)
			edit_slot(in, block);
		else
			edit_number(in, block + HDR + (at % (B - HDR) & ~7u), 8);
		break;
	}
}

/* ---- a record in the journal ---------------------------------------------------------------------------------- */

static void add_entry(struct input *in, uint8_t *record, size_t *len, size_t max)
{
	const struct block *block = &blocks[take_16(in) % nmeta];
	struct um_entry entry = {.lba = block->lba, .mirror = block->mirror};
	uint8_t how = take_8(in);

	entry.type = how & 1 ? UM_ENTRY_BYTES : 1u + (how >> 1) % 4u;
	entry.off = take_16(in) % B;
	entry.len = take_8(in);
	entry.value = take_8(in);
	if (how & 16)
		edit_number(in, (uint8_t *)&entry + (take_8(in) & 24), 8);
	if (*len + sizeof(entry) + 256 > max)
		return;
	memcpy(record + *len, &entry, sizeof(entry));
	*len += sizeof(entry);
	if (entry.type != UM_ENTRY_FILL && entry.len < 256) {
		take_bytes(in, record + *len, entry.len < 16 ? entry.len : 16);
		*len += (entry.len + 7u) & ~7u;
	}
}

static void edit_journal(struct image *img, struct input *in)
{
	struct um_journal *head = (void *)(img->base + super.journal_lba * B);
	uint64_t tail = head->tail >> 32, next = head->tail_seq, seed;
	_Alignas(8) uint8_t bytes[4096] = {0};
	struct um_record *record = (void *)bytes;
	size_t len = sizeof(*record);
	unsigned n = 1 + take_8(in) % 4, i;

	for (i = 0; i < n; i++)
		add_entry(in, bytes, &len, sizeof(bytes));
	len = (len + 63) & ~(size_t)63;
	*record = (struct um_record){.magic = UM_RECORD_MAGIC,
		.type = UM_RECORD_TXN,
		.seq = next,
		.len = len,
		.nentry = n};
	if (take_8(in) & 1)
		edit_number(in, bytes + (take_8(in) & 56), 8);
	record->csum = 0;
	memcpy(&seed, super.hdr.uuid, sizeof(seed));
	record->csum =
		XXH3_64bits_withSeed(bytes, record->len < sizeof(bytes) ? record->len : len, seed);
	if (tail * 64 + len <= (super.journal_blocks - 1) * B)
		image_set(img, img->base, (super.journal_lba + 1) * B + tail * 64, bytes, len);
}

/* ---- all -------------------------------------------------------------------------------------------------------- */

static void seal(uint8_t *block, uint8_t kind)
{
	struct um_journal *head = (void *)block;

	if (kind == UM_KIND_JOURNAL)
		head->hdr.csum = um_journal_csum(head);
	else
		um_block_seal(block);
}

/* The result of two successive edits of one block is not examined. */
static bool both_twice(const struct edits *edits, unsigned i)
{
	unsigned k;

	for (k = 0; k < i; k++)
		if (edits->block[k] == edits->block[i])
			return true;
	return false;
}

static void edit(struct image *img, struct edits *edits, unsigned i)
{
	const struct block *b = edits->block[i];
	struct input *in = &edits->plan[i];
	uint8_t how = take_8(in), copy[B];
	unsigned n = 1 + (how >> 6), k;
	bool sealed = how & 7, first = (how & 24) != 8 || !b->mirror,
	     second = b->mirror && (how & 24) != 16;

	memcpy(copy, img->base + b->lba * B, B);
	for (k = 0; k < n; k++)
		edit_once(in, copy, b->kind);
	if (sealed && b->kind)
		seal(copy, b->kind);
	if (first)
		image_set(img, img->base, b->lba * B, copy, B);
	if (second)
		image_set(img, img->base, b->mirror * B, copy, B);
	/* Of two valid copies the first one counts. */
	edits->lost[i] = (first && (sealed || second || !b->mirror)) || both_twice(edits, i);
	if (b->kind == UM_KIND_SUPER || b->kind == UM_KIND_JOURNAL || b->kind == UM_KIND_ROOT) {
		edits->all |= edits->lost[i];
		edits->super |= edits->lost[i] && b->kind != UM_KIND_ROOT;
	}
}

void edits_do(struct image *img, struct edits *edits)
{
	unsigned i;

	for (i = 0; i < edits->n; i++) {
		uint8_t what = take_8(&edits->plan[i]);

		if (what < 248) {
			edit(img, edits, i);
			continue;
		}
		edit_journal(img, &edits->plan[i]);
		edits->all = true;
	}
}
