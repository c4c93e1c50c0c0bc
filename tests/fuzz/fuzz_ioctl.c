/* SPDX-License-Identifier: BSD-3-Clause */
/* Ioctls with payloads of any content and size, on files opened in any mode; and the fallocate that
 * some clones wait for. */
#include <fcntl.h>
#include <linux/fs.h>

#include "talk.h"

#include "fuse/ioctl.h"

#define STEPS_MAX 6u
#define GOINGDOWN _IOR('X', 125, uint32_t)

static const uint32_t commands[] = {FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR,
	FS_IOC_FSSETXATTR, FS_IOC_GETVERSION, FS_IOC_GETFSLABEL, GOINGDOWN, UM_IOC_INFO,
	UM_IOC_TEXT, UM_IOC_MAP, UM_IOC_OWNERS, UM_IOC_SHADOWS, UM_IOC_LBA_OWNERS, UM_IOC_PATHS,
	UM_IOC_TOKEN, UM_IOC_CLONE, UM_IOC_CLONE, UM_IOC_TREE};
#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

/* Most numbers of a payload are small, or multiples of blocks. */
static uint64_t take_number(struct input *in)
{
	uint8_t how = take_8(in);

	switch (how & 7) {
	case 0:
		return 0;
	case 1:
		return take_64(in);
	case 2:
		return (uint64_t)take_8(in) * B;
	case 3:
		return (uint64_t)take_16(in) * B;
	case 4:
		return take_32(in);
	case 5:
		return UINT64_MAX - take_8(in);
	default:
		return take_16(in);
	}
}

static void clone_payload(struct input *in, uint8_t *payload)
{
	struct um_ioc_clone clone = {0};
	uint8_t how = take_8(in);

	memcpy(clone.token, talk.token, sizeof(clone.token));
	if (!(how & 15))
		take_bytes(in, clone.token, sizeof(clone.token));
	if (how & 16)
		clone.src_off = take_number(in);
	if (how & 32)
		clone.len = take_number(in);
	if (how & 64)
		clone.dst_off = take_number(in);
	clone.op = how & 128 ? take_8(in) & 3 : UM_CLONE_RANGE; /* all there are */
	memcpy(payload, &clone, sizeof(clone));
}

static void tree_payload(struct input *in, uint8_t *payload)
{
	uint8_t how = take_8(in);
	struct um_ioc_tree tree = {
		.src = how & 31, .op = how & 32 ? UM_TREE_META : UM_TREE_ENTRIES};

	if (how & 64)
		tree.src = take_number(in);
	if (how & 128) {
		tree.cookie = take_number(in);
		tree.op = take_8(in) & 3;
		tree.len = take_32(in);
	}
	memcpy(payload, &tree, sizeof(tree));
}

static void any_payload(struct input *in, uint8_t *payload, size_t size)
{
	uint8_t n = take_8(in) & 7;
	uint64_t value;
	size_t at;

	if (n == 7) {
		take_bytes(in, payload, size);
		return;
	}
	/* The fields come first in all of them. */
	for (at = 0; at + 8 <= size && n; at += 8, n--) {
		value = take_number(in);
		memcpy(payload + at, &value, 8);
	}
	if (take_8(in) & 1 && size >= 4) {
		uint32_t first = take_8(in) & 3;

		memcpy(payload, &first, 4);
	}
}

static void send_ioctl(struct input *in, uint64_t node, uint64_t fh, uint32_t cmd)
{
	static uint8_t payload[1u << 14];
	size_t size = _IOC_SIZE(cmd);
	uint8_t how = take_8(in);
	struct fuse_ioctl_in arg = {.fh = fh, .cmd = cmd, .arg = how & 1 ? (uintptr_t)payload : 8};
	struct request r;

	/* Nothing more is changed after a shutdown: not too often. */
	if (cmd == GOINGDOWN && take_8(in) & 31)
		cmd = FS_IOC_GETFLAGS;
	memset(payload, 0, size);
	if (cmd == UM_IOC_CLONE)
		clone_payload(in, payload);
	else if (cmd == UM_IOC_TREE)
		tree_payload(in, payload);
	else
		any_payload(in, payload, size);
	/* The kernel copies by the command's direction and size; these cannot be forged. */
	arg.in_size = _IOC_DIR(cmd) & _IOC_WRITE ? (uint32_t)size : 0;
	arg.out_size = _IOC_DIR(cmd) & _IOC_READ ? (uint32_t)size : 0;
	if (how >= 240)
		arg.in_size = take_16(in) % (sizeof(payload) + 1);
	if (how >= 224)
		arg.out_size = take_16(in);
	request_begin(&r, FUSE_IOCTL, node, in);
	request_add(&r, &arg, sizeof(arg));
	request_add(&r, payload, arg.in_size);
	request_send(&r, true);
}

