/* SPDX-License-Identifier: BSD-3-Clause */
/* mkfs on plain files: what it makes, what it refuses, what it leaves behind when it fails. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/failure.h"
#include "fs/mkfs_int.h"
#include "umbra/check.h"
#include "umbra/umbra.h"

#define MIB (1ull << 20)

static char dir[] = "/tmp/umbra-mkfs-XXXXXX", path[64], last_line[512];

static void keep_line(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	snprintf(last_line, sizeof(last_line), "%s", line);
}

static int setup(void **state)
{
	(void)state;
	umbra_log_to(keep_line, NULL);
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/pool", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

static int each(void **state)
{
	(void)state;
	unlink(path);
	last_line[0] = 0;
	return 0;
}

static void assert_sound(void)
{
	struct umbra_check_report report;

	assert_int_equal(umbra_check(path, UMBRA_CHECK_ONLY, NULL, NULL, &report), 0);
	assert_int_equal(report.problems, 0);
	assert_int_equal(report.inodes, 1);
}

static void a_file_is_made_private_and_takes_its_space(void **state)
{
	struct umbra_mkfs_options opt = {.size = 20 * MIB, .label = "a label"};
	struct umbra_info info;
	struct stat st;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, 20 * MIB);
	assert_true((uint64_t)st.st_blocks * 512 >= 20 * MIB);
	assert_string_equal(info.label, "a label");
	assert_int_equal(info.copies, 2);
	assert_int_equal(info.inodes, 1);
	assert_true(info.clean);
	assert_sound();
}

static void a_sparse_file_takes_what_is_written_and_the_journal(void **state)
{
	struct umbra_mkfs_options opt = {.size = 4096 * MIB, .sparse = true, .copies = 1};
	struct umbra_info info;
	struct stat st;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 >= info.journal_bytes);
	assert_true((uint64_t)st.st_blocks * 512 < info.journal_bytes + 4 * MIB);
	assert_int_equal(info.copies, 1);
	assert_int_equal(info.journal_bytes, 64 * MIB);
	assert_sound();
}

static void sizes_are_rounded_down_to_chunks(void **state)
{
	struct umbra_mkfs_options opt = {.size = 19 * MIB + 5};
	struct umbra_info info;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.size, 18 * MIB);
	assert_sound();
}

static void a_tail_too_short_for_a_group_is_left_out(void **state)
{
	struct umbra_mkfs_options opt = {.size = (504 + 3) * 2 * MIB, .sparse = true};
	struct umbra_info info;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.size, 504 * 2 * MIB);
	assert_sound();
}

static void what_is_too_small_is_refused_and_leaves_no_file(void **state)
{
	struct umbra_mkfs_options opt = {.size = 16 * MIB - 1};

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -ENOSPC);
	assert_non_null(strstr(last_line, "at least 16 MiB"));
	assert_int_equal(access(path, F_OK), -1);
	opt.size = 0;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -ENOENT);
	assert_int_equal(access(path, F_OK), -1);
}

static void a_dry_run_makes_nothing(void **state)
{
	struct umbra_mkfs_options opt = {.size = 64 * MIB, .dry_run = true};
	struct umbra_info info;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.size, 64 * MIB);
	assert_int_equal(access(path, F_OK), -1);
}

static void a_pool_is_overwritten_by_force_only(void **state)
{
	struct umbra_mkfs_options opt = {.size = 16 * MIB, .label = "first"};
	struct umbra_info info;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	opt.label = "second";
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -EEXIST);
	assert_non_null(strstr(last_line, "first"));
	assert_int_equal(umbra_info_pool(path, &info), 0);
	assert_string_equal(info.label, "first");
	opt.force = true;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_string_equal(info.label, "second");
	assert_sound();
}

static void a_pool_in_use_is_refused_even_by_force(void **state)
{
	struct umbra_mkfs_options opt = {.size = 16 * MIB, .force = true};
	struct um_pool *pool;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	assert_int_equal(um_pool_open(path, UM_POOL_EXCL, 0, &pool), 0);
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -EBUSY);
	um_pool_close(pool);
	assert_sound();
}

static void a_foreign_signature_is_refused_and_by_force_wiped(void **state)
{
	struct umbra_mkfs_options opt = {.size = 32 * MIB};
	/* A swap area's signature is the simplest that libblkid believes. */
	static const char swap[] = "SWAPSPACE2";
	uint32_t header[3] = {1, 8191, 0};
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	char back[sizeof(swap)];

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 32 * MIB), 0);
	assert_int_equal(pwrite(fd, swap, 10, 4086), 10);
	assert_int_equal(pwrite(fd, header, sizeof(header), 1024), sizeof(header));
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -EEXIST);
	assert_non_null(strstr(last_line, "swap"));
	assert_int_equal(pread(fd, back, 10, 4086), 10);
	assert_memory_equal(back, swap, 10);
	opt.force = true;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	assert_int_equal(pread(fd, back, 10, 4086), 10);
	assert_memory_not_equal(back, swap, 10);
	close(fd);
	assert_sound();
}

