/* SPDX-License-Identifier: BSD-3-Clause */
/* The fuzzers' main program: a corpus, random mutations, and saving inputs when a target fails. */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define HANG_SEC 60
#define NAME_MAX_LEN 512

struct entry {
	uint8_t *bytes;
	size_t len;
};

static struct {
	struct entry *entry;
	size_t n, cap;
	uint64_t rng;
	struct entry *since; /* inputs since the last reset */
	unsigned nsince;
	uint64_t runs, kept;
	const char *save, *merge;
	bool dying;
} fuzz;

static const char usage_text[] =
	"usage: fuzz-TARGET [OPTION...] [FILE...]\n"
	"Runs the files, if there are any; else changed inputs out of a corpus, until the time is "
	"up.\n"
	"\n"
	"  --corpus DIR     inputs to begin with; may repeat\n"
	"  --save DIR       inputs that reach something new are written there\n"
	"  --merge FILE     write those of the corpus that reach more than others before them, "
	"shortest first,\n"
	"                   into one file, and stop\n"
	"  --seconds N      stop then (default 10; 0: never)\n"
	"  --runs N         stop after so many inputs\n"
	"  --seed N         of what is chosen by chance (default 1)\n"
	"\n"
	"When a target fails, the inputs since it was last set back are in fuzz-TARGET.failed; "
	"that file is run\n"
	"like any other.\n";

/* ---- which code ran ------------------------------------------------------------------------------------ */

#define PLACES (1u << 18)
static uint8_t seen[PLACES];
static size_t nseen;

/* Called by each block of a library built with -fsanitize-coverage=trace-pc. */
void __sanitizer_cov_trace_pc(void);
__attribute__((no_sanitize_address, no_sanitize_undefined)) void __sanitizer_cov_trace_pc(void)
{
	uintptr_t pc = (uintptr_t)__builtin_return_address(0);
	size_t i = (pc ^ pc >> 18) & (PLACES - 1);

	if (seen[i])
		return;
	seen[i] = 1;
	nseen++;
}

/* ---- reading an input ---------------------------------------------------------------------------------- */

void take_bytes(struct input *in, void *to, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	memset(to, 0, len);
	if (n)
		memcpy(to, in->at, n);
	in->at += n;
	in->left -= n;
}

uint8_t take_8(struct input *in)
{
	uint8_t value;

	take_bytes(in, &value, sizeof(value));
	return value;
}

uint16_t take_16(struct input *in)
{
	uint16_t value;

	take_bytes(in, &value, sizeof(value));
	return value;
}

uint32_t take_32(struct input *in)
{
	uint32_t value;

	take_bytes(in, &value, sizeof(value));
	return value;
}

uint64_t take_64(struct input *in)
{
	uint64_t value;

	take_bytes(in, &value, sizeof(value));
	return value;
}

/* ---- failures ---------------------------------------------------------------------------------------------- */

/* A file with several inputs has them one after the other, each after its length. */
#define SEVERAL "UMBFUZZ"
static bool write_several(const char *name, const struct entry *list, size_t n)
{
	FILE *out = fopen(name, "w");
	uint32_t len;
	size_t i;

	if (!out)
		return false;
	fwrite(SEVERAL, sizeof(SEVERAL), 1, out);
	for (i = 0; i < n; i++) {
		len = (uint32_t)list[i].len;
		fwrite(&len, sizeof(len), 1, out);
		fwrite(list[i].bytes, 1, len, out);
	}
	return !fclose(out);
}

static void dump(void)
{
	char name[NAME_MAX_LEN];

	if (fuzz.dying)
		return;
	fuzz.dying = true;
	snprintf(name, sizeof(name), "fuzz-%s.failed", fuzz_target.name);
	if (!write_several(name, fuzz.since, fuzz.nsince))
		return;
	fprintf(stderr, "after %llu inputs; the last %u are in %s\n", (unsigned long long)fuzz.runs,
		fuzz.nsince, name);
}

void fuzz_fail(const char *fmt, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "FAIL: fuzz-%s: ", fuzz_target.name);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

static void on_signal(int sig)
{
	if (sig == SIGALRM)
		fprintf(stderr, "FAIL: fuzz-%s: an input takes more than %u s\n", fuzz_target.name,
			HANG_SEC);
	dump();
	signal(SIGABRT, SIG_DFL);
	abort();
}

void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void watch_out(void)
{
	signal(SIGABRT, on_signal);
	signal(SIGALRM, on_signal);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(dump);
	else
		signal(SIGSEGV, on_signal);
}

/* ---- running ------------------------------------------------------------------------------------------------- */

static void reset(void)
{
	alarm(HANG_SEC);
	fuzz_target.reset();
	fuzz.nsince = 0;
}

static void run(const uint8_t *bytes, size_t len)
{
	struct entry *e = &fuzz.since[fuzz.nsince++];

	memcpy(e->bytes, bytes, len);
	e->len = len;
	alarm(HANG_SEC);
	fuzz_target.one(bytes, len);
	fuzz.runs++;
	if (fuzz.nsince == fuzz_target.inputs_per_reset)
		reset();
}

