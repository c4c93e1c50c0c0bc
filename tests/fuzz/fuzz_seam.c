/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests of every kind, as the kernel makes them: names are terminated, arguments complete, but
 * their values may be anything. Those that the seam decodes itself have any length. */
#include <fcntl.h>
#include <sys/stat.h>

#include "talk.h"

#define STEPS_MAX 8u
#define IO_MAX (1u << 20)

static void add_name(struct request *r, struct input *in)
{
	static const char *const names[] = {"foo", "bar", "big", "bigc", "A", "B", "x", "new", "n1",
		"n2", "sym", "own", ".", "..", "same1", "a-name-that-takes-a-little-more-room"};
	uint8_t which = take_8(in);
	char name[300];
	size_t len;

	if (which < 224) {
		const char *known = names[which % 16];

		request_add(r, known, strlen(known) + 1);
		return;
	}
	len = which < 254 ? which & 15 : 250 + (which & 1) * 20;
	memset(name, 'l', sizeof(name));
	take_bytes(in, name, len < 16 ? len : 4);
	name[len] = 0;
	request_add(r, name, strlen(name) + 1);
}

static void add_xattr_name(struct request *r, struct input *in)
{
	static const char *const names[] = {"user.a", "user.small", "user.large", "user.b",
		"system.posix_acl_access", "system.posix_acl_default", "security.capability",
		"trusted.t", "user.", "system.x", "nothing", ""};
	const char *name = names[take_8(in) % 12];

	request_add(r, name, strlen(name) + 1);
}

static uint64_t take_offset(struct input *in)
{
	uint8_t how = take_8(in);

	switch (how & 7) {
	case 0:
		return 0;
	case 1:
		return take_64(in);
	case 2:
	case 3:
		return (uint64_t)take_8(in) * B;
	case 4:
		return (uint64_t)take_16(in) * B;
	case 5:
		return (uint64_t)INT64_MAX - take_16(in);
	default:
		return take_16(in);
	}
}

static uint32_t take_mode(struct input *in)
{
	static const uint32_t modes[] = {S_IFREG | 0644, S_IFREG | 0600, S_IFDIR | 0755,
		S_IFIFO | 0600, S_IFCHR | 0600, S_IFSOCK | 0600, S_IFREG | 06755, S_IFBLK | 0600};
	uint8_t how = take_8(in);

	return how & 128 ? take_32(in) : modes[how & 7];
}

/* ---- names ------------------------------------------------------------------------------------------- */

static void add_entry(struct request *r, struct input *in, uint32_t opcode)
{
	struct fuse_mknod_in mknod = {0};
	struct fuse_mkdir_in mkdir = {0};
	struct fuse_link_in link = {0};
	struct fuse_rename2_in rename = {0};
	struct fuse_create_in create = {0};

	switch (opcode) {
	case FUSE_MKNOD:
		mknod.mode = take_mode(in);
		mknod.rdev = take_16(in);
		mknod.umask = take_8(in);
		request_add(r, &mknod, sizeof(mknod));
		break;
	case FUSE_MKDIR:
		mkdir.mode = take_mode(in);
		mkdir.umask = take_8(in);
		request_add(r, &mkdir, sizeof(mkdir));
		break;
	case FUSE_LINK:
		link.oldnodeid = pick_node(in);
		request_add(r, &link, sizeof(link));
		break;
	case FUSE_CREATE:
		create.flags = take_8(in) & 1 ? take_32(in) : O_RDWR;
		create.mode = take_mode(in);
		create.umask = take_8(in);
		request_add(r, &create, sizeof(create));
		break;
	case FUSE_RENAME:
	case FUSE_RENAME2:
		rename.newdir = pick_node(in);
		rename.flags = take_8(in) & 15;
		request_add(r, &rename, opcode == FUSE_RENAME2 ? sizeof(rename) : 8);
		add_name(r, in);
		break;
	default:
		break;
	}
	add_name(r, in);
	if (opcode == FUSE_SYMLINK) {
		char target[700];
		size_t len = take_16(in) % sizeof(target);

		memset(target, 't', sizeof(target));
		target[len] = 0;
		request_add(r, target, len + 1);
	}
}

/* ---- files ------------------------------------------------------------------------------------------- */

