/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory failure. A page of the pool's image is replaced by one beyond the end of an empty file:
 * every access to it raises SIGBUS, as failed memory does. A remount finds what is left after the
 * guard has put a page of zeros there.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "fs/failure.h"
#include "fs_fixture.h"

#define B 4096u
#define SMALL (24ull << 20)

#define ok(x) assert_int_equal(x, 0)

static const struct umbra_cred cred = {.umask = 022};

static void poison(void *image, uint64_t lba)
{
	int fd = memfd_create("bad", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_ptr_not_equal(mmap((uint8_t *)image + lba * B, B, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_FIXED, fd, 0),
		MAP_FAILED);
	close(fd);
}

static uint64_t new_inode(struct umbra_fs *fs, uint64_t dir, const char *name, mode_t mode)
{
	struct umbra_attr attr;

	ok(umbra_mknod(fs, dir, name, mode, 0, &cred, &attr));
	umbra_forget(fs, attr.st.st_ino, 1);
	return attr.st.st_ino;
}

static void fill(struct umbra_fs *fs, uint64_t ino, unsigned first, unsigned n, uint8_t byte)
{
	uint8_t buf[B];

	for (unsigned i = first; i < first + n; i++) {
		memset(buf, byte + (int)i, sizeof(buf));
		assert_int_equal(
			umbra_write(fs, ino, buf, B, (uint64_t)i * B, 0, NULL), sizeof(buf));
	}
}

/* The page as fill() left it: 0, or the error that reading it gives. */
static int page(struct umbra_fs *fs, uint64_t ino, unsigned i, uint8_t byte)
{
	uint8_t buf[B];
	ssize_t n = umbra_read(fs, ino, buf, B, (uint64_t)i * B);

	if (n < 0)
		return (int)n;
	for (unsigned at = 0; at < B; at++)
		if (n != B || buf[at] != (uint8_t)(byte + i))
			return -EBADMSG;
	return 0;
}

static int lba_one(void *arg, const struct umbra_extent *extent)
{
	*(uint64_t *)arg = extent->lba;
	return 1;
}

static uint64_t lba_of(struct umbra_fs *fs, uint64_t ino, unsigned i)
{
	uint64_t lba = 0;

	umbra_map(fs, ino, (uint64_t)i * B, B, lba_one, &lba);
	assert_true(lba != 0);
	return lba;
}

static struct umbra_event events[64];
static unsigned nevents;

static int event_one(void *arg, const struct umbra_event *event)
{
	(void)arg;
	if (nevents < 64)
		events[nevents] = *event;
	nevents++;
	return 0;
}

static struct umbra_health health(struct umbra_fs *fs)
{
	struct umbra_health h;

	umbra_failures_settle(fs);
	nevents = 0;
	ok(umbra_health(fs, &h, event_one, NULL));
	return h;
}

static uint64_t unused(struct umbra_fs *fs)
{
	struct statvfs vfs;

	ok(umbra_statfs(fs, &vfs));
	return vfs.f_bfree;
}

static uint64_t clone_of(struct umbra_fs *fs, uint64_t src, const char *name)
{
	uint64_t ino = new_inode(fs, ROOT, name, S_IFREG | 0644);

	ok(umbra_clone(fs, src, ino));
	return ino;
}

/* Pools with parity would have the bytes again. */
static int no_source(struct umbra_fs *fs, um_lba_t lba, void *out)
{
	(void)fs, (void)lba, (void)out;
	return -ENOENT;
}

static void quiet(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg, (void)level, (void)line;
}

/* ---- file data ------------------------------------------------------------------------------------- */

static void a_lost_page_is_lost_in_all_clones_until_it_is_written(void **state)
{
	struct fixture *f = fixture_new(FIXTURE_SIZE);
	uint64_t ino = new_inode(f->fs, ROOT, "f", S_IFREG | 0644), clone, lba, before;
	uint8_t whole[B];
	struct umbra_health h;

	(void)state;
	um_failure_source = no_source;
	fill(f->fs, ino, 0, 16, 1);
	clone = clone_of(f->fs, ino, "clone");
	lba = lba_of(f->fs, ino, 5);
	poison(f->image, lba);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(page(f->fs, ino, i, 1), i == 5 ? -EIO : 0);
		assert_int_equal(page(f->fs, clone, i, 1), i == 5 ? -EIO : 0);
	}
	/* A read that only touches a neighbour's bytes of it. */
	assert_int_equal(umbra_read(f->fs, ino, whole, 1, 6 * B - 1), -EIO);
	assert_int_equal(umbra_read(f->fs, ino, whole, B, 4 * B), B);
	h = health(f->fs);
	assert_int_equal(h.lost, 1);
	assert_int_equal(nevents, 1);
	assert_int_equal(events[0].done, UMBRA_DONE_LOST);
	assert_int_equal(events[0].lba, lba);
	assert_int_equal(events[0].owners, 2);
	assert_string_equal(events[0].owner[0].path, "/f");
	assert_string_equal(events[0].owner[1].path, "/clone");
	assert_int_equal(events[0].owner[0].off, 5 * B);

	/* The memory shows zeros now; the mark stands. */
	fixture_remount(f);
	assert_int_equal(page(f->fs, ino, 5, 1), -EIO);
	assert_int_equal(page(f->fs, clone, 5, 1), -EIO);
	assert_int_equal(umbra_write(f->fs, ino, "x", 1, 5 * B + 7, 0, NULL), -EIO);
	before = unused(f->fs);
	fill(f->fs, ino, 5, 1, 1);
	assert_int_equal(page(f->fs, ino, 5, 1), 0);
	assert_int_equal(page(f->fs, clone, 5, 1), -EIO);
	ok(umbra_unlink(f->fs, ROOT, "clone"));
	/* Only the block that took its place was needed, and the bad one is nobody's. */
	assert_true(unused(f->fs) <= before);
	for (int i = 0; i < 8; i++)
		h = health(f->fs);
	assert_int_equal(h.lost, 0);
	assert_int_equal(h.retired, 1);
	fixture_remount(f);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(page(f->fs, ino, i, 1), 0);
	h = health(f->fs);
	assert_int_equal(h.retired, 1);
	assert_int_equal(nevents, 1);
	um_failure_source = NULL;
	fixture_free(f);
}

