/* SPDX-License-Identifier: BSD-3-Clause */
/* Mount options: their names and meanings, and the generic ones that mount(8) passes to every
 * helper. */
#include "fuse/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

enum kind {
	FLAG,    /* sets MS_* flags */
	UNFLAG,  /* clears them */
	IGNORE,  /* has a meaning only for mount(8) or systemd, or is our default */
	ATIME,   /* value: enum umbra_atime */
	DATA,    /* value: enum umbra_data_mode */
	CSUM,    /* value: enum umbra_data_csum */
	DISCARD, /* value: or not */
	CACHE,   /* value: none or not */
	BACK,    /* value: or not */
	HANDLES, /* value: none or not */
	ERRORS,  /* value: enum umbra_errors */
	SHARE,   /* value: enum um_share_policy */
	URING,   /* value: or not */
	SIZE,    /* after '=': bytes, with K, M or G */
	NUMBER,  /* after '=', within limits */
	OTHER,   /* allow_other */
	REMOUNT, /* remount */
	BLOCK,   /* fuseblk */
	CONTEXT, /* SELinux, passed to the kernel unchanged */
	REFUSE,  /* with a message of its own */
};

/* What has a number. */
enum { COMMIT, THREADS, BUSY_POLL };
static const struct {
	unsigned min, max;
} number_limits[] = {[COMMIT] = {1, 3600}, [THREADS] = {1, 256}, [BUSY_POLL] = {0, 1000}};

struct word {
	const char *text; /* ends in '=': a value follows; in '*': a prefix */
	enum kind kind;
	unsigned long value;
	const char *why; /* REFUSE */
};

#define NO_DEVICES (MS_NOSUID | MS_NODEV)
static const char dax_why[] = "is not a choice here: a pool on persistent memory is always mapped";