static void add_write(struct request *r, struct input *in, uint64_t fh)
{
	static uint8_t data[32u << 10];
	struct fuse_write_in write = {.fh = fh, .offset = take_offset(in), .flags = take_8(in)};
	uint8_t how = take_8(in);

	write.size = how & 1 ? take_16(in) % sizeof(data) : how & 2 ? B * (1 + (how >> 5)) : how;
	write.write_flags = how & 4 ? FUSE_WRITE_KILL_SUIDGID : 0;
	memset(data, how, write.size);
	request_add(r, &write, sizeof(write));
	request_add(r, data, write.size);
}

static void add_copy(struct request *r, struct input *in, uint64_t fh)
{
	struct open_file to = pick_open(in);
	struct fuse_copy_file_range_in copy = {.fh_in = fh,
		.off_in = take_offset(in),
		.nodeid_out = to.node,
		.fh_out = to.fh,
		.off_out = take_offset(in),
		.len = take_offset(in)};

	request_add(r, &copy, sizeof(copy));
}

static void add_range(struct request *r, struct input *in, uint32_t opcode, uint64_t fh)
{
	struct fuse_read_in read = {.fh = fh};
	struct fuse_fallocate_in fallocate = {.fh = fh};
	struct fuse_lseek_in lseek = {.fh = fh};
	struct fuse_fsync_in fsync = {.fh = fh};

	switch (opcode) {
	case FUSE_FALLOCATE:
		fallocate.offset = take_offset(in);
		fallocate.length = take_offset(in);
		fallocate.mode = take_8(in);
		request_add(r, &fallocate, sizeof(fallocate));
		break;
	case FUSE_LSEEK:
		lseek.offset = take_offset(in);
		lseek.whence = take_8(in) & 7;
		request_add(r, &lseek, sizeof(lseek));
		break;
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
		fsync.fsync_flags = take_8(in) & 1;
		request_add(r, &fsync, sizeof(fsync));
		break;
	default: /* READ and the two that list directories */
		read.offset = take_offset(in);
		read.size = take_32(in) % (IO_MAX + 1);
		request_add(r, &read, sizeof(read));
		break;
	}
}

static void on_file(struct input *in, uint32_t opcode)
{
	struct open_file file = pick_open(in);
	struct request r;

	request_begin(&r, opcode, file.node, in);
	if (opcode == FUSE_WRITE)
		add_write(&r, in, file.fh);
	else if (opcode == FUSE_COPY_FILE_RANGE || opcode == UM_OP_COPY_FILE_RANGE_64)
		add_copy(&r, in, file.fh);
	else
		add_range(&r, in, opcode, file.fh);
	request_send(&r, true);
}

/* ---- attributes --------------------------------------------------------------------------------------- */

static void add_setattr(struct request *r, struct input *in)
{
	struct fuse_setattr_in set = {0};

	set.valid = take_16(in);
	set.size = take_offset(in);
	set.atime = take_64(in);
	set.mtime = take_64(in);
	set.ctime = take_64(in);
	set.atimensec = take_32(in);
	set.mtimensec = take_32(in);
	set.mode = take_32(in);
	set.uid = take_32(in);
	set.gid = take_32(in);
	request_add(r, &set, sizeof(set));
}

static void add_attributes(struct request *r, struct input *in, uint32_t opcode)
{
	struct fuse_getxattr_in get = {0};
	struct fuse_getattr_in getattr = {0};
	struct fuse_open_in open = {0};

	switch (opcode) {
	case FUSE_SETATTR:
		add_setattr(r, in);
		break;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		get.size = take_32(in) % (128u << 10);
		request_add(r, &get, sizeof(get));
		if (opcode == FUSE_GETXATTR)
			add_xattr_name(r, in);
		break;
	case FUSE_REMOVEXATTR:
		add_xattr_name(r, in);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		open.flags = take_8(in) & 1 ? take_32(in) : take_8(in) & 3;
		request_add(r, &open, sizeof(open));
		break;
	default:
		request_add(r, &getattr, sizeof(getattr));
		break;
	}
}

/* ---- what the kernel lets go of: never more than it has ------------------------------------------------ */

static void forget(struct input *in)
{
	struct fuse_forget_in arg = {0};
	unsigned i = take_8(in) % NODES;
	struct request r;

	if (!talk.node[i] || talk.node[i] == UM_ROOT_NODE)
		return;
	arg.nlookup = 1 + take_8(in) % talk.lookups[i];
	request_begin(&r, FUSE_FORGET, talk.node[i], in);
	request_add(&r, &arg, sizeof(arg));
	talk.lookups[i] -= arg.nlookup;
	if (!talk.lookups[i])
		talk.node[i] = 0;
	request_send(&r, false);
}

