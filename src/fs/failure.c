/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Seeing to bad blocks (src/DESIGN.md, section 11). Each is one transaction that puts its bytes elsewhere or on record as
 * lost; the event that tells of it may follow later, since the record says whether it is still owed. So a death at
 * any moment leaves a block either as it was, to be met again, or seen to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "fs/data.h"
#include "fs/failure.h"

#define LATER_MAX 64u /* more: all bad places are gone through */
#define TICK_SECONDS 1
#define SWEEP_TICKS 5u
#define CURE_WAIT_SECONDS 5

int (*um_failure_source)(struct umbra_fs *fs, um_lba_t lba, void *out);

struct um_failures {
	pthread_t thread;
	bool manual;          /* no thread: um_failures_run() */
	pthread_mutex_t lock; /* of stop, wake */
	pthread_cond_t wake;
	bool stop;
	pthread_mutex_t work; /* one block after the other; everything below */
	bool untold;          /* records may have no event yet */
	unsigned ticks;
	uint64_t *given_up; /* a bit a block: nothing can be done for it, and that was said */
	uint64_t nblocks;   /* as the pool may become, while it is mounted */
	um_lba_t later[LATER_MAX]; /* free but not to be had yet */
	unsigned nlater;
	bool all_later;
};

/* ---- what is remembered -------------------------------------------------------------------------------- */

static bool is_given_up(const struct um_failures *f, um_lba_t lba)
{
	return lba < f->nblocks && f->given_up[lba / 64] >> (lba % 64) & 1;
}

/* False: it was before. */
static bool give_up(struct um_failures *f, um_lba_t lba)
{
	bool before = is_given_up(f, lba);

	if (lba < f->nblocks)
		f->given_up[lba / 64] |= 1ull << (lba % 64);
	return !before;
}

static void see_to_later(struct um_failures *f, um_lba_t lba)
{
	for (unsigned i = 0; i < f->nlater; i++)
		if (f->later[i] == lba)
			return;
	if (f->nlater < LATER_MAX)
		f->later[f->nlater++] = lba;
	else
		f->all_later = true;
}

static size_t given_up_bytes(const struct um_failures *f)
{
	return f->nblocks / 8 + sizeof(*f->given_up);
}

/* Takes no memory but where bits are set. */
static int open_given_up(struct um_failures *f, uint64_t nblocks)
{
	void *map;

	f->nblocks = nblocks;
	map = mmap(NULL, given_up_bytes(f), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	f->given_up = map;
	return 0;
}

/* ---- events ------------------------------------------------------------------------------------------- */

const char *umbra_kind_name(unsigned kind)
{
	static const char *const names[] = {"file data", "superblock", "chunk words",
		"reference counts", "pool root", "journal", "inode node", "extent node",
		"directory node", "xattr node", "orphan node", "remap node", "event node",
		"data checksums", "table of data checksums", "cover of parity", "parity", "unused"};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}

static const char *done_text(unsigned done)
{
	static const char *const texts[] = {"", "its content is lost", "put elsewhere",
		"rewritten in place", "holds nothing; not used any more",
		"stays bad; the other copy serves", "no copy is left"};

	return done < sizeof(texts) / sizeof(texts[0]) ? texts[done] : "";
}

static void log_event(const struct umbra_fs *fs, const struct um_event *event)
{
	struct um_event_owner owner = {0};
	char path[UM_EVENT_PATH + 1] = "";
	bool grave = event->done == UM_DONE_LOST || event->done == UM_DONE_NO_COPY;

	if (event->nowners) {
		memcpy(&owner, event + 1, sizeof(owner));
		memcpy(path, (const uint8_t *)(event + 1) + sizeof(owner), owner.len);
	}
	um_log_line(grave ? UMBRA_LOG_ERROR : UMBRA_LOG_WARN, "%s: block %llu (%s) %s: %s%s%s%s",
		fs->pool->path, (unsigned long long)event->lba, umbra_kind_name(event->kind),
		event->cause == UM_CAUSE_CHECKSUM ? "had wrong bytes" : "failed",
		done_text(event->done), event->nowners ? "; " : "",
		path[0]          ? path
		: event->nowners ? "a file without a path"
				 : "",
		event->owners > 1 ? " and others" : "");
}

static void begin_event(struct um_event *event, um_lba_t lba, unsigned kind, unsigned cause,
	unsigned done, um_lba_t other)
{
	*event = (struct um_event){
		.sec = (um_le64_t)time(NULL),
		.lba = lba,
		.other = other,
		.kind = (uint8_t)kind,
		.cause = (uint8_t)cause,
		.done = (uint8_t)done,
	};
}

/* An event that no record stands for. */
static void add_event(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba,
	unsigned cause, unsigned done, um_lba_t other)
{
	unsigned kind = found->kind || found->what == UM_FOUND_DATA ? found->kind : UM_KIND_NOTHING;
	_Alignas(8) uint8_t buf[UM_EVENT_MAX];
	struct um_event *event = (struct um_event *)buf;
	struct um_txn *txn;
	uint16_t len;
	int ret;

	begin_event(event, lba, kind, cause, done, other);
	len = um_failure_owners(fs, found, lba, event);
	log_event(fs, event);
	ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);
	if (!ret)
		ret = um_txn_end(txn, um_event_add(txn, event, len));
	if (ret)
		um_warn("%s: event not recorded: %s", fs->pool->path, strerror(-ret));
}

