/* SPDX-License-Identifier: BSD-3-Clause */
/* A condition variable whose waits end by CLOCK_MONOTONIC: nobody sets that one back. */
#ifndef UM_POOL_COND_H
#define UM_POOL_COND_H

#include <pthread.h>
#include <time.h>

static inline void um_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

#endif
