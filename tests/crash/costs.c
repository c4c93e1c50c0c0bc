/* SPDX-License-Identifier: BSD-3-Clause */
/* The cost of each operation in fences and flushed lines, counted by the recorder: a table for the
 * design. */
#include "crash.h"

struct cost {
	unsigned fences, lines, bytes;
};

static unsigned lines_of(const struct event *event)
{
	return (unsigned)((event->off + event->len - 1) / LINE - event->off / LINE + 1);
}

/* Counts the operation's own calls, and separately the reaper's, which come last. */
static void count(const struct worker *w, struct cost *own, struct cost *reap)
{
	struct cost *cost = NULL;
	size_t i;

	for (i = 0; i < w->trace.n; i++) {
		const struct event *event = &w->trace.event[i];

		if (event->kind == EV_BEGIN)
			cost = w->called[event->off].call.kind == CALL_CLOSE ? NULL
			       : event->off + 2 < w->ncalled                 ? own
									     : reap;
		else if (event->kind == EV_END)
			cost = NULL;
		if (!cost)
			continue;
		if (event->kind == EV_DRAIN)
			cost->fences++;
		/* A non-temporal store is flushed by itself. */
		if (event->kind == EV_FLUSH || event->kind == EV_NT)
			cost->lines += lines_of(event);
		if (event->kind == EV_CACHED || event->kind == EV_NT)
			cost->bytes += event->len;
	}
}

void costs_print(struct worker *w)
{
	unsigned i;

	printf("| operation | fences | lines | bytes | reaper: fences | lines |\n");
	printf("|---|---|---|---|---|---|\n");
	for (i = 0; i < crash_nops; i++) {
		struct cost own = {0}, reap = {0};
		int op = (int)i;

		workload_record(w, &op, 1, 0);
		count(w, &own, &reap);
		printf("| %s | %u | %u | %u | %u | %u |\n", crash_ops[i].name, own.fences,
			own.lines, own.bytes, reap.fences, reap.lines);
	}
}