static void a_larger_file_keeps_its_length(void **state)
{
	struct umbra_mkfs_options opt = {.size = 16 * MIB};
	struct umbra_info info;
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	(void)state;
	assert_int_equal(ftruncate(fd, 40 * MIB), 0);
	close(fd);
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.size, 16 * MIB);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 40 * MIB);
	assert_sound();
}

struct interrupted {
	uint8_t *image;
	unsigned looks;
};

/* Called from within mkfs: what is there now is what an mkfs killed here would leave. */
static void look_at_image(void *arg, uint64_t done, uint64_t total)
{
	struct interrupted *at = arg;
	struct um_pool *pool;

	if (!done || done >= total)
		return;
	assert_int_equal(
		um_pool_open_image(at->image, 16 * MIB, UM_POOL_RDONLY, &pool), -EMEDIUMTYPE);
	at->looks++;
}

static void an_interrupted_mkfs_leaves_no_pool(void **state)
{
	struct interrupted at = {.image = calloc(1, 16 * MIB)};
	struct umbra_mkfs_options opt = {.label = "old"};
	struct um_pool *pool;

	(void)state;
	assert_int_equal(umbra_mkfs_image(at.image, 16 * MIB, &opt), 0);
	opt.progress = look_at_image;
	opt.arg = &at;
	assert_int_equal(umbra_mkfs_image(at.image, 16 * MIB, &opt), 0);
	assert_true(at.looks > 0);
	assert_int_equal(um_pool_open_image(at.image, 16 * MIB, UM_POOL_RDONLY, &pool), 0);
	um_pool_close(pool);
	free(at.image);
}

/* A daemon that died without a checkpoint left the truth in the journal. */
static void info_of_a_crashed_pool_says_not_clean(void **state)
{
	struct umbra_mkfs_options opt = {.size = 16 * MIB};
	struct umbra_attr attr;
	struct umbra_info info;
	struct umbra_fs *fs;

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	assert_int_equal(umbra_open(path, NULL, &fs), 0);
	assert_int_equal(umbra_mknod(fs, 1, "file", S_IFREG | 0600, 0, NULL, &attr), 0);
	umbra_abandon(fs);
	assert_int_equal(umbra_info_pool(path, &info), 0);
	assert_false(info.clean);
	assert_int_equal(info.inodes, 2);
}

static void bad_options_are_refused(void **state)
{
	struct umbra_mkfs_options opt = {.size = 16 * MIB, .copies = 3};
	char label[66];

	(void)state;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -EINVAL);
	memset(label, 'x', 65);
	label[65] = 0;
	opt.copies = 0;
	opt.label = label;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -ENAMETOOLONG);
	label[64] = 0;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	assert_sound();
}

/* ---- blocks that the pool before knew to be bad -------------------------------------------------------- */

static void retire(struct umbra_fs *fs, um_lba_t lba)
{
	struct um_txn *txn;

	assert_int_equal(um_space_take_at(fs->space, lba), 0);
	assert_int_equal(um_txn_begin(fs->log, UM_TXN_RESERVE, &txn), 0);
	assert_int_equal(um_txn_end(txn, um_ref_retire(txn, lba)), 0);
}

static void record(struct umbra_fs *fs, um_lba_t lba, uint32_t flags)
{
	const struct um_bad bad = {.flags = flags};
	struct um_txn *txn;

	assert_int_equal(um_txn_begin(fs->log, UM_TXN_RESERVE, &txn), 0);
	assert_int_equal(um_txn_end(txn, um_bad_put(txn, lba, &bad)), 0);
}

static struct umbra_fs *made_and_open(const struct umbra_mkfs_options *opt)
{
	struct umbra_fs *fs;

	assert_int_equal(umbra_mkfs(path, opt, NULL), 0);
	assert_int_equal(umbra_open(path, NULL, &fs), 0);
	return fs;
}

