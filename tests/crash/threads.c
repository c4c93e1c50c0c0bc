/* SPDX-License-Identifier: BSD-3-Clause */
/* The program crash-threads: rounds of threads at work, cuts, and what must be there afterwards. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "heal/check_int.h"
#include "pool/seeded.h"
#include "threads.h"
#include "txn/internal.h"

#define OPERATIONS 150u /* of each thread in a round */
#define CUTS 40u        /* in a round */
#define BAD_MAX 5u      /* reported, then it stops */
#define ROOM (1u << 20) /* left free in a pool that is nearly full */

#ifdef UM_SEEDED_BUGS
unsigned um_seeded_bug_number;
#endif

static const char usage_text[] =
	"usage: crash-threads [--budget SECONDS] [--seed N] [--rounds N] [--bug N]\n"
	"Cuts the power while threads use a pool; exit code 1 when what fsync promised is not "
	"there.\n"
	"The N-th round has the seed N - 1 higher. The seed says what pool it is, what each thread "
	"does\n"
	"and which cuts are made, but the threads meet differently each time.\n";

struct round {
	uint64_t seed, chance;
	struct umbra_mkfs_options made;
	struct umbra_options opened;
	bool full;
	char path[512];
	struct image before, img; /* before: what is certain to be there */
	struct user *user;
	size_t done, scanned, safe; /* events: in `before`; looked at; before the last barrier */
	char cut[96];               /* the one that is judged, for a report */
	unsigned cuts, bad;
};

static void bad(struct round *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void bad(struct round *r, const char *fmt, ...)
{
	va_list args;

	printf("FAIL: seed %llu (%s%s%s%s%s), %s: ", (unsigned long long)r->seed,
		r->made.data_csum ? "csum " : "", r->made.parity ? "parity " : "",
		r->full ? "full " : "", r->opened.discard ? "discard " : "", "pool", r->cut);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	r->bad++;
}

static void log_errors(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	if (level == UMBRA_LOG_ERROR)
		printf("  engine: %s\n", line);
}

/* ---- threads at work ---------------------------------------------------------------------------- */

static void must(const char *what, int ret)
{
	if (ret)
		die("%s: %s", what, strerror(-ret));
}

static void fill(struct umbra_fs *fs)
{
	static const struct umbra_cred cred = {.umask = 022};
	struct umbra_attr attr;
	struct statvfs st;
	uint64_t room;

	must("mknod", umbra_mknod(fs, UM_ROOT_INO, "fill", S_IFREG | 0644, 0, &cred, &attr));
	must("statfs", umbra_statfs(fs, &st));
	room = st.f_bavail * st.f_frsize;
	if (room > ROOM)
		must("fill", umbra_fallocate(fs, attr.st.st_ino, 0, 0, room - ROOM));
}

static void *work(void *arg)
{
	user_run(arg, OPERATIONS);
	return NULL;
}

static void work_all(struct round *r, struct umbra_fs *fs)
{
	unsigned i;

	for (i = 0; i < THREADS; i++) {
		r->user[i].fs = fs;
		r->user[i].number = i;
		r->user[i].chance = mix64(r->seed * THREADS + i);
		if (pthread_create(&r->user[i].thread, NULL, work, &r->user[i]))
			die("cannot start a thread");
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(r->user[i].thread, NULL);
		if (r->user[i].bad[0])
			bad(r, "%s", r->user[i].bad);
	}
}

/* Afterwards `record` has all that the file got since `before`. */
static void use_pool(struct round *r)
{
	struct umbra_fs *fs;
	struct umbra_info info;
	int fd;

	snprintf(r->cut, sizeof(r->cut), "no cut");
	must("mkfs", umbra_mkfs(r->path, &r->made, &info));
	boot_is(BOOT_LIVE);
	must("open", umbra_open(r->path, &r->opened, &fs));
	if (r->full)
		fill(fs);
	must("sync", umbra_sync(fs));
	fd = open(r->path, O_RDONLY);
	if (fd < 0)
		die("%s: %s", r->path, strerror(errno));
	trace_clear(&record);
	/* The background thread may write meanwhile. What is then both in the copy and in the
	 * record counts as written twice, in order. */
	record_file(fd, r->seed);
	if (pread(fd, r->before.file, POOL_SIZE, 0) != (ssize_t)POOL_SIZE)
		die("%s: cannot be read", r->path);
	close(fd);
	work_all(r, fs);
	record_file(-1, 0);
	umbra_abandon(fs);
	unlink(r->path);
}

/* ---- states ------------------------------------------------------------------------------------- */

/* The part of a recorded write within [from, to). */
static void put_part(struct image *img, const struct event *e, uint64_t from, uint64_t to)
{
	from = e->off > from ? e->off : from;
	to = e->off + e->len < to ? e->off + e->len : to;
	if (e->kind == EV_NT && from < to)
		image_put(img, from, record.bytes + e->at + (from - e->off), to - from);
}

/* Goes on to the moment `t`: what the barriers that have ended cover is certain. */
static void settle(struct round *r, size_t t)
{
	for (; r->scanned < t; r->scanned++) {
		const struct event *e = &record.event[r->scanned];

		if (e->kind == EV_DRAIN && e->off > r->safe)
			r->safe = e->off;
	}
	for (; r->done < r->safe; r->done++)
		put_part(&r->before, &record.event[r->done], 0, POOL_SIZE);
	image_keep(&r->before);
}

/* Up to which event a unit of the medium has what it got. Modes: all or nothing of each, the same
 * for all, or anything. */
static size_t unit_limit(
	const struct round *r, uint64_t unit, size_t t, unsigned mode, unsigned part)
{
	uint64_t dice = mix64(unit ^ mix64(r->chance));

	if (mode == 1)
		return dice % 100 < part ? t : r->safe;
	if (mode == 2)
		return r->safe + (t - r->safe) * part / 100;
	if (dice % 3 < 2)
		return dice % 3 ? t : r->safe;
	return r->safe + (dice >> 8) % (t - r->safe + 1);
}

/* True: the process died, no power was cut. The units are blocks, as a page cache writes them, or in one
 * mode sectors. */
static bool make_state(struct round *r, size_t t)
{
	unsigned mode = (unsigned)rnd_below(&r->chance, 6);
	unsigned part = 1 + (unsigned)rnd_below(&r->chance, 99);
	uint64_t unit = mode == 4 ? SECTOR : B, u;
	size_t i;

	image_copy(&r->img, r->before.file);
	snprintf(r->cut, sizeof(r->cut), "cut at event %zu of %zu (%zu certain), mode %u", t,
		record.n, r->safe, mode);
	for (i = r->safe; mode && i < t; i++) {
		const struct event *e = &record.event[i];

		if (e->kind != EV_NT)
			continue;
		if (mode == 5) {
			put_part(&r->img, e, 0, POOL_SIZE);
			continue;
		}
		for (u = e->off / unit; u * unit < e->off + e->len; u++)
			if (i < unit_limit(r, u, t, mode, part))
				put_part(&r->img, e, u * unit, (u + 1) * unit);
	}
	image_keep(&r->img);
	return mode == 5;
}

/* ---- judging ------------------------------------------------------------------------------------ */

/* The last fsync that had returned, and which files were touched since. */
static const struct model *promised(const struct user *u, size_t t, unsigned *touched)
{
	const struct model *saved = NULL;
	size_t i;

	*touched = 0;
	for (i = 0; i < u->nnote && u->note[i].at <= t; i++) {
		*touched |= u->note[i].touched;
		if (!u->note[i].saved)
			continue;
		saved = u->note[i].saved;
		*touched = 0;
	}
	return saved;
}

/* Whatever may be in it: never what another thread wrote, or garbage. */
static void judge_words(
	struct round *r, const char *name, unsigned user, const uint8_t *buf, size_t n)
{
	uint64_t word;
	size_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		memcpy(&word, buf + i, 8);
		if (!word || word >> 24 == (TAG_BASE | user))
			continue;
		bad(r, "%s has foreign bytes at %zu: %llx", name, i, (unsigned long long)word);
		return;
	}
}

