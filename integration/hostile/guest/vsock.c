/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of virtio 1.2, 5.10; the agent's hello of docs/agent.md 1. */
#include "hostile.h"

struct __attribute__((packed)) packet {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port, len;
	u16 type, op;
	u32 flags, buf_alloc, fwd_cnt;
};

enum { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT, OP_CREDIT_REQUEST };

#define RX 0
#define TX 1
#define SLOTS 32
#define SLOT PAGE

static u64 rx_slot(struct device *d, u32 i) { return d->in + i * SLOT; }
static u64 tx_slot(struct device *d, u32 i) { return d->out + (4 + i) * SLOT; }

static void post_rx(struct device *d)
{
	for (u32 i = 0; i < SLOTS; i++) {
		set_desc(&d->q[RX], i, rx_slot(d, i), SLOT, 2, 0);
		offer(&d->q[RX], (u16)i);
	}
	kick(d->port);
}

/* Sends one packet and waits until it is taken, a while. */
static void send(struct device *d, struct packet *p, const void *data, u32 n)
{
	static u32 slot;
	u32 head, len;
	u64 at = tx_slot(d, slot = (slot + 1) % SLOTS);

	copy(pool + at, p, sizeof(*p));
	copy(pool + at + sizeof(*p), data, n);
	set_desc(&d->q[TX], slot, at, sizeof(*p) + n, 0, 0);
	offer(&d->q[TX], (u16)slot);
	kick(d->port);
	for (int i = 0; i < 10000 && !done(&d->q[TX], &head, &len); i++)
		relax();
}

static struct packet make(u32 src, u32 dst, u16 op, u32 len)
{
	struct packet p = { 3, 2, src, dst, len, 1, op, 0, 1 << 18, 0 };

	return p;
}

/* Answers what the host sends: every connection is welcome, data is ignored. */
void vsock_poll(struct device *d)
{
	u32 head, len;
	struct packet p, a;

	while (done(&d->q[RX], &head, &len)) {
		copy(&p, pool + rx_slot(d, head % SLOTS), sizeof(p));
		offer(&d->q[RX], (u16)head);
		kick(d->port);
		if (p.op == OP_REQUEST) {
			a = make(p.dst_port, p.src_port, OP_RESPONSE, 0);
			send(d, &a, "", 0);
		}
	}
}

/* Plays the agent until the host takes the guest for booted. */
int vsock_hello(struct device *d)
{
	u32 hello[8] = { 0x48414358, 1, 0, 0, 0, 0, 0, 0 };
	struct packet p;

	if (!device_up(d, 0))
		return 0;
	post_rx(d);
	p = make(5000, 1, OP_REQUEST, 0);
	send(d, &p, "", 0);
	for (int i = 0; i < 1000; i++) {
		vsock_poll(d);
		relax();
	}
	p = make(5000, 1, OP_RW, sizeof(hello));
	send(d, &p, hello, sizeof(hello));
	for (int i = 0; i < 1000; i++) {
		vsock_poll(d);
		relax();
	}
	return 1;
}

static u32 port(void)
{
	static const u32 known[] = { 0, 1, 2, 1023, 1024, 1025, 5000, 0xffffffff };

	return rnd() % 4 ? known[rnd() % 8] : (u32)rnd();
}

void attack_vsock(void)
{
	static u8 junk[2048];
	struct device d;
	struct packet p;

	while (!vsock_hello(&d))
		relax();
	say("said hello");
	for (u64 n = 0;; n++) {
		u32 len = rnd() % 8 ? rnd() % sizeof(junk) : 0;

		fill(junk, 16);
		p = make(rnd() % 2 ? (u32)n : port(), port(), (u16)(rnd() % 9), len);
		if (rnd() % 4 == 0)	/* floods of connections to where someone listens */
			p = make((u32)n, 1, OP_REQUEST, len = 0);
		if (rnd() % 8 == 0)
			p.len = (u32)nasty();
		if (rnd() % 8 == 0)
			p.buf_alloc = (u32)nasty(), p.fwd_cnt = (u32)nasty();
		if (rnd() % 16 == 0)
			p.src_cid = nasty(), p.dst_cid = nasty();
		if (rnd() % 16 == 0)
			p.type = (u16)rnd(), p.flags = (u32)rnd();
		send(&d, &p, junk, len);
		if (rnd() % 2)
			vsock_poll(&d);
		if (n % 1000 == 999) {
			say_number("packets ", n + 1);
			if (!device_up(&d, 0)) {
				say("the device is gone");
				while (1)
					relax();
			}
			post_rx(&d);
		}
	}
}
