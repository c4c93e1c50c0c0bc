/* SPDX-License-Identifier: BSD-3-Clause */
/* Storing the contents of records: at commit, and again after a crash. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "pool/log.h"
#include "pool/rests.h"
#include "pool/seeded.h"
#include "txn/internal.h"

static bool meets(um_lba_t lba, uint64_t n, um_lba_t first, uint64_t count)
{
	return lba < first + count && first < lba + n;
}

/* A record that changes the journal could change records that were found valid and are still to be
 * replayed. */
static bool in_journal(const struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	const struct um_super *super = &pool->super;

	return meets(lba, n, super->journal_lba, super->journal_blocks) ||
	       (super->journal_mirror &&
		       meets(lba, n, super->journal_mirror, super->journal_blocks));
}

/* The first copy of the superblock has a number that no pointer can have; only growing changes
 * it. */
static bool is_super(const struct um_entry *entry)
{
	return !entry->lba && !entry->mirror && entry->type == UM_ENTRY_BYTES;
}

static bool home_ok(const struct um_pool *pool, um_lba_t lba, uint64_t n)
{
	return um_lba_ok(pool, lba, n) && !in_journal(pool, lba, n);
}

static bool entry_sound(const struct um_pool *pool, const struct um_entry *entry)
{
	uint64_t blocks = 1;

	if (entry->type == UM_ENTRY_DATA) {
		blocks = ((uint64_t)entry->off + entry->len + UM_BLOCK_SIZE - 1) / UM_BLOCK_SIZE;
		if (entry->off >= UM_BLOCK_SIZE || entry->mirror)
			return false;
	} else if (entry->type == UM_ENTRY_BYTES || entry->type == UM_ENTRY_FILL) {
		if (entry->off > UM_BLOCK_SIZE || entry->len > UM_BLOCK_SIZE - entry->off)
			return false;
		if (entry->type == UM_ENTRY_FILL && (entry->off % 4 || entry->len % 4))
			return false;
	} else {
		return false;
	}
	if (is_super(entry))
		return true;
	return home_ok(pool, entry->lba, blocks ? blocks : 1) &&
	       (!entry->mirror || home_ok(pool, entry->mirror, 1));
}

bool um_record_sound(const struct um_pool *pool, const struct um_record *record)
{
	const uint8_t *at = (const uint8_t *)(record + 1);
	uint64_t left = record->len - sizeof(*record), size;
	uint32_t i;

	for (i = 0; i < record->nentry; i++) {
		const struct um_entry *entry = (const struct um_entry *)at;

		if (left < sizeof(*entry))
			return false;
		size = um_entry_size(entry);
		if (size > left || !entry_sound(pool, entry))
			return false;
		at += size;
		left -= size;
	}
	return true;
}

/* A block that cannot be loaded cannot be stored to either; its other copy replaces it. */
static int ignore_lost(const struct um_pool *pool, um_lba_t lba, int ret)
{
	return ret == -EIO && um_pool_lost(pool, lba, 1) ? 0 : ret;
}

/* Buffer of equal values; consecutive fills usually have the same value. */
struct filler {
	uint32_t value, n;
	wchar_t at[UM_BLOCK_SIZE / 4]; /* for the C library's vectors; 32 bits */
};

static const void *fill_of(struct filler *fill, const struct um_entry *entry)
{
	uint32_t n = entry->len / sizeof(fill->at[0]);

	static_assert(sizeof(fill->at) == UM_BLOCK_SIZE, "wide characters are values");
	if (fill->value != entry->value || fill->n < n) {
		wmemset(fill->at, (wchar_t)entry->value, n);
		fill->value = entry->value;
		fill->n = n;
	}
	return fill->at;
}

static int apply_copy(struct um_log *log, um_lba_t lba, const struct um_entry *entry,
	const void *src, uint64_t seq)
{
	int ret;

	/* A mirror on a direct pool: it is not read soon, so bypass the caches. */
	if (log->direct && lba != entry->lba)
		ret = um_pool_write(log->pool, lba, entry->off, src, entry->len);
	else
		ret = um_pool_apply(log->pool, lba, entry->off, src, entry->len);
	if (!log->direct)
		um_dirty_add(&log->dirty, lba, seq);
	return ignore_lost(log->pool, lba, ret);
}

static int apply_meta(
	struct um_log *log, const struct um_entry *entry, uint64_t seq, struct filler *fill)
{
	const void *src = entry->type == UM_ENTRY_FILL ? fill_of(fill, entry) : entry + 1;
	int ret = apply_copy(log, entry->lba, entry, src, seq);

	if (!ret && entry->mirror && !um_seeded_bug(13))
		ret = apply_copy(log, entry->mirror, entry, src, seq);
	return ret;
}

