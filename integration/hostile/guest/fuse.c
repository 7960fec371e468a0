/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE requests that no Linux would send (linux/fuse.h, protocol 7.41): names
 * with slashes and dots, made-up nodes and handles, wrong lengths. What comes
 * back is searched for CANARY, which the host keeps outside of every export.
 */
#include "hostile.h"

enum {
	LOOKUP = 1, SYMLINK = 6, MKNOD = 8, RENAME = 12, OPEN = 14, READ = 15, RELEASE = 18, INIT = 26, CREATE = 35,
	LAST = 55,	/* the highest that is tried, and one above it */
};

static struct device fs, vs;
static u64 unique = 1;
static u8 body[PAGE], answer[8 * PAGE];
static u64 requests;

static void look_for_canary(u64 n)
{
	const char *c = CANARY;
	u64 len = length(c);

	for (u64 i = 0; i + len <= n; i++) {
		u64 k = 0;

		while (k < len && answer[i + k] == (u8)c[k])
			k++;
		if (k == len)
			say("LEAK: read what lies outside of the exports");
	}
}

/*
 * One request with n bytes of body; the answer's length without its header, or
 * -1. header_len replaces the true length if it is not 0.
 */
static long fuse(u32 op, u64 node, u64 n, u32 header_len)
{
	u64 out = fs.out + 8 * PAGE, in = fs.in;
	volatile u32 *h = (volatile u32 *)(pool + out);
	struct queue *q = &fs.q[1];
	u32 head, len;
	long error;

	h[0] = header_len ? header_len : (u32)(40 + n);
	h[1] = op;
	*(volatile u64 *)(h + 2) = ++unique;
	*(volatile u64 *)(h + 4) = node;
	h[6] = h[7] = h[8] = h[9] = 0;
	copy(pool + out + 40, body, n);
	for (u64 i = 0; i < 16; i++)
		*(volatile u8 *)(pool + in + i) = 0;
	set_desc(q, 0, out, (u32)(40 + n), 1, 1);
	for (u16 i = 1; i < 9; i++)
		set_desc(q, i, in + (i - 1) * PAGE, PAGE, i < 8 ? 3 : 2, i + 1);
	offer(q, 0);
	kick(fs.port);
	requests++;
	for (long i = 0; !done(q, &head, &len); i++) {
		if (i % 16 == 0)
			vsock_poll(&vs);
		if (i > 200000 || *word(128 + 256 + 28) & 1) {
			say("the file system is gone");
			for (;;)
				relax();
		}
		relax();
	}
	if (len > sizeof(answer))
		len = sizeof(answer);
	copy(answer, pool + in, len);
	look_for_canary(len);
	error = *(int *)(answer + 4);
	return len < 16 || error ? -1 : (long)len - 16;
}

static u64 name(const char *s, u64 at)
{
	copy(body + at, s, length(s) + 1);
	return at + length(s) + 1;
}

/* The node of a name below another, or 0. */
static u64 lookup(u64 node, const char *s)
{
	return fuse(LOOKUP, node, name(s, 0), 0) < 8 ? 0 : *(u64 *)(answer + 16);
}

static const char *const names[] = {
	"..", ".", "", "../..", "../../../../../../etc/shadow", "/etc/shadow", "a/b", "./x", "x/..", "evil", "evil/shadow",
	"evil/../canary", "proc", "self", "..\\..", "pwned", "../pwned", "/pwned", "hardlink", "node", "fifo", "trusted.x",
	"security.selinux", "user.x", "system.posix_acl_access",
};

static const char *some_name(void) { return names[rnd() % (sizeof(names) / sizeof(*names))]; }

/* No directory has an entry of another kind. "..\\.." is one, and noise() makes it. */
static int is_component(const char *s)
{
	u64 n = length(s);

	for (u64 i = 0; i < n; i++)
		if (s[i] == '/')
			return 0;
	return n && !(s[0] == '.' && (n == 1 || (n == 2 && s[1] == '.')));
}

/* Reads a node to its end, whatever it is. */
static void read_node(u64 node)
{
	u64 fh;

	*(u64 *)body = 0;
	if (fuse(OPEN, node, 8, 0) < 16)
		return;
	fh = *(u64 *)(answer + 16);
	for (u64 i = 0; i < 40; i += 8)
		*(u64 *)(body + i) = 0;
	*(u64 *)body = fh;
	*(u32 *)(body + 16) = 7 * PAGE;
	fuse(READ, node, 40, 0);
	*(u32 *)(body + 8) = 0, *(u32 *)(body + 12) = 0, *(u64 *)(body + 16) = 0;
	*(u64 *)body = fh;
	fuse(RELEASE, node, 24, 0);
}

