/* SPDX-License-Identifier: BSD-3-Clause */
/* Damage to a pool, as specified by an input. */
#ifndef TESTS_FUZZ_EDIT_H
#define TESTS_FUZZ_EDIT_H

#include "fuzz.h"
#include "tree.h"

struct block {
	uint64_t lba, mirror; /* mirror 0: none; data: none */
	uint8_t kind;         /* 0: file data */
};
#define EDITS 4u
struct edits {
	unsigned n;
	const struct block *block[EDITS];
	const uint8_t *hang[EDITS]; /* the caller's */
	bool lost[EDITS];           /* no good copy of the block is left */
	struct input plan[EDITS];   /* what is to be done to each */
	bool all;                   /* anything may be lost */
	bool super;                 /* a superblock may be past repair */
};

/* Finds the blocks of a pool that are in use. */
void edits_open(const uint8_t *pool, const struct tree *base);
void edits_close(void);
/* Determines the blocks of n edits; each then reads what it needs from its own part of the
 * input. */
void edits_plan(struct input *in, unsigned n, struct edits *out);
/* Makes the edits, and determines `lost`, `all` and `super`. */
void edits_do(struct image *img, struct edits *edits);

#endif