static void release(struct input *in)
{
	struct fuse_release_in arg = {0};
	struct open_file file;
	struct request r;
	unsigned i;

	if (!talk.nopen)
		return;
	i = take_8(in) % talk.nopen;
	file = talk.open[i];
	talk.open[i] = talk.open[--talk.nopen];
	arg.fh = file.fh;
	arg.flags = take_32(in);
	request_begin(&r, file.dir ? FUSE_RELEASEDIR : FUSE_RELEASE, file.node, in);
	request_add(&r, &arg, sizeof(arg));
	request_send(&r, true);
}

/* ---- decoded by the seam -------------------------------------------------------------------------------- */

static void add_setxattr(struct request *r, struct input *in)
{
	static uint8_t value[70000];
	struct fuse_setxattr_in set = {0};
	uint8_t how = take_8(in);

	set.size = how & 1 ? take_32(in) % (32u << 10) : how;
	set.flags = take_8(in) & 3;
	set.setxattr_flags = take_8(in) & 1;
	request_add(r, &set, sizeof(set));
	add_xattr_name(r, in);
	take_bytes(in, value, how & 63);
	request_add(r, value, how & 2 ? set.size : how);
}

/* Any number of any bytes, or something sensible. */
static void seam(struct input *in)
{
	static const uint32_t opcodes[] = {FUSE_SETXATTR, UM_OP_TMPFILE, UM_OP_STATX,
		UM_OP_COPY_FILE_RANGE_64, UM_OP_SYNCFS, FUSE_INTERRUPT, FUSE_INIT, FUSE_SETXATTR};
	uint8_t how = take_8(in);
	uint32_t opcode = opcodes[how & 7];
	struct fuse_create_in create = {.mode = take_mode(in), .flags = O_RDWR};
	uint8_t raw[256];
	struct request r;
	size_t len;

	request_begin(&r, opcode, pick_node(in), in);
	if (how & 128) {
		len = take_8(in);
		take_bytes(in, raw, len);
		request_add(&r, raw, len);
	} else if (opcode == FUSE_SETXATTR) {
		add_setxattr(&r, in);
	} else if (opcode == UM_OP_TMPFILE) {
		create.flags |= take_16(in);
		request_add(&r, &create, sizeof(create));
		request_add(&r, "", 1);
	} else {
		take_bytes(in, raw, 64);
		request_add(&r, raw, 64);
	}
	request_send(&r, opcode != FUSE_INTERRUPT);
}

/* ---- all --------------------------------------------------------------------------------------------------- */

static void step(struct input *in)
{
	static const uint32_t names[] = {FUSE_LOOKUP, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR,
		FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_LINK, FUSE_CREATE, FUSE_RENAME2};
	static const uint32_t files[] = {FUSE_READ, FUSE_WRITE, FUSE_FSYNC, FUSE_READDIR,
		FUSE_FSYNCDIR, FUSE_FALLOCATE, FUSE_READDIRPLUS, FUSE_LSEEK, FUSE_COPY_FILE_RANGE,
		FUSE_WRITE};
	static const uint32_t attributes[] = {FUSE_GETATTR, FUSE_SETATTR, FUSE_READLINK,
		FUSE_STATFS, FUSE_GETXATTR, FUSE_LISTXATTR, FUSE_REMOVEXATTR, FUSE_OPEN,
		FUSE_OPENDIR, FUSE_FLUSH, FUSE_ACCESS, FUSE_GETLK, FUSE_BMAP};
	uint8_t what = take_8(in);
	uint32_t opcode;
	struct request r;

	if (what < 70) {
		opcode = names[what % 10];
		request_begin(&r, opcode, pick_node(in), in);
		add_entry(&r, in, opcode);
		request_send(&r, true);
	} else if (what < 140) {
		on_file(in, files[what % 10]);
	} else if (what < 200) {
		opcode = attributes[what % 13];
		request_begin(&r, opcode, pick_node(in), in);
		add_attributes(&r, in, opcode);
		/* Locks and the like: the arguments of all have this much. */
		request_add(&r, (uint8_t[64]){0}, 64);
		request_send(&r, true);
	} else if (what < 215) {
		forget(in);
	} else if (what < 225) {
		release(in);
	} else {
		seam(in);
	}
}

static void one(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	unsigned steps = 0;

	while (in.left && steps++ < STEPS_MAX)
		step(&in);
	talk_settle();
}

const struct fuzz_target fuzz_target = {.name = "seam",
	.max_len = 256,
	.inputs_per_reset = 256,
	.start = talk_start,
	.one = one,
	.reset = talk_reset,
	.end = talk_end,
	.report = talk_report};