static void holes_cuts_and_removal_give_up_lost_pages(void **state)
{
	struct fixture *f = fixture_new(FIXTURE_SIZE);
	uint64_t ino = new_inode(f->fs, ROOT, "f", S_IFREG | 0644);
	struct umbra_attr attr = {.st.st_size = 10 * B + 5};
	struct umbra_health h;
	uint8_t buf[B];

	(void)state;
	um_failure_source = no_source;
	fill(f->fs, ino, 0, 16, 1);
	poison(f->image, lba_of(f->fs, ino, 3));
	poison(f->image, lba_of(f->fs, ino, 10));
	poison(f->image, lba_of(f->fs, ino, 15));
	assert_int_equal(page(f->fs, ino, 3, 1), -EIO);
	assert_int_equal(page(f->fs, ino, 10, 1), -EIO);
	assert_int_equal(page(f->fs, ino, 15, 1), -EIO);
	assert_int_equal(health(f->fs).lost, 3);
	ok(umbra_fallocate(f->fs, ino, 3 /* PUNCH_HOLE | KEEP_SIZE */, 3 * B, B));
	assert_int_equal(umbra_read(f->fs, ino, buf, B, 3 * B), B);
	/* Inside of a lost page: it stays lost, and shows nothing when the file grows again. */
	ok(umbra_setattr(f->fs, ino, &attr, UMBRA_SET_SIZE, &attr));
	attr.st.st_size = 12 * B;
	ok(umbra_setattr(f->fs, ino, &attr, UMBRA_SET_SIZE, &attr));
	assert_int_equal(umbra_read(f->fs, ino, buf, B, 10 * B), -EIO);
	assert_int_equal(umbra_read(f->fs, ino, buf, B, 11 * B), B);
	fixture_remount(f);
	ok(umbra_unlink(f->fs, ROOT, "f"));
	fixture_remount(f);
	unused(f->fs);
	for (int i = 0; i < 8; i++)
		h = health(f->fs);
	assert_int_equal(h.lost, 0);
	assert_int_equal(h.retired, 3);
	fixture_remount(f);
	um_failure_source = NULL;
	fixture_free(f);
}

