/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every allocation and every system call of the engine fails once, at each of its call sites, in
 * each operation. The operation must then report this or succeed all the same; the tree must be
 * that before or after the operation; the pool must be consistent, at once and after it was closed;
 * and nothing may leak (in a build with AddressSanitizer).
 *
 * The operations and pools are those of the crash tests, in memory, and in a file, mapped and not.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../crash/crash.h"
#include "heal/check_int.h"
#include "inject.h"

#define SITES_MAX 4096u

void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *at, size_t size);
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static struct {
	const struct config *config;
	struct image img;
	uint8_t *golden;
	const char *path; /* the pool's file; NULL: it is in memory */
	struct snapshot before, after, now;
	struct mix mix;
	uint64_t seed;
	double end;
	bool barrier; /* it is one that fails */
	bool every;   /* each call, not only the first and the last from each place */
	char name[256];
} t;
static struct {
	uint64_t runs, calls, errors, failures, sites;
} count;
static const void *site[SITES_MAX];

static double seconds(void)
{
	struct timespec ts;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void fail(const char *what, int err)
{
	count.failures++;
	printf("FAIL: %s: %s", t.name, what);
	if (err)
		printf(": %s", strerror(-err));
	putchar('\n');
	fflush(stdout);
}

static void quiet(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (getenv("UMBRA_FAULTS_LOG"))
		fprintf(stderr, "  %s\n", line);
}

/* ---- the pool ------------------------------------------------------------------------------------------ */

static int mount(struct umbra_fs **out)
{
	struct umbra_options opt = {
		.data = t.config->data, .atime = UMBRA_NOATIME, .shadow_mem = 1 << 20};

	if (!t.path)
		return config_mount(t.config, &t.img, out);
	um_reaper_manual = true;
	return umbra_open(t.path, &opt, out);
}

static void put_back(void)
{
	static const uint8_t zeros[B];
	uint64_t off;
	int fd;

	if (!t.path) {
		image_rollback(&t.img, 0);
		return;
	}
	fd = open(t.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, POOL_SIZE))
		die("cannot make %s", t.path);
	for (off = 0; off < POOL_SIZE; off += B)
		if (memcmp(t.golden + off, zeros, B) &&
			pwrite(fd, t.golden + off, B, (off_t)off) != B)
			die("cannot write %s", t.path);
	close(fd);
}

static void say_problem(void *arg, const char *code, bool repaired, const char *text)
{
	(void)arg;
	(void)repaired;
	printf("  fsck: %s: %s\n", code, text);
}

static void check(const char *when)
{
	struct umbra_check_report report = {0};
	size_t mark = image_mark(&t.img);
	struct um_pool *pool;
	int ret;

	if (t.path) {
		ret = umbra_check(t.path, UMBRA_CHECK_ONLY, say_problem, NULL, &report);
	} else {
		ret = um_pool_open_image(t.img.base, POOL_SIZE, UM_POOL_EXCL, &pool);
		if (!ret) {
			ret = um_check_pool(pool, UMBRA_CHECK_ONLY, say_problem, NULL, &report);
			um_pool_close(pool);
			image_rollback(&t.img, mark);
		}
	}
	if (ret || report.problems)
		fail(when, ret);
}

/* ---- what an operation leaves --------------------------------------------------------------------------- */

static bool as_expected(int ret)
{
	if (snapshot_equal(&t.now, ret ? &t.before : &t.after))
		return true;
	return snapshot_between(&t.now, &t.before, &t.after, t.mix);
}

/* After closing and reopening it must be the same. */
static void again(struct umbra_fs *fs)
{
	struct snapshot was = {0};
	char why[600];
	int ret;

	snapshot_copy(&was, &t.now);
	um_reaper_run(fs);
	ret = umbra_close(fs);
	/* After an error of the medium nothing more is written. */
	if (ret && ret != -EIO && ret != -EROFS)
		fail("close", ret);
	check("fsck finds problems");
	ret = mount(&fs);
	if (ret) {
		fail("mount", ret);
	} else {
		um_reaper_run(fs);
		ret = snapshot_take(fs, &t.now, why, sizeof(why));
		if (ret)
			fail(why, ret);
		else if (!t.barrier && !snapshot_equal(&t.now, &was))
			fail("after another mount the tree is not what it was", 0);
		umbra_abandon(fs);
	}
	snapshot_free(&was);
}

