/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The order of the workloads: first each operation alone on each pool; then pairs, each pool in
 * turn, in an order scrambled by a multiplication; between them, if all kinds are wanted, triples
 * and random ones.
 */
#include "crash.h"

void plan_make(struct plan *p, const struct options *opt)
{
	unsigned i;

	memset(p, 0, sizeof(*p));
	p->opt = opt;
	if (crash_nconfigs > PLAN_CONFIGS)
		die("more than %d pools", PLAN_CONFIGS);
	for (i = 0; i < crash_nconfigs; i++)
		if (!opt->config || !strcmp(opt->config, crash_configs[i].name))
			p->config[p->nconfig++] = &crash_configs[i];
	if (!p->nconfig)
		die("no pool is called %s", opt->config);
	p->ones = (uint64_t)crash_nops * p->nconfig;
	p->twos = (uint64_t)crash_nops * crash_nops * p->nconfig;
	/* A number that has no divisor in common with p->twos visits each pair once. */
	for (p->stride = mix64(opt->seed) % p->twos | 1;; p->stride += 2) {
		uint64_t a = p->twos, b = p->stride;

		while (b) {
			uint64_t rest = a % b;

			a = b;
			b = rest;
		}
		if (a == 1)
			break;
	}
}

static void choose_ops(const struct plan *p, uint64_t pair, unsigned n, struct workload *out)
{
	uint64_t rng = mix64(p->opt->seed ^ mix64(pair ^ ((uint64_t)n << 56)));
	unsigned i;

	out->n = n;
	for (i = 0; i < n; i++)
		out->op[i] = (int)rnd_below(&rng, crash_nops);
	out->config = p->config[rnd_below(&rng, p->nconfig)];
}

#define SHUFFLE 1000003u /* a prime larger than there are workloads of one operation */

/* All on the first two pools; on the others in no order, so that a short run sees something of
 * each. */
static void choose_one(const struct plan *p, uint64_t k, struct workload *out)
{
	uint64_t first = 2 * (uint64_t)crash_nops;

	if (k >= first)
		k = first + (k - first) * SHUFFLE % (p->ones - first);
	out->n = 1;
	out->op[0] = (int)(k % crash_nops);
	out->config = p->config[k / crash_nops];
}

static void choose_two(const struct plan *p, uint64_t k, struct workload *out)
{
	uint64_t pair = (uint64_t)((__uint128_t)k * p->stride % p->twos);

	out->n = 2;
	out->op[0] = (int)(pair % crash_nops);
	out->op[1] = (int)(pair / crash_nops % crash_nops);
	out->config = p->config[pair / crash_nops / crash_nops];
}

bool plan_get(const struct plan *p, uint64_t n, struct workload *out)
{
	const struct options *opt = p->opt;

	memset(out, 0, sizeof(*out));
	if (opt->seq_given && opt->seq > 2) {
		choose_ops(p, n, opt->seq < 8 ? opt->seq : 8, out);
		return opt->budget || n < 10000;
	}
	if (opt->seq_given && !opt->seq) {
		out->number = n;
		out->config = p->config[n % p->nconfig];
		return opt->budget || n < 1000;
	}
	if (!opt->seq_given || opt->seq == 1) {
		if (n < p->ones) {
			choose_one(p, n, out);
			return true;
		}
		if (opt->seq_given)
			return false;
		n -= p->ones;
		/* One in 16 is a triple, one in 64 a random one. */
		if (n % 64 == 63) {
			out->number = n / 64;
			out->config = p->config[out->number % p->nconfig];
			return n < 4 * p->twos;
		}
		if (n % 16 == 15) {
			choose_ops(p, n, 3, out);
			return n < 4 * p->twos;
		}
		n -= n / 16;
	}
	if (n >= p->twos)
		return false;
	choose_two(p, n, out);
	return true;
}
