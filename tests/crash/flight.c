/* SPDX-License-Identifier: BSD-3-Clause */
/* Stores in flight: what was stored and not yet drained, line by line, and which states that
 * allows. States are numbered; the number (with the seed) determines what is on the medium. */
#include "crash.h"

#define LINES_ALL 6u      /* up to this many lines in flight: every combination of prefixes */
#define PRODUCT_MAX 4096u /* unless there are too many combinations */
#define NO_LINE UINT32_MAX

/* ---- noting ------------------------------------------------------------------------------------------ */

void flight_clear(struct flight *f)
{
	size_t i;

	if (f->nindex > 4096) {
		free(f->index);
		f->index = NULL;
		f->nindex = 0;
	}
	for (i = 0; i < f->nindex; i++)
		f->index[i] = 0;
	f->nline = f->npiece = f->nbytes = 0;
	f->seq = 0;
}

void flight_free(struct flight *f)
{
	free(f->line);
	free(f->piece);
	free(f->bytes);
	free(f->index);
	memset(f, 0, sizeof(*f));
}

static size_t slot_of(const struct flight *f, uint64_t number)
{
	size_t slot = mix64(number) & (f->nindex - 1);

	while (f->index[slot] && f->line[f->index[slot] - 1].number != number)
		slot = (slot + 1) & (f->nindex - 1);
	return slot;
}

static void reindex(struct flight *f, size_t size)
{
	size_t i;

	free(f->index);
	f->index = xalloc(size * sizeof(*f->index));
	f->nindex = size;
	for (i = 0; i < f->nline; i++)
		f->index[slot_of(f, f->line[i].number)] = (uint32_t)i + 1;
}

static struct line *line_find(struct flight *f, uint64_t number)
{
	size_t slot;

	if (!f->nindex)
		return NULL;
	slot = slot_of(f, number);
	return f->index[slot] ? &f->line[f->index[slot] - 1] : NULL;
}

static struct line *line_make(struct flight *f, uint64_t number)
{
	struct line *line = line_find(f, number);

	if (line)
		return line;
	if (2 * (f->nline + 1) > f->nindex)
		reindex(f, f->nindex ? 2 * f->nindex : 256);
	grow(&f->line, f->nline, &f->cap_line, sizeof(*f->line));
	line = &f->line[f->nline++];
	*line = (struct line){.number = number};
	f->index[slot_of(f, number)] = (uint32_t)f->nline;
	return line;
}

static void piece_add(
	struct flight *f, uint64_t off, const uint8_t *src, uint16_t len, bool nt, bool flushed)
{
	struct line *line = line_make(f, off / f->unit);
	struct piece *piece;

	grow(&f->piece, f->npiece, &f->cap_piece, sizeof(*f->piece));
	grow(&f->bytes, f->nbytes + len, &f->cap_bytes, 1);
	piece = &f->piece[f->npiece++];
	*piece = (struct piece){.off = (uint16_t)(off % f->unit),
		.len = len,
		.nt = nt,
		.flushed = flushed,
		.seq = f->seq,
		.at = f->nbytes};
	memcpy(f->bytes + f->nbytes, src, len);
	f->nbytes += len;
	if (line->last)
		f->piece[line->last - 1].next = (uint32_t)f->npiece;
	else
		line->first = (uint32_t)f->npiece;
	line->last = (uint32_t)f->npiece;
	line->n++;
}

void flight_store(struct flight *f, uint64_t off, const uint8_t *src, size_t len, bool nt)
{
	while (len) {
		size_t n = f->unit - off % f->unit;

		if (n > len)
			n = len;
		piece_add(f, off, src, (uint16_t)n, nt, nt);
		f->seq++;
		off += n;
		src += n;
		len -= n;
	}
}

void flight_flush(struct flight *f, uint64_t off, size_t len)
{
	uint64_t number;

	for (number = off / f->unit; number * f->unit < off + len; number++) {
		struct line *line = line_find(f, number);
		uint32_t i;

		for (i = line ? line->first : 0; i; i = f->piece[i - 1].next)
			f->piece[i - 1].flushed = true;
	}
}

/* ---- putting pieces on an image -------------------------------------------------------------------------- */

static uint64_t piece_addr(const struct flight *f, const struct line *line, const struct piece *p)
{
	return line->number * f->unit + p->off;
}

static void piece_put(
	const struct flight *f, const struct line *line, const struct piece *p, struct image *img)
{
	image_put(img, piece_addr(f, line, p), f->bytes + p->at, p->len);
}

