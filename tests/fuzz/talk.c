/* SPDX-License-Identifier: BSD-3-Clause */
/* A mount without a kernel, and the checks of replies. */
#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "fuse/door.h"
#include "fuse/ioctl.h"
#include "fuse/seam.h"

#define PENDING 64u
#define ANSWER_SEC 20
#define ANSWER_MAX (2u << 20)

struct talk talk;
static struct um_options options;
static struct image image;
static pthread_mutex_t lock =
	PTHREAD_MUTEX_INITIALIZER; /* what is below: the door's threads answer, too */
static struct pending {
	uint64_t unique; /* 0: free */
	uint32_t opcode, cmd;
	uint64_t node;
} pending[PENDING];
static uint64_t last_unique = 2;

/* ---- answers --------------------------------------------------------------------------------------- */

static void note_node(uint64_t node)
{
	unsigned i, at = 0;

	for (i = 0; i < NODES; i++) {
		if (talk.node[i] == node) {
			talk.lookups[i]++;
			return;
		}
		if (!talk.node[i])
			at = i;
	}
	/* No room: the kernel would know it; we forget it for good. */
	if (!talk.node[at]) {
		talk.node[at] = node;
		talk.lookups[at] = 1;
	}
}

static void note_open(uint64_t node, uint64_t fh, bool dir)
{
	if (talk.nopen < OPENS)
		talk.open[talk.nopen++] = (struct open_file){node, fh, dir};
}

static void note_clone(const uint8_t *data, size_t len)
{
	struct um_ioc_clone clone;

	if (len < sizeof(clone))
		return;
	memcpy(&clone, data + len - sizeof(clone), sizeof(clone));
	if (clone.op != UM_CLONE_RANGE || clone.status != UM_CLONE_ARMED)
		return;
	if (!clone.done)
		fuzz_fail("an armed clone of nothing");
	talk.armed = clone.dst_off + clone.done;
}

static void note_answer(const struct pending *p, const uint8_t *data, size_t len)
{
	struct fuse_entry_out entry;
	struct fuse_open_out open;

	switch (p->opcode) {
	case FUSE_LOOKUP:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
		if (len != sizeof(entry))
			fuzz_fail("an entry of %zu bytes", len);
		memcpy(&entry, data, sizeof(entry));
		if (entry.nodeid)
			note_node(entry.nodeid);
		break;
	case FUSE_CREATE:
	case UM_OP_TMPFILE:
		if (len != sizeof(entry) + sizeof(open))
			fuzz_fail("an entry and open of %zu bytes", len);
		memcpy(&entry, data, sizeof(entry));
		memcpy(&open, data + sizeof(entry), sizeof(open));
		note_node(entry.nodeid);
		note_open(entry.nodeid, open.fh, false);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		if (len != sizeof(open))
			fuzz_fail("an open of %zu bytes", len);
		memcpy(&open, data, sizeof(open));
		note_open(p->node, open.fh, p->opcode == FUSE_OPENDIR);
		break;
	case FUSE_IOCTL:
		if (p->cmd == UM_IOC_TOKEN && len >= sizeof(talk.token))
			memcpy(talk.token, data + len - sizeof(talk.token), sizeof(talk.token));
		if (p->cmd == UM_IOC_CLONE)
			note_clone(data, len);
		break;
	default:
		break;
	}
}

static struct pending *pending_find(uint64_t unique)
{
	unsigned i;

	for (i = 0; i < PENDING; i++)
		if (pending[i].unique == unique)
			return &pending[i];
	return NULL;
}

/* Writes to /dev/fuse: a reply, or a notification, which has no number. */
static void take_answer(const uint8_t *bytes, size_t len)
{
	struct fuse_out_header out;
	struct pending *p;

	if (len < sizeof(out))
		fuzz_fail("an answer of %zu bytes", len);
	memcpy(&out, bytes, sizeof(out));
	if (out.len != len)
		fuzz_fail("an answer of %zu bytes says it has %u", len, out.len);
	if (!out.unique)
		return;
	if (out.error > 0 || out.error < -1000)
		fuzz_fail("an answer with error %d", out.error);
	if (out.error && len != sizeof(out))
		fuzz_fail("an error with %zu bytes", len);
	p = pending_find(out.unique);
	if (!p)
		fuzz_fail("a second answer, or one to no request");
	if (!out.error)
		note_answer(p, bytes + sizeof(out), len - sizeof(out));
	p->unique = 0;
	talk.answered++;
}

