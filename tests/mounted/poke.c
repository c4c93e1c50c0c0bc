/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * poke POOL FIELD VALUE [COPIES]: changes a field of a pool's superblocks and corrects their
 * checksums, as a future version of umbrafs might have written them. COPIES: 1 first, 2 second, 3
 * both. poke POOL damage first|second|both: damages the superblocks. poke POOL noise SEED N: N
 * random changes to metadata blocks, with a valid checksum in half of the cases.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/pool.h"

static int fd;
static uint64_t nblocks;

static void read_block(um_lba_t lba, void *block)
{
	if (pread(fd, block, UM_BLOCK_SIZE, (off_t)(lba * UM_BLOCK_SIZE)) == UM_BLOCK_SIZE)
		return;
	perror("poke: read");
	exit(1);
}

static void write_block(um_lba_t lba, const void *block)
{
	if (pwrite(fd, block, UM_BLOCK_SIZE, (off_t)(lba * UM_BLOCK_SIZE)) == UM_BLOCK_SIZE)
		return;
	perror("poke: write");
	exit(1);
}

static int set_field(struct um_super *super, const char *field, uint64_t value)
{
	if (!strcmp(field, "version"))
		super->version = (uint32_t)value;
	else if (!strcmp(field, "compat"))
		super->compat = value;
	else if (!strcmp(field, "ro_compat"))
		super->ro_compat = value;
	else if (!strcmp(field, "incompat"))
		super->incompat = value;
	else if (!strcmp(field, "nchunks"))
		super->nchunks = value;
	else
		return -1;
	return 0;
}

static uint64_t random64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Metadata blocks are known by their magic. */
static bool is_metadata(const uint8_t *block)
{
	uint32_t magic;

	memcpy(&magic, block, 4);
	return (magic & 0xffffff) == UM_BLOCK_MAGIC && magic >> 24 && magic >> 24 < UM_KIND_MAX &&
	       magic >> 24 != UM_KIND_SUPER;
}

static void noise(uint64_t seed, unsigned n)
{
	uint8_t block[UM_BLOCK_SIZE];
	um_lba_t *at = calloc(nblocks, sizeof(*at));
	uint64_t count = 0, state = seed;

	if (!at)
		exit(1);
	for (um_lba_t lba = 1; lba < nblocks; lba++) {
		read_block(lba, block);
		if (is_metadata(block))
			at[count++] = lba;
	}
	for (unsigned i = 0; count && i < n; i++) {
		um_lba_t lba = at[random64(&state) % count];
		unsigned where =
			(unsigned)(random64(&state) % 8 ? random64(&state) % 400
							: random64(&state) % UM_BLOCK_SIZE);
		uint64_t value = random64(&state);

		read_block(lba, block);
		if (value % 3 == 0)
			block[where] ^= (uint8_t)(1u << (value >> 8) % 8);
		else if (value % 3 == 1)
			block[where] = (uint8_t)(value >> 16);
		else
			memcpy(block + (where & 0xff8), &value, 8);
		if (random64(&state) % 2 && is_metadata(block))
			um_block_seal(block);
		write_block(lba, block);
		printf("block %llu byte %u\n", (unsigned long long)lba, where);
	}
	free(at);
}

int main(int argc, char **argv)
{
	union {
		struct um_super super;
		uint8_t bytes[UM_BLOCK_SIZE];
	} b;
	um_lba_t lba[2] = {0, 0};
	unsigned copies = 3;
	struct stat st;

	if (argc < 4) {
		fprintf(stderr, "usage: poke POOL FIELD VALUE [COPIES] | POOL damage WHICH | "
				"POOL noise SEED N\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR);
	if (fd < 0 || fstat(fd, &st)) {
		perror(argv[1]);
		return 1;
	}
	read_block(0, b.bytes);
	nblocks = b.super.nchunks * UM_CHUNK_BLOCKS;
	lba[1] = um_super_mirror(b.super.nchunks);
	if (!strcmp(argv[2], "noise")) {
		noise(strtoull(argv[3], NULL, 0), argc > 4 ? (unsigned)atoi(argv[4]) : 1);
		return 0;
	}
	if (!strcmp(argv[2], "damage"))
		copies = !strcmp(argv[3], "first") ? 1 : !strcmp(argv[3], "second") ? 2 : 3;
	else if (argc > 4)
		copies = (unsigned)atoi(argv[4]);
	for (unsigned i = 0; i < 2; i++) {
		if (!(copies & (1u << i)))
			continue;
		read_block(lba[i], b.bytes);
		if (!strcmp(argv[2], "damage")) {
			memset(b.bytes + 100, 0x5a, 300);
		} else {
			if (set_field(&b.super, argv[2], strtoull(argv[3], NULL, 0)))
				return 2;
			um_block_seal(b.bytes);
		}
		write_block(lba[i], b.bytes);
	}
	return close(fd) ? 1 : 0;
}
