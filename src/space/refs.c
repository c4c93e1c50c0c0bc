/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reference counts, in transactions. A chunk whose blocks all have one count is one word in its
 * group's table; when part of it changes, its page of counts is written, and given up again when
 * the counts become equal.
 */
#include <errno.h>
#include <string.h>
#include <wchar.h>

#include "pool/log.h"
#include "space/space_int.h"

/* A run of blocks inside one chunk. */
struct piece {
	uint64_t chunk;
	unsigned first, n;
};

bool um_chunk_ok(const struct um_pool *pool, uint64_t chunk)
{
	return um_chunk_usable(&pool->super, chunk);
}

static int bad(um_lba_t lba, const char *why)
{
	um_err("reference count of block %llu: %s", (unsigned long long)lba, why);
	return -EUCLEAN;
}

/* The part of [lba, lba + n) in its first chunk. */
static int next_piece(const struct um_pool *pool, um_lba_t lba, uint64_t n, struct piece *out)
{
	if (!um_lba_ok(pool, lba, n))
		return bad(lba, "outside the pool");
	out->chunk = um_chunk_of(lba);
	out->first = lba % UM_CHUNK_BLOCKS;
	out->n = UM_CHUNK_BLOCKS - out->first;
	if (out->n > n)
		out->n = (unsigned)n;
	return um_chunk_ok(pool, out->chunk) ? 0 : bad(lba, "in a table chunk");
}

static struct um_ptr ag_ptr(const struct um_pool *pool, uint64_t chunk)
{
	return um_ag_ptr(pool, um_chunk_place(&pool->super, chunk).ag);
}

static int read_word(struct um_src src, uint64_t chunk, uint64_t *out)
{
	const void *block;
	int err = um_src_get(src, ag_ptr(src.pool, chunk), UM_KIND_AG, &block);

	if (err)
		return err;
	*out = ((const struct um_ag *)block)->word[um_chunk_place(&src.pool->super, chunk).i];
	if (UM_WORD_STATE(*out) > UM_CHUNK_MIXED)
		return bad(chunk * UM_CHUNK_BLOCKS, "bad chunk word");
	return 0;
}

static int write_word(struct um_txn *txn, uint64_t chunk, uint64_t word)
{
	const struct um_super *super = &um_txn_pool(txn)->super;
	void *block;
	int err = um_txn_edit(txn, ag_ptr(um_txn_pool(txn), chunk), UM_KIND_AG, &block);

	if (!err)
		((struct um_ag *)block)->word[um_chunk_place(super, chunk).i] = word;
	return err;
}

/* ---- loops over counts --------------------------------------------------------------------------- */

/* Four counts at a time: a worst case touches 143 chunks, and compilers do not vectorise this by
 * themselves. */
#define LANES 4u
typedef uint32_t lanes_t __attribute__((vector_size(16), aligned(4), may_alias));

static uint32_t any_lane(lanes_t v)
{
	uint32_t any = 0;

	for (unsigned i = 0; i < LANES; i++)
		any |= v[i];
	return any;
}

/* The state of some counts before, and the result of, adding a delta. */
struct added {
	bool zero, used; /* some were 0, were not 0, before */
	bool limit;      /* some were at UM_REF_MAX before */
	unsigned freed;  /* how many are 0 now */
};

static bool same(const uint32_t *count, unsigned n)
{
	return count[0] == count[n - 1] && !memcmp(count, count + 1, (n - 1) * sizeof(*count));
}

/* The C library's function uses the processor's widest vectors. */
static void set(uint32_t *count, unsigned n, uint32_t value)
{
	static_assert(sizeof(wchar_t) == sizeof(*count), "wide characters are counts");

	wmemset((wchar_t *)count, (wchar_t)value, n);
}