/* As a rule the one for which the last clone was armed. */
static void fallocate_one(struct input *in, struct open_file file)
{
	struct fuse_fallocate_in arg = {.fh = file.fh, .offset = talk.armed - 1, .length = 1};
	uint8_t how = take_8(in);
	struct request r;

	if (!talk.armed || how & 1)
		arg.offset = take_number(in);
	if (how & 2)
		arg.length = take_number(in);
	if (how & 4)
		arg.mode = take_8(in);
	request_begin(&r, FUSE_FALLOCATE, file.node, in);
	request_add(&r, &arg, sizeof(arg));
	request_send(&r, true);
}

static void release_one(struct input *in, struct open_file file)
{
	struct fuse_release_in arg = {.fh = file.fh, .flags = O_RDWR};
	unsigned i;
	struct request r;

	for (i = 0; i < talk.nopen && talk.open[i].fh != file.fh; i++)
		;
	if (i == talk.nopen || talk.open[i].dir)
		return;
	talk.open[i] = talk.open[--talk.nopen];
	request_begin(&r, FUSE_RELEASE, file.node, in);
	request_add(&r, &arg, sizeof(arg));
	request_send(&r, true);
}

static void open_one(struct input *in, uint64_t node)
{
	struct fuse_open_in arg = {.flags = take_8(in) & 3};
	struct request r;

	if (arg.flags == 3)
		arg.flags = O_RDWR | O_APPEND;
	request_begin(&r, FUSE_OPEN, node, in);
	request_add(&r, &arg, sizeof(arg));
	request_send(&r, true);
}

/* What it knows of the tree is found by name. */
static void lookup(struct input *in)
{
	static const char *const names[] = {
		"foo", "bar", "big", "bigc", "big2", "own", "same1", "same2", "sym", "A", "B"};
	const char *name = names[take_8(in) % (sizeof(names) / sizeof(names[0]))];
	struct request r;

	request_begin(&r, FUSE_LOOKUP, UM_ROOT_NODE, in);
	request_add(&r, name, strlen(name) + 1);
	request_send(&r, true);
}

static void one(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	struct open_file file, last = {0}; /* cloned into */
	unsigned steps = 0;

	while (in.left && steps++ < STEPS_MAX) {
		uint8_t what = take_8(&in);

		if (what >= 240) {
			lookup(&in);
		} else if (what >= 224) {
			open_one(&in, pick_node(&in));
		} else if (what >= 208 && what < 216) {
			file = last.node && what < 214 ? last : pick_open(&in);
			if (what % 4 == 3)
				release_one(&in, file);
			else
				fallocate_one(&in, file);
		} else {
			file = pick_open(&in);
			if (what < 208 && commands[what % NCOMMANDS] == UM_IOC_CLONE)
				last = file;
			send_ioctl(&in, file.node, file.fh,
				what >= 216 ? take_32(&in) : commands[what % NCOMMANDS]);
		}
	}
	talk_settle();
}

static void start(void)
{
	static const uint8_t names[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
	struct input in;
	unsigned i;

	talk_start();
	for (i = 0; i < sizeof(names); i++) {
		in = (struct input){names + i, 1};
		lookup(&in);
	}
	talk_settle();
}

static void reset(void)
{
	struct input in;
	uint8_t i;

	talk_reset();
	for (i = 0; i < 11; i++) {
		in = (struct input){&i, 1};
		lookup(&in);
	}
}

const struct fuzz_target fuzz_target = {.name = "ioctl",
	.max_len = 256,
	.inputs_per_reset = 256,
	.start = start,
	.one = one,
	.reset = reset,
	.end = talk_end,
	.report = talk_report};
