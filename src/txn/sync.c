/* SPDX-License-Identifier: BSD-3-Clause */
/* Group commit of indirect pools, for callers that wait and for callers that are notified. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/clock.h"
#include "pool/log.h"
#include "pool/polled.h"
#include "pool/rests.h"
#include "pool/seeded.h"
#include "txn/internal.h"

#define QUICK_ROUND_NS 200000u
#define SLEEP_NS 30000u /* rounds that take longer wait for something */

static void raise_to(_Atomic(uint64_t) *value, uint64_t seq)
{
	uint64_t now = atomic_load(value);

	while (now < seq && !atomic_compare_exchange_weak(value, &now, seq))
		;
}

/*
 * Writes the COMMIT record of a group. list NULL: its data is on the medium; else the record counts
 * only if what is listed is. firm: even if there is one for the same transactions, unless that has
 * no list either. So there are at most two per transaction, for which the ring has room
 * (UM_RING_RESERVE).
 */
static int append_commit(
	struct um_log *log, uint64_t covers, const struct um_rest_list *list, bool firm)
{
	struct {
		struct um_record head;
		struct um_entry entry[UM_RESTS_MAX];
	} __attribute__((aligned(64))) record;
	uint32_t n = list ? list->n : 0;
	size_t len = (sizeof(record.head) + n * sizeof(record.entry[0]) + 63) & ~(size_t)63;
	int ret = 0;

	static_assert(2 * sizeof(record) <= UM_BLOCK_SIZE, "as the reserve has it");
	memset(&record, 0, sizeof(record));
	record.head.type = UM_RECORD_COMMIT;
	record.head.covers = covers;
	record.head.nentry = n;
	for (uint32_t i = 0; i < n; i++)
		record.entry[i] = (struct um_entry){
			.lba = list->at[i].off >> UM_BLOCK_SHIFT,
			.mirror = list->at[i].csum,
			.off = (uint16_t)(list->at[i].off & (UM_BLOCK_SIZE - 1)),
			.type = UM_ENTRY_SUM,
			.len = list->at[i].len,
		};
	/* Not the writer lock: a transaction may be waiting for us. */
	pthread_mutex_lock(&log->ring_lock);
	if (atomic_load(firm ? &log->covered_firm : &log->covered) < covers) {
		ret = um_ring_append(&log->ring, &record.head, len, log->ring.seq);
		if (!ret)
			raise_to(&log->covered, covers);
		if (!ret && !list)
			raise_to(&log->covered_firm, covers);
	}
	pthread_mutex_unlock(&log->ring_lock);
	return ret;
}

/* ENOSPC here is as bad as any error: it is unknown which of the written data was lost. */
static int barrier(struct um_log *log)
{
	return um_pool_barrier(log->pool) ? -EIO : 0;
}

/*
 * One group commit. The order is essential: first what the group's records refer to and the records
 * themselves, then the COMMIT that makes them count after a power cut. If COMMIT can list the data,
 * which then is self-validating like records, everything goes together.
 */
static int write_group(struct um_log *log, bool full, enum um_rests_end *out_end)
{
	uint64_t seq = atomic_load(&log->committed);
	bool news = seq > atomic_load(&log->durable);
	struct um_rest_list list;
	bool one;
	int ret = 0;

	um_rests_take(log->pool, &list);
	one = !full && news && !list.open_end;
	*out_end = UM_RESTS_FAILED;
	if (!one && !um_seeded_bug(18))
		ret = barrier(log);
	if (!ret && !news && !full) {
		*out_end = UM_RESTS_BARRIER;
		return 0;
	}
	if (!ret)
		ret = append_commit(log, seq, one ? &list : NULL, full);
	if (!ret && !um_seeded_bug(19))
		ret = barrier(log);
	if (ret)
		return ret;
	raise_to(&log->durable, seq);
	if (!one)
		raise_to(&log->firm, seq);
	*out_end = one ? UM_RESTS_LISTED : UM_RESTS_SEALED;
	return 0;
}

/* A moving mean, in which the last three rounds count for more than all others. */
static void note_duration(struct um_log *log, uint64_t ns)
{
	uint64_t before = atomic_load(&log->round_ns);

	atomic_store(&log->round_ns, before ? (3 * before + ns) / 4 : ns);
}