static void add(uint32_t *count, unsigned n, uint32_t delta, struct added *out)
{
	lanes_t zero = {0}, used = {0}, limit = {0}, freed = {0};
	unsigned i = 0;

	*out = (struct added){.zero = false};
	if (same(count, n)) {
		/* The usual case: an extent is allocated, shared and dropped in one piece. */
		out->zero = !count[0];
		out->used = count[0];
		out->limit = count[0] >= UM_REF_MAX;
		set(count, n, count[0] + delta);
		out->freed = count[0] ? 0 : n;
		return;
	}
	for (; i + LANES <= n; i += LANES) {
		lanes_t v = *(lanes_t *)(count + i);

		zero |= (lanes_t)(v == 0);
		used |= v;
		limit |= (lanes_t)(v >= UM_REF_MAX);
		v += delta;
		freed -= (lanes_t)(v == 0); /* true is -1 */
		*(lanes_t *)(count + i) = v;
	}
	for (unsigned j = 0; j < LANES; j++)
		out->freed += freed[j];
	out->zero = any_lane(zero);
	out->used = any_lane(used);
	out->limit = any_lane(limit);
	for (; i < n; i++) {
		out->zero |= !count[i];
		out->used |= count[i] != 0;
		out->limit |= count[i] >= UM_REF_MAX;
		count[i] += delta;
		out->freed += !count[i];
	}
}

/* ---- changing -------------------------------------------------------------------------------------- */

/* The counts of a chunk for changing, whatever its state was. */
static int edit_counts(struct um_txn *txn, uint64_t chunk, uint64_t word, uint32_t **out)
{
	struct um_ptr ptr = um_refs_ptr(um_txn_pool(txn), chunk);
	void *block;
	int err;

	if (UM_WORD_STATE(word) == UM_CHUNK_MIXED) {
		err = um_txn_edit(txn, ptr, UM_KIND_REF, &block);
		if (!err)
			*out = ((struct um_refs *)block)->count;
		return err;
	}
	err = um_txn_overwrite(txn, ptr, UM_KIND_REF, chunk, &block);
	if (err)
		return err;
	*out = ((struct um_refs *)block)->count;
	set(*out, UM_CHUNK_BLOCKS, UM_WORD_COUNT(word));
	return 0;
}

/* Do those counts allow the change? */
static int allowed(const struct added *added, int delta, bool alloc, um_lba_t lba)
{
	if (alloc)
		return added->used ? bad(lba, "allocated twice") : 0;
	if (added->zero)
		return bad(lba, "in use but not counted");
	return delta > 0 && added->limit ? -EMLINK : 0;
}

/* The resulting state of a piece and its chunk. */
struct result {
	const uint32_t *count; /* the chunk's, NULL if those of the piece are all the same */
	unsigned freed;        /* how many counts became 0 */
	bool uniform;          /* the chunk's counts are all `value` now */
	uint32_t value;
};

/* A whole chunk whose blocks have one count: only its word changes. */
static int change_uniform(struct um_txn *txn, const struct piece *p, uint64_t word, int delta,
	bool alloc, struct result *out)
{
	uint32_t count = UM_WORD_COUNT(word);
	struct added added;
	int err;

	add(&count, 1, (uint32_t)delta, &added);
	err = allowed(&added, delta, alloc, p->chunk * UM_CHUNK_BLOCKS);
	if (err)
		return err;
	*out = (struct result){.freed = delta < 0 && !count ? UM_CHUNK_BLOCKS : 0};
	return write_word(txn, p->chunk, UM_WORD(UM_CHUNK_UNIFORM, 0, count));
}

/* Will all counts of the chunk be equal when those of the piece are `now`? */
static bool uniform_after(const uint32_t *count, const struct piece *p, uint32_t now)
{
	unsigned end = p->first + p->n, rest = UM_CHUNK_BLOCKS - end;

	if (p->first && (count[0] != now || !same(count, p->first)))
		return false;
	return !rest || (count[end] == now && same(count + end, rest));
}

