/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A FUSE server that does nothing: one file of 1 GiB, whose reads are answered from a buffer and
 * whose writes are discarded. So the cost of a request is that of the round trip.
 *   null_server [-c] MOUNTPOINT      serves until it is unmounted; the file is MOUNTPOINT/file
 * -c: through the page cache; otherwise all reads and writes are direct.
 * Other files and directories can be made, written and removed. Nothing is kept of them: only the
 * kernel's cache knows their names.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_INO = 2, FIRST_INO = 16, MAX_IO = 1 << 20 };
#define FILE_SIZE (1ll << 30)
#define FOREVER 1e9

static char zeros[MAX_IO];
static bool cached;
static atomic_ulong next_ino = FIRST_INO; /* files are even, directories odd */

static struct stat attr_of(fuse_ino_t ino)
{
	bool dir = ino == FUSE_ROOT_ID || (ino >= FIRST_INO && ino % 2);

	return (struct stat){
		.st_ino = ino,
		.st_mode = dir ? S_IFDIR | 0755 : S_IFREG | 0644,
		.st_nlink = 1,
		.st_size = ino == FILE_INO ? FILE_SIZE : 0,
	};
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = MAX_IO;
	conn->max_background = 64;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {
		.ino = FILE_INO, .attr_timeout = FOREVER, .entry_timeout = FOREVER};

	if (parent != FUSE_ROOT_ID || strcmp(name, "file")) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	e.attr = attr_of(FILE_INO);
	fuse_reply_entry(req, &e);
}

static struct fuse_entry_param fresh(bool dir)
{
	fuse_ino_t ino = atomic_fetch_add(&next_ino, 2) + dir;

	return (struct fuse_entry_param){.ino = ino,
		.attr = attr_of(ino),
		.attr_timeout = FOREVER,
		.entry_timeout = FOREVER};
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fuse_entry_param e = fresh(true);

	(void)parent, (void)name, (void)mode;
	fuse_reply_entry(req, &e);
}

static void op_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e = fresh(false);

	(void)parent, (void)name, (void)mode;
	fi->noflush = 1;
	fuse_reply_create(req, &e, fi);
}

static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent, (void)name;
	fuse_reply_err(req, 0);
}

static void op_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int which, struct fuse_file_info *fi)
{
	struct stat st = attr_of(ino);

	(void)fi;
	if (which & FUSE_SET_ATTR_SIZE)
		st.st_size = attr->st_size;
	fuse_reply_attr(req, &st, FOREVER);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino, (void)datasync, (void)fi;
	fuse_reply_err(req, 0);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = attr_of(ino);

	(void)fi;
	fuse_reply_attr(req, &st, FOREVER);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = !cached;
	fi->noflush = 1;
	fuse_reply_open(req, fi);
}

static void op_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino, (void)off, (void)fi;
	fuse_reply_buf(req, zeros, size < MAX_IO ? size : MAX_IO);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	(void)ino, (void)data, (void)off, (void)fi;
	fuse_reply_write(req, size);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mkdir = op_mkdir,
	.create = op_create,
	.unlink = op_remove,
	.rmdir = op_remove,
	.fsync = op_fsync,
	.open = op_open,
	.read = op_read,
	.write = op_write,
};

/* As the server proper does it, with as many threads. */
static void *worker(void *arg)
{
	struct fuse_session *se = arg;
	struct fuse_buf buf = {.mem = NULL};

	while (!fuse_session_exited(se)) {
		int n = fuse_session_receive_buf(se, &buf);

		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			break;
		fuse_session_process_buf(se, &buf);
	}
	fuse_session_exit(se);
	free(buf.mem);
	return NULL;
}

int main(int argc, char **argv)
{
	char name[] = "null", opt_o[] = "-o", opts[] = "fsname=null,allow_other";
	char *fuse_argv[] = {name, opt_o, opts, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = cpus > 2 ? 2 * (unsigned)cpus : 4;
	struct fuse_session *se;
	pthread_t thread[256];

	cached = argc == 3 && !strcmp(argv[1], "-c");
	if (argc != 2 + cached)
		return 2;
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!se || fuse_session_mount(se, argv[1 + cached]))
		return 1;
	if (daemon(0, 0))
		return 1;
	for (unsigned i = 0; i < n && i < 256; i++)
		if (pthread_create(&thread[i], NULL, worker, se))
			return 1;
	for (unsigned i = 0; i < n && i < 256; i++)
		pthread_join(thread[i], NULL);
	fuse_session_unmount(se);
	fuse_session_destroy(se);
	return 0;
}
