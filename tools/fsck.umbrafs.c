/* SPDX-License-Identifier: BSD-3-Clause */
/* fsck.umbrafs: checks and repairs a pool. Exit status as in fsck(8). */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "umbra/check.h"
#include "umbra/umbra.h"

/* Exit bits. */
#define FSCK_REPAIRED 1
#define FSCK_LEFT 4
#define FSCK_ERROR 8
#define FSCK_USAGE 16

static const char *program = "fsck.umbrafs";

struct args {
	const char *pool;
	bool no, preen, yes, force, verbose, json;
	struct json_object *problems;
	uint64_t nprinted;
};

/* Problems beyond this number are counted but not listed, unless -v is given. */
#define PRINT_MAX 1000u

static void log_line(void *arg, enum umbra_log_level level, const char *line)
{
	const struct args *args = arg;

	if (level > UMBRA_LOG_INFO || (level == UMBRA_LOG_INFO && !args->verbose))
		return;
	fprintf(stderr, "%s: %s\n", program, line);
}

static void usage(FILE *to)
{
	fprintf(to,
		"usage: %s [-n|-p|-y] [-f] [-v] [--json] POOL\n"
		"  -n          check only, write nothing\n"
		"  -p, -a      repair what is safe; skip a pool that was unmounted cleanly\n"
		"  -y          repair everything\n"
		"  -f          check even if the pool looks clean (with -p)\n"
		"  -v          list all problems, log more\n"
		"      --json  one JSON object on standard output\n"
		"  -V          version\n",
		program);
}

static int take_option(struct args *args, int c)
{
	switch (c) {
	case 'n':
		args->no = true;
		return 0;
	case 'p':
		args->preen = true;
		return 0;
	case 'y':
		args->yes = true;
		return 0;
	case 'f':
		args->force = true;
		return 0;
	case 'v':
		args->verbose = true;
		return 0;
	case 'j':
		args->json = true;
		return 0;
	case 'V':
		printf("fsck.umbrafs %s\n", UM_VERSION);
		exit(0);
	case 'h':
		usage(stdout);
		exit(0);
	default:
		usage(stderr);
		return -EINVAL;
	}
}

static int parse(int argc, char **argv, struct args *args)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
		{"verbose", no_argument, NULL, 'v'}, {"force", no_argument, NULL, 'f'},
		{"version", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	int c;

	/* fsck(8) passes -a for -p at boot; -C, -M, -T and -r may be passed too, and have no
	 * meaning here. */
	while ((c = getopt_long(argc, argv, "npyafvVhC::MTr", options, NULL)) != -1) {
		if (c == 'C' || c == 'M' || c == 'T' || c == 'r')
			continue;
		if (take_option(args, c == 'a' ? 'p' : c))
			return -EINVAL;
	}
	if (args->no + args->preen + args->yes > 1) {
		fprintf(stderr, "%s: -n, -p and -y exclude each other\n", program);
		return -EINVAL;
	}
	if (argc - optind != 1) {
		fprintf(stderr, "%s: %s\n", program,
			argc == optind ? "which pool?" : "one pool at a time");
		usage(stderr);
		return -EINVAL;
	}
	args->pool = argv[optind];
	return 0;
}

/* ---- output -------------------------------------------------------------------------------------- */

static void problem(void *arg, const char *code, bool repaired, const char *text)
{
	struct args *args = arg;
	struct json_object *entry;

	if (args->nprinted++ >= PRINT_MAX && !args->verbose)
		return;
	if (!args->json) {
		printf("%s: %s%s\n", code, text, repaired ? " (repaired)" : "");
		return;
	}
	entry = json_object_new_object();
	json_object_object_add(entry, "code", json_object_new_string(code));
	json_object_object_add(entry, "repaired", json_object_new_boolean(repaired));
	json_object_object_add(entry, "text", json_object_new_string(text));
	json_object_array_add(args->problems, entry);
}

static void add_number(struct json_object *object, const char *name, uint64_t value)
{
	json_object_object_add(object, name, json_object_new_uint64(value));
}

static void print_json(const struct args *args, const struct umbra_check_report *r, int status,
	int err, bool skipped)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "pool", json_object_new_string(args->pool));
	add_number(object, "status", (uint64_t)status);
	json_object_object_add(object, "skipped", json_object_new_boolean(skipped));
	json_object_object_add(object, "error",
		err ? json_object_new_string(strerror(-err)) : json_object_new_null());
	json_object_object_add(object, "was_clean", json_object_new_boolean(r->was_clean));
	add_number(object, "inodes", r->inodes);
	add_number(object, "directories", r->directories);
	add_number(object, "files", r->files);
	add_number(object, "extents", r->extents);
	add_number(object, "nodes", r->nodes);
	add_number(object, "blocks_used", r->blocks_used);
	add_number(object, "blocks_free", r->blocks_free);
	add_number(object, "replayed", r->replayed);
	add_number(object, "found", r->problems);
	add_number(object, "repaired", r->repaired);
	add_number(object, "unrepaired", r->unrepaired);
	json_object_object_add(object, "problems", json_object_get(args->problems));
	puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY));
	json_object_put(object);
}

