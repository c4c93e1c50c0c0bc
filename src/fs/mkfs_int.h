/* SPDX-License-Identifier: BSD-3-Clause */
/* Internal to mkfs: writing the pool (mkfs.c) and preparing the target (mkfs_target.c). */
#ifndef UM_FS_MKFS_INT_H
#define UM_FS_MKFS_INT_H

#include "space/space.h"
#include "umbra/umbra.h"

/* ---- blocks that the pool before knew to be bad (mkfs_bad.c) ---- */

struct um_badset {
	um_lba_t *lba; /* ascending */
	size_t n, cap;
};
/* Adds the blocks of the pool at path, which the caller has locked, that are retired or failed
 * while in use. Adds nothing if they cannot be read completely. */
int um_badset_load(const char *path, struct um_badset *set);
void um_badset_free(struct um_badset *set);
int um_badset_add(struct um_badset *set, um_lba_t lba); /* at the end, unordered */
void um_badset_sort(struct um_badset *set);             /* and removes duplicates */
/* The first, or last, run of n allocatable blocks of group 0 without a bad one; 0: there is
 * none. */
um_lba_t um_badset_room(
	const struct um_badset *bad, const struct um_super *super, uint64_t n, bool last);
/* Before anything else is written: rewrites bad blocks where the pool has its tables. -EIO, with a
 * message: one stays bad. */
int um_badset_fixed(struct um_pool *pool, const struct um_badset *bad);
/*
 * The note on the medium (mkfs_note.c), which exists from before anything of the old pool is wiped
 * until the new one is complete: adds what an interrupted mkfs has left. -ENOENT: none; -EUCLEAN:
 * it cannot be read completely.
 */
int um_badnote_load(struct um_pool *pool, struct um_badset *set);
struct um_badnote {
	uint64_t id;
	uint32_t count; /* of its blocks */
	int failed;     /* the first copy cannot be written */
};
/* Writes the part whose place no pool uses. -E2BIG: there is not enough room. */
int um_badnote_begin(struct um_pool *pool, const struct um_badset *bad, struct um_badnote *out);
/* Writes the rest, when the old pool cannot be mounted any more. Errors of the medium. */
int um_badnote_finish(
	struct um_pool *pool, const struct um_badset *bad, const struct um_badnote *note);
int um_badnote_clear(struct um_pool *pool);
/* Retires them in the new pool, before anything is allocated. */
int um_badset_retire(struct um_log *log, struct um_space *space, const struct um_badset *bad);

/* Writes an empty filesystem to a pool opened with NOSUPER; its superblocks last. bad: blocks not
 * to be used. */
int um_mkfs_write(
	struct um_pool *pool, const struct umbra_mkfs_options *opt, const struct um_badset *bad);
/* -EINVAL, -ENAMETOOLONG */
int um_mkfs_check_options(const struct umbra_mkfs_options *opt);
/* Length of the journal of a pool of `size` bytes. */
uint64_t um_mkfs_journal_bytes(uint64_t size);

#endif
