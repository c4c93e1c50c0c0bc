/* SPDX-License-Identifier: BSD-3-Clause */
/* The journal on the medium: its header and its ring of records, in one or two copies. */
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#ifdef UM_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#include "pool/log.h"
#include "pool/seeded.h"
#include "txn/internal.h"

/*
 * The header's checksum covers what is written once per mount. The tail follows, which every
 * transaction of a direct pool moves with a single store, so no checksum could change along with
 * it.
 */
#define HEAD_CSUM_LEN 128u
#define HEAD_LEN (offsetof(struct um_journal, tail_seq) + sizeof(um_le64_t))
static_assert(offsetof(struct um_journal, tail) == HEAD_CSUM_LEN, "tail is outside the checksum");

uint64_t um_journal_csum(const struct um_journal *head)
{
	uint8_t bytes[HEAD_CSUM_LEN];

	memcpy(bytes, head, sizeof(bytes));
	memset(bytes + offsetof(struct um_block_hdr, csum), 0, sizeof(um_le64_t));
	return XXH3_64bits(bytes, sizeof(bytes));
}

#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, uint64_t) /* Linux 5.15 */
#endif

const uint8_t *um_boot_id_fake;

/* The pool's device may have been a different one before, of the same name. */
static int add_attachment(const struct um_pool *pool, uint8_t out[16])
{
	uint64_t attachment, head;

	if (ioctl(pool->fd, BLKGETDISKSEQ, &attachment))
		return errno == ENOTTY || errno == EINVAL ? 0 : -errno;
	memcpy(&head, out, sizeof(head));
	head ^= attachment;
	memcpy(out, &head, sizeof(head));
	return 0;
}

int um_boot_id(const struct um_pool *pool, uint8_t out[16])
{
	FILE *file;
	unsigned n = 0;
	int c, high = -1, ret;

	if (um_boot_id_fake) {
		memcpy(out, um_boot_id_fake, 16);
		return 0;
	}
	memset(out, 0, 16);
	file = fopen("/proc/sys/kernel/random/boot_id", "re");
	if (!file)
		return errno == ENOENT ? 0 : -errno;
	while (n < 16 && (c = fgetc(file)) != EOF) {
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
						   : -1;

		if (digit < 0)
			continue;
		if (high < 0) {
			high = digit;
			continue;
		}
		out[n++] = (uint8_t)(high << 4 | digit);
		high = -1;
	}
	ret = ferror(file) ? -EIO : 0;
	fclose(file);
	/* All zeros means "unknown" and matches no boot. */
	if (n < 16)
		memset(out, 0, 16);
	else if (pool->kind == UMBRA_POOL_BLOCK)
		ret = add_attachment(pool, out);
	return ret;
}

/* ---- header --------------------------------------------------------------------------------------- */

static const char *head_fault(
	const struct um_pool *pool, const struct um_journal *head, uint64_t ring_size)
{
	const struct um_block_hdr *hdr = &head->hdr;

	if (hdr->magic != UM_MAGIC(UM_KIND_JOURNAL) || hdr->kind != UM_KIND_JOURNAL)
		return "no magic";
	if (hdr->lba != pool->super.journal_lba || hdr->mirror != pool->super.journal_mirror)
		return "wrong address";
	if (memcmp(hdr->uuid, pool->super.hdr.uuid, sizeof(hdr->uuid)))
		return "of another pool";
	if (um_journal_csum(head) != hdr->csum)
		return "wrong checksum";
	if (head->mode != UM_JOURNAL_DIRECT && head->mode != UM_JOURNAL_GROUPS)
		return "unknown mode";
	if ((head->tail >> 32) * 64 >= ring_size)
		return "tail outside of the ring";
	return NULL;
}

static const char *load_head(
	struct um_pool *pool, um_lba_t lba, uint64_t ring_size, struct um_journal *out)
{
	const char *fault;

	if (!um_lba_ok(pool, lba, 1) || um_pool_lost(pool, lba, 1))
		return "cannot be read";
	memcpy(out, um_pool_ptr(pool, lba), sizeof(*out));
	fault = head_fault(pool, out, ring_size);
	return um_guard_check() ? "cannot be read" : fault;
}

/* The number nearest to the hint whose low half is the one stored with the tail. */
static uint64_t full_seq(uint64_t hint, uint32_t low)
{
	return hint + (uint64_t)(int64_t)(int32_t)(low - (uint32_t)hint);
}