static int apply_data(struct um_log *log, const struct um_entry *entry)
{
	int ret = um_pool_write(log->pool, entry->lba, entry->off, entry + 1, entry->len);

	return ignore_lost(log->pool, entry->lba, ret);
}

static int apply_entries(struct um_log *log, const struct um_record *record, unsigned which,
	bool super, bool *out_super)
{
	const uint8_t *at = (const uint8_t *)(record + 1);
	struct filler fill;
	int ret = 0, ret2;
	uint32_t i;

	fill.value = fill.n = 0;
	for (i = 0; i < record->nentry; i++) {
		const struct um_entry *entry = (const struct um_entry *)at;
		bool data = entry->type == UM_ENTRY_DATA;

		ret2 = 0;
		if (is_super(entry) != super)
			*out_super |= !super;
		else if (data && (which & UM_APPLY_DATA))
			ret2 = apply_data(log, entry);
		else if (!data && (which & UM_APPLY_META))
			ret2 = apply_meta(log, entry, record->seq, &fill);
		if (!ret)
			ret = ret2;
		at += um_entry_size(entry);
	}
	return ret;
}

int um_record_apply(struct um_log *log, const struct um_record *record, unsigned which)
{
	bool super = false;
	int ret = apply_entries(log, record, which, false, &super), ret2;

	if (!super || !(which & UM_APPLY_META))
		return ret;
	/* If torn by a crash it needs the second copy, which must be complete. Indirect pools: see
	 * checkpoint.c. */
	um_pool_drain(log->pool);
	log->new_super = true;
	ret2 = apply_entries(log, record, UM_APPLY_META, true, &super);
	return ret ? ret : ret2;
}

/* ---- recovery --------------------------------------------------------------------------------------- */

/* Do all valid records count, or only those that a COMMIT covers? See enum in format.h. */
static bool all_count(const struct um_log *log, const struct um_ring_state *state)
{
	static const uint8_t unknown[16];

	if (state->mode == UM_JOURNAL_DIRECT)
		return true;
	return memcmp(log->boot_id, unknown, 16) && !memcmp(log->boot_id, state->boot_id, 16);
}

/* Is all the data that a COMMIT depends on present? */
static bool vouched(const struct um_log *log, const struct um_record *record)
{
	const struct um_entry *entry = (const struct um_entry *)(record + 1);
	const struct um_pool *pool = log->pool;
	uint32_t i;

	if (record->nentry > (record->len - sizeof(*record)) / sizeof(*entry))
		return false;
	for (i = 0; i < record->nentry; i++, entry++) {
		const uint8_t *bytes;
		bool there;

		if (entry->type != UM_ENTRY_SUM || entry->off >= UM_BLOCK_SIZE ||
			!home_ok(pool, entry->lba,
				((uint64_t)entry->off + entry->len + UM_BLOCK_SIZE - 1) /
					UM_BLOCK_SIZE))
			return false;
		bytes = pool->base + (entry->lba << UM_BLOCK_SHIFT); /* a place */
		um_guard_check();
		there = um_rest_csum(pool, bytes + entry->off, entry->len) == entry->mirror;
		if (um_guard_check() || !there)
			return um_seeded_bug(30);
	}
	return true;
}

/* The COMMIT records found: the last one may depend on data that is missing, those before it do
 * not. */
struct commits {
	uint64_t covers, before; /* of the last, and of the one before it */
	const struct um_record *last;
};

static void note_commit(struct commits *c, const struct um_record *record)
{
	if (record->covers < c->covers)
		return;
	c->before = c->covers;
	c->covers = record->covers;
	c->last = record;
}

/* The result of walking the records. */
struct found {
	struct um_cursor end;
	uint64_t next;  /* number after the last */
	uint64_t limit; /* up to here they count */
	bool listed;    /* because listed data was found */
	uint64_t firm;  /* up to here there is a COMMIT without a list, and none after it */
};

static int scan(struct um_log *log, const struct um_ring_state *state, struct found *out)
{
	struct commits commits = {state->tail_seq - 1, state->tail_seq - 1, NULL};
	struct um_cursor cursor = {.offset = state->tail};
	const struct um_record *record;
	uint64_t next = state->tail_seq;

	while (!um_ring_read(&log->ring, &cursor, next, &record)) {
		if (record->type == UM_RECORD_TXN) {
			if (!um_record_sound(log->pool, record)) {
				um_err("%s: journal record %llu is invalid", log->pool->path,
					(unsigned long long)next);
				return -EUCLEAN;
			}
			next++;
		} else if (record->type == UM_RECORD_COMMIT) {
			note_commit(&commits, record);
		} else {
			um_err("%s: journal record of unknown type %u", log->pool->path,
				record->type);
			return -EUCLEAN;
		}
	}
	out->end = cursor;
	out->next = next;
	out->limit = next - 1;
	out->listed = false;
	out->firm = commits.last && !commits.last->nentry ? commits.covers : state->tail_seq - 1;
	if (all_count(log, state))
		return 0;
	out->listed = commits.last && commits.last->nentry;
	if (out->listed && !vouched(log, commits.last)) {
		out->listed = false;
		commits.covers = commits.before;
	}
	if (commits.covers < next)
		out->limit = commits.covers;
	return 0;
}

