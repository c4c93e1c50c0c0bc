/* SPDX-License-Identifier: BSD-3-Clause */
/* mkfs.umbrafs: creates a pool. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "umbra/umbra.h"

static const char *program = "mkfs.umbrafs";

struct args {
	struct umbra_mkfs_options opt;
	const char *pool;
	uint8_t uuid[16];
	bool quiet;
};

static void log_line(void *arg, enum umbra_log_level level, const char *line)
{
	const struct args *args = arg;

	if (level == UMBRA_LOG_DEBUG || (level == UMBRA_LOG_INFO && args->quiet))
		return;
	fprintf(stderr, "%s: %s\n", program, line);
}

static void usage(FILE *to)
{
	fprintf(to,
		"usage: %s [-s SIZE] [-L LABEL] [-U UUID] [-f] [-q] [-n] [-V] POOL\n"
		"  -s, --size=SIZE      size of the pool: bytes, or with K, M, G, T, P\n"
		"  -L, --label=LABEL    label, at most 64 bytes\n"
		"  -U, --uuid=UUID      UUID, instead of a random one\n"
		"  -f, --force          overwrite what the target holds\n"
		"      --forget-bad     with -f: discard the old pool's list of bad blocks\n"
		"  -q, --quiet          print only errors\n"
		"  -n, --dry-run        only check, and show the result\n"
		"      --metadata=WHAT  dup (two copies, the default) or single\n"
		"      --data-csum      keep a checksum of every block of file data\n"
		"      --parity         keep parity of every 8 blocks in use\n"
		"      --sparse         plain file: allocate space when it is needed\n"
		"  -V, --version\n"
		"POOL is a plain file (created if absent), a block device, a DAX device or a "
		"file on a DAX filesystem.\n",
		program);
}

/* Digits and at most one unit suffix. */
static int parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGTP";
	const char *unit;
	char *end;
	unsigned shift = 0;
	unsigned long long n;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end) {
		unit = strchr(units, *end & ~0x20);
		if (!unit || !*unit)
			return -EINVAL;
		shift = 10 * ((unsigned)(unit - units) + 1);
		end++;
		if (*end == 'i' && (end[1] == 'B' || !end[1]))
			end += end[1] ? 2 : 1;
		else if (*end == 'B')
			end++;
	}
	if (*end)
		return -EINVAL;
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	*out = n << shift;
	return n ? 0 : -EINVAL;
}

static int take_metadata(struct args *args, const char *value)
{
	if (!strcmp(value, "dup"))
		args->opt.copies = 2;
	else if (!strcmp(value, "single"))
		args->opt.copies = 1;
	else
		return -EINVAL;
	return 0;
}

static int bad_value(const char *option, const char *value, const char *want)
{
	fprintf(stderr, "%s: %s %s: %s\n", program, option, value, want);
	return 1;
}

/* 0: continue, 1: usage error, 2: done. */
static int take_option(struct args *args, int c)
{
	switch (c) {
	case 's':
		if (parse_size(optarg, &args->opt.size))
			return bad_value("-s", optarg, "not a size (digits, then K, M, G or T)");
		return 0;
	case 'L':
		if (strlen(optarg) > 64)
			return bad_value("-L", optarg, "longer than 64 bytes");
		args->opt.label = optarg;
		return 0;
	case 'U':
		if (uuid_parse(optarg, args->uuid) || uuid_is_null(args->uuid))
			return bad_value("-U", optarg, "not a UUID");
		args->opt.uuid = args->uuid;
		return 0;
	case 'm':
		if (take_metadata(args, optarg))
			return bad_value("--metadata", optarg, "neither dup nor single");
		return 0;
	case 'f':
		args->opt.force = true;
		return 0;
	case 'q':
		args->quiet = true;
		return 0;
	case 'n':
		args->opt.dry_run = true;
		return 0;
	case 'c':
		args->opt.data_csum = true;
		return 0;
	case 'p':
		args->opt.parity = true;
		return 0;
	case 'B':
		args->opt.forget_bad = true;
		return 0;
	case 'S':
		args->opt.sparse = true;
		return 0;
	case 'V':
		printf("mkfs.umbrafs %s\n", UM_VERSION);
		return 2;
	case 'h':
		usage(stdout);
		return 2;
	default:
		usage(stderr);
		return 1;
	}
}