static bool kept(um_lba_t lba)
{
	struct um_badset set = {0};
	bool found = false;

	assert_int_equal(um_badset_load(path, &set), 0);
	for (size_t i = 0; i < set.n; i++)
		found |= set.lba[i] == lba;
	um_badset_free(&set);
	return found;
}

#define AT(chunk, block) ((um_lba_t)(chunk)*UM_CHUNK_BLOCKS + (block))

static void bad_blocks_outlive_the_pool_that_knew_them(void **state)
{
	struct umbra_mkfs_options opt = {.size = 32 * MIB, .force = true};
	struct umbra_fs *fs = made_and_open(&opt);
	struct umbra_info info;

	(void)state;
	retire(fs, AT(3, 7));
	retire(fs, AT(3, 8));
	record(fs, AT(4, 100), UM_BAD_LOST);
	record(fs, AT(4, 101), UM_BAD_LOST | UM_BAD_WRONG);
	/* The list is in the journal as yet. */
	umbra_abandon(fs);
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.retired, 3);
	assert_true(kept(AT(3, 7)) && kept(AT(3, 8)) && kept(AT(4, 100)));
	assert_false(kept(AT(4, 101)));
	assert_sound();
	/* Again, and then not. */
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.retired, 3);
	opt.forget_bad = true;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.retired, 0);
	assert_sound();
}

static void tables_and_journal_of_the_new_pool_get_around_bad_blocks(void **state)
{
	struct umbra_mkfs_options opt = {.size = 40 * MIB, .force = true};
	struct umbra_fs *fs = made_and_open(&opt);
	struct um_pool *pool;
	struct umbra_info info;

	(void)state;
	/* Of 32 MiB with both features: 14 is the checksums' mirror, 13 and 12 parity, 2 has the journal, 11 its copy. */
	retire(fs, AT(14, 1));
	retire(fs, AT(14, 300));
	retire(fs, AT(12, 5));
	retire(fs, AT(2, 3));
	retire(fs, AT(2, 200));
	retire(fs, AT(11, 511));
	retire(fs, AT(17, 9));
	assert_int_equal(umbra_close(fs), 0);
	opt.size = 32 * MIB;
	opt.data_csum = opt.parity = true;
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_non_null(strstr(last_line, "behind the end"));
	assert_int_equal(info.retired, 3);
	assert_true(kept(AT(2, 3)) && kept(AT(2, 200)) && kept(AT(11, 511)));
	assert_sound();
	assert_int_equal(um_pool_open(path, UM_POOL_EXCL, 0, &pool), 0);
	assert_int_equal(pool->super.journal_lba, AT(2, 201));
	assert_int_equal(pool->super.journal_mirror + pool->super.journal_blocks, AT(11, 511));
	um_pool_close(pool);
}

/* Nothing is written before it is known that it can be done. */
static void bad_blocks_that_leave_no_room_are_said(void **state)
{
	struct umbra_mkfs_options opt = {.size = 16 * MIB, .label = "old"};
	struct umbra_fs *fs = made_and_open(&opt);
	struct umbra_info info;

	(void)state;
	for (um_lba_t lba = AT(1, 400); lba < AT(6, 256); lba += 200)
		retire(fs, lba);
	assert_int_equal(umbra_close(fs), 0);
	opt.force = opt.parity = opt.data_csum = true;
	opt.label = "new";
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -ENOSPC);
	assert_non_null(strstr(last_line, "no room for a journal"));
	assert_int_equal(umbra_info_pool(path, &info), 0);
	assert_string_equal(info.label, "old");
	assert_sound();
}

static void scribble(um_lba_t lba)
{
	int fd = open(path, O_RDWR);

	assert_int_equal(pwrite(fd, "scribble", 8, (off_t)(lba * UM_BLOCK_SIZE + 100)), 8);
	close(fd);
}

static void a_list_that_cannot_be_read_is_not_forgotten_unsaid(void **state)
{
	/* Both copies of: the superblock, the words, a page of counts. One copy is enough. */
	static const um_lba_t block[] = {0, UM_TABLE_AG, UM_TABLE_REF + 3};
	struct umbra_mkfs_options opt = {.size = 32 * MIB};
	struct umbra_info info;
	struct umbra_fs *fs;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		opt.force = opt.forget_bad = i > 0;
		fs = made_and_open(&opt);
		retire(fs, AT(3, 7));
		assert_int_equal(umbra_close(fs), 0);
		opt.force = true;
		opt.forget_bad = false;
		scribble(block[i]);
		assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
		assert_int_equal(info.retired, 1);
		scribble(block[i]);
		scribble(AT(15, block[i]));
		opt.label = "new";
		assert_int_equal(umbra_mkfs(path, &opt, NULL), -EUCLEAN);
		assert_non_null(strstr(last_line, "--forget-bad"));
		opt.forget_bad = true;
		assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
		assert_int_equal(info.retired, 0);
		assert_sound();
	}
}