static void print_summary(const struct args *args, const struct umbra_check_report *r)
{
	if (args->nprinted > PRINT_MAX && !args->verbose)
		printf("... and %llu more (-v lists them all)\n",
			(unsigned long long)(args->nprinted - PRINT_MAX));
	if (r->replayed && (args->verbose || r->problems))
		printf("%s: %llu transactions %s\n", args->pool, (unsigned long long)r->replayed,
			args->no ? "would be replayed from the journal"
				 : "replayed from the journal");
	printf("%s: %s: %llu inodes (%llu directories, %llu files), %llu extents, %llu blocks "
	       "used, %llu free\n",
		args->pool,
		r->unrepaired ? "DAMAGED"
		: r->repaired ? "repaired"
			      : "clean",
		(unsigned long long)r->inodes, (unsigned long long)r->directories,
		(unsigned long long)r->files, (unsigned long long)r->extents,
		(unsigned long long)r->blocks_used, (unsigned long long)r->blocks_free);
	if (r->problems)
		printf("%s: %llu problems found, %llu repaired, %llu left\n", args->pool,
			(unsigned long long)r->problems, (unsigned long long)r->repaired,
			(unsigned long long)r->unrepaired);
}

/* ---- what to do --------------------------------------------------------------------------------------- */

static int status_of(const struct umbra_check_report *r)
{
	return (r->repaired ? FSCK_REPAIRED : 0) | (r->unrepaired ? FSCK_LEFT : 0);
}

static int status_of_error(int err)
{
	/* A pool too damaged to be opened counts as damage; everything else is an operational
	 * error. */
	return err == -EUCLEAN || err == -ENODATA ? FSCK_LEFT : FSCK_ERROR;
}

/* -p skips a pool that was unmounted cleanly and has recorded no error. */
static bool may_skip(const struct args *args)
{
	static struct umbra_info info;

	return args->preen && !args->force && !umbra_info_pool(args->pool, &info) && info.clean &&
	       !info.errors;
}

static int run(struct args *args, enum umbra_check_mode mode, struct umbra_check_report *report)
{
	memset(report, 0, sizeof(*report));
	args->nprinted = 0;
	return umbra_check(args->pool, mode, problem, args, report);
}

/* Asks once, if there is a terminal. */
static bool confirmed(const struct umbra_check_report *report)
{
	char line[16];

	printf("Repair %llu problems? [y/N] ", (unsigned long long)report->unrepaired);
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

static int check(struct args *args, bool may_ask, struct umbra_check_report *report)
{
	enum umbra_check_mode mode = args->yes     ? UMBRA_CHECK_REPAIR
				     : args->preen ? UMBRA_CHECK_PREEN
						   : UMBRA_CHECK_ONLY;
	int ret;

	if (mode == UMBRA_CHECK_ONLY && !args->no && !may_ask && !args->json)
		fprintf(stderr, "%s: no terminal to ask on: checking only (as -n)\n", program);
	ret = run(args, mode, report);
	if (ret || mode != UMBRA_CHECK_ONLY || !may_ask || !report->unrepaired)
		return ret;
	if (!confirmed(report))
		return ret;
	args->yes = true;
	return run(args, UMBRA_CHECK_REPAIR, report);
}

int main(int argc, char **argv)
{
	struct umbra_check_report report = {0};
	struct args args = {0};
	bool may_ask, skipped;
	int ret = 0, status = 0;

	if (argc && strrchr(argv[0], '/'))
		program = strrchr(argv[0], '/') + 1;
	else if (argc)
		program = argv[0];
	if (parse(argc, argv, &args))
		return FSCK_USAGE;
	umbra_log_to(log_line, &args);
	args.problems = json_object_new_array();
	/* util-linux uses the alias fsck.fuse.umbrafs: nobody is there to answer. */
	may_ask = !args.no && !args.json && !strstr(program, ".fuse.") && isatty(STDIN_FILENO) &&
		  isatty(STDOUT_FILENO);
	skipped = may_skip(&args);
	if (skipped)
		report.was_clean = true;
	else
		ret = check(&args, may_ask, &report);
	status = ret ? status_of_error(ret) : status_of(&report);
	if (ret)
		fprintf(stderr, "%s: %s: cannot be checked: %s\n", program, args.pool,
			ret == -EBUSY ? "in use (mounted?)" : strerror(-ret));
	if (args.json)
		print_json(&args, &report, status, ret, skipped);
	else if (skipped)
		printf("%s: clean\n", args.pool);
	else if (!ret)
		print_summary(&args, &report);
	json_object_put(args.problems);
	return fflush(stdout) ? status | FSCK_ERROR : status;
}