/* Replaces the C library's function, for libfuse's replies, through seam.c, and for its own. */
ssize_t writev(int fd, const struct iovec *iov, int n)
{
	static uint8_t buf[ANSWER_MAX]; /* under the lock */
	size_t len = 0;
	int i;

	if (fd != talk.m.dev)
		return syscall(SYS_writev, fd, iov, n);
	pthread_mutex_lock(&lock);
	for (i = 0; i < n; i++) {
		if (iov[i].iov_len > sizeof(buf) - len)
			fuzz_fail("an answer longer than any request asks for");
		memcpy(buf + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	take_answer(buf, len);
	pthread_mutex_unlock(&lock);
	return (ssize_t)len;
}

void talk_settle(void)
{
	const struct timespec step = {.tv_nsec = 20000};
	unsigned i, n, waited = 0;

	for (;;) {
		pthread_mutex_lock(&lock);
		for (i = n = 0; i < PENDING; i++)
			n += pending[i].unique != 0;
		pthread_mutex_unlock(&lock);
		if (!n)
			return;
		if (waited++ > ANSWER_SEC * 50000u / 4)
			fuzz_fail("%u requests have no answer", n);
		nanosleep(&step, NULL);
	}
}

/* ---- requests ---------------------------------------------------------------------------------------- */

void request_add(struct request *r, const void *bytes, size_t len)
{
	if (len > REQUEST_MAX - r->len)
		len = REQUEST_MAX - r->len;
	memcpy(r->bytes + r->len, bytes, len);
	r->len += len;
}

void request_begin(struct request *r, uint32_t opcode, uint64_t node, struct input *in)
{
	uint8_t who = take_8(in);
	struct fuse_in_header head = {.opcode = opcode,
		.nodeid = node,
		.uid = who & 1 ? 1000 : 0,
		.gid = who & 2 ? 1000 : 0,
		.pid = (uint32_t)getpid()};

	r->len = 0;
	request_add(r, &head, sizeof(head));
}

void request_send(struct request *r, bool answered)
{
	struct fuse_in_header *head = (void *)r->bytes;
	const struct fuse_ioctl_in *ioctl = (const void *)(head + 1);
	struct fuse_buf buf = {.size = r->len};
	struct pending *p;

	head->len = (uint32_t)r->len;
	head->unique = last_unique += 2;
	if (answered) {
		pthread_mutex_lock(&lock);
		p = pending_find(0);
		if (!p)
			fuzz_fail("too many requests without answer");
		*p = (struct pending){head->unique, head->opcode, 0, head->nodeid};
		if (head->opcode == FUSE_IOCTL)
			p->cmd = ioctl->cmd;
		pthread_mutex_unlock(&lock);
	}
	/* Memory of its own, so that reads beyond the end are detected. */
	buf.mem = malloc(r->len);
	if (!buf.mem)
		die("no memory");
	memcpy(buf.mem, r->bytes, r->len);
	if (!um_seam_request(&talk.m, buf.mem, buf.size))
		fuse_session_process_buf(talk.m.se, &buf);
	free(buf.mem);
	talk.sent++;
}

uint64_t pick_node(struct input *in)
{
	uint8_t which = take_8(in);

	if (which == 255)
		return take_64(in);
	return talk.node[which % NODES] ? talk.node[which % NODES] : UM_ROOT_NODE;
}

struct open_file pick_open(struct input *in)
{
	uint8_t which = take_8(in);

	if (which < 224 && talk.nopen)
		return talk.open[which % talk.nopen];
	return (struct open_file){.node = pick_node(in), .fh = which & 3};
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static void send_init(void)
{
	struct fuse_init_in init = {.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = 1 << 20,
		.flags = ~(uint32_t)FUSE_SPLICE_WRITE,
		.flags2 = UINT32_MAX};
	struct input none = {0};
	struct request r;

	request_begin(&r, FUSE_INIT, 0, &none);
	request_add(&r, &init, sizeof(init));
	request_send(&r, true);
	talk_settle();
	if (!talk.m.inited)
		fuzz_fail("INIT fails");
}

static void mount(void)
{
	struct umbra_options opt = {.atime = UMBRA_RELATIME, .shadow_mem = 1 << 20};
	int ret;

	um_reaper_manual = true;
	ret = umbra_open_image(image.base, POOL_SIZE, &opt, &talk.m.fs);
	if (ret)
		fuzz_fail("the pool cannot be mounted: %s", strerror(-ret));
	memset(talk.node, 0, sizeof(talk.node));
	talk.nopen = 0;
	talk.armed = 0;
	talk.node[0] = UM_ROOT_NODE;
}

static void unmount(void)
{
	int ret = 0;

	talk_settle();
	um_reaper_run(talk.m.fs);
	if (talk.nopen & 1)
		umbra_abandon(talk.m.fs);
	else
		ret = umbra_close(talk.m.fs);
	if (ret && ret != -EIO) /* shut down */
		fuzz_fail("the pool cannot be closed: %s", strerror(-ret));
	ret = base_check(&image, true, NULL);
	if (ret)
		fuzz_fail("fsck finds %d problems", ret);
	image_rollback(&image, 0);
}

void talk_start(void)
{
	char name[] = "fuzz", *argv[] = {name, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);

	base_make(&image, "standard");
	um_options_init(&options, false);
	options.share = UM_SHARE_OFF;
	talk.m =
		(struct um_mount){.opt = &options, .pool = "/pool", .dir = "/nowhere", .ended = -1};
	talk.m.dev = open("/dev/null", O_RDWR | O_CLOEXEC);
	talk.m.se = fuse_session_new(&args, &um_ops, sizeof(um_ops), &talk.m);
	if (talk.m.dev < 0 || !talk.m.se ||
		fuse_session_custom_io(talk.m.se, &um_seam_io, talk.m.dev) ||
		um_door_open(&talk.m, &talk.m.door))
		die("cannot begin a session");
	fuse_opt_free_args(&args);
	mount();
	send_init();
}

void talk_reset(void)
{
	struct um_door *door = talk.m.door;

	/* Tokens hold inodes of the pool that goes. */
	talk_settle();
	um_door_close(door);
	unmount();
	mount();
	if (um_door_open(&talk.m, &talk.m.door))
		die("cannot open the door");
}

void talk_end(void)
{
	um_door_close(talk.m.door);
	umbra_abandon(talk.m.fs);
	fuse_session_destroy(talk.m.se);
	image_close(&image);
}

void talk_report(void)
{
	printf("  %llu requests, %llu answers\n", (unsigned long long)talk.sent,
		(unsigned long long)talk.answered);
}
