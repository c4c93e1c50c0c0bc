/* SPDX-License-Identifier: BSD-3-Clause */
/* Is this state of a pool one that a power cut may leave? */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "crash.h"
#include "heal/check_int.h"
#include "txn/internal.h"

#define KNOWN_MAX 4096u
#define INNER_DENSITY 2u

/* ---- what the engine says ------------------------------------------------------------------------ */

void judge_log(void *arg, enum umbra_log_level level, const char *line)
{
	struct judge *j = arg;

	if (level != UMBRA_LOG_ERROR || !j)
		return;
	if (!j->errors++)
		snprintf(j->log, sizeof(j->log), "%s", line);
}

static bool bad(struct judge *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool bad(struct judge *j, const char *fmt, ...)
{
	va_list args;

	fputs("  ", j->report);
	va_start(args, fmt);
	vfprintf(j->report, fmt, args);
	va_end(args);
	fputc('\n', j->report);
	if (j->errors)
		fprintf(j->report, "  engine: %s\n", j->log);
	return false;
}

/* ---- fsck --------------------------------------------------------------------------------------------- */

static void on_problem(void *arg, const char *code, bool repaired, const char *text)
{
	struct judge *j = arg;

	(void)repaired;
	fprintf(j->report, "  fsck: %s: %s\n", code, text);
}

static bool check(struct judge *j, struct image *img, const char *when)
{
	struct umbra_check_report report;
	size_t mark = image_mark(img);
	struct um_pool *pool;
	int ret = um_pool_open_image(img->base, POOL_SIZE, UM_POOL_EXCL, &pool);

	if (ret)
		return bad(j, "%s: fsck cannot open the pool: %s", when, strerror(-ret));
	ret = um_check_pool(pool, UMBRA_CHECK_ONLY, on_problem, j, &report);
	um_pool_close(pool);
	image_rollback(img, mark);
	j->checks++;
	if (ret)
		return bad(j, "%s: fsck: %s", when, strerror(-ret));
	if (report.problems)
		return bad(j, "%s: fsck finds %llu problems", when,
			(unsigned long long)report.problems);
	return true;
}

/* ---- the tree --------------------------------------------------------------------------------------------- */

static bool tree_as_expected(struct judge *j, const struct expect *e)
{
	size_t i;

	for (i = e->n; i--;)
		if (snapshot_equal(&j->got, &e->tree[i]) ||
			(e->torn && snapshot_like(&j->got, &e->tree[i], e->tree, e->n)))
			return true;
	/* A group may end within any of the calls that no sync has followed. */
	for (i = e->n - 1; i--;)
		if (snapshot_between(&j->got, &e->tree[i], &e->tree[i + 1], e->call[i].mix))
			return true;
	return false;
}

static bool compare_tree(struct judge *j, struct umbra_fs *fs, const struct expect *e)
{
	char why[600];
	int ret = snapshot_take(fs, &j->got, why, sizeof(why));
	size_t i;

	if (ret)
		return bad(j, "the tree cannot be read: %s", why);
	if (tree_as_expected(j, e))
		return true;
	bad(j, e->n > 1 ? "the tree is none of those it may be"
			: "what an operation that had returned did is not there, or not whole");
	for (i = 0; i < e->n; i++) {
		if (e->n > 1)
			fprintf(j->report, "   it is not number %zu:\n", i);
		snapshot_diff(&e->tree[i], &j->got, j->report);
	}
	return false;
}

/* ---- life goes on ------------------------------------------------------------------------------------------- */

/* A regular file with content that may be changed, a different one for each state. */
static const struct node *pick_file(const struct judge *j, const struct snapshot *s)
{
	size_t i, start = s->n ? mix64(j->seed) % s->n : 0;

	for (i = 0; i < s->n; i++) {
		const struct node *node = &s->node[(start + i) % s->n];

		if (S_ISREG(node->mode) && node->size && !(node->flags & FS_IMMUTABLE_FL))
			return node;
	}
	return NULL;
}

static bool expected_error(int ret)
{
	return !ret || ret == -ENOSPC;
}

static bool change(struct judge *j, struct umbra_fs *fs, const struct node *file)
{
	const char *path = j->got.text + file->path;
	struct world w = {.fs = fs, .writes = 1u << 20};
	const struct call call[] = {
		{.kind = CALL_MKNOD, .a = "mut", .flags = S_IFREG | 0600},
		{.kind = CALL_CLONE, .a = path, .b = "mut"},
		{.kind = CALL_WRITE, .a = "mut", .off = 1000, .len = 5000},
		{.kind = CALL_WRITE, .a = path, .off = 0, .len = 4096},
		{.kind = CALL_UNLINK, .a = path},
		{.kind = CALL_REAP},
		{.kind = CALL_TRUNCATE, .a = "mut", .len = 5000},
		{.kind = CALL_SETXATTR, .a = "mut", .b = "user.mut", .len = 600},
	};
	unsigned i;

	for (i = 0; i < sizeof(call) / sizeof(call[0]); i++) {
		int ret = call_run(&w, &call[i]);

		if (!expected_error(ret) && !(ret == -ENOENT && !strcmp(call[i].a, "mut")))
			return bad(j, "afterwards, call %u on /%s: %s", i, path, strerror(-ret));
	}
	return true;
}

/* What was not changed must be as it was. */
static bool others_same(struct judge *j, uint64_t ino)
{
	size_t i;

	for (i = 0; i < j->got.n; i++) {
		const struct node *was = &j->got.node[i], *is;
		const char *path = j->got.text + was->path;
		uint32_t k;

		if (was->ino == ino || S_ISDIR(was->mode))
			continue;
		is = snapshot_find(&j->again, path);
		if (!is)
			return bad(j, "afterwards, /%s is gone", path);
		if (is->ino != was->ino || is->size != was->size || is->xattrs != was->xattrs ||
			is->target != was->target || is->nunit != was->nunit)
			return bad(j, "afterwards, /%s is not what it was", path);
		for (k = 0; k < is->nunit; k++)
			if (j->again.hash[is->first + k] != j->got.hash[was->first + k])
				return bad(j, "afterwards, unit %u of /%s is not what it was", k,
					path);
	}
	return true;
}

/* What lies beyond the end of a file must be zero, and shows when the file grows. */
static bool tail_zero(struct judge *j, struct umbra_fs *fs, const struct node *node)
{
	uint64_t end = (node->size + B - 1) & ~(uint64_t)(B - 1);
	struct umbra_attr attr = {.st.st_size = (off_t)end};
	static const uint8_t zeros[B];
	uint8_t tail[B];
	int ret = umbra_setattr(fs, node->ino, &attr, UMBRA_SET_SIZE, &attr);

	if (ret)
		return ret == -ENOSPC ? true : bad(j, "afterwards, truncate: %s", strerror(-ret));
	if (umbra_read(fs, node->ino, tail, end - node->size, node->size) !=
		(ssize_t)(end - node->size))
		return bad(j, "afterwards, /%s does not grow", j->got.text + node->path);
	if (memcmp(tail, zeros, end - node->size))
		return bad(j, "afterwards, /%s shows bytes that were behind its end",
			j->got.text + node->path);
	attr.st.st_size = (off_t)node->size;
	ret = umbra_setattr(fs, node->ino, &attr, UMBRA_SET_SIZE, &attr);
	return ret && ret != -ENOSPC ? bad(j, "afterwards, truncate: %s", strerror(-ret)) : true;
}

static bool tails_zero(struct judge *j, struct umbra_fs *fs)
{
	size_t i;

	for (i = 0; i < j->got.n; i++) {
		const struct node *node = &j->got.node[i];

		if (S_ISREG(node->mode) && node->size % B && !(node->flags & FS_IMMUTABLE_FL) &&
			!tail_zero(j, fs, node))
			return false;
	}
	return true;
}

static bool live_on(struct judge *j, struct umbra_fs *fs)
{
	const struct node *file = pick_file(j, &j->got);
	char why[600];

	if (!tails_zero(j, fs))
		return false;
	if (!file)
		return true;
	if (!change(j, fs, file))
		return false;
	if (snapshot_take(fs, &j->again, why, sizeof(why)))
		return bad(j, "afterwards, the tree cannot be read: %s", why);
	return others_same(j, file->ino);
}

/* ---- recovered pools that are the same -------------------------------------------------------------------------- */

static bool in_ring(const struct judge *j, uint64_t off)
{
	return (off >= j->ring[0][0] && off < j->ring[0][1]) ||
	       (off >= j->ring[1][0] && off < j->ring[1][1]);
}

/* The result of recovery, as far as it differs from the medium before the cut, without old records
 * left in the ring. The log of the image says where to look. */
static uint64_t outcome(struct judge *j)
{
	const uint8_t *is = image_medium(j->img), *was = image_medium(j->second);
	uint64_t sum = 0, off, len;
	size_t at = 0;

	j->now++;
	while (image_log_next(j->img, &at, is, &off, &len)) {
		uint64_t line;

		for (line = off / LINE; line * LINE < off + len; line++) {
			if (j->stamp[line] == j->now || in_ring(j, line * LINE))
				continue;
			j->stamp[line] = j->now;
			if (memcmp(is + line * LINE, was + line * LINE, LINE))
				sum += XXH3_64bits_withSeed(is + line * LINE, LINE, line);
		}
	}
	return sum;
}

static bool known(struct judge *j, uint64_t sum)
{
	size_t i;

	for (i = 0; i < j->nknown; i++)
		if (j->known[i] == sum)
			return true;
	return false;
}

void judge_next_point(struct judge *j)
{
	j->nknown = 0;
}

/* ---- a state -------------------------------------------------------------------------------------------------------- */

/* A boot id; it distinguishes a daemon's death from a power cut. */
#define CUT_AGAIN 3u
void boot_is(unsigned boot)
{
	static uint8_t name[16] = "boot ?";

	name[5] = (uint8_t)('0' + boot);
	um_boot_id_fake = name;
}

static bool mount_state(struct judge *j, struct image *img, struct umbra_fs **out)
{
	int ret;

	fake_nsec = 1ull << 42;
	boot_is(img == j->second ? CUT_AGAIN : j->boot);
	j->errors = 0;
	j->mounts++;
	ret = config_mount(j->config, img, out);
	if (ret)
		return bad(j, "cannot be mounted: %s", strerror(-ret));
	return true;
}

static bool no_errors(struct judge *j)
{
	return j->errors ? bad(j, "the engine complained") : true;
}

/* A direct pool at rest is the mapping; for the other kind only a new mapping shows what the file
 * has. */
static bool remount(struct judge *j, struct image *img, struct umbra_fs **fs)
{
	if (img->direct)
		return true;
	umbra_abandon(*fs);
	*fs = NULL;
	return check(j, img, "after recovery") && mount_state(j, img, fs);
}

static bool judge_mounted(
	struct judge *j, struct image *img, struct umbra_fs **fs, const struct expect *e)
{
	um_reaper_run(*fs);
	if (!compare_tree(j, *fs, e) || !no_errors(j))
		return false;
	if (img->direct && !check(j, img, "after recovery"))
		return false;
	if (!remount(j, img, fs) || !live_on(j, *fs))
		return false;
	umbra_abandon(*fs);
	*fs = NULL;
	return check(j, img, "afterwards") && no_errors(j);
}

/* Sometimes fsck sees the pool as the cut left it, and replays by itself. */
static bool check_raw(struct judge *j, struct image *img)
{
	return mix64(j->seed) % 8 ? true : check(j, img, "before recovery");
}

bool judge_state(struct judge *j, const struct expect *e, bool full)
{
	size_t mark = image_mark(j->img);
	struct umbra_fs *fs = NULL;
	uint64_t sum = 0;
	bool good = (!full || check_raw(j, j->img)) && mount_state(j, j->img, &fs);

	if (good)
		sum = outcome(j);
	if (good && !full && known(j, sum)) {
		j->repeats++;
	} else if (good) {
		good = judge_mounted(j, j->img, &fs, e);
		if (good && j->nknown < KNOWN_MAX && !known(j, sum)) {
			grow(&j->known, j->nknown, &j->cap_known, sizeof(*j->known));
			j->known[j->nknown++] = sum;
		}
	}
	if (fs)
		umbra_abandon(fs);
	image_rollback(j->img, mark);
	return good;
}

/* ---- a cut during recovery ------------------------------------------------------------------------------------------ */

static bool judge_inner(struct judge *j, uint64_t state)
{
	struct image *img = j->second;
	size_t mark = image_mark(img);
	struct umbra_fs *fs = NULL;
	bool good;

	flight_put(&j->flight, state, j->seed, img);
	j->recoveries++;
	good = mount_state(j, img, &fs) && judge_mounted(j, img, &fs, j->expect);
	if (fs)
		umbra_abandon(fs);
	image_rollback(img, mark);
	if (!good)
		flight_describe(&j->flight, state, j->seed, j->report);
	return good;
}

/* Before each drain of a recovery: some of the states that a cut may leave now. */
static void moment(struct trace *trace, void *arg)
{
	struct judge *j = arg;
	uint64_t n, i;

	for (; j->traced < trace->n; j->traced++) {
		const struct event *event = &trace->event[j->traced];

		if (event->kind == EV_CACHED || event->kind == EV_NT)
			flight_store(&j->flight, event->off, trace->bytes + event->at, event->len,
				event->kind == EV_NT);
		else if (event->kind == EV_FLUSH)
			flight_flush(&j->flight, event->off, event->len);
	}
	n = flight_states(&j->flight);
	for (i = 0; i < n && !j->inner_bad; i++) {
		/* A few of each kind suffice: many states get here. */
		if (n > 8 && mix64(j->seed ^ mix64(i ^ trace->n)) % n >= 6)
			continue;
		j->inner_bad = !judge_inner(j, i);
	}
	flight_drain(&j->flight, &j->second, 1);
}

bool judge_recovery(struct judge *j, const struct expect *e, const struct flight *flight)
{
	size_t mark = image_mark(j->img), mark2 = image_mark(j->second);
	struct umbra_fs *fs = NULL;
	bool good;

	trace_clear(&j->trace);
	flight_clear(&j->flight);
	if (flight)
		flight_copy(&j->flight, flight);
	j->traced = 0;
	j->expect = e;
	j->inner_bad = false;
	j->img->into = &j->trace;
	good = mount_state(j, j->img, &fs);
	if (good)
		um_reaper_run(fs);
	j->img->into = NULL;
	if (fs)
		umbra_abandon(fs);
	if (good && j->inner_bad)
		good = bad(j, "that was after a second cut, during recovery");
	image_rollback(j->img, mark);
	image_rollback(j->second, mark2);
	return good;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

void judge_open(
	struct judge *j, const struct config *config, struct image *img, struct image *second)
{
	const struct um_super *super = (const struct um_super *)image_medium(img);
	uint64_t len = (super->journal_blocks - 1) * B;
	FILE *report = j->report;

	memset(j, 0, sizeof(*j));
	j->config = config;
	j->img = img;
	j->second = second;
	j->report = report;
	j->ring[0][0] = (super->journal_lba + 1) * B;
	j->ring[0][1] = j->ring[0][0] + len;
	j->ring[1][0] = super->journal_mirror ? (super->journal_mirror + 1) * B : 0;
	j->ring[1][1] = super->journal_mirror ? j->ring[1][0] + len : 0;
	j->stamp = xalloc(POOL_SIZE / LINE * sizeof(*j->stamp));
	j->flight.unit = config->direct ? LINE : SECTOR;
	j->flight.density = INNER_DENSITY;
	j->trace.moment = moment;
	j->trace.arg = j;
	umbra_log_to(judge_log, j);
}

void judge_close(struct judge *j)
{
	snapshot_free(&j->got);
	snapshot_free(&j->again);
	trace_free(&j->trace);
	flight_free(&j->flight);
	free(j->known);
	free(j->stamp);
	j->known = NULL;
	j->stamp = NULL;
}
