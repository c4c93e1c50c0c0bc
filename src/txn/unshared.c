/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Indirect pools: blocks that lost an owner and have one left. File data is overwritten in place,
 * in the kernel's page cache, where nothing holds it back from the medium. After a power cut the
 * transaction that removed the other owner may be undone, and that owner would see bytes that were
 * never written to it. So until the transaction is firm (durable, and relying on no list of data
 * that the medium could still lose) such a block counts as shared: it is copied, not overwritten.
 * The same holds for everything below a node that lost an owner. And in pools with checksums or
 * parity it holds for blocks that were written and are unwritten now (fs/fallocate.c).
 *
 * The set is a table hashed by LBA, which holds the last transaction that noted a block there.
 * Nothing has to be removed: firm transactions have no effect. Two blocks in one slot only cost
 * a needless copy.
 */
#include <errno.h>
#include <stdlib.h>

#include "pool/seeded.h"
#include "txn/internal.h"

#define SLOTS_SHIFT 14

struct um_unshared {
	const _Atomic(uint64_t) *firm; /* of the log */
	_Atomic(uint64_t) last;        /* transaction that noted anything */
	_Atomic(uint64_t) seq[1u << SLOTS_SHIFT];
};

int um_unshared_open(struct um_log *log)
{
	struct um_unshared *set = calloc(1, sizeof(*set));

	if (!set)
		return -ENOMEM;
	set->firm = &log->firm;
	log->pool->unshared = set;
	return 0;
}

void um_unshared_close(struct um_pool *pool)
{
	free(pool->unshared);
	pool->unshared = NULL;
}

static uint64_t slot_of(um_lba_t lba)
{
	return lba * 0x9e3779b97f4a7c15ull >> (64 - SLOTS_SHIFT);
}

void um_unshared_note(struct um_txn *txn, um_lba_t lba, uint32_t n)
{
	struct um_unshared *set = txn->log->pool->unshared;

	if (!set)
		return;
	for (; n; lba++, n--)
		atomic_store_explicit(&set->seq[slot_of(lba)], txn->seq, memory_order_relaxed);
	atomic_store(&set->last, txn->seq);
}

bool um_unshared_lately(const struct um_pool *pool, um_lba_t lba)
{
	const struct um_unshared *set = pool->unshared;
	uint64_t firm;

	if (!set || um_seeded_bug(17))
		return false;
	firm = atomic_load(set->firm);
	if (atomic_load(&set->last) <= firm)
		return false;
	return atomic_load_explicit(&set->seq[slot_of(lba)], memory_order_relaxed) > firm;
}
