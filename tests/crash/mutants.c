/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is the machine any good? The library has bugs put in on purpose (pool/seeded.h): a fence, a flush or a
 * record left out, an order changed. Each must be found.
 */
#include <fcntl.h>
#include <unistd.h>

#include "crash.h"
#include "pool/seeded.h"

#ifdef UM_SEEDED_BUGS
unsigned um_seeded_bug_number;

/* By their numbers, from 1; on a pool where it can show. */
static const struct mutant {
	const char *what, *config;
} mutants[] = {
	{"commit: no fence between new blocks or data and the record", "standard"},
	{"commit: no fence between the record and the changes", "standard"},
	{"commit: no fence between the changes and the journal's tail", "standard"},
	{"commit: changes are stored before the record", "standard"},
	{"commit: the tail passes the record before the changes are stored", "standard"},
	{"commit: the record lacks its last entry", "standard"},
	{"back end: data and records are not flushed", "standard"},
	{"back end: a single word is not flushed", "standard"},
	{"back end: changes to metadata are not flushed", "standard"},
	{"back end: the tail is moved by two stores", "standard"},
	{"recovery: checksums of records are not looked at", "standard"},
	{"recovery: file data is not replayed", "standard"},
	{"recovery: no fence before the tail moves", "standard"},
	{"recovery: mirrors are not replayed", "standard"},
	{"recovery: what a dead process left is taken for durable", "file"},
	{"unlink: no orphan record", "standard"},
	{"space: freed blocks are used again before that is durable", "file_full"},
	{"write in place to a block that a power cut shows to another file", "file"},
	{"group commit: no barrier before the COMMIT record", "file"},
	{"group commit: no barrier behind the COMMIT record", "file"},
	{"checkpoint: metadata goes home before its records are durable", "file"},
	{"checkpoint: no barrier before the tail moves", "file"},
	{"growing a file leaves what a lost write put behind its end", "file"},
};
#define NMUTANTS (sizeof(mutants) / sizeof(mutants[0]))

/* What is found is not what the user wants to read about. */
static void quiet(int saved[2])
{
	int null = open("/dev/null", O_WRONLY), i;

	fflush(stdout);
	for (i = 0; i < 2; i++) {
		saved[i] = dup(i + 1);
		if (null < 0 || saved[i] < 0 || dup2(null, i + 1) < 0)
			die("cannot redirect output");
	}
	close(null);
}

static void loud(const int saved[2])
{
	int i;

	fflush(stdout);
	for (i = 0; i < 2; i++) {
		dup2(saved[i], i + 1);
		close(saved[i]);
	}
}

int mutants_run(const struct options *opt, uint64_t (*run)(const struct options *opt))
{
	struct options one = *opt;
	int missed = 0, saved[2];
	unsigned i;

	one.max_failures = 1;
	for (i = 0; i < NMUTANTS; i++) {
		uint64_t found;

		if (opt->mutant && opt->mutant != i + 1)
			continue;
		one.config = mutants[i].config;
		um_seeded_bug_number = i + 1;
		if (!opt->verbose)
			quiet(saved);
		found = run(&one);
		if (!opt->verbose)
			loud(saved);
		printf("%s %2u %s\n", found ? "found " : "MISSED", i + 1, mutants[i].what);
		fflush(stdout);
		missed += !found;
	}
	return missed;
}

#else

int mutants_run(const struct options *opt, uint64_t (*run)(const struct options *opt))
{
	(void)opt;
	(void)run;
	return -1;
}

#endif
