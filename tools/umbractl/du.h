/* SPDX-License-Identifier: BSD-3-Clause */
/* Computes which blocks a set of files holds, and which of them nobody else does. */
#ifndef UMBRACTL_DU_H
#define UMBRACTL_DU_H

#include <stdint.h>

struct um_usage_set;
struct um_usage_sums {
	uint64_t files;
	uint64_t referenced;   /* bytes the files map, inline ones included */
	uint64_t inline_bytes; /* of these, in inodes */
	uint64_t physical;     /* bytes of the pool that these are */
	uint64_t exclusive;    /* of these, held by nobody outside of the set */
};

/* NULL: no memory. */
struct um_usage_set *um_usage_new(void);
void um_usage_free(struct um_usage_set *set);
/* Adds a regular file, which must not be in the set yet. A tree node that is in the set is not
 * walked again. */
int um_usage_add(struct um_usage_set *set, int fd);
/* To be called once, when all files have been added. */
int um_usage_sum(struct um_usage_set *set, struct um_usage_sums *out);

#endif
