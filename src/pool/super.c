/* SPDX-License-Identifier: BSD-3-Clause */
/* The superblock: finding, checking, choosing among copies, repairing. */
#include <errno.h>
#include <string.h>

#include "pool/backend.h"
#include "pool/log.h"

#define JOURNAL_MIN_BLOCKS 3u

enum super_state {
	SUPER_NONE = 0, /* no magic */
	SUPER_BAD,      /* magic, but invalid or unreadable */
	SUPER_NEWER,    /* valid, but of a version or with features unknown here */
	SUPER_GOOD,
};

static bool range_ok(uint64_t nblocks, um_lba_t lba, uint64_t n)
{
	return lba && lba < nblocks && n <= nblocks - lba;
}

/* Is the run of blocks inside one group, and clear of its static chunks? Its ends suffice. */
static bool between_tables(const struct um_super *super, um_lba_t lba, uint64_t n)
{
	uint64_t first = um_chunk_of(lba), last = um_chunk_of(lba + n - 1);

	return um_chunk_place(super, first).ag == um_chunk_place(super, last).ag &&
	       um_chunk_usable(super, first) && um_chunk_usable(super, last);
}

static const char *journal_fault(const struct um_super *super, uint64_t nblocks)
{
	uint64_t len = super->journal_blocks;
	um_lba_t a = super->journal_lba, b = super->journal_mirror;

	if (len < JOURNAL_MIN_BLOCKS || !range_ok(nblocks, a, len) ||
		!between_tables(super, a, len))
		return "journal lies outside of the pool";
	if (b && (!range_ok(nblocks, b, len) || !between_tables(super, b, len) ||
			 (b < a + len && a < b + len)))
		return "second copy of the journal is misplaced";
	return NULL;
}

const char *um_super_fault(const struct um_super *super)
{
	uint64_t nblocks = super->nchunks * UM_CHUNK_BLOCKS;
	um_lba_t second;

	if (super->block_size != UM_BLOCK_SIZE)
		return "block size is not 4096";
	if (!um_super_shape_ok(super))
		return "impossible size";
	if (super->copies != 1 && super->copies != 2)
		return "impossible number of metadata copies";
	second = um_super_second(super);
	if (super->hdr.mirror != second)
		return "size and second copy contradict each other";
	if (super->root.lba != UM_TABLE_ROOT ||
		super->root.mirror != (super->copies == 2 ? second + UM_TABLE_ROOT : 0))
		return "pool root is not where it should be";
	return journal_fault(super, nblocks);
}

/* ---- does it belong to this pool? ------------------------------------------------------------------------ */

enum head { HEAD_UNKNOWN, HEAD_AGREES, HEAD_DIFFERS };

/* The words say how long a group is: its table chunk and the mirror are STATIC, nothing follows. */
static bool length_is(const struct um_ag *head, uint32_t chunks)
{
	uint32_t i;

	for (i = chunks; i < UM_AG_CHUNKS && !head->word[i]; i++)
		;
	return i == UM_AG_CHUNKS && UM_WORD_STATE(head->word[0]) == UM_CHUNK_STATIC &&
	       UM_WORD_STATE(head->word[chunks - 1]) == UM_CHUNK_STATIC;
}

static enum head head_at(struct um_pool *pool, um_lba_t lba, const struct um_super *super,
	struct um_ptr ptr, uint32_t chunks)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE];
	const struct um_ag *head = (const struct um_ag *)block;

	if (lba >= pool->map_len / UM_BLOCK_SIZE || um_pool_lost(pool, lba, 1))
		return HEAD_UNKNOWN;
	um_guard_check();
	memcpy(block, um_pool_ptr(pool, lba), sizeof(block));
	if (um_guard_check() || head->hdr.magic != UM_MAGIC(UM_KIND_AG) ||
		um_block_csum(block) != head->hdr.csum)
		return HEAD_UNKNOWN;
	/* The place of the mirror tells the length, too, and is not damaged with the words. */
	return !memcmp(head->hdr.uuid, super->hdr.uuid, sizeof(head->hdr.uuid)) &&
			       head->hdr.lba == ptr.lba && head->hdr.mirror == ptr.mirror &&
			       (ptr.mirror || length_is(head, chunks))
		       ? HEAD_AGREES
		       : HEAD_DIFFERS;
}