/* The event of a record that has none so far. */
static int tell_one(struct umbra_fs *fs, um_lba_t lba, const struct um_bad *bad)
{
	_Alignas(8) uint8_t buf[UM_EVENT_MAX];
	struct um_event *event = (struct um_event *)buf;
	struct um_found found = {.what = UM_FOUND_DATA};
	struct um_bad now;
	struct um_txn *txn;
	uint16_t len;
	int ret;

	if (bad->kind && um_failure_find(fs, lba, &found))
		memset(&found, 0, sizeof(found));
	begin_event(event, lba, bad->kind,
		bad->flags & UM_BAD_WRONG ? UM_CAUSE_CHECKSUM : UM_CAUSE_MEMORY,
		bad->flags & UM_BAD_MOVED ? UM_DONE_MOVED : UM_DONE_LOST, bad->to);
	event->sec = bad->sec;
	len = um_failure_owners(fs, &found, lba, event);
	ret = um_txn_begin(fs->log, UM_TXN_RESERVE, &txn);
	if (ret)
		return ret;
	/* The block may have been given up meanwhile, and the record with it: it is told all the same. */
	ret = um_bad_get(um_txn_src(txn), lba, &now);
	if (!ret) {
		now.flags |= UM_BAD_TOLD;
		ret = um_bad_put(txn, lba, &now);
	} else if (ret == -ENOENT) {
		ret = 0;
	}
	if (!ret)
		ret = um_event_add(txn, event, len);
	ret = um_txn_end(txn, ret);
	if (!ret)
		log_event(fs, event);
	return ret;
}

static int next_record(struct umbra_fs *fs, um_lba_t *lba, struct um_bad *out)
{
	int ret;

	um_log_read_lock(fs->log);
	ret = um_bad_next(um_fs_src(fs), lba, out);
	um_log_read_unlock(fs->log);
	return ret;
}

static void tell(struct umbra_fs *fs)
{
	struct um_failures *f = fs->failures;
	struct um_bad bad;
	um_lba_t lba = 0;

	if (!f->untold)
		return;
	f->untold = false;
	for (; !next_record(fs, &lba, &bad); lba++) {
		if (!(bad.flags & UM_BAD_TOLD) && tell_one(fs, lba, &bad))
			f->untold = true;
		if (bad.kind == UM_KIND_PARITY)
			see_to_later(f, lba);
	}
}

/* ---- putting bytes elsewhere ------------------------------------------------------------------------------ */

