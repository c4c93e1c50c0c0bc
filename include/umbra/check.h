/* SPDX-License-Identifier: BSD-3-Clause */
/* The checks and repairs of fsck.umbrafs. */
#ifndef UMBRA_CHECK_H
#define UMBRA_CHECK_H

#include "umbra/types.h"

enum umbra_check_mode {
	UMBRA_CHECK_ONLY,   /* never writes; the journal is replayed in memory */
	UMBRA_CHECK_PREEN,  /* repairs what is safe: replay, mirror copies, leaked blocks */
	UMBRA_CHECK_REPAIR, /* repairs everything; loses only what cannot be read */
};
struct umbra_check_report {
	uint64_t inodes, directories, files, extents, nodes; /* seen */
	uint64_t blocks_used, blocks_free, blocks_retired;
	uint64_t problems; /* found */
	uint64_t repaired;
	uint64_t unrepaired; /* remaining; with CHECK_ONLY: would remain after REPAIR */
	uint64_t replayed;   /* journal records replayed, or to be replayed */
	bool was_clean;
};
/* One line for each problem: code is a stable short word ("refcount", "dirent", ...). */
typedef void umbra_check_fn(void *arg, const char *code, bool repaired, const char *text);
/* Checks the pool at path. 0 if the check ran to its end, whatever it found; else why it could not. */
int umbra_check(const char *path, enum umbra_check_mode mode, umbra_check_fn *fn, void *arg,
	struct umbra_check_report *out);
/* The same over a pool image in memory (crash tests, fuzzers); base must be writable. */
int umbra_check_image(void *base, uint64_t size, enum umbra_check_mode mode, umbra_check_fn *fn,
	void *arg, struct umbra_check_report *out);

#endif
