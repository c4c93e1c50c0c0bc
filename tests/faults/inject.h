/* SPDX-License-Identifier: BSD-3-Clause */
/* Failing calls. The linker redirects the engine's allocations and system calls here (--wrap); they
 * are counted, and one of them fails on demand. */
#ifndef TESTS_FAULTS_INJECT_H
#define TESTS_FAULTS_INJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inject_call {
	const char *what;
	const void *site;
	const int *errors; /* those that it can fail with, 0 behind the last */
};
/* From now on calls are counted, and noted as far as there is room; the `fail`-th (from 1; 0: none)
 * fails. */
void inject_begin(uint64_t fail, int error);
/* Returns the number of calls; *out_failed: the one that was to fail came. */
uint64_t inject_end(bool *out_failed);
const struct inject_call *inject_noted(uint64_t n); /* NULL: not noted */

#endif
