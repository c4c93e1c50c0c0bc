/* SPDX-License-Identifier: BSD-3-Clause */
/* The operations of the kill test and the state they lead to (writers_ops.c). */
#ifndef TESTS_MOUNTED_WRITERS_H
#define TESTS_MOUNTED_WRITERS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define FBLOCKS 48 /* largest file */
#define NTOP 8     /* names in the process's directory */
#define NDIR 4     /* directories in it */
#define NPER 6     /* names in each of them */
#define NAMES (NTOP + NDIR * NPER)
#define XATTR_MAX 4096

struct file {
	uint64_t tag[FBLOCKS]; /* what each block is filled with; 0: zeros or a hole */
	uint64_t xtag;         /* of the xattr user.tag; 0: none */
	unsigned nblocks, nlink, mode;
};
struct state {
	bool dir[NDIR];
	int name[NAMES]; /* number of the file, or -1 */
	struct file file[NAMES];
};
/* Shared with whoever verifies; on a filesystem that outlives the daemon. */
struct log {
	uint64_t ready, started, acked;
};

enum kind {
	OP_CREATE,
	OP_WRITE,
	OP_APPEND,
	OP_TRUNCATE,
	OP_PUNCH,
	OP_RENAME,
	OP_EXCHANGE,
	OP_LINK,
	OP_UNLINK,
	OP_MKDIR,
	OP_RMDIR,
	OP_RENAME_DIR,
	OP_XATTR,
	OP_CHMOD,
	OP_COPY,
	OP_CLONE,  /* of the whole file */
	OP_DEDUPE, /* after a copy by hand */
	OP_KINDS
};
struct op {
	enum kind kind;
	int a, b;            /* names or directories */
	unsigned block, len; /* in blocks */
	uint64_t tag;
};

void state_init(struct state *state);
void name_path(int name, char path[32]);
void op_make(uint64_t seed, uint64_t n, struct op *out);
bool op_valid(const struct state *state, const struct op *op);
void op_apply(struct state *state, const struct op *op);
/* 0 or -errno. */
int op_do(int root, const struct state *state, const struct op *op);
const char *op_name(const struct op *op);
/* The file that a write or copy in flight may have changed in part, or -1. */
int op_in_pieces(const struct state *after, const struct op *op);
size_t xattr_value(uint64_t tag, unsigned char out[XATTR_MAX]);

#endif