/* Some pages, each of one byte, can be made again. */
static unsigned rebuilt;
static uint64_t source_lba[16];
static uint8_t source_byte[16];
static int rebuild(struct umbra_fs *fs, um_lba_t lba, void *out)
{
	(void)fs;
	for (unsigned i = 0; i < 16; i++) {
		if (source_lba[i] != lba)
			continue;
		memset(out, source_byte[i], B);
		rebuilt++;
		return 0;
	}
	return -ENOENT;
}

static void a_block_of_many_clones_is_made_again_once(void **state)
{
	struct fixture *f = fixture_new(FIXTURE_SIZE);
	uint64_t ino = new_inode(f->fs, ROOT, "f", S_IFREG | 0644), used;
	static uint64_t clone[2000];
	struct umbra_health h;
	char name[16];

	(void)state;
	fill(f->fs, ino, 0, 16, 1);
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		clone[i] = clone_of(f->fs, ino, name);
	}
	for (unsigned i = 0; i < 16; i++) {
		source_lba[i] = lba_of(f->fs, ino, i);
		source_byte[i] = (uint8_t)(1 + i);
	}
	rebuilt = 0;
	um_failure_source = rebuild;
	used = unused(f->fs);
	poison(f->image, source_lba[7]);
	for (unsigned i = 0; i < 2000; i++)
		ok(page(f->fs, clone[i], 7, 1));
	assert_int_equal(rebuilt, 1);
	h = health(f->fs);
	assert_int_equal(h.moved, 1);
	assert_int_equal(nevents, 1);
	assert_int_equal(events[0].done, UMBRA_DONE_MOVED);
	assert_int_equal(events[0].owners, 2001);
	assert_true(used > unused(f->fs));
	fixture_remount(f);
	for (unsigned i = 0; i < 2000; i += 37)
		ok(page(f->fs, clone[i], 7, 1));
	/* Overwritten in place, where it is now, by its only owner. */
	ino = new_inode(f->fs, ROOT, "own", S_IFREG | 0644);
	fill(f->fs, ino, 0, 4, 9);
	source_lba[0] = lba_of(f->fs, ino, 2);
	source_byte[0] = 9 + 2;
	poison(f->image, source_lba[0]);
	assert_int_equal(umbra_read(f->fs, ino, name, 1, 2 * B), 1);
	assert_int_equal(rebuilt, 2);
	fill(f->fs, ino, 2, 1, 9);
	ok(page(f->fs, ino, 2, 9));
	fixture_crash(f);
	ok(page(f->fs, ino, 2, 9));
	/* And bad there too. */
	h = health(f->fs);
	poison(f->image, events[nevents - 1].other);
	assert_int_equal(umbra_read(f->fs, ino, name, 1, 2 * B), 1);
	assert_int_equal(name[0], 9 + 2);
	assert_int_equal(rebuilt, 3);
	fixture_remount(f);
	assert_int_equal(umbra_read(f->fs, ino, name, 1, 2 * B), 1);
	h = health(f->fs);
	assert_int_equal(h.retired, 1);
	um_failure_source = NULL;
	fixture_free(f);
}

static void writes_go_around_memory_that_fails_under_them(void **state)
{
	struct fixture *f = fixture_new(FIXTURE_SIZE);
	uint64_t ino = new_inode(f->fs, ROOT, "f", S_IFREG | 0644), before;
	struct umbra_health h;
	uint64_t lba;

	(void)state;
	fill(f->fs, ino, 0, 4, 1);
	lba = lba_of(f->fs, ino, 3);
	/* The free blocks behind, where the file is about to grow; and one of its own. */
	before = unused(f->fs);
	poison(f->image, lba + 1);
	poison(f->image, lba + 3);
	poison(f->image, lba_of(f->fs, ino, 1));
	fill(f->fs, ino, 0, 8, 5);
	for (unsigned i = 0; i < 8; i++)
		ok(page(f->fs, ino, i, 5));
	h = health(f->fs);
	assert_int_equal(h.lost, 0);
	assert_int_equal(h.retired, 3);
	/* The events' first node and its mirror took two more. */
	assert_int_equal(before - unused(f->fs), 4 + 3 + 2);
	assert_int_equal(nevents, 3);
	fixture_remount(f);
	for (unsigned i = 0; i < 8; i++)
		ok(page(f->fs, ino, i, 5));
	fixture_free(f);
}