static const struct word words[] = {
	{"ro", FLAG, MS_RDONLY, NULL},
	{"rw", UNFLAG, MS_RDONLY, NULL},
	{"nosuid", FLAG, MS_NOSUID, NULL},
	{"suid", UNFLAG, MS_NOSUID, NULL},
	{"nodev", FLAG, MS_NODEV, NULL},
	{"dev", UNFLAG, MS_NODEV, NULL},
	{"noexec", FLAG, MS_NOEXEC, NULL},
	{"exec", UNFLAG, MS_NOEXEC, NULL},
	{"sync", FLAG, MS_SYNCHRONOUS, NULL},
	{"async", UNFLAG, MS_SYNCHRONOUS, NULL},
	{"dirsync", FLAG, MS_DIRSYNC, NULL},
	{"nosymfollow", FLAG, MS_NOSYMFOLLOW, NULL},
	{"symfollow", UNFLAG, MS_NOSYMFOLLOW, NULL},
	{"user", FLAG, NO_DEVICES | MS_NOEXEC, NULL},
	{"users", FLAG, NO_DEVICES | MS_NOEXEC, NULL},
	{"owner", FLAG, NO_DEVICES, NULL},
	{"group", FLAG, NO_DEVICES, NULL},
	{"relatime", ATIME, UMBRA_RELATIME, NULL},
	{"atime", ATIME, UMBRA_RELATIME, NULL},
	{"nostrictatime", ATIME, UMBRA_RELATIME, NULL},
	{"noatime", ATIME, UMBRA_NOATIME, NULL},
	{"strictatime", ATIME, UMBRA_STRICTATIME, NULL},
	{"data=atomic", DATA, UMBRA_DATA_ATOMIC, NULL},
	{"data=inplace", DATA, UMBRA_DATA_INPLACE, NULL},
	{"data-csum=read", CSUM, UMBRA_CSUM_READ, NULL},
	{"data-csum=scrub", CSUM, UMBRA_CSUM_SCRUB, NULL},
	{"errors=remount-ro", ERRORS, UMBRA_ERRORS_RO, NULL},
	{"errors=continue", ERRORS, UMBRA_ERRORS_CONTINUE, NULL},
	{"errors=shutdown", ERRORS, UMBRA_ERRORS_SHUTDOWN, NULL},
	{"errors=panic", REFUSE, 0, "is not for a program to do: errors=shutdown ends all access"},
	{"discard", DISCARD, 1, NULL},
	{"nodiscard", DISCARD, 0, NULL},
	{"cache=auto", CACHE, 0, NULL},
	{"cache=none", CACHE, 1, NULL},
	{"writeback", BACK, 1, NULL},
	{"nowriteback", BACK, 0, NULL},
	{"handles", HANDLES, 0, NULL},
	{"nohandles", HANDLES, 1, NULL},
	{"share=auto", SHARE, UM_SHARE_AUTO, NULL},
	{"share=all", SHARE, UM_SHARE_ALL, NULL},
	{"share=immutable", SHARE, UM_SHARE_IMMUTABLE, NULL},
	{"share=off", SHARE, UM_SHARE_OFF, NULL},
	{"io_uring", URING, 1, NULL},
	{"noio_uring", URING, 0, NULL},
	{"busy_poll=", NUMBER, BUSY_POLL, NULL},
	{"commit=", NUMBER, COMMIT, NULL},
	{"shadow_mem=", SIZE, 0, NULL},
	{"threads=", NUMBER, THREADS, NULL},
	{"allow_other", OTHER, 0, NULL},
	{"remount", REMOUNT, 0, NULL},
	{"fuseblk", BLOCK, 0, NULL},
	{"context=", CONTEXT, 0, NULL},
	{"fscontext=", CONTEXT, 0, NULL},
	{"defcontext=", CONTEXT, 0, NULL},
	{"rootcontext=", CONTEXT, 0, NULL},
	{"default_permissions", IGNORE, 0, NULL},
	{"defaults", IGNORE, 0, NULL},
	{"auto", IGNORE, 0, NULL},
	{"noauto", IGNORE, 0, NULL},
	{"nofail", IGNORE, 0, NULL},
	{"_netdev", IGNORE, 0, NULL},
	{"_rnetdev", IGNORE, 0, NULL},
	{"nouser", IGNORE, 0, NULL},
	{"nousers", IGNORE, 0, NULL},
	{"noowner", IGNORE, 0, NULL},
	{"nogroup", IGNORE, 0, NULL},
	{"nodiratime", FLAG, MS_NODIRATIME, NULL},
	{"diratime", UNFLAG, MS_NODIRATIME, NULL},
	{"silent", IGNORE, 0, NULL},
	{"loud", IGNORE, 0, NULL},
	/* Permits to store times late, which is never done. */
	{"lazytime", IGNORE, 0, NULL},
	{"nolazytime", IGNORE, 0, NULL},
	/* Mandatory locks: Linux has none since 5.15, and ignores these words on all filesystems. */
	{"mand", IGNORE, 0, NULL},
	{"nomand", IGNORE, 0, NULL},
	{"noiversion", IGNORE, 0, NULL},
	{"user=", IGNORE, 0, NULL},
	{"comment=", IGNORE, 0, NULL},
	{"helper=", IGNORE, 0, NULL},
	{"uhelper=", IGNORE, 0, NULL},
	{"x-*", IGNORE, 0, NULL},
	{"X-*", IGNORE, 0, NULL},
	{"dax", REFUSE, 0, dax_why},
	{"dax=", REFUSE, 0, dax_why},
	{"inlinecrypt", REFUSE, 0, "is not supported: a pool does not encrypt"},
	{"iversion", REFUSE, 0,
		"is not supported: the kernel counts no changes of inodes over FUSE"},
	{"fsname=", REFUSE, 0, "cannot be set: it is always the pool"},
	{"subtype=", REFUSE, 0, "cannot be set: it is always umbrafs"},
};
/* Shown among the options of a FUSE mount, so passed to us again on a remount, where they carry no
 * information. */
