/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads for single requests that have to wait. */
#include "fuse/late.h"

#include <stdlib.h>
#include <time.h>

#include "fuse/remount.h"
#include "fuse/seam.h"

#define LATE_MAX 256u

struct late {
	struct um_mount *m;
	struct um_facts facts;
	void (*run)(void *arg);
	void *arg;
};

static void *late_main(void *arg)
{
	struct late late = *(struct late *)arg;
	bool entered;

	free(arg);
	um_facts = late.facts;
	entered = um_gate_enter(late.m, &late.m->gate);
	late.run(late.arg);
	um_gate_leave(&late.m->gate, entered);
	atomic_fetch_sub(&late.m->late, 1);
	return NULL;
}

void um_late(struct um_mount *m, void (*run)(void *arg), void *arg)
{
	struct late *late = malloc(sizeof(*late));
	pthread_t thread;

	if (late && atomic_fetch_add(&m->late, 1) < LATE_MAX) {
		*late = (struct late){m, um_facts, run, arg};
		if (pthread_create(&thread, NULL, late_main, late) == 0) {
			pthread_detach(thread);
			return;
		}
	}
	if (late)
		atomic_fetch_sub(&m->late, 1);
	free(late);
	run(arg);
}

void um_late_wait(struct um_mount *m)
{
	static const struct timespec step = {.tv_nsec = 1000000};

	while (atomic_load(&m->late) || atomic_load(&m->fetching))
		nanosleep(&step, NULL);
}
