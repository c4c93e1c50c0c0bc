/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The repair of one bad block, depending on what it was: its bytes are put elsewhere or rewritten
 * in place, or it is recorded that they are lost. failure.c decides which block is next and writes
 * the events.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/data.h"
#include "fs/failure_int.h"

#define CURE_WAIT_SECONDS 5

int (*um_failure_source)(struct umbra_fs *fs, um_lba_t lba, void *out);

/* ---- putting bytes elsewhere ------------------------------------------------------------------------------ */

struct table {
	struct um_pool *pool;
	struct um_moved *table; /* to be installed by the commit */
};

struct move {
	um_lba_t lba; /* the block, by its original number */
	const struct um_found
		*found; /* a node's bytes come from its other copy; NULL: from content */
	_Alignas(64) uint8_t content[UM_BLOCK_SIZE];
	struct table t;
};

/* Is the block still in use, and its own? */
static bool in_use(struct um_src src, um_lba_t lba)
{
	uint32_t count, same;

	return !um_ref_count(src, lba, 1, &count, &same) && count && count != UM_REF_RETIRED;
}

/* Takes a block for the content; the transaction is responsible for it. */
static int new_place(struct umbra_fs *fs, struct um_txn *txn, const struct move *m, um_lba_t *out)
{
	unsigned flags = UM_SPACE_RESERVE | (m->found ? UM_SPACE_META : 0u);
	uint64_t failed;
	uint32_t got;
	int ret;

	/* Each iteration has one bad place less, or ends. */
	do {
		failed = atomic_load(&fs->pool->nfailed);
		ret = um_space_take(fs->space, m->lba, 1, flags, out, &got);
		if (ret)
			return ret;
		ret = um_pool_write(fs->pool, *out, 0, m->content, UM_BLOCK_SIZE);
		if (!ret)
			ret = um_ref_alloc(txn, *out, 1);
		if (ret)
			um_space_give(fs->space, *out, 1);
	} while (ret == -EIO && atomic_load(&fs->pool->nfailed) != failed);
	return ret;
}

static void install_table(void *arg)
{
	struct table *t = arg;

	um_moved_install(t->pool, t->table);
	t->table = NULL;
}

/* The transaction of a record changes the remap tree, counts, words and the pool root, none of
 * which are ever moved. So no journal record both changes a block and says where it is. */
static int move_in(struct umbra_fs *fs, struct um_txn *txn, struct move *m)
{
	struct um_bad bad = {.flags = UM_BAD_MOVED, .sec = (um_le64_t)time(NULL)}, old;
	int ret = um_bad_get(um_txn_src(txn), m->lba, &old);
	um_lba_t to;

	if (ret && ret != -ENOENT)
		return ret;
	/* It was moved already, and the new place is bad too. */
	if (!ret && old.flags & UM_BAD_MOVED)
		ret = um_ref_put(txn, old.to, 1, m->found != NULL, NULL);
	else
		ret = 0;
	if (!ret && m->found)
		ret = um_failure_copy(fs->pool, m->found, m->lba, m->content);
	if (!ret)
		ret = new_place(fs, txn, m, &to);
	if (ret)
		return ret;
	bad.to = to;
	bad.kind = m->found ? m->found->kind : 0;
	ret = um_bad_put(txn, m->lba, &bad);
	if (!ret)
		ret = um_moved_make(fs->pool, m->lba, to, &m->t.table);
	return ret ? ret : um_txn_on_commit(txn, install_table, &m->t);
}

/* -ESTALE: the block is no longer in use. */
static int move_block(struct umbra_fs *fs, struct move *m)
{
	struct um_txn *txn;
	int ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	m->t = (struct table){.pool = fs->pool};
	if (ret)
		return ret;
	if (!in_use(um_txn_src(txn), m->lba))
		ret = -ESTALE;
	else
		ret = move_in(fs, txn, m);
	ret = um_txn_end(txn, ret);
	free(m->t.table);
	if (!ret)
		fs->failures->untold = true;
	return ret;
}

/* ---- file data ------------------------------------------------------------------------------------------- */

