/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory maps, seen together with read, write and truncate. */
#include "t.h"

#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>

#define BLOCK 4096
#define MIB (1024 * 1024)

static char *map(int fd, size_t len, int prot, int flags)
{
	char *p = mmap(NULL, len, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		t_fail(__FILE__, __LINE__, "mmap: %s", strerror(errno));
	return p;
}

static void shared_map_and_file_are_one(void)
{
	int fd = t_file("f", 10 * BLOCK, 'x'), other = ok(open("f", O_RDWR));
	char *p = map(fd, 10 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);

	p[5000] = 'm';
	t_range(other, 5000, 1, 'm');
	eq(pwrite(other, "w", 1, 9000), 1);
	eq(p[9000], 'w');
	char *q = map(other, 10 * BLOCK, PROT_READ, MAP_SHARED);
	p[BLOCK] = 'q';
	eq(q[BLOCK], 'q');
	ok(msync(p, 10 * BLOCK, MS_SYNC));
	ok(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	t_range(other, 5000, 1, 'm');
	ok(munmap(p, 10 * BLOCK));
	ok(munmap(q, 10 * BLOCK));
	close(fd);
	t_range(other, BLOCK, 1, 'q');
}

static void private_map_leaves_the_file_alone(void)
{
	int fd = t_file("f", 4 * BLOCK, 'x');
	char *p = map(fd, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	p[0] = 'p';
	t_range(fd, 0, 4 * BLOCK, 'x');
	eq(pwrite(fd, "w", 1, BLOCK), 1);
	eq(p[BLOCK], 'w'); /* not yet copied */
	eq(p[0], 'p');
}

static void maps_outlive_descriptor_and_name(void)
{
	int fd = t_file("f", 4 * BLOCK, 'x');
	char *p = map(fd, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);

	ok(link("f", "g"));
	close(fd);
	ok(unlink("f"));
	p[1] = 'y';
	ok(msync(p, 4 * BLOCK, MS_SYNC));
	fd = ok(open("g", O_RDONLY));
	t_range(fd, 1, 1, 'y');
	ok(unlink("g"));
	close(fd);
	p[2] = 'z';
	eq(p[1], 'y');
	eq(p[3 * BLOCK], 'x');
	ok(munmap(p, 4 * BLOCK));
}

static void map_of_holes(void)
{
	int fd = t_file("f", 0, 0);

	ok(ftruncate(fd, 8 * MIB));
	char *p = map(fd, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (size_t i = 0; i < 8 * MIB; i += MIB)
		eq(p[i + 1], 0);
	for (size_t i = 0; i < 8 * MIB; i += MIB)
		p[i + 10] = (char)(i / MIB + 1);
	ok(msync(p, 8 * MIB, MS_SYNC));
	for (size_t i = 0; i < 8 * MIB; i += MIB)
		t_range(fd, (off_t)i + 10, 1, (int)(i / MIB + 1));
	is_true(t_fstat(fd).st_blocks >= 8 * 8 && t_fstat(fd).st_blocks <= 8 * 8 * 16);
}

static sigjmp_buf on_bus;

static void bus(int sig)
{
	(void)sig;
	siglongjmp(on_bus, 1);
}

static bool faults(volatile char *p)
{
	if (sigsetjmp(on_bus, 1))
		return true;
	(void)*p;
	return false;
}

static void pages_past_the_end_fault(void)
{
	int fd = t_file("f", 3 * BLOCK, 'x');
	char *p = map(fd, 8 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);

	signal(SIGBUS, bus);
	is_true(!faults(p + 2 * BLOCK));
	is_true(faults(p + 4 * BLOCK));
	ok(ftruncate(fd, 100));
	is_true(faults(p + 2 * BLOCK));
	is_true(!faults(p + 200));
	eq(p[200], 0);
	ok(ftruncate(fd, 6 * BLOCK));
	eq(p[2 * BLOCK], 0);
	eq(p[50], 'x');
	eq(p[100], 0);
}

/* What is stored behind the end of a file within its last page must not come to light. */
static void bytes_past_the_end_stay_zero(void)
{
	int fd = t_file("f", 100, 'x');
	char *p = map(fd, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);

	p[50] = 'y';
	p[200] = 'z';
	ok(msync(p, BLOCK, MS_SYNC));
	ok(munmap(p, BLOCK));
	eq(t_fstat(fd).st_size, 100);
	ok(ftruncate(fd, 1000));
	t_range(fd, 50, 1, 'y');
	t_range(fd, 100, 900, 0);
}

static void punch_and_truncate_reach_maps(void)
{
	int fd = t_file("f", 16 * BLOCK, 'x');
	char *p = map(fd, 16 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);

	for (int i = 0; i < 16; i++)
		p[i * BLOCK] = 'd'; /* dirty and mapped */
	ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * BLOCK, 4 * BLOCK));
	eq(p[3 * BLOCK], 'd');
	eq(p[4 * BLOCK], 0);
	eq(p[7 * BLOCK + 1], 0);
	eq(p[8 * BLOCK], 'd');
	p[5 * BLOCK] = 'n';
	ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, 5 * BLOCK - 10, 20));
	eq(p[5 * BLOCK], 0);
	ok(ftruncate(fd, 10 * BLOCK));
	ok(ftruncate(fd, 16 * BLOCK));
	eq(p[9 * BLOCK], 'd');
	eq(p[10 * BLOCK], 0);
	p[12 * BLOCK] = 'e';
	ok(msync(p, 16 * BLOCK, MS_SYNC));
	t_range(fd, 12 * BLOCK, 1, 'e');
	t_range(fd, 13 * BLOCK, BLOCK, 0);
}

