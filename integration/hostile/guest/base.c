/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that means harm. It is loaded in the place of X-LibOS and does to its
 * device page, rings, events and console whatever MODE says, at random from
 * SEED, until its domain is destroyed.
 */
#include "hostile.h"

#define HC_EVTCHN 32
#define HC_SCHED 29

volatile u8 *pool;
static volatile u8 *page;
static u32 pool_pages;
static volatile u8 *ring;	/* the console's */
static u32 console_port;
static u64 state = SEED * 0x9e3779b97f4a7c15UL + 1;

u64 rnd(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dUL;
}

/* A number of the kind that arithmetic gets wrong. */
u64 nasty(void)
{
	static const u64 edge[] = {
		0, 1, 2, 7, 8, 15, 16, 127, 128, 129, 255, 256, 4095, 4096, 4097,
		0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
		0x100000000UL, 0x7fffffffffffffffUL, 0x8000000000000000UL,
		0xfffffffffffff000UL, 0xffffffffffffffffUL,
	};
	u64 pages = (u64)pool_pages * PAGE;

	switch (rnd() % 4) {
	case 0:
		return edge[rnd() % (sizeof(edge) / sizeof(*edge))];
	case 1:
		return pages + rnd() % 64 - 32;
	case 2:
		return rnd() % (pages + 1);
	default:
		return rnd();
	}
}

void relax(void) { hypercall(HC_SCHED, 0, 0, 0); }	/* yield */

void kick(u32 port)
{
	u32 p = port;

	hypercall(HC_EVTCHN, 4, (long)&p, 0);		/* send */
}

void fill(volatile u8 *p, u64 n)
{
	while (n--)
		*p++ = (u8)rnd();
}

void copy(volatile void *to, const volatile void *from, u64 n)
{
	volatile u8 *t = to;
	const volatile u8 *f = from;

	while (n--)
		*t++ = *f++;
}

u64 length(const char *s)
{
	u64 n = 0;

	while (s[n])
		n++;
	return n;
}

volatile u32 *word(u64 off) { return (volatile u32 *)(page + off); }

/* Layout of xen/io/console.h. */
#define OUT 1024
#define OUT_SIZE 2048
#define OUT_CONS 3080
#define OUT_PROD 3084

static void put(const char *s, u64 n)
{
	volatile u32 *cons = (volatile u32 *)(ring + OUT_CONS);
	volatile u32 *prod = (volatile u32 *)(ring + OUT_PROD);

	while (n--) {
		while (*prod - *cons >= OUT_SIZE)
			relax();
		ring[OUT + *prod % OUT_SIZE] = *s++;
		__sync_synchronize();
		*prod = *prod + 1;
	}
	kick(console_port);
}

void say(const char *text)
{
	put("hostile: ", 9);
	put(text, length(text));
	put("\n", 1);
}

void say_number(const char *what, u64 n)
{
	char b[24];
	int i = sizeof(b);

	put("hostile: ", 9);
	put(what, length(what));
	b[--i] = '\n';
	do
		b[--i] = '0' + n % 10;
	while (n /= 10);
	put(b + i, sizeof(b) - i);
}

static void console_garbage(void)
{
	fill(ring + OUT, OUT_SIZE);
	*(volatile u32 *)(ring + OUT_PROD) = (u32)nasty();
	if (rnd() % 4 == 0)
		*(volatile u32 *)(ring + OUT_CONS) = (u32)nasty();
	if (rnd() % 8 == 0)
		fill(ring, PAGE);
	kick(console_port);
}

static __attribute__((noreturn)) void attack_page(void)
{
	for (;;) {
		for (int i = 0; i < 16; i++) {
			u64 off = rnd() % (PAGE / 4) * 4;

			*word(off) = (u32)nasty();
		}
		/* Often where it is read: requests and queue blocks. */
		u64 entry = 128 + 256 * (rnd() % 3);

		*word(entry + 24) = rnd() % 2 ? (u32)(rnd() % 256) : 15;
		*word(entry + 44) = (u32)rnd();
		for (u64 q = 0; q < 4; q++) {
			*word(entry + 64 + 32 * q + 4) = 1u << rnd() % 17;
			*word(entry + 64 + 32 * q + 8) = rnd() % 3;
			*word(entry + 64 + 32 * q + 16) = (u32)nasty();
			*word(entry + 64 + 32 * q + 20) = (u32)nasty();
			*word(entry + 64 + 32 * q + 24) = (u32)nasty();
		}
		kick((u32)(rnd() % 16));
		if (rnd() % 64 == 0)
			relax();
	}
}

static __attribute__((noreturn)) void attack_rings(void)
{
	struct device d;

	for (;;) {
		if (!device_up(&d, rnd() % 2)) {
			relax();
			continue;
		}
		for (int round = 0; round < 64; round++) {
			struct queue *q = &d.q[rnd() % d.queues];

			for (u32 i = 0; i < q->num; i++) {
				u64 addr = rnd() % 2 ? nasty() : d.out + rnd() % (d.out_len + d.in_len);

				set_desc(q, i, addr, (u32)nasty(), (u16)(rnd() % 8), (u16)(rnd() % (q->num + 1)));
			}
			for (int i = 0; i < 8; i++)
				offer(q, (u16)(rnd() % 2 ? rnd() : rnd() % q->num));
			if (rnd() % 8 == 0)
				fill(pool + q->avail, 4 + 2 * q->num);
			kick(d.port);
			/* While the other side looks. */
			for (int i = 0; i < 1000; i++)
				fill(pool + q->desc + rnd() % q->num * 16, 16);
		}
	}
}

static __attribute__((noreturn)) void attack_reset(void)
{
	struct device d[2];

	for (;;) {
		for (int i = 0; i < 2; i++)
			device_up(&d[i], i);
		for (int i = 0; i < 100; i++) {
			u32 index = rnd() % 2;

			*word(128 + 256 * index + 24) = rnd() % 2 ? 0 : 15;
			*word(128 + 256 * index + 44) += 1;
			kick(d[index].port);
		}
		*word(20) = (u32)(rnd() % 8);	/* guest_state */
		kick(*word(16));
	}
}

/* start_info of xen.h; the console, the device page and the pool follow it. */
void hostile_main(volatile u8 *start_info)
{
	ring = start_info + PAGE;
	page = start_info + 2 * PAGE;
	pool = start_info + 3 * PAGE;
	pool_pages = *word(8);
	console_port = *(volatile u32 *)(start_info + 80);
	say_number("mode ", MODE);
	if (MODE == MODE_PAGE)
		attack_page();
	if (MODE == MODE_RINGS)
		attack_rings();
	if (MODE == MODE_FUSE)
		attack_fuse();
	if (MODE == MODE_VSOCK)
		attack_vsock();
	if (MODE == MODE_RESET)
		attack_reset();
	for (;;) {
		console_garbage();
		relax();
	}
}