int um_ring_load(struct um_pool *pool, struct um_ring *ring, struct um_ring_state *out)
{
	const struct um_super *super = &pool->super;
	const char *fault, *fault2 = NULL;
	struct um_journal head, second;

	memset(ring, 0, sizeof(*ring));
	memset(out, 0, sizeof(*out));
	ring->pool = pool;
	ring->lba = super->journal_lba + 1;
	ring->mirror = super->journal_mirror ? super->journal_mirror + 1 : 0;
	ring->size = (super->journal_blocks - 1) * UM_BLOCK_SIZE;
	if (super->journal_blocks < 3 ||
		!um_lba_ok(pool, super->journal_lba, super->journal_blocks)) {
		um_err("%s: journal lies outside of the pool", pool->path);
		return -EUCLEAN;
	}
	fault = load_head(pool, super->journal_lba, ring->size, &head);
	if (ring->mirror)
		fault2 = load_head(pool, super->journal_mirror, ring->size, &second);
	if (fault && ring->mirror && !fault2)
		head = second;
	if (fault || fault2) {
		bool lost = fault && (!ring->mirror || fault2);

		um_log_line(lost ? UMBRA_LOG_ERROR : UMBRA_LOG_WARN,
			"%s: block %llu (journal header) is bad: %s%s", pool->path,
			(unsigned long long)(fault ? super->journal_lba : super->journal_mirror),
			fault ? fault : fault2, lost ? "" : "; using its other copy");
		if (lost)
			return -EUCLEAN;
		out->repair = true;
	}
	memcpy(out->boot_id, head.boot_id, sizeof(out->boot_id));
	out->mode = head.mode;
	out->tail = (head.tail >> 32) * 64;
	out->tail_seq = full_seq(head.tail_seq, (uint32_t)head.tail);
	ring->hint = head.tail_seq;
	ring->head = ring->tail = out->tail;
	ring->seq = out->tail_seq - 1;
	return 0;
}

/* Stores the same bytes in both copies of the journal; one success is sufficient. */
static int store_both(struct um_ring *ring, um_lba_t first, um_lba_t second, uint64_t at,
	const void *src, size_t len)
{
	uint32_t off = (uint32_t)(at % UM_BLOCK_SIZE);
	int ret2 = -EIO, ret;

	if (second)
		ret2 = um_pool_write_journal(
			ring->pool, second + at / UM_BLOCK_SIZE, off, src, len);
	ret = um_pool_write_journal(ring->pool, first + at / UM_BLOCK_SIZE, off, src, len);
	/* If a file cannot take one copy, the other is not to be relied on; bad memory under a
	 * mapping is a different matter. */
	if (ret && second && !ret2 &&
		(ring->pool->direct || um_pool_lost(ring->pool, first + at / UM_BLOCK_SIZE,
					       (off + len + UM_BLOCK_SIZE - 1) / UM_BLOCK_SIZE)))
		return 0;
	return ret;
}

int um_ring_store(struct um_ring *ring, const uint8_t boot_id[16], uint32_t mode)
{
	struct um_pool *pool = ring->pool;
	struct um_ptr at = {pool->super.journal_lba, pool->super.journal_mirror};
	struct um_journal head;
	size_t len = HEAD_LEN;
	int ret2 = 0, ret;

	memset(&head, 0, sizeof(head));
	um_block_init(pool, &head, UM_KIND_JOURNAL, 0, at, 0, 0);
	memcpy(head.boot_id, boot_id, sizeof(head.boot_id));
	head.first_seq = ring->seq + 1;
	head.mode = mode;
	head.tail = ring->tail / 64 << 32 | (uint32_t)(ring->seq + 1);
	head.tail_seq = ring->seq + 1;
	head.hdr.csum = um_journal_csum(&head);
	/* Cache lines may tear. The tail is stored separately (um_ring_move_tail), and one valid
	 * copy of the rest exists at any time. On a device all of it lies in one sector. */
	if (pool->direct)
		len = HEAD_CSUM_LEN;
	else
		ring->hint = head.tail_seq;
	if (at.mirror) {
		ret2 = um_pool_write_journal(pool, at.mirror, 0, &head, len);
		um_pool_drain(pool);
	}
	if (ret2 && ret2 != -EIO)
		return ret2;
	ret = um_pool_write_journal(pool, at.lba, 0, &head, len);
	um_pool_drain(pool);
	/* If memory is bad under one copy, the other remains. */
	if (ret == -EIO && at.mirror && !ret2 && um_pool_lost(pool, at.lba, 1))
		return 0;
	return ret || !ret2 || um_pool_lost(pool, at.mirror, 1) ? ret : ret2;
}