/* The calls of an operation; the failing one is in call `which`, which is the last that is made. */
static int run_calls(struct world *w, const struct op *op, unsigned which, uint64_t hit, int error,
	bool *failed, uint64_t *ncalls)
{
	int ret = 0;
	unsigned i;

	for (i = 0; i <= which; i++) {
		fake_nsec += 1000000007;
		if (i == which)
			inject_begin(hit, error);
		ret = call_run(w, &op->call[i]);
	}
	*ncalls = inject_end(failed);
	return ret;
}

static struct umbra_fs *begin(struct world *w)
{
	*w = (struct world){0};
	put_back();
	fake_nsec = 1ull << 40;
	fake_step = 0;
	if (mount(&w->fs))
		die("%s: cannot be mounted", t.name);
	return w->fs;
}

static void take(struct umbra_fs *fs, struct snapshot *out)
{
	char why[600];
	int ret = snapshot_take(fs, out, why, sizeof(why));

	if (ret)
		fail(why, ret);
}

static void with_failure(const struct op *op, unsigned which, uint64_t hit, int error, int usual)
{
	struct world w;
	bool failed;
	uint64_t n;
	int ret;

	begin(&w);
	ret = run_calls(&w, op, which, hit, error, &failed, &n);
	count.runs++;
	if (!failed) {
		/* A different order of calls: what was to fail did not come. */
		world_end(&w);
		umbra_abandon(w.fs);
		return;
	}
	count.calls++;
	count.errors += ret < 0;
	take(w.fs, &t.now);
	if (!as_expected(ret != usual))
		fail("the tree is neither what it was nor what it was to be", ret);
	world_end(&w);
	um_reaper_run(w.fs);
	take(w.fs, &t.now);
	again(w.fs);
}

/* ---- which call ---------------------------------------------------------------------------------------------- */

static void note_site(const void *at)
{
	uint64_t i = mix64((uintptr_t)at) % SITES_MAX;

	while (site[i] && site[i] != at)
		i = (i + 1) % SITES_MAX;
	count.sites += !site[i];
	site[i] = at;
}

/* The first and the last from its place? */
static bool chosen(const struct inject_call *calls, uint64_t n, uint64_t k)
{
	bool first = true, last = true;
	uint64_t i;

	for (i = 0; i < k; i++)
		first = first && calls[i].site != calls[k].site;
	for (i = k + 1; i < n; i++)
		last = last && calls[i].site != calls[k].site;
	return t.every || first || last;
}

typedef void attempt_fn(const void *arg, uint64_t hit, int error);

static void each_call(const char *name, uint64_t n, attempt_fn *fn, const void *arg)
{
	struct inject_call *calls = __real_calloc(n + 1, sizeof(*calls));
	uint64_t k;
	unsigned e;

	for (k = 0; k < n; k++) {
		const struct inject_call *noted = inject_noted(k + 1);

		if (!noted)
			die("%s makes too many calls", name);
		calls[k] = *noted;
	}
	for (k = 0; k < n && seconds() < t.end; k++) {
		if (!chosen(calls, n, k))
			continue;
		note_site(calls[k].site);
		for (e = 0; calls[k].errors[e]; e++) {
			snprintf(t.name, sizeof(t.name), "%s%s/%s: call %llu, %s: %s",
				t.config->name, t.path ? "-file" : "", name,
				(unsigned long long)k + 1, calls[k].what,
				strerror(calls[k].errors[e]));
			/* What a failed barrier was for need not be there: the last commit
			 * counts. */
			t.barrier = !strcmp(calls[k].what, "fdatasync");
			fn(arg, k + 1, calls[k].errors[e]);
		}
	}
	free(calls);
	if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check())
		fail("leaks, in this or one of the runs before", 0);
}

/* ---- operations ------------------------------------------------------------------------------------------------ */

struct step {
	const struct op *op;
	unsigned which;
	int usual;
};

static void try_op(const void *arg, uint64_t hit, int error)
{
	const struct step *step = arg;

	with_failure(step->op, step->which, hit, error, step->usual);
}

