/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool that a fuzzer begins with: one of the crash machine's. */
#include <errno.h>
#include <unistd.h>

#include "fuzz.h"
#include "heal/check_int.h"

static void quiet(void *arg, enum umbra_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

void base_make(struct image *img, const char *name)
{
	unsigned i;

	if (!getenv("UMBRA_FUZZ_LOG"))
		umbra_log_to(quiet, NULL);
	for (i = 0; i < crash_nconfigs && strcmp(crash_configs[i].name, name); i++)
		;
	if (i == crash_nconfigs)
		die("no pool is called %s", name);
	image_open(img, true);
	image_register(img, false);
	config_make(&crash_configs[i], img);
}

static void on_problem(void *arg, const char *code, bool repaired, const char *text)
{
	(void)repaired;
	if (*(bool *)arg)
		fprintf(stderr, "  fsck: %s: %s\n", code, text);
}

int base_check(struct image *img, bool say)
{
	struct umbra_check_report report;
	size_t mark = image_mark(img);
	struct um_pool *pool;
	int ret = um_pool_open_image(img->base, POOL_SIZE, UM_POOL_EXCL, &pool);

	if (ret)
		return ret;
	ret = um_check_pool(pool, UMBRA_CHECK_ONLY, on_problem, &say, &report);
	um_pool_close(pool);
	image_rollback(img, mark);
	return ret ? ret : (int)report.problems;
}