/* That the journal of the old pool is replayed, in a private mapping, is nobody's business. */
static void an_old_pool_is_asked_in_silence(void **state)
{
	struct umbra_mkfs_options opt = {.size = 32 * MIB};
	struct umbra_attr attr;
	struct umbra_fs *fs;

	(void)state;
	fs = made_and_open(&opt);
	assert_int_equal(umbra_mknod(fs, 1, "file", S_IFREG | 0600, 0, NULL, &attr), 0);
	umbra_abandon(fs);
	last_line[0] = 0;
	opt.force = true;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	assert_string_equal(last_line, "");
}

/* A filesystem that had a pool in a file is not a pool. */
static void an_image_of_a_pool_in_a_file_is_no_pool(void **state)
{
	struct umbra_mkfs_options opt = {.size = 32 * MIB};
	uint8_t *image = malloc(32 * MIB), zeros[UM_BLOCK_SIZE] = {0};
	struct umbra_info info;
	int fd;

	(void)state;
	assert_non_null(image);
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, image, 32 * MIB, 0), 32 * MIB);
	assert_return_code(unlink(path), errno);
	close(fd);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_return_code(ftruncate(fd, 64 * MIB), errno);
	assert_int_equal(pwrite(fd, image, 32 * MIB, 8 * MIB), 32 * MIB);
	assert_int_equal(umbra_info_pool(path, &info), -EMEDIUMTYPE);
	assert_non_null(strstr(last_line, "is not an umbrafs pool"));
	opt.size = 0;
	opt.force = true;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), 0);
	assert_sound();
	/* Where a second superblock belongs it is one, even if the first is gone. */
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	opt.force = false;
	assert_int_equal(umbra_mkfs(path, &opt, NULL), -EEXIST);
	close(fd);
	free(image);
}

static uint64_t progressed, die_at;

static void die(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	(void)done;
	(void)total;
	if (progressed++ == die_at)
		_exit(0);
}

/* In a process of its own, which dies at a step of it. True: there were not so many. */
static bool mkfs_dies(struct umbra_mkfs_options opt, uint64_t step)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		die_at = step;
		opt.progress = die;
		_exit(umbra_mkfs(path, &opt, NULL) ? 2 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status);
}

/* Also twice, also by somebody who does not know that there was a pool, also when all of the note is in the second copy. */
static void an_mkfs_that_dies_does_not_forget_bad_blocks(void **state)
{
	struct umbra_mkfs_options opt = {.size = 1100 * MIB, .force = true, .sparse = true};
	uint64_t step, counted;
	struct umbra_info info;
	bool ended = false;

	(void)state;
	for (step = 0; !ended; step++) {
		struct umbra_fs *fs = made_and_open(&opt);

		retire(fs, AT(30, 7));
		retire(fs, AT(30, 8));
		for (um_lba_t i = 0; i < 600; i++)
			record(fs, AT(40, 2 * i), UM_BAD_LOST);
		assert_int_equal(umbra_close(fs), 0);
		ended = mkfs_dies(opt, step);
		if (step % 2)
			mkfs_dies(opt, step);
		if (step == 2)
			scribble(UM_TABLE_NOTE);
		opt.force = step != 1;
		assert_int_equal(umbra_mkfs(path, &opt, &info), step == 1 && ended ? -EEXIST : 0);
		opt.force = true;
		assert_int_equal(info.retired, 602);
		assert_sound();
		/* The pool that is whole needs no note. */
		opt.forget_bad = true;
		assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
		opt.forget_bad = false;
		assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
		assert_int_equal(info.retired, 0);
	}
	counted = step;
	assert_true(counted >= 4);
}