/* The calls that an operation makes if nothing fails, and the trees before and after. */
static uint64_t without_failure(struct step *step)
{
	struct world w;
	uint64_t n;
	bool failed;

	begin(&w);
	if (step->which) {
		run_calls(&w, step->op, step->which - 1, 0, 0, &failed, &n);
		take(w.fs, &t.before);
		world_end(&w);
		umbra_abandon(w.fs);
		begin(&w);
	} else {
		take(w.fs, &t.before);
	}
	step->usual = run_calls(&w, step->op, step->which, 0, 0, &failed, &n);
	t.mix = w.mix;
	take(w.fs, &t.after);
	world_end(&w);
	umbra_abandon(w.fs);
	return n;
}

static void one_op(const struct op *op)
{
	struct step step = {.op = op};
	uint64_t n;

	for (; step.which < CALLS_MAX && op->call[step.which].kind; step.which++) {
		snprintf(t.name, sizeof(t.name), "%s/%s", t.config->name, op->name);
		n = without_failure(&step);
		each_call(op->name, n, try_op, &step);
	}
}

/* ---- the whole of a pool's life ---------------------------------------------------------------------------------- */

/* Any call may fail; the pool was changed and its daemon has died, or continues. Afterwards it must
 * be consistent, and nothing that was acknowledged may be missing. */
enum life { LIFE_MOUNT, LIFE_SYNC, LIFE_CHECKPOINT, LIFE_CLOSE, LIFE_CHECK, LIFE_REPAIR, LIVES };
static const char *const life_name[LIVES] = {
	"mount", "sync", "checkpoint", "close", "fsck -n", "fsck -y"};

static struct umbra_fs *begin_life(void)
{
	static const struct call call[] = {
		{.kind = CALL_WRITE, .a = "foo", .off = 100, .len = 9000},
		{.kind = CALL_MKNOD, .a = "A/new", .flags = S_IFREG | 0600},
		{.kind = CALL_UNLINK, .a = "big"}};
	struct world w;
	unsigned i;

	begin(&w);
	for (i = 0; i < sizeof(call) / sizeof(call[0]); i++)
		if (call_run(&w, &call[i]))
			fail("an operation fails", 0);
	um_reaper_run(w.fs);
	take(w.fs, &t.before);
	return w.fs;
}

static int fsck(bool repair)
{
	enum umbra_check_mode mode = repair ? UMBRA_CHECK_REPAIR : UMBRA_CHECK_ONLY;
	struct umbra_check_report report;

	return t.path ? umbra_check(t.path, mode, NULL, NULL, &report)
		      : umbra_check_image(t.img.base, POOL_SIZE, mode, NULL, NULL, &report);
}

static int live(enum life life, uint64_t hit, int error, bool *failed, uint64_t *n)
{
	struct umbra_fs *fs = begin_life();
	int ret = 0;

	if (life == LIFE_MOUNT || life == LIFE_CHECK || life == LIFE_REPAIR) {
		umbra_abandon(fs);
		fs = NULL;
	}
	inject_begin(hit, error);
	switch (life) {
	case LIFE_MOUNT:
		ret = mount(&fs);
		break;
	case LIFE_SYNC:
		ret = umbra_sync(fs);
		break;
	case LIFE_CHECKPOINT:
		ret = um_log_checkpoint(fs->log);
		break;
	case LIFE_CLOSE:
		ret = umbra_close(fs);
		fs = NULL;
		break;
	default:
		ret = fsck(life == LIFE_REPAIR);
		break;
	}
	*n = inject_end(failed);
	if (fs && !(life == LIFE_MOUNT && ret))
		umbra_abandon(fs);
	return ret;
}

static void try_life(const void *arg, uint64_t hit, int error)
{
	const enum life *life = arg;
	struct umbra_fs *fs;
	bool failed;
	uint64_t n;
	int ret = live(*life, hit, error, &failed, &n);

	count.runs++;
	count.calls += failed;
	count.errors += ret < 0;
	check("fsck finds problems");
	ret = mount(&fs);
	if (ret) {
		fail("mount", ret);
		return;
	}
	um_reaper_run(fs);
	take(fs, &t.now);
	if (!t.barrier && !snapshot_equal(&t.now, &t.before)) {
		fail("what was acknowledged is not there", 0);
		snapshot_diff(&t.before, &t.now, stdout);
	}
	umbra_abandon(fs);
}