struct table {
	struct um_pool *pool;
	struct um_moved *table; /* to be put in place by the commit */
};

struct move {
	um_lba_t lba; /* the block, by the number that everybody calls it */
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

/* A block that takes the content; the transaction answers for it. */
static int new_place(struct umbra_fs *fs, struct um_txn *txn, const struct move *m, um_lba_t *out)
{
	unsigned flags = UM_SPACE_RESERVE | (m->found ? UM_SPACE_META : 0u);
	uint64_t failed;
	uint32_t got;
	int ret;

	/* Each turn has one bad place less, or ends. */
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

/*
 * What the record's transaction changes are the remap tree, counts, words and the pool root; none of these is ever
 * put elsewhere. So no record in the journal changes a block and says in the same breath where it is.
 */
static int move_in(struct umbra_fs *fs, struct um_txn *txn, struct move *m)
{
	struct um_bad bad = {.flags = UM_BAD_MOVED, .sec = (um_le64_t)time(NULL)}, old;
	int ret = um_bad_get(um_txn_src(txn), m->lba, &old);
	um_lba_t to;

	if (ret && ret != -ENOENT)
		return ret;
	/* Elsewhere already, and bad there too. */
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

/* -ESTALE: the block is not in use any more. */
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

/* The record says that a block is lost for good. */
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
static int cure_data(struct umbra_fs *fs, um_lba_t lba)
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

/*
 * Bytes that are not what their checksum says: made again in place, or as lost as if their memory had failed. 0: they are right.
 * work is held.
 */
static int cure_wrong(struct umbra_fs *fs, um_lba_t lba)
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
	/* Who holds it may wait for space, that is for this reader's epoch. */
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += CURE_WAIT_SECONDS;
	if (pthread_mutex_timedlock(&f->work, &limit))
		return -EIO;
	ret = lost ? cure_data(fs, lba) : cure_wrong(fs, lba);
	pthread_mutex_unlock(&f->work);
	return ret ? -EIO : 0;
}

/* ---- metadata ---------------------------------------------------------------------------------------------- */

static void no_copy(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause)
{
	if (give_up(fs->failures, found->ptr.lba))
		add_event(fs, found, lba, cause, UM_DONE_NO_COPY, 0);
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

/* What was stored while the node could not be is in its other copy, and so in its new place; its stripe's sum has it not. */
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

static int cure_records(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause)
{
	um_lba_t other = lba == found->ptr.lba ? found->ptr.mirror : found->ptr.lba;
	int ret = rebuild_records(fs);

	if (ret)
		return ret;
	/* What went with it was not what had been summed up, if the bytes were wrong. */
	sum_again(fs, lba);
	if (other)
		sum_again(fs, other);
	/* It is retired now, which is not told of as well. */
	if (give_up(fs->failures, lba))
		add_event(fs, found, lba, cause, UM_DONE_MOVED, other);
	return 0;
}

static int cure_node(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba)
{
	struct move *m;
	int ret;

	if (!um_pool_lost(fs->pool, lba, 1))
		return 0;
	if (found->kind == UM_KIND_REMAP)
		return cure_records(fs, found, lba, UM_CAUSE_MEMORY);
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
		no_copy(fs, found, lba, UM_CAUSE_MEMORY);
		ret = 0;
	}
	return ret == -ESTALE ? 0 : ret;
}

/* ---- fixed places -------------------------------------------------------------------------------------------- */

/* On record is that it does not tell the truth; a load may succeed after the next mount. */
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

/*
 * Parity whose memory failed, or that nobody could keep up as two blocks of its stripe could not be read. The latter ends when
 * they are elsewhere, or other ones: it is asked again.
 */
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
		add_event(fs, found, lba, cause,
			!ret              ? UM_DONE_REWRITTEN
			: ret == -ENODATA ? UM_DONE_NO_COPY
					  : UM_DONE_ONE_COPY /* what it is the sum of */,
			0);
	return ret == -ENODATA ? -EAGAIN : 0;
}

static int cure_fixed(
	struct umbra_fs *fs, const struct um_found *found, um_lba_t lba, unsigned cause)
{
	um_lba_t other = lba == found->ptr.lba ? found->ptr.mirror : found->ptr.lba;
	unsigned done = UM_DONE_ONE_COPY;
	int ret;

