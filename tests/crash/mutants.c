/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests the crash tests: the library has seeded bugs (pool/seeded.h), such as a fence, a flush or a
 * record left out, or an order changed. Each must be found. */
#include <fcntl.h>
#include <unistd.h>

#include "crash.h"
#include "pool/seeded.h"

#ifdef UM_SEEDED_BUGS
unsigned um_seeded_bug_number;

/* By number, from 1, on a pool where it can be found. `first`: the workload that finds it
 * soonest. */
static const struct mutant {
	const char *what, *config, *first;
} mutants[] = {
	{"commit: no fence between new blocks or data and the record", "standard", NULL},
	{"commit: no fence between the record and the changes", "standard", NULL},
	{"commit: no fence between the changes and the journal's tail", "standard", NULL},
	{"commit: changes are stored before the record", "standard", NULL},
	{"commit: the tail passes the record before the changes are stored", "standard", NULL},
	{"commit: the record lacks its last entry", "standard", NULL},
	{"back end: data and records are not flushed", "standard", NULL},
	{"back end: a single word is not flushed", "standard", NULL},
	{"back end: changes to metadata are not flushed", "standard", NULL},
	{"recovery: checksums of records are not looked at", "standard", NULL},
	{"recovery: file data is not replayed", "standard", NULL},
	{"recovery: no fence before the tail moves", "standard", NULL},
	{"recovery: mirrors are not replayed", "standard", NULL},
	{"recovery: what a dead process left is taken for durable", "file", NULL},
	{"unlink: no orphan record", "standard", NULL},
	{"space: freed blocks are used again before that is durable", "file_full", "reuse"},
	{"write in place to a block that a power cut shows to another file", "file",
		"unshare_write"},
	{"group commit: no barrier before a COMMIT record without a list", "file", "sync_large"},
	{"group commit: no barrier behind the COMMIT record", "file", NULL},
	{"checkpoint: metadata goes home before its records are durable", "file", NULL},
	{"checkpoint: no barrier before the tail moves", "file", NULL},
	{"growing a file leaves what a lost write put behind its end", "file", "append_own"},
	{"data is overwritten in place although it has a checksum", "file_parity", "write_own"},
	{"commit: checksums of data are not stored", "parity", NULL},
	{"a store that goes past the pool's operations", "standard", NULL},
	{"the same on a plain file", "file", NULL},
	{"commit: parity does not follow what changes in a block", "parity", NULL},
	{"commit: parity does not follow blocks that come and go", "parity", NULL},
	{"recovery: parity is not summed up anew", "parity", NULL},
	{"recovery: a COMMIT counts though data that it lists is not there", "file", "sync_append"},
	{"write in place to data that the last COMMIT lists", "file", "sync_overwrite"},
	{"group commit: data is missing in the COMMIT's list", "file", "sync_append"},
};
#define NMUTANTS (sizeof(mutants) / sizeof(mutants[0]))

/* The user need not read the failures that are found. */
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
		uint64_t found = 0;

		if (opt->mutant && opt->mutant != i + 1)
			continue;
		one.config = mutants[i].config;
		um_seeded_bug_number = i + 1;
		if (!opt->verbose)
			quiet(saved);
		one.only = mutants[i].first;
		if (one.only)
			found = run(&one);
		one.only = NULL;
		if (!found)
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