/* Ways out of an export that have worked elsewhere. */
static void walk_out(u64 root)
{
	u64 node, at;

	for (u64 i = 0; i < sizeof(names) / sizeof(*names); i++) {
		node = lookup(root, names[i]);
		if (!node)
			continue;
		if (!is_component(names[i])) {
			say("LEAK: found a name that is no component");
			say(names[i]);
		}
		read_node(node);
	}
	at = name("evil", 0);
	fuse(SYMLINK, root, name("/etc", at), 0);
	node = lookup(root, "evil");
	if (node) {
		read_node(node);
		if (lookup(node, "shadow") || lookup(node, "passwd"))
			say("LEAK: followed a link");
	}
	at = name("evil2", 0);
	fuse(SYMLINK, root, name("../../../../../../../../../../run/hostile/canary", at), 0);
	node = lookup(root, "evil2");
	if (node)
		read_node(node);
	*(u32 *)body = 0020666, *(u32 *)(body + 4) = 1 << 8 | 1, *(u64 *)(body + 8) = 0;	/* /dev/mem */
	fuse(MKNOD, root, name("node", 16), 0);
	node = lookup(root, "node");
	if (node)
		read_node(node);
	*(u32 *)body = 0010666, *(u32 *)(body + 4) = 0;
	fuse(MKNOD, root, name("fifo", 16), 0);
	node = lookup(root, "fifo");
	if (node)
		read_node(node);
	for (u64 i = 0; i < 3; i++) {
		static const char *const outside[] = { "../pwned", "/run/hostile/pwned", "../../pwned" };

		*(u32 *)body = 0x242, *(u32 *)(body + 4) = 0100644, *(u64 *)(body + 8) = 0;
		if (fuse(CREATE, root, name(outside[i], 16), 0) >= 0)
			say("LEAK: made a file outside");
		*(u64 *)body = root;
		at = name("hardlink", 8);
		fuse(RENAME, root, name(outside[i], at), 0);
	}
}

/* Anything: any opcode, any node, any body, lengths that are wrong. */
static void noise(u64 root)
{
	u64 node = rnd() % 3 ? root : rnd() % 2 ? rnd() % 64 : nasty();
	u64 n = rnd() % 2 ? rnd() % 64 : rnd() % sizeof(body), at = 0;
	u32 op = (u32)(rnd() % (LAST + 2));

	if (op == INIT && rnd() % 16)
		op = LOOKUP;
	fill(body, n);
	for (u64 i = 0; i < 6 && i * 8 < n; i++)
		if (rnd() % 2)
			*(u64 *)(body + i * 8) = rnd() % 2 ? nasty() : rnd() % 16;
	if (rnd() % 2) {
		at = rnd() % 48;
		n = name(some_name(), at);
		if (rnd() % 2)
			n = name(some_name(), n);
	}
	fuse(op, node, n, rnd() % 16 ? 0 : (u32)nasty());
}

static u64 init_fs(void)
{
	u64 node;

	for (u64 i = 0; i < 64; i += 8)
		*(u64 *)(body + i) = 0;
	*(u32 *)body = 7, *(u32 *)(body + 4) = 41, *(u32 *)(body + 8) = 1 << 17;
	fuse(INIT, 0, 64, 0);
	/* The container's id is in the list of the root. */
	node = lookup(1, "hostile");
	if (!node)
		return 0;
	return lookup(node, "rootfs");
}

void attack_fuse(void)
{
	u64 root = 0;

	while (!vsock_hello(&vs))
		relax();
	say("said hello");
	while (!device_up(&fs, 1))
		relax();
	for (int i = 0; i < 2000 && !root; i++) {
		vsock_poll(&vs);
		root = i ? lookup(1, "hostile") : init_fs();
		if (root && i)
			root = lookup(root, "rootfs");
		relax();
	}
	say(root ? "has the root file system" : "has no root file system");
	if (!root)
		root = 1;
	walk_out(root);
	say("has tried the ways out");
	for (u64 i = 1;; i++) {
		noise(root);
		if (i % 512 == 0) {
			vsock_poll(&vs);
			say_number("requests ", requests);
		}
		if (i % 4096 == 0)
			walk_out(root);
	}
}