	if (found->kind == UM_KIND_PARITY)
		return cure_parity(fs, found, lba, cause);
	if (is_given_up(fs->failures, lba))
		return 0;
	ret = um_failure_rewrite_fixed(fs, found, lba, cause == UM_CAUSE_CHECKSUM);
	if (ret == -EAGAIN || ret == -EALREADY)
		return ret == -EAGAIN ? ret : 0;
	if (ret)
		give_up(fs->failures, lba);
	if (ret && found->kind == UM_KIND_COVER)
		atomic_store(&fs->pool->cover_void, true); /* if it is so of both copies */
	if (!ret)
		done = UM_DONE_REWRITTEN;
	else if (ret == -ENODATA ||
		 !found->ptr.mirror || /* the superblock's first copy is block 0 */
		 um_pool_lost(fs->pool, other, 1))
		done = UM_DONE_NO_COPY;
	add_event(fs, found, lba, cause, done, done == UM_DONE_NO_COPY ? 0 : other);
	return 0;
}

/* Both copies are bad, in one way or another: what they had can be found again. */
static int cure_cover(struct umbra_fs *fs, const struct um_found *found)
{
	const um_lba_t at[2] = {found->ptr.lba, found->ptr.mirror};
	int ret = 0;

	for (unsigned i = 0; !ret && i < 2 && at[i]; i++)
		ret = cure_fixed(fs, found, at[i],
			um_pool_lost(fs->pool, at[i], 1) ? UM_CAUSE_MEMORY : UM_CAUSE_CHECKSUM);
	return ret;
}

/* ---- free blocks ----------------------------------------------------------------------------------------------- */

static int retire_free(struct umbra_fs *fs, um_lba_t lba)
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
	if (!ret && give_up(fs->failures, lba))
		add_event(fs, &none, lba, UM_CAUSE_MEMORY, UM_DONE_RETIRED, 0);
	return ret;
}

/* ---- one after the other ---------------------------------------------------------------------------------------- */

static bool is_retired(struct umbra_fs *fs, um_lba_t lba)
{
	uint32_t count = 0, same;

	if (!um_chunk_usable(&fs->pool->super, um_chunk_of(lba)))
		return false;
	um_log_read_lock(fs->log);
	if (um_ref_count(um_fs_src(fs), lba, 1, &count, &same))
		count = 0;
	um_log_read_unlock(fs->log);
	return count == UM_REF_RETIRED;
}

static int see_to_place(struct umbra_fs *fs, um_lba_t place)
{
	um_lba_t lba = um_pool_name(fs->pool, place);
	struct um_found found;
	int ret;

	if (!um_pool_place_bad(fs->pool, place) || !um_pool_lost(fs->pool, lba, 1) ||
		is_given_up(fs->failures, lba))
		return 0;
	ret = um_failure_find(fs, lba, &found);
	if (ret)
		return ret;
	switch (found.what) {
	case UM_FOUND_FREE:
		return retire_free(fs, lba);
	case UM_FOUND_FIXED:
		return cure_fixed(fs, &found, lba, UM_CAUSE_MEMORY);
	case UM_FOUND_NODE:
		return is_given_up(fs->failures, found.ptr.lba) ? 0 : cure_node(fs, &found, lba);
	case UM_FOUND_DATA:
		ret = cure_data(fs, lba);
		return ret == -EIO || ret == -ESTALE ? 0 : ret;
	case UM_FOUND_RETIRED:
		/* Its last owner wrote elsewhere, or went, before anybody looked. */
		if (give_up(fs->failures, lba))
			add_event(fs, &found, lba, UM_CAUSE_MEMORY, UM_DONE_RETIRED, 0);
		break;
	}
	return 0;
}

