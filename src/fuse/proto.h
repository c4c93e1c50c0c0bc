/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernel's FUSE interface where it is newer than <linux/fuse.h> of the oldest system we build
 * on (ABI 7.38), under names of our own. The comments give the ABI that introduced them. */
#ifndef UM_FUSE_PROTO_H
#define UM_FUSE_PROTO_H

#include <assert.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Opcodes. */
#define UM_OP_SYNCFS 50u             /* 7.34, fuseblk and virtiofs only */
#define UM_OP_TMPFILE 51u            /* 7.37 */
#define UM_OP_STATX 52u              /* 7.39 */
#define UM_OP_COPY_FILE_RANGE_64 53u /* 7.45 */

/* INIT flags, the two words as one. */
#define UM_INIT_DIRECT_IO_ALLOW_MMAP (1ull << 36) /* 7.39 */
#define UM_INIT_PASSTHROUGH (1ull << 37)          /* 7.40 */
#define UM_INIT_NO_EXPORT_SUPPORT (1ull << 38)    /* 7.40 */
#define UM_INIT_HAS_RESEND (1ull << 39)           /* 7.40 */
#define UM_INIT_OVER_IO_URING (1ull << 41)        /* 7.42 */

/* Passthrough (7.40): the reply to OPEN has a backing id in place of the padding. */
#define UM_FOPEN_PASSTHROUGH (1u << 7)
struct um_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define UM_DEV_BACKING_OPEN _IOW(229, 1, struct um_backing_map)
#define UM_DEV_BACKING_CLOSE _IOW(229, 2, uint32_t)

/* The reply to INIT as of 7.40: libfuse 3.14 leaves the words after flags2 zero. */
struct um_init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
	uint32_t unused[6];
};
static_assert(sizeof(struct um_init_out) == 64, "um_init_out");

/* STATX (7.39); the attributes are those of statx(2). */
struct um_statx_in {
	uint32_t getattr_flags, reserved;
	uint64_t fh;
	uint32_t sx_flags, sx_mask;
};
static_assert(sizeof(struct um_statx_in) == 24, "um_statx_in");

struct um_sx_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};
struct um_sx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct um_sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};
static_assert(sizeof(struct um_sx) == 256, "um_sx");
struct um_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, flags;
	uint64_t spare[2];
	struct um_sx stat;
};
static_assert(sizeof(struct um_statx_out) == 288, "um_statx_out");

/* COPY_FILE_RANGE_64 (7.45): the request is that of opcode 47, the reply has 64 bits. */
struct um_copy_out {
	uint64_t bytes_copied;
};

/* Over io_uring (7.42). Commands on /dev/fuse, their arguments, and the first of the two buffers of
 * an entry; the second is the payload. */
enum { UM_URING_REGISTER = 1, UM_URING_COMMIT_AND_FETCH = 2 };
struct um_uring_cmd {
	uint64_t flags, commit_id;
	uint16_t qid;
	uint8_t padding[6];
};
static_assert(sizeof(struct um_uring_cmd) == 24, "um_uring_cmd");
struct um_uring_headers {
	char in_out[128]; /* struct fuse_in_header, struct fuse_out_header */
	char op_in[128];  /* the first argument of the request */
	uint64_t flags, commit_id;
	uint32_t payload_size, padding; /* of the request, then of the reply */
	uint64_t reserved;
};
static_assert(sizeof(struct um_uring_headers) == 288, "um_uring_headers");

#endif
