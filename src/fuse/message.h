/* SPDX-License-Identifier: BSD-3-Clause */
/* Destination of the daemon's messages: standard error until it is in the background, then
 * syslog. */
#ifndef UM_FUSE_MESSAGE_H
#define UM_FUSE_MESSAGE_H

#include "umbra/types.h"

/* Redirects the messages of the engine and of libfuse. program: the prefix of each line. */
void um_message_init(const char *program, bool debug);
void um_message_to_syslog(void);
/* From now on only warnings and errors go to standard error: mount(8) prints nothing on success. */
void um_message_quiet(void);
bool um_message_debug(void);
bool um_message_syslog(void);
__attribute__((format(printf, 2, 3))) void um_message(
	enum umbra_log_level level, const char *fmt, ...);

#endif