static int lose(struct umbra_fs *fs, um_lba_t lba, unsigned wrong)
{
	struct um_bad bad = {.flags = UM_BAD_LOST | wrong, .sec = (um_le64_t)time(NULL)}, old;
	struct um_txn *txn;
	int ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	if (ret)
		return ret;
	if (!in_use(um_txn_src(txn), lba))
		ret = -ESTALE;
	if (!ret)
		ret = um_bad_get(um_txn_src(txn), lba, &old);
	if (!ret && old.flags & UM_BAD_MOVED)
		ret = um_ref_put(txn, old.to, 1, false, NULL);
	else if (ret == -ENOENT)
		ret = 0;
	if (!ret)
		ret = um_bad_put(txn, lba, &bad);
	ret = um_txn_end(txn, ret);
	if (!ret)
		fs->failures->untold = true;
	return ret;
}

/* Is the block recorded as lost for good? */
static bool known_lost(struct umbra_fs *fs, um_lba_t lba)
{
	struct um_bad bad;
	bool lost;

	um_log_read_lock(fs->log);
	lost = !um_bad_get(um_fs_src(fs), lba, &bad) && bad.flags & UM_BAD_LOST;
	um_log_read_unlock(fs->log);
	return lost;
}

/* 0: it can be read again. work is held. */
int um_cure_data(struct umbra_fs *fs, um_lba_t lba)
{
	struct move *m;
	int ret;

	if (!um_pool_lost(fs->pool, lba, 1))
		return 0;
	if (known_lost(fs, lba))
		return -EIO;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->lba = lba;
	ret = um_failure_content(fs, lba, m->content);
	if (!ret)
		ret = move_block(fs, m);
	else
		ret = lose(fs, lba, 0) ? -EAGAIN : -EIO;
	free(m);
	return ret;
}

/* Handles bytes that do not match their checksum: rewritten in place, or lost as if their memory
 * had failed. 0: they are right. work is held. */
int um_cure_wrong(struct umbra_fs *fs, um_lba_t lba)
{
	const struct um_trouble mended = {.lba = lba, .what = UM_TROUBLE_DATA};
	int ret = um_failure_rewrite_data(fs, lba);

	if (ret > 0)
		um_trouble_add(fs->pool, &mended);
	if (ret != -ENODATA)
		return ret < 0 ? ret : 0;
	ret = lose(fs, lba, UM_BAD_WRONG);
	if (!ret)
		um_pool_set_lost(fs->pool, um_pool_home(fs->pool, lba), 1);
	return ret ? -EAGAIN : -EIO;
}

int um_failure_cure(struct umbra_fs *fs, um_lba_t lba)
{
	struct um_failures *f = fs->failures;
	struct timespec limit;
	bool lost;
	int ret;

	if (lba == UM_LBA_MASK)
		return 0;
	lost = um_pool_lost(fs->pool, lba, 1);
	if (!lost && !um_has_csum(fs->pool))
		return 0;
	if (!f)
		return -EIO;
	um_failures_kick(fs);
	if (!um_failure_source && !um_has_parity(fs->pool) && fs->pool->direct)
		return -EIO;
	/* Its holder may wait for space, that is, for this reader's epoch. */
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += CURE_WAIT_SECONDS;
	if (pthread_mutex_timedlock(&f->work, &limit))
		return -EIO;
	ret = lost ? um_cure_data(fs, lba) : um_cure_wrong(fs, lba);
	pthread_mutex_unlock(&f->work);
	return ret ? -EIO : 0;
}

/* ---- metadata ---------------------------------------------------------------------------------------------- */

void um_cure_none(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause)
{
	if (um_failure_give_up(fs->failures, found->ptr.lba))
		um_failure_tell(fs, found, lba, cause, UM_DONE_NO_COPY, 0);
}

static int rebuild_records(struct umbra_fs *fs)
{
	struct um_txn *txn;
	int ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	if (!ret)
		ret = um_txn_end(txn, um_bad_rebuild(txn));
	if (ret != -EIO && ret != -EUCLEAN)
		return ret;
	ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);
	if (!ret)
		ret = um_txn_end(txn, um_bad_salvage(txn));
	if (!ret)
		fs->failures->all_later = true;
	return ret;
}