/* Compares the superblock with the chunk words of a group that it describes. */
static enum head ask_head(struct um_pool *pool, const struct um_super *super, uint32_t ag)
{
	um_lba_t first = um_ag_first(super, ag) * UM_CHUNK_BLOCKS;
	struct um_ptr ptr = {first + UM_TABLE_AG, 0};
	struct um_group group;
	enum head ret;

	um_group_layout(super, ag, &group);
	if (super->copies == 2)
		ptr.mirror = ptr.lba + (um_lba_t)(group.chunks - 1) * UM_CHUNK_BLOCKS;
	ret = head_at(pool, ptr.lba, super, ptr, group.chunks);
	return ret == HEAD_UNKNOWN && ptr.mirror
		       ? head_at(pool, ptr.mirror, super, ptr, group.chunks)
		       : ret;
}

bool um_super_agrees(struct um_pool *pool, const struct um_super *super)
{
	uint32_t ag, groups = um_super_groups(super), agree = 0;

	for (ag = 0; ag < groups; ag++) {
		enum head head = ask_head(pool, super, ag);

		if (head == HEAD_DIFFERS)
			return false;
		agree += head == HEAD_AGREES;
	}
	return 2 * (uint64_t)agree >= groups;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

/* Validates the block at lba as a superblock and copies it out. */
static enum super_state read_super(
	struct um_pool *pool, um_lba_t lba, struct um_super *out, const char **why)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE];
	const struct um_super *super = (const struct um_super *)block;
	enum super_state state = SUPER_GOOD;

	*why = NULL;
	if (lba >= pool->map_len / UM_BLOCK_SIZE)
		return SUPER_NONE;
	um_guard_check();
	memcpy(block, um_pool_ptr(pool, lba), sizeof(block));
	memcpy(out, super, sizeof(*out));
	if (um_guard_check()) {
		*why = "cannot be read";
		return SUPER_BAD;
	}
	if (memcmp(super->magic, UM_POOL_MAGIC, sizeof(super->magic)))
		return SUPER_NONE;
	if (super->hdr.magic != UM_MAGIC(UM_KIND_SUPER) || super->hdr.kind != UM_KIND_SUPER ||
		super->hdr.lba != 0)
		*why = "wrong header";
	else if (um_block_csum(block) != super->hdr.csum)
		*why = "wrong checksum";
	else if (super->version != UM_FORMAT_VERSION || (super->incompat & ~UM_INCOMPAT_KNOWN))
		state = SUPER_NEWER;
	else
		*why = um_super_fault(super);
	return *why ? SUPER_BAD : state;
}

/* As read_super, for the second copy. The image of a pool in a file has superblocks, too, at other
 * addresses. */
static enum super_state read_second(
	struct um_pool *pool, um_lba_t lba, struct um_super *out, const char **why)
{
	enum super_state state = read_super(pool, lba, out, why);

	if (state != SUPER_GOOD)
		return state;
	if (um_super_second(out) != lba)
		return SUPER_NONE;
	if (ask_head(pool, out, 0) != HEAD_DIFFERS)
		return SUPER_GOOD;
	*why = "of another pool";
	return SUPER_BAD;
}

/*
 * The place of the second copy follows from the number of chunks, which is in the superblock that
 * cannot be read. So it is guessed from the size of the file, then searched at all chunk starts of
 * group 0.
 */
static enum super_state find_second(struct um_pool *pool, struct um_super *out, const char **why)
{
	uint64_t chunks = pool->map_len / UM_CHUNK_SIZE, i;
	enum super_state state, best = SUPER_NONE;
	struct um_super found;
	const char *fault;

	best = read_second(pool, um_super_mirror(chunks), out, why);
	if (chunks > UM_AG_CHUNKS)
		chunks = UM_AG_CHUNKS;
	for (i = UM_AG_MIN_CHUNKS - 1; best < SUPER_NEWER && i < chunks; i++) {
		state = read_second(pool, i * UM_CHUNK_BLOCKS, &found, &fault);
		if (state <= best)
			continue;
		best = state;
		*out = found;
		*why = fault;
	}
	return best;
}

