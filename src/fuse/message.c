/* SPDX-License-Identifier: BSD-3-Clause */
/* The messages of the daemon, including those of the engine and of libfuse. */
#include "fuse/message.h"

#define FUSE_USE_VERSION 314
#include <fuse_log.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

static const char *name = "umbrafs";
static bool to_syslog, quiet, debugging;

static int priority_of(enum umbra_log_level level)
{
	switch (level) {
	case UMBRA_LOG_ERROR:
		return LOG_ERR;
	case UMBRA_LOG_WARN:
		return LOG_WARNING;
	case UMBRA_LOG_INFO:
		return LOG_INFO;
	default:
		return LOG_DEBUG;
	}
}

static void put(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	if (level == UMBRA_LOG_DEBUG && !debugging)
		return;
	if (to_syslog || (quiet && level == UMBRA_LOG_INFO))
		syslog(priority_of(level), "%s", line);
	else
		fprintf(stderr, "%s: %s\n", name, line);
}

static void put_fuse(enum fuse_log_level level, const char *fmt, va_list args)
{
	enum umbra_log_level ours = UMBRA_LOG_DEBUG;
	char line[1024];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, args);
	len = strlen(line);
	if (len && line[len - 1] == '\n')
		line[len - 1] = 0;
	if (level <= FUSE_LOG_ERR)
		ours = UMBRA_LOG_ERROR;
	else if (level <= FUSE_LOG_WARNING)
		ours = UMBRA_LOG_WARN;
	else if (level <= FUSE_LOG_INFO)
		ours = UMBRA_LOG_INFO;
	put(NULL, ours, line);
}

void um_message_init(const char *program, bool debug)
{
	name = program;
	debugging = debug;
	umbra_log_to(put, NULL);
	fuse_set_log_func(put_fuse);
}

void um_message_to_syslog(void)
{
	openlog(name, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	to_syslog = true;
}

void um_message_quiet(void)
{
	quiet = true;
}

bool um_message_syslog(void)
{
	return to_syslog;
}

bool um_message_debug(void)
{
	return debugging;
}

void um_message(enum umbra_log_level level, const char *fmt, ...)
{
	char line[4608];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	put(NULL, level, line);
}