void um_ring_disown(struct um_ring *ring)
{
	const um_lba_t copy[2] = {ring->lba - 1, ring->mirror ? ring->mirror - 1 : 0};
	struct um_pool *pool = ring->pool;

	for (unsigned i = 0; i < 2 && copy[i]; i++) {
		struct um_journal head;

		memcpy(&head, um_pool_ptr(pool, copy[i]), sizeof(head));
		if (um_guard_check() || head_fault(pool, &head, ring->size))
			continue;
		memset(head.boot_id, 0, sizeof(head.boot_id));
		head.hdr.csum = um_journal_csum(&head);
		if (um_pool_write_journal(pool, copy[i], 0, &head, HEAD_CSUM_LEN))
			um_warn("%s: the journal's header could not be marked", pool->path);
	}
}

int um_ring_move_tail(struct um_ring *ring, uint64_t offset, uint64_t next_seq)
{
	um_lba_t first = ring->lba - 1, second = ring->mirror ? ring->mirror - 1 : 0;
	uint64_t word[2] = {offset / 64 << 32 | (uint32_t)next_seq, next_seq};
	int ret;

	if (!ring->pool->direct) {
		ring->hint = next_seq;
		return store_both(
			ring, first, second, offsetof(struct um_journal, tail), word, sizeof(word));
	}
	/* The hint only has to be within 2^31 of the truth: usually no second store is needed. */
	if (next_seq - ring->hint > 1u << 30) {
		ret = store_both(ring, first, second, offsetof(struct um_journal, tail_seq),
			&word[1], sizeof(word[1]));
		if (ret)
			return ret;
		um_pool_drain(ring->pool);
		ring->hint = next_seq;
	}
	return store_both(
		ring, first, second, offsetof(struct um_journal, tail), &word[0], sizeof(word[0]));
}

/* ---- records ----------------------------------------------------------------------------------------- */

static uint64_t seed_of(const struct um_pool *pool)
{
	uint64_t seed;

	memcpy(&seed, pool->super.hdr.uuid, sizeof(seed));
	return seed;
}

static uint64_t record_csum(const struct um_pool *pool, const struct um_record *record)
{
	static const uint8_t zero[8];
	const uint8_t *bytes = (const uint8_t *)record;
	size_t behind = offsetof(struct um_record, csum) + sizeof(zero);
	XXH3_state_t state;

	/* Seeding resets and keeps the secret if the state's last seed is the same. */
	XXH3_INITSTATE(&state);
	XXH3_64bits_reset_withSeed(&state, seed_of(pool));
	XXH3_64bits_update(&state, bytes, offsetof(struct um_record, csum));
	XXH3_64bits_update(&state, zero, sizeof(zero));
	XXH3_64bits_update(&state, bytes + behind, record->len - behind);
	return XXH3_64bits_digest(&state);
}

uint64_t um_ring_cost(const struct um_ring *ring, uint64_t len)
{
	uint64_t behind = ring->size - ring->head;

	return behind >= len ? len : behind + len;
}

static int store_record(
	struct um_ring *ring, uint64_t offset, struct um_record *record, uint64_t len, uint64_t seq)
{
	record->magic = UM_RECORD_MAGIC;
	record->seq = seq;
	record->len = len;
	record->csum = 0;
	record->csum = XXH3_64bits_withSeed(record, len, seed_of(ring->pool));
	return store_both(ring, ring->lba, ring->mirror, offset, record, len);
}

/*
 * A record that failed in the first copy may be complete in the second, which is written before it,
 * and a mount would replay what was reported as failed: so its head is cleared. -ENOSPC: it was
 * never there.
 */
static int void_record(struct um_ring *ring, uint64_t offset)
{
	static const struct um_record none;
	int ret = 0;

	if (ring->mirror)
		ret = um_pool_write_journal(ring->pool, ring->mirror + offset / UM_BLOCK_SIZE,
			(uint32_t)(offset % UM_BLOCK_SIZE), &none, sizeof(none));
	return um_no_room(ret) ? 0 : ret;
}

