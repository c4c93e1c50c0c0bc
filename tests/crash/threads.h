/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts while several threads use one pool in a plain file. Each thread has files of its own
 * and knows what they must contain once an fsync has returned. All writes and barriers are recorded;
 * of any moment, a state that a cut may leave has everything written before the last barrier that
 * had ended began, and anything of the rest.
 */
#ifndef TESTS_CRASH_THREADS_H
#define TESTS_CRASH_THREADS_H

#include <pthread.h>

#include "crash.h"

#define THREADS 4u
#define FILES 3u               /* of each thread */
#define FILE_MAX (64u << 10)   /* bytes */
#define GRAIN 512u             /* offsets and lengths are multiples */
#define TAG_BASE 0x554d000000u /* upper bytes of each word written, with the thread's number */

/* What a file is to be. */
struct model {
	bool exists, unknown; /* unknown: an operation failed halfway, it is not judged */
	uint32_t size;
	uint8_t data[FILE_MAX]; /* zeros behind the end */
};
/* What happened in a thread when `at` events were recorded: files in `touched` are about to
 * change, or an fsync returned. */
struct note {
	size_t at;
	unsigned touched;
	struct model *saved; /* after an fsync: all files */
};
struct user {
	struct umbra_fs *fs;
	unsigned number;
	uint64_t chance; /* state of rnd() */
	struct model file[FILES];
	uint64_t ino[FILES];
	uint32_t version; /* of the last write */
	struct note *note;
	size_t nnote, cap_note;
	char bad[200]; /* what was wrong while the pool was in use */
	pthread_t thread;
};
void user_file_name(char name[16], unsigned user, unsigned file);
/* Performs that many operations; stops early when something is wrong. */
void user_run(struct user *u, unsigned operations);

/* ---- the record ------------------------------------------------------------------------------- */

/* EV_NT: a write, or a hole; EV_FLUSH: a barrier begins; EV_DRAIN: the one that began at event
 * `off` has ended. */
extern struct trace record;
/* From now on what this file gets is recorded; -1: nothing is. */
void record_file(int fd, uint64_t seed);
size_t record_length(void);

#endif