static int commit_group(struct um_log *log, bool full)
{
	uint64_t start = um_now_ns();
	enum um_rests_end end;
	int ret = write_group(log, full, &end);

	note_duration(log, um_now_ns() - start);
	atomic_fetch_add_explicit(&log->n_syncs, 1, memory_order_relaxed);
	um_rests_done(log->pool, end);
	/* No room in the file below for the COMMIT: nothing has happened, the next sync may find
	 * some. */
	if (ret && !um_no_room(ret)) {
		um_log_fail(log, ret, "writing to the medium");
		ret = -EIO;
	}
	return ret;
}

static int sync_round(struct um_log *log, bool full)
{
	int ret = atomic_load(&log->stopped);
	uint64_t need, round;

	if (ret || log->direct || log->pool->readonly)
		return ret;
	pthread_mutex_lock(&log->sync_lock);
	log->seal_wanted |= full;
	/* A round in progress may have begun before our last write: wait for the one after it. */
	need = log->rounds_started + 1;
	while (log->rounds_done < need) {
		if (log->sync_running) {
			pthread_cond_wait(&log->sync_cond, &log->sync_lock);
			continue;
		}
		log->sync_running = true;
		round = ++log->rounds_started;
		full = log->seal_wanted;
		log->seal_wanted = false;
		pthread_mutex_unlock(&log->sync_lock);
		ret = commit_group(log, full);
		pthread_mutex_lock(&log->sync_lock);
		log->sync_result = ret;
		log->rounds_done = round;
		log->sync_running = false;
		pthread_cond_broadcast(&log->sync_cond);
	}
	ret = log->sync_result;
	pthread_mutex_unlock(&log->sync_lock);
	return ret;
}

int um_log_sync(struct um_log *log)
{
	return sync_round(log, false);
}

int um_log_seal(struct um_log *log)
{
	return sync_round(log, true);
}

int um_log_seal_to(struct um_log *log, uint64_t seq)
{
	return atomic_load(&log->firm) >= seq ? 0 : um_log_seal(log);
}

/* ---- without waiting ------------------------------------------------------------------------------------ */

/* All requests made so far share a round; those made while it is in progress share the next. */
static void *committer_main(void *arg)
{
	struct um_log *log = arg;
	struct um_committer *c = &log->committer;

	pthread_mutex_lock(&log->sync_lock);
	while (c->first || !c->stop) {
		struct um_synced *list = c->first, *next;
		int ret;

		if (!list) {
			pthread_cond_wait(&c->cond, &log->sync_lock);
			continue;
		}
		c->first = NULL;
		c->last = &c->first;
		pthread_mutex_unlock(&log->sync_lock);
		ret = um_log_sync(log);
		for (; list; list = next) {
			next = list->next;
			list->done(list, ret);
		}
		pthread_mutex_lock(&log->sync_lock);
	}
	pthread_mutex_unlock(&log->sync_lock);
	return NULL;
}

int um_log_serve(struct um_log *log)
{
	struct um_committer *c = &log->committer;
	int err;

	if (log->direct || log->pool->readonly)
		return 0;
	c->stop = false;
	err = pthread_create(&c->thread, NULL, committer_main, log);
	c->runs = !err;
	if (c->runs)
		pthread_setname_np(c->thread, "umbrafs-commit");
	return -err;
}

void um_log_serve_end(struct um_log *log)
{
	struct um_committer *c = &log->committer;

	if (!c->runs)
		return;
	pthread_mutex_lock(&log->sync_lock);
	c->stop = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&log->sync_lock);
	pthread_join(c->thread, NULL);
	c->runs = false;
}

/*
 * On a medium that is quick, a handover to another thread takes as long as the round. So the caller
 * carries it out itself if it may, one caller at a time, and only if it need not wait for another round first.
 */
static bool is_quick(const struct um_log *log)
{
	return log->rounds_done && !log->sync_running && !log->committer.first &&
	       !log->committer.relieved && atomic_load(&log->round_ns) < QUICK_ROUND_NS;
}

void um_log_sync_start(struct um_log *log, bool may_wait, struct um_synced *synced)
{
	struct um_committer *c = &log->committer;
	int ret;

	pthread_mutex_lock(&log->sync_lock);
	if (!c->runs || (may_wait && is_quick(log))) {
		c->relieved = true;
		pthread_mutex_unlock(&log->sync_lock);
		um_slept |= atomic_load(&log->round_ns) > SLEEP_NS;
		ret = um_log_sync(log);
		pthread_mutex_lock(&log->sync_lock);
		c->relieved = false;
		pthread_mutex_unlock(&log->sync_lock);
		synced->done(synced, ret);
		return;
	}
	synced->next = NULL;
	*c->last = synced;
	c->last = &synced->next;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&log->sync_lock);
}