static const char *const remount_words[] = {
	"user_id=", "group_id=", "max_read=", "blksize=", "seclabel", "fd=", "rootmode=", NULL};

void um_options_init(struct um_options *opt, bool privileged)
{
	*opt = (struct um_options){
		.allow_other = privileged,
		.share = UM_SHARE_AUTO,
		.fs.busy_poll = 50,
		.ms_flags = privileged ? 0 : NO_DEVICES,
	};
}

static bool word_matches(const char *pattern, const char *word)
{
	size_t len = strlen(pattern);

	if (pattern[len - 1] == '*')
		return strncmp(pattern, word, len - 1) == 0;
	if (pattern[len - 1] == '=')
		return strncmp(pattern, word, len) == 0;
	return strcmp(pattern, word) == 0;
}

static const struct word *word_find(const char *text)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (word_matches(words[i].text, text))
			return &words[i];
	return NULL;
}

static int take_number(
	struct um_options *opt, const struct word *word, const char *text, char *msg, size_t len)
{
	const char *digits = strchr(text, '=') + 1;
	unsigned min = number_limits[word->value].min, max = number_limits[word->value].max;
	unsigned *const to[] = {[COMMIT] = &opt->fs.commit_seconds,
		[THREADS] = &opt->threads,
		[BUSY_POLL] = &opt->fs.busy_poll};
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(digits, &end, 10);
	if (errno || *end || end == digits || *digits == '-' || n < min || n > max) {
		snprintf(msg, len, "option %s wants a number from %u to %u", text, min, max);
		return -EINVAL;
	}
	*to[word->value] = (unsigned)n;
	return 0;
}

/* 0 means none; for the engine 0 is its default. */
static int take_shadow_mem(struct um_options *opt, const char *text, char *msg, size_t len)
{
	static const char units[] = "KMG";
	const char *digits = strchr(text, '=') + 1, *unit;
	unsigned long long n;
	char *end;
	bool good;

	errno = 0;
	n = strtoull(digits, &end, 10);
	good = !errno && end != digits && *digits >= '0' && *digits <= '9';
	unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (*end) {
		good = good && unit && !end[1] && n < 1ull << 32;
		n <<= unit ? 10 * (unit - units + 1) : 0;
	}
	if (!good || (n && n < 1u << 20) || n > 1ull << 40) {
		snprintf(msg, len, "option %s wants 0, or a size from 1M to 1024G", text);
		return -EINVAL;
	}
	opt->fs.shadow_mem = n ? n : UMBRA_SHADOW_NONE;
	return 0;
}

static int take_context(struct um_options *opt, const char *text, char *msg, size_t len)
{
	size_t used = strlen(opt->context);
	int n = snprintf(
		opt->context + used, sizeof(opt->context) - used, "%s%s", used ? "," : "", text);

	if (n < 0 || (size_t)n >= sizeof(opt->context) - used) {
		opt->context[used] = 0;
		snprintf(msg, len, "option %.40s... is too long", text);
		return -EINVAL;
	}
	return 0;
}

static void take_atime(struct um_options *opt, enum umbra_atime atime)
{
	opt->fs.atime = atime;
	opt->ms_named |= MS_NOATIME | MS_RELATIME | MS_STRICTATIME;
	opt->ms_flags &= ~(unsigned long)(MS_NOATIME | MS_RELATIME | MS_STRICTATIME);
	if (atime == UMBRA_NOATIME)
		opt->ms_flags |= MS_NOATIME;
}

