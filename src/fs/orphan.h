/* SPDX-License-Identifier: BSD-3-Clause */
/* Interface between the orphan records (orphan.c) and the thread that processes them (reaper.c). */
#ifndef UM_FS_ORPHAN_H
#define UM_FS_ORPHAN_H

#include "fs/fs.h"

/* -ENOENT when the inode has none. */
int um_orphan_get(struct um_src src, um_ino_t ino, struct um_orphan *out);
/* Removes the record, whatever its kind. */
int um_orphan_drop(struct um_txn *txn, um_ino_t ino);

struct um_orphan_item {
	um_ino_t ino;
	uint64_t arg;
};
/* Up to max records from *pos on (which is advanced): truncations, or the other kinds. */
int um_orphan_list(struct umbra_fs *fs, bool truncate, uint64_t *pos, struct um_orphan_item *item,
	unsigned max, unsigned *out_n);

#endif
