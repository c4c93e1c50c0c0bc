/* SPDX-License-Identifier: BSD-3-Clause */
/* Interface between file data and page/: when shadows are created and removed. */
#ifndef UM_FS_SHADOWS_H
#define UM_FS_SHADOWS_H

#include "fs/data.h"
#include "page/page.h"

/*
 * What a read hands out of shared blocks. Collected while the mapping is read, turned into shadows
 * after the read lock was released. Bounded: a read of more pieces leaves the rest without shadows.
 */
#define UM_NOTE_MAX 32u
struct um_note {
	um_ino_t ino;
	uint64_t seq;
	unsigned n;
	struct um_shadow run[UM_NOTE_MAX];
};
/* To be called before the read lock is taken. */
void um_note_begin(struct umbra_fs *fs, struct um_note *note, um_ino_t ino);
/* Under the lock: runs of the tree, of which file blocks [first, end) are handed out. */
void um_note_runs(struct umbra_fs *fs, struct um_note *note, const struct um_tree *tree,
	const struct um_run *runs, unsigned n, uint64_t first, uint64_t end);
/* With no lock held. */
void um_note_end(struct umbra_fs *fs, struct um_note *note);

/*
 * The file's mapping in [first, first + n) has changed, in a transaction that was committed: its
 * shadows go, and with them those of other files whose blocks are no longer shared. mem->lock may
 * be held.
 */
void um_shadows_toss(struct umbra_fs *fs, um_ino_t ino, uint64_t first, uint64_t n);
/* Removed files may have left others as sole owners: checks some masters with one shadow. */
void um_shadows_sweep(struct umbra_fs *fs);

#endif
