/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Workloads. First the calls are made, on a pool whose stores are recorded, with a snapshot of the
 * tree after each. Then the record is replayed onto another image, and at each drain the states
 * that a cut could leave there are judged.
 */
#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#include "crash.h"

#define DEEP_EACH 192u /* of this many states one has its recovery interrupted too */
#define FULL_EACH 16u  /* of this many that recover to a known pool one is examined all the same */

/* ---- worker ----------------------------------------------------------------------------------------- */

void worker_open(struct worker *w, const struct options *opt, struct totals *totals, char *now)
{
	memset(w, 0, sizeof(*w));
	w->opt = opt;
	w->totals = totals;
	w->now = now;
	w->golden = xalloc(POOL_SIZE);
	w->trace.shadow = xalloc(POOL_SIZE);
	w->judge.report = stdout;
}

static void images_close(struct worker *w)
{
	image_close(&w->live);
	image_close(&w->disk);
	image_close(&w->second);
}

void worker_close(struct worker *w)
{
	size_t i;

	images_close(w);
	judge_close(&w->judge);
	for (i = 0; i < w->cap_snap; i++)
		snapshot_free(&w->snap[i]);
	free(w->snap);
	free(w->called);
	free(w->golden);
	free(w->trace.shadow);
	trace_free(&w->trace);
	flight_free(&w->flight);
}

void worker_config(struct worker *w, const struct config *config)
{
	if (w->config == config)
		return;
	images_close(w);
	judge_close(&w->judge);
	w->config = config;
	snapshot_unit = config->direct ? B : SECTOR;
	boot_is(BOOT_LIVE);
	image_open(&w->live, config->direct);
	image_open(&w->disk, config->direct);
	image_open(&w->second, config->direct);
	/* The pool is made by the plain operations; only workloads are recorded. */
	image_register(&w->disk, false);
	image_register(&w->second, false);
	fake_nsec = 0;
	config_make(config, &w->disk);
	memcpy(w->golden, image_medium(&w->disk), POOL_SIZE);
	image_copy(&w->disk, w->golden);
	image_copy(&w->second, w->golden);
	image_copy(&w->live, w->golden);
	image_register(&w->live, true);
	memcpy(w->trace.shadow, w->golden, POOL_SIZE);
	flight_free(&w->flight);
	w->flight.unit = config->direct ? LINE : SECTOR;
	w->flight.density = w->opt->density;
	judge_open(&w->judge, config, &w->disk, &w->second);
	trace_clear(&w->trace);
}

/* ---- making the calls --------------------------------------------------------------------------------- */

