/* SPDX-License-Identifier: Apache-2.0 */
/* The least of a driver, correct enough to be let in (docs/noxs.md 2 to 4). */
#include "hostile.h"

#define ENTRY(i) (128 + 256UL * (i))

/* Asks for what the entry's fields say and waits for the answer, a while. */
static void request(u32 index)
{
	u64 e = ENTRY(index);

	*word(e + 44) += 1;
	kick(*word(e + 4));
	for (long i = 0; i < 100000 && *word(e + 48) != *word(e + 44); i++)
		relax();
}

static void device_reset(struct device *d)
{
	*word(ENTRY(d->index) + 24) = 0;
	request(d->index);
}

int device_up(struct device *d, u32 index)
{
	u64 e = ENTRY(index);

	d->index = index;
	d->port = *word(e + 4);
	d->queues = *word(e + 32);
	d->out = *word(e + 52) * PAGE;
	d->out_len = *word(e + 56) * PAGE;
	d->in = d->out + d->out_len;
	d->in_len = *word(e + 60) * PAGE;
	device_reset(d);
	*word(e + 16) = 0;
	*word(e + 20) = 3;			/* VERSION_1 and ACCESS_PLATFORM */
	*word(e + 24) = 11;
	request(index);
	for (u32 i = 0; i < d->queues; i++) {
		struct queue *q = &d->q[i];
		u64 b = e + 64 + 32 * i;

		q->num = *word(b);
		q->desc = d->out + i * PAGE;
		q->avail = q->desc + 16 * q->num;
		q->used = (q->avail + 6 + 2 * q->num + 7) & ~7UL;
		q->next = q->seen = 0;
		for (u64 o = 0; o < PAGE; o += 8)
			*(volatile u64 *)(pool + q->desc + o) = 0;
		*word(b + 4) = q->num;
		*word(b + 16) = (u32)q->desc;
		*word(b + 20) = (u32)q->avail;
		*word(b + 24) = (u32)q->used;
		*word(b + 8) = 1;
	}
	*word(e + 24) = 15;
	request(index);
	return *word(e + 48) == *word(e + 44) && !(*word(e + 28) & 1);
}

void set_desc(struct queue *q, u32 i, u64 addr, u32 len, u16 flags, u16 next)
{
	volatile u8 *d = pool + q->desc + 16 * i;

	*(volatile u64 *)d = addr;
	*(volatile u32 *)(d + 8) = len;
	*(volatile u16 *)(d + 12) = flags;
	*(volatile u16 *)(d + 14) = next;
}

void offer(struct queue *q, u16 head)
{
	volatile u16 *avail = (volatile u16 *)(pool + q->avail);

	avail[2 + q->next % q->num] = head;
	__sync_synchronize();
	avail[1] = ++q->next;
}

int done(struct queue *q, u32 *head, u32 *len)
{
	volatile u16 *idx = (volatile u16 *)(pool + q->used + 2);
	volatile u32 *e;

	if (q->seen == *idx)
		return 0;
	e = (volatile u32 *)(pool + q->used + 4 + 8 * (q->seen % q->num));
	*head = e[0];
	*len = e[1];
	q->seen++;
	return 1;
}