/* A piece whose blocks have one count, `was`. */
static int change_even(struct um_txn *txn, const struct piece *p, uint32_t was, int delta,
	bool alloc, struct result *out)
{
	const struct added added = {.zero = !was, .used = was, .limit = was >= UM_REF_MAX};
	uint32_t now = was + (uint32_t)delta;
	int err = allowed(&added, delta, alloc, p->chunk * UM_CHUNK_BLOCKS + p->first);

	if (err)
		return err;
	out->count = NULL;
	out->freed = delta < 0 && !now ? p->n : 0;
	out->value = now;
	return um_txn_fill(txn, um_refs_ptr(um_txn_pool(txn), p->chunk), UM_KIND_REF,
		offsetof(struct um_refs, count) / sizeof(now) + p->first, p->n, now);
}

/* Any piece, of any chunk: counts one by one. */
static int change_counts(struct um_txn *txn, const struct piece *p, uint64_t word, int delta,
	bool alloc, struct result *out)
{
	struct added added;
	uint32_t *count;
	int err = edit_counts(txn, p->chunk, word, &count);

	if (err)
		return err;
	add(count + p->first, p->n, (uint32_t)delta, &added);
	err = allowed(&added, delta, alloc, p->chunk * UM_CHUNK_BLOCKS + p->first);
	if (err) {
		add(count + p->first, p->n, -(uint32_t)delta, &added);
		return err;
	}
	*out = (struct result){
		.count = count,
		.freed = delta < 0 ? added.freed : 0,
		.uniform = same(count, UM_CHUNK_BLOCKS),
		.value = count[0],
	};
	return 0;
}

/* A piece of a chunk whose counts are in its page. */
static int change_mixed(struct um_txn *txn, const struct piece *p, uint64_t word, int delta,
	bool alloc, struct result *out)
{
	const struct um_refs *refs;
	const void *block;
	uint32_t was;
	bool even;
	int err = um_src_get(
		um_txn_src(txn), um_refs_ptr(um_txn_pool(txn), p->chunk), UM_KIND_REF, &block);

	if (err)
		return err;
	/* Extents are usually allocated, shared and dropped in one piece: then no copy is
	 * needed. */
	refs = block;
	was = refs->count[p->first];
	even = same(refs->count + p->first, p->n);
	out->uniform = even && uniform_after(refs->count, p, was + (uint32_t)delta);
	/* What was read while memory failed is zeros: the copy is made from what can be read. */
	if (um_guard_check() || !even)
		return change_counts(txn, p, word, delta, alloc, out);
	return change_even(txn, p, was, delta, alloc, out);
}

/* Adds delta to a piece of a chunk. */
static int change_piece(
	struct um_txn *txn, const struct piece *p, int delta, bool alloc, struct result *out)
{
	uint64_t word, was;
	unsigned nfree;
	int err = read_word(um_txn_src(txn), p->chunk, &word);

	if (err)
		return err;
	was = word;
	if (UM_WORD_STATE(word) == UM_CHUNK_UNIFORM && p->n == UM_CHUNK_BLOCKS)
		return change_uniform(txn, p, word, delta, alloc, out);
	if (UM_WORD_STATE(word) == UM_CHUNK_UNIFORM) {
		nfree = UM_WORD_COUNT(word) ? 0 : UM_CHUNK_BLOCKS;
		err = change_counts(txn, p, word, delta, alloc, out);
	} else {
		nfree = UM_WORD_NFREE(word);
		err = change_mixed(txn, p, word, delta, alloc, out);
	}
	if (err)
		return err;
	nfree += out->freed;
	nfree -= alloc ? p->n : 0;
	if (nfree > UM_CHUNK_BLOCKS)
		return bad(p->chunk * UM_CHUNK_BLOCKS + p->first, "chunk word and counts disagree");
	word = out->uniform ? UM_WORD(UM_CHUNK_UNIFORM, 0, out->value)
			    : UM_WORD(UM_CHUNK_MIXED, nfree, 0);
	return word == was ? 0 : write_word(txn, p->chunk, word);
}

