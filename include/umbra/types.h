/* SPDX-License-Identifier: BSD-3-Clause */
/* Types shared by the public headers of libumbra. */
#ifndef UMBRA_TYPES_H
#define UMBRA_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct umbra_fs;

/* What a pool lives on; each kind has a back end with its own policy. */
enum umbra_pool_kind {
	UMBRA_POOL_FILE = 0,   /* plain file */
	UMBRA_POOL_BLOCK = 1,  /* block device */
	UMBRA_POOL_FSDAX = 2,  /* file on a DAX filesystem */
	UMBRA_POOL_DEVDAX = 3, /* /dev/daxX.Y */
	UMBRA_POOL_MEMORY = 4, /* anonymous memory, for tests: nothing outlives the process */
};

enum umbra_log_level { UMBRA_LOG_ERROR, UMBRA_LOG_WARN, UMBRA_LOG_INFO, UMBRA_LOG_DEBUG };
/* Receives one line without a newline; called from any thread. */
typedef void umbra_log_fn(void *arg, enum umbra_log_level level, const char *line);
/* Where every message of the library goes; NULL: standard error. Set once, before anything else. */
void umbra_log_to(umbra_log_fn *fn, void *arg);

#endif
