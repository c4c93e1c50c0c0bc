/* SPDX-License-Identifier: BSD-3-Clause */
/* Replaces functions of the C library: what the pool's file gets, in order, and its barriers. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "threads.h"

#define DELAY_MAX 300u /* microseconds */

struct trace record;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool recording;
static struct stat pool_file;
static uint64_t chance;

void record_file(int fd, uint64_t seed)
{
	pthread_mutex_lock(&lock);
	recording = fd >= 0;
	chance = mix64(seed);
	if (recording && fstat(fd, &pool_file))
		die("fstat: %s", strerror(errno));
	pthread_mutex_unlock(&lock);
}

size_t record_length(void)
{
	size_t n;

	pthread_mutex_lock(&lock);
	n = record.n;
	pthread_mutex_unlock(&lock);
	return n;
}

/* With the lock. */
static bool is_recorded(int fd)
{
	struct stat st;

	return recording && !fstat(fd, &st) && st.st_ino == pool_file.st_ino &&
	       st.st_dev == pool_file.st_dev;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	ssize_t done;

	/* The lock is held during the call: the record has the order of the file. */
	pthread_mutex_lock(&lock);
	done = syscall(SYS_pwrite64, fd, buf, len, off);
	if (done > 0 && is_recorded(fd))
		trace_add(&record, EV_NT, (uint64_t)off, buf, (size_t)done);
	pthread_mutex_unlock(&lock);
	return done;
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	int ret;

	pthread_mutex_lock(&lock);
	if (is_recorded(fd) && (mode & FALLOC_FL_ZERO_RANGE)) {
		/* As on tmpfs, whatever the filesystem below: the engine writes zeros instead. */
		errno = EOPNOTSUPP;
		ret = -1;
	} else {
		ret = (int)syscall(SYS_fallocate, fd, mode, off, len);
		if (!ret && is_recorded(fd) && (mode & FALLOC_FL_PUNCH_HOLE))
			trace_add(&record, EV_NT, (uint64_t)off, NULL, (size_t)len);
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

/* Takes its time, so that other threads write meanwhile: these writes it does not cover. */
int fdatasync(int fd)
{
	unsigned delay;
	size_t begun;

	pthread_mutex_lock(&lock);
	if (!is_recorded(fd)) {
		pthread_mutex_unlock(&lock);
		return (int)syscall(SYS_fdatasync, fd);
	}
	begun = record.n;
	trace_add(&record, EV_FLUSH, 0, NULL, 0);
	delay = (unsigned)rnd_below(&chance, DELAY_MAX);
	pthread_mutex_unlock(&lock);
	usleep(delay);
	pthread_mutex_lock(&lock);
	trace_add(&record, EV_DRAIN, begun, NULL, 0);
	pthread_mutex_unlock(&lock);
	return 0;
}
