/* SPDX-License-Identifier: BSD-3-Clause */
/* Everything that can be read in a pool that may be damaged. */
#ifndef TESTS_FUZZ_TREE_H
#define TESTS_FUZZ_TREE_H

#include "fuzz.h"

struct file {
	uint64_t ino, sum;
	mode_t type;
};
struct tree {
	struct file *file; /* each inode once, in the order of being met */
	size_t n, cap;
	unsigned errors; /* of reading */
};
/* Walks all directories; what cannot be read is counted. */
void tree_walk(struct umbra_fs *fs, struct tree *out);
void tree_free(struct tree *tree);
const struct file *tree_find(const struct tree *tree, uint64_t ino);
/* A checksum over all that belongs to an inode itself: content, attributes, extended attributes;
 * not names, links and times. False: it cannot be read. */
bool tree_sum(struct umbra_fs *fs, uint64_t ino, uint64_t *out);

#endif