/* Stores only the words of the line that the mask selects. */
static void piece_put_words(const struct flight *f, const struct line *line, const struct piece *p,
	unsigned words, struct image *img)
{
	unsigned from = p->off, end = p->off + p->len;

	while (from < end) {
		unsigned next = (from | 7) + 1;

		if (next > end)
			next = end;
		if (words >> (from / 8) & 1)
			image_put(img, line->number * f->unit + from,
				f->bytes + p->at + (from - p->off), next - from);
		from = next;
	}
}

void flight_copy(struct flight *to, const struct flight *from)
{
	size_t i;
	uint32_t at;

	flight_clear(to);
	for (i = 0; i < from->nline; i++) {
		const struct line *line = &from->line[i];

		for (at = line->first; at; at = from->piece[at - 1].next) {
			const struct piece *p = &from->piece[at - 1];

			piece_add(to, piece_addr(from, line, p), from->bytes + p->at, p->len, p->nt,
				p->flushed);
			to->piece[to->npiece - 1].seq = p->seq;
		}
	}
	to->seq = from->seq;
}

void flight_drain(struct flight *f, struct image **img, unsigned n)
{
	struct flight left = {.unit = f->unit, .density = f->density, .seq = f->seq};
	bool any = false;
	size_t i;
	unsigned k;

	for (i = 0; i < f->nline; i++) {
		const struct line *line = &f->line[i];
		uint32_t at;

		for (at = line->first; at; at = f->piece[at - 1].next) {
			const struct piece *p = &f->piece[at - 1];

			if (!p->flushed) {
				piece_add(&left, piece_addr(f, line, p), f->bytes + p->at, p->len,
					p->nt, false);
				left.piece[left.npiece - 1].seq = p->seq;
				any = true;
				continue;
			}
			for (k = 0; k < n; k++)
				piece_put(f, line, p, img[k]);
		}
	}
	if (any) {
		flight_free(f);
		*f = left;
	} else {
		flight_clear(f);
	}
}

/* ---- states ------------------------------------------------------------------------------------------------- */

/* Which pieces of a line are present: the first `keep`, and words of the rest. */
struct choice {
	uint16_t keep;
	uint8_t words;
};

/* Number of combinations of prefixes, or 0 if there are too many. */
static uint64_t product(const struct flight *f)
{
	uint64_t n = 1;
	size_t i;

	if (f->nline > LINES_ALL)
		return 0;
	for (i = 0; i < f->nline; i++) {
		n *= f->line[i].n + 1u;
		if (n > PRODUCT_MAX)
			return 0;
	}
	return n;
}

static uint64_t at_most(uint64_t n, uint64_t max)
{
	return n < max ? n : max;
}

/* May anything tear that the combinations of prefixes leave whole? */
static bool tears(const struct flight *f)
{
	size_t i;

	if (f->unit != LINE)
		return false;
	for (i = 0; i < f->npiece; i++)
		if (f->piece[i].len > 8 || f->piece[i].nt)
			return true;
	return false;
}

/* States of each family, in the order of their numbers. */
enum family { ALL_PREFIXES, NONE, ALL, ALL_BUT_ONE, ONLY_ONE, FIRST, RANDOM, TORN, FAMILIES };
static const char *const family_name[FAMILIES + 1] = {"combination", "none", "all",
	"all but one line", "only one line", "the first stores", "random prefixes", "torn",
	"all, the process died"};

static void family_sizes(const struct flight *f, uint64_t size[FAMILIES])
{
	memset(size, 0, FAMILIES * sizeof(*size));
	if (!f->nline) {
		size[NONE] = 1;
		return;
	}
	size[ALL_PREFIXES] = product(f);
	if (tears(f))
		size[TORN] = f->density;
	if (size[ALL_PREFIXES])
		return;
	size[NONE] = size[ALL] = 1;
	size[ALL_BUT_ONE] = size[ONLY_ONE] = at_most(f->nline, f->density);
	size[FIRST] = at_most(f->npiece - 1, f->density);
	size[RANDOM] = f->density;
}

uint64_t flight_states(const struct flight *f)
{
	uint64_t size[FAMILIES], sum = 0;
	unsigned i;

	family_sizes(f, size);
	for (i = 0; i < FAMILIES; i++)
		sum += size[i];
	return sum;
}

/* The k-th of `size` members taken out of n, evenly, at random within each step. */
static uint64_t member(uint64_t k, uint64_t size, uint64_t n, uint64_t seed)
{
	uint64_t from = k * n / size, to = (k + 1) * n / size;

	return to - from > 1 ? from + mix64(seed ^ k) % (to - from) : from;
}

static void choose_all(const struct flight *f, struct choice *choice)
{
	size_t i;

	for (i = 0; i < f->nline; i++)
		choice[i].keep = f->line[i].n;
}