static int take_word(
	struct um_options *opt, const struct word *word, const char *text, char *msg, size_t len)
{
	switch (word->kind) {
	case FLAG:
		opt->ms_flags |= word->value;
		opt->ms_named |= word->value;
		break;
	case UNFLAG:
		opt->ms_flags &= ~word->value;
		opt->ms_named |= word->value;
		break;
	case ATIME:
		take_atime(opt, (enum umbra_atime)word->value);
		break;
	case DATA:
		opt->fs.data = (enum umbra_data_mode)word->value;
		break;
	case CSUM:
		opt->fs.data_csum = (enum umbra_data_csum)word->value;
		break;
	case ERRORS:
		opt->fs.errors = (enum umbra_errors)word->value;
		break;
	case DISCARD:
		opt->fs.discard = word->value;
		break;
	case CACHE:
		opt->cache_none = word->value;
		break;
	case BACK:
		opt->writeback = word->value;
		break;
	case HANDLES:
		opt->no_handles = word->value;
		break;
	case SHARE:
		opt->share = (enum um_share_policy)word->value;
		break;
	case URING:
		opt->uring = word->value;
		break;
	case SIZE:
		return take_shadow_mem(opt, text, msg, len);
	case NUMBER:
		return take_number(opt, word, text, msg, len);
	case OTHER:
		opt->allow_other = true;
		break;
	case REMOUNT:
		opt->remount = true;
		break;
	case BLOCK:
		opt->fuseblk = opt->fs.claimed = true;
		break;
	case CONTEXT:
		return take_context(opt, text, msg, len);
	case IGNORE:
		break;
	case REFUSE:
		snprintf(msg, len, "option %s %s", text, word->why);
		return -EINVAL;
	}
	return 0;
}

static bool known_on_remount(const char *text)
{
	for (size_t i = 0; remount_words[i]; i++)
		if (word_matches(remount_words[i], text))
			return true;
	return false;
}

/* Cuts the next word off the list at *at; commas inside double quotes do not separate. */
static char *next_word(char **at)
{
	char *start = *at;
	bool quoted = false;
	char *p;

	if (!start)
		return NULL;
	for (p = start; *p && (quoted || *p != ','); p++)
		if (*p == '"')
			quoted = !quoted;
	*at = *p ? p + 1 : NULL;
	*p = 0;
	return start;
}

int um_options_parse(
	struct um_options *opt, const char *list, bool sloppy, char *msg, size_t msg_len)
{
	char *copy = strdup(list);
	char *at = copy, *text;
	char unknown[128] = "", late[128] = "";
	int err = 0;

	if (!copy)
		return -ENOMEM;
	while (!err && (text = next_word(&at))) {
		const struct word *word = *text ? word_find(text) : NULL;

		if (word && !(sloppy && word->kind == REFUSE))
			err = take_word(opt, word, text, msg, msg_len);
		else if (word)
			continue;
		else if (*text && known_on_remount(text) && !*late)
			snprintf(late, sizeof(late), "%s", text);
		else if (*text && !known_on_remount(text) && !*unknown)
			snprintf(unknown, sizeof(unknown), "%s", text);
	}
	/* Checked at the end: "remount" may come last. */
	if (!opt->remount && !*unknown)
		memcpy(unknown, late, sizeof(unknown));
	if (!err && !sloppy && *unknown) {
		snprintf(msg, msg_len, "unknown option %s", unknown);
		err = -EINVAL;
	}
	if (!err && opt->cache_none && opt->writeback) {
		snprintf(msg, msg_len,
			"writeback and cache=none exclude each other: what is written back comes "
			"from the "
			"page cache");
		err = -EINVAL;
	}
	opt->fs.readonly = opt->ms_flags & MS_RDONLY;
	opt->fs.nodiratime = opt->ms_flags & MS_NODIRATIME;
	/* If the kernel keeps no pages, no shadows are needed. */
	if (opt->cache_none)
		opt->fs.shadow_mem = UMBRA_SHADOW_NONE;
	free(copy);
	return err;
}

/* ---- what is the whole filesystem's -------------------------------------------------------------------- */

