/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool with which a fuzzer begins: one of those of the crash tests. */
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

struct look {
	bool say;
	unsigned data;
};

static void on_problem(void *arg, const char *code, bool repaired, const char *text)
{
	struct look *look = arg;

	(void)repaired;
	if (!strcmp(code, "data"))
		look->data++;
	else if (look->say)
		fprintf(stderr, "  fsck: %s: %s\n", code, text);
}

int base_check(struct image *img, bool say, unsigned *out_data)
{
	struct look look = {.say = say};
	struct umbra_check_report report;
	size_t mark = image_mark(img);
	struct um_pool *pool;
	int ret = um_pool_open_image(img->base, POOL_SIZE, UM_POOL_EXCL, &pool);

	if (ret)
		return ret;
	ret = um_check_pool(pool, UMBRA_CHECK_ONLY, on_problem, &look, &report);
	um_pool_close(pool);
	image_rollback(img, mark);
	if (out_data)
		*out_data = look.data;
	return ret ? ret : (int)report.problems - (out_data ? (int)look.data : 0);
}