/* The pool with the note cannot be read: the note is sufficient. Without one mkfs refuses (above). */
static void a_note_is_enough_when_the_pool_cannot_be_asked(void **state)
{
	struct umbra_mkfs_options opt = {.size = 32 * MIB, .force = true};
	struct umbra_fs *fs = made_and_open(&opt);
	struct umbra_info info;

	(void)state;
	retire(fs, AT(3, 7));
	assert_int_equal(umbra_close(fs), 0);
	assert_false(mkfs_dies(opt, 0));
	assert_int_equal(umbra_info_pool(path, &info), 0);
	assert_int_equal(info.retired, 1);
	/* What is found later counts as well, as long as it can be read. */
	assert_int_equal(umbra_open(path, NULL, &fs), 0);
	retire(fs, AT(3, 9));
	assert_int_equal(umbra_close(fs), 0);
	assert_false(mkfs_dies(opt, 0));
	scribble(UM_TABLE_AG);
	scribble(AT(15, UM_TABLE_AG));
	assert_int_equal(umbra_mkfs(path, &opt, &info), 0);
	assert_int_equal(info.retired, 2);
	assert_true(kept(AT(3, 7)) && kept(AT(3, 9)));
	assert_sound();
}

/* The first blocks of each chunk: mkfs writes its tables there. */
#define HEAD_BYTES (8u * UM_BLOCK_SIZE)

static struct watch {
	const struct um_pool_ops *real;
	struct um_pool *pool; /* the new one */
	const struct um_badset *bad;
	uint8_t uuid[16]; /* of the old one */
	uint8_t *before;
	uint64_t chunks;
	unsigned looks, found, noted;
} watch;

static int open_old(struct um_pool **out)
{
	int ret = um_pool_open(path, UM_POOL_RDONLY | UM_POOL_PRIVATE | UM_POOL_NOLOCK, 0, out);

	if (!ret && memcmp((*out)->super.hdr.uuid, watch.uuid, sizeof(watch.uuid))) {
		um_pool_close(*out);
		ret = -ENOENT;
	}
	return ret;
}

/* As long as the old pool can be mounted, all of it except its first superblock is unchanged. */
static void look(void)
{
	uint8_t head[HEAD_BYTES];
	struct um_pool *old;
	int fd;

	watch.looks++;
	if (open_old(&old))
		return;
	um_pool_close(old);
	watch.found++;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (uint64_t i = 0; i < watch.chunks; i++) {
		assert_int_equal(
			pread(fd, head, sizeof(head), (off_t)(i * UM_CHUNK_SIZE)), sizeof(head));
		for (unsigned j = 0; j < HEAD_BYTES / UM_BLOCK_SIZE; j++)
			if (i || (j && (j < UM_TABLE_NOTE || j >= UM_TABLE_NOTE + UM_NOTE_BLOCKS)))
				assert_memory_equal(head + (size_t)j * UM_BLOCK_SIZE,
					watch.before + i * HEAD_BYTES + (size_t)j * UM_BLOCK_SIZE,
					UM_BLOCK_SIZE);
	}
	close(fd);
}

static int watched_barrier(struct um_pool *pool)
{
	look();
	return watch.real->barrier(pool);
}

/* Now the note is complete, including what did not fit into chunk 0. */
static void look_at_note(void *arg, uint64_t done, uint64_t total)
{
	struct um_badset set = {0};

	(void)arg;
	if (!done || done >= total)
		return;
	assert_int_equal(um_badnote_load(watch.pool, &set), 0);
	assert_int_equal(set.n, watch.bad->n);
	assert_memory_equal(set.lba, watch.bad->lba, set.n * sizeof(set.lba[0]));
	um_badset_free(&set);
	watch.noted++;
}

/* Unused blocks are filled: some file could have its data there. */
static void remember_old(void)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct um_pool *old;

	assert_int_equal(um_pool_open(path, UM_POOL_EXCL, 0, &old), 0);
	memcpy(watch.uuid, old->super.hdr.uuid, sizeof(watch.uuid));
	watch.chunks = old->nchunks;
	watch.before = malloc(watch.chunks * HEAD_BYTES);
	for (uint64_t i = 0; i < watch.chunks; i++) {
		uint8_t *head = watch.before + i * HEAD_BYTES;
		off_t off = (off_t)(i * UM_CHUNK_SIZE);

		assert_int_equal(pread(fd, head, HEAD_BYTES, off), HEAD_BYTES);
		for (unsigned j = 0; j < HEAD_BYTES; j += UM_BLOCK_SIZE)
			if (um_chunk_usable(&old->super, i) && !head[j] &&
				!memcmp(head + j, head + j + 1, UM_BLOCK_SIZE - 1))
				memset(head + j, 'd', UM_BLOCK_SIZE);
		assert_int_equal(pwrite(fd, head, HEAD_BYTES, off), HEAD_BYTES);
	}
	um_pool_close(old);
	close(fd);
}

