// SPDX-License-Identifier: BSD-3-Clause
/* umbractl: the table of subcommands. */
#include "umbractl.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

static const struct um_cmd commands[] = {
	{"info", um_cmd_info, "[-b] [--json] POOL|MOUNT", "identity and geometry of a pool"},
	{"stat", um_cmd_stat, "[-b] [--json] MOUNT", "live counters of a mount"},
	{"clone", um_cmd_clone, "[-q] [-r] SRC DST", "clone a file, or with -r a tree"},
	{"dedupe", um_cmd_dedupe, "[-b] [--json] FILE OTHER...",
		"share what is equal at equal offsets"},
	{"map", um_cmd_map, "[-b] [--shadows] [--json] FILE",
		"extents of a file and how they are shared"},
	{"owners", um_cmd_owners, "[--json] MOUNT LBA", "all files that refer to a block"},
	{"du", um_cmd_du, "[-b] [-c] [-r] [--json] PATH...", "referenced, exclusive, shared bytes"},
	{"health", um_cmd_health, "[--json] MOUNT|POOL", "memory failures and the files affected"},
	{"scrub", um_cmd_scrub, "start|status|pause|cancel [-w] [-r RATE] [--json] MOUNT",
		"read everything in use, to find memory failures"},
	{"grow", um_cmd_grow, "[--sparse] [--json] POOL|MOUNT SIZE|max", "make a pool larger"},
	{"trim", um_cmd_trim, "[-b] [--json] MOUNT", "return free space to the host"},
	{"exec", um_cmd_exec, "[-v] [--as-xfs] [--relay] [--] COMMAND [ARG...]",
		"run a command with working FICLONE, FIDEDUPERANGE and FIEMAP"},
};
#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

const struct um_cmd *um_current;

static void print_help(FILE *out)
{
	size_t i;

	fputs("usage: umbractl COMMAND [ARGUMENT...]\n", out);
	for (i = 0; i < NCOMMANDS; i++)
		fprintf(out, "  %-7s %-32s %s\n", commands[i].name, commands[i].args,
			commands[i].help);
	fputs("See umbractl(8).\n", out);
}

int main(int argc, char **argv)
{
	size_t i;

	setlocale(LC_CTYPE, "");
	if (argc < 2) {
		print_help(stderr);
		return UM_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		print_help(stdout);
		return um_finish_output(UM_EXIT_OK);
	}
	if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version")) {
		puts("umbractl " UM_VERSION);
		return um_finish_output(UM_EXIT_OK);
	}
	for (i = 0; i < NCOMMANDS; i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		um_current = &commands[i];
		return um_current->run(argc - 1, argv + 1);
	}
	um_err(0, "no command \"%s\"", argv[1]);
	print_help(stderr);
	return UM_EXIT_USAGE;
}