/* must_be: NULL if it may be anything of its own. */
static void judge_file(struct round *r, struct umbra_fs *fs, unsigned user, unsigned file,
	const struct model *must_be)
{
	static uint8_t buf[2 * FILE_MAX];
	struct umbra_attr attr;
	char name[16];
	ssize_t n = 0, i = 0;
	int ret;

	user_file_name(name, user, file);
	ret = umbra_lookup(fs, UM_ROOT_INO, name, &attr);
	if (!ret) {
		n = umbra_read(fs, attr.st.st_ino, buf, sizeof(buf), 0);
		umbra_forget(fs, attr.st.st_ino, 1);
	}
	if ((ret && ret != -ENOENT) || n < 0) {
		bad(r, "%s: %s", name, strerror(ret ? -ret : (int)-n));
		return;
	}
	judge_words(r, name, user, buf, (size_t)n);
	if (!must_be || must_be->unknown)
		return;
	if (must_be->exists == !!ret) {
		bad(r, "%s is %s", name, ret ? "not there" : "there again");
		return;
	}
	if (n == (ssize_t)must_be->size && !memcmp(buf, must_be->data, (size_t)n))
		return;
	while (i < n && i < (ssize_t)must_be->size && buf[i] == must_be->data[i])
		i++;
	bad(r, "%s has %zd bytes, not %u; it differs from %zd on", name, n, must_be->size, i);
}

static void judge_tree(struct round *r, struct umbra_fs *fs, size_t t)
{
	const struct model *saved;
	unsigned touched, i, f;

	for (i = 0; i < THREADS; i++) {
		saved = promised(&r->user[i], t, &touched);
		for (f = 0; f < FILES; f++)
			judge_file(r, fs, i, f, saved && !(touched & 1u << f) ? &saved[f] : NULL);
	}
}

static void on_problem(void *arg, const char *code, bool repaired, const char *text)
{
	(void)arg;
	(void)repaired;
	printf("  fsck: %s: %s\n", code, text);
}

