/* SPDX-License-Identifier: BSD-3-Clause */
/* The program of the crash tests: options, processes, totals. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"

#define MAX_JOBS 64u

static const char usage_text[] =
	"usage: crash [OPTION...]\n"
	"Goes through the states that a power cut may leave of a pool; exit code 1 when one is "
	"bad.\n"
	"\n"
	"  --seq N          sequences of N operations: 1 and 2 all of them, 3 and more sampled;\n"
	"                   0: long random ones (default: all kinds, as the budget allows)\n"
	"  --budget SECONDS stop then (default 60; 0: not before all is done)\n"
	"  --seed N         of the order, and of what is chosen by chance (default 1)\n"
	"  --density N      states of each kind at one drain, at most (default 16)\n"
	"  --length N       calls in a random workload (default 60)\n"
	"  --jobs N         processes (default: one a processor)\n"
	"  --config NAME    only this pool\n"
	"  --only WORKLOAD  only this one: op, op+op, random-NUMBER-LENGTH\n"
	"  --repro STATE    only this state, as a failure names it\n"
	"  --dump FILE      write the pool of the first bad state there\n"
	"  --failures N     stop after so many (default 10)\n"
	"  --list           print the operations and pools\n"
	"  --costs          print fences and flushed lines of each operation\n"
	"  --mutants        try the bugs put in on purpose (crash-mutants), --budget seconds each\n"
	"  --mutant N       only that one\n"
	"  -v               name each workload\n";

/* The engine's clock is ours, but the budget is real time. */
static double seconds(void)
{
	struct timespec ts;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void list(void)
{
	unsigned i;

	for (i = 0; i < crash_nconfigs; i++)
		printf("pool %s\n", crash_configs[i].name);
	for (i = 0; i < crash_nops; i++)
		printf("op %s\n", crash_ops[i].name);
}

/* Options by their letters; false when it is not one of these. */
static bool set_number(struct options *opt, int letter)
{
	const struct {
		int letter;
		unsigned *to;
	} set[] = {{'s', &opt->seq}, {'d', &opt->density}, {'l', &opt->length}, {'j', &opt->jobs},
		{'f', &opt->max_failures}, {'m', &opt->mutant}};
	unsigned i;

	for (i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
		if (set[i].letter != letter)
			continue;
		*set[i].to = (unsigned)number_of(optarg);
		opt->seq_given |= letter == 's';
		opt->mutants |= letter == 'm';
		return true;
	}
	return false;
}

static bool set_text(struct options *opt, int letter)
{
	const struct {
		int letter;
		const char **to;
	} set[] = {{'c', &opt->config}, {'o', &opt->only}, {'r', &opt->repro}, {'D', &opt->dump}};
	unsigned i;

	for (i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
		if (set[i].letter != letter)
			continue;
		*set[i].to = optarg;
		return true;
	}
	return false;
}

static void set_other(struct options *opt, int letter)
{
	switch (letter) {
	case 'b':
		opt->budget = (double)number_of(optarg);
		break;
	case 'S':
		opt->seed = number_of(optarg);
		break;
	case 'M':
		opt->mutants = true;
		break;
	case 'C':
		opt->costs = true;
		break;
	case 'v':
		opt->verbose = true;
		break;
	case 'L':
		list();
		exit(0);
	case 'h':
		fputs(usage_text, stdout);
		exit(0);
	default:
		fputs(usage_text, stderr);
		exit(2);
	}
}

static void parse(int argc, char **argv, struct options *opt)
{
	static const struct option options[] = {{"seq", 1, NULL, 's'}, {"budget", 1, NULL, 'b'},
		{"seed", 1, NULL, 'S'}, {"density", 1, NULL, 'd'}, {"length", 1, NULL, 'l'},
		{"jobs", 1, NULL, 'j'}, {"config", 1, NULL, 'c'}, {"only", 1, NULL, 'o'},
		{"repro", 1, NULL, 'r'}, {"dump", 1, NULL, 'D'}, {"failures", 1, NULL, 'f'},
		{"list", 0, NULL, 'L'}, {"help", 0, NULL, 'h'}, {"costs", 0, NULL, 'C'},
		{"mutants", 0, NULL, 'M'}, {"mutant", 1, NULL, 'm'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "vhj:", options, NULL)) != -1)
		if (!set_number(opt, c) && !set_text(opt, c))
			set_other(opt, c);
	if (optind < argc || !opt->jobs || opt->jobs > MAX_JOBS || !opt->density)
		die("wrong arguments; see --help");
}

/* ---- processes ---------------------------------------------------------------------------------------------- */

struct shared {
	struct totals totals;
	char now[MAX_JOBS][NOW_SIZE];
};