static int refuse(struct um_pool *pool, const struct um_super *super, enum super_state state,
	const char *why, const char *why2)
{
	switch (state) {
	case SUPER_NONE:
		um_err("%s: is not an umbrafs pool", pool->path);
		return -EMEDIUMTYPE;
	case SUPER_NEWER:
		if (super->version != UM_FORMAT_VERSION)
			um_err("%s: has format version %u; this program knows version %u",
				pool->path, super->version, UM_FORMAT_VERSION);
		else
			um_err("%s: has unknown features (incompat 0x%llx)", pool->path,
				(unsigned long long)(super->incompat & ~UM_INCOMPAT_KNOWN));
		return -EPROTONOSUPPORT;
	default:
		um_err("%s: both superblocks are bad (%s; %s)", pool->path, why ? why : "no magic",
			why2 ? why2 : "no magic");
		return -EUCLEAN;
	}
}

static int check_features(struct um_pool *pool, const struct um_super *super)
{
	if (pool->readonly || pool->ops == &um_ops_private ||
		!(super->ro_compat & ~UM_RO_COMPAT_KNOWN))
		return 0;
	um_err("%s: has features that only allow reading it here (ro_compat 0x%llx); mount "
	       "read-only",
		pool->path, (unsigned long long)(super->ro_compat & ~UM_RO_COMPAT_KNOWN));
	return -EROFS;
}

static int take_super(struct um_pool *pool, const struct um_super *super)
{
	uint64_t bytes = super->nchunks * UM_CHUNK_SIZE;

	if (bytes > pool->map_len) {
		um_err("%s: is truncated: the superblock says %llu bytes, there are %llu",
			pool->path, (unsigned long long)bytes, (unsigned long long)pool->map_len);
		return -ENODATA;
	}
	pool->super = *super;
	return um_pool_set_size(pool, bytes);
}

int um_super_load(struct um_pool *pool)
{
	struct um_super first, second;
	enum super_state one, two;
	const char *why, *why2 = NULL;
	int ret;

	pool->super_repaired = 0;
	one = read_super(pool, 0, &first, &why);
	if (one == SUPER_NEWER)
		return refuse(pool, &first, one, why, NULL);
	if (one == SUPER_GOOD) {
		two = read_super(pool, um_super_second(&first), &second, &why2);
		if (two != SUPER_GOOD || memcmp(&first, &second, sizeof(first))) {
			/* Beyond the end of a truncated pool there is no copy that could be bad. */
			if (um_super_second(&first) < pool->map_len / UM_BLOCK_SIZE) {
				um_warn("%s: second superblock is bad (%s)", pool->path,
					two == SUPER_GOOD ? "differs from the first"
					: why2            ? why2
							  : "no magic");
				pool->super_repaired = 2;
			}
		}
	} else {
		two = find_second(pool, &second, &why2);
		if (two != SUPER_GOOD) {
			if (two == SUPER_NONE)
				two = one;
			return refuse(pool, &second, two, why, why2);
		}
		first = second;
		um_warn("%s: first superblock is bad (%s); using the second", pool->path,
			why ? why : "no magic");
		pool->super_repaired = 1;
	}
	ret = check_features(pool, &first);
	return ret ? ret : take_super(pool, &first);
}

int um_super_rewrite(struct um_pool *pool)
{
	_Alignas(64) uint8_t block[UM_BLOCK_SIZE] = {0};
	um_lba_t bad = pool->super_repaired & 1 ? 0 : um_super_second(&pool->super);
	um_lba_t good = bad ? 0 : um_super_second(&pool->super);
	int ret;

	if (!pool->super_repaired)
		return 0;
	/* All 4096 bytes: fields of later versions behind ours are covered by the checksum. */
	memcpy(block, um_pool_ptr(pool, good), sizeof(block));
	if (memcmp(block, &pool->super, sizeof(pool->super)))
		memset(block + sizeof(pool->super), 0, sizeof(block) - sizeof(pool->super));
	memcpy(block, &pool->super, sizeof(pool->super));
	um_block_seal(block);
	ret = um_pool_write(pool, bad, 0, block, sizeof(block));
	um_pool_drain(pool);
	if (!ret)
		ret = um_pool_barrier(pool);
	if (ret)
		um_warn("%s: cannot rewrite the bad superblock: %s", pool->path, strerror(-ret));
	else
		um_info("%s: %s superblock rewritten", pool->path, bad ? "second" : "first");
	return ret;
}