static void add(const uint8_t *bytes, size_t len)
{
	struct entry *e;

	grow(&fuzz.entry, fuzz.n, &fuzz.cap, sizeof(*fuzz.entry));
	e = &fuzz.entry[fuzz.n++];
	e->bytes = xalloc(len);
	e->len = len;
	memcpy(e->bytes, bytes, len);
}

static void keep(const uint8_t *bytes, size_t len)
{
	char path[NAME_MAX_LEN];
	FILE *out;

	add(bytes, len);
	fuzz.kept++;
	if (!fuzz.save)
		return;
	snprintf(path, sizeof(path), "%s/%s-%06llu-%zu", fuzz.save, fuzz_target.name,
		(unsigned long long)fuzz.runs, nseen);
	out = fopen(path, "w");
	if (!out || (len && fwrite(bytes, len, 1, out) != 1) || fclose(out))
		die("cannot write %s", path);
}

/* ---- changing -------------------------------------------------------------------------------------------------- */

static uint64_t odd_number(void)
{
	static const uint64_t odd[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 511,
		512, 4095, 4096, 4097, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
		0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX, UINT64_MAX - 1};

	return odd[rnd_below(&fuzz.rng, sizeof(odd) / sizeof(odd[0]))];
}

/* Makes room at `at`; the end may fall off. */
static size_t insert(uint8_t *buf, size_t len, size_t at, size_t n)
{
	size_t max = fuzz_target.max_len;

	if (at + n > max)
		n = max - at;
	if (len + n > max)
		len = max - n;
	if (len > at)
		memmove(buf + at + n, buf + at, len - at);
	return (len > at ? len : at) + n;
}

static size_t insert_some(uint8_t *buf, size_t len, size_t at)
{
	const struct entry *other = &fuzz.entry[rnd_below(&fuzz.rng, fuzz.n)];
	size_t n = 1 + rnd_below(&fuzz.rng, 16), from, i;

	if (other->len && rnd_below(&fuzz.rng, 2)) {
		from = rnd_below(&fuzz.rng, other->len);
		if (n > other->len - from)
			n = other->len - from;
		if (n > fuzz_target.max_len - at)
			n = fuzz_target.max_len - at;
		len = insert(buf, len, at, n);
		memcpy(buf + at, other->bytes + from, n);
		return len;
	}
	if (n > fuzz_target.max_len - at)
		n = fuzz_target.max_len - at;
	len = insert(buf, len, at, n);
	for (i = 0; i < n; i++)
		buf[at + i] = (uint8_t)rnd(&fuzz.rng);
	return len;
}

static size_t change(uint8_t *buf, size_t len)
{
	size_t at = len ? rnd_below(&fuzz.rng, len) : 0, n;
	uint64_t value = rnd_below(&fuzz.rng, 2) ? odd_number() : rnd(&fuzz.rng);

	switch (len ? rnd_below(&fuzz.rng, 6) : 5) {
	case 0:
		buf[at] ^= (uint8_t)(1u << rnd_below(&fuzz.rng, 8));
		return len;
	case 1:
		buf[at] = (uint8_t)rnd(&fuzz.rng);
		return len;
	case 2:
		n = 1ull << rnd_below(&fuzz.rng, 4);
		memcpy(buf + at, &value, n < len - at ? n : len - at);
		return len;
	case 3:
		n = 1 + rnd_below(&fuzz.rng, 16);
		if (n > len - at)
			n = len - at;
		memmove(buf + at, buf + at + n, len - at - n);
		return len - n;
	case 4:
		n = 1 + rnd_below(&fuzz.rng, 16);
		value = rnd_below(&fuzz.rng, len);
		if (n > len - at)
			n = len - at;
		if (n > len - value)
			n = len - value;
		memmove(buf + at, buf + value, n);
		return len;
	default:
		return insert_some(buf, len, at);
	}
}

