/* SPDX-License-Identifier: BSD-3-Clause */
/* Events: which block was bad, whose it was, what was done. A bounded number is kept, across
 * mounts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/failure.h"

static int event_check(const struct um_pool *pool, uint64_t key, const void *val, uint16_t len)
{
	struct um_event event;
	size_t at = sizeof(event);

	(void)pool;
	if (!key || len < sizeof(event))
		return -EUCLEAN;
	memcpy(&event, val, sizeof(event));
	for (unsigned i = 0; i < event.nowners; i++) {
		struct um_event_owner owner;

		if (len - at < sizeof(owner))
			return -EUCLEAN;
		memcpy(&owner, (const uint8_t *)val + at, sizeof(owner));
		at += sizeof(owner);
		if (owner.len > len - at)
			return -EUCLEAN;
		at += owner.len;
	}
	return event.nowners <= UM_EVENT_OWNERS && at == len ? 0 : -EUCLEAN;
}

const struct um_tree_type um_events_type = {
	.kind = UM_KIND_EVENTS,
	.embed_max = 0,
	.check = event_check,
};

int um_event_add(struct um_txn *txn, const void *event, uint16_t len)
{
	struct um_src src = um_txn_src(txn);
	uint64_t last = 0, first = 0;
	struct um_tree tree;
	uint16_t any;
	uint8_t none;
	int ret = um_root_tree(src, UM_ROOT_EVENTS, &tree);

	static_assert(UM_EVENT_MAX <= UM_VALUE_MAX, "an event fits");
	if (ret)
		return ret;
	ret = um_tree_find(src, &tree, UINT64_MAX, UM_SEEK_LE, &last, &none, 0, &any);
	if (!ret)
		ret = um_tree_find(src, &tree, 0, UM_SEEK_GE, &first, &none, 0, &any);
	if (ret == -ENOENT)
		ret = 0;
	if (!ret && first && last - first + 1 >= UM_EVENTS_KEPT)
		ret = um_tree_delete(txn, &tree, first);
	if (!ret)
		ret = um_tree_insert(txn, &tree, last + 1, event, len);
	return ret ? ret : um_root_store(txn, UM_ROOT_EVENTS, &tree);
}

/* ---- for callers --------------------------------------------------------------------------------------- */

static void decode(uint64_t number, const void *val, struct umbra_event *out)
{
	const uint8_t *at = val;
	struct um_event event;

	memcpy(&event, at, sizeof(event));
	at += sizeof(event);
	memset(out, 0, sizeof(*out));
	out->number = number;
	out->sec = (int64_t)event.sec;
	out->lba = event.lba;
	out->other = event.other;
	out->kind = event.kind;
	out->cause = (enum umbra_event_cause)event.cause;
	out->done = (enum umbra_event_done)event.done;
	out->owners = event.owners;
	out->nowner = event.nowners;
	for (unsigned i = 0; i < event.nowners && i < UMBRA_EVENT_OWNERS; i++) {
		struct um_event_owner owner;

		memcpy(&owner, at, sizeof(owner));
		at += sizeof(owner);
		out->owner[i].ino = owner.ino;
		out->owner[i].off = owner.off;
		memcpy(out->owner[i].path, at,
			owner.len < UMBRA_EVENT_PATH ? owner.len : UMBRA_EVENT_PATH);
		at += owner.len;
	}
}

struct listing {
	struct umbra_event *event;
	unsigned n, max;
};

static int list_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct listing *l = arg;

	(void)len;
	if (l->n == l->max)
		return 1;
	decode(key, val, &l->event[l->n++]);
	return 0;
}

static int list_events(struct um_src src, uint64_t from, struct listing *l)
{
	struct um_tree tree;
	int ret = um_root_tree(src, UM_ROOT_EVENTS, &tree);

	l->n = 0;
	if (!ret)
		ret = um_tree_walk(src, &tree, from, UINT64_MAX, list_record, l);
	return ret < 0 ? ret : 0;
}

/* log NULL: a pool that nobody changes. */
static int each_event(struct um_log *log, struct um_pool *pool, umbra_event_fn *fn, void *arg)
{
	struct listing l = {.max = 64};
	struct um_src src = {pool, NULL};
	uint64_t from = 0;
	int ret = 0;

	l.event = calloc(l.max, sizeof(*l.event));
	if (!l.event)
		return -ENOMEM;
	do {
		if (log)
			um_log_read_lock(log);
		ret = list_events(src, from, &l);
		if (log)
			um_log_read_unlock(log);
		for (unsigned i = 0; !ret && i < l.n; i++) {
			ret = fn(arg, &l.event[i]);
			from = l.event[i].number + 1;
		}
	} while (!ret && l.n == l.max);
	free(l.event);
	return ret;
}

static int health_record(void *arg, uint64_t key, const void *val, uint16_t len)
{
	struct umbra_health *out = arg;
	struct um_bad bad;

	(void)key, (void)len;
	memcpy(&bad, val, sizeof(bad));
	out->lost += bad.flags & UM_BAD_LOST && bad.kind != UM_KIND_PARITY;
	out->moved += !!(bad.flags & UM_BAD_MOVED);
	return 0;
}

static int get_health(struct um_src src, struct umbra_health *out)
{
	const struct um_pool_root *root;
	struct um_tree tree;
	int ret = um_root_get(src, &root);

	memset(out, 0, sizeof(*out));
	if (!ret) {
		out->retired = root->retired;
		ret = um_root_tree(src, UM_ROOT_BADS, &tree);
	}
	return ret ? ret : um_tree_walk(src, &tree, 0, UINT64_MAX, health_record, out);
}

int umbra_health(struct umbra_fs *fs, struct umbra_health *out, umbra_event_fn *fn, void *arg)
{
	int ret;

	um_log_read_lock(fs->log);
	ret = get_health(um_fs_src(fs), out);
	um_log_read_unlock(fs->log);
	out->checksum_errors = atomic_load(&fs->pool->csum_errors);
	out->stopped = um_log_failed(fs->log, &out->stopped_by);
	if (!out->stopped)
		out->stopped = um_log_stopped(fs->log);
	return ret || !fn ? ret : each_event(fs->log, fs->pool, fn, arg);
}

int umbra_health_pool(const char *path, struct umbra_health *out, umbra_event_fn *fn, void *arg)
{
	struct um_pool *pool;
	struct um_log *log = NULL;
	int ret = um_pool_open(path, UM_POOL_RDONLY | UM_POOL_PRIVATE, 0, &pool);

	if (ret)
		return ret;
	um_bad_attach(pool);
	ret = um_log_open(pool, &log);
	if (!ret)
		ret = get_health((struct um_src){pool, NULL}, out);
	if (!ret && fn)
		ret = each_event(NULL, pool, fn, arg);
	if (log)
		um_log_abandon(log);
	um_pool_close(pool);
	return ret;
}