/* What was stored while the node was unwritable is in its other copy, and so in its new place, but
 * not in the parity of its stripe. */
static void sum_again(struct umbra_fs *fs, um_lba_t lba)
{
	const struct um_found found = {.what = UM_FOUND_FIXED, .kind = UM_KIND_PARITY};
	um_lba_t at;
	int ret;

	if (!um_has_parity(fs->pool))
		return;
	at = um_parity_lba(fs->pool, lba);
	ret = um_failure_rewrite_fixed(fs, &found, at, true);
	if (ret == -EAGAIN)
		um_trouble_add(fs->pool, &(struct um_trouble){.lba = at, .what = UM_TROUBLE_WRONG});
	else if (ret && ret != -EALREADY)
		um_pool_set_lost(fs->pool, at, 1);
}

int um_cure_records(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause)
{
	um_lba_t other = lba == found->ptr.lba ? found->ptr.mirror : found->ptr.lba;
	int ret = rebuild_records(fs);

	if (ret)
		return ret;
	/* If the bytes were wrong, what was removed from parity was not what had been added. */
	sum_again(fs, lba);
	if (other)
		sum_again(fs, other);
	/* It is retired now, which is not reported separately. */
	if (um_failure_give_up(fs->failures, lba))
		um_failure_tell(fs, found, lba, cause, UM_DONE_MOVED, other);
	return 0;
}

int um_cure_node(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba)
{
	struct move *m;
	int ret;

	if (!um_pool_lost(fs->pool, lba, 1))
		return 0;
	if (found->kind == UM_KIND_REMAP)
		return um_cure_records(fs, found, lba, UM_CAUSE_MEMORY);
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->lba = lba;
	m->found = found;
	ret = move_block(fs, m);
	free(m);
	if (!ret)
		sum_again(fs, lba);
	if (ret == -ENODATA) {
		um_cure_none(fs, found, lba, UM_CAUSE_MEMORY);
		ret = 0;
	}
	return ret == -ESTALE ? 0 : ret;
}

/* ---- fixed places -------------------------------------------------------------------------------------------- */

/* Records that the block is not valid parity; a load may succeed after the next mount. */
static int record_parity(struct umbra_fs *fs, um_lba_t lba, bool void_now, bool *out_changed)
{
	struct um_bad bad = {.flags = UM_BAD_LOST | UM_BAD_TOLD,
		.kind = UM_KIND_PARITY,
		.sec = (um_le64_t)time(NULL)};
	struct um_bad old;
	struct um_txn *txn;
	int ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);

	if (ret)
		return ret;
	ret = um_bad_get(um_txn_src(txn), lba, &old);
	*out_changed = void_now == (ret == -ENOENT);
	if (!ret || ret == -ENOENT)
		ret = !*out_changed ? 0
		      : void_now    ? um_bad_put(txn, lba, &bad)
				    : um_bad_del(txn, lba);
	return um_txn_end(txn, ret);
}

/* Parity whose memory failed, or that could not be maintained because two blocks of its stripe
 * could not be read. The latter ends when they have been moved or replaced: it is checked again. */
static int cure_parity(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause)
{
	int ret = um_failure_rewrite_fixed(fs, found, lba, cause == UM_CAUSE_CHECKSUM), err;
	bool changed;

	if (ret == -EAGAIN || ret == -EALREADY)
		return ret == -EAGAIN ? ret : 0;
	if (ret)
		um_pool_set_bad(fs->pool, lba);
	err = record_parity(fs, lba, ret != 0, &changed);
	if (err)
		return -EAGAIN;
	if (changed || !ret)
		um_failure_tell(fs, found, lba, cause,
			!ret              ? UM_DONE_REWRITTEN
			: ret == -ENODATA ? UM_DONE_NO_COPY
					  : UM_DONE_ONE_COPY /* stripe that it is the parity of */,
			0);
	return ret == -ENODATA ? -EAGAIN : 0;
}

