/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the coherence tests of shared views: random numbers, failing, cloning. */
#ifndef TESTS_MOUNTED_VIEWS_H
#define TESTS_MOUNTED_VIEWS_H

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/clone.h"

static char dir[256];
static unsigned me;        /* which process */
static unsigned long nops; /* operations it has done */
static const char *op = "start";
static uint64_t rnd_state;
static atomic_bool
	*failed; /* of all processes: only the first one says what it saw; NULL: each does */

static inline uint32_t rnd(uint32_t n)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return (uint32_t)((rnd_state >> 11) % n);
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (!failed || !atomic_exchange(failed, true)) {
		printf("FAIL: process %u, operation %lu (%s): ", me, nops, op);
		vprintf(fmt, args);
		printf("\n");
		fflush(stdout);
	}
	_exit(1);
}

#define CHECK(call)                                                                                \
	do {                                                                                       \
		if (!(call))                                                                       \
			fail("%s: %s", #call, strerror(errno));                                    \
	} while (0)

/* What FICLONERANGE does for its callers: the source's mappings count. len 0: to the end. */
static inline void clone_into(int from, int to, uint64_t off, uint64_t len)
{
	uint64_t done;
	int err;

	CHECK(!fdatasync(from));
	err = um_ioc_clone(from, off, len, to, off, &done);
	errno = -err;
	CHECK(!err);
}

#endif
