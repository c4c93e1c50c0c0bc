/* SPDX-License-Identifier: BSD-3-Clause */
/* CLOCK_MONOTONIC, which nobody sets back: its time, and condition variables whose waits end by it. */
#ifndef UM_POOL_CLOCK_H
#define UM_POOL_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t um_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* When ns will have passed: for pthread_cond_timedwait. */
static inline struct timespec um_after_ns(uint64_t ns)
{
	uint64_t then = um_now_ns() + ns;

	return (struct timespec){
		.tv_sec = (time_t)(then / 1000000000u), .tv_nsec = (long)(then % 1000000000u)};
}

static inline void um_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

#endif
