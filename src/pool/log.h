/* SPDX-License-Identifier: BSD-3-Clause */
/* Logs one line, to the destination set with umbra_log_to(). */
#ifndef UM_POOL_LOG_H
#define UM_POOL_LOG_H

#include "umbra/types.h"

__attribute__((format(printf, 2, 3))) void um_log_line(
	enum umbra_log_level level, const char *fmt, ...);
#define um_err(...) um_log_line(UMBRA_LOG_ERROR, __VA_ARGS__)
#define um_warn(...) um_log_line(UMBRA_LOG_WARN, __VA_ARGS__)
#define um_info(...) um_log_line(UMBRA_LOG_INFO, __VA_ARGS__)

#endif
