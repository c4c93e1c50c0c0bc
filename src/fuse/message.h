/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the daemon's messages go: standard error until it is in the background, then syslog. */
#ifndef UM_FUSE_MESSAGE_H
#define UM_FUSE_MESSAGE_H

#include "umbra/types.h"

/* Takes over the library's and libfuse's messages. program: shown before each line. */
void um_message_init(const char *program, bool debug);
void um_message_to_syslog(void);
/* What is no warning goes there from now on: mount(8) says nothing when all is well. */
void um_message_quiet(void);
bool um_message_debug(void);
bool um_message_syslog(void);
__attribute__((format(printf, 2, 3))) void um_message(
	enum umbra_log_level level, const char *fmt, ...);

#endif