/* The record of bad blocks without a good copy: what is in memory has it all. */
static void records_that_are_lost_are_written_anew(void **state)
{
	struct fixture *f = fixture_new(FIXTURE_SIZE);
	uint64_t ino = new_inode(f->fs, ROOT, "f", S_IFREG | 0644), dir;
	struct umbra_health h, after;
	char name[64];
	struct um_tree tree;

	(void)state;
	um_failure_source = no_source;
	umbra_log_to(quiet, NULL);
	fill(f->fs, ino, 0, 16, 1);
	dir = new_inode(f->fs, ROOT, "dir", S_IFDIR | 0755);
	for (unsigned i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "file-with-a-longer-name-%u", i);
		new_inode(f->fs, dir, name, S_IFREG | 0644);
	}
	poison(f->image, lba_of(f->fs, ino, 5));
	assert_int_equal(page(f->fs, ino, 5, 1), -EIO);
	for (int which = UM_ROOT_INODES; which <= UM_ROOT_ORPHANS; which++) {
		ok(um_root_tree(um_fs_src(f->fs), (enum um_root_which)which, &tree));
		if (tree.root.format == UM_ROOT_NODE)
			um_pool_set_lost(f->fs->pool, tree.root.ptr.lba, 1);
	}
	h = health(f->fs);
	assert_int_equal(h.lost, 1);
	assert_true(h.moved >= 1);
	for (int memory = 0; memory < 2; memory++) {
		ok(um_root_tree(um_fs_src(f->fs), UM_ROOT_BADS, &tree));
		if (memory) {
			um_pool_set_lost(f->fs->pool, tree.root.ptr.lba, 1);
			um_pool_set_lost(f->fs->pool, tree.root.ptr.mirror, 1);
		} else {
			memset((uint8_t *)f->image + tree.root.ptr.lba * B + 100, 7, 8);
			memset((uint8_t *)f->image + tree.root.ptr.mirror * B + 100, 7, 8);
			um_pool_mark(f->fs->pool, tree.root.ptr.lba, 1, false);
			um_pool_mark(f->fs->pool, tree.root.ptr.mirror, 1, false);
			assert_int_not_equal(page(f->fs, ino, 5, 1), 0);
			um_bad_get(um_fs_src(f->fs), 1, &(struct um_bad){0});
		}
		for (int i = 0; i < 4; i++)
			after = health(f->fs);
		assert_int_equal(after.lost, h.lost);
		assert_int_equal(after.moved, h.moved);
		fixture_remount(f);
		for (unsigned i = 0; i < 16; i++)
			assert_int_equal(page(f->fs, ino, i, 1), i == 5 ? -EIO : 0);
		after = health(f->fs);
		assert_int_equal(after.lost, h.lost);
		assert_int_equal(after.moved, h.moved);
	}
	um_failure_source = NULL;
	umbra_log_to(NULL, NULL);
	fixture_free(f);
}

/* However many bad blocks lie where it would go, an operation gets around them. */
static void one_write_goes_around_any_number_of_bad_blocks(void **state)
{
	struct fixture *f = fixture_new(FIXTURE_SIZE);
	uint64_t ino = new_inode(f->fs, ROOT, "f", S_IFREG | 0644), lba;
	static uint8_t buf[64 * B], back[64 * B];

	(void)state;
	umbra_log_to(quiet, NULL);
	fill(f->fs, ino, 0, 1, 1);
	lba = lba_of(f->fs, ino, 0);
	for (unsigned i = 1; i < 200; i++)
		if (i % 3)
			poison(f->image, lba + i);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(umbra_write(f->fs, ino, buf, sizeof(buf), B, 0, NULL), sizeof(buf));
	assert_int_equal(umbra_read(f->fs, ino, back, sizeof(back), B), sizeof(back));
	assert_memory_equal(buf, back, sizeof(buf));
	umbra_log_to(NULL, NULL);
	fixture_free(f);
}