static void choose_combination(const struct flight *f, uint64_t k, struct choice *choice)
{
	size_t i;

	for (i = 0; i < f->nline; i++) {
		choice[i].keep = (uint16_t)(k % (f->line[i].n + 1u));
		k /= f->line[i].n + 1u;
	}
}

/* The first n pieces in the order of their issue. */
static void choose_first(const struct flight *f, uint64_t n, struct choice *choice)
{
	uint32_t low = UINT32_MAX;
	size_t i;
	uint32_t at;

	for (i = 0; i < f->npiece; i++)
		if (f->piece[i].seq < low)
			low = f->piece[i].seq;
	for (i = 0; i < f->nline; i++)
		for (at = f->line[i].first; at; at = f->piece[at - 1].next)
			if (f->piece[at - 1].seq - low < n)
				choice[i].keep++;
}

static void choose_random(const struct flight *f, uint64_t seed, bool torn, struct choice *choice)
{
	static const unsigned whole[] = {1, 4, 7}; /* eighths */
	uint64_t rng = mix64(seed);
	unsigned p = whole[rnd_below(&rng, 3)];
	size_t i;

	for (i = 0; i < f->nline; i++) {
		if (rnd_below(&rng, 8) < p) {
			choice[i].keep = f->line[i].n;
			continue;
		}
		choice[i].keep = (uint16_t)rnd_below(&rng, f->line[i].n + 1u);
		if (torn)
			choice[i].words = (uint8_t)rnd(&rng);
	}
}

static enum family choose(
	const struct flight *f, uint64_t state, uint64_t seed, struct choice *choice)
{
	uint64_t size[FAMILIES], k = state, one;
	unsigned family;

	memset(choice, 0, f->nline * sizeof(*choice));
	family_sizes(f, size);
	for (family = 0; family < FAMILIES && k >= size[family]; family++)
		k -= size[family];
	seed = mix64(seed ^ family);
	one = f->nline && size[ONLY_ONE] ? member(k, size[ONLY_ONE], f->nline, seed) : 0;
	switch (family) {
	case ALL_PREFIXES:
		choose_combination(f, k, choice);
		break;
	case ALL:
		choose_all(f, choice);
		break;
	case ALL_BUT_ONE:
		choose_all(f, choice);
		choice[one].keep = 0;
		break;
	case ONLY_ONE:
		choice[one].keep = f->line[one].n;
		break;
	case FIRST:
		choose_first(f, 1 + member(k, size[FIRST], f->npiece - 1, seed), choice);
		break;
	case RANDOM:
	case TORN:
		choose_random(f, seed + k, family == TORN, choice);
		break;
	case FAMILIES:
		choose_all(f, choice);
		break;
	default:
		break;
	}
	return (enum family)family;
}

static void line_put(
	const struct flight *f, const struct line *line, struct choice choice, struct image *img)
{
	uint32_t at = line->first;
	unsigned i;

	for (i = 0; i < choice.keep; i++, at = f->piece[at - 1].next)
		piece_put(f, line, &f->piece[at - 1], img);
	/* The next store in part; non-temporal ones are not ordered. */
	for (i = 0; at && choice.words && (!i || f->piece[at - 1].nt); i++) {
		piece_put_words(f, line, &f->piece[at - 1], choice.words, img);
		at = f->piece[at - 1].next;
	}
}

void flight_put(const struct flight *f, uint64_t state, uint64_t seed, struct image *img)
{
	struct choice *choice = xalloc(f->nline * sizeof(*choice));
	size_t i;

	choose(f, state, seed, choice);
	for (i = 0; i < f->nline; i++)
		line_put(f, &f->line[i], choice[i], img);
	free(choice);
}

void flight_describe(const struct flight *f, uint64_t state, uint64_t seed, FILE *out)
{
	struct choice *choice = xalloc(f->nline * sizeof(*choice));
	enum family family = choose(f, state, seed, choice);
	size_t i, shown = 0;

	fprintf(out, "  %zu lines in flight; there are: %s\n", f->nline, family_name[family]);
	for (i = 0; i < f->nline && shown < 12; i++) {
		const struct line *line = &f->line[i];
		uint64_t off = line->number * f->unit;

		if (choice[i].keep == line->n && family != ONLY_ONE && family != ALL_PREFIXES)
			continue;
		fprintf(out, "    block %llu + %llu: %u of %u stores",
			(unsigned long long)(off / B), (unsigned long long)(off % B),
			choice[i].keep, line->n);
		if (choice[i].words)
			fprintf(out, ", words %02x of the next", choice[i].words);
		fputc('\n', out);
		shown++;
	}
	free(choice);
}
