/* SPDX-License-Identifier: BSD-3-Clause */
/* The contents of UM_IOC_TEXT. */
#ifndef UM_FUSE_TEXT_H
#define UM_FUSE_TEXT_H

#include "fuse/session.h"

#define UM_TEXT_STAT 0u
#define UM_TEXT_INFO 1u
#define UM_TEXT_HEALTH 2u /* has path names of all users: for root only */

/* A JSON object as text, to be freed: live counters by name, or the pool's information with the
 * names of struct umbra_info. */
int um_text_make(struct um_mount *m, unsigned what, char **out);

#endif