/* Retired and found again at each mount: by the kernel's list, say. */
#define MANY 300u
static void blocks_that_are_listed_at_each_mount_are_told_of_once(void **state)
{
	struct fixture *f = fixture_new(FIXTURE_SIZE);
	struct umbra_health h;
	um_lba_t listed = 20 * UM_CHUNK_BLOCKS;
	uint64_t told;

	(void)state;
	umbra_log_to(quiet, NULL);
	um_pool_set_lost(f->fs->pool, listed, MANY);
	for (int i = 0; i < 4; i++)
		h = health(f->fs);
	told = nevents;
	assert_int_equal(h.retired, MANY);
	assert_int_equal(told, MANY);
	fixture_remount(f);
	um_failures_stop(f->fs);
	um_pool_set_lost(f->fs->pool, listed, MANY);
	ok(um_failures_start(f->fs));
	for (int i = 0; i < 4; i++)
		h = health(f->fs);
	assert_int_equal(h.retired, MANY);
	assert_int_equal(nevents, told);
	umbra_log_to(NULL, NULL);
	fixture_free(f);
}

/* ---- every block of a pool ---------------------------------------------------------------------------- */

/* Something of everything. */
static uint64_t plain, shared;
static void populate(struct umbra_fs *fs)
{
	uint64_t dir = new_inode(fs, ROOT, "dir", S_IFDIR | 0755), ino;
	char name[64], value[3000];

	for (unsigned i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "file-with-a-longer-name-%u", i);
		ino = new_inode(fs, dir, name, S_IFREG | 0644);
	}
	memset(value, 'v', sizeof(value));
	ok(umbra_setxattr(fs, ino, "user.a", value, sizeof(value), 0, false));
	ok(umbra_setxattr(fs, ino, "user.b", value, sizeof(value), 0, false));
	plain = new_inode(fs, ROOT, "plain", S_IFREG | 0644);
	for (unsigned i = 0; i < 300; i++)
		fill(fs, plain, 2 * i, 1, 1);
	shared = clone_of(fs, plain, "shared");
}

enum outcome { LOST = 10, MOVED, REWRITTEN, RETIRED, ONE_COPY, NOTHING, WRONG = 99 };

#define must(x)                                                                                    \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "block %llu: line %d: %s\n", (unsigned long long)lba,      \
				__LINE__, #x);                                                     \
			_exit(WRONG);                                                              \
		}                                                                                  \
	} while (0)

static int count_names(
	void *arg, const char *name, uint64_t ino, unsigned char type, uint64_t cookie)
{
	(void)name, (void)ino, (void)type, (void)cookie;
	++*(unsigned *)arg;
	return 0;
}

/* All that populate() made: how many pages cannot be read. Everything else must be right. */
static unsigned look(struct umbra_fs *fs, uint64_t lba)
{
	struct umbra_attr dir, attr;
	unsigned names = 0, lost = 0;
	char name[64], value[3000];

	must(!umbra_lookup(fs, ROOT, "dir", &dir));
	umbra_forget(fs, dir.st.st_ino, 1);
	for (unsigned i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "file-with-a-longer-name-%u", i);
		must(!umbra_lookup(fs, dir.st.st_ino, name, &attr));
		umbra_forget(fs, attr.st.st_ino, 1);
	}
	must(umbra_getxattr(fs, attr.st.st_ino, "user.a", value, sizeof(value)) == 3000);
	must(umbra_getxattr(fs, attr.st.st_ino, "user.b", value, sizeof(value)) == 3000);
	must(!umbra_readdir(fs, dir.st.st_ino, 0, count_names, &names) && names == 402);
	for (unsigned i = 0; i < 300; i++) {
		int a = page(fs, plain, 2 * i, 1), b = page(fs, shared, 2 * i, 1);

		must(a == b && (!a || a == -EIO));
		lost += a != 0;
	}
	return lost;
}

static void show(void *arg, const char *code, bool repaired, const char *text)
{
	(void)arg, (void)repaired;
	fprintf(stderr, "%s: %s\n", code, text);
}

