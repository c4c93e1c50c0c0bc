/* SPDX-License-Identifier: BSD-3-Clause */
/* A mount without a kernel: requests are made here, and take the path of those from /dev/fuse. */
#ifndef TESTS_FUZZ_TALK_H
#define TESTS_FUZZ_TALK_H

#include "fuzz.h"

/* After crash.h, whose engine has a name in common with the kernel's headers. */
#include "fuse/proto.h"
#include "fuse/session.h"

#define NODES 24u
#define OPENS 16u

struct open_file {
	uint64_t node, fh;
	bool dir;
};
struct talk {
	struct um_mount m;
	uint64_t node[NODES]; /* that the "kernel" knows; 0: none */
	uint64_t lookups[NODES];
	struct open_file open[OPENS];
	unsigned nopen;
	uint8_t token[16]; /* the last one given out */
	uint64_t armed;    /* size that the last armed clone is to give its file; 0: none */
	uint64_t answered, sent;
};
extern struct talk talk;

void talk_start(void);
void talk_reset(void);
void talk_end(void);
void talk_report(void);

/* A request in the making. */
#define REQUEST_MAX (40u << 10)
struct request {
	_Alignas(8) uint8_t bytes[REQUEST_MAX];
	size_t len;
};
void request_begin(struct request *r, uint32_t opcode, uint64_t node, struct input *in);
void request_add(struct request *r, const void *bytes, size_t len);
/* Sends it and, unless a thread of the door answers it, receives the reply; false: there will be
 * none. */
void request_send(struct request *r, bool answered);
/* Everything that was requested has been answered. */
void talk_settle(void);

/* A node that the kernel knows, or sometimes any number. */
uint64_t pick_node(struct input *in);
/* An open file; there may be none: then one of a known node, never opened. */
struct open_file pick_open(struct input *in);

#endif
