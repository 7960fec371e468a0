// SPDX-License-Identifier: GPL-2.0
/*
 * Jumps to the syscall instruction of a site with another number in eax, and to
 * every other instruction in it, before and after the site is hot.
 */
#include "torture.h"

#define DISTANCE 400		/* bytes of a far jump */
#define MAX_CODE 1024

/* How the code comes to the middle of the site. */
enum way {
	BEFORE,		/* a short jump from before it */
	BEHIND,		/* a short jump from behind it */
	FROM_AFAR,	/* a long jump */
	FALLS_IN,	/* a jump over the beginning only: "1: mov $n, %eax; 2: syscall" */
	BY_ADDRESS,	/* a jump whose target nobody can know */
	WAYS
};
static const char *const way_name[WAYS] = {
	"a short jump from before", "a short jump from behind", "a long jump", "a jump over the beginning", "an address",
};

/*
 * A function that executes the site if its second argument is 0, and else jumps to
 * one of its instructions with its first argument in eax. FORM_STACK and
 * FORM_CANCEL have a frame, and the number of the site in it.
 */
struct code {
	long (*run)(long nr, long jump, long, long);
	enum form form;
	enum way way;
	unsigned char *target;
	bool at_syscall;	/* the target is the last instruction */
	int nr;			/* of the site */
};

/* Parts of a form: at which of its bytes instructions begin, but the first one. */
static const struct {
	int start[3], n;
} inner[FORMS] = {
	[FORM_ABS] = { { 5 }, 1 },
	[FORM_NOP] = { { 7 }, 1 },
	[FORM_MOV] = { { 3 }, 1 },
	[FORM_STACK] = { { 5 }, 1 },
	[FORM_CANCEL] = { { 5 }, 1 },
	[FORM_JE] = { { 2, 4 }, 2 },
	[FORM_BARE] = { { 3 }, 1 },
};

static void jump32(unsigned char *p, const unsigned char *to)
{
	int distance = to - p;

	memcpy(p - 4, &distance, 4);
}

/* put writes a function whose jump goes to byte target of its form. */
static unsigned char *put(unsigned char *p, struct code *c, int target)
{
	const int frame = c->form == FORM_STACK || c->form == FORM_CANCEL ? 24 : 0;
	unsigned char *jump, *site;

	c->run = (void *)p;
	BYTES(0x48, 0x83, 0xec, frame);				/* sub $frame, %rsp */
	if (frame)
		BYTES(0x48, 0xc7, 0x44, 0x24, 0x08, c->nr, c->nr >> 8, 0, 0); /* movq $nr, 8(%rsp) */
	BYTES(0x89, 0xf8);					/* mov %edi, %eax */
	BYTES(0x85, 0xf6);					/* test %esi, %esi */
	if (c->way == FROM_AFAR)
		BYTES(0x0f, 0x85, 0, 0, 0, 0);			/* jnz far away */
	else
		BYTES(0x75, 0);					/* jnz near */
	jump = p;
	BYTES(0xb8, c->nr, c->nr >> 8, 0, 0);
	BYTES(0x48, 0x85, 0xe4);				/* test %rsp, %rsp */
	if (c->way == FROM_AFAR) {
		memset(p, 0x90, DISTANCE);
		p += DISTANCE;
	}
	site = p;
	c->target = site + target;
	p = put_form(p, c->form, c->nr, c->form == FORM_MOV ? MOVE : 8);
	BYTES(0x48, 0x83, 0xc4, frame);
	BYTES(0xc3);
	switch (c->way) {
	case FROM_AFAR:
		jump32(jump, c->target);
		break;
	case BEHIND:
		jump[-1] = p - jump;
		BYTES(0xeb, 0);
		p[-1] = c->target - p;
		break;
	case BY_ADDRESS:
		jump[-1] = p - jump;
		BYTES(0xff, 0xe2);				/* jmp *%rdx */
		break;
	case BEFORE:
	case FALLS_IN:
	case WAYS:
		jump[-1] = c->target - jump;
		break;
	}
	return p;
}

