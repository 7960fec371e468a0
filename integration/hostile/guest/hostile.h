/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the hostile kernel share. Offsets: docs/noxs.md 2. */
#ifndef HOSTILE_H
#define HOSTILE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define PAGE 4096UL

/*
 * The build sets MODE, the kind of attack, SEED, where the random numbers start,
 * and CANARY, the text that no guest may read.
 */
enum { MODE_PAGE, MODE_RINGS, MODE_FUSE, MODE_VSOCK, MODE_RESET, MODE_CONSOLE };

extern long hypercall(long nr, long a, long b, long c);

/* base.c */
extern volatile u8 *pool;
u64 rnd(void);
u64 nasty(void);
void relax(void);
void say(const char *text);
void say_number(const char *what, u64 n);
void kick(u32 port);
void fill(volatile u8 *p, u64 n);
void copy(volatile void *to, const volatile void *from, u64 n);
u64 length(const char *s);
volatile u32 *word(u64 off);

/* virtio.c */
struct queue {
	u32 num;
	u64 desc, avail, used;	/* offsets in the pool */
	u16 next, seen;
};
struct device {
	u32 index, port;
	u64 out, in;		/* offsets in the pool of the section's halves */
	u64 out_len, in_len;
	u32 queues;
	struct queue q[4];
};
int device_up(struct device *d, u32 index);
void set_desc(struct queue *q, u32 i, u64 addr, u32 len, u16 flags, u16 next);
void offer(struct queue *q, u16 head);
int done(struct queue *q, u32 *head, u32 *len);

/* fuse.c, vsock.c */
__attribute__((noreturn)) void attack_fuse(void);
__attribute__((noreturn)) void attack_vsock(void);
int vsock_hello(struct device *d);
void vsock_poll(struct device *d);

#endif
