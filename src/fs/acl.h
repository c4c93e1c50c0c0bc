/* SPDX-License-Identifier: BSD-3-Clause */
/* POSIX ACLs as seen by the xattr calls. */
#ifndef UM_FS_ACL_H
#define UM_FS_ACL_H

#include "fs/fs.h"

bool um_acl_is_name(const char *name); /* one of the two attributes */
/* Sets (or, with an empty ACL, removes) one of them; an access ACL sets the mode. -EINVAL,
 * -EACCES. */
int um_acl_set(struct um_txn *txn, struct um_inode *inode, const char *name, const void *value,
	size_t len, int flags, bool kill_sgid);

#endif