static size_t make(uint8_t *buf)
{
	const struct entry *e = &fuzz.entry[rnd_below(&fuzz.rng, fuzz.n)];
	unsigned n = 1u << rnd_below(&fuzz.rng, 5);
	size_t len = e->len, i;

	if (!rnd_below(&fuzz.rng, 8)) {
		len = rnd_below(&fuzz.rng, fuzz_target.max_len + 1);
		for (i = 0; i < len; i++)
			buf[i] = (uint8_t)rnd(&fuzz.rng);
		return len;
	}
	memcpy(buf, e->bytes, len);
	while (n--)
		len = change(buf, len);
	return len;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static uint8_t *read_file(const char *path, size_t *out_len)
{
	FILE *in = fopen(path, "r");
	struct stat st;
	uint8_t *bytes;

	if (!in || fstat(fileno(in), &st))
		die("cannot read %s: %s", path, strerror(errno));
	bytes = xalloc((size_t)st.st_size);
	if (st.st_size && fread(bytes, (size_t)st.st_size, 1, in) != 1)
		die("cannot read %s", path);
	fclose(in);
	*out_len = (size_t)st.st_size;
	return bytes;
}

static void each_input(const char *path, void (*fn)(const uint8_t *bytes, size_t len))
{
	size_t len, at = sizeof(SEVERAL);
	uint8_t *bytes = read_file(path, &len);
	uint32_t n;

	if (len < at || memcmp(bytes, SEVERAL, at)) {
		fn(bytes, len < fuzz_target.max_len ? len : fuzz_target.max_len);
		free(bytes);
		return;
	}
	while (len - at >= sizeof(n)) {
		memcpy(&n, bytes + at, sizeof(n));
		at += sizeof(n);
		if (n > len - at || n > fuzz_target.max_len)
			die("%s is not whole", path);
		fn(bytes + at, n);
		at += n;
	}
	free(bytes);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_corpus(const char *dir)
{
	struct dirent **list;
	char path[NAME_MAX_LEN];
	int n = scandir(dir, &list, NULL, by_name), i;

	if (n < 0)
		die("cannot read %s: %s", dir, strerror(errno));
	for (i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", dir, list[i]->d_name);
			each_input(path, add);
		}
		free(list[i]);
	}
	free(list);
}

/* ---- all ----------------------------------------------------------------------------------------------------------- */

struct limits {
	double seconds;
	uint64_t runs;
};

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void go(const struct limits *limits)
{
	double end = seconds() + limits->seconds;
	uint8_t *buf = xalloc(fuzz_target.max_len);
	size_t i, start = fuzz.n, before;

	for (i = 0; i < start; i++)
		run(fuzz.entry[i].bytes, fuzz.entry[i].len);
	if (!fuzz.n)
		add(buf, 0);
	while ((!limits->runs || fuzz.runs < limits->runs) &&
		(!limits->seconds || fuzz.runs % 16 || seconds() < end)) {
		size_t len = make(buf);

		before = nseen;
		run(buf, len);
		if (nseen > before)
			keep(buf, len);
	}
	free(buf);
}

static int by_length(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->len < y->len ? -1 : x->len > y->len;
}

static void merge(const char *path)
{
	size_t i, n = 0, before;

	qsort(fuzz.entry, fuzz.n, sizeof(*fuzz.entry), by_length);
	for (i = 0; i < fuzz.n; i++) {
		struct entry e = fuzz.entry[i];

		before = nseen;
		run(e.bytes, e.len);
		fuzz.entry[i] = fuzz.entry[n];
		fuzz.entry[n] = e;
		n += nseen > before;
	}
	if (!write_several(path, fuzz.entry, n))
		die("cannot write %s", path);
}

static void parse(int argc, char **argv, struct limits *limits)
{
	static const struct option options[] = {{"corpus", 1, NULL, 'c'}, {"save", 1, NULL, 's'},
		{"merge", 1, NULL, 'm'}, {"seconds", 1, NULL, 't'}, {"runs", 1, NULL, 'n'},
		{"seed", 1, NULL, 'S'}, {"help", 0, NULL, 'h'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			load_corpus(optarg);
			break;
		case 's':
			fuzz.save = optarg;
			break;
		case 'm':
			fuzz.merge = optarg;
			break;
		case 't':
			limits->seconds = (double)number_of(optarg);
			break;
		case 'n':
			limits->runs = number_of(optarg);
			break;
		case 'S':
			fuzz.rng = mix64(number_of(optarg));
			break;
		default:
			fputs(usage_text, c == 'h' ? stdout : stderr);
			exit(c == 'h' ? 0 : 2);
		}
	}
}

static void let_go(void)
{
	size_t i;

	for (i = 0; i < fuzz.n; i++)
		free(fuzz.entry[i].bytes);
	for (i = 0; i < fuzz_target.inputs_per_reset; i++)
		free(fuzz.since[i].bytes);
	free(fuzz.entry);
	free(fuzz.since);
}

int main(int argc, char **argv)
{
	struct limits limits = {.seconds = 10};
	double from = seconds(), took;
	unsigned i;

	fuzz.rng = mix64(1);
	fuzz.since = xalloc(fuzz_target.inputs_per_reset * sizeof(*fuzz.since));
	for (i = 0; i < fuzz_target.inputs_per_reset; i++)
		fuzz.since[i].bytes = xalloc(fuzz_target.max_len);
	parse(argc, argv, &limits);
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	fuzz_target.start();
	watch_out();
	if (optind < argc)
		while (optind < argc)
			each_input(argv[optind++], run);
	else if (fuzz.merge)
		merge(fuzz.merge);
	else
		go(&limits);
	reset();
	alarm(0);
	took = seconds() - from;
	printf("fuzz-%s: %llu inputs, %.0f a second; corpus %zu, %llu of it new; %zu places seen\n",
		fuzz_target.name, (unsigned long long)fuzz.runs,
		took > 0 ? (double)fuzz.runs / took : 0, fuzz.n, (unsigned long long)fuzz.kept,
		nseen);
	if (fuzz_target.report)
		fuzz_target.report();
	fuzz_target.end();
	let_go();
	return 0;
}
