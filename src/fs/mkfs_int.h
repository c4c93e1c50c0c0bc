/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside mkfs: writing the pool (mkfs.c) and preparing what it is written to (mkfs_target.c). */
#ifndef UM_FS_MKFS_INT_H
#define UM_FS_MKFS_INT_H

#include "space/space.h"
#include "umbra/umbra.h"

/* ---- blocks that the pool before knew to be bad (mkfs_bad.c) ---- */

struct um_badset {
	um_lba_t *lba; /* ascending */
	size_t n, cap;
};
/*
 * Adds, of the pool at path, which the caller has locked, what is retired there and what failed while in use. With a
 * line that says what to do: -EUCLEAN, it cannot be read whole.
 */
int um_badset_load(const char *path, struct um_badset *set);
void um_badset_free(struct um_badset *set);
int um_badset_add(struct um_badset *set, um_lba_t lba); /* at the end, in no order */
void um_badset_sort(struct um_badset *set);             /* and each once */
/* The first, or last, run of n blocks that can be allocated without a bad one, seen from group 0; 0: there is none. */
um_lba_t um_badset_room(
	const struct um_badset *bad, const struct um_super *super, uint64_t n, bool last);
/* Before anything else is written: rewrites those where the pool has its tables. -EIO, said: one stays bad. */
int um_badset_fixed(struct um_pool *pool, const struct um_badset *bad);
/*
 * The note on the medium (mkfs_note.c), from before anything of the old pool is wiped until the new one is whole: adds what an
 * mkfs that was cut has left. -ENOENT: nothing; -EUCLEAN: not all of it can be read.
 */
int um_badnote_load(struct um_pool *pool, struct um_badset *set);
/* -E2BIG: more than there is room for; errors of the medium. */
int um_badnote_write(struct um_pool *pool, const struct um_badset *bad);
int um_badnote_clear(struct um_pool *pool);
/* In the new pool they are retired, before anything is allocated. */
int um_badset_retire(struct um_log *log, struct um_space *space, const struct um_badset *bad);

/* Writes an empty filesystem to a pool opened with NOSUPER; its superblocks last. bad: not to be used. */
int um_mkfs_write(
	struct um_pool *pool, const struct umbra_mkfs_options *opt, const struct um_badset *bad);
/* -EINVAL, -ENAMETOOLONG */
int um_mkfs_check_options(const struct umbra_mkfs_options *opt);
/* Length of the journal of a pool of `size` bytes. */
uint64_t um_mkfs_journal_bytes(uint64_t size);

#endif