#define WHOLE_FLAGS (MS_SYNCHRONOUS | MS_DIRSYNC)
#define COMMIT_DEFAULT 5u
#define SHADOW_DEFAULT (64ull << 20)

static unsigned commit_seconds(const struct um_options *opt)
{
	return opt->fs.commit_seconds ? opt->fs.commit_seconds : COMMIT_DEFAULT;
}

static uint64_t shadow_mem(const struct um_options *opt)
{
	return opt->fs.shadow_mem ? opt->fs.shadow_mem : SHADOW_DEFAULT;
}

/* The word of that kind with that value. */
static const char *word_text(enum kind kind, unsigned long value)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (words[i].kind == kind && words[i].value == value)
			return words[i].text;
	return "defaults";
}

void um_options_text(const struct um_options *opt, char *out, size_t len)
{
	uint64_t mem = shadow_mem(opt);
	char threads[32] = "";

	if (opt->threads)
		snprintf(threads, sizeof(threads), ",threads=%u", opt->threads);
	snprintf(out, len,
		"%s%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,"
		"commit=%u,busy_poll=%u,shadow_mem=%lluK%s%s%s%s%s%s%s",
		word_text(ATIME, opt->fs.atime), opt->fs.nodiratime ? ",nodiratime" : "",
		word_text(DATA, opt->fs.data), word_text(CSUM, opt->fs.data_csum),
		word_text(ERRORS, opt->fs.errors), word_text(DISCARD, opt->fs.discard),
		word_text(CACHE, opt->cache_none), word_text(BACK, opt->writeback),
		word_text(HANDLES, opt->no_handles), word_text(SHARE, opt->share),
		word_text(URING, opt->uring), commit_seconds(opt), opt->fs.busy_poll,
		(unsigned long long)(mem == UMBRA_SHADOW_NONE ? 0 : mem >> 10), threads,
		opt->allow_other ? ",allow_other" : "",
		opt->ms_flags & MS_SYNCHRONOUS ? ",sync" : "",
		opt->ms_flags & MS_DIRSYNC ? ",dirsync" : "", opt->fuseblk ? ",fuseblk" : "",
		*opt->context ? "," : "", opt->context);
}

static bool same_whole(const struct um_options *a, const struct um_options *b)
{
	return a->fs.atime == b->fs.atime && a->fs.nodiratime == b->fs.nodiratime &&
	       a->fs.data == b->fs.data && a->fs.errors == b->fs.errors &&
	       a->fs.discard == b->fs.discard && a->fs.data_csum == b->fs.data_csum &&
	       a->cache_none == b->cache_none && a->writeback == b->writeback &&
	       a->no_handles == b->no_handles && a->share == b->share && a->uring == b->uring &&
	       commit_seconds(a) == commit_seconds(b) &&
	       shadow_mem(a) >> 10 == shadow_mem(b) >> 10 && a->threads == b->threads &&
	       a->fs.busy_poll == b->fs.busy_poll && a->allow_other == b->allow_other &&
	       a->fuseblk == b->fuseblk && !((a->ms_flags ^ b->ms_flags) & WHOLE_FLAGS);
}

static bool asks_for_more(const struct um_options *have, const char *list)
{
	struct um_options want = *have;
	char msg[256];

	/* Contexts accumulate. */
	want.context[0] = 0;
	if (um_options_parse(&want, list, true, msg, sizeof(msg)))
		return true;
	return !same_whole(have, &want) ||
	       (*want.context && strcmp(want.context, have->context) != 0);
}

bool um_options_differ(const struct um_options *have, const char *list, char *out, size_t len)
{
	char *copy, *at, *text;

	*out = 0;
	if (!asks_for_more(have, list))
		return false;
	/* The last word that does so by itself: later ones may have overridden earlier ones. */
	copy = at = strdup(list);
	while (copy && (text = next_word(&at)))
		if (*text && asks_for_more(have, text))
			snprintf(out, len, "%s", text);
	free(copy);
	return true;
}