static void lives(void)
{
	enum life life;
	uint64_t n;
	bool failed;
	int ret;

	for (life = 0; life < LIVES; life++) {
		snprintf(t.name, sizeof(t.name), "%s/%s", t.config->name, life_name[life]);
		ret = live(life, 0, 0, &failed, &n);
		if (ret)
			fail("fails by itself", ret);
		each_call(life_name[life], n, try_life, &life);
	}
}

/* ---- all ------------------------------------------------------------------------------------------------------------ */

static void open_config(const char *name, const char *path)
{
	unsigned i;

	for (i = 0; i < crash_nconfigs && strcmp(crash_configs[i].name, name); i++)
		;
	t.config = &crash_configs[i];
	t.path = NULL;
	fake_step = 1000003;
	image_open(&t.img, t.config->direct);
	image_register(&t.img, false);
	config_make(t.config, &t.img);
	t.golden = xalloc(POOL_SIZE);
	memcpy(t.golden, image_medium(&t.img), POOL_SIZE);
	image_copy(&t.img, t.golden);
	t.path = path;
}

static void one_config(const char *name, const char *path)
{
	uint64_t rng = mix64(t.seed);
	unsigned i, first;

	open_config(name, path);
	lives();
	first = (unsigned)rnd_below(&rng, crash_nops);
	for (i = 0; i < crash_nops && seconds() < t.end; i++)
		one_op(&crash_ops[(first + i * 7) % crash_nops]);
	image_close(&t.img);
	free(t.golden);
	if (path)
		unlink(path);
	t.path = NULL;
}

static const char usage_text[] =
	"usage: faults [OPTION...]\n"
	"  --budget SECONDS for all pools together (default 60)\n"
	"  --seed N         which operation comes first (default 1)\n"
	"  --every          each call fails, not only the first and last from each place\n"
	"  --dir DIR        for pools in files (default /dev/shm)\n";

int main(int argc, char **argv)
{
	static const struct option options[] = {{"budget", 1, NULL, 'b'}, {"seed", 1, NULL, 'S'},
		{"every", 0, NULL, 'e'}, {"dir", 1, NULL, 'd'}, {0}};
	/* In memory, and in files: with the environment of tests a file counts as persistent
	 * memory. */
	static const struct {
		const char *config;
		bool file, pmem;
	} pools[] = {{"standard", false, true}, {"file", false, true}, {"file", true, false},
		{"standard", true, true}, {"full", false, true}};
	const char *dir = "/dev/shm";
	double budget = 60, from = seconds();
	char path[300];
	unsigned i, n = sizeof(pools) / sizeof(pools[0]);
	int c;

	t.seed = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			budget = atof(optarg);
		else if (c == 'S')
			t.seed = strtoull(optarg, NULL, 0);
		else if (c == 'e')
			t.every = true;
		else if (c == 'd')
			dir = optarg;
		else
			return fputs(usage_text, stderr), 2;
	}
	crash_memory.calloc = __real_calloc;
	crash_memory.realloc = __real_realloc;
	snapshot_unit = 512;
	umbra_log_to(quiet, NULL);
	snprintf(path, sizeof(path), "%s/umbra-faults-%d", dir, getpid());
	for (i = 0; i < n; i++) {
		bool pmem = getenv("PMEM_IS_PMEM_FORCE") != NULL;

		t.end = from + budget * (i + 1) / n;
		if (!pools[i].file || pools[i].pmem == pmem)
			one_config(pools[i].config, pools[i].file ? path : NULL);
	}
	snapshot_free(&t.before);
	snapshot_free(&t.after);
	snapshot_free(&t.now);
	printf("%llu runs, %llu failed calls from %llu places, %llu of them seen by the caller: "
	       "%llu bad; "
	       "seed %llu, %.1f s\n",
		(unsigned long long)count.runs, (unsigned long long)count.calls,
		(unsigned long long)count.sites, (unsigned long long)count.errors,
		(unsigned long long)count.failures, (unsigned long long)t.seed, seconds() - from);
	return count.failures ? 1 : 0;
}
