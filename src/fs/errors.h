/* SPDX-License-Identifier: BSD-3-Clause */
/* Write errors that have not been reported to every descriptor: see errors.c. */
#ifndef UM_FS_ERRORS_H
#define UM_FS_ERRORS_H

#include <stdint.h>

struct umbra_fs;
struct um_mem;
struct um_told;

int um_errors_open(struct umbra_fs *fs);
void um_errors_close(struct umbra_fs *fs);
void um_told_free(struct um_told *told);
/* A write to the file failed. The caller has mem pinned. */
void um_error_note(struct umbra_fs *fs, struct um_mem *mem, int err);
uint64_t um_error_count(const struct umbra_fs *fs);

#endif