static uint64_t fail(struct worker *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static uint64_t fail(struct worker *w, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(w->judge.report, fmt, args);
	va_end(args);
	fputc('\n', w->judge.report);
	return atomic_fetch_add(&w->totals->failures, 1);
}

/* When it is closed nobody can look any more; the tree is unchanged. */
static void take_snapshot(struct worker *w, const struct world *world)
{
	struct umbra_fs *fs = world->fs;
	char why[600];
	int ret;

	if (w->nsnap == w->cap_snap) {
		size_t old = w->cap_snap;

		grow(&w->snap, w->nsnap, &w->cap_snap, sizeof(*w->snap));
		memset(w->snap + old, 0, (w->cap_snap - old) * sizeof(*w->snap));
	}
	w->nsnap++;
	if (!fs) {
		snapshot_copy(&w->snap[w->nsnap - 1], &w->snap[w->nsnap - 2]);
		return;
	}
	ret = snapshot_take(fs, &w->snap[w->nsnap - 1], why, sizeof(why));
	if (!ret && world->open)
		ret = snapshot_take_open(fs, &w->snap[w->nsnap - 1], world->open, why, sizeof(why));
	if (ret)
		fail(w, "FAIL: %s\n  the live tree cannot be read: %s", w->now, why);
}

static void make_call(struct worker *w, struct world *world, const struct call *call, bool explore)
{
	struct called *called;

	grow(&w->called, w->ncalled, &w->cap_called, sizeof(*w->called));
	called = &w->called[w->ncalled];
	called->call = *call;
	called->explore = explore;
	trace_add(&w->trace, EV_BEGIN, w->ncalled, NULL, 0);
	called->ret = call_run(world, call);
	called->mix = world->mix;
	called->mix.torn = w->config->data == UMBRA_DATA_INPLACE;
	trace_add(&w->trace, EV_END, w->ncalled, NULL, 0);
	w->ncalled++;
	take_snapshot(w, world);
	atomic_fetch_add_explicit(&w->totals->calls, 1, memory_order_relaxed);
}

static void begin_live(struct worker *w, struct world *world)
{
	int ret;

	memset(world, 0, sizeof(*world));
	boot_is(BOOT_LIVE);
	trace_clear(&w->trace);
	w->nsnap = w->ncalled = 0;
	fake_nsec = 1ull << 40;
	if (w->config->direct) {
		live_trace = &w->trace;
		live_base = w->live.base;
	} else {
		w->live.into = &w->trace;
	}
	ret = config_mount(w->config, &w->live, &world->fs);
	if (ret)
		die("%s: the live pool cannot be mounted: %s", w->now, strerror(-ret));
	take_snapshot(w, world);
}

/* Restores the live pool wherever a recorded store went. */
static void restore_live(struct worker *w)
{
	size_t i;

	if (!w->config->direct) {
		image_rollback(&w->live, 0);
		/* Unrecorded stores were not undone. */
		if (!w->trace.bypass[0] && !memcmp(w->live.base, w->golden, POOL_SIZE) &&
			!memcmp(w->live.file, w->golden, POOL_SIZE))
			return;
		fail(w, "FAIL: %s\n  a store that was not recorded", w->now);
		memcpy(w->live.base, w->golden, POOL_SIZE);
		memcpy(w->live.file, w->golden, POOL_SIZE);
		return;
	}
	for (i = 0; i < w->trace.n; i++) {
		const struct event *event = &w->trace.event[i];

		if (event->kind != EV_CACHED && event->kind != EV_NT)
			continue;
		memcpy(w->live.base + event->off, w->golden + event->off, event->len);
		memcpy(w->trace.shadow + event->off, w->golden + event->off, event->len);
	}
	if (w->trace.bypass[0])
		memcpy(w->live.base, w->golden, POOL_SIZE);
}

static void end_live(struct worker *w, struct world *world)
{
	if (world->fs) {
		world_end(world);
		umbra_abandon(world->fs);
	}
	live_trace = NULL;
	w->live.into = NULL;
	if (w->config->direct)
		trace_compare(&w->trace, w->live.base);
	if (w->trace.bypass[0])
		fail(w, "FAIL: %s\n  %s", w->now, w->trace.bypass);
	restore_live(w);
}

/* ---- playing the record ------------------------------------------------------------------------------------ */

struct play {
	struct worker *w;
	const char *name; /* of the workload */
	uint64_t point;   /* drains and ends of calls so far */
	uint64_t seed;
	size_t call;       /* begun last */
	size_t synced;     /* tree of the last sync that returned */
	struct expect cut; /* what a power cut may leave of a file */
	bool within;       /* the call has not ended */
	bool stop;
};

static bool wanted(const struct play *p, uint64_t state)
{
	const struct worker *w = p->w;

	return !w->repro || (p->point == w->only_point && state == w->only_state);
}

static void report(struct play *p, uint64_t state)
{
	struct worker *w = p->w;
	const struct called *called = &w->called[p->call];

	fprintf(w->judge.report,
		"  at drain or end %llu, %s call %zu (kind %d, %s %s, returned %d)\n",
		(unsigned long long)p->point, p->within ? "within" : "after", p->call,
		called->call.kind, called->call.a ? called->call.a : "",
		called->call.b ? called->call.b : "", called->ret);
	flight_describe(&w->flight, state, w->judge.seed, w->judge.report);
	fail(w, "FAIL: %s", w->now);
	fflush(w->judge.report);
	if (w->opt->dump) {
		FILE *out = fopen(w->opt->dump, "w");
		size_t mark = image_mark(&w->disk);

		flight_put(&w->flight, state, w->judge.seed, &w->disk);
		if (!out || fwrite(image_medium(&w->disk), POOL_SIZE, 1, out) != 1)
			die("cannot write %s", w->opt->dump);
		fclose(out);
		image_rollback(&w->disk, mark);
	}
	/* The rest of the workload will be wrong for the same reason. */
	p->stop = true;
}

/* A second cut. If only the process has died, what it wrote is still in flight. */
static bool judge_deep(struct play *p, uint64_t state, const struct expect *e)
{
	struct worker *w = p->w;
	size_t mark = image_mark(&w->second);
	bool good, died = !w->config->direct && w->judge.boot == BOOT_LIVE;

	if (!died)
		flight_put(&w->flight, state, w->judge.seed, &w->second);
	good = judge_recovery(&w->judge, died ? &p->cut : e, died ? &w->flight : NULL);
	image_rollback(&w->second, mark);
	return good;
}

static bool judge_one(struct play *p, uint64_t state, const struct expect *e)
{
	struct worker *w = p->w;
	uint64_t chance = mix64(p->seed ^ mix64(p->point ^ mix64(state)));
	size_t mark = image_mark(&w->disk);
	bool good;

	snprintf(w->now, NOW_SIZE, "%s/%s:%llu.%llu", w->config->name, p->name,
		(unsigned long long)p->point, (unsigned long long)state);
	alarm(120);
	w->judge.seed = mix64(p->seed ^ p->point);
	flight_put(&w->flight, state, w->judge.seed, &w->disk);
	good = judge_state(&w->judge, e, chance % FULL_EACH == 0);
	if (good && (w->repro || chance / FULL_EACH % DEEP_EACH == 0))
		good = judge_deep(p, state, e);
	image_rollback(&w->disk, mark);
	return good;
}

/* States [from, end) of those that a cut now could leave. */
static void judge_point(struct play *p, const struct expect *e, uint64_t from, uint64_t end)
{
	struct worker *w = p->w;
	uint64_t state;

	judge_next_point(&w->judge);
	atomic_fetch_add_explicit(&w->totals->points, 1, memory_order_relaxed);
	for (state = from; state < end && !p->stop; state++) {
		if (!wanted(p, state))
			continue;
		atomic_fetch_add_explicit(&w->totals->states, 1, memory_order_relaxed);
		if (!judge_one(p, state, e))
			report(p, state);
	}
}

/* A direct pool: an operation is durable when it has returned, so what was stored must not depend
 * on anything in flight then; within one it is there or not. */
static void direct_point(struct play *p)
{
	struct worker *w = p->w;
	struct expect e = {.tree = &w->snap[p->call], .n = 2, .call = &w->called[p->call]};

	if (!p->within) {
		e.tree++;
		e.n = 1;
	}
	judge_point(p, &e, 0, p->within ? flight_states(&w->flight) : 1);
}

/*
 * A plain file. After a power cut (another boot): what a sync that returned had seen is there, or
 * something newer. After the daemon's death: everything it wrote, and so all operations that
 * returned.
 */
static void file_point(struct play *p)
{
	struct worker *w = p->w;
	struct expect e = {
		.tree = &w->snap[p->synced], .torn = true, .call = &w->called[p->synced]};
	uint64_t n = flight_states(&w->flight);

	e.n = p->call + 2 - p->synced;
	p->cut = e;
	w->judge.boot = BOOT_CUT;
	judge_point(p, &e, 0, n);
	w->judge.boot = BOOT_LIVE;
	e.tree = &w->snap[p->within ? p->call : p->call + 1];
	e.call = &w->called[p->call];
	e.n = p->within ? 2 : 1;
	e.torn = p->within;
	judge_point(p, &e, n, n + 1);
}

static void play_point(struct play *p)
{
	struct worker *w = p->w;

	p->point++;
	if (!w->called[p->call].explore)
		return;
	if (w->config->direct)
		direct_point(p);
	else
		file_point(p);
}

static bool is_sync(enum call_kind kind)
{
	return kind == CALL_SYNC || kind == CALL_CHECKPOINT || kind == CALL_CLOSE;
}

static void play_event(struct play *p, const struct event *event)
{
	struct worker *w = p->w;
	struct image *both[2] = {&w->disk, &w->second};

	switch (event->kind) {
	case EV_CACHED:
	case EV_NT:
		flight_store(&w->flight, event->off, w->trace.bytes + event->at, event->len,
			event->kind == EV_NT);
		break;
	case EV_FLUSH:
		flight_flush(&w->flight, event->off, event->len);
		break;
	case EV_DRAIN:
		if (p->within)
			play_point(p);
		flight_drain(&w->flight, both, 2);
		break;
	case EV_BEGIN:
		p->call = event->off;
		p->within = true;
		break;
	case EV_END:
		p->within = false;
		if (!w->called[p->call].ret && is_sync(w->called[p->call].call.kind))
			p->synced = p->call + 1;
		play_point(p);
		break;
	}
}

static void play(struct worker *w, const char *name)
{
	struct play p = {.w = w, .name = name, .seed = mix_text(mix64(w->opt->seed), name)};
	size_t i;

	flight_clear(&w->flight);
	for (i = 0; i < w->trace.n && !p.stop; i++)
		play_event(&p, &w->trace.event[i]);
	image_rollback(&w->disk, 0);
	image_rollback(&w->second, 0);
	alarm(0);
	atomic_fetch_add_explicit(&w->totals->workloads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->totals->repeats, w->judge.repeats, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->totals->checks, w->judge.checks, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->totals->mounts, w->judge.mounts, memory_order_relaxed);
	atomic_fetch_add_explicit(
		&w->totals->recoveries, w->judge.recoveries, memory_order_relaxed);
	w->judge.repeats = w->judge.checks = w->judge.mounts = w->judge.recoveries = 0;
}

/* ---- kinds of workload ---------------------------------------------------------------------------------------- */

void workload_record(struct worker *w, const int *op, unsigned n, unsigned explore)
{
	static const struct call reap = {.kind = CALL_REAP}, sync = {.kind = CALL_SYNC},
				 checkpoint = {.kind = CALL_CHECKPOINT},
				 close = {.kind = CALL_CLOSE};
	struct world world;
	unsigned i, k;

	w->trace.compare = n == 1;
	begin_live(w, &world);
	for (i = 0; i < n; i++) {
		const struct op *o = &crash_ops[op[i]];
		bool look = i + explore >= n;

		for (k = 0; k < CALLS_MAX && o->call[k].kind; k++)
			make_call(w, &world, &o->call[k], look);
		world_end(&world);
		make_call(w, &world, &reap, look);
		if (w->config->direct)
			continue;
		make_call(w, &world, &sync, look);
		make_call(w, &world, &checkpoint, look);
	}
	if (n == 1)
		make_call(w, &world, &close, explore);
	end_live(w, &world);
}

void workload_run(struct worker *w, const int *op, unsigned n, unsigned explore)
{
	char name[NOW_SIZE / 2] = "";
	unsigned i;

	for (i = 0; i < n; i++)
		snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s%s", i ? "+" : "",
			crash_ops[op[i]].name);
	snprintf(w->now, NOW_SIZE, "%s/%s", w->config->name, name);
	workload_record(w, op, n, explore);
	play(w, name);
}

