/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Write errors, reported once to each descriptor, following the kernel's errseq_t (lib/errseq.c):
 * an error is reported to every descriptor that was open when it was first reported to any;
 * descriptors opened later do not see it. A later error replaces the one before and is reported
 * again.
 *
 * A descriptor is identified by a number, in the order of opening. Who has been told is recorded
 * with the error, since there are many descriptors and few errors.
 */
#include <errno.h>
#include <stdlib.h>

#include "fs/errors.h"
#include "fs/fs.h"
#include "pool/log.h"

struct um_told {
	int err;
	bool any;        /* it was reported to somebody; */
	uint64_t before; /* then only to descriptors opened before this */
	unsigned n, cap;
	uint64_t *number; /* except these */
};

struct um_errors {
	pthread_mutex_t lock; /* protects everything below, and struct um_mem's told */
	struct um_told all;   /* for every file: changes were stopped */
	atomic_uint_fast64_t opened, failures;
};

int um_errors_open(struct umbra_fs *fs)
{
	fs->errors = calloc(1, sizeof(*fs->errors));
	if (!fs->errors)
		return -ENOMEM;
	pthread_mutex_init(&fs->errors->lock, NULL);
	return 0;
}

void um_errors_close(struct umbra_fs *fs)
{
	if (!fs->errors)
		return;
	free(fs->errors->all.number);
	pthread_mutex_destroy(&fs->errors->lock);
	free(fs->errors);
	fs->errors = NULL;
}

void um_told_free(struct um_told *told)
{
	if (told)
		free(told->number);
	free(told);
}

static void note(struct um_told *told, int err)
{
	told->err = err;
	told->any = false;
	told->n = 0;
}

void um_error_note(struct umbra_fs *fs, struct um_mem *mem, int err)
{
	pthread_mutex_lock(&fs->errors->lock);
	atomic_fetch_add(&fs->errors->failures, 1);
	if (!mem->told)
		mem->told = calloc(1, sizeof(*mem->told));
	if (mem->told)
		note(mem->told, err);
	else if (!fs->errors->all.err)
		note(&fs->errors->all, err); /* report to all rather than to none */
	pthread_mutex_unlock(&fs->errors->lock);
}

static int tell(struct umbra_fs *fs, struct um_told *told, uint64_t number)
{
	uint64_t *more;
	unsigned i;

	if (!told->err || (told->any && number >= told->before))
		return 0;
	for (i = 0; i < told->n; i++)
		if (told->number[i] == number)
			return 0;
	if (!told->any)
		told->before = atomic_load(&fs->errors->opened);
	told->any = true;
	if (told->n == told->cap) {
		more = realloc(told->number, (2 * (size_t)told->cap + 8) * sizeof(*more));
		if (!more)
			return told->err; /* and again at another time */
		told->number = more;
		told->cap = 2 * told->cap + 8;
	}
	told->number[told->n++] = number;
	return told->err;
}

uint64_t umbra_open_number(struct umbra_fs *fs)
{
	return atomic_fetch_add(&fs->errors->opened, 1);
}

uint64_t umbra_open_latest(struct umbra_fs *fs)
{
	return atomic_load(&fs->errors->opened);
}

int umbra_open_error(struct umbra_fs *fs, uint64_t ino, uint64_t number)
{
	struct um_errors *e = fs->errors;
	int failed = um_log_failed(fs->log, NULL), ret, ret2;
	struct um_mem *mem;

	if (!failed && !atomic_load(&e->failures))
		return 0;
	if (um_mem_get(fs, ino, &mem))
		return -ENOMEM;
	pthread_mutex_lock(&e->lock);
	if (failed && !e->all.err)
		note(&e->all, -EIO);
	ret = mem->told ? tell(fs, mem->told, number) : 0;
	ret2 = tell(fs, &e->all, number);
	pthread_mutex_unlock(&e->lock);
	um_mem_put(fs, mem);
	return ret ? ret : ret2;
}

uint64_t um_error_count(const struct umbra_fs *fs)
{
	return atomic_load(&fs->errors->failures);
}
