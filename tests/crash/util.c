/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory and random numbers for the crash tests. */
#include <stdarg.h>
#include <unistd.h>

#include "crash.h"

void die(const char *fmt, ...)
{
	va_list args;

	fflush(stdout);
	fputs("crash: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(2);
}

struct crash_memory crash_memory = {calloc, realloc};

void *xalloc(size_t size)
{
	void *at = crash_memory.calloc(1, size ? size : 1);

	if (!at)
		die("no memory for %zu bytes", size);
	return at;
}

void grow(void *array, size_t n, size_t *cap, size_t size)
{
	void **at = array;

	if (n < *cap)
		return;
	while (n >= *cap)
		*cap = *cap ? 2 * *cap : 64;
	*at = crash_memory.realloc(*at, *cap * size);
	if (!*at)
		die("no memory for %zu elements", *cap);
}

uint64_t number_of(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (!*text || *end)
		die("not a number: %s", text);
	return n;
}

const char *intern(const char *text)
{
	static const char **known;
	static size_t n, cap;
	size_t i;

	for (i = 0; i < n; i++)
		if (!strcmp(known[i], text))
			return known[i];
	grow(&known, n, &cap, sizeof(*known));
	known[n] = strdup(text);
	if (!known[n])
		die("no memory");
	return known[n++];
}

/* The finalizer of splitmix64. */
uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return x ? x : 1;
}

uint64_t mix_text(uint64_t seed, const char *text)
{
	while (*text)
		seed = mix64(seed ^ (uint8_t)*text++);
	return seed;
}

uint64_t rnd(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ull;
}

void pattern(uint8_t *buf, size_t len, uint64_t seed)
{
	uint64_t word = mix64(seed);
	size_t i;

	for (i = 0; i < len; i++) {
		if (!(i & 7))
			word = word * 6364136223846793005ull + 1442695040888963407ull;
		buf[i] = (uint8_t)(word >> (8 * (i & 7)));
	}
}