/* -EAGAIN: to be looked at again; whoever reads it, or a scrub, will. */
static int see_to_wrong(struct umbra_fs *fs, um_lba_t lba)
{
	struct um_found found;
	int ret = um_failure_find(fs, lba, &found);

	if (ret)
		return ret;
	if (found.what == UM_FOUND_FIXED)
		cure_fixed(fs, &found, lba, UM_CAUSE_CHECKSUM);
	else if (found.what == UM_FOUND_DATA && !um_pool_lost(fs->pool, lba, 1))
		cure_wrong(fs, lba);
	return 0;
}

static void see_to_all(struct umbra_fs *fs)
{
	for (um_lba_t lba = 0; um_pool_next_bad(fs->pool, &lba); lba++)
		if (!is_retired(fs, lba) && see_to_place(fs, lba))
			see_to_later(fs->failures, um_pool_name(fs->pool, lba));
}

static void see_to(struct umbra_fs *fs, const struct um_trouble *t)
{
	struct um_found found = {.what = UM_FOUND_NODE, .kind = t->kind, .ptr = t->ptr};
	um_lba_t other = t->lba == t->ptr.lba ? t->ptr.mirror : t->ptr.lba;
	int ret = 0;

	switch (t->what) {
	case UM_TROUBLE_MENDED:
		add_event(fs, &found, t->lba, UM_CAUSE_CHECKSUM, UM_DONE_REWRITTEN, other);
		break;
	case UM_TROUBLE_BOTH:
		if (is_given_up(fs->failures, t->ptr.lba) ||
			um_failure_find(fs, t->ptr.lba, &found) || found.kind != t->kind)
			break;
		if (found.kind == UM_KIND_COVER) {
			ret = cure_cover(fs, &found);
			break;
		}
		if (found.kind == UM_KIND_REMAP && found.what == UM_FOUND_NODE) {
			ret = cure_records(fs, &found, t->ptr.lba,
				um_pool_lost(fs->pool, t->ptr.lba, 1) ? UM_CAUSE_MEMORY
								      : UM_CAUSE_CHECKSUM);
			break;
		}
		no_copy(fs, &found, t->ptr.lba,
			um_pool_lost(fs->pool, t->ptr.lba, 1) ? UM_CAUSE_MEMORY
							      : UM_CAUSE_CHECKSUM);
		break;
	case UM_TROUBLE_DATA:
		found.what = UM_FOUND_DATA;
		add_event(fs, &found, t->lba, UM_CAUSE_CHECKSUM, UM_DONE_REWRITTEN, 0);
		break;
	case UM_TROUBLE_WRONG:
		ret = see_to_wrong(fs, t->lba);
		break;
	case UM_TROUBLE_COPY:
	case UM_TROUBLE_FAILED:
		ret = see_to_place(fs, um_pool_home(fs->pool, t->lba));
		break;
	case UM_TROUBLE_MANY:
		see_to_all(fs);
		break;
	}
	if (ret)
		see_to_later(fs->failures, t->lba);
}