static int parse(int argc, char **argv, struct args *args)
{
	static const struct option options[] = {{"size", required_argument, NULL, 's'},
		{"label", required_argument, NULL, 'L'}, {"uuid", required_argument, NULL, 'U'},
		{"force", no_argument, NULL, 'f'}, {"forget-bad", no_argument, NULL, 'B'},
		{"quiet", no_argument, NULL, 'q'}, {"dry-run", no_argument, NULL, 'n'},
		{"metadata", required_argument, NULL, 'm'}, {"data-csum", no_argument, NULL, 'c'},
		{"parity", no_argument, NULL, 'p'}, {"sparse", no_argument, NULL, 'S'},
		{"version", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	int c, ret;

	while ((c = getopt_long(argc, argv, "s:L:U:fqnVh", options, NULL)) != -1) {
		ret = take_option(args, c);
		if (ret)
			return ret;
	}
	if (argc - optind != 1) {
		fprintf(stderr, "%s: %s\n", program,
			argc == optind ? "which pool?" : "one pool at a time");
		usage(stderr);
		return 1;
	}
	args->pool = argv[optind];
	return 0;
}

/* A progress line, only on a terminal, and only if it takes long. */
static void progress(void *arg, uint64_t done, uint64_t total)
{
	static struct timespec start;
	static time_t shown;
	static bool open_line;
	struct timespec now;

	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!start.tv_sec)
		start = now;
	if (now.tv_sec > start.tv_sec + 1 && now.tv_sec != shown && done < total) {
		shown = now.tv_sec;
		open_line = true;
		fprintf(stderr, "\r%s: %3llu %%", program,
			(unsigned long long)(done * 100 / (total ? total : 1)));
		fflush(stderr);
	}
	if (done >= total && open_line) {
		fprintf(stderr, "\r%s: 100 %%\n", program);
		open_line = false;
	}
}

static void print_size(char out[32], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double n = (double)bytes;
	unsigned i = 0;

	while (n >= 1024 && i < 5) {
		n /= 1024;
		i++;
	}
	snprintf(out, 32, n == (double)(uint64_t)n ? "%.0f %s" : "%.2f %s", n, units[i]);
}

static void print_geometry(const struct umbra_info *info)
{
	char size[32], journal[32];

	print_size(size, info->size);
	print_size(journal, info->journal_bytes);
	printf("pool     = %s (%s)\n", info->path, info->kind);
	printf("label    = \"%s\"", info->label);
	if (info->uuid[0])
		printf("  uuid = %s", info->uuid);
	printf("\nsize     = %llu bytes (%s), %llu blocks of 4096", (unsigned long long)info->size,
		size, (unsigned long long)(info->size / 4096));
	if (info->free_blocks)
		printf(", %llu free", (unsigned long long)info->free_blocks);
	putchar('\n');
	printf("metadata = %s  journal = %s  format = %u", info->copies == 2 ? "dup" : "single",
		journal, info->version);
	printf("%s%s", info->data_csum ? "  data checksums" : "", info->parity ? "  parity" : "");
	if (info->retired)
		printf("  bad blocks = %llu", (unsigned long long)info->retired);
	putchar('\n');
}

static void say_rounding(const struct args *args, const struct umbra_info *info)
{
	if (args->opt.size && args->opt.size != info->size)
		printf("%llu bytes rounded down to %llu: a pool is made of whole chunks of 2 MiB, "
		       "at least 4 in its last group\n",
			(unsigned long long)args->opt.size, (unsigned long long)info->size);
}

int main(int argc, char **argv)
{
	struct args args = {.opt = {.root_uid = getuid(), .root_gid = getgid()}};
	static struct umbra_info info;
	int ret;

	if (argc && strrchr(argv[0], '/'))
		program = strrchr(argv[0], '/') + 1;
	else if (argc)
		program = argv[0];
	ret = parse(argc, argv, &args);
	if (ret)
		return ret == 2 ? 0 : 1;
	umbra_log_to(log_line, &args);
	if (!args.quiet && isatty(STDERR_FILENO))
		args.opt.progress = progress;
	ret = umbra_mkfs(args.pool, &args.opt, &info);
	if (ret) {
		fprintf(stderr, "%s: %s: no pool was created: %s\n", program, args.pool,
			ret == -EEXIST ? "it is not empty (use -f)" : strerror(-ret));
		return 1;
	}
	if (args.quiet)
		return 0;
	say_rounding(&args, &info);
	print_geometry(&info);
	if (args.opt.dry_run)
		printf("nothing was written (-n)\n");
	return fflush(stdout) ? 1 : 0;
}
