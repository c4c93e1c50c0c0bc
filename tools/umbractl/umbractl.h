/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by umbractl's subcommands: the table of commands, messages, access to a mount's ioctls. */
#ifndef UMBRACTL_H
#define UMBRACTL_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "fuse/ioctl.h"

/* Exit codes; `exec` has its own, see umbractl(8). */
#define UM_EXIT_OK 0
#define UM_EXIT_FAIL 1
#define UM_EXIT_USAGE 2

struct um_cmd {
	const char *name;
	int (*run)(int argc,
		char **argv); /* argv[0] is the subcommand's name; returns the exit code */
	const char *args;     /* synopsis after the name */
	const char *help;     /* one line */
};

int um_cmd_info(int argc, char **argv);
int um_cmd_stat(int argc, char **argv);
int um_cmd_clone(int argc, char **argv);
int um_cmd_dedupe(int argc, char **argv);
int um_cmd_map(int argc, char **argv);
int um_cmd_owners(int argc, char **argv);
int um_cmd_du(int argc, char **argv);
int um_cmd_health(int argc, char **argv);
int um_cmd_scrub(int argc, char **argv);
int um_cmd_grow(int argc, char **argv);
int um_cmd_trim(int argc, char **argv);
int um_cmd_exec(int argc, char **argv);

/* The command being run, for messages; set by main. */
extern const struct um_cmd *um_current;

/* ---- messages ------------------------------------------------------------------------------- */

/* "umbractl NAME: text" on standard error; with err (positive or negative errno) also its
 * description. */
void um_err(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints the synopsis on standard error; returns UM_EXIT_USAGE. */
int um_usage(void);
/* --json, and --bytes or -b, of commands that take no other options. False: something else. */
bool um_size_options(int argc, char **argv, bool *json, bool *plain);

/* "1.5 GiB", or plain bytes. Returns buf. */
#define UM_SIZE_STR 32
char *um_size_str(char buf[UM_SIZE_STR], uint64_t bytes, bool plain);

/* Bytes from digits and at most one of K, M, G, T, P (powers of 1024). False: invalid. */
bool um_parse_size(const char *arg, uint64_t *out);

/* A string for JSON: bytes that are not UTF-8 become U+FFFD. */
struct json_object *um_json_text(const char *s);
/* Prints obj, indented, with a newline, and frees it. UM_EXIT_OK, or UM_EXIT_FAIL if stdout
 * fails. */
int um_json_print(struct json_object *obj);
/* Prints obj's members as "name  value" lines; those named in bytes or blocks as sizes too. */
void um_json_table(struct json_object *obj, bool plain);
/* Arguments of info and stat: PATH [--json] [--bytes]. */
struct um_show {
	const char *path;
	bool json, plain;
};
bool um_show_arguments(int argc, char **argv, struct um_show *out); /* false: show the usage */
/* Prints obj as asked and frees it; the exit code. */
int um_show(const struct um_show *show, struct json_object *obj);
/* Flushes stdout; returns the exit code that says whether everything was printed. */
int um_finish_output(int exit_code);

/* ---- a mounted umbrafs ------------------------------------------------------------------------ */

/* 0 if fd is on an umbrafs, else -ENOTTY (it is not) or another -errno. out may be NULL. */
int um_fd_info(int fd, struct um_ioc_info *out);
/* Opens a regular file of a mounted umbrafs for reading; otherwise prints what is wrong and returns
 * -1. */
int um_open_regular(const char *path, struct stat *st);
/* Reads a whole text of UM_IOC_TEXT and parses it. -EPROTO: not JSON. */
int um_fd_text(int fd, uint32_t what, struct json_object **out);
/* The same for the mount that a file or directory is on. -ENOTTY: it is on none, or is a device, a
 * fifo... */
int um_path_text(const char *path, uint32_t what, struct json_object **out);

/* Clones [src_off, src_off+len) to dst_off through the daemon; len 0: to the end. *out_done:
 * bytes. */
int um_fd_clone(
	int src, uint64_t src_off, uint64_t len, int dst, uint64_t dst_off, uint64_t *out_done);
/* Shares what is equal, repeated as long as it makes progress. *out_same: false if they differ. */
int um_fd_dedupe(int src, uint64_t src_off, uint64_t len, int dst, uint64_t dst_off, bool *out_same,
	uint64_t *out_done);

/* Calls fn for every extent that intersects [off, off+len); a non-zero return ends the walk and is
 * returned. */
typedef int um_extent_fn(void *arg, const struct um_ioc_extent *ext);
int um_fd_map(int fd, uint64_t off, uint64_t len, um_extent_fn *fn, void *arg);

#endif