/* In a process of its own, on a copy of the pool. */
static void try_block(void *image, uint64_t size, uint64_t lba)
{
	struct umbra_check_report report;
	struct umbra_attr attr;
	struct umbra_health h;
	struct umbra_fs *fs;
	unsigned lost;
	int kept;

	umbra_log_to(quiet, NULL);
	must(!umbra_open_image(image, size, NULL, &fs));
	poison(image, lba);
	lost = look(fs, lba);
	must(lost <= !test_feature("parity"));
	must(!umbra_mknod(fs, ROOT, "new", S_IFREG | 0644, 0, &cred, &attr));
	must(umbra_write(fs, attr.st.st_ino, "new", 3, 9000, 0, NULL) == 3);
	must(!umbra_rename(fs, ROOT, "new", ROOT, "newer", 0));
	/* Whoever has not met it yet: a scrub. */
	um_guard_touch((uint8_t *)image + lba * B, B);
	h = health(fs);
	must(nevents <= 1 && h.lost == lost);
	must(look(fs, lba) == lost);
	kept = nevents ? (int)events[0].done : 0;
	must(!nevents || events[0].lba == lba);
	must(!lost || (nevents && events[0].owners == 2));
	must(!umbra_close(fs));
	must(!umbra_check_image(image, size, UMBRA_CHECK_ONLY,
		kept == UMBRA_DONE_ONE_COPY ? NULL : show, NULL, &report));
	/* A table's other copy is for fsck to write again, where memory cannot be made good. */
	if (kept == UMBRA_DONE_ONE_COPY)
		must(!umbra_check_image(image, size, UMBRA_CHECK_PREEN, NULL, NULL, &report) &&
			!report.unrepaired);
	else
		must(!report.problems);
	must(!umbra_open_image(image, size, NULL, &fs));
	must(look(fs, lba) == lost);
	h = health(fs);
	must(h.lost == lost && nevents == (unsigned)!!kept);
	must(!umbra_close(fs));
	_exit(kept ? LOST + kept - 1 : NOTHING);
}

static void every_block_can_fail(void **state)
{
	const char *every = getenv("UMBRA_EVERY_BLOCK");
	struct fixture *f = fixture_new(SMALL);
	bool slow = test_feature("parity");
	unsigned tried = 0, count[NOTHING + 1] = {0};
	unsigned first = slow ? 3 : 8, step = every && *every ? 1 : slow ? 97 : 41;
	int status;

	(void)state;
	populate(f->fs);
	ok(umbra_close(f->fs));
	for (uint64_t lba = 0; lba < SMALL / B; lba++) {
		pid_t pid;

		/* The first of each chunk have the tables, nodes and data; then a sample. */
		if (lba % 512 > first && lba % step)
			continue;
		pid = fork();
		assert_true(pid >= 0);
		if (!pid)
			try_block(f->image, f->size, lba);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status) < LOST ||
			WEXITSTATUS(status) > NOTHING)
			fail_msg("block %llu: status %x", (unsigned long long)lba, status);
		count[WEXITSTATUS(status)]++;
		tried++;
	}
	print_message("%u blocks: data lost %u, moved %u, rewritten %u, retired while free %u, "
		      "one copy left %u, not in use %u\n",
		tried, count[LOST], count[MOVED], count[REWRITTEN], count[RETIRED], count[ONE_COPY],
		count[NOTHING]);
	assert_true(!count[LOST] == test_feature("parity"));
	assert_true(count[MOVED] && count[RETIRED] && count[ONE_COPY]);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lost_page_is_lost_in_all_clones_until_it_is_written),
		cmocka_unit_test(holes_cuts_and_removal_give_up_lost_pages),
		cmocka_unit_test(a_block_of_many_clones_is_made_again_once),
		cmocka_unit_test(writes_go_around_memory_that_fails_under_them),
		cmocka_unit_test(records_that_are_lost_are_written_anew),
		cmocka_unit_test(one_write_goes_around_any_number_of_bad_blocks),
		cmocka_unit_test(blocks_that_are_listed_at_each_mount_are_told_of_once),
		cmocka_unit_test(every_block_can_fail),
	};

	um_reaper_manual = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
