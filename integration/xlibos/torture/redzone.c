// SPDX-License-Identifier: GPL-2.0
/*
 * Functions that call no other keep data below the stack pointer, and across their
 * system calls. All 16 words of this red zone have to survive.
 */
#include "torture.h"

#define WORDS 16
#define ROUND 0.3	/* seconds of one test */
#define MAX_CODE 640	/* bytes of one function */

/* How the code gets at the red zone. */
enum way {
	NEAR,		/* n(%rsp), the first word next to the call */
	FRAME,		/* n(%rbp), without a local frame */
	NUMBER,		/* the number of the call is there, too */
	FAR,		/* n(%rsp), the first word far away from the call */
	POINTER,	/* by another register */
	WAYS
};
static const char *const way_name[WAYS] = { "by rsp", "by rbp", "with the number", "by rsp from afar", "by a pointer" };

/*
 * Who rewrites code can see the red zone's use close to the call only. These cases
 * are told of, and count as bad if TORTURE_STRICT is set.
 */
static bool lenient(enum way way)
{
	return way >= FAR && !getenv("TORTURE_STRICT");
}

/* A function that writes the words of its first argument to its red zone, makes a
 * call, and writes what it finds there then to its second one, and the result. */
struct zone {
	void (*run)(const unsigned long in[WORDS], unsigned long out[WORDS + 1]);
	enum form form;
	enum way way;
	int word;	/* the only one that is used, or WORDS for all */
};

/* Moves between a word of an argument and that of the red zone, by r8 or r9. */
static unsigned char *store(unsigned char *p, enum way way, int word)
{
	unsigned char offset = -8 * (word + 1);

	BYTES(0x4c, 0x8b, 0x47, 8 * word);				/* mov n(%rdi), %r8 */
	if (way == FRAME)
		BYTES(0x4c, 0x89, 0x45, offset);			/* mov %r8, n(%rbp) */
	else if (way == POINTER)
		BYTES(0x4d, 0x89, 0x41, 8 * (WORDS - 1 - word));	/* mov %r8, n(%r9) */
	else
		BYTES(0x4c, 0x89, 0x44, 0x24, offset);			/* mov %r8, n(%rsp) */
	return p;
}

static unsigned char *load(unsigned char *p, enum way way, int word)
{
	unsigned char offset = -8 * (word + 1);

	if (way == FRAME)
		BYTES(0x4c, 0x8b, 0x45, offset);
	else if (way == POINTER)
		BYTES(0x4d, 0x8b, 0x41, 8 * (WORDS - 1 - word));
	else
		BYTES(0x4c, 0x8b, 0x44, 0x24, offset);
	BYTES(0x4c, 0x89, 0x46, 8 * word);				/* mov %r8, n(%rsi) */
	return p;
}

/* put_number prepares the call; it may use the stack, but not below it. */
static unsigned char *put_number(unsigned char *p, enum form form, int nr)
{
	if (form == FORM_STACK) {
		BYTES(0x68, nr, nr >> 8, 0, 0);	/* push $nr */
		BYTES(0x50);			/* push %rax */
	} else if (form == FORM_CANCEL) {
		BYTES(0x48, 0x83, 0xec, 0x18);	/* sub $24, %rsp */
	}
	BYTES(0xb8, nr, nr >> 8, 0, 0);
	return p;
}

static unsigned char *put_call(unsigned char *p, const struct zone *z, int nr)
{
	const int rdx_from_rcx = 1 | 2 << 4;

	if (z->form == FORM_JE)
		BYTES(0x48, 0x85, 0xe4);	/* test %rsp, %rsp */
	if (z->form == FORM_MOV)
		return put_form(p, z->form, nr, rdx_from_rcx);
	if (z->way == NUMBER)
		return put_form(p, FORM_STACK, nr, -8 * (z->word + 1));
	return put_form(p, z->form, nr, 8);
}