static void watch_mkfs(uint64_t size, const struct um_badset *bad)
{
	const struct umbra_mkfs_options opt = {.sparse = true, .progress = look_at_note};
	struct um_pool_ops ops;

	watch = (struct watch){.bad = bad};
	remember_old();
	assert_int_equal(um_pool_open(path, UM_POOL_EXCL | UM_POOL_NOSUPER, size, &watch.pool), 0);
	ops = *watch.pool->ops;
	ops.barrier = watched_barrier;
	watch.real = watch.pool->ops;
	watch.pool->ops = &ops;
	assert_int_equal(um_mkfs_write(watch.pool, &opt, bad), 0);
	watch.pool->ops = watch.real;
	um_pool_close(watch.pool);
	/* It was mountable with its note and without its first superblock, and then no more. */
	assert_true(watch.found >= 2 && watch.looks > watch.found && watch.noted);
	free(watch.before);
	assert_sound();
}

/* The old pool has data where the new one has its tables: it is larger, or has seams. */
static void the_old_pool_is_whole_until_nobody_finds_it(void **state)
{
	static const struct {
		unsigned made, grown, then; /* MiB */
		unsigned bad;               /* runs; chunk 0 has room for a note of 2535 */
	} shape[] = {{64, 0, 32, 3}, {20, 64, 48, 3}, {20, 1200, 1100, 3000}};

	(void)state;
	for (unsigned i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
		struct umbra_mkfs_options opt = {.size = shape[i].made * MIB,
			.force = true,
			.sparse = true,
			.forget_bad = true};
		struct umbra_fs *fs;
		struct um_badset bad = {0};
		uint64_t was, size;

		unlink(path);
		fs = made_and_open(&opt);
		if (shape[i].grown)
			assert_int_equal(
				umbra_grow(fs, shape[i].grown * MIB, true, &was, &size), 0);
		assert_int_equal(umbra_close(fs), 0);
		for (unsigned j = 0; j < shape[i].bad; j++)
			assert_int_equal(um_badset_add(&bad, AT(12, 2 * j)), 0);
		watch_mkfs(shape[i].then * MIB, &bad);
		assert_true(kept(bad.lba[0]) && kept(bad.lba[bad.n - 1]));
		um_badset_free(&bad);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_old_pool_is_asked_in_silence, each),
		cmocka_unit_test_setup(an_image_of_a_pool_in_a_file_is_no_pool, each),
		cmocka_unit_test_setup(an_mkfs_that_dies_does_not_forget_bad_blocks, each),
		cmocka_unit_test_setup(a_file_is_made_private_and_takes_its_space, each),
		cmocka_unit_test_setup(a_sparse_file_takes_what_is_written_and_the_journal, each),
		cmocka_unit_test_setup(sizes_are_rounded_down_to_chunks, each),
		cmocka_unit_test_setup(a_tail_too_short_for_a_group_is_left_out, each),
		cmocka_unit_test_setup(what_is_too_small_is_refused_and_leaves_no_file, each),
		cmocka_unit_test_setup(a_dry_run_makes_nothing, each),
		cmocka_unit_test_setup(a_pool_is_overwritten_by_force_only, each),
		cmocka_unit_test_setup(a_pool_in_use_is_refused_even_by_force, each),
		cmocka_unit_test_setup(a_foreign_signature_is_refused_and_by_force_wiped, each),
		cmocka_unit_test_setup(a_larger_file_keeps_its_length, each),
		cmocka_unit_test_setup(an_interrupted_mkfs_leaves_no_pool, each),
		cmocka_unit_test_setup(info_of_a_crashed_pool_says_not_clean, each),
		cmocka_unit_test_setup(bad_options_are_refused, each),
		cmocka_unit_test_setup(bad_blocks_outlive_the_pool_that_knew_them, each),
		cmocka_unit_test_setup(
			tables_and_journal_of_the_new_pool_get_around_bad_blocks, each),
		cmocka_unit_test_setup(bad_blocks_that_leave_no_room_are_said, each),
		cmocka_unit_test_setup(a_list_that_cannot_be_read_is_not_forgotten_unsaid, each),
		cmocka_unit_test_setup(a_note_is_enough_when_the_pool_cannot_be_asked, each),
		cmocka_unit_test_setup(the_old_pool_is_whole_until_nobody_finds_it, each),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
