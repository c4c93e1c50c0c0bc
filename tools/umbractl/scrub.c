// SPDX-License-Identifier: BSD-3-Clause
/* umbractl scrub: reads everything in use, to find memory failures. */
#include "umbractl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "umbra/umbra.h"

#define BAR 40

struct args {
	unsigned op;
	const char *path;
	uint64_t rate;
	bool wait, json;
};

static const char *const words[] = {"status", "start", "pause", "cancel"};
static const char *const states[] = {"none", "running", "paused", "done"};

static const char *state_word(const struct um_ioc_scrub *now)
{
	return now->state < 4 ? states[now->state] : "unknown";
}

/* Bytes per second from "50", in MiB, or with a suffix K, M or G. */
static bool parse_rate(const char *arg, uint64_t *out)
{
	unsigned shift = 20;
	char *end;

	errno = 0;
	*out = strtoull(arg, &end, 10);
	if (errno || end == arg || *arg == '-')
		return false;
	if (*end) {
		const char *units = "KMG", *unit = strchr(units, *end & ~0x20);

		if (!unit || end[1])
			return false;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (*out > UINT64_MAX >> shift)
		return false;
	*out <<= shift;
	return true;
}

static bool parse(int argc, char **argv, struct args *out)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"rate", required_argument, NULL, 'r'}, {"wait", no_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'}, {}};
	int opt;

	*out = (struct args){0};
	while ((opt = getopt_long(argc, argv, "r:wh", longs, NULL)) != -1) {
		if (opt == 'j')
			out->json = true;
		else if (opt == 'w')
			out->wait = true;
		else if (opt != 'r' || !parse_rate(optarg, &out->rate))
			return false;
	}
	if (argc - optind != 2)
		return false;
	for (out->op = 0; out->op < 4 && strcmp(argv[optind], words[out->op]); out->op++)
		;
	out->path = argv[optind + 1];
	return out->op < 4 && (out->op == UMBRA_SCRUB_START || (!out->wait && !out->rate));
}

static void show_bar(const struct um_ioc_scrub *now)
{
	char done[UM_SIZE_STR];
	double seconds = now->msec / 1000.0;
	unsigned full = now->permille * BAR / 1000;
	char bar[BAR + 1];

	memset(bar, ' ', BAR);
	memset(bar, '=', full < BAR ? full : BAR);
	bar[BAR] = 0;
	fprintf(stderr, "\r[%s] %3u.%u %%  %s  ", bar, now->permille / 10, now->permille % 10,
		um_size_str(done, now->bytes, false));
	if (now->permille > 10 && now->state == UMBRA_SCRUB_RUNNING)
		fprintf(stderr, "%.0f s left   ", seconds * (1000 - now->permille) / now->permille);
	fflush(stderr);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* Waits until it ends by itself or on request; a signal leaves it running. */
static int wait_for_end(int fd, struct um_ioc_scrub *now)
{
	const struct timespec pause = {0, 200000000};
	bool show = isatty(STDERR_FILENO);
	struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	while (now->state == UMBRA_SCRUB_RUNNING && !interrupted) {
		nanosleep(&pause, NULL);
		*now = (struct um_ioc_scrub){.op = UMBRA_SCRUB_STATUS};
		if (ioctl(fd, UM_IOC_SCRUB, now))
			return -errno;
		if (show)
			show_bar(now);
	}
	if (show)
		fputc('\n', stderr);
	return 0;
}

static int print(const struct args *args, const struct um_ioc_scrub *now)
{
	char size[UM_SIZE_STR], rate[UM_SIZE_STR];
	double seconds = now->msec / 1000.0;

	if (args->json) {
		struct json_object *obj = json_object_new_object();

		json_object_object_add(obj, "state", json_object_new_string(state_word(now)));
		json_object_object_add(obj, "permille", json_object_new_uint64(now->permille));
		json_object_object_add(obj, "bytes", json_object_new_uint64(now->bytes));
		json_object_object_add(obj, "bad", json_object_new_uint64(now->bad));
		json_object_object_add(obj, "rate", json_object_new_uint64(now->rate));
		json_object_object_add(obj, "seconds", json_object_new_double(seconds));
		return um_json_print(obj);
	}
	printf("%s, %u.%u %%", state_word(now), now->permille / 10, now->permille % 10);
	if (now->bytes)
		printf(": %s in %.1f s (%s/s), %llu bad", um_size_str(size, now->bytes, false),
			seconds,
			um_size_str(rate,
				(uint64_t)((double)now->bytes / (seconds > 0 ? seconds : 1)),
				false),
			(unsigned long long)now->bad);
	putchar('\n');
	return um_finish_output(UM_EXIT_OK);
}

int um_cmd_scrub(int argc, char **argv)
{
	struct um_ioc_scrub now = {0};
	struct args args;
	int fd, err = 0;

	if (!parse(argc, argv, &args))
		return um_usage();
	fd = open(args.path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		err = -errno;
	if (!err)
		err = um_fd_info(fd, NULL);
	if (err == -ENOTTY) {
		um_err(0, "%s: not on a mounted umbrafs", args.path);
		return UM_EXIT_FAIL;
	}
	now.op = args.op;
	now.rate = args.rate;
	if (!err && ioctl(fd, UM_IOC_SCRUB, &now))
		err = -errno;
	if (!err && args.wait)
		err = wait_for_end(fd, &now);
	if (err) {
		um_err(err, "%s", args.path);
		return UM_EXIT_FAIL;
	}
	close(fd);
	return print(&args, &now);
}