int um_cure_fixed(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause)
{
	um_lba_t other = lba == found->ptr.lba ? found->ptr.mirror : found->ptr.lba;
	unsigned done = UM_DONE_ONE_COPY;
	int ret;

	if (found->kind == UM_KIND_PARITY)
		return cure_parity(fs, found, lba, cause);
	if (um_failure_given_up(fs->failures, lba))
		return 0;
	ret = um_failure_rewrite_fixed(fs, found, lba, cause == UM_CAUSE_CHECKSUM);
	if (ret == -EAGAIN || ret == -EALREADY)
		return ret == -EAGAIN ? ret : 0;
	if (ret)
		um_failure_give_up(fs->failures, lba);
	if (ret && found->kind == UM_KIND_COVER)
		atomic_store(&fs->pool->cover_void, true); /* if this is so for both copies */
	if (!ret)
		done = UM_DONE_REWRITTEN;
	else if (ret == -ENODATA ||
		 !found->ptr.mirror || /* the first copy of the superblock is block 0 */
		 um_pool_lost(fs->pool, other, 1))
		done = UM_DONE_NO_COPY;
	um_failure_tell(fs, found, lba, cause, done, done == UM_DONE_NO_COPY ? 0 : other);
	return 0;
}

/* Both copies are bad in one way or another: their contents can be recomputed. */
int um_cure_cover(struct umbra_fs *fs, const struct um_found *found)
{
	const um_lba_t at[2] = {found->ptr.lba, found->ptr.mirror};
	int ret = 0;

	for (unsigned i = 0; !ret && i < 2 && at[i]; i++)
		ret = um_cure_fixed(fs, found, at[i],
			um_pool_lost(fs->pool, at[i], 1) ? UM_CAUSE_MEMORY : UM_CAUSE_CHECKSUM);
	return ret;
}

/* ---- free blocks ----------------------------------------------------------------------------------------------- */

int um_cure_free(struct umbra_fs *fs, um_lba_t lba)
{
	const struct um_found none = {.what = UM_FOUND_FREE};
	struct um_txn *txn;
	int ret = um_space_take_at(fs->space, lba);

	if (ret)
		return ret;
	ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);
	if (ret) {
		um_space_give(fs->space, lba, 1);
		return ret;
	}
	ret = um_ref_retire(txn, lba);
	if (ret)
		um_space_give(fs->space, lba, 1);
	ret = um_txn_end(txn, ret);
	if (!ret && um_failure_give_up(fs->failures, lba))
		um_failure_tell(fs, &none, lba, UM_CAUSE_MEMORY, UM_DONE_RETIRED, 0);
	return ret;
}

/* Removes records of blocks that nothing refers to any more, and frees their replacements. */
void um_cure_sweep(struct umbra_fs *fs)
{
	struct table m = {.pool = fs->pool};
	struct um_bad bad;
	struct um_txn *txn;
	um_lba_t lba = 0;
	int ret;

	for (; !um_failure_record(fs, &lba, &bad); lba++) {
		uint32_t count = 0, same;

		if (bad.kind == UM_KIND_PARITY)
			continue;

		um_log_read_lock(fs->log);
		ret = um_ref_count(um_fs_src(fs), lba, 1, &count, &same);
		um_log_read_unlock(fs->log);
		if (ret || count != UM_REF_RETIRED || !(bad.flags & UM_BAD_TOLD) ||
			um_txn_begin(fs->log, UM_TXN_RESERVE, &txn))
			continue;
		m.table = NULL;
		ret = um_bad_del(txn, lba);
		if (!ret && bad.flags & UM_BAD_MOVED)
			ret = um_ref_put(txn, bad.to, 1, bad.kind != 0, NULL);
		if (!ret && bad.flags & UM_BAD_MOVED)
			ret = um_moved_make(fs->pool, lba, 0, &m.table);
		if (!ret && m.table)
			ret = um_txn_on_commit(txn, install_table, &m);
		um_txn_end(txn, ret);
		free(m.table);
	}
}