static void judge_pool(struct round *r)
{
	struct umbra_check_report report = {0};
	struct um_pool *pool;
	int ret = um_pool_open_image(r->img.base, POOL_SIZE, UM_POOL_EXCL, &pool);

	if (!ret) {
		ret = um_check_pool(pool, UMBRA_CHECK_ONLY, on_problem, NULL, &report);
		um_pool_close(pool);
	}
	if (ret || report.problems)
		bad(r, "fsck: %s, %llu problems", ret ? strerror(-ret) : "done",
			(unsigned long long)report.problems);
}

static void judge_cut(struct round *r, size_t t)
{
	struct umbra_options opt = {.commit_seconds = 3600, .shadow_mem = 64 << 10};
	unsigned before = r->bad;
	struct umbra_fs *fs;
	int ret;

	settle(r, t);
	boot_is(make_state(r, t) ? BOOT_LIVE : BOOT_CUT);
	ret = umbra_open_image(r->img.base, POOL_SIZE, &opt, &fs);
	if (ret) {
		bad(r, "cannot be mounted: %s", strerror(-ret));
	} else {
		judge_tree(r, fs, t);
		ret = umbra_close(fs);
		if (ret)
			bad(r, "close: %s", strerror(-ret));
		judge_pool(r);
	}
	r->bad = before + (r->bad > before); /* one cut, however much is wrong */
	r->cuts++;
}

/* ---- rounds ------------------------------------------------------------------------------------- */

static int in_order(const void *a, const void *b)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;

	return (x > y) - (x < y);
}

static void cut_all(struct round *r)
{
	size_t at[CUTS], i;

	for (i = 0; i < CUTS; i++)
		at[i] = rnd_below(&r->chance, record.n + 1);
	qsort(at, CUTS, sizeof(at[0]), in_order);
	r->done = r->scanned = r->safe = 0;
	for (i = 0; i < CUTS && r->bad < BAD_MAX; i++)
		judge_cut(r, at[i]);
}

static void users_free(struct round *r)
{
	unsigned i;
	size_t k;

	for (i = 0; i < THREADS; i++) {
		for (k = 0; k < r->user[i].nnote; k++)
			free(r->user[i].note[k].saved);
		free(r->user[i].note);
	}
	free(r->user);
}

/* Sixteen seeds in a row are all kinds of pools. */
static void run_round(struct round *r, uint64_t seed)
{
	unsigned before = r->bad;

	r->seed = seed;
	r->chance = mix64(seed);
	r->made = (struct umbra_mkfs_options){
		.size = POOL_SIZE, .force = true, .data_csum = seed & 1, .parity = seed & 2};
	r->full = seed & 4;
	r->opened = (struct umbra_options){.commit_seconds = 1, .discard = seed & 8};
	r->user = xalloc(THREADS * sizeof(*r->user));
	use_pool(r);
	if (r->bad == before)
		cut_all(r);
	users_free(r);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A name that a boot is known by. */
void boot_is(unsigned boot)
{
	static uint8_t name[16] = "boot ?";

	name[5] = (uint8_t)('0' + boot);
	um_boot_id_fake = name;
}

static void set_bug(const char *text)
{
#ifdef UM_SEEDED_BUGS
	um_seeded_bug_number = (unsigned)number_of(text);
#else
	die("bug %s: this program was built without bugs", text);
#endif
}

static void parse(int argc, char **argv, uint64_t *seed, double *budget, uint64_t *rounds)
{
	static const struct option options[] = {{"budget", 1, NULL, 'b'}, {"seed", 1, NULL, 's'},
		{"rounds", 1, NULL, 'r'}, {"bug", 1, NULL, 'B'}, {"help", 0, NULL, 'h'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'b')
			*budget = (double)number_of(optarg);
		else if (c == 's')
			*seed = number_of(optarg);
		else if (c == 'r')
			*rounds = number_of(optarg);
		else if (c == 'B')
			set_bug(optarg);
		else {
			fputs(usage_text, c == 'h' ? stdout : stderr);
			exit(c == 'h' ? 0 : 2);
		}
	}
	if (optind < argc)
		die("wrong arguments; see --help");
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, rounds = UINT64_MAX, n;
	double budget = 20, from = seconds();
	const char *dir = getenv("TMPDIR");
	struct round r = {0};

	parse(argc, argv, &seed, &budget, &rounds);
	snprintf(r.path, sizeof(r.path), "%s/crash-threads.%d", dir ? dir : "/dev/shm",
		(int)getpid());
	umbra_log_to(log_errors, NULL);
	image_open(&r.before, false);
	image_open(&r.img, false);
	image_register(&r.img, false);
	for (n = 0; n < rounds && r.bad < BAD_MAX && seconds() - from < budget; n++)
		run_round(&r, seed + n);
	printf("%llu rounds, %u cuts, %u bad; seed %llu, %.1f s\n", (unsigned long long)n, r.cuts,
		r.bad, (unsigned long long)seed, seconds() - from);
	image_close(&r.before);
	image_close(&r.img);
	trace_free(&record);
	return r.bad ? 1 : 0;
}