void workload_random(struct worker *w, uint64_t number, unsigned length)
{
	uint64_t rng = mix64(w->opt->seed ^ mix64(number));
	char name[64];
	struct world world;
	unsigned i;

	snprintf(name, sizeof(name), "random-%llu-%u", (unsigned long long)number, length);
	snprintf(w->now, NOW_SIZE, "%s/%s", w->config->name, name);
	w->trace.compare = true;
	begin_live(w, &world);
	for (i = 0; i < length; i++) {
		struct call call;

		random_call(&world, &w->snap[w->nsnap - 1], &rng, &call);
		make_call(w, &world, &call, true);
	}
	end_live(w, &world);
	play(w, name);
}

/* config/op+op:point.state, or config/random-number-length:point.state */
bool workload_repro(struct worker *w, const char *text)
{
	char name[NOW_SIZE], *slash, *colon, *at, *save;
	unsigned long long point = 0, state = 0, number;
	unsigned n = 0, i, length;
	int op[16];

	snprintf(name, sizeof(name), "%s", text);
	slash = strchr(name, '/');
	colon = strchr(name, ':');
	if (!slash)
		return false;
	*slash = 0;
	if (colon) {
		*colon = 0;
		if (sscanf(colon + 1, "%llu.%llu", &point, &state) != 2)
			return false;
		w->repro = true;
		w->only_point = point;
		w->only_state = state;
	}
	for (i = 0; i < crash_nconfigs && strcmp(crash_configs[i].name, name); i++)
		;
	if (i == crash_nconfigs)
		return false;
	worker_config(w, &crash_configs[i]);
	if (sscanf(slash + 1, "random-%llu-%u", &number, &length) == 2) {
		workload_random(w, number, length);
		return true;
	}
	for (at = strtok_r(slash + 1, "+", &save); at && n < 16; at = strtok_r(NULL, "+", &save)) {
		op[n] = op_find(at);
		if (op[n++] < 0)
			return false;
	}
	workload_run(w, op, n, w->repro ? n : 1);
	return true;
}