static int store_records(
	struct um_log *log, const struct um_ring_state *state, uint64_t next, uint64_t limit)
{
	struct um_cursor cursor = {.offset = state->tail};
	uint64_t seq = state->tail_seq;
	const struct um_record *record;
	struct um_stripes stripes = {0};
	int ret = 0;

	while (!ret && seq < next && seq <= limit) {
		if (um_ring_read(&log->ring, &cursor, seq, &record))
			return -EIO; /* it was there a moment ago */
		if (record->type != UM_RECORD_TXN)
			continue;
		if (!log->direct)
			ret = um_dirty_reserve(&log->dirty, 2 * record->nentry);
		if (!ret)
			ret = um_record_apply(log, record,
				um_seeded_bug(11) ? UM_APPLY_META : UM_APPLY_DATA | UM_APPLY_META);
		if (!ret)
			ret = um_parity_note(log, record, &stripes);
		log->replayed++;
		seq++;
	}
	if (!ret)
		ret = um_parity_replay(log, &stripes, seq - 1);
	free(stripes.at);
	if (!um_seeded_bug(12))
		um_pool_drain(log->pool);
	return ret;
}

/* Reads the pool's records of bad blocks, which before a replay may be half old and half new. */
static int load_bad(struct um_pool *pool, bool replayed, bool *changed)
{
	uint64_t errors = atomic_load(&pool->csum_errors);
	uint64_t repairs = atomic_load(&pool->mirror_repairs);
	uint32_t nrepair = pool->nrepair, ntrouble = pool->ntrouble;
	int ret;

	*changed = false;
	if (!pool->load_bad)
		return 0;
	ret = pool->load_bad(pool, changed);
	if (replayed)
		return ret;
	atomic_store(&pool->csum_errors, errors);
	atomic_store(&pool->mirror_repairs, repairs);
	pool->nrepair = nrepair;
	pool->ntrouble = ntrouble;
	return 0;
}

/* Records use the original number of a block. Its place is only certain once all is replayed; if
 * that shows changes, all is stored once more, to the right places. */
static int store_all(
	struct um_log *log, const struct um_ring_state *state, uint64_t next, uint64_t limit)
{
	bool changed;
	int ret = load_bad(log->pool, false, &changed);

	if (!ret)
		ret = store_records(log, state, next, limit);
	if (!ret)
		ret = load_bad(log->pool, true, &changed);
	if (ret || !changed || !log->replayed)
		return ret;
	log->replayed = 0;
	return store_records(log, state, next, limit);
}

int um_log_replay(struct um_log *log, const struct um_ring_state *state)
{
	struct um_pool *pool = log->pool;
	bool readonly = pool->readonly;
	struct found found;
	int ret;

	ret = scan(log, state, &found);
	if (ret)
		return ret;
	/* A pool opened read-only has a private mapping: the replay ends with this process. */
	pool->readonly = false;
	ret = store_all(log, state, found.next, found.limit);
	pool->readonly = readonly;
	/* The pool had grown: everything replayed dates from before that, see fs/grow.c. */
	if (!ret && log->new_super)
		ret = um_pool_load_super(pool);
	if (ret) {
		um_err("%s: cannot replay the journal: %s", pool->path, strerror(-ret));
		return ret;
	}
	if (log->replayed && !pool->peek)
		um_info("%s: %llu transactions replayed", pool->path,
			(unsigned long long)log->replayed);
	if (found.limit < found.next - 1 && !pool->peek)
		um_info("%s: %llu transactions after the last durable group dropped", pool->path,
			(unsigned long long)(found.next - 1 - found.limit));
	log->ring.head = found.end.offset;
	log->ring.used = found.end.walked;
	log->ring.seq = found.next - 1;
	/* What was dropped is still in the ring: the next COMMIT must not make it count. */
	um_log_set_seq(log, found.limit);
	/*
	 * After the death of a daemon the kernel has these records, but perhaps the medium does
	 * not; and what counts because data was found would not count if that data were changed. So
	 * before anything goes home, a group commit without a list must cover them. If such a
	 * COMMIT exists already no other is needed, so that recovery may be interrupted any number
	 * of times and always finds room in the ring.
	 */
	if (log->replayed && (found.listed || all_count(log, state)) && !um_seeded_bug(14)) {
		atomic_store(&log->durable, state->tail_seq - 1);
		atomic_store(&log->firm, state->tail_seq - 1);
		atomic_store(&log->covered, found.firm);
		atomic_store(&log->covered_firm, found.firm);
	}
	return 0;
}
