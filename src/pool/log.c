/* SPDX-License-Identifier: BSD-3-Clause */
/* The destination of the library's messages. */
#include <stdarg.h>
#include <stdio.h>

#include "pool/log.h"

static umbra_log_fn *log_fn;
static void *log_arg;

void umbra_log_to(umbra_log_fn *fn, void *arg)
{
	log_fn = fn;
	log_arg = arg;
}

void um_log_line(enum umbra_log_level level, const char *fmt, ...)
{
	static const char *const name[] = {"error", "warning", "info", "debug"};
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (log_fn)
		log_fn(log_arg, level, line);
	else
		fprintf(stderr, "umbrafs: %s: %s\n", name[level], line);
}