static void copies_see_mapped_stores(void)
{
	int a = t_file("a", 64 * BLOCK, 'a'), b = t_file("b", 64 * BLOCK, 'b');
	char *pa = map(a, 64 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);
	char *pb = map(b, 64 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);
	off_t from = 0, to = 0;

	pa[10 * BLOCK + 3] = 'D'; /* dirty in the source */
	pb[20 * BLOCK + 3] = 'E'; /* dirty in what is replaced */
	eq(copy_file_range(a, &from, b, &to, 64 * BLOCK, 0), 64 * BLOCK);
	eq(pb[10 * BLOCK + 3], 'D');
	eq(pb[20 * BLOCK + 3], 'a');
	/* Every copy of a shared block written through its map keeps its own bytes. */
	pa[BLOCK] = '1';
	pb[BLOCK] = '2';
	ok(msync(pa, 64 * BLOCK, MS_SYNC));
	ok(msync(pb, 64 * BLOCK, MS_SYNC));
	t_range(a, BLOCK, 1, '1');
	t_range(b, BLOCK, 1, '2');
	t_range(a, BLOCK + 1, 10, 'a');
	t_range(b, BLOCK + 1, 10, 'a');
}

static void stores_to_maps_change_the_times(void)
{
	int fd = t_file("f", 4 * BLOCK, 'x');
	struct timespec old[2] = {{1000000, 5}, {1000000, 5}};
	struct stat before;

	char *p = map(fd, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED);
	ok(futimens(fd, old));
	before = t_fstat(fd);
	eq(before.st_mtim.tv_sec, 1000000);
	t_sleep_ms(20);
	p[BLOCK] = 'y';
	ok(msync(p, 4 * BLOCK, MS_SYNC));
	ok(munmap(p, 4 * BLOCK));
	close(fd);
	is_true(t_after(t_stat("f").st_mtim, before.st_mtim));
	is_true(t_stat("f").st_mtim.tv_sec > 1000000);
	is_true(t_after(t_stat("f").st_ctim, before.st_ctim));
}

const struct t_case t_map[] = {
	T_CASE(shared_map_and_file_are_one),
	T_CASE(private_map_leaves_the_file_alone),
	T_CASE(maps_outlive_descriptor_and_name),
	T_CASE(map_of_holes),
	T_CASE(pages_past_the_end_fault),
	T_CASE(bytes_past_the_end_stay_zero),
	T_CASE(punch_and_truncate_reach_maps),
	T_CASE(copies_see_mapped_stores),
	T_CASE(stores_to_maps_change_the_times),
	{NULL, NULL},
};
