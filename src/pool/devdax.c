/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * /dev/daxX.Y: memory without a filesystem below. No read(2) or write(2), no private mapping, and a
 * mapping that can be split only at the device's alignment (2 MiB as a rule).
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "pool/backend.h"

static int read_number(dev_t rdev, const char *attr, uint64_t *out)
{
	char name[PATH_MAX], text[32];
	FILE *file;
	int ret = -EIO;

	snprintf(name, sizeof(name), "/sys/dev/char/%u:%u/%s", major(rdev), minor(rdev), attr);
	file = fopen(name, "re");
	if (!file)
		return -errno;
	if (fgets(text, sizeof(text), file)) {
		errno = 0;
		*out = strtoull(text, NULL, 0);
		ret = -errno;
	}
	fclose(file);
	return ret;
}

bool um_devdax_probe(dev_t rdev, uint64_t *out_size, uint64_t *out_align)
{
	char name[PATH_MAX], *target;
	bool is_dax;

	snprintf(name, sizeof(name), "/sys/dev/char/%u:%u/subsystem", major(rdev), minor(rdev));
	target = realpath(name, NULL);
	is_dax = target && !strcmp(basename(target), "dax");
	free(target);
	if (!is_dax || read_number(rdev, "size", out_size))
		return false;
	if (read_number(rdev, "align", out_align) || !*out_align ||
		(*out_align & (*out_align - 1)) || *out_align < UM_BLOCK_SIZE)
		*out_align = UM_CHUNK_SIZE;
	return true;
}

const struct um_pool_ops um_ops_devdax = {
	.name = "devdax",
	.map = um_pmem_map,
	.unmap = um_pmem_unmap,
	.write = um_pmem_write,
	.apply = um_pmem_apply,
	.drain = um_pmem_drain,
	.barrier = um_barrier_none,
};