static void put_zone(unsigned char *p, struct zone *z)
{
	const unsigned char *begin = p;
	int nr = z->form == FORM_JE ? SYS_read : SYS_getpid;
	int first = z->word == WORDS ? 0 : z->word, last = z->word == WORDS ? WORDS - 1 : z->word;

	z->run = (void *)p;
	p = put_number(p, z->form, nr);
	if (z->way == FRAME)
		BYTES(0x55, 0x48, 0x89, 0xe5);		/* push %rbp; mov %rsp, %rbp */
	else if (z->way == POINTER)
		BYTES(0x4c, 0x8d, 0x4c, 0x24, 0x80);	/* lea -128(%rsp), %r9 */
	/* The first word is the one at risk. */
	for (int i = 0; i <= last - first; i++)
		p = store(p, z->way, z->way == FAR ? first + i : last - i);
	if (z->way == FAR) {
		memset(p, 0x90, 100);
		p += 100;
	}
	p = put_call(p, z, nr);
	if (z->way == FAR) {
		memset(p, 0x90, 100);
		p += 100;
	}
	for (int i = 0; i <= last - first; i++)
		p = load(p, z->way, z->way == FAR ? last - i : first + i);
	BYTES(0x48, 0x89, 0x86, WORDS * 8, 0, 0, 0);	/* mov %rax, 128(%rsi) */
	if (z->way == FRAME)
		BYTES(0x5d);				/* pop %rbp */
	if (z->form == FORM_STACK)
		BYTES(0x48, 0x83, 0xc4, 0x10);
	else if (z->form == FORM_CANCEL)
		BYTES(0x48, 0x83, 0xc4, 0x18);
	BYTES(0xc3);
	if (p > begin + MAX_CODE)
		abort();
}

#define MAX_ZONES (WAYS * FORMS * (WORDS + 1))
static struct zone zone[MAX_ZONES];
static int zones;

static bool has(enum way way, enum form form)
{
	/* A rewritten site is not for red zones. */
	if (form == FORM_CALL)
		return false;
	if (way == NUMBER)
		return form == FORM_ABS; /* which stands for all */
	/* Their frames are on the same stack. */
	if (way == FRAME)
		return form != FORM_STACK && form != FORM_CANCEL;
	return true;
}

static void build(void)
{
	const size_t size = MAX_ZONES * MAX_CODE;
	unsigned char *p = code_pages(size);

	for (int way = 0; way < WAYS; way++)
		for (int form = 0; form < FORMS; form++)
			for (int word = 0; word <= WORDS; word++) {
				if (!has(way, form) || (way == NUMBER && word == WORDS))
					continue;
				zone[zones] = (struct zone){ .form = form, .way = way, .word = word };
				put_zone(p, &zone[zones++]);
				p += MAX_CODE;
			}
	seal(p - zones * MAX_CODE, size);
}

/* check runs a function once and looks at all words that it uses. */
static bool check(const struct zone *z, unsigned long *seed)
{
	unsigned long in[WORDS], out[WORDS + 1];
	int first = z->word == WORDS ? 0 : z->word, last = z->word == WORDS ? WORDS - 1 : z->word;
	long want = z->form == FORM_JE ? -EBADF : getpid();

	for (int i = 0; i < WORDS; i++)
		out[i] = in[i] = draw(seed);
	if (z->way == NUMBER)
		in[z->word] = SYS_getpid;
	z->run(in, out);
	progress++;
	for (int i = first; i <= last; i++)
		if (out[i] != in[i]) {
			(lenient(z->way) ? note : bad)("%s: the word at %d(%%rsp), used %s, was %#lx and is %#lx",
						       form_name[z->form], -8 * (i + 1), way_name[z->way], in[i], out[i]);
			return false;
		}
	if ((long)out[WORDS] == want)
		return true;
	bad("%s: result %ld, want %ld", form_name[z->form], (long)out[WORDS], want);
	return false;
}

static void survive(bool signals)
{
	static unsigned long seed = 4711;
	static bool told[MAX_ZONES];
	double end = now() + ROUND;

	if (!zones)
		build();
	if (signals)
		start_alarms(NULL, 0);
	do {
		for (int i = 0; i < zones; i++)
			for (int n = 0; n < HOT && !told[i]; n++)
				if (!check(&zone[i], &seed))
					told[i] = true;
		ran(zones * HOT);
	} while (now() < end);
	if (signals)
		stop_alarms();
}

static void alone(void) { survive(false); }
static void under_signals(void) { survive(true); }

const struct test tests[] = {
	{ "alone", alone },
	{ "under signals", under_signals },
	{ NULL, NULL },
};