int um_ring_append(struct um_ring *ring, struct um_record *record, uint64_t len, uint64_t seq)
{
	uint64_t cost = um_ring_cost(ring, len), offset = ring->head;
	_Alignas(64) struct um_record wrap;
	int ret;

	if (cost > ring->size - ring->used)
		return -ENOSPC;
	if (cost > len) {
		if (offset < ring->size) {
			memset(&wrap, 0, sizeof(wrap));
			wrap.type = UM_RECORD_WRAP;
			ret = store_record(ring, offset, &wrap, sizeof(wrap), ring->seq);
			if (ret)
				return ret;
		}
		offset = 0;
	}
	ret = store_record(ring, offset, record, len, seq);
	if (ret)
		return void_record(ring, offset) ? -EUCLEAN : ret;
	ring->head = offset + len;
	if (ring->head == ring->size)
		ring->head = 0;
	ring->used += cost;
	ring->seq = seq;
	return 0;
}

/* The record at offset in one copy of the ring, if it is valid and the next in sequence. */
static const struct um_record *record_at(
	const struct um_ring *ring, um_lba_t first, uint64_t offset, uint64_t next_seq)
{
	const struct um_record *record;
	uint64_t len;

	um_guard_check();
	record = (const void *)((const uint8_t *)um_pool_ptr(ring->pool, first) + offset);
	len = record->len;
	if (record->magic != UM_RECORD_MAGIC ||
		record->seq != (record->type == UM_RECORD_TXN ? next_seq : next_seq - 1))
		record = NULL;
	else if (len < sizeof(*record) || len % 64 || len > ring->size - offset)
		record = NULL;
	else if (record_csum(ring->pool, record) != record->csum && !um_seeded_bug(10))
		record = NULL;
	return um_guard_check() ? NULL : record;
}

int um_ring_read(const struct um_ring *ring, struct um_cursor *cursor, uint64_t next_seq,
	const struct um_record **out)
{
	const struct um_record *record;

	for (;;) {
		if (cursor->walked >= ring->size)
			return -ENOENT;
		record = record_at(ring, ring->lba, cursor->offset, next_seq);
		if (!record && ring->mirror)
			record = record_at(ring, ring->mirror, cursor->offset, next_seq);
		if (!record)
			return -ENOENT;
		if (record->type != UM_RECORD_WRAP)
			break;
		if (!cursor->offset)
			return -ENOENT; /* none is ever written there */
		cursor->walked += ring->size - cursor->offset;
		cursor->offset = 0;
	}
	cursor->walked += record->len;
	cursor->offset += record->len;
	if (cursor->offset == ring->size)
		cursor->offset = 0;
	*out = record;
	return 0;
}

/* ---- mkfs ----------------------------------------------------------------------------------------------- */

static bool is_zero(const uint8_t *block)
{
	return !block[0] && !memcmp(block, block + 1, UM_BLOCK_SIZE - 1);
}

/* Clears one copy. Records of an older pool with the same UUID would be valid here. Blocks that are
 * zero already, as in a new file, stay unallocated. */
static int clear_copy(struct um_pool *pool, um_lba_t first)
{
	um_lba_t lba;
	bool zero;
	int ret = 0;

	for (lba = first; lba < first + pool->super.journal_blocks && !ret; lba++) {
		zero = is_zero(um_pool_ptr(pool, lba));
		if (um_guard_check() || !zero)
			ret = um_pool_zero(pool, lba, 0, UM_BLOCK_SIZE);
	}
	return ret;
}

int um_log_format(struct um_pool *pool)
{
	const struct um_super *super = &pool->super;
	static const uint8_t no_boot[16];
	struct um_ring ring = {.pool = pool, .lba = super->journal_lba + 1};
	int ret;

	if (super->journal_blocks < 3 ||
		!um_lba_ok(pool, super->journal_lba, super->journal_blocks) ||
		(super->journal_mirror &&
			!um_lba_ok(pool, super->journal_mirror, super->journal_blocks)))
		return -EINVAL;
	if (super->journal_mirror)
		ring.mirror = super->journal_mirror + 1;
	ring.size = (super->journal_blocks - 1) * UM_BLOCK_SIZE;
	ring.hint = ~0ull;
	ret = clear_copy(pool, super->journal_lba);
	if (!ret && super->journal_mirror)
		ret = clear_copy(pool, super->journal_mirror);
	if (!ret)
		ret = um_ring_move_tail(&ring, 0, 1);
	if (!ret)
		ret = um_ring_store(
			&ring, no_boot, pool->direct ? UM_JOURNAL_DIRECT : UM_JOURNAL_GROUPS);
	return ret ? ret : um_pool_barrier(pool);
}
