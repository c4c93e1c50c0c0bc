// SPDX-License-Identifier: BSD-3-Clause
/* Messages, sizes and JSON for the subcommands. */
#include "umbractl.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void um_err(int err, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "umbractl%s%s: ", um_current ? " " : "",
		um_current ? um_current->name : "");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (err)
		fprintf(stderr, ": %s", strerror(err < 0 ? -err : err));
	fputc('\n', stderr);
}

int um_usage(void)
{
	fprintf(stderr, "usage: umbractl %s %s\n", um_current->name, um_current->args);
	return UM_EXIT_USAGE;
}

bool um_size_options(int argc, char **argv, bool *json, bool *plain)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"bytes", no_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}, {}};
	int opt;

	while ((opt = getopt_long(argc, argv, "bh", longs, NULL)) != -1) {
		if (opt == 'j')
			*json = true;
		else if (opt == 'b')
			*plain = true;
		else
			return false;
	}
	return true;
}

char *um_size_str(char buf[UM_SIZE_STR], uint64_t bytes, bool plain)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes / 1024;
	size_t u = 0;

	if (plain || bytes < 1024) {
		snprintf(buf, UM_SIZE_STR, plain ? "%" PRIu64 : "%" PRIu64 " B", bytes);
		return buf;
	}
	/* 1023.95 and more would print as 1024.0 of the smaller unit. */
	while (v >= 1023.95 && u + 1 < sizeof(units) / sizeof(units[0])) {
		v /= 1024;
		u++;
	}
	snprintf(buf, UM_SIZE_STR, "%.1f %s", v, units[u]);
	return buf;
}

bool um_parse_size(const char *arg, uint64_t *out)
{
	static const char units[] = "KMGTP";
	unsigned shift = 0;
	const char *unit;
	char *end;

	if (*arg < '0' || *arg > '9')
		return false;
	errno = 0;
	*out = strtoull(arg, &end, 10);
	if (errno)
		return false;
	if (*end) {
		unit = strchr(units, *end & ~0x20);
		if (!unit || !*unit || end[1])
			return false;
		shift = 10 * ((unsigned)(unit - units) + 1);
	}
	if (!*out || *out > UINT64_MAX >> shift)
		return false;
	*out <<= shift;
	return true;
}

/* Length of the well-formed UTF-8 sequence at s, or 0. */
static size_t utf8_len(const unsigned char *s)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t cp;
	size_t n, i;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	cp = s[0] & (0x7fu >> n);
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0; /* also ends at the NUL */
		cp = cp << 6 | (s[i] & 0x3f);
	}
	if (cp < least[n] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
		return 0;
	return n;
}

struct json_object *um_json_text(const char *s)
{
	static const char bad[] = "\xef\xbf\xbd";
	const unsigned char *p = (const unsigned char *)s;
	struct json_object *obj;
	size_t len = 0;
	char *buf;

	buf = malloc(strlen(s) * 3 + 1);
	if (!buf)
		return NULL;
	while (*p) {
		size_t n = utf8_len(p);

		memcpy(buf + len, n ? (const char *)p : bad, n ? n : 3);
		len += n ? n : 3;
		p += n ? n : 1;
	}
	buf[len] = '\0';
	obj = json_object_new_string_len(buf, (int)len);
	free(buf);
	return obj;
}

int um_finish_output(int exit_code)
{
	if (fflush(stdout) || ferror(stdout)) {
		um_err(errno, "cannot write to standard output");
		return UM_EXIT_FAIL;
	}
	return exit_code;
}

int um_json_print(struct json_object *obj)
{
	const char *text = json_object_to_json_string_ext(
		obj, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);

	if (!text) {
		um_err(ENOMEM, "cannot format the result");
		json_object_put(obj);
		return UM_EXIT_FAIL;
	}
	puts(text);
	json_object_put(obj);
	return um_finish_output(UM_EXIT_OK);
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

void um_json_table(struct json_object *obj, bool plain)
{
	int width = 12;

	json_object_object_foreach(obj, k, unused)
	{
		(void)unused;
		if ((int)strlen(k) > width)
			width = (int)strlen(k);
	}
	json_object_object_foreach(obj, key, val)
	{
		bool num = json_object_is_type(val, json_type_int);
		uint64_t n = num ? json_object_get_uint64(val) : 0;
		const char *text = val ? json_object_get_string(val) : "-";
		char size[UM_SIZE_STR];

		printf("%-*s  ", width, key);
		if (num && !plain && (ends_with(key, "bytes") || ends_with(key, "size")))
			printf("%s\n", um_size_str(size, n, false));
		else if (num && !plain && ends_with(key, "blocks"))
			printf("%s (%s)\n", text, um_size_str(size, n * 4096, false));
		else
			printf("%s\n", text);
	}
}

bool um_show_arguments(int argc, char **argv, struct um_show *out)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
		{"bytes", no_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}, {}};
	int opt;

	*out = (struct um_show){0};
	while ((opt = getopt_long(argc, argv, "bh", longs, NULL)) != -1) {
		if (opt == 'j')
			out->json = true;
		else if (opt == 'b')
			out->plain = true;
		else
			return false;
	}
	out->path = argv[optind];
	return argc - optind == 1;
}

int um_show(const struct um_show *show, struct json_object *obj)
{
	if (show->json)
		return um_json_print(obj);
	um_json_table(obj, show->plain);
	json_object_put(obj);
	return um_finish_output(UM_EXIT_OK);
}
