/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handling bad blocks (src/DESIGN.md, section 11). Each takes one transaction, which puts its bytes
 * elsewhere or records it as lost; the event that reports it may follow later, since the record
 * says whether one is still owed. So a crash at any moment leaves a block either as it was, to be
 * found again, or handled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "fs/data.h"
#include "fs/failure_int.h"
#include "pool/clock.h"

#define TICK_SECONDS 1
#define SWEEP_TICKS 5u

/* ---- what is remembered -------------------------------------------------------------------------------- */

bool um_failure_given_up(const struct um_failures *f, um_lba_t lba)
{
	return lba < f->nblocks && f->given_up[lba / 64] >> (lba % 64) & 1;
}

/* Notes that nothing can be done for a block; false: it was noted before. */
bool um_failure_give_up(struct um_failures *f, um_lba_t lba)
{
	bool before = um_failure_given_up(f, lba);

	if (lba < f->nblocks)
		f->given_up[lba / 64] |= 1ull << (lba % 64);
	return !before;
}

void um_failure_later(struct um_failures *f, um_lba_t lba)
{
	for (unsigned i = 0; i < f->nlater; i++)
		if (f->later[i] == lba)
			return;
	if (f->nlater < UM_FAILURES_LATER)
		f->later[f->nlater++] = lba;
	else
		f->all_later = true;
}

static size_t given_up_bytes(const struct um_failures *f)
{
	return f->nblocks / 8 + sizeof(*f->given_up);
}

/* Uses memory only where bits are set. */
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

/* Adds an event for which there is no record. */
void um_failure_tell(struct umbra_fs *fs, const struct um_found *found, um_lba_t lba,
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

/* Adds the event of a record that has none yet. */
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
	/* The block may have been freed meanwhile, and the record with it: the event is written all
	 * the same. */
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

int um_failure_record(struct umbra_fs *fs, um_lba_t *lba, struct um_bad *out)
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
	for (; !um_failure_record(fs, &lba, &bad); lba++) {
		if (!(bad.flags & UM_BAD_TOLD) && tell_one(fs, lba, &bad))
			f->untold = true;
		if (bad.kind == UM_KIND_PARITY)
			um_failure_later(f, lba);
	}
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
		um_failure_given_up(fs->failures, lba))
		return 0;
	ret = um_failure_find(fs, lba, &found);
	if (ret)
		return ret;
	switch (found.what) {
	case UM_FOUND_FREE:
		return um_cure_free(fs, lba);
	case UM_FOUND_FIXED:
		return um_cure_fixed(fs, &found, lba, UM_CAUSE_MEMORY);
	case UM_FOUND_NODE:
		return um_failure_given_up(fs->failures, found.ptr.lba)
			       ? 0
			       : um_cure_node(fs, &found, lba);
	case UM_FOUND_DATA:
		ret = um_cure_data(fs, lba);
		return ret == -EIO || ret == -ESTALE ? 0 : ret;
	case UM_FOUND_RETIRED:
		/* Its last owner wrote elsewhere, or went, before anybody looked. */
		if (um_failure_give_up(fs->failures, lba))
			um_failure_tell(fs, &found, lba, UM_CAUSE_MEMORY, UM_DONE_RETIRED, 0);
		break;
	}
	return 0;
}

/* -EAGAIN: to be checked again later; the next reader or a scrub will. */
static int see_to_wrong(struct umbra_fs *fs, um_lba_t lba)
{
	struct um_found found;
	int ret = um_failure_find(fs, lba, &found);

	if (ret)
		return ret;
	if (found.what == UM_FOUND_FIXED)
		um_cure_fixed(fs, &found, lba, UM_CAUSE_CHECKSUM);
	else if (found.what == UM_FOUND_DATA && !um_pool_lost(fs->pool, lba, 1))
		um_cure_wrong(fs, lba);
	return 0;
}

static void see_to_all(struct umbra_fs *fs)
{
	for (um_lba_t lba = 0; um_pool_next_bad(fs->pool, &lba); lba++)
		if (!is_retired(fs, lba) && see_to_place(fs, lba))
			um_failure_later(fs->failures, um_pool_name(fs->pool, lba));
}

static void see_to(struct umbra_fs *fs, const struct um_trouble *t)
{
	struct um_found found = {.what = UM_FOUND_NODE, .kind = t->kind, .ptr = t->ptr};
	um_lba_t other = t->lba == t->ptr.lba ? t->ptr.mirror : t->ptr.lba;
	int ret = 0;

	switch (t->what) {
	case UM_TROUBLE_MENDED:
		um_failure_tell(fs, &found, t->lba, UM_CAUSE_CHECKSUM, UM_DONE_REWRITTEN, other);
		break;
	case UM_TROUBLE_BOTH:
		if (um_failure_given_up(fs->failures, t->ptr.lba) ||
			um_failure_find(fs, t->ptr.lba, &found) || found.kind != t->kind)
			break;
		if (found.kind == UM_KIND_COVER) {
			ret = um_cure_cover(fs, &found);
			break;
		}
		if (found.kind == UM_KIND_REMAP && found.what == UM_FOUND_NODE) {
			ret = um_cure_records(fs, &found, t->ptr.lba,
				um_pool_lost(fs->pool, t->ptr.lba, 1) ? UM_CAUSE_MEMORY
								      : UM_CAUSE_CHECKSUM);
			break;
		}
		um_cure_none(fs, &found, t->ptr.lba,
			um_pool_lost(fs->pool, t->ptr.lba, 1) ? UM_CAUSE_MEMORY
							      : UM_CAUSE_CHECKSUM);
		break;
	case UM_TROUBLE_DATA:
		found.what = UM_FOUND_DATA;
		um_failure_tell(fs, &found, t->lba, UM_CAUSE_CHECKSUM, UM_DONE_REWRITTEN, 0);
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
		um_failure_later(fs->failures, t->lba);
}

void um_failures_run(struct umbra_fs *fs)
{
	struct um_failures *f = fs->failures;
	um_lba_t later[UM_FAILURES_LATER];
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
			um_failure_later(f, later[i]);
	while (!um_trouble_take(fs->pool, &trouble))
		see_to(fs, &trouble);
	tell(fs);
	if (um_pool_any_bad(fs->pool) && f->ticks++ % SWEEP_TICKS == 0)
		um_cure_sweep(fs);
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

/* What the kernel lists at each mount was reported when it was retired. */
static void know_retired(struct umbra_fs *fs)
{
	for (um_lba_t lba = 0; um_pool_next_bad(fs->pool, &lba); lba++)
		if (is_retired(fs, lba))
			um_failure_give_up(fs->failures, lba);
}

int um_failures_start(struct umbra_fs *fs)
{
	struct um_failures *f = calloc(1, sizeof(*f));
	int ret;

	if (!f)
		return -ENOMEM;
	if (open_given_up(f, fs->pool->room >> UM_BLOCK_SHIFT)) {
		free(f);
		return -ENOMEM;
	}
	pthread_mutex_init(&f->lock, NULL);
	pthread_mutex_init(&f->work, NULL);
	um_cond_init(&f->wake);
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