int um_ref_alloc(struct um_txn *txn, um_lba_t lba, uint32_t n)
{
	struct result result;
	struct piece p;
	int err = next_piece(um_txn_pool(txn), lba, n, &p);

	if (!err && (!n || p.n != n))
		err = -EINVAL;
	if (!err)
		err = change_piece(txn, &p, 1, true, &result);
	return err ? err : um_txn_note_alloc(txn, lba, n);
}

/* Would one more reference exceed the limit anywhere? Called before a change of several chunks. */
static int check_limit(struct um_src src, um_lba_t lba, uint32_t n)
{
	uint32_t count, run;
	int err;

	for (; n; n -= run, lba += run) {
		err = um_ref_count(src, lba, n, &count, &run);
		if (err)
			return err;
		if (count >= UM_REF_MAX)
			return -EMLINK;
	}
	return 0;
}

int um_ref_get(struct um_txn *txn, um_lba_t lba, uint32_t n)
{
	const struct um_pool *pool = um_txn_pool(txn);
	struct result result;
	struct piece p;
	int err = 0;

	if (n && um_chunk_of(lba) != um_chunk_of(lba + n - 1))
		err = check_limit(um_txn_src(txn), lba, n);
	for (; !err && n; n -= p.n, lba += p.n) {
		err = next_piece(pool, lba, n, &p);
		if (!err)
			err = change_piece(txn, &p, 1, false, &result);
		if (err)
			return err;
	}
	return err;
}

/* Notes each run of counts that became 0 in the transaction; count NULL: the whole piece. */
static int note_freed(struct um_txn *txn, const struct piece *p, const uint32_t *count, bool meta)
{
	um_lba_t base = p->chunk * UM_CHUNK_BLOCKS;
	unsigned i = p->first, end = p->first + p->n, from;
	int err = um_space_pin(um_txn_space(txn), p->chunk);

	if (!err && !count)
		return um_txn_note_free(txn, base + p->first, p->n, meta);
	while (!err && i < end) {
		while (i < end && count[i])
			i++;
		from = i;
		while (i < end && !count[i])
			i++;
		if (i > from)
			err = um_txn_note_free(txn, base + from, i - from, meta);
	}
	return err;
}

static int count_piece(
	struct um_src src, const struct piece *p, uint32_t *out_count, unsigned *out_run);

/* Marks one block as retired; `was` is its present count, 0 or 1. */
static int set_retired(struct um_txn *txn, const struct piece *p, uint32_t was)
{
	uint64_t word;
	uint32_t *count;
	unsigned nfree;
	void *root;
	int err = read_word(um_txn_src(txn), p->chunk, &word);

	if (!err)
		err = edit_counts(txn, p->chunk, word, &count);
	if (err)
		return err;
	if (count[p->first] != was)
		return bad(p->chunk * UM_CHUNK_BLOCKS + p->first, "not as it was to be retired");
	nfree = UM_WORD_STATE(word) == UM_CHUNK_MIXED ? UM_WORD_NFREE(word)
		: UM_WORD_COUNT(word)                 ? 0
						      : UM_CHUNK_BLOCKS;
	count[p->first] = UM_REF_RETIRED;
	err = um_txn_edit(txn, um_txn_pool(txn)->super.root, UM_KIND_ROOT, &root);
	if (err)
		return err;
	((struct um_pool_root *)root)->retired++;
	return write_word(txn, p->chunk, UM_WORD(UM_CHUNK_MIXED, nfree - !was, 0));
}

int um_ref_retire(struct um_txn *txn, um_lba_t lba)
{
	struct piece p;
	int err = next_piece(um_txn_pool(txn), lba, 1, &p);

	if (!err)
		err = set_retired(txn, &p, 0);
	return err ? err : um_txn_note_alloc(txn, lba, 1);
}