/* Records of blocks that nothing refers to any more: what they kept elsewhere is free again. */
static void sweep(struct umbra_fs *fs)
{
	struct table m = {.pool = fs->pool};
	struct um_bad bad;
	struct um_txn *txn;
	um_lba_t lba = 0;
	int ret;

	for (; !next_record(fs, &lba, &bad); lba++) {
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

void um_failures_run(struct umbra_fs *fs)
{
	struct um_failures *f = fs->failures;
	um_lba_t later[LATER_MAX];
	struct um_trouble trouble;
	unsigned n;
	bool all;

	if (!f)
		return;
	pthread_mutex_lock(&f->work);
	n = f->nlater;
	all = f->all_later;
	memcpy(later, f->later, n * sizeof(later[0]));
	f->nlater = 0;
	f->all_later = false;
	if (all)
		see_to_all(fs);
	for (unsigned i = 0; !all && i < n; i++)
		if (see_to_place(fs, um_pool_home(fs->pool, later[i])))
			see_to_later(f, later[i]);
	while (!um_trouble_take(fs->pool, &trouble))
		see_to(fs, &trouble);
	tell(fs);
	if (um_pool_any_bad(fs->pool) && f->ticks++ % SWEEP_TICKS == 0)
		sweep(fs);
	pthread_mutex_unlock(&f->work);
}

/* A copy that was found wrong is rewritten by the next commit; if none comes, here. */
static void commit_repairs(struct umbra_fs *fs)
{
	struct um_pool_root *root;
	struct um_txn *txn;

	if (!atomic_load(&fs->pool->nrepair) || um_txn_begin(fs->log, UM_TXN_RESERVE, &txn))
		return;
	/* Something has to change, or there is nothing to commit. */
	if (um_root_edit(txn, &root)) {
		um_txn_abort(txn);
		return;
	}
	root->repairs++;
	um_txn_end(txn, 0);
}

void umbra_failures_settle(struct umbra_fs *fs)
{
	if (!fs->failures)
		return;
	commit_repairs(fs);
	um_failures_run(fs);
}

#ifdef UM_POISON
int umbra_poison(struct umbra_fs *fs, uint64_t lba, int bit)
{
	return um_pool_poison(fs->pool, lba, bit);
}
#endif

/* ---- thread ----------------------------------------------------------------------------------------------------- */

static void *failures_main(void *arg)
{
	struct umbra_fs *fs = arg;
	struct um_failures *f = fs->failures;
	struct timespec limit;

	pthread_mutex_lock(&f->lock);
	while (!f->stop) {
		pthread_mutex_unlock(&f->lock);
		umbra_failures_settle(fs);
		pthread_mutex_lock(&f->lock);
		clock_gettime(CLOCK_MONOTONIC, &limit);
		limit.tv_sec += TICK_SECONDS;
		if (!f->stop && !um_trouble_any(fs->pool))
			pthread_cond_timedwait(&f->wake, &f->lock, &limit);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

/* What the kernel lists at each mount was told of when it was retired. */
static void know_retired(struct umbra_fs *fs)
{
	for (um_lba_t lba = 0; um_pool_next_bad(fs->pool, &lba); lba++)
		if (is_retired(fs, lba))
			give_up(fs->failures, lba);
}

int um_failures_start(struct umbra_fs *fs)
{
	struct um_failures *f = calloc(1, sizeof(*f));
	pthread_condattr_t attr;
	int ret;

	if (!f)
		return -ENOMEM;
	if (open_given_up(f, fs->pool->room >> UM_BLOCK_SHIFT)) {
		free(f);
		return -ENOMEM;
	}
	pthread_mutex_init(&f->lock, NULL);
	pthread_mutex_init(&f->work, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->wake, &attr);
	pthread_condattr_destroy(&attr);
	f->untold = true;
	f->manual = um_reaper_manual;
	fs->failures = f;
	know_retired(fs);
	ret = f->manual ? 0 : pthread_create(&f->thread, NULL, failures_main, fs);
	if (ret) {
		f->manual = true;
		um_failures_stop(fs);
	}
	return -ret;
}

void um_failures_stop(struct umbra_fs *fs)
{
	struct um_failures *f = fs->failures;

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->stop = true;
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
	if (!f->manual)
		pthread_join(f->thread, NULL);
	fs->failures = NULL;
	pthread_mutex_destroy(&f->lock);
	pthread_mutex_destroy(&f->work);
	pthread_cond_destroy(&f->wake);
	munmap(f->given_up, given_up_bytes(f));
	free(f);
}

void um_failures_kick(struct umbra_fs *fs)
{
	struct um_failures *f = fs->failures;

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
}
