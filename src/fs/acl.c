/* SPDX-License-Identifier: BSD-3-Clause */
/* POSIX ACLs: stored in the kernel's xattr format (version 2), checked when set. The rules are
 * those of fs/posix_acl.c in Linux, which follows POSIX.1e draft 17. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/acl.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

struct acl_head {
	um_le32_t version; /* 2 */
};
struct acl_entry {
	um_le16_t tag;
	um_le16_t perm;
	um_le32_t id;
};
static_assert(sizeof(struct acl_entry) == 8, "acl_entry");
#define ACL_VERSION 2u
#define ACL_SIZE_MAX UM_XATTR_VALUE_MAX

enum {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

bool um_acl_is_name(const char *name)
{
	return !strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT);
}

/* The value may be unaligned, so entries are copied out and in. */
static struct acl_entry entry_at(const void *acl, size_t i)
{
	struct acl_entry entry;

	memcpy(&entry, (const uint8_t *)acl + sizeof(struct acl_head) + i * sizeof(entry),
		sizeof(entry));
	return entry;
}

static void set_perm(void *acl, size_t i, um_le16_t perm)
{
	struct acl_entry entry = entry_at(acl, i);

	entry.perm = perm;
	memcpy((uint8_t *)acl + sizeof(struct acl_head) + i * sizeof(entry), &entry, sizeof(entry));
}

/* Checks the order of the entries, and that each mandatory one is there once; *out_n may be 0: no
 * ACL. -EINVAL. */
static int check_acl(const void *acl, size_t len, size_t *out_n)
{
	unsigned need = ACL_USER_OBJ; /* tags that may come next */
	bool mask_due = false;
	struct acl_head head;
	size_t i, n;

	if (len < sizeof(head) || (len - sizeof(head)) % sizeof(struct acl_entry))
		return -EINVAL;
	memcpy(&head, acl, sizeof(head));
	if (head.version != ACL_VERSION)
		return -EOPNOTSUPP;
	n = (len - sizeof(head)) / sizeof(struct acl_entry);
	*out_n = n;
	for (i = 0; i < n; i++) {
		struct acl_entry entry = entry_at(acl, i);

		if (entry.perm & ~7u || !(entry.tag & need) || entry.tag & (entry.tag - 1))
			return -EINVAL;
		if ((entry.tag == ACL_USER || entry.tag == ACL_GROUP)) {
			if (entry.id == UINT32_MAX)
				return -EINVAL;
			mask_due = true;
		}
		switch (entry.tag) {
		case ACL_USER_OBJ:
			need = ACL_USER | ACL_GROUP_OBJ;
			break;
		case ACL_GROUP_OBJ:
			need = ACL_GROUP | ACL_MASK | ACL_OTHER;
			break;
		case ACL_GROUP:
			need = ACL_GROUP | ACL_MASK;
			break;
		case ACL_MASK:
			need = ACL_OTHER;
			break;
		case ACL_OTHER:
			need = 0;
			break;
		}
		if (entry.tag == ACL_GROUP_OBJ && mask_due)
			need = ACL_GROUP | ACL_MASK;
	}
	return n && need ? -EINVAL : 0;
}

/* Permission bits that an ACL represents; true if they are equivalent to it. */
static bool acl_mode(const void *acl, size_t n, mode_t *out)
{
	mode_t mode = 0;
	bool equiv = true;
	size_t i;

	for (i = 0; i < n; i++) {
		struct acl_entry entry = entry_at(acl, i);

		switch (entry.tag) {
		case ACL_USER_OBJ:
			mode |= (mode_t)entry.perm << 6;
			break;
		case ACL_GROUP_OBJ:
			mode |= (mode_t)entry.perm << 3;
			break;
		case ACL_OTHER:
			mode |= entry.perm;
			break;
		case ACL_MASK:
			mode = (mode & ~(mode_t)S_IRWXG) | (mode_t)entry.perm << 3;
			equiv = false;
			break;
		default:
			equiv = false;
		}
	}
	*out = mode;
	return equiv;
}

int um_acl_set_mode(
	struct um_inode *inode, const void *acl, size_t len, bool kill_sgid, bool *out_equiv)
{
	mode_t mode;
	size_t n;
	int ret = check_acl(acl, len, &n);

	if (ret)
		return ret;
	*out_equiv = true;
	if (!n)
		return 0;
	*out_equiv = acl_mode(acl, n, &mode);
	inode->core.mode = (inode->core.mode & ~(um_le32_t)0777) | mode;
	if (kill_sgid)
		inode->core.mode &= ~(um_le32_t)S_ISGID;
	return 0;
}

static int remove_acl(struct um_txn *txn, struct um_inode *inode, const char *name)
{
	int ret = um_xattr_remove(txn, inode, name);

	return ret == -ENODATA ? 0 : ret;
}