static void work(const struct options *opt, struct shared *shared, unsigned job, double end)
{
	struct worker w;
	struct workload choice;
	struct plan plan;

	plan_make(&plan, opt);
	worker_open(&w, opt, &shared->totals, shared->now[job]);
	while (atomic_load(&shared->totals.failures) < opt->max_failures) {
		uint64_t n = atomic_fetch_add(&shared->totals.next, 1);

		if ((opt->budget && seconds() > end) || !plan_get(&plan, n, &choice))
			break;
		worker_config(&w, choice.config);
		if (choice.n)
			workload_run(&w, choice.op, choice.n, 1);
		else
			workload_random(&w, choice.number, opt->length);
		if (opt->verbose)
			fprintf(stderr, "%s\n", w.now);
	}
	shared->now[job][0] = 0;
	worker_close(&w);
}

static pid_t start(const struct options *opt, struct shared *shared, unsigned job, double end)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid) {
		work(opt, shared, job, end);
		fflush(stdout);
		_exit(0);
	}
	return pid;
}

/* A worker that dies has found something, too; another one replaces it. */
static void run_jobs(const struct options *opt, struct shared *shared, double end)
{
	pid_t pid[MAX_JOBS];
	unsigned running = 0, job;
	int status;

	for (job = 0; job < opt->jobs; job++, running++)
		pid[job] = start(opt, shared, job, end);
	while (running) {
		pid_t gone = wait(&status);

		if (gone < 0)
			die("wait: %s", strerror(errno));
		for (job = 0; job < opt->jobs && pid[job] != gone; job++)
			;
		running--;
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			continue;
		printf("FAIL: %s\n  %s %d\n", shared->now[job],
			WIFSIGNALED(status)
				? WTERMSIG(status) == SIGALRM ? "hangs: signal" : "dies by signal"
				: "exits with code",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		if (atomic_fetch_add(&shared->totals.failures, 1) + 1 >= opt->max_failures)
			continue;
		pid[job] = start(opt, shared, job, end);
		running++;
	}
}

static void print_totals(const struct options *opt, struct totals *t, double took)
{
	printf("%llu workloads, %llu calls, %llu cut points, %llu states (%llu distinct after "
	       "recovery), %llu cuts during recovery, %llu recoveries, %llu checks: %llu bad; "
	       "seed %llu, %.1f s, %.0f states a second\n",
		(unsigned long long)t->workloads, (unsigned long long)t->calls,
		(unsigned long long)t->points, (unsigned long long)t->states,
		(unsigned long long)(t->states - t->repeats), (unsigned long long)t->recoveries,
		(unsigned long long)t->mounts, (unsigned long long)t->checks,
		(unsigned long long)t->failures, (unsigned long long)opt->seed, took,
		took > 0 ? (double)t->states / took : 0);
}

static void run_costs(const struct options *opt, struct shared *shared)
{
	struct worker w;
	struct plan plan;

	plan_make(&plan, opt);
	worker_open(&w, opt, &shared->totals, shared->now[0]);
	worker_config(&w, plan.config[0]);
	costs_print(&w);
	worker_close(&w);
}

static int run_named(const struct options *opt, struct shared *shared, const char *name)
{
	struct worker w;

	worker_open(&w, opt, &shared->totals, shared->now[0]);
	if (!workload_repro(&w, name))
		die("there is no workload or state %s", name);
	worker_close(&w);
	return 0;
}

static struct shared *shared_make(void)
{
	struct shared *shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED)
		die("no memory");
	return shared;
}

/* The number of failures. */
static uint64_t run(const struct options *opt)
{
	struct shared *shared = shared_make();
	double from = seconds();
	uint64_t failures;
	char name[NOW_SIZE];

	if (opt->only) {
		snprintf(name, sizeof(name), "%s/%s", opt->config ? opt->config : "standard",
			opt->only);
		run_named(opt, shared, name);
	} else if (opt->repro) {
		run_named(opt, shared, opt->repro);
	} else if (opt->costs) {
		run_costs(opt, shared);
		return 0;
	} else {
		run_jobs(opt, shared, from + opt->budget);
	}
	print_totals(opt, &shared->totals, seconds() - from);
	failures = shared->totals.failures;
	munmap(shared, sizeof(*shared));
	return failures;
}

int main(int argc, char **argv)
{
	struct options opt = {
		.seed = 1, .budget = 60, .density = 16, .length = 60, .max_failures = 10};
	int missed;

	opt.jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	if (opt.jobs > MAX_JOBS)
		opt.jobs = MAX_JOBS;
	parse(argc, argv, &opt);
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	/* A mount's tables come and go thousands of times a second: not through the kernel. */
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	if (!opt.mutants)
		return run(&opt) ? 1 : 0;
	missed = mutants_run(&opt, run);
	if (missed < 0)
		die("this program was built without bugs: see the build option seeded_bugs");
	printf("%d mutants missed\n", missed);
	return missed ? 1 : 0;
}
