/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of the model test. */
#ifndef TESTS_MOUNTED_MODEL_H
#define TESTS_MOUNTED_MODEL_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define M_HANDLES 12
#define M_HISTORY 40
#define M_LINE 400
#define M_PATH 2048
#define M_NAMES 14

/* [0] is the mount, [1] the oracle, wherever there are two. */
struct model {
	const char *path[2];
	int root[2];
	unsigned long seed, op, failures, entries;
	uint64_t random;
	bool failed; /* the operation under way, on both sides */
	char names[M_NAMES][256];
	struct {
		bool open;
		int a, b;
	} handle[M_HANDLES];
	char history[M_HISTORY][M_LINE];
	unsigned nhistory;
};
extern struct model m;

unsigned long m_random(void);
unsigned m_pick(unsigned n); /* 0 .. n-1 */
void m_fill_names(void);
/* Notes what is about to be done, for the report; then its outcome, which must be the same. */
__attribute__((format(printf, 1, 2))) void m_note(const char *fmt, ...);
void m_result(long a, int ea, long b, int eb);
__attribute__((noreturn, format(printf, 1, 2))) void m_differ(const char *fmt, ...);

/* One random operation (model_ops.c). */
void m_step(void);
/* Compares the trees (model_compare.c). */
void m_compare(void);

#endif