int um_acl_set(struct um_txn *txn, struct um_inode *inode, const char *name, const void *value,
	size_t len, int flags, bool kill_sgid)
{
	bool equiv = false;
	size_t n = 0;
	int ret;

	if (S_ISLNK(inode->core.mode))
		return -EOPNOTSUPP;
	ret = len ? check_acl(value, len, &n) : 0;
	if (ret)
		return ret;
	if (!strcmp(name, ACL_DEFAULT)) {
		if (!S_ISDIR(inode->core.mode))
			return n ? -EACCES : 0;
		equiv = !n;
	} else if (n) {
		ret = um_acl_set_mode(inode, value, len, kill_sgid, &equiv);
	} else {
		equiv = true;
	}
	if (ret)
		return ret;
	if (equiv)
		return remove_acl(txn, inode, name);
	return um_xattr_set(txn, inode, name, value, len, flags);
}

/* Reads an attribute that holds an ACL into allocated memory. -ENODATA. */
static int load_acl(struct um_src src, const struct um_inode *inode, const char *name,
	uint8_t **out, size_t *out_len, size_t *out_n)
{
	size_t len = 0;
	uint8_t *acl;
	int ret = um_xattr_get(src, inode, name, NULL, 0, &len);

	if (ret)
		return ret;
	acl = malloc(len ? len : 1);
	if (!acl)
		return -ENOMEM;
	if (len)
		ret = um_xattr_get(src, inode, name, acl, len, &len);
	if (!ret && check_acl(acl, len, out_n)) {
		um_err("inode %llu: invalid %s", (unsigned long long)inode->ino, name);
		ret = -EUCLEAN;
	}
	if (ret) {
		free(acl);
		return ret;
	}
	*out = acl;
	*out_len = len;
	return 0;
}

/* The entry that the group bits of the mode represent: the mask, or else the group's. */
static size_t group_entry(const void *acl, size_t n)
{
	size_t i, at = n;

	for (i = 0; i < n; i++) {
		um_le16_t tag = entry_at(acl, i).tag;

		if (tag == ACL_MASK || (tag == ACL_GROUP_OBJ && at == n))
			at = i;
	}
	return at;
}

int um_acl_chmod(struct um_txn *txn, struct um_inode *inode)
{
	mode_t mode = inode->core.mode;
	size_t len, n, i, group;
	uint8_t *acl;
	int ret = load_acl(um_txn_src(txn), inode, ACL_ACCESS, &acl, &len, &n);

	if (ret)
		return ret == -ENODATA ? 0 : ret;
	group = group_entry(acl, n);
	for (i = 0; i < n; i++) {
		um_le16_t tag = entry_at(acl, i).tag;

		if (tag == ACL_USER_OBJ)
			set_perm(acl, i, mode >> 6 & 7);
		else if (tag == ACL_OTHER)
			set_perm(acl, i, mode & 7);
		else if (i == group)
			set_perm(acl, i, mode >> 3 & 7);
	}
	ret = um_xattr_set(txn, inode, ACL_ACCESS, acl, len, 0);
	free(acl);
	return ret;
}

/* As posix_acl_create_masq(): the requested mode narrows the ACL, and the ACL the mode. True if the
 * mode then is equivalent to it. */
static bool narrow(void *acl, size_t n, um_le32_t *mode_inout)
{
	mode_t mode = *mode_inout & 0777;
	size_t i, group = group_entry(acl, n);
	bool equiv = true;

	for (i = 0; i < n; i++) {
		struct acl_entry entry = entry_at(acl, i);
		unsigned shift;

		equiv = equiv && !(entry.tag & (ACL_USER | ACL_GROUP | ACL_MASK));
		if (entry.tag == ACL_USER_OBJ)
			shift = 6;
		else if (entry.tag == ACL_OTHER)
			shift = 0;
		else if (i == group)
			shift = 3;
		else
			continue;
		entry.perm &= mode >> shift & 7;
		set_perm(acl, i, entry.perm);
		mode &= ~((mode_t)7 << shift) | (mode_t)entry.perm << shift;
	}
	*mode_inout = (*mode_inout & ~(um_le32_t)0777) | mode;
	return equiv;
}

int um_acl_inherit(
	struct um_txn *txn, const struct um_inode *parent, struct um_inode *inode, mode_t umask)
{
	size_t len, n = 0;
	uint8_t *acl;
	int ret = load_acl(um_txn_src(txn), parent, ACL_DEFAULT, &acl, &len, &n);

	if (ret == -ENODATA || (!ret && !n)) {
		inode->core.mode &= ~(umask & 0777);
		if (!ret)
			free(acl);
		return 0;
	}
	if (ret)
		return ret;
	if (S_ISDIR(inode->core.mode))
		ret = um_xattr_set(txn, inode, ACL_DEFAULT, acl, len, 0);
	if (!ret && !narrow(acl, n, &inode->core.mode))
		ret = um_xattr_set(txn, inode, ACL_ACCESS, acl, len, 0);
	free(acl);
	return ret;
}