/* put_fall writes one whose jump is over the first instruction of the form. */
static unsigned char *put_fall(unsigned char *p, struct code *c, int target)
{
	c->run = (void *)p;
	BYTES(0x89, 0xf8);					/* mov %edi, %eax */
	BYTES(0x85, 0xf6);
	BYTES(0xb9, c->nr, c->nr >> 8, 0, 0);			/* mov $nr, %ecx */
	BYTES(0x0f, 0x44, 0xc1);				/* cmovz %ecx, %eax */
	BYTES(0x75, target);					/* jnz: past the instruction */
	c->target = p + target;
	p = put_form(p, c->form, c->nr, c->form == FORM_MOV ? MOVE : 8);
	BYTES(0xc3);
	return p;
}

#define MAX_CODES (WAYS * FORMS * 2)

static int put_all(unsigned char *p, struct code *c)
{
	int n = 0;

	for (int way = 0; way < WAYS; way++)
		for (int form = 0; form < FORMS; form++)
			for (int i = 0; i < inner[form].n; i++) {
				int target = inner[form].start[i];

				/* A frame would be in the way, or a second jump. */
				if (way == FALLS_IN && (form == FORM_STACK || form == FORM_CANCEL || form == FORM_JE))
					continue;
				c[n] = (struct code){ .form = form, .way = way };
				c[n].nr = form == FORM_JE ? SYS_read : SYS_getpid;
				c[n].at_syscall = i == inner[form].n - 1;
				if (way == FALLS_IN)
					put_fall(p, &c[n], target);
				else
					put(p, &c[n], target);
				p += MAX_CODE;
				n++;
			}
	return n;
}

static long result(int nr)
{
	return nr == SYS_getpid ? getpid() : nr == SYS_getppid ? getppid() : -EBADF;
}

/* straight executes the site from its beginning. */
static bool straight(const struct code *c)
{
	/* For read(2), the first argument is not a descriptor. */
	long want = result(c->nr), got = c->run(-1, 0, (long)c->target, 0);

	if (got == want)
		return true;
	bad("%s, with %s to +%d: result %ld, want %ld", form_name[c->form], way_name[c->way],
	    inner[c->form].start[!c->at_syscall ? 0 : inner[c->form].n - 1], got, want);
	return false;
}

/* over executes the end of it. */
static bool over(const struct code *c)
{
	/* What is behind the beginning of FORM_JE but not at its end makes it a read. */
	int nr = c->at_syscall ? SYS_getppid : c->nr;
	long want = result(nr), got = c->run(c->at_syscall ? nr : -1, 1, (long)c->target, 0);

	if (got == want)
		return true;
	bad("%s, entered at +%d by %s: result %ld, want %ld", form_name[c->form],
	    inner[c->form].start[!c->at_syscall ? 0 : inner[c->form].n - 1], way_name[c->way], got, want);
	return false;
}

/* Which of the two comes first, and how often. */
static void in_order(int straights_first, int overs_first)
{
	static struct code code[MAX_CODES];
	const size_t size = MAX_CODES * MAX_CODE;
	unsigned char *pages = code_pages(size);
	int n = put_all(pages, code);

	seal(pages, size);
	for (int i = 0; i < n; i++) {
		bool good = true;

		for (int k = 0; k < straights_first && good; k++)
			good = straight(&code[i]);
		for (int k = 0; k < overs_first && good; k++)
			good = over(&code[i]);
		for (int k = 0; k < 2 * HOT && good; k++)
			good = straight(&code[i]) && over(&code[i]);
	}
	munmap(pages, size);
	ran(n);
}

static void hot_sites(void) { in_order(HOT, 0); }
static void hot_parts(void) { in_order(0, HOT); }
static void mixed(void) { in_order(0, 0); }

const struct test tests[] = {
	{ "hot sites", hot_sites },
	{ "hot parts", hot_parts },
	{ "mixed", mixed },
	{ NULL, NULL },
};