/* Retires a bad block whose last reference goes: *out_retired. If others remain nothing is done. */
static int retire_last(struct um_txn *txn, const struct piece *p, bool *out_retired)
{
	uint32_t count;
	unsigned run;
	int err = count_piece(um_txn_src(txn), p, &count, &run);

	*out_retired = !err && count == 1;
	return *out_retired ? set_retired(txn, p, 1) : err;
}

/* Cuts a piece at the first bad block; if it begins with one, after the bad ones. */
static bool cut_at_bad(const struct um_pool *pool, um_lba_t lba, struct piece *p)
{
	unsigned i;

	for (i = 0; i < p->n && !um_pool_place_bad(pool, lba + i); i++)
		;
	p->n = i ? i : 1;
	return !i;
}

int um_ref_put(struct um_txn *txn, um_lba_t lba, uint32_t n, bool meta, uint32_t *out_freed)
{
	const struct um_pool *pool = um_txn_pool(txn);
	uint32_t total = 0;
	int err = 0;

	while (!err && n) {
		struct result result = {.freed = 0};
		bool retired = false;
		struct piece p;

		err = next_piece(pool, lba, n, &p);
		if (!err && um_pool_any_bad(pool) && cut_at_bad(pool, lba, &p))
			err = retire_last(txn, &p, &retired);
		if (!err && retired)
			err = um_txn_cover(txn, lba, 1, false);
		if (!err && retired) {
			total++;
			lba++;
			n--;
			continue;
		}
		if (!err)
			err = change_piece(txn, &p, -1, false, &result);
		if (!err && result.freed < p.n)
			um_unshared_note(txn, lba, p.n);
		if (!err && result.freed)
			err = note_freed(txn, &p, result.count, meta);
		if (err)
			return err;
		total += result.freed;
		n -= p.n;
		lba += p.n;
	}
	if (out_freed)
		*out_freed = total;
	return err;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

/* Count of the piece's first block, and for how many of its blocks it is the same. */
static int count_piece(
	struct um_src src, const struct piece *p, uint32_t *out_count, unsigned *out_run)
{
	const struct um_refs *refs;
	const void *block;
	uint64_t word;
	unsigned i = p->first + 1, end = p->first + p->n;
	int err = read_word(src, p->chunk, &word);

	if (err)
		return err;
	if (UM_WORD_STATE(word) == UM_CHUNK_UNIFORM) {
		*out_count = UM_WORD_COUNT(word);
		*out_run = p->n;
		return 0;
	}
	err = um_src_get(src, um_refs_ptr(src.pool, p->chunk), UM_KIND_REF, &block);
	if (err)
		return err;
	refs = block;
	while (i < end && refs->count[i] == refs->count[p->first])
		i++;
	*out_count = refs->count[p->first];
	*out_run = i - p->first;
	return 0;
}

bool um_ref_uniform(struct um_src src, um_lba_t lba, uint32_t *out_count)
{
	struct piece p;
	uint64_t word;

	if (next_piece(src.pool, lba, 1, &p) || read_word(src, p.chunk, &word))
		return false;
	*out_count = UM_WORD_COUNT(word);
	return UM_WORD_STATE(word) == UM_CHUNK_UNIFORM;
}

int um_ref_count(
	struct um_src src, um_lba_t lba, uint32_t n, uint32_t *out_count, uint32_t *out_run)
{
	struct piece p;
	uint32_t count;
	unsigned run;
	int err = next_piece(src.pool, lba, n, &p);

	if (!err)
		err = count_piece(src, &p, out_count, &run);
	if (err)
		return err;
	*out_run = run;
	while (run == p.n && *out_run < n) {
		err = next_piece(src.pool, lba + *out_run, n - *out_run, &p);
		if (!err)
			err = count_piece(src, &p, &count, &run);
		if (err)
			return err;
		if (count != *out_count)
			break;
		*out_run += run;
	}
	return 0;
}
